"""How words are said that the pronunciation dictionary lacks: by espeak-ng, or by our rules."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Callable

from mertool.align.spelling import pronounce

PROGRAM = "espeak-ng"
_COMMAND = (PROGRAM, "-q", "--ipa", "-v", "en-us", "--stdin")
_LONGEST = 10.0  # seconds that a word may take

# espeak-ng's American English in ARPABET. A tap is a T to the dictionary.
_PHONES = {
    "tʃ": "CH", "dʒ": "JH", "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "ɔɪ": "OY",
    "ɚɹ": "ER", "ɜːɹ": "ER", "ɑː": "AA", "ɔː": "AO", "oː": "AO", "ɜː": "ER",
    "l̩": "AH L", "n̩": "AH N", "m̩": "AH M",
    "ɑ": "AA", "ɒ": "AA", "a": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɔ": "AO",
    "ɛ": "EH", "e": "EY", "ɚ": "ER", "ɝ": "ER", "ɜ": "ER", "ɪ": "IH", "ᵻ": "IH", "i": "IY",
    "o": "OW", "ʊ": "UH", "u": "UW", "ɹ": "R", "r": "R", "ɾ": "T", "ʔ": "T", "j": "Y", "h": "HH",
    "ŋ": "NG", "θ": "TH", "ð": "DH", "ʃ": "SH", "ʒ": "ZH", "ɡ": "G", "g": "G", "x": "K",
    "b": "B", "d": "D", "f": "F", "k": "K", "l": "L", "m": "M", "n": "N", "p": "P", "s": "S",
    "t": "T", "v": "V", "w": "W", "z": "Z",
}  # fmt: skip
_SYMBOL = re.compile("|".join(sorted(map(re.escape, _PHONES), key=len, reverse=True)))


def has_espeak() -> bool:
    """Whether espeak-ng is installed."""
    return shutil.which(PROGRAM) is not None


def guesser(by: str) -> Callable[[str, Callable[[str], str | None]], str]:
    """What pronounces words that the dictionary lacks.

    Args:
        by: "espeak" or "rules". What espeak-ng does not pronounce is left to the rules.

    Returns:
        Called as `spelling.pronounce`: gives ARPABET phones, at least one.
    """
    if by == "rules":
        return pronounce
    return lambda word, lookup: espeak(word) or pronounce(word, lookup)


@functools.lru_cache(maxsize=65536)
def espeak(word: str) -> str:
    """Ask espeak-ng how a word is said.

    Args:
        word: Lower-case a to z and apostrophes; it goes in by standard input, never by a shell.

    Returns:
        ARPABET phones; "" where espeak-ng is not installed or does not answer.
    """
    try:
        done = subprocess.run(
            _COMMAND, input=word + "\n", capture_output=True, encoding="utf-8", errors="replace",
            timeout=_LONGEST, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return arpabet(done.stdout)


def arpabet(ipa: str) -> str:
    """IPA as espeak-ng writes it in ARPABET; symbols that English lacks are left out.

    >>> arpabet("zˈoːɹbɪŋ")
    'Z AO R B IH NG'
    """
    plain = re.sub(r"\([^)]*\)|[ˈˌ\s_]", "", ipa)  # "(fr)": a word said as in another language
    return " ".join(_PHONES[symbol] for symbol in _SYMBOL.findall(plain))
