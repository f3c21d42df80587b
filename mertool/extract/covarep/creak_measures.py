"""Measures of creak in the LP residual and in the signal: what `creak_inputs` puts together.

T. Drugman, J. Kane and C. Gobl, "Resonator-based creaky voice detection", Interspeech 2012;
J. Kane, T. Drugman and C. Gobl, "Improved automatic detection of creak", Computer Speech & Language
27(4), 2013.
"""

from __future__ import annotations

import numpy as np

from mertool.extract.covarep.ishi import Piece, autocorrelations, frame_count, frames, power_contour
from mertool.extract.covarep.signals import blocks, half_up, hanning
from mertool.extract.covarep.wavelets import stretch

# Samples of the past that the sharper resonator can be without: 0.97 ** 12000 squared is 0.
MEMORY = 12000


def spread(values: np.ndarray, samples: int, at: np.ndarray) -> np.ndarray:
    """Values interpolated as if they lay evenly between the first and the last sample."""
    return np.interp(at, np.linspace(0, samples - 1, len(values)), values)


def resonance(residual: np.ndarray, fs: float, f0: float, radius: float) -> Piece:
    """The residual through a resonator at f0; any stretch on demand, zeros beyond the ends."""
    from scipy import signal

    poles = [1, -2 * radius * np.cos(2 * np.pi * f0 / fs), radius**2]

    def piece(start: int, stop: int) -> np.ndarray:
        heard = np.nan_to_num(stretch(residual, start - MEMORY, stop - start + MEMORY))
        out = signal.lfilter([1], poles, heard)[MEMORY:]
        out[max(0, len(residual) - start) :] = 0
        return out

    return piece


def log_energy(piece: Piece, fs: float, samples: int) -> np.ndarray:
    """Log energy of frames of 32 ms every 5 ms; -inf for silence."""
    length, hop = int(half_up(0.032 * fs)), int(half_up(0.005 * fs))
    # The original leaves out a frame that ends with the signal, but not its place: log(0) is there.
    power = np.zeros(frame_count(samples + 1, length, hop))
    window = hanning(length)
    for part, block in frames(piece, length, hop, frame_count(samples - 1, length, hop)):
        power[part] = np.mean((block * window) ** 2, axis=1)
    return np.log(power)


def zero_crossings(piece: Piece, fs: float, samples: int, at: np.ndarray) -> np.ndarray:
    """Zero crossings per ms, in frames of 32 ms every 5 ms."""
    length, hop = int(half_up(0.032 * fs)), int(half_up(0.005 * fs))
    count = np.empty(frame_count(samples, length, hop))
    for part, block in frames(lambda a, b: piece(a, b) >= 0, length, hop, len(count)):
        count[part] = np.count_nonzero(block[:, 1:] != block[:, :-1], axis=1)
    # The original gives each frame the time of the next one.
    centre = hop * (np.arange(len(count)) + 1) + (length - 1) / 2
    return np.interp(at, centre, count / length / 1000 * fs, left=0, right=0)


def power_deviation(piece: Piece, fs: float, samples: int) -> np.ndarray:
    """Standard deviation of the very-short-term power over 33 frames, smoothed by a median."""
    contour = power_contour(piece, samples, int(half_up(0.004 * fs)), int(half_up(0.002 * fs)))
    silent = contour <= power_contour(lambda a, b: np.zeros(b - a), 1, 1, 1)
    if silent.all():
        return np.zeros(len(contour))
    contour[silent] = contour[~silent].min()
    deviation = np.zeros(len(contour))
    for a, b in blocks(max(0, len(contour) - 32), 4096):
        near = np.lib.stride_tricks.sliding_window_view(contour[a : b + 32], 33)
        deviation[a + 16 : b + 16] = near.std(axis=1, ddof=1)
    return _median(deviation, 13)


