"""Transcripts: what is said in a recording and, where it is known, when.

`files.py` reads the formats of others, `write.py` writes them, `whisper.py` and `sphinx.py`
recognise speech where there is no transcript. All speak of the same `Transcript`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mertool.types import Word
from mertool.words import split_words


@dataclass(frozen=True)
class Cue:
    """A stretch of a transcript that stands alone: a caption, a segment of a recogniser.

    Attributes:
        text: What is said.
        start: Its start in the recording, seconds; None = not known.
        end: Its end; None = not known.
        words: One for each of `split_words(text)`, in its spelling, in order, without overlap, with
            times in the recording; score 1 where a file gives times without a score, -1 where a
            word has no times of its own and stands between its neighbours. Empty where the words'
            times are not known.
        speaker: Who says it, "" when unknown.
    """

    text: str
    start: float | None = None
    end: float | None = None
    words: tuple[Word, ...] = ()
    speaker: str = ""


@dataclass
class Transcript:
    """What is said in a recording, or in a stretch of one.

    Attributes:
        cues: In the order in which they are said.
        language: BCP 47 tag such as "en", "" when unknown.
        notes: What was odd and how it was mended, for the user.
    """

    cues: list[Cue] = field(default_factory=list)
    language: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All cues' texts, a space between two."""
        return " ".join(cue.text for cue in self.cues)

    @property
    def words(self) -> list[Word] | None:
        """One for each of `split_words(self.text)`; None where not all cues know their words."""
        if not all(cue.words or not split_words(cue.text) for cue in self.cues):
            return None
        return [word for cue in self.cues for word in cue.words]


def moved(words: Sequence[Word], seconds: float) -> list[Word]:
    """The words, `seconds` later."""
    return [replace(w, start=w.start + seconds, end=w.end + seconds) for w in words]
