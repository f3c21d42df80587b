"""Words whose times nobody knows: evenly spaced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mertool.types import Word


def spaced(texts: Sequence[str], start: float, end: float) -> list[Word]:
    """Words of equal length from `start` to `end` (or of none, where that is earlier), score -1."""
    edges = np.linspace(start, max(start, end), len(texts) + 1).tolist()
    return [Word(t, a, b) for t, a, b in zip(texts, edges, edges[1:], strict=False)]


def fill(texts: Sequence[str], timed: Sequence[Word | None], duration: float) -> list[Word]:
    """Space the words that have no time evenly between their neighbours.

    Args:
        texts: All W words.
        timed: The same words with their times; None where there are none.
        duration: Length of the clip, seconds.

    Returns:
        W words; those that were spaced have score -1.
    """
    words: list[Word] = []
    for i, word in enumerate(timed):
        if word is not None:
            words.append(word)
        elif len(words) == i:
            after = next((j for j in range(i, len(timed)) if timed[j] is not None), len(timed))
            low = words[-1].end if words else 0.0
            high = duration if after == len(timed) else timed[after].start
            words += spaced(texts[i:after], low, high)
    return words
