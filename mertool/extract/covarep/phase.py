"""Mean and deviation of the phase distortion between harmonics (HMPDM, HMPDD).

G. Degottex, D. Erro, "A uniform phase representation for the harmonic model in speech synthesis
applications", EURASIP Journal on Audio, Speech, and Music Processing 2014:38.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mertool.extract.covarep.envelope import mel_cepstrum
from mertool.extract.covarep.framefilters import median_of_9, widen, zero_phase

if TYPE_CHECKING:
    from mertool.extract.covarep.harmonics import Harmonics

DFT = 1024  # points of the frequency axis
BINS = DFT // 2 + 1
MEANS, DEVIATIONS = 25, 13  # columns
# First bin of each group of bins whose mean directions are averaged; the last group ends at 511.
GROUPS = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 17, 22, 28, 36, 46),
    *(58, 72, 89, 110, 135, 166, 207, 264, 358),
)
# Windows over time, in frames; each is run forwards and backwards.
MEAN_WINDOW = np.full(25, 1 / 25)
TREND_WINDOW = np.sin(np.pi * np.arange(1, 8) / 8) ** 2 / 4  # Hann of 9 less its zero ends
DEVIATION_WINDOW = np.full(9, 1 / 9)
REACH = len(MEAN_WINDOW) - 1  # frames on either side that a mean looks at, and a deviation:
DEVIATION_REACH = len(DEVIATION_WINDOW) - 1 + len(TREND_WINDOW) - 1 + 9 // 2
FEWEST = 3 * REACH + 1  # frames that the original's longest filter needs
CHUNK = 64  # frames that are filtered together
FLOOR = 0.001  # stands for a deviation of zero, as its logarithm is taken
ROUNDING = 1e-12  # a mean of unit vectors has length 0 or 1 where it comes that close to it


class PhaseDistortion:
    """Phase distortion of a whole file, from its frames block by block.

    The phase difference of neighbouring harmonics, freed of the vocal tract's phase (the minimum
    phase of the amplitude envelope) and of the time shift (the phase of harmonic 1), on an axis in
    Hz; then its mean direction and its deviation from its trend over neighbouring frames.

    The original draws random phases for harmonics that a frame has not. Here they are uniform too,
    but fixed by the frame's number in the file and the harmonic's: the result is the same in every
    run, on every machine, whatever the blocks. They matter above a frame's last harmonic only.

    A frame of digital silence has no phase: means and deviations that look at it are NaN. A file of
    fewer than 73 frames, with which the original fails, has zeros.

    Args:
        fs: Hz.
        frames: Number of frames of the file.
    """

    def __init__(self, fs: float, frames: int) -> None:
        self._fs, self._count = fs, frames
        self._mean = np.zeros((frames, MEANS))
        self._deviation = np.zeros((frames, DEVIATIONS))
        self._waiting: list[np.ndarray] = []  # directions of frames that may still be looked at
        self._first = 0  # the first of these frames
        self._added = 0  # frames added
        self._done = 0  # frames with a result

    def add(self, block: Harmonics) -> None:
        """Take the file's next frames."""
        if self._count >= FEWEST:
            self._waiting.append(_directions(block, self._fs, self._added))
        self._added += len(block.f0)
        while self._count >= FEWEST and self._done + CHUNK + REACH <= self._added < self._count:
            self._advance()

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """The result, once all frames have been added.

        Returns:
            (F, 25) mean phase distortion in rad by group of frequencies, and (F, 13) mel-cepstrum
            of its deviation (natural logarithm of rad).
        """
        while self._count >= FEWEST and self._done < self._count:
            self._advance()
        return self._mean, self._deviation

    def _advance(self) -> None:
        """Filter the next frames."""
        waiting = np.concatenate(self._waiting)
        rows = (self._done, min(self._done + CHUNK, self._count))
        span = widen(rows, REACH, self._count)
        directions = waiting[span[0] - self._first : span[1] - self._first]
        silent = np.isnan(directions.sum(axis=1))
        known = np.where(silent[:, None], 0.0, directions) if silent.any() else directions

        self._mean[slice(*rows)] = _group(zero_phase(MEAN_WINDOW, known, rows, span))
        # Every filter needs some frames more than the next.
        inner = widen(rows, len(DEVIATION_WINDOW) - 1, self._count)
        outer = widen(inner, len(TREND_WINDOW) - 1, self._count)
        trend = zero_phase(TREND_WINDOW, median_of_9(known, outer, span), inner, outer)
        rest = _difference(known[inner[0] - span[0] : inner[1] - span[0]], trend)
        mean = zero_phase(DEVIATION_WINDOW, rest, rows, inner)
        self._deviation[slice(*rows)] = mel_cepstrum(_spread(mean), self._fs, DEVIATIONS - 1)

        for frame in np.flatnonzero(silent) + span[0]:
            for result, reach in ((self._mean, REACH), (self._deviation, DEVIATION_REACH)):
                start = max(rows[0], frame - reach)
                result[start : max(start, min(rows[1], frame + reach + 1))] = np.nan
        self._done = rows[1]
        passed = max(self._done - REACH - self._first, 0)
        self._waiting = [waiting[passed:]]
        self._first += passed


