"""From the tokens that a recogniser writes, and their times, to words with times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mertool.transcripts import clamped
from mertool.types import Word
from mertool.words import split_words


def characters(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[int]]:
    """The text of tokens, and how many of its characters are whole after each of them.

    Returns:
        The text; (n + 1) counts, the first 0. A token may end amidst a character.
    """

    def decoded(count: int) -> str:
        text = tokenizer.decode(
            list(tokens[:count]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.rstrip("\ufffd")

    counts = [len(decoded(count)) for count in range(len(tokens) + 1)]
    return decoded(len(tokens)), np.maximum.accumulate(counts).tolist()


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
            word = clamped(word, heard[0][0], heard[-1][1])
        yield word
