"""Harmonic analysis: amplitudes and phases of the multiples of F0, frame by frame.

X. Serra, "A system for sound analysis/transformation/synthesis based on a deterministic plus
stochastic decomposition", PhD thesis, Stanford, 1989; as the analysis that precedes G. Degottex,
A. Roebel, X. Rodet, "Phase minimization for glottal model estimation", IEEE TASLP 19(5), 2011.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mertool.extract.covarep.pitch import Pitch
from mertool.extract.covarep.signals import check_signal, cosines, half_up

DFT = 4096  # points of the Fourier transform, at every rate
PERIODS = 3  # periods of F0 in a window
UNKNOWN = 100.0  # Hz, where F0 is 0
LOWEST = 50.0  # Hz: below it F0 is the tracker's 1 Hz, "no candidate"
FRAMES, LOW_FRAMES = 64, 8  # frames in a block: of speech, and of those with thousands of harmonics


@dataclass(frozen=True)
class Harmonics:
    """Some consecutive analysed frames. Harmonic 0 is the mean (0 Hz).

    Attributes:
        frame: (F,) index of the frame in the pitch track.
        centre: (F,) position of the frame in the pitch track, a sample from 0.
        f0: (F,) Hz, of the pitch track.
        spacing: (F,) Hz, median distance of neighbouring harmonics: harmonic h lies at h * spacing.
        count: (F,) number of harmonics H, without harmonic 0.
        amplitude: (F, 1 + max H); 0 above a frame's own H.
        phase: (F, 1 + max H) rad in [-pi, pi], at the window's centre; 0 above a frame's own H.
        spectrum: (F, DFT / 2 + 1) magnitudes, from 0 Hz to fs / 2.
    """

    frame: np.ndarray
    centre: np.ndarray
    f0: np.ndarray
    spacing: np.ndarray
    count: np.ndarray
    amplitude: np.ndarray
    phase: np.ndarray
    spectrum: np.ndarray


def harmonic_frames(
    fs: float, samples: int, pitch: Pitch
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which frames `harmonics` analyses: those whose window lies inside the signal.

    A frame without any F0 candidate has F0 = 1 Hz, hence a window of three seconds: the original
    keeps it where it fits.

    Args:
        fs: Hz.
        samples: Length of the signal.
        pitch: The pitch track.

    Returns:
        (K,) indices of the frames in the pitch track, (K,) their F0 in Hz, (K,) their number of
        harmonics.
    """
    f0 = np.where(pitch.f0 > 0, pitch.f0, UNKNOWN)
    half = half_up(PERIODS * fs / f0 / 2)
    # The original centres the window one sample behind the position of the pitch frame.
    middle = pitch.centre + 1
    frame = np.flatnonzero((middle >= half) & (middle + half < samples))
    f0 = f0[frame]
    return frame, f0, np.maximum(half_up((fs / 2 - f0 / 2) / f0), 1)


def harmonics(x: np.ndarray, fs: float, pitch: Pitch) -> Iterator[Harmonics]:
    """Amplitudes and phases of the harmonics of every frame, in blocks, in time order.

    A Blackman window of three periods, a Fourier transform; a harmonic is the spectral peak
    nearest to h * F0 if it lies within F0 / 2 of it, else the spectrum at h * F0 itself.

    Args:
        x: (S,) samples.
        fs: Hz.
        pitch: The pitch track of x.

    Yields:
        Blocks of consecutive frames of `harmonic_frames`. No block mixes frames of F0 < 50 Hz,
        which have thousands of harmonics, with others.

    Raises:
        DataError: x is no row of finite numbers, or fs is out of range.
    """
    x = check_signal(x, fs)
    frame, f0, count = harmonic_frames(fs, len(x), pitch)
    low = f0 < LOWEST
    bounds = [0, *(np.flatnonzero(low[1:] != low[:-1]) + 1), len(frame)]
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        size = LOW_FRAMES if stop > start and low[start] else FRAMES
        for a in range(start, stop, size):
            b = min(a + size, stop)
            yield _analyse(x, fs, frame[a:b], pitch.centre[frame[a:b]], f0[a:b], count[a:b])


