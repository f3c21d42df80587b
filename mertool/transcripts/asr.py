"""What recognisers share: their settings, what they are given, and cues put in order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mertool.errors import did_you_mean
from mertool.transcripts import Cue

ENGINES = ("pocketsphinx", "whisper")

Pieces = Iterable[tuple[float, np.ndarray]]  # (start in seconds, (S,) float32 at 16 kHz)


@dataclass(frozen=True)
class Config:
    """How speech is recognised.

    Attributes:
        engine: "whisper" or "pocketsphinx"; empty = that of the profile: pocketsphinx for offline,
            whisper for paper.
        model: Of whisper: Hugging Face id, or a folder on this machine (which wins).
        language: Language of the speech, such as "en"; empty = the clip's, else detected.
    """

    engine: str = ""
    model: str = "openai/whisper-small"
    language: str = ""

    def __post_init__(self) -> None:
        if self.engine and self.engine not in ENGINES:
            raise ValueError(f'engine="{self.engine}": {did_you_mean(self.engine, ENGINES)}')
        if not self.model.strip():
            raise ValueError('model="" must be a Hugging Face id or a folder')
        if self.language and not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*", self.language):
            raise ValueError(f'language="{self.language}" must be a tag such as en or pt-BR')


def ordered(cues: Iterable[Cue]) -> list[Cue]:
    """Cues with something said, their words within them and without overlap, in milliseconds."""
    result, last = [], 0.0
    for cue in cues:
        words = []
        for word in cue.words:
            start = max(round(word.start, 3), last)
            last = max(round(word.end, 3), start)
            words.append(replace(word, start=start, end=last, score=round(word.score, 4)))
        if words:
            result.append(replace(cue, start=words[0].start, end=last, words=tuple(words)))
    return result
