"""Filters over time, frame by frame, of tracks that are read in pieces."""

from __future__ import annotations

import numpy as np

Span = tuple[int, int]  # frames [a, b) of a file


def widen(rows: Span, by: int, count: int) -> Span:
    """The frames `rows`, and `by` more on either side as far as a file of `count` has them."""
    return max(rows[0] - by, 0), min(rows[1] + by, count)


def zero_phase_matrix(window: np.ndarray, rows: Span, span: Span, count: int) -> np.ndarray:
    """A filter run forwards and backwards over time, as a matrix.

    As scipy.signal.filtfilt: the signal is extended oddly about its first and its last frame.

    Args:
        window: The filter's coefficients.
        rows: Frames [a, b) that come out.
        span: Frames [a, b) that go in: all that the filter needs.
        count: Frames of the file.

    Returns:
        (rows, span).
    """
    kernel = np.convolve(window, window[::-1])
    reach = len(window) - 1
    row, lag = np.indices((rows[1] - rows[0], len(kernel)))
    at = row + rows[0] + lag - reach
    weight = kernel[lag]
    matrix = np.zeros((rows[1] - rows[0], span[1] - span[0]))
    for beyond, end in ((at < 0, 0), (at >= count, count - 1)):
        if beyond.any():
            matrix[:, end - span[0]] += 2 * (weight * beyond).sum(axis=1)
            at = np.where(beyond, 2 * end - at, at)
            weight = np.where(beyond, -weight, weight)
    np.add.at(matrix, (row, at - span[0]), weight)
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
