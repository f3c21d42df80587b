"""Pitch and voicing from the residual's harmonics.

T. Drugman and A. Alwan, "Joint robust voicing detection and pitch estimation based on residual
harmonics", Interspeech 2011 (SRH).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mertool.errors import UsageError
from mertool.extract.covarep.residual import lp_residual
from mertool.extract.covarep.signals import check_signal, half_up

HIGHEST_RATE = 16000  # Hz; a faster signal is brought down to it
HARMONICS = 5
BATCH = 32  # frames transformed at a time
TAPS, CHUNK = 14, 8  # bins that each one between them is interpolated from; bins that share some
SURE = 0.1  # strength above which a frame tells the speaker's range


@dataclass(frozen=True)
class Pitch:
    """A pitch track: F frames, every 10 ms.

    Attributes:
        centre: (F,) int64, the sample in the middle of each frame.
        f0: (F,) Hz, whole numbers, also where unvoiced; 1 where there are no harmonics at all.
        strength: (F,) summed residual harmonics.
        voiced: (F,) bool.
    """

    centre: np.ndarray
    f0: np.ndarray
    strength: np.ndarray
    voiced: np.ndarray

    @property
    def median(self) -> float:
        """Median F0 in Hz of the voiced frames, between 50 and 500 Hz; NaN without any."""
        kept = self.f0[self.voiced & (self.f0 > 50) & (self.f0 < 500)]
        return float(np.median(kept)) if len(kept) else float("nan")


def pitch_srh(x: np.ndarray, fs: float, f0_min: int = 50, f0_max: int = 500) -> Pitch:
    """F0 and voicing by the summation of residual harmonics.

    SRH(f) = sum_{h=1..5} E(h f) - sum_{h=1..4} E((h + 1/2) f) over the amplitude spectrum E of
    100 ms of the residual; a second pass searches from half to twice the
    median of the first.

    Args:
        x: (S,) samples.
        fs: Sampling rate in Hz; above 16000 the signal is resampled to 16000.
        f0_min: Lowest F0, Hz.
        f0_max: Highest F0, Hz.

    Returns:
        The track; empty for less than 100 ms.

    Raises:
        DataError: x is no finite signal, or fs is out of range.
        UsageError: The range of F0 is empty or does not fit the sampling rate.
    """
    x = check_signal(x, fs)
    rate = int(half_up(min(fs, HIGHEST_RATE)))
    if not 2 <= f0_min < f0_max or 2 * HARMONICS * f0_max > rate:
        raise UsageError(
            f"No F0 between {f0_min} and {f0_max} Hz can be found at {fs:g} Hz.",
            f"f0_min={f0_min}, f0_max={f0_max}",
            f"Use 2 <= f0_min < f0_max <= {rate // (2 * HARMONICS)}.",
        )
    if fs > rate:
        from scipy import signal

        ratio = Fraction(rate / fs).limit_denominator(1000)
        x = signal.resample_poly(x, ratio.numerator, ratio.denominator)
    half = int(half_up((half_up(0.1 * rate) - 2) / 2))
    centre = np.arange(half, len(x) - half, half_up(0.01 * rate))
    residual = lp_residual(x, rate, int(half_up(0.75 * rate / 1000)))
    low, high = f0_min, f0_max
    f0, strength = _strongest(residual, centre - half, 2 * half, rate, low, high)
    if (sure := strength > SURE).any():
        median = np.median(f0[sure])
        low = max(low, int(half_up(0.5 * median)))
        high = min(high, int(half_up(2 * median)))
    # Second pass. A maximum that lies in the narrower range remains the maximum, and frames
    # without any stay without: only the others are analysed again.
    again = np.flatnonzero((f0 < low) & (f0 > 1) | (f0 > high))
    f0[again], strength[again] = _strongest(
        residual, centre[again] - half, 2 * half, rate, low, high
    )
    spread = strength.std(ddof=1) if len(strength) > 1 else 0.0
    if fs > rate:
        centre = half_up((centre + 1) * (fs / rate)) - 1
    return Pitch(centre, f0, strength, strength > (0.085 if spread > 0.05 else 0.07))


def _strongest(
    residual: np.ndarray, start: np.ndarray, length: int, rate: int, low: int, high: int
) -> tuple[np.ndarray, np.ndarray]:
    """Best candidate between low and high Hz of the frames at `start`: F0 and strength, (F,)."""
    f0, strength = np.ones(len(start)), np.zeros(len(start))
    if not len(start):
        return f0, strength
    window = np.blackman(length)
    frames = sliding_window_view(residual, length)
    candidates = np.arange(low, high + 1)
    between = [half_up((h + 0.5) * candidates) for h in range(1, HARMONICS)]
    for first in range(0, len(start), BATCH):
        batch = slice(first, first + BATCH)
        frame = frames[start[batch]] * window
        frame -= (frame @ np.full(length, 1 / length))[:, None]
        spectrum = _amplitudes(frame, rate, HARMONICS * high)
        # The original reads every candidate 1 Hz too low: bins count from 0, its indices from 1.
        srh = sum(spectrum[:, h * low - 1 : h * high : h] for h in range(1, HARMONICS + 1))
        for index in between:
            srh -= spectrum[:, index - 1]
        best = np.argmax(srh, axis=1)
        value = srh[np.arange(len(srh)), best]
        # Divided by the spectrum's norm over [0, rate / 2): by Parseval, without the bin at half
        # the rate (nearly, if that is odd); that at 0 Hz is nought.
        highest = frame @ (1.0 - 2.0 * (np.arange(length) % 2))
        norm = (rate * np.einsum("fl,fl->f", frame, frame) - highest**2) / 2
        # Candidates below the range score 0, and so do all where there is silence or NaN: where
        # none is above that, 1 Hz wins.
        found = value > 0
        f0[batch] = np.where(found, candidates[best], 1.0)
        strength[batch][found] = value[found] / np.sqrt(norm[found])
    return f0, strength


@cache
def _gridding(length: int, rate: int) -> tuple[int, np.ndarray, np.ndarray]:
    """What `_amplitudes` needs: hertz from bin to bin, (length,) taper, matrix to bins between.

    The taper divides by the transform of the kernel that interpolates, a Kaiser-Bessel window.
    """
    step = next(k for k in (5, 4, 3, 2, 1) if rate % k == 0)
    points = rate // step
    beta = np.pi * TAPS * (1 - length / points / 2)
    time = (np.arange(length) - length // 2) / points
    root = np.sqrt(beta**2 - (np.pi * TAPS * time) ** 2)
    taper = np.sinh(beta) / beta * root / np.sinh(root)
    wanted = np.arange(CHUNK * step) / step
    given = np.arange(CHUNK + TAPS - 1)[:, None] - (TAPS // 2 - 1)
    kernel = np.i0(beta * np.sqrt(np.maximum(1 - ((wanted - given) / (TAPS / 2)) ** 2, 0)))
    kernel[np.abs(wanted - given) >= TAPS / 2] = 0
    return step, taper, kernel * (beta / np.sinh(beta) / TAPS)


def _amplitudes(frames: np.ndarray, rate: int, bins: int) -> np.ndarray:
    """Amplitude spectrum in bins of 1 Hz.

    The frames fill half of a transform with bins of 5 Hz. Those of 1 Hz are interpolated from these
    by gridding (J. I. Jackson, C. H. Meyer, D. G. Nishimura, A. Macovski, "Selection of a
    convolution function for Fourier inversion using gridding", IEEE TMI 10(3), 1991), to 13 digits
    of the highest: faster than a transform of a second.

    Args:
        frames: (F, L) samples, L at most rate / 10.
        rate: Sampling rate in Hz.
        bins: Number of bins wanted, from 0 Hz, at most rate / 2.

    Returns:
        (F, bins).
    """
    from scipy import fft

    count, length = frames.shape
    step, taper, matrix = _gridding(length, rate)
    points, middle = rate // step, length // 2
    work = np.zeros((count, points))  # the frame's middle is at 0: the kernel is real
    np.multiply(frames[:, middle:], taper[middle:], out=work[:, : length - middle])
    np.multiply(frames[:, :middle], taper[:middle], out=work[:, points - middle :])
    half = fft.rfft(work)
    chunks = -(-bins // (step * CHUNK))
    at = np.arange(chunks * CHUNK + TAPS - 1) - (TAPS // 2 - 1)
    at = (at + points // 2) % points - points // 2  # the other half mirrors this one, conjugate
    power = 0
    for part in (half.real[:, abs(at)], half.imag[:, abs(at)] * np.sign(at)):
        spans = sliding_window_view(part, len(matrix), axis=1)[:, ::CHUNK]
        power += (spans.reshape(-1, len(matrix)) @ matrix) ** 2
    return np.sqrt(power, out=power).reshape(count, -1)[:, :bins]


def voicing_at(pitch: Pitch, samples: np.ndarray) -> np.ndarray:
    """How voiced single samples are: the frames' voicing, interpolated.

    Args:
        pitch: The track.
        samples: (T,) positions.

    Returns:
        (T,) in [0, 1], 0 outside the frames.
    """
    if not len(pitch.centre):
        return np.zeros(len(samples))
    return np.interp(samples, pitch.centre, pitch.voiced.astype(float), left=0.0, right=0.0)