def _analyse(
    x: np.ndarray,
    fs: float,
    frame: np.ndarray,
    centre: np.ndarray,
    f0: np.ndarray,
    count: np.ndarray,
) -> Harmonics:
    """Analyse a block of frames."""
    from scipy import fft

    half = half_up(PERIODS * fs / f0 / 2)
    spectrum = fft.rfft(_windowed(x, centre + 1, half), DFT, axis=1)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2)

    rows = np.arange(len(f0))[:, None]
    h = np.arange(1, count.max() + 1)
    valid = h <= count[:, None]
    step = DFT * f0[:, None] / fs
    bins = np.minimum(h * step, DFT // 2)
    bins *= valid
    whole = (bins + 0.5).astype(np.int64)
    amplitude = magnitude[rows, whole]

    row, peak, height = _peaks(magnitude)
    if len(peak):
        near, some = _nearest(row, peak, bins, whole)
        away = peak[near]
        taken = (np.abs(away - bins) < step / 2) & valid & some[:, None]
        np.copyto(bins, away, where=taken)
        np.copyto(amplitude, height[near], where=taken)

    phase = _phases(spectrum, bins, half)
    gaps = np.where(valid, np.diff(bins * (fs / DFT), axis=1, prepend=0.0), np.inf)
    ranks = np.stack([(count - 1) // 2, count // 2])
    gaps.partition(np.unique(ranks), axis=1)
    return Harmonics(
        frame=frame,
        centre=centre,
        f0=f0,
        spacing=gaps[rows[:, 0], ranks].mean(axis=0),
        count=count,
        amplitude=np.hstack([magnitude[:, :1], amplitude * valid]),
        phase=np.hstack([np.angle(spectrum[:, :1]), phase * valid]),
        spectrum=magnitude,
    )


def _windowed(x: np.ndarray, middle: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Blackman-windowed frames of 2 half + 1 samples, zeros behind them; windows sum to 1.

    The transform reads DFT samples of a longer frame, its beginning, as in the original.
    """
    n = np.arange(min(2 * half.max() + 1, DFT))
    frames = x[np.minimum((middle - half)[:, None] + n, len(x) - 1)].astype(np.float64)
    cosine = cosines(np.pi / half, len(n))
    # 0.42 - 0.5 cos(t) + 0.08 cos(2t), whose sum over the frame is 0.42 * (length - 1).
    window = (0.34 - 0.5 * cosine + 0.16 * cosine**2) / (0.84 * half)[:, None]
    window[n > 2 * half[:, None]] = 0
    frames *= window
    return frames


def _peaks(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local maxima of spectra, refined by a parabola through the log of three bins.

    Args:
        magnitude: (F, B).

    Returns:
        (P,) row of each peak, (P,) its bin (fractional), (P,) its height; by row, then bin.
    """
    width = magnitude.shape[1]
    flat = magnitude.ravel()
    rising = magnitude[:, 1:] > magnitude[:, :-1]
    turning = np.zeros(magnitude.shape, bool)
    np.greater(rising[:, :-1], rising[:, 1:], out=turning[:, 1:-1])
    at = np.flatnonzero(turning)
    row, k = np.divmod(at, width)
    level = np.flatnonzero(flat[at] == flat[at + 1])
    if len(level):  # rare: a plateau counts at its centre, if the spectrum falls behind it
        keep = np.ones(len(k), dtype=bool)
        for i in level:
            after = np.flatnonzero(magnitude[row[i], k[i] :] != magnitude[row[i], k[i]])
            keep[i] = len(after) > 0 and magnitude[row[i], k[i] + after[0]] < flat[at[i]]
            k[i] += (after[0] - 1) // 2 if keep[i] else 0
        row, k = row[keep], k[keep]
        at = row * width + k
    with np.errstate(divide="ignore", invalid="ignore"):
        before, top, after = np.log(flat[at - 1]), np.log(flat[at]), np.log(flat[at + 1])
        slope = (after - before) / 2
        bend = top - slope - before
        usable = np.isfinite(slope) & (bend > 0)
        shift = np.where(usable, slope / bend / 2, 0.0)
        height = np.exp(np.where(usable, top + shift * slope / 2, top))
    return row, k + shift, height


def _nearest(
    row: np.ndarray, peak: np.ndarray, bins: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the row's peaks is nearest to each of (F, H) bins; the lower of two equally near.

    Args:
        row: (P,) of each peak.
        peak: (P,) its bin, fractional.
        bins: (F, H) fractional.
        whole: (F, H) the whole bins nearest to them.

    Returns:
        (F, H) indices, of anything where a row has no peaks; (F,) whether it has any.
    """
    # Of whole bins the peaks are at least two apart, and off by half a bin at most: the nearest is
    # the last one up to the whole bin, or the next. Counting is faster than searching.
    width = DFT // 2 + 1
    upto = np.zeros(len(bins) * width, np.int32)
    upto[row * width + (peak + 0.5).astype(np.int64)] = 1
    np.cumsum(upto, out=upto)
    after = upto[whole + width * np.arange(len(bins))[:, None]]
    stop = np.cumsum(np.bincount(row, minlength=len(bins)))
    start = np.concatenate([[0], stop[:-1]])
    before = np.clip(after - 1, start[:, None], stop[:, None] - 1)
    after = np.minimum(after, stop[:, None] - 1)
    farther = np.abs(peak[before] - bins) > np.abs(peak[after] - bins)
    return np.where(farther, after, before), stop > start


def _phases(spectrum: np.ndarray, bins: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Phases at (F, H) fractional bins, referred to the window's centre.

    Linear in the unwrapped phase, of which only the difference of the two bins around is needed.
    """
    lower = np.minimum(bins.astype(np.int64), DFT // 2 - 1)
    rows, half = np.arange(len(bins))[:, None], half[:, None]
    every = 2 * bins.shape[1] > DFT  # more harmonics than bins
    k = np.arange(DFT // 2)[None] if every else lower
    low, high = np.angle(spectrum[rows, k]), np.angle(spectrum[rows, k + 1])
    # A window that begins `half` before its centre: the spectrum turns by 2 pi half / DFT a bin.
    turn = 2 * np.pi / DFT
    rise = _wrap(high - low + turn * (half % DFT))
    low += turn * (k * half % DFT)
    if every:
        low, rise = low[rows, lower], rise[rows, lower]
    rise *= bins - lower
    rise += low
    return _wrap(rise)


def _wrap(phase: np.ndarray) -> np.ndarray:
    """Phase in [-pi, pi]."""
    return phase - 2 * np.pi * np.rint(phase / (2 * np.pi))