def phase_rows(
    centre: np.ndarray, mean: np.ndarray, deviation: np.ndarray, samples: np.ndarray
) -> np.ndarray:
    """Phase distortion at the rows' times.

    Linear interpolation, of the means along the shorter arc.

    Args:
        centre: (F,) sample of each frame.
        mean: (F, 25) rad.
        deviation: (F, 13).
        samples: (T,) sample of each row.

    Returns:
        (T, 38) means in (-pi, pi], then deviations; 0 before the first and after the last frame.
    """
    out = np.zeros((len(samples), MEANS + DEVIATIONS))
    if len(centre) < 2:
        return out
    # The original counts the samples of its frames from 1, those of its rows from 0. It goes by way
    # of every 5 ms, which changes nothing: its frames lie 10 ms apart.
    at = centre + 1.0
    inside = np.flatnonzero((samples >= at[0]) & (samples <= at[-1]))
    lower = np.clip(np.searchsorted(at, samples[inside], side="right") - 1, 0, len(at) - 2)
    weight = (samples[inside] - at[lower]) / (at[lower + 1] - at[lower])
    for i, track in enumerate((*mean.T, *deviation.T)):
        rise = track[lower + 1] - track[lower]
        value = track[lower] + weight * (_wrap(rise) if i < MEANS else rise)
        out[inside, i] = _wrap(value) if i < MEANS else value
    return out


def _directions(block: Harmonics, fs: float, first: int) -> np.ndarray:
    """Phase distortion on an axis in Hz.

    Args:
        block: Frames.
        fs: Hz.
        first: Number of the first frame in the file.

    Returns:
        (F, 2 BINS) cosine, then sine of it, at 0 Hz to fs / 2; NaN for a frame of silence.
    """
    phase = block.phase - _minimum_phase(block, fs)
    rows, h = np.arange(len(phase)), np.arange(phase.shape[1] + 1)
    # Differences of neighbouring harmonics; 0 below and at harmonic 1.
    distortion = np.zeros((len(phase), len(h)))
    distortion[:, 2:-1] = phase[:, 2:] - phase[:, 1:-1] - phase[:, 1:2]
    missing = h > block.count[:, None]
    row, column = np.nonzero(missing)
    distortion[missing] = 2 * np.pi * _uniform(first + row, column)
    # Linear along the shorter arc.
    rise = _wrap(np.diff(distortion, axis=1))
    at = np.linspace(0, fs / 2, BINS) / block.f0[:, None]
    lower = np.minimum(at.astype(np.int64), block.count[:, None])
    index = (rows * len(h))[:, None] + lower
    angle = (at - lower) * rise.take(index - rows[:, None]) + distortion.take(index)
    # Both from one tangent, which takes numpy a tenth of the time of a cosine or a sine.
    tangent = np.tan(angle / 2)
    scale = 2 / (1 + tangent * tangent)
    return np.concatenate([scale - 1, tangent * scale], axis=1)


