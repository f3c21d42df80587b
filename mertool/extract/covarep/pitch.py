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
BATCH = 16  # frames transformed at a time
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
    harmonics = [h * candidates for h in range(1, HARMONICS + 1)]
    between = [half_up((h + 0.5) * candidates) for h in range(1, HARMONICS)]
    work = np.empty((BATCH, rate // 5), complex)  # not anew in every batch: fresh memory is slow
    for first in range(0, len(start), BATCH):
        batch = slice(first, first + BATCH)
        frame = frames[start[batch]] * window
        frame -= frame.mean(axis=1, keepdims=True)
        spectrum = _amplitudes(frame, rate, HARMONICS * high, work[: len(frame)])
        # The original reads every candidate 1 Hz too low: bins count from 0, its indices from 1.
        srh = sum(spectrum[:, index - 1] for index in harmonics)
        for index in between:
            srh -= spectrum[:, index - 1]
        best = np.argmax(np.nan_to_num(srh, copy=False, nan=-1.0), axis=1)
        value = srh[np.arange(len(srh)), best]
        # Its candidates below the range score 0: where no other is above that, 1 Hz wins.
        found = value > 0
        f0[batch] = np.where(found, candidates[best], 1.0)
        strength[batch] = np.where(found, value, 0.0)
    return f0, strength


@cache
def _turns(length: int, rate: int) -> np.ndarray:
    """exp(-2 pi i r t / rate) for r = 1, 2, (2, length); none where 5 does not divide rate."""
    r = np.arange(1, 3 if rate % 5 == 0 else 1)
    return np.exp(-2j * np.pi * r[:, None] * np.arange(length) / rate)


def _amplitudes(frames: np.ndarray, rate: int, bins: int, work: np.ndarray) -> np.ndarray:
    """Amplitude spectrum in bins of 1 Hz, divided by its norm over [0, rate / 2) Hz.

    The frames fill less than a fifth of the transform. Its bins 5 q + r are therefore the
    transform, five times shorter, of the frame times exp(-2 pi i r t / rate), and those of 5 - r
    mirror those of r: a third of the time of the long transform, the same numbers.

    Args:
        frames: (F, L) samples, of mean 0, L at most rate / 5.
        rate: Sampling rate in Hz.
        bins: Number of bins wanted, from 0 Hz, at most rate / 2.
        work: (F, rate / 5) complex, overwritten.

    Returns:
        (F, bins); NaN for a frame of zeros.
    """
    from scipy import fft

    length = frames.shape[1]
    turns = _turns(length, rate)
    step = 2 * len(turns) + 1
    count = -(-bins // step)
    power = np.empty((len(frames), count, step))
    part = fft.rfft(frames, rate // step)[:, :count]
    power[:, :, 0] = part.real**2 + part.imag**2
    for r, turn in enumerate(turns, 1):
        np.multiply(frames, turn, out=work[:, :length])
        work[:, length:] = 0
        part = fft.fft(work, overwrite_x=True)
        near, far = part[:, :count], part[:, : -count - 1 : -1]
        power[:, :, r] = near.real**2 + near.imag**2
        power[:, :, step - r] = far.real**2 + far.imag**2
    # Parseval, without the bin at half the rate (nearly, if that is odd); that at 0 Hz is nought.
    highest = frames @ (1.0 - 2.0 * (np.arange(length) % 2))
    norm = (rate * np.einsum("fl,fl->f", frames, frames) - highest**2) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        power /= norm[:, None, None]
    return np.sqrt(power, out=power).reshape(len(frames), -1)[:, :bins]


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
