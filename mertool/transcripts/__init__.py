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


def clamped(word: Word, low: float, high: float) -> Word:
    """The word without what of it lies before `low` or behind `high`."""
    start, end = (min(max(time, low), high) for time in (word.start, word.end))
    return replace(word, start=start, end=end)


def part_of(
    text: str, words: Sequence[Word], low: float, high: float
) -> tuple[slice, slice] | None:
    """What of a text is said between two times: a word is, if its middle lies there.

    Args:
        text: The text.
        words: One for each of `split_words(text)`, with times.
        low: From this time on.
        high: Before this time.

    Returns:
        The words, and their characters: what stands between two words, a dash say, goes with the
        first of them. None where there is no word.
    """
    if not words or words[-1].end < low or words[0].start >= high:  # most of a long recording's
        return None
    inside = [i for i, word in enumerate(words) if low <= (word.start + word.end) / 2 < high]
    if not inside:
        return None
    spans, first, last = split_words(text), inside[0], inside[-1]
    a = 0 if first == 0 else spans[first][0]
    b = len(text) if last == len(spans) - 1 else spans[last + 1][0]
    return slice(first, last + 1), slice(a, b)
