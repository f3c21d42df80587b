"""Which words of a file are which words of a text, whatever each calls a word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

from mertool.transcripts.times import Timed

# Comparing the letters of two stretches that differ takes time with the product of their lengths.
_MOST = 250_000


def plain(word: str) -> str:
    """A word's letters and digits: without case, accents, punctuation.

    >>> plain("“L’été,”") == plain("l'ete")
    True
    """
    folded = unicodedata.normalize("NFKD", word.casefold())
    return "".join(c for c in folded if c.isalnum())


def timed(texts: Sequence[str], words: Sequence[Timed]) -> list[Timed]:
    """Give the words of a text the times of the words of a file.

    Both are compared letter by letter, so that a file's word may hold several words of the text
    ("New York") and several of a file's may form one ("twenty", "-one"). Of a file's word each
    word of the text takes a part as long as its share of the letters. A word of the text has times
    only where all its letters, and all letters of the file's words that they belong to, are found.

    Args:
        texts: Words of the text.
        words: Words of the file.

    Returns:
        One for each of `texts`, without times where there are none. The score is the lowest of
        the file's words.
    """
    ours, theirs = [plain(text) for text in texts], [plain(word.text) for word in words]
    mine, other = _letters(ours), _letters(theirs)
    if "".join(ours) == "".join(theirs):
        pairs = list(zip(range(len(mine)), range(len(other)), strict=True))
    else:
        pairs = _pairs(ours, theirs)
    found = [0] * len(texts), [0] * len(words)
    parts: dict[tuple[int, int], list[int]] = {}  # (ours, theirs): first and last of its letters
    for a, b in pairs:
        (i, _), (j, place) = mine[a], other[b]
        found[0][i] += 1
        found[1][j] += 1
        part = parts.setdefault((i, j), [place, place])
        part[1] = place + 1
    complete = _complete(list(parts), found, ours, theirs)
    result = [Timed(text) for text in texts]
    for (i, j), (first, last) in parts.items():
        if (i, j) not in complete or words[j].start is None or words[j].end is None:
            continue
        _, start, end, score = words[j]
        length = (end - start) / len(theirs[j])
        # The end as it stands where the whole word is meant: no rounding.
        low = start + length * first if first else start
        high = start + length * last if last < len(theirs[j]) else end
        was = result[i]
        if was.start is None or was.end is None:
            result[i] = Timed(was.text, low, high, score)
        else:
            result[i] = Timed(was.text, was.start, high, min(was.score, score))
    return result


def _letters(words: Sequence[str]) -> list[tuple[int, int]]:
    """(word, place in it) of each letter."""
    return [(i, k) for i, word in enumerate(words) for k in range(len(word))]


def _pairs(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Places of letters that are found in both, first by whole words, then within what differs."""
    before = [0], [0]  # letters before each word
    for counts, words in zip(before, (ours, theirs), strict=True):
        for word in words:
            counts.append(counts[-1] + len(word))
    pairs = []
    for kind, a, b, c, d in SequenceMatcher(None, ours, theirs).get_opcodes():
        low, high = before[0][a], before[1][c]
        if kind == "equal":
            pairs += [(low + k, high + k) for k in range(before[0][b] - low)]
        elif kind == "replace":
            one, two = "".join(ours[a:b]), "".join(theirs[c:d])
            if len(one) * len(two) > _MOST:
                continue
            for m in SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks():
                pairs += [(low + m.a + k, high + m.b + k) for k in range(m.size)]
    return pairs


def _complete(
    links: Sequence[tuple[int, int]],
    found: tuple[Sequence[int], Sequence[int]],
    ours: Sequence[str],
    theirs: Sequence[str],
) -> set[tuple[int, int]]:
    """The links of words of which all that hang together have all their letters found.

    Links come in order; such groups are stretches of them.
    """
    result: set[tuple[int, int]] = set()
    group: list[tuple[int, int]] = []

    def close() -> None:
        if all(found[0][i] == len(ours[i]) and found[1][j] == len(theirs[j]) for i, j in group):
            result.update(group)

    for link in links:
        if group and link[0] != group[-1][0] and link[1] != group[-1][1]:
            close()
            group = []
        group.append(link)
    close()
    return result