def _minimum_phase(block: Harmonics, fs: float) -> np.ndarray:
    """Phase of the minimum-phase filter of the amplitude envelope, at the harmonics.

    Returns:
        (F, 1 + max H) rad; 0 above fs / 2.
    """
    from scipy import fft

    bins = np.linspace(0, fs / 2, BINS)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(block.amplitude)
        cepstrum = fft.irfft(_envelope(log, block.spacing, block.count, bins), axis=1)
        cepstrum[:, 1 : DFT // 2] *= 2
        cepstrum[:, DFT // 2 + 1 :] = 0
        phase = fft.rfft(cepstrum, axis=1).imag
        at = np.arange(log.shape[1]) * (block.spacing / bins[1])[:, None]
        # Not along the shorter arc: this phase is continuous, it may turn far within a bin.
        return np.where(at <= BINS - 1, _between(phase, at, BINS - 1), 0.0)


def _envelope(
    log: np.ndarray, spacing: np.ndarray, count: np.ndarray, bins: np.ndarray
) -> np.ndarray:
    """Log amplitudes (F, 1 + max H) between the harmonics, linear, (F, BINS).

    The first harmonic's down to 0 Hz, the last one's up to fs / 2.
    """
    level = log.copy()
    level[:, 0] = level[:, 1]
    return _between(level, np.minimum(bins / spacing[:, None], count[:, None]), count[:, None])


def _between(values: np.ndarray, at: np.ndarray, last: np.ndarray | int) -> np.ndarray:
    """Linear interpolation of rows of values (F, N) at positions (F, P), none beyond `last`."""
    lower = np.minimum(at.astype(np.int64), last - 1)
    index = lower + values.shape[1] * np.arange(len(values))[:, None]
    low = values.take(index)  # faster than with two indices
    return low + (at - lower) * (values.take(index + 1) - low)


def _uniform(frame: np.ndarray, entry: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that look random and are fixed by frame and entry.

    The finaliser of SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014.
    """
    z = (frame.astype(np.uint64) << np.uint64(16)) + entry.astype(np.uint64) + np.uint64(1)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def _group(mean: np.ndarray) -> np.ndarray:
    """Mean direction of every group of bins, rad, (F, MEANS)."""
    x, y = _unit(mean)
    x, y = (np.add.reduceat(v[:, :-1], GROUPS, axis=1) for v in (x, y))
    return np.arctan2(y, x)


def _difference(directions: np.ndarray, trend: np.ndarray) -> np.ndarray:
    """Directions turned back by those of `trend`."""
    x, y = directions[:, :BINS], directions[:, BINS:]
    c, s = _unit(trend)
    return np.concatenate([x * c + y * s, y * c - x * s], axis=1)


def _spread(mean: np.ndarray) -> np.ndarray:
    """Deviation of directions, rad, from their mean vector, (F, BINS); its mel axis is logarithmic.

    N. I. Fisher, "Statistical analysis of circular data", Cambridge University Press, 1993.
    """
    square = mean[:, :BINS] ** 2 + mean[:, BINS:] ** 2
    # The length of the mean vector is the root: -2 ln of it is -ln of the square.
    with np.errstate(divide="ignore"):
        deviation = np.sqrt(-np.log(np.where(square < 1 - ROUNDING, square, 1.0)))
    deviation[:, 0] = deviation[:, 1]
    deviation[deviation == 0] = FLOOR
    return deviation


def _unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (F, 2 BINS) scaled to length 1, their two coordinates; (1, 0) for a zero vector."""
    x, y = vectors[:, :BINS], vectors[:, BINS:]
    length = np.sqrt(x * x + y * y)
    # At a file's ends, medians are often zero; the original takes the direction of what rounding
    # leaves of them.
    zero = length < ROUNDING
    if not zero.any():
        scale = 1 / length
        return x * scale, y * scale
    length[zero] = 1
    return np.where(zero, 1.0, x / length), np.where(zero, 0.0, y / length)


def _wrap(phase: np.ndarray) -> np.ndarray:
    """Phase in [-pi, pi]."""
    return phase - 2 * np.pi * np.rint(phase / (2 * np.pi))
