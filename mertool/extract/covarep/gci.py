"""Glottal closure instants.

T. Drugman and T. Dutoit, "Glottal closure and opening instant detection from speech signals",
Interspeech 2009; T. Drugman, M. Thomas, J. Gudnason, P. Naylor and T. Dutoit, "Detection of glottal
closure instants from speech signals: a quantitative review", IEEE TASLP 20(3), 2012 (SEDREAMS).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mertool.extract.covarep.pitch import Pitch, voicing_at
from mertool.extract.covarep.residual import lp_residual
from mertool.extract.covarep.signals import blocks, check_signal, half_up, zero_phase

STRONG = 0.4  # of the residual's maximum: what tells where in a cycle closures fall
REACH = 0.35  # of an interval, searched on either side of that place


@cache
def _high_pass(fs: float) -> tuple[np.ndarray, int]:
    """SEDREAMS' filter against drift: (sections, 6), and its order."""
    from scipy import signal

    order, edge = signal.ellipord(50, 30, 3, 60, fs=fs)
    return signal.ellip(order, 3, 60, edge, "high", output="sos", fs=fs), order


def mean_based_signal(x: np.ndarray, fs: float, f0: float) -> np.ndarray:
    """Mean of the speech in a sliding Blackman window of 1.7 periods, without drift.

    It swings once per glottal cycle, like the larynx.

    Args:
        x: (S,) samples.
        fs: Sampling rate in Hz.
        f0: The speaker's mean F0 in Hz.

    Returns:
        (S,) float64, its largest magnitude 1; zeros where there is no signal or f0 is NaN.

    Raises:
        DataError: x is no finite signal, or fs is out of range.
    """
    x = check_signal(x, fs)
    half = int(half_up(1.7 * half_up(fs / f0) / 2)) if f0 > 0 else len(x)
    if len(x) <= 2 * half:
        return np.zeros(len(x))
    sections, degree = _high_pass(fs)
    mean = np.zeros(len(x))
    # Divided by the number of samples, as the original does, not by the window's sum.
    window = np.blackman(2 * half + 1) / (2 * half + 1)
    for a, b in blocks(len(x) - 2 * half):
        part = x[a : b + 2 * half].astype(np.float64)
        mean[half + a : half + b] = np.convolve(part, window, "valid")
    zero_phase(mean, sections, 3 * degree, overwrite_x=True)
    if peak := max(mean.max(), -mean.min()):
        mean /= peak
    return mean


def larynx_intervals(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where closures are to be searched: from each minimum of the mean-based signal.

    Args:
        m: (S,) mean-based signal.

    Returns:
        minima and maxima, (K,) int64 each: minimum k comes before maximum k, that before minimum
        k + 1. The first sample of a plateau counts; the signal's ends do not.
    """
    minima, maxima = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    last = np.zeros(0, np.int64), np.zeros(0)  # the last step of the blocks before: where, sign
    for a, b in blocks(max(len(m) - 1, 0)):
        sign = np.sign(np.diff(m[a : b + 1]))
        steps = np.flatnonzero(sign)
        at = np.concatenate([last[0], steps + a])
        sign = np.concatenate([last[1], sign[steps]])
        turns = np.flatnonzero(sign[1:] != sign[:-1])
        rising = sign[turns] > 0
        maxima.append(at[turns[rising]] + 1)
        minima.append(at[turns[~rising]] + 1)
        last = at[-1:], sign[-1:]
    low, high = np.concatenate(minima), np.concatenate(maxima)
    # They alternate: begin with a minimum, end with a maximum.
    if len(low) and len(high) and high[0] < low[0]:
        high = high[1:]
    count = min(len(low), len(high))
    return low[:count], high[:count]


def gci_sedreams(
    x: np.ndarray,
    fs: float,
    f0: float,
    pitch: Pitch | None = None,
    residual: np.ndarray | None = None,
    intervals: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Glottal closure instants.

    Each swing of the mean-based signal holds one closure, the residual's highest peak near the
    place where the strong peaks of all swings usually fall.

    Args:
        x: (S,) samples, of the right polarity.
        fs: Sampling rate in Hz.
        f0: The speaker's mean F0 in Hz; NaN gives no instants.
        pitch: Only instants that it calls voiced are kept; None = all.
        residual: (S,) `lp_residual` of x, if at hand.
        intervals: `larynx_intervals` of the `mean_based_signal` of x, if at hand.

    Returns:
        (G,) int64 samples, increasing.

    Raises:
        DataError: x is no finite signal, or fs is out of range.
    """
    x = check_signal(x, fs)
    low, high = intervals or larynx_intervals(mean_based_signal(x, fs, f0))
    if not len(low):
        return np.zeros(0, np.int64)
    if residual is None:
        residual = lp_residual(x, fs)
    width = high - low
    usual = _usual_place(residual, low, width)
    start = low + half_up((usual - REACH) * width)
    stop = low + half_up((usual + REACH) * width)
    kept = np.logical_and.accumulate(start < len(x))  # the original stops at the first beyond x
    start, stop = np.clip(start[kept], 0, None), np.clip(stop[kept], 0, len(x) - 1)
    instants = _highest(residual, start, stop)
    instants = instants[instants >= 1]
    if pitch is not None:
        # One sample early: the original takes positions from 0 for positions from 1.
        instants = instants[voicing_at(pitch, instants - 1) >= 0.5]
    return np.unique(instants)


def _usual_place(residual: np.ndarray, low: np.ndarray, width: np.ndarray) -> float:
    """Median place of the strong residual peaks, relative to the interval of the next minimum."""
    peak = max(np.fmax.reduce(residual), -np.fmin.reduce(residual))
    parts = [a + np.flatnonzero(residual[a:b] > STRONG * peak) for a, b in blocks(len(residual))]
    strong = np.concatenate(parts)
    if not len(strong):
        return 0.0
    right = np.clip(np.searchsorted(low, strong), 1, max(len(low) - 1, 1))
    right = np.minimum(right, len(low) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(strong - low[left] <= low[right] - strong, left, right)
    return float(np.median((strong - low[nearest]) / width[nearest]))


def _highest(residual: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """First position of the highest residual in each of the stretches [start, stop], (K,)."""
    position = np.empty(len(start), np.int64)
    length = stop - start + 1
    order = np.argsort(-length, kind="stable")  # alike in length: little is searched in vain
    done = 0
    while done < len(order):
        width = length[order[done]]
        batch = order[done : done + max(1, (1 << 15) // width)]
        index = start[batch, None] + np.arange(width)
        outside = index > stop[batch, None]
        values = np.nan_to_num(residual[np.minimum(index, stop[batch, None])], nan=0.0)
        values[outside] = -np.inf
        position[batch] = start[batch] + values.argmax(axis=1)
        done += len(batch)
    return position