def harmonic_balance(
    broad: Piece, sharp: Piece, fs: float, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Second over first harmonic (dB) of the resonating residual, and the F0 it is measured at."""
    length, hop = int(half_up(0.05 * fs)), int(half_up(0.01 * fs))
    points = int(half_up(fs))
    window = hanning(length)
    lag = np.arange(1, length)
    unbias = (length - 1) / (length - lag)  # the original counts the lag from 0 here
    turn = np.exp(-2j * np.pi * np.arange(points) / points)
    count = frame_count(samples - 1, length, hop)  # the original leaves out one that ends with x
    f0, level = np.empty(count), np.empty(count)
    for (part, low), (_, high) in zip(
        frames(broad, length, hop, count), frames(sharp, length, hop, count), strict=True
    ):
        for a, b in blocks(len(low), 64):
            r = autocorrelations(low[a:b] * window, length - 1)[:, 1:] * unbias
            r[np.logical_and.accumulate(r > 0, axis=1)] = 0
            best = half_up(fs / np.maximum(r.argmax(axis=1) + 1, 5))
            r = autocorrelations(high[a:b] * window**2, length - 1)[:, 1:]
            # The original reads the spectrum of 1 Hz per bin one bin too low.
            angles = (k[:, None] * (lag - 1) % points for k in (best - 1, 2 * best - 1))
            first, second = (np.abs(np.einsum("fl,fl->f", r, turn[angle])) for angle in angles)
            f0[part][a:b], level[part][a:b] = best, 20 * np.log10(second / first)
    return _smooth(level), _smooth(_median(f0, 7))


def _median(values: np.ndarray, size: int) -> np.ndarray:
    """Running median, zeros beyond the ends."""
    from scipy import ndimage

    return ndimage.median_filter(values, size, mode="constant")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average of 9, of as many as there are to both sides near the ends."""
    index = np.arange(len(values))
    reach = np.minimum(4, np.minimum(index, index[::-1]))
    total = values.copy()
    for k in range(1, 5):
        (inner,) = np.nonzero(reach >= k)
        total[inner] += values[inner - k] + values[inner + k]
    return total / (2 * reach + 1)


def residual_peaks(
    broad: Piece, fs: float, samples: int, mean: float, energy: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """How little else there is around the highest peaks of the resonating residual, 0 to 1."""
    limit = 90 if mean > 100 else 80 if mean == 100 else 65 if mean >= 85 else 55  # Hz
    length, hop = 2 * int(half_up(fs / limit)), int(half_up(0.02 * fs))
    half = length // 2
    value = np.zeros(frame_count(samples, length, hop))
    loudest = np.zeros(len(value), dtype=np.int64)  # sample at which the energy is looked up
    for part, block in frames(broad, length, hop, len(value)):
        start = hop * np.arange(part.start, part.stop)
        centre = start + np.abs(block).argmax(axis=1) + 1  # as in the original, one too far
        (used,) = np.nonzero((centre >= half) & (centre + half < samples))
        first, last = start[0] - half, start[-1] + length + half + 1
        around = np.lib.stride_tricks.sliding_window_view(broad(first, last), length + 1)
        wave = around[centre[used] - half - first]
        extreme = np.take_along_axis(wave, np.abs(wave).argmax(axis=1)[:, None], axis=1)
        wave = np.where(extreme < 0, -wave, wave)
        peak = wave.argmax(axis=1)
        wave /= np.take_along_axis(wave, peak[:, None], axis=1)
        wave[:, int(half_up(0.3 * length)) - 1 : int(half_up(0.7 * length))] = 0
        value[part.start + used] = 1 - np.maximum(wave.max(axis=1), 0)
        loudest[part.start + used] = start[used] + peak + 1
    here, highest = _levels(energy, samples, loudest, int(half_up(0.4 * fs)))
    value[(here < highest - 4) | np.isnan(value)] = 0
    centre = half_up(hop * np.arange(len(value)) + (length + 1) / 2) - 1
    if not len(value):
        return np.zeros(len(at))
    return np.interp(at, centre, _median(value, 5), left=0, right=0)


def _levels(
    energy: np.ndarray, samples: int, at: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """The energy at samples, and the highest at any sample within a radius of each."""
    nodes = np.linspace(0, samples - 1, len(energy))
    # Between its nodes the contour is straight: the samples beside the nodes are the highest.
    beside = np.sort(np.concatenate([np.floor(nodes), np.ceil(nodes)]))
    level = np.append(np.interp(beside, nodes, energy), -np.inf)
    left, right = np.maximum(at - radius, 0), np.minimum(at + radius, samples - 1)
    bounds = np.searchsorted(beside, left), np.searchsorted(beside, right, "right")
    highest = np.maximum.reduceat(level, np.stack(bounds, axis=1).ravel())[::2] if len(at) else at
    for end in (left, right):
        highest = np.maximum(highest, np.interp(end, nodes, energy))
    return np.interp(at, nodes, energy), highest
