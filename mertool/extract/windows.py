"""Input longer than a model reads at once: windows that overlap, each row from the best one."""

from __future__ import annotations

import numpy as np


def windows(count: int, size: int) -> list[tuple[int, int]]:
    """Stretches of `size` that cover `count` rows and overlap by half or more.

    >>> windows(5, 8), windows(10, 4)
    ([(0, 5)], [(0, 4), (2, 6), (4, 8), (6, 10)])
    """
    if count <= size:
        return [(0, count)]
    starts = [*range(0, count - size, max(1, size // 2)), count - size]
    return [(start, start + size) for start in starts]


def take(
    values: np.ndarray, context: np.ndarray, start: int, stop: int, states: np.ndarray
) -> None:
    """Take from a window the rows that have more context in it than in those taken before.

    Args:
        values: (T, D), filled in place.
        context: (T,) integers, -1 at first: rows to the nearest cut in the window taken so far.
        start: First row of the window.
        stop: The row after its last.
        states: (stop - start or more, D) what the model gave.
    """
    count, index = len(values), np.arange(start, stop)
    # The ends of the input are no cuts.
    left = index - start if start else np.full(stop - start, count)
    right = stop - 1 - index if stop < count else np.full(stop - start, count)
    margin = np.minimum(left, right)
    better = margin > context[start:stop]
    values[start:stop][better] = states[: stop - start][better]
    context[start:stop][better] = margin[better]
