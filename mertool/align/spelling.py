"""How words are said: transcript words as dictionary words, letter-to-sound rules for the rest."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_FOLD = str.maketrans(
    {**dict.fromkeys("’‘ʼ′´`＇\x92", "'"), **dict.fromkeys("‐‑‒–—−", "-")}
    | {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "th", "þ": "th", "ı": "i"}
)
_SIGNS = {"&": "and", "%": "percent", "+": "plus", "@": "at", "=": "equals"}
_TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<decimals>\d+))?(?P<suffix>(?:st|nd|rd|th|s)\b)?"
    r"|(?P<sign>[&%+@=])|(?P<word>[a-z]+(?:'[a-z]+)*)"
)
# The dictionary has more of these, but most, such as "in.", are a sentence's end far more often.
_ABBREVIATIONS = {"dr.", "etc.", "jr.", "mr.", "mrs.", "ms.", "prof.", "vs."}
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def dictionary_words(word: str, known: Callable[[str], bool]) -> list[str]:
    """Write a word of a transcript in words of the pronunciation dictionary.

    Letter case, accents, quotes and punctuation go; numbers and a few signs are spelt out;
    hyphenated words fall apart unless the dictionary has them whole.

    Args:
        word: A word as it stands in the transcript.
        known: Whether the dictionary has a word.

    Returns:
        Lower-case words; those not in the dictionary are left to `pronounce`. Empty when the word
        holds letters that are not Latin.

    >>> dictionary_words("“Twenty-1st,”", {"twenty", "first"}.__contains__)
    ['twenty', 'first']
    """
    folded = unicodedata.normalize("NFKD", word.casefold().translate(_FOLD))
    folded = "".join(c for c in folded.translate(_FOLD) if not unicodedata.combining(c))
    if any(c.isalnum() and not c.isascii() for c in folded):
        return []
    core = re.sub(r"^[^a-z0-9'.]+|[^a-z0-9'.]+$", "", folded)
    dotted = core if core in _ABBREVIATIONS or "." in core.strip(".") else ""
    for form in (dotted, core.strip("."), core.strip("'.")):
        if form and known(form):  # "u.s.", "'cause", "al-qaeda" are there as they stand
            return [form]
    found: list[str] = []
    for token in _TOKEN.finditer(re.sub(r"\$(\d[\d,.]*)", r"\1 dollars ", folded)):
        if token["number"]:
            found += _number(token["number"], token["decimals"], token["suffix"])
        elif token["sign"]:
            found.append(_SIGNS[token["sign"]])
        else:
            found += _spelling(token["word"], word.isupper(), known)
    return found


def _spelling(word: str, upper: bool, known: Callable[[str], bool]) -> list[str]:
    """The word as the dictionary has it: "sooo" is "so", "XJK" is three letters."""
    for form in (word, re.sub(r"(.)\1{2,}", r"\1\1", word), re.sub(r"(.)\1{2,}", r"\1", word)):
        if known(form):
            return [form]
    if upper and not set(word) & set("aeiouy'"):
        return list(word)
    return [word]


def _number(number: str, decimals: str | None, suffix: str | None) -> list[str]:
    """Say a number; above 9999 or with leading zeros, digit by digit."""
    digits = number.replace(",", "")
    if len(digits) > 4 or (len(digits) > 1 and digits[0] == "0"):
        words = [_ONES[int(d)] for d in digits]
    else:
        words = _cardinal(int(digits), year=digits == number)
    if decimals:
        words += ["point", *(_ONES[int(d)] for d in decimals)]
    last = words[-1]
    if suffix == "s":  # the 90s
        words[-1] = last[:-1] + "ies" if last[-1] == "y" else last + "s"
    elif suffix:
        regular = last[:-1] + "ieth" if last[-1] == "y" else last + "th"
        words[-1] = _ORDINALS.get(last, regular)
    return words


def _cardinal(n: int, year: bool = True) -> list[str]:
    if n < 20:
        return [_ONES[n]]
    if n < 100:
        return [_TENS[n // 10]] + ([_ONES[n % 10]] if n % 10 else [])
    if n < 1000:
        words = [_ONES[n // 100], "hundred"]
        return words + (_cardinal(n % 100) if n % 100 else [])
    if year and 1100 <= n < 2000:  # nineteen eighty four
        rest = n % 100
        head = _cardinal(n // 100)
        return head + (["hundred"] if not rest else ["oh"] * (rest < 10) + _cardinal(rest))
    return [_ONES[n // 1000], "thousand"] + (_cardinal(n % 1000) if n % 1000 else [])


# Letter-to-sound rules, ours: the first pattern that fits at a place gives its phones (ARPABET).
# A last resort for words the dictionary lacks. On the dictionary's own words every fifth phone is
# wrong, mostly a vowel; alignment needs only about the right number of about the right sounds.
_RULES = (
    # Whole endings and beginnings
    ("(?:[cst]i|ssi)on", "SH AH N"), ("[ct]ious", "SH AH S"), ("[ct]ial", "SH AH L"),
    ("cian", "SH AH N"), ("ture", "CH ER"), ("(?<=[^aeiouy])le$", "AH L"), ("ism$", "IH Z AH M"),
    ("^[kgp]n", "N"), ("^wr", "R"), ("^ps", "S"), ("^rh", "R"), ("^x", "Z"), ("mb$", "M"),
    ("(?<=[aeiouy][td])ed$|(?<=[aeiouy].[td])ed$", "IH D"),
    ("(?<=[aeiouy][pkfsxc])ed$|(?<=[aeiouy].[pkfsxc])ed$|(?<=[cs]h)ed$", "T"),
    ("(?<=[aeiouy].)ed$|(?<=[aeiouy]..)ed$", "D"), ("(?<=[szxcg])es$|(?<=[cs]h)es$", "IH Z"),
    ("(?<=[aeiouy][^aeiouy])e$|(?<=[aeiouy][^aeiouy]{2})e$", ""),
    ("(?<=[aeiouy][^aeiouy])e(?=s$)", ""),
    # Vowel groups
    ("eigh", "EY"), ("igh", "AY"), ("[ao]ugh", "AO"), ("ea?r(?=[^aeiouy])", "ER"),
    ("e[ae]r", "IH R"), ("air|are$", "EH R"), ("ook", "UH K"), ("oor|oar|our", "AO R"),
    ("ee|ea|ie|ei", "IY"), ("oo|ew|eu|ue|ui", "UW"), ("ou", "AW"), ("ow$|oa|oe", "OW"),
    ("ow", "AW"), ("oi|oy", "OY"), ("ai|ay|ey(?=.)", "EY"), ("ey$", "IY"), ("au|aw", "AO"),
    ("ar", "AA R"), ("[eiu]r(?![aeiouy])|(?<=.)er", "ER"), ("or", "AO R"),
    # A vowel before one consonant and a final e is long
    ("a(?=[^aeiouwxy]e[sd]?$)", "EY"), ("e(?=[^aeiouwxy]e[sd]?$)", "IY"),
    ("[iy](?=[^aeiouwxy]e[sd]?$)", "AY"), ("o(?=[^aeiouwxy]e[sd]?$)", "OW"),
    ("u(?=[^aeiouwxy]e[sd]?$)", "UW"),
    # Vowels
    ("(?:^|(?<=[aeiou]))y(?=[aeiou])", "Y"), ("[eiy]$", "IY"), ("a$", "AH"), ("o$", "OW"),
    ("u$", "UW"), ("i(?=[ao])", "IY"), ("a", "AE"), ("e", "EH"), ("[iy]", "IH"), ("o", "AA"),
    ("u", "AH"),
    # Consonants
    ("tch|ch", "CH"), ("sch|sh", "SH"), ("th", "TH"), ("ph", "F"), ("^gh", "G"), ("gh", ""),
    ("wh", "W"), ("ck", "K"), ("q[uw]?", "K W"), ("dge", "JH"), ("ng$|ng(?=s$)", "NG"),
    ("n(?=[gkqx])", "NG"), ("sc(?=[eiy])", "S"), ("c(?=[eiy])", "S"), ("cc?", "K"),
    ("gg", "G"), ("g(?=[eiy])", "JH"), ("g", "G"), ("bb?", "B"), ("dd?", "D"), ("ff?", "F"),
    ("(?<=[aeiou])h(?![aeiou])", ""), ("h", "HH"), ("j", "JH"), ("kk?", "K"), ("ll?", "L"),
    ("mm?", "M"), ("nn?", "N"), ("pp?", "P"), ("rr?", "R"),
    ("(?<=[aeiou])s(?=[aeiou])|(?<=[bdglmnrvw])s$", "Z"), ("ss?", "S"), ("tt?", "T"),
    ("vv?", "V"), ("ww?", "W"), ("x", "K S"), ("zz?", "Z"),
)  # fmt: skip
_SOUNDS = re.compile("|".join(f"({pattern})" for pattern, _ in _RULES))


def pronounce(word: str, lookup: Callable[[str], str | None] = lambda _: None) -> str:
    """Guess how a word is said, from its letters.

    Args:
        word: Lower-case a to z and apostrophes.
        lookup: Gives the phones of a dictionary word, None for others; used for the base of "X's".

    Returns:
        ARPABET phones, at least one.

    >>> pronounce("blarg")
    'B L AA R G'
    """
    base, apostrophe, ending = word.rpartition("'")
    if apostrophe and ending == "s":
        phones = lookup(base) or pronounce(base)
        last = phones.split()[-1]
        plural = {"P": "S", "T": "S", "K": "S", "F": "S", "TH": "S"}
        plural |= dict.fromkeys(("S", "Z", "SH", "CH", "JH"), "IH Z")
        return f"{phones} {plural.get(last, 'Z')}"
    phones = [_RULES[m.lastindex - 1][1] for m in _SOUNDS.finditer(word.replace("'", ""))]
    return " ".join(p for p in phones if p) or "AH"
