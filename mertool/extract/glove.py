"""Word vectors of the user's own file, GloVe's or another's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mertool.errors import MertoolWarning, UsageError
from mertool.extract.vectors import Vectors
from mertool.types import Clip, Rows
from mertool.words import split_words

_SHOWN = 5  # words without a vector that a note names


class Glove:
    """The vector of each word, from a file such as GloVe's (Pennington et al. 2014) releases.

    A word is sought as it stands, in lower case, and in both forms without the punctuation around
    it. A transcript all in capitals says nothing about case: there lower case comes first, or "IT"
    would be found as the abbreviation.

    Args:
        config: Settings.
        device: Ignored; nothing is computed.

    Raises:
        UsageError: No file is named.
        DataError: It cannot be read, or a line is wrong.
        OutputError: The cache folder cannot be written.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `glove`.

        Attributes:
            vectors: The file, as text: a word and its numbers per line, as GloVe's releases have.
        """

        vectors: str = ""

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        if not config.vectors.strip():
            raise UsageError(
                "No file of word vectors is named.",
                'text.vectors=""',
                "Name one: --set text.vectors=glove.840B.300d.txt",
            )
        file = Path(config.vectors)
        self._vectors = Vectors(file)
        self.columns = [f"dim{i:03d}" for i in range(self._vectors.width)]
        self.info: dict[str, str | float] = {
            "model": file.name,
            "revision": f"sha256 {self._vectors.sha256[:12]}",
            "licence": "",
            "rate": 0.0,
            "timed": "false",
            "version": "1",
        }

    def extract(self, clip: Clip) -> Rows:
        """Look up the words of one transcript.

        Args:
            clip: A clip with text.

        Returns:
            A row per word that has a vector, untimed (times are zeros), with the word's index in
            `split_words` and its character range. A warning counts the others.
        """
        spans = split_words(clip.text)
        if not spans:
            warnings.warn("no text, no text rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns), text=True)
        capitals = clip.text.isupper()
        found = [self._find(clip.text[a:b], capitals) for a, b in spans]
        word = [i for i, vector in enumerate(found) if vector is not None]
        if len(word) < len(spans):
            missing = [clip.text[a:b] for (a, b), v in zip(spans, found, strict=True) if v is None]
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            warnings.warn(
                f"{len(missing)} of {len(spans)} words have no vector: "
                f"{', '.join(missing[:_SHOWN])}{more}",
                MertoolWarning,
                stacklevel=2,
            )
        if not word:
            return Rows.empty(len(self.columns), text=True)
        return Rows(
            np.stack([found[i] for i in word]),
            np.zeros((len(word), 2)),
            np.array(word, np.int32),
            np.array([spans[i] for i in word], np.int32),
        )

    def _find(self, word: str, capitals: bool) -> np.ndarray | None:
        vectors = map(self._vectors.find, _spellings(word, capitals))
        return next((vector for vector in vectors if vector is not None), None)


def _spellings(word: str, capitals: bool) -> Iterator[str]:
    """How a word may stand in the file, the likeliest first."""
    said = [i for i, character in enumerate(word) if character.isalnum()]
    for form in (word, word[said[0] : said[-1] + 1]):
        yield from (form.lower(), form) if capitals else (form, form.lower())
