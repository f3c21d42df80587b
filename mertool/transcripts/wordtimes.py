"""From what a recogniser writes, and where it looks meanwhile, to words with times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mertool.types import Word
from mertool.words import split_words


def focus(looks: np.ndarray, width: int) -> np.ndarray:
    """Where the heads look, sharpened.

    Args:
        looks: (heads, rows, positions) attention weights.
        width: Of the median filter over time, odd.

    Returns:
        (rows, positions): the heads' mean of weights that are renormalised, standardised over the
        rows and smoothed over time.
    """
    looks = looks / np.maximum(looks.sum(-1, keepdims=True), 1e-12)
    spread = np.maximum(looks.std(axis=-2, keepdims=True), 1e-12)
    looks = (looks - looks.mean(axis=-2, keepdims=True)) / spread
    padded = np.pad(looks, ((0, 0), (0, 0), (width // 2, width // 2)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    return np.median(windows, axis=-1).mean(axis=0)


def warp(cost: np.ndarray) -> list[int]:
    """Dynamic time warping: the cheapest path through (rows, positions) from corner to corner.

    A step goes to the next row, the next position, or both.

    Returns:
        (rows) the first position of each row.
    """
    rows, _ = cost.shape
    total = np.empty_like(cost)
    total[0] = np.cumsum(cost[0])
    for i in range(1, rows):
        # From above or diagonally; along the row a running minimum solves the recursion.
        above = np.minimum(total[i - 1], np.concatenate([[np.inf], total[i - 1][:-1]]))
        along = np.cumsum(cost[i])
        total[i] = along + np.minimum.accumulate(above - along + cost[i])
    i, j = rows - 1, cost.shape[1] - 1
    first = [0] * rows
    while i:
        best = min(
            [(total[i - 1, j - 1], 0), (total[i - 1, j], 1), (total[i, j - 1], 2)]
            if j
            else [(total[i - 1, j], 1)]
        )[1]
        if best != 2:
            first[i] = j
            i -= 1
        j -= best != 1
    return first


def characters(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[int]]:
    """The text of tokens, and how many of its characters are whole after each of them.

    Returns:
        The text; (n + 1) counts, the first 0. A token may end amidst a character.
    """
    decode: Callable[[list[int]], str] = lambda ids: tokenizer.decode(  # noqa: E731
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    ).rstrip("\ufffd")
    counts = [len(decode(list(tokens[:i]))) for i in range(len(tokens) + 1)]
    return decode(list(tokens)), np.maximum.accumulate(counts).tolist()


def words_of(
    text: str, places: Sequence[int], edges: Sequence[float], scores: Sequence[float]
) -> list[Word]:
    """Words of tokens.

    Args:
        text: What the tokens say.
        places: (n + 1) whole characters after each token, as of `characters`.
        edges: (n + 1) times of the tokens' edges.
        scores: (n) probabilities of the tokens.

    Returns:
        One for each of `split_words(text)`. Several within one token share its time evenly.
    """
    found = []
    for a, b in split_words(text):
        first = int(np.searchsorted(places, a, "right")) - 1
        # A character of several tokens begins where the one before it was whole.
        first = min(first, int(np.searchsorted(places, a, "left")))
        last = int(np.searchsorted(places, b - 1, "right")) - 1
        found.append((text[a:b], first, last))
    words: list[Word] = []
    for spot in dict.fromkeys((first, last) for _, first, last in found):
        texts = [text for text, *own in found if tuple(own) == spot]
        first, last = spot
        ticks = np.linspace(edges[first], edges[last + 1], len(texts) + 1).tolist()
        score = float(np.mean(scores[first : last + 1]))
        words += [Word(t, a, b, score) for t, (a, b) in zip(texts, pairwise(ticks), strict=True)]
    return words


def within(words: Sequence[Word], stretches: Sequence[tuple[float, float]]) -> Iterator[Word]:
    """Words that do not reach into the silence around them; one all in silence stays as it is."""
    for word in words:
        heard = [(a, b) for a, b in stretches if a < word.end and b > word.start]
        if heard:
            start, end = max(word.start, heard[0][0]), min(word.end, heard[-1][1])
            word = Word(word.text, start, end, word.score)
        yield word
