"""Linear-prediction residual, and the polarity of a recording.

T. Drugman, "Residual excitation skewness for automatic speech polarity detection", IEEE Signal
Processing Letters 20(4), 2013 (RESKEW).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mertool.extract.covarep.signals import check_signal, fir, half_up, hanning, lpc, zero_phase

BATCH = 256  # frames analysed at a time


def residual_blocks(
    x: np.ndarray, fs: float, order: int, predictor: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """The linear-prediction residual, from the first sample to the last, block by block.

    Frames of 25 ms every 5 ms; each one's residual is brought to the frame's energy and added.
    Where a frame holds nothing but zeros its whole span is NaN, as in the original.

    Args:
        x: (S,) samples.
        fs: Sampling rate in Hz.
        order: Of the linear prediction.
        predictor: (S,) signal that is predicted, if not x: its filters are applied to x.

    Yields:
        (first sample, (n,) float64), in order, without gaps; not divided by the maximum.
    """
    hop = int(half_up(0.005 * fs))
    length = int(half_up(0.025 * fs)) + 1
    parts = -(-length // hop)  # hops that a frame reaches into
    window = hanning(length)
    # One sample too many is asked for: the original's last frame ends before the last sample.
    count = max(0, (len(x) - length - 1) // hop + 1)
    pending = np.zeros((parts, hop))  # what earlier frames left beyond the block
    for first in range(0, count, BATCH):
        n = min(BATCH, count - first)
        span = slice(first * hop, (first + n - 1) * hop + length)
        frames = _frames(x[span], length, hop) * window
        if predictor is None:
            filters = lpc(frames, order)
        else:
            filters = lpc(_frames(predictor[span], length, hop) * window, order)
        error = np.zeros((n, parts * hop))
        # Not 0 beyond the frame's end: the padding to whole hops must not carry its NaN.
        error[:, :length] = _errors(filters, frames)
        total = np.zeros((n + parts, hop))
        total[:parts] = pending
        for part in reversed(range(parts)):  # the earliest frame is added first
            total[part : part + n] += error[:, part * hop : (part + 1) * hop]
        yield first * hop, total[:n].reshape(-1)
        pending = total[n:]
    start = count * hop
    if start < len(x):
        rest = np.zeros(len(x) - start)
        rest[: pending.size] = pending.reshape(-1)[: len(rest)]
        yield start, rest


def _frames(x: np.ndarray, length: int, hop: int) -> np.ndarray:
    return sliding_window_view(x.astype(np.float64), length)[::hop]


def _errors(filters: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Prediction errors with the energy of their frames; NaN where there is none."""
    # The filters of a decayed high-passed signal, next to silence, may overflow.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = fir(filters, frames)
        gain = np.einsum("fl,fl->f", frames, frames) / np.einsum("fl,fl->f", error, error)
        gain[~np.isfinite(gain)] = np.nan  # an energy too small for a number
        error *= np.sqrt(gain)[:, None]
    return error


def lp_residual(x: np.ndarray, fs: float, order: int | None = None) -> np.ndarray:
    """Linear-prediction residual.

    J. Makhoul, "Linear prediction: a tutorial review", Proceedings of the IEEE 63(4), 1975, of
    overlapping frames as in RESKEW.

    Args:
        x: (S,) samples.
        fs: Sampling rate in Hz.
        order: Of the linear prediction; None = fs / 1000 + 2.

    Returns:
        (S,) float64, its largest magnitude 1; NaN around digital silence; zeros where x is
        shorter than a frame.

    Raises:
        DataError: x is no finite signal, or fs is out of range.
    """
    x = check_signal(x, fs)
    residual = np.empty(len(x))
    peak = 0.0
    for start, block in residual_blocks(x, fs, order or int(half_up(fs / 1000)) + 2):
        residual[start : start + len(block)] = block
        peak = np.fmax(peak, np.fmax.reduce(np.abs(block)))
    if peak > 0:
        residual /= peak
    return residual


@cache
def _high_pass(fs: float) -> tuple[np.ndarray, int]:
    """RESKEW's filter: (sections, 6), and its order."""
    from scipy import signal

    # The original asks for the order of a low-pass and builds a high-pass of that order.
    order, edge = signal.ellipord(480, 500, 3, 60, fs=fs)
    return signal.ellip(order, 3, 60, edge, "high", output="sos", fs=fs), order


def polarity(x: np.ndarray, fs: float) -> int:
    """Whether the recording is upside down.

    The right way up, the residual's peaks at glottal closure are positive: its skewness is higher
    than that of a residual whose filters were fitted without the low frequencies (RESKEW).

    Args:
        x: (S,) samples.
        fs: Sampling rate in Hz.

    Returns:
        1 or -1: what x is to be multiplied with. 1 where there is nothing to tell from.

    Raises:
        DataError: x is no finite signal, or fs is out of range.
    """
    x = check_signal(x, fs)
    order = int(half_up(fs / 1000)) + 2
    sections, degree = _high_pass(fs)
    high = zero_phase(x, sections, 3 * degree)
    plain = _skewness(residual_blocks(x, fs, order))
    without = _skewness(residual_blocks(x, fs, order, high))
    return -1 if plain < without else 1


def _skewness(blocks: Iterator[tuple[int, np.ndarray]]) -> float:
    """Third central moment over the cubed deviation; NaN samples count as 0."""
    total, count = np.zeros(3), 0
    for _, block in blocks:
        block = np.where(np.isnan(block), 0.0, block)
        square = block * block
        total += block.sum(), square.sum(), square @ block
        count += len(block)
    mean, second, third = total / max(count, 1)
    variance = second - mean**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (third - 3 * mean * second + 2 * mean**3) / np.float64(variance) ** 1.5
