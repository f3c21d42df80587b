"""Words of a transcript in the letters of a CTC model."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mertool.align.spelling import dictionary_words
from mertool.errors import MertoolError, one_line

_APOSTROPHES = frozenset("’‘ʼ′´`＇")
_JOINTS = frozenset("-‐‑‒–—−/")  # between words that are written as one


@dataclass(frozen=True)
class Alphabet:
    """The letters of a model.

    Attributes:
        letters: {character: token}, special tokens left out.
        delimiter: Token between two words, None where the model has none.
        wildcard: Token that stands for a letter the model does not have.
    """

    letters: Mapping[str, int]
    delimiter: int | None
    wildcard: int

    def spell(self, word: str, language: str = "") -> list[int]:
        """The tokens of a word.

        A letter is taken in the case and with the accents that the model has, else without its
        accents. Of the signs that the model does not have, a hyphen or slash within the word
        becomes the delimiter, others are left out. Letters and digits that it has in no form
        become a wildcard, one for all in a row. In English, and where the language is unknown, a
        model without digits gets numbers spelt out.

        Args:
            word: A word as it stands in the transcript.
            language: BCP 47 tag, "" when unknown.

        Returns:
            Tokens, at least one.
        """
        english = language.split("-")[0].casefold() in ("", "en")
        if english and any(map(str.isdigit, word)) and not any(map(str.isdigit, self.letters)):
            tokens: list[int] = []
            # The model has no dictionary: it knows no word as a whole.
            for spelt in dictionary_words(word, lambda _: False):
                if tokens and self.delimiter is not None:
                    tokens.append(self.delimiter)
                tokens += self._letters(spelt)
            if tokens:
                return tokens
        return self._letters(word) or [self.wildcard]

    def _letters(self, word: str) -> list[int]:
        tokens: list[int] = []
        for character in unicodedata.normalize("NFKC", word):
            for token in self._tokens(character):
                # Two in a row would say no more than one, and need two frames more.
                if token not in (self.wildcard, self.delimiter) or tokens[-1:] != [token]:
                    tokens.append(token)
        if tokens[:1] == [self.delimiter]:
            tokens = tokens[1:]
        return tokens[:-1] if tokens[-1:] == [self.delimiter] else tokens

    def _tokens(self, character: str) -> list[int]:
        whole = self._in_some_case(character)
        if whole:
            return whole
        if character in _APOSTROPHES:
            return self._in_some_case("'")
        if character in _JOINTS:
            return [] if self.delimiter is None else [self.delimiter]
        tokens = []
        for part in unicodedata.normalize("NFKD", character):
            found = self._in_some_case(part)
            if not found and part.isalnum():
                found = [self.wildcard]
            tokens += found
        return tokens

    def _in_some_case(self, character: str) -> list[int]:
        for form in (character, character.upper(), character.lower(), character.casefold()):
            if all(c in self.letters for c in form):
                return [self.letters[c] for c in form]
        return []


def read_alphabet(folder: Path, facts: Any) -> tuple[int, Alphabet]:
    """The blank and the letters of a model.

    Args:
        folder: Its folder, with vocab.json and perhaps tokenizer_config.json.
        facts: Its configuration.

    Raises:
        MertoolError: It writes no letters, or not one after the other.
    """
    try:
        return _read(folder, facts)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "it has no vocab.json" if missing else one_line(error).removeprefix("ValueError: ")
        raise MertoolError(
            "The align model is none that writes letters by CTC.",
            f"{folder}: {reason}",
            "Give another one, such as facebook/wav2vec2-base-960h: --set align.model=ID|DIR",
        ) from error


def _read(folder: Path, facts: Any) -> tuple[int, Alphabet]:
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    named: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            named |= json.loads((folder / name).read_text("utf-8"))
    if "Phoneme" in str(named.get("tokenizer_class")):
        raise ValueError("it writes phonemes, not letters")
    if any(isinstance(token, dict) for token in vocabulary.values()):
        raise ValueError("it has a vocabulary for each of several languages")
    if getattr(facts, "add_adapter", False):
        raise ValueError("it has an adapter that joins frames")

    def token(name: str, default: str) -> int | None:
        text = named.get(f"{name}_token") or default
        return vocabulary.get(text["content"] if isinstance(text, dict) else text)

    size = facts.vocab_size
    vocabulary = {text: i for text, i in vocabulary.items() if 0 <= i < size}
    # The configuration's is what the model was trained with.
    blank = facts.pad_token_id
    if blank is None or not 0 <= blank < size:
        blank = token("pad", "<pad>")
    if blank is None:
        raise ValueError("it has no padding token, which would be the blank")
    delimiter = token("word_delimiter", "|")
    others = (token("unk", "<unk>"), token("bos", "<s>"), token("eos", "</s>"))
    plain = {t: i for t, i in vocabulary.items() if i not in (blank, delimiter, *others)}
    letters = {t: i for t, i in plain.items() if len(t) == 1}
    if 2 * len(letters) <= len(plain):
        raise ValueError(f"of its {len(plain)} tokens only {len(letters)} are letters")
    return blank, Alphabet(letters, None if delimiter == blank else delimiter, size)
