"""Cutting a long recording into utterances: by its sentences, its cues or a length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mertool.errors import DataError, UsageError
from mertool.transcripts import Cue, Transcript, clamped, moved, part_of
from mertool.transcripts.sentences import sentence_ends
from mertool.transcripts.voice import Activity, cut, utterances, widened
from mertool.types import Clip, Word
from mertool.words import split_words

PAUSE = 0.5  # seconds of silence that part two utterances where there is no transcript
SUFFIX = r"_\d+\.\d\d-\d+\.\d\d(_\d+)?"  # what a piece's id has behind the recording's
_MARGIN = 0.1  # seconds by which a sentence reaches into the pauses around it
_REACH = 1.0  # seconds that a sentence's end may be moved to a pause


@dataclass(frozen=True)
class Rule:
    """How recordings are cut.

    Attributes:
        by: "sentences", "cues" or "seconds".
        seconds: Longest piece where it is "seconds".
    """

    by: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds:g}" if self.by == "seconds" else self.by


def rule(text: str) -> Rule | None:
    """What `--segment` asks for; None = nothing.

    Raises:
        UsageError: It is none of sentences, cues and a number of seconds.
    """
    if not text:
        return None
    if text in ("sentences", "cues"):
        return Rule(text)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.5 <= seconds < math.inf:
        raise UsageError(
            f'Recordings cannot be cut by "{text}".',
            f"--segment {text}",
            "Write sentences, cues or a number of seconds from 0.5 up, such as 10.",
        )
    return Rule("seconds", seconds)


def needs_sound(rule: Rule, transcript: Transcript | None, start: float, end: float) -> bool:
    """Whether it must be known where somebody speaks between two times of a recording.

    Raises:
        DataError: The transcript has no times.
    """
    if rule.by == "seconds":
        return end - start > rule.seconds
    line = _Line.of(transcript, start, end)
    return not line.words or (rule.by == "sentences" and not all(line.sure))


def segment(
    clip: Clip, transcript: Transcript | None, rule: Rule, heard: Activity | None, end: float
) -> tuple[list[Clip], list[str]]:
    """Cut a clip into utterances.

    Args:
        clip: A recording, or a part of one, with its text and words.
        transcript: Of the recording; None = there is none.
        rule: How it is cut.
        heard: Where somebody speaks in the clip, where `needs_sound`.
        end: End of the clip in the recording, seconds.

    Returns:
        A clip for each utterance, named ID_START-END by its times in the recording, with its text
        and, where the transcript has times of words, its words; all else as the clip's. And notes.

    Raises:
        DataError: The transcript has no times, or there is nothing to cut by.
    """
    if rule.by == "seconds" and end - clip.start <= rule.seconds:
        words = None if clip.words is None else moved(clip.words, clip.start)
        return [_clip(clip, _Piece(clip.start, end, clip.text, words), {})], []
    line, notes = _Line.of(transcript, clip.start, end), []
    if rule.by == "seconds":
        spans = cut(heard, 0.0, end - clip.start, rule.seconds)
        pieces = line.over([(clip.start + a, clip.start + b) for a, b in spans])
    elif line.words:
        pieces = line.cues() if rule.by == "cues" else line.sentences(heard, clip.start, end)
        if rule.by == "sentences" and not sentence_ends(line.text, line.spans):
            notes.append("the transcript has no sentence marks: its cues are taken for sentences")
    else:
        spans = utterances(heard, PAUSE)
        if not spans:
            raise DataError(
                "Nobody speaks, and there is no transcript: there is nothing to cut by.",
                str(clip.media),
                "Cut it by time (--segment 10), or leave it out.",
            )
        notes.append("there is no transcript: cut by the voice")
        pieces = [_Piece(clip.start + a, min(clip.start + b, end)) for a, b in spans]
    names: dict[str, int] = {}
    return [_clip(clip, piece, names) for piece in pieces], notes


@dataclass
class _Piece:
    """An utterance, times in the recording."""

    start: float
    end: float
    text: str = ""
    words: list[Word] | None = None


def _clip(clip: Clip, piece: _Piece, names: dict[str, int]) -> Clip:
    start, end = round(piece.start, 3), round(piece.end, 3)
    name = f"{clip.id}_{start:.2f}-{end:.2f}"
    names[name] = names.get(name, 0) + 1
    if names[name] > 1:  # two captions at once
        name += f"_{names[name]}"
    words = None
    if piece.words is not None:
        words = moved([clamped(word, start, end) for word in piece.words], -start)
    # The names of speakers in a transcript are not taken over: those of two recordings may be the
    # same where the speakers are not.
    return replace(
        clip, id=name, start=start, end=end, text=piece.text, words=words,
        labels=dict(clip.labels),
    )  # fmt: skip


@dataclass
class _Line:
    """A transcript as one line of words with times in the recording.

    Attributes:
        text: All cues' texts, a space between two.
        spans: Characters of each word.
        words: Each with times; estimated by its share of its cue's characters where not `sure`.
        sure: Whether a word's times are the transcript's.
        cue: The number of each word's cue.
        begins: Character at which each cue begins.
        times: Start and end of each cue.
    """

    text: str
    spans: list[tuple[int, int]]
    words: list[Word]
    sure: list[bool]
    cue: list[int]
    begins: list[int]
    times: list[tuple[float, float]]

    @staticmethod
    def of(transcript: Transcript | None, start: float, end: float) -> _Line:
        """What of a transcript lies between two times.

        Raises:
            DataError: Something said has no times.
        """
        line = _Line("", [], [], [], [], [], [])
        for cue in transcript.cues if transcript else ():
            words = list(cue.words) or _estimated(cue)
            part = part_of(cue.text, words, start, end)
            if part is None:
                continue
            mine, characters = part
            inside = words[mine]
            line.text += " " if line.text else ""
            line.begins.append(len(line.text))
            whole = cue.start is not None and cue.end is not None and len(inside) == len(words)
            own = (inside[0].start, inside[-1].end)
            line.times.append((cue.start, cue.end) if whole else own)
            shift = len(line.text) - characters.start
            line.spans += [(x + shift, y + shift) for x, y in split_words(cue.text)[mine]]
            line.words += inside
            line.sure += [bool(cue.words)] * len(inside)
            line.cue += [len(line.times) - 1] * len(inside)
            line.text += cue.text[characters].strip()
        return line

    def cues(self) -> list[_Piece]:
        """A piece for each cue."""
        numbers = range(len(self.times))
        return [self._piece(*self.times[n], *self._range(n)) for n in numbers]

    def _range(self, number: int) -> tuple[int, int]:
        first = self.cue.index(number)
        return first, first + self.cue.count(number)

    def over(self, spans: Sequence[tuple[float, float]]) -> list[_Piece]:
        """A piece for each stretch of time: a word belongs where its middle lies."""
        pieces, i = [], 0
        for number, (start, end) in enumerate(spans):
            first = i
            final = number == len(spans) - 1
            while i < len(self.words) and (
                final or (self.words[i].start + self.words[i].end) / 2 < end
            ):
                i += 1
            pieces.append(self._piece(start, end, first, i))
        return pieces

    def sentences(self, heard: Activity | None, low: float, high: float) -> list[_Piece]:
        """A piece for each sentence; for each cue where no sentence has an end."""
        marks = sentence_ends(self.text, self.spans)
        stops = [i + 1 for i in marks] or [self._range(n)[1] for n in range(len(self.times))]
        stops = sorted({*stops, len(self.words)})
        edges: list[tuple[float, float]] = []
        start = self.words[0].start
        for stop in stops:
            if stop == len(self.words):
                edges.append((start, self.words[-1].end))
                break
            end, following = self.words[stop - 1].end, self.words[stop].start
            if not self.sure[stop] and self.cue[stop] == self.cue[stop - 1]:
                limits = max(start, self.times[self.cue[stop]][0]), self.times[self.cue[stop]][1]
                end, following = _settled((end + following) / 2, limits, heard, low)
            edges.append((start, end))
            start = following
        wide = widened([(a - low, max(a, b) - low) for a, b in edges], high - low, _MARGIN)
        firsts = [0, *stops[:-1]]
        return [
            self._piece(a + low, b + low, first, stop, marks)
            for (a, b), first, stop in zip(wide, firsts, stops, strict=True)
        ]

    def _piece(
        self, start: float, end: float, first: int, stop: int, marks: dict[int, int] | None = None
    ) -> _Piece:
        """A piece of the words `first` to before `stop`."""
        if first == stop:
            return _Piece(start, end)
        a, b = (self._border(i, marks or {}) for i in (first, stop))
        words = self.words[first:stop] if all(self.sure[first:stop]) else None
        return _Piece(start, max(end, start + 0.01), self.text[a:b].strip(), words)

    def _border(self, i: int, marks: dict[int, int]) -> int:
        """The character at which the text of a piece that begins with word `i` begins."""
        if i == 0 or i == len(self.words):
            return 0 if i == 0 else len(self.text)
        if self.cue[i] != self.cue[i - 1]:
            return self.begins[self.cue[i]]
        return marks.get(i - 1, self.spans[i][0])


def _estimated(cue: Cue) -> list[Word]:
    """Words at their share of a cue's characters.

    Raises:
        DataError: The cue has no times.
    """
    spans = split_words(cue.text)
    if not spans:
        return []
    if cue.start is None or cue.end is None:
        raise DataError(
            "The transcript has no times, so it cannot be divided.",
            f'"{cue.text[:60]}"',
            "Give one with times (.srt, .vtt, .json: `mertool align` and `data export words` make "
            "one), or cut by the voice alone: --transcript none",
        )
    step = (cue.end - cue.start) / len(cue.text)
    edges = [(cue.start + a * step, cue.start + b * step) for a, b in spans]
    edges[0] = (cue.start, edges[0][1])
    edges[-1] = (edges[-1][0], cue.end)
    return [Word(cue.text[a:b], *edge) for (a, b), edge in zip(spans, edges, strict=True)]


def _settled(
    at: float, limits: tuple[float, float], heard: Activity | None, low: float
) -> tuple[float, float]:
    """Where one sentence ends and the next starts: around the pause that is nearest to `at`."""
    pauses = heard.pauses(limits[0] - low, limits[1] - low) if heard else []
    pauses = [(a + low, b + low) for a, b in pauses]
    near = [
        (max(a - at, at - b, 0.0), a, b)
        for a, b in pauses
        if a > limits[0] and b < limits[1] and max(a - at, at - b) <= _REACH
    ]
    return min(near)[1:] if near else (at, at)
