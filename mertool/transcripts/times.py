"""Word times put in order: what is odd in a file's times is mended, counted and said."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from mertool.types import Word

LONGEST = 1e7  # seconds, 115 days: a later time is no time


class Timed(NamedTuple):
    """A word of a file.

    Attributes:
        text: As it stands in the file.
        start: Seconds in the recording; None = not known.
        end: Seconds in the recording; None = not known.
        score: As in `Word`.
    """

    text: str
    start: float | None = None
    end: float | None = None
    score: float = 1.0


class Oddities:
    """What was odd, counted, with the first example of each kind."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count one more; `kind` is what is told, such as "words have no times"."""
        seen, first = self._found.get(kind, (0, example))
        self._found[kind] = (seen + count, first)

    def notes(self) -> list[str]:
        """A line for each kind."""
        return [
            f"{kind}: {count}, the first {first}" for kind, (count, first) in self._found.items()
        ]


def seconds(value: Any) -> float | None:
    """A time of a file; None where it is none.

    >>> seconds(1), seconds(-0.01), seconds("1"), seconds(True), seconds(float("nan"))
    (1.0, 0.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not abs(value) < LONGEST:  # also NaN, and integers that no float holds
        return None
    return max(0.0, float(value))


def mended(words: Sequence[Timed], odd: Oddities) -> list[Word | None]:
    """Take the times that can be true: in order, without overlap.

    Of times that run backwards as few as possible are dropped: the starts of the others do not
    decrease (the longest such subsequence). Where a word overlaps the next it ends where that one
    starts.

    Args:
        words: As they stand in a file, in the order in which they are said.
        odd: Takes down what was mended.

    Returns:
        For each its times, None where it has none that can be true.
    """
    known: list[int] = []
    for i, word in enumerate(words):
        if word.start is None or word.end is None:
            continue
        if word.end < word.start:
            odd.add("words that end before they start", _said(word))
        else:
            known.append(i)
    kept = _rising([words[i].start for i in known])
    result: list[Word | None] = [None] * len(words)
    for place in set(range(len(known))) - set(kept):
        odd.add("words out of order", _said(words[known[place]]))
    chosen = [known[place] for place in kept]
    for i, after in zip_longest(chosen, chosen[1:]):
        text, start, end, score = words[i]
        limit = math.inf if after is None else words[after].start
        if end > limit + 1e-3:  # closer is how files round
            odd.add("words that overlap the next, cut to end where it starts", _said(words[i]))
        result[i] = Word(text, start, min(end, limit), score)
    return result


def _said(word: Timed) -> str:
    return f'"{word.text[:40]}" at {word.start:.2f} s'


def _rising(values: Sequence[float]) -> list[int]:
    """Places of a longest subsequence that does not decrease."""
    ends: list[float] = []  # smallest last value of such a subsequence of each length
    tails: list[int] = []
    before: list[int] = []
    for i, value in enumerate(values):
        place = bisect_right(ends, value)
        ends[place : place + 1], tails[place : place + 1] = [value], [i]
        before.append(tails[place - 1] if place else -1)
    path = []
    i = tails[-1] if tails else -1
    while i >= 0:
        path.append(i)
        i = before[i]
    return path[::-1]


def filled(
    words: Sequence[Word | None], texts: Iterable[str], low: float, high: float
) -> list[Word]:
    """Let words without times share the gap between their neighbours evenly, score -1.

    Args:
        words: In order, without overlap; None where a word has no times.
        texts: Their spelling, all of them.
        low: Where the first gap starts, seconds; not after the first word that has times.
        high: Where the last gap ends.

    Returns:
        All words, in order, in the spelling of `texts`.
    """
    texts, result, i = list(texts), [], 0
    while i < len(words):
        word = words[i]
        if word is not None:
            result.append(Word(texts[i], word.start, word.end, word.score))
            i += 1
            continue
        stop = next((k for k in range(i, len(words)) if words[k] is not None), len(words))
        a = result[-1].end if result else low
        b = max(a, high if stop == len(words) else words[stop].start)
        edges = [a + (b - a) * k / (stop - i) for k in range(stop - i)] + [b]
        result += [
            Word(text, x, y)
            for text, x, y in zip(texts[i:stop], edges[:-1], edges[1:], strict=True)
        ]
        i = stop
    return result
