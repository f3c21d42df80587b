"""What the stages share: checks, windows, linear prediction, zero-phase filters, interpolation.

Signals are (S,) arrays; a position is the index of a sample, from 0. Signals are read in blocks, so
that ten minutes take little more memory than ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mertool.errors import DataError

RATES = (8000, 48000)  # Hz, lowest and highest sampling rate
BLOCK = 1 << 17  # samples read at a time: eight seconds at 16 kHz


def check_signal(x: np.ndarray, fs: float) -> np.ndarray:
    """The signal as a (S,) array, float32 or float64; integers count as PCM, whose full scale is 1.

    Raises:
        DataError: It is no row of finite numbers, or its rate lies outside `RATES`.
    """
    x = np.asarray(x)
    if x.dtype.kind == "i":
        x = x / (np.iinfo(x.dtype).max + 1.0)
    elif x.dtype.kind != "f":
        raise DataError(
            "A signal is made of real numbers, or of signed integers (PCM).",
            f"{x.dtype}",
            "Convert it first: x.astype(float).",
        )
    elif x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float64)
    if x.ndim != 1:
        raise DataError(
            f"A signal has one dimension, this one has {x.ndim}.",
            f"shape {x.shape}",
            "Give one channel: x[:, 0], or the mean of all.",
        )
    if not all(np.isfinite(x[a:b]).all() for a, b in blocks(len(x))):
        raise DataError(
            "The signal holds values that are no finite numbers.",
            f"{len(x)} samples",
            "Mend it first: numpy.nan_to_num(x).",
        )
    if not RATES[0] <= fs <= RATES[1]:
        raise DataError(
            f"A sampling rate of {fs:g} Hz cannot be analysed.",
            f"fs={fs:g}",
            f"Resample to 16000 Hz; {RATES[0]} to {RATES[1]} Hz are possible.",
        )
    return x


def blocks(count: int, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Consecutive stretches [start, stop) of `size` that cover `count`."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def half_up(x: np.ndarray | float) -> np.ndarray:
    """Round to the nearest integer, halves away from zero, as MATLAB does."""
    x = np.asarray(x)
    return (np.sign(x) * np.floor(np.abs(x) + 0.5)).astype(np.int64)


def hanning(length: int) -> np.ndarray:
    """Hann window without its zero end points, (length,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, length + 1) / (length + 1))


def cosines(step: np.ndarray, count: int) -> np.ndarray:
    """cos(n * step), n = 0 to `count` - 1, by the addition theorem: a fifth of cos's time.

    Args:
        step: (F,) rad.
        count: N.

    Returns:
        (F, N).
    """
    high = step[:, None, None] * np.arange(0, count, 32)[:, None]
    low = step[:, None] * np.arange(32)
    out = np.cos(high) * np.cos(low)[:, None]
    out -= np.sin(high) * np.sin(low)[:, None]
    return out.reshape(len(step), -1)[:, :count]


def autocorrelation(frames: np.ndarray, order: int) -> np.ndarray:
    """Autocorrelation at lags 0 to `order` of every frame.

    Args:
        frames: (F, L) samples.
        order: Highest lag, below L.

    Returns:
        (F, order + 1), not divided by L.
    """
    length = frames.shape[1]
    r = np.empty((len(frames), order + 1, 1, 1))
    for lag in range(order + 1):  # as matmul, a dot product of BLAS each: half of einsum's time
        np.matmul(frames[:, None, lag:], frames[:, : length - lag, None], out=r[:, lag])
    return r[:, :, 0, 0]


