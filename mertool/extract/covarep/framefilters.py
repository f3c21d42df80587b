"""Filters over time, frame by frame, of tracks that are read in pieces."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Span = tuple[int, int]  # frames [a, b) of a file
ROWS = 16  # of a filter's matrix that are multiplied together


def widen(rows: Span, by: int, count: int) -> Span:
    """The frames `rows`, and `by` more on either side as far as a file of `count` has them."""
    return max(rows[0] - by, 0), min(rows[1] + by, count)


def zero_phase(window: np.ndarray, x: np.ndarray, rows: Span, span: Span) -> np.ndarray:
    """A filter run forwards and backwards over time.

    As scipy.signal.filtfilt: the signal is extended oddly about its first and its last frame.

    Args:
        window: (K,) the filter's coefficients.
        x: (span, D).
        rows: Frames [a, b) that come out.
        span: Frames [a, b) that go in: the rows and K - 1 more on either side, as far as the file
            has them.

    Returns:
        (rows, D).
    """
    matrix = _matrix(tuple(window), rows[0] - span[0], rows[1] - rows[0], span[1] - span[0])
    out = np.empty((len(matrix), x.shape[1]))
    # The matrix is a band: a few rows at a time leave out most of its zeros.
    for a in range(0, len(matrix), ROWS):
        used = np.flatnonzero(matrix[a : a + ROWS].any(axis=0))
        band = slice(used[0], used[-1] + 1)
        np.matmul(matrix[a : a + ROWS, band], x[band], out=out[a : a + ROWS])
    return out


@lru_cache(maxsize=16)
def _matrix(window: tuple[float, ...], before: int, rows: int, span: int) -> np.ndarray:
    """(rows, span): the filter as a matrix, `before` frames of the span lying before the rows.

    What the filter needs beyond the span can only lie beyond the file's ends.
    """
    kernel = np.convolve(window, window[::-1])
    row, lag = np.indices((rows, len(kernel)))
    at = row + before + lag - (len(window) - 1)
    weight = kernel[lag]
    matrix = np.zeros((rows, span))
    for beyond, end in ((at < 0, 0), (at >= span, span - 1)):
        matrix[:, end] += 2 * (weight * beyond).sum(axis=1)
        at = np.where(beyond, 2 * end - at, at)
        weight = np.where(beyond, -weight, weight)
    np.add.at(matrix, (row, at), weight)
    return matrix


def median_of_9(x: np.ndarray, rows: Span, span: Span) -> np.ndarray:
    """Running median over nine frames.

    J. L. Smith, "Implementing median filters in XC4000E FPGAs", Xcell 23, 1996.

    Args:
        x: (span, D).
        rows: Frames that come out.
        span: Frames that go in: all within four frames of `rows`. Beyond the file's first and last
            frame, hence beyond `span`, stand zeros.

    Returns:
        (rows, D).
    """
    a, b = rows[0] - 4 - span[0], rows[1] + 4 - span[0]
    x = x[max(a, 0) : b]
    if len(x) < b - a:
        x = np.pad(x, ((max(-a, 0), b - max(a, 0) - len(x)), (0, 0)))
    # The median of nine is that of the largest minimum, the median middle and the smallest maximum
    # of three triples; and a triple serves three windows.
    low, high = np.minimum(x[:-2], x[1:-1]), np.maximum(x[:-2], x[1:-1])
    middle = np.minimum(np.maximum(low, x[2:]), high)
    low, high = np.minimum(low, x[2:]), np.maximum(high, x[2:])
    low = np.maximum(np.maximum(low[:-6], low[3:-3]), low[6:])
    high = np.minimum(np.minimum(high[:-6], high[3:-3]), high[6:])
    return _middle(low, _middle(middle[:-6], middle[3:-3], middle[6:]), high)


def _middle(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The middle one of three numbers."""
    return np.maximum(np.minimum(x, y), np.minimum(np.maximum(x, y), z))
