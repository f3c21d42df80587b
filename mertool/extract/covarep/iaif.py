"""Iterative adaptive inverse filtering: the glottal flow from the speech signal.

P. Alku, "Glottal wave analysis with pitch synchronous iterative adaptive inverse filtering", Speech
Communication 11(2-3), 1992.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from mertool.errors import DataError
from mertool.extract.covarep.signals import blocks, cosines, fir, fir_within, half_up, levinson, lpc

LEAK = 0.99  # d of the leaky integrator 1/(1 - d/z) that undoes the radiation at the lips
SETTLED = 4200  # samples after which the integrator has forgotten: LEAK**SETTLED < 1e-18
LONG = 1 << 16  # frames above this many samples are worked on in blocks
CELLS = 1 << 15  # samples of a batch of frames: its arrays fit into the cache


def orders(fs: float) -> tuple[int, int]:
    """Prediction orders of the glottis and of the vocal tract [8 and 20 at 16 kHz]."""
    return 2 * int(half_up(fs / 4000)), 2 * int(half_up(fs / 2000)) + 4


@lru_cache(maxsize=8)
def high_pass(fs: float) -> np.ndarray:
    """Linear-phase FIR of 301 taps at 16 kHz that stops up to 40 Hz and passes from 70 Hz."""
    from scipy import signal

    order = int(half_up(300 / 16000 * fs))
    return signal.firls(order + order % 2 + 1, [0, 40, 70, fs / 2], [0, 0, 1, 1], fs=fs)


def groups(sizes: np.ndarray, ratio: float = 1.3) -> Iterator[np.ndarray]:
    """Indices of items of about equal size, so that padding a batch wastes little.

    Args:
        sizes: (F,) positive.
        ratio: Largest over smallest size within a group.

    Yields:
        (n,) indices, by rising size.
    """
    order = np.argsort(sizes, kind="stable")
    ranked = sizes[order]
    start = 0
    while start < len(order):
        stop = int(np.searchsorted(ranked, ranked[start] * ratio, side="right"))
        stop = min(stop, start + max(1, int(CELLS // ranked[start])))
        yield order[start:stop]
        start = stop


def windows(lengths: np.ndarray, width: int) -> np.ndarray:
    """Hann windows without zero end points, (F, width), 0 behind each one's length."""
    w = 0.5 - 0.5 * cosines(2 * np.pi / (lengths + 1), width + 1)[:, 1:]
    w[np.arange(width) >= lengths[:, None]] = 0
    return w


