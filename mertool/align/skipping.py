"""A second look at a transcript that fits badly: some of its words may not be said at all."""

from __future__ import annotations

import functools
from collections.abc import Sequence

# Chosen on GRID sentences with a second sentence before or behind: from 1e-20 down to the least
# that pocketsphinx can tell from nothing, the same words are left out.
PENALTY = 1e-30
_AT_AN_END = 0.1  # by so much of a stretch it counts less at an end; enough to settle a draw


def grammar(words: Sequence[str]) -> tuple[int, list[tuple]]:
    """A grammar in which any words but not all may be left out.

    Leaving words out that stand together costs the same whatever their number: a transcript has
    a sentence too many more often than it has single words too many.

    Args:
        words: W dictionary words.

    Returns:
        The final state (the first is 0), and (from, to, probability, word) for
        `pocketsphinx.Decoder.create_fsg`; without a word where words are left out.
    """
    n = len(words)
    arcs: list[tuple] = [(i, i + 1, 1.0, word) for i, word in enumerate(words)]
    # One arc for each stretch, as pocketsphinx does not follow two such arcs in a row.
    arcs += [(i, j, PENALTY) for i in range(n) for j in range(i + 1, n + 1) if (i, j) != (0, n)]
    return n, arcs


def matched(words: Sequence[str], found: Sequence[str]) -> list[int | None] | None:
    """Which of the words were found, where some may occur several times.

    Args:
        words: W words.
        found: Some of them, in order.

    Returns:
        For each of the W words its place in `found`, None for one left out: the choice with the
        fewest stretches left out, and of equals one that leaves out the first or last words.
        None where `found` does not fit `words`.

    >>> matched("a b a b c".split(), "a b c".split())
    [None, None, 0, 1, 2]
    """
    n, m = len(words), len(found)

    # Fewest stretches from word i and found j on; whether word i - 1 was left out.
    @functools.cache
    def fewest(i: int, j: int, out: bool) -> tuple[float, bool]:
        if n - i < m - j:
            return float("inf"), False
        if i == n:
            return -_AT_AN_END * out, False
        leave = fewest(i + 1, j, True)[0] + (not out) * (1 - _AT_AN_END * (i == 0))
        take = float("inf")
        if j < m and words[i] == found[j]:
            take = fewest(i + 1, j + 1, False)[0]
        return min(take, leave), take <= leave

    if fewest(0, 0, False)[0] == float("inf"):
        return None
    places: list[int | None] = []
    j, out = 0, False
    for i in range(n):
        taken = fewest(i, j, out)[1]
        places.append(j if taken else None)
        j, out = j + taken, not taken
    return places