def levinson(r: np.ndarray) -> np.ndarray:
    """Prediction-error filters of autocorrelations: Levinson-Durbin, all frames at once.

    Args:
        r: (F, p + 1) autocorrelation at lags 0 to p.

    Returns:
        (F, p + 1), the first column 1; NaN where there is no energy.
    """
    order = r.shape[1] - 1
    r = np.ascontiguousarray(r.T)  # every step works on whole rows: one lag of all frames
    a = np.zeros_like(r)
    a[0] = 1
    error = r[0].copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        for i in range(1, order + 1):
            k = -np.einsum("jf,jf->f", a[:i], r[i:0:-1]) / error
            a[1 : i + 1] += k * a[i - 1 :: -1][:i]
            error *= 1 - k * k
    a[:, r[0] <= 0] = np.nan
    return a.T


def lpc(frames: np.ndarray, order: int) -> np.ndarray:
    """Linear prediction by the autocorrelation method.

    J. Makhoul, "Linear prediction: a tutorial review", Proceedings of the IEEE 63(4), 1975.

    Args:
        frames: (F, L) windowed samples.
        order: p.

    Returns:
        (F, p + 1) prediction-error filters [1, a_1 .. a_p]; NaN where a frame has no energy.
    """
    return levinson(autocorrelation(frames, order))


def fir(filters: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Filter every frame with its own FIR filter, from rest.

    Args:
        filters: (F, p + 1).
        frames: (F, L).

    Returns:
        (F, L).
    """
    order = filters.shape[1] - 1
    padded = np.zeros((len(frames), order + frames.shape[1]))
    padded[:, order:] = frames
    return fir_within(filters, padded)


def fir_within(filters: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Filter every frame with its own FIR filter, where the whole filter lies within it.

    Args:
        filters: (F, p + 1).
        frames: (F, p + L), the first p samples those before.

    Returns:
        (F, L).
    """
    spans = sliding_window_view(frames, filters.shape[1], axis=1)
    return np.einsum("flj,fj->fl", spans, np.ascontiguousarray(filters[:, ::-1]))


def zero_phase(
    x: np.ndarray, sos: np.ndarray, padding: int, overwrite_x: bool = False
) -> np.ndarray:
    """Filter forwards and backwards, without phase shift.

    As scipy.signal.sosfiltfilt with an odd extension, but with one array of the signal's length.

    Args:
        x: (S,) samples.
        sos: (sections, 6) second-order sections.
        padding: Samples of the odd extension at either end; fewer for a shorter signal.
        overwrite_x: Put the result in the place of x, which then is float64.

    Returns:
        (S,) float64.
    """
    from scipy import signal

    count = len(x)
    if not count:
        return np.zeros(0)
    padding = min(padding, count - 1)
    ends = x[: padding + 1].astype(np.float64), x[count - padding - 1 :].astype(np.float64)
    head = 2 * ends[0][0] - ends[0][:0:-1]
    tail = 2 * ends[1][-1] - ends[1][-2::-1]
    rest = signal.sosfilt_zi(sos)
    y = x if overwrite_x else np.empty(count)
    state = rest * (head[0] if padding else ends[0][0])
    if padding:
        _, state = signal.sosfilt(sos, head, zi=state)
    for a, b in blocks(count):
        y[a:b], state = signal.sosfilt(sos, x[a:b].astype(np.float64), zi=state)
    if padding:
        tail, _ = signal.sosfilt(sos, tail, zi=state)
        _, state = signal.sosfilt(sos, tail[::-1], zi=rest * tail[-1])
    else:
        state = rest * y[-1]
    for a, b in reversed(list(blocks(count))):
        part, state = signal.sosfilt(sos, y[a:b][::-1], zi=state)
        y[a:b] = part[::-1]
    return y


def interpolate(at: np.ndarray, values: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Piecewise linear interpolation, NaN outside the first and the last position.

    Args:
        at: (F,) increasing positions.
        values: (F,) or (F, D).
        query: (T,) positions.

    Returns:
        (T,) or (T, D).
    """
    if not len(at):
        return np.full((len(query), *values.shape[1:]), np.nan)
    if values.ndim == 1:
        return np.interp(query, at, values, left=np.nan, right=np.nan)
    return np.stack([interpolate(at, column, query) for column in values.T], axis=1)