def iaif(
    frames: np.ndarray, fs: float, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Glottal flow and its derivative of windowed frames, by IAIF (Alku 1992).

    Args:
        frames: (F, L) Hann-windowed samples.
        fs: Sampling rate in Hz.
        lengths: (F,) samples of each frame, 0 behind them; all L if not given. Each has to be
            above the vocal tract's order, 20 at 16 kHz.

    Returns:
        Flow and derivative, (F, L) each, NaN where a frame has no energy. What stands behind a
        frame's length has no meaning.

    Raises:
        DataError: A frame is too short.
    """
    if lengths is None:
        lengths = np.full(len(frames), frames.shape[1])
    cut = orders(fs)[1] + 1
    if not len(lengths):
        return np.zeros(frames.shape), np.zeros(frames.shape)
    if lengths.min() < cut:
        raise DataError(
            f"A frame of {lengths.min()} samples is too short for inverse filtering.",
            f"{cut} are the fewest at {fs:g} Hz",
            "Leave it out, as glottal_flow does.",
        )
    return _iaif(frames, windows(lengths, frames.shape[1]), fs)


def _iaif(frames: np.ndarray, w: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """`iaif` of frames, given the windows that they were multiplied with."""
    from scipy import signal

    glottis, tract = orders(fs)
    cut = tract + 1
    x = _high_passed(frames, high_pass(fs))
    x *= w > 0
    # A ramp up to the first sample keeps the filters from seeing a step there.
    s = np.concatenate([x[:, :1] * np.linspace(-1, 1, cut), x], axis=1)
    # Filters commute, so the integrator runs once, not behind every one of them.
    integrated = signal.lfilter([1], [1, -LEAK], s, axis=1)
    y = fir_within(lpc(x * w, 1), s[:, cut - 1 :])
    y = fir_within(lpc(y * w, tract), integrated[:, cut - tract :])
    y = fir_within(lpc(y * w, glottis), integrated[:, cut - glottis :])
    inverse = lpc(y * w, tract)
    return tuple(fir_within(inverse, source[:, cut - tract :]) for source in (integrated, s))


def _high_passed(frames: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Frames filtered by symmetric taps, without delay, of their length."""
    from scipy import fft

    reach, length = len(taps) // 2, frames.shape[1]
    # What lies beyond the end may wrap around: it does not come back as far as the frame.
    points = fft.next_fast_len(length + reach, real=True)
    kernel = np.zeros(points)
    kernel[: reach + 1], kernel[-reach:] = taps[reach:], taps[:reach]
    spectrum = fft.rfft(frames, points)
    spectrum *= fft.rfft(kernel).real
    return fft.irfft(spectrum, points, overwrite_x=True)[:, :length]


class LongFrame:
    """IAIF of one frame too long to be held: every pass reads the signal again, in blocks.

    Args:
        x: (S,) the signal.
        fs: Sampling rate in Hz.
        start: First sample of the frame.
        stop: The one behind its last.
    """

    def __init__(self, x: np.ndarray, fs: float, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._frame, self._taps = x[start:stop], high_pass(fs)
        glottis, self._tract = orders(fs)
        self._first = self._filtered(0, 1)[0]
        one = self._lpc(np.ones(1), 1, False)
        first_tract = self._lpc(one, self._tract, False)
        source = self._lpc(first_tract, glottis, True)
        self._inverse = self._lpc(source, self._tract, True)

    def part(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """Flow and derivative of the frame's samples [a, b), (b - a,) each."""
        return tuple(self._inverse_filter(self._inverse, a, b, which) for which in (True, False))

    def _windowed(self, a: int, b: int) -> np.ndarray:
        """The Hann-windowed samples [a, b), 0 outside the frame."""
        out = np.zeros(b - a)
        low, high = max(a, 0), min(b, len(self._frame))
        out[low - a : high - a] = self._frame[low:high] * self._window(low, high)
        return out

    def _window(self, a: int, b: int) -> np.ndarray:
        return 0.5 - 0.5 * np.cos(2 * np.pi / (len(self._frame) + 1) * np.arange(a + 1, b + 1))

    def _filtered(self, a: int, b: int) -> np.ndarray:
        from scipy import signal

        reach = len(self._taps) // 2
        return signal.oaconvolve(self._windowed(a - reach, b + reach), self._taps, mode="valid")

    def _source(self, a: int, b: int, integrate: bool) -> np.ndarray:
        """The filters' input at [a, b): from -(order + 1) on the ramp, then the frame."""
        from scipy import signal

        begin = -self._tract - 1
        low = max(a - SETTLED, begin) if integrate else max(a, begin)
        s = np.linspace(-self._first, self._first, -begin)[low - begin : b - begin]
        if b > 0:
            s = np.concatenate([s if low < 0 else s[:0], self._filtered(max(low, 0), b)])
        if integrate:
            s = signal.lfilter([1], [1, -LEAK], s)
        out = np.zeros(b - a)
        tail = s[max(len(s) - len(out), 0) :]
        out[len(out) - len(tail) :] = tail
        return out

    def _inverse_filter(self, taps: np.ndarray, a: int, b: int, integrate: bool) -> np.ndarray:
        order = len(taps) - 1
        return fir(taps[None], self._source(a - order, b, integrate)[None])[0, order:]

    def _lpc(self, taps: np.ndarray, order: int, integrate: bool) -> np.ndarray:
        """Linear prediction of the filtered and windowed frame, (order + 1,)."""
        r = np.zeros(order + 1)
        for a, b in blocks(len(self._frame)):
            y = np.zeros(b - a + order)  # with the samples before, to which the lags reach
            low = max(a - order, 0)
            y[low - a + order :] = self._inverse_filter(taps, low, b, integrate)
            y[low - a + order :] *= self._window(low, b)
            for lag in range(order + 1):
                r[lag] += y[order:] @ y[order - lag : len(y) - lag]
        return levinson(r[None])[0]


class Flow:
    """Glottal flow over a signal, computed where it is asked for.

    Every GCI has a frame of two periods around it; their flows are added up.

    Args:
        x: (S,) finite samples.
        fs: Sampling rate in Hz.
        gci: (G,) glottal closure instants, rising samples; fewer than two give no flow.
    """

    def __init__(self, x: np.ndarray, fs: float, gci: np.ndarray) -> None:
        self.x, self.fs = x, fs
        period = periods(gci)
        # The original takes a position from 0 as one from 1: the frame lies a sample early.
        self.start = np.maximum(gci - 1 - period, 0)
        self.stop = np.minimum(gci + period, len(self.x))
        kept = (period > 0) & (self.stop - self.start > orders(fs)[1])
        self.start, self.stop = self.start[kept], self.stop[kept]
        length = self.stop - self.start
        self._long = [
            LongFrame(self.x, fs, a, b)
            for a, b in zip(self.start[length > LONG], self.stop[length > LONG], strict=True)
        ]
        self.start, self.stop = self.start[length <= LONG], self.stop[length <= LONG]

    def part(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Flow and derivative of the samples [low, high), (high - low,) each."""
        out = np.zeros(high - low), np.zeros(high - low)
        here = (self.start < high) & (self.stop > low)
        start, length = self.start[here], (self.stop - self.start)[here]
        for group in groups(length):
            n = np.arange(length[group].max())
            at = start[group, None] + n
            w = windows(length[group], len(n))
            frames = self.x[np.minimum(at, len(self.x) - 1)] * w
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                parts = _iaif(frames, w, self.fs)
            inside = (n < length[group, None]) & (at >= low) & (at < high)
            at = at[inside] - low
            for whole, part in zip(out, parts, strict=True):
                np.add.at(whole, at, part[inside])
        for frame in self._long:
            a, b = max(frame.start, low), min(frame.stop, high)
            if a < b:
                parts = frame.part(a - frame.start, b - frame.start)
                for whole, part in zip(out, parts, strict=True):
                    whole[a - low : b - low] += part
        return out


def periods(gci: np.ndarray) -> np.ndarray:
    """Samples from the GCI before, (G,); the first has that of the second, a lone one 0."""
    return np.diff(gci, prepend=2 * gci[:1] - gci[1:2] if len(gci) > 1 else gci[:1])
