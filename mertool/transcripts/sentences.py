"""Where sentences end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

# A mark, what closes quotes and brackets, and then nothing that goes on.
_MARK = re.compile(r"[.!?…。！？．؟।]+[\s\"'”’»)\]」』]*(?![^\W_]|[,;:])")
_CLOSING = "\"'”’»)]」』 "
_OPENING = "\"'“‘«([「『"
# Before a name or a number; these never end a sentence.
_TITLES = frozenset(
    "mr. mrs. ms. mme. dr. prof. st. gen. col. lt. capt. sgt. rev. hon. vs. fig. vol. approx. ca. "
    "fr. hr. bzw. sra.".split()
)
# These end one where the next word has a capital.
_SHORT = frozenset("etc. jr. sr. inc. ltd. co. dept. usw.".split())


def sentence_ends(text: str, spans: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Find the words that end a sentence: by . ! ? … and their kin of other scripts.

    Abbreviations, initials and decimals end none, nor does an ellipsis before a small letter.

    Args:
        text: A transcript.
        spans: Its words, of `split_words`.

    Returns:
        {index of the word: character behind its mark and what closes quotes}.

    >>> sentence_ends("Dr. No? Yes.", [(0, 3), (4, 7), (8, 12)])
    {1: 8, 2: 12}
    """
    found = {}
    starts = [*(a for a, _ in spans), len(text)]
    for i, (a, b) in enumerate(pairwise(starts)):
        marks = list(_MARK.finditer(text, a, b))
        if marks and _ends(text[a : marks[-1].end()], text[b:].lstrip(_OPENING)):
            found[i] = marks[-1].end()
    return found


def _ends(said: str, rest: str) -> bool:
    """Whether a word with its mark ends a sentence, given what follows."""
    core = said.rstrip(_CLOSING).lstrip(_OPENING).casefold()
    if core.endswith(("..", "…")):
        return not rest[:1].islower()
    if not core.endswith(".") or not rest:
        return True
    if core == "no.":
        return not rest[:1].isdigit()
    if core in _SHORT:
        return rest[:1].isupper()
    letters = core.rstrip(".")
    initial = len(letters) == 1 and letters.isalpha() and letters != "i"
    return not (core in _TITLES or initial or re.fullmatch(r"(?:[^\W\d_]\.){2,}", core))
