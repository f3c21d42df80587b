"""What a word of a transcript is: the one definition that text extractors and aligners share."""

from __future__ import annotations

import re
import unicodedata

# Scripts that put no space between words, as (first, last) code points. Hangul is not among them:
# Korean separates its words.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark and zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3100, 0x312F),  # Bopomofo
    (0x31F0, 0x31FF),  # Katakana phonetic extensions
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x20000, 0x3FFFF),  # Han, further extensions
)


def split_words(text: str) -> list[tuple[int, int]]:
    """Find the words of a transcript.

    A word is a stretch between white space that holds at least one letter or digit; punctuation
    written onto it belongs to it, punctuation standing alone is no word. In scripts without
    spaces (Chinese, Japanese, Thai, Lao, Khmer, Myanmar) no dictionary is consulted: each letter,
    with the marks combined onto it, is a word, and a run of other characters between them is
    taken as if it stood between white space.

    Args:
        text: The transcript.

    Returns:
        Character spans (start, end) of the W words, in order; a word's index is its place here.

    >>> split_words("Well -- I'm fine.")
    [(0, 4), (8, 11), (12, 17)]
    >>> split_words("我爱NLP吧。")
    [(0, 1), (1, 2), (2, 5), (5, 6)]
    """
    spans: list[tuple[int, int]] = []
    for token in re.finditer(r"\S+", text):
        if token[0].isascii():  # nothing to look for in there, and most are
            spans.append(token.span())
            continue
        start, single = token.start(), False  # single: the open run is one unspaced letter
        for i in range(token.start(), token.end()):
            unspaced = _is_unspaced_letter(text[i])
            combined = unicodedata.category(text[i]).startswith("M")
            if i > start and (unspaced or (single and not combined)):
                spans.append((start, i))
                start = i
            if not combined:
                single = unspaced
        spans.append((start, token.end()))
    return [(a, b) for a, b in spans if any(map(str.isalnum, text[a:b]))]


def _is_unspaced_letter(character: str) -> bool:
    code = ord(character)
    return any(a <= code <= b for a, b in _UNSPACED) and character.isalnum()
