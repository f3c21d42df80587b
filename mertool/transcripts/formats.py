"""What transcript files of each format hold: their text, cue by cue, as it stands there."""

from __future__ import annotations

import html
import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from mertool.errors import DataError
from mertool.transcripts.times import Oddities, Timed, seconds

_GRID_UNITS = 25000  # per second: of a .align file's times
_SILENCES = {"", "sil", "sp", "spn", "<eps>", "<sil>", "sil.", "#", "<p:>"}
_UNKNOWN = "<unk>"  # what an aligner had no pronunciation for; some write it in place of the word


@dataclass
class Stretch:
    """A cue as a file has it.

    Attributes:
        text: What is said; "" = its words.
        start: Seconds in the recording; None = not known.
        end: The same.
        words: As the file has them; empty = it has none.
        speaker: "" when unknown.
    """

    text: str
    start: float | None = None
    end: float | None = None
    words: list[Timed] = field(default_factory=list)
    speaker: str = ""


@dataclass
class Content:
    """What a file holds.

    Attributes:
        cues: In the order of the file.
        language: "" when the file does not say.
        odd: What was odd about it.
    """

    cues: list[Stretch] = field(default_factory=list)
    language: str = ""
    odd: Oddities = field(default_factory=Oddities)


def clean(text: str) -> str:
    """One line of text that can be stored: no NUL, no half of a character, single spaces."""
    whole = text.replace("\0", "").encode("utf-8", "replace").decode()
    return " ".join(whole.split())


def spoken(words: Sequence[Timed], odd: Oddities) -> list[Timed]:
    """The words without silences, and without those that are not known."""
    for word in words:
        if word.text.casefold() == _UNKNOWN:
            odd.add("words that are unknown, <unk>, left out", f"at {word.start or 0:.2f} s")
    silent = {*_SILENCES, _UNKNOWN}
    return [word for word in words if word.text.casefold() not in silent]


def wrong(problem: str, path: Path, expected: str) -> DataError:
    """The error for a file that is not of its format."""
    return DataError("The transcript file cannot be read.", f"{path}: {problem}", expected)


# --- JSON of whisperX and Whisper ---

_JSON = (
    'Expected is whisperX\'s JSON: {"segments": [{"start": 0.5, "end": 2.1, "text": "...", '
    '"words": [...]}], "language": "en"}; see docs/words.md'
)


def is_json_transcript(document: Any) -> bool:
    """Whether a JSON document is a transcript, of those that stand beside media."""
    return isinstance(document, dict) and any(
        isinstance(document.get(key), list) for key in ("segments", "word_segments")
    )


def _json(text: str, path: Path) -> Content:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong(f"it is no JSON document: {str(error)[:80]}", path, _JSON) from error
    if not is_json_transcript(document):
        raise wrong('it has neither a list "segments" nor "word_segments"', path, _JSON)
    content = Content()
    language = document.get("language")
    if isinstance(language, str) and re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", language):
        content.language = language
    for i, segment in enumerate(document.get("segments") or ()):
        where = f"segment {i}"
        if not isinstance(segment, dict):
            raise wrong(f"{where} is no {{...}}", path, _JSON)
        words = _words(segment.get("words"), where, path)
        content.cues.append(
            Stretch(
                _text(segment.get("text"), f"{where}, text", path),
                *_span(segment),
                words,
                _text(segment.get("speaker"), f"{where}, speaker", path),
            )
        )
    words = _words(document.get("word_segments"), "word_segments", path)
    if not content.cues:
        content.cues = [Stretch("", words=words)]
    elif not any(cue.words for cue in content.cues):
        hand_out(words, content)
    return content


def _span(item: dict[str, Any]) -> tuple[float | None, float | None]:
    return seconds(item.get("start")), seconds(item.get("end"))


def _text(value: Any, where: str, path: Path) -> str:
    if not isinstance(value, str | None):
        raise wrong(f"{where}: {str(value)[:40]} is no text", path, _JSON)
    return clean(value or "")


def _words(items: Any, where: str, path: Path) -> list[Timed]:
    """Words of a segment; times and score may be absent (whisperX leaves out what has none)."""
    if not isinstance(items, list | None):
        raise wrong(f"{where}: its words are no list", path, _JSON)
    words = []
    for k, item in enumerate(items or ()):
        if not isinstance(item, dict):
            raise wrong(f"{where}, word {k} is no {{...}}", path, _JSON)
        word = item.get("word", item.get("text"))
        text = _text(word, f"{where}, word {k}", path)
        score = item.get("score", item.get("probability"))
        known = isinstance(score, int | float) and (score == -1 or 0 <= score <= 1)
        words.append(Timed(text, *_span(item), float(score) if known else 1.0))
    return words


def hand_out(words: Sequence[Timed], content: Content) -> None:
    """Give each cue the words whose middle lies in it; for the others there is no place."""
    cues = [cue for cue in content.cues if cue.start is not None and cue.end is not None]
    cues.sort(key=lambda cue: cue.start)
    starts, ends = [cue.start for cue in cues], [cue.end for cue in cues]
    latest = list(accumulate(ends, max))  # end of all cues so far
    for word in words:
        if word.start is None or word.end is None:
            continue
        middle = (word.start + word.end) / 2
        i = bisect_right(starts, middle) - 1
        while i >= 0 and ends[i] <= middle < latest[i]:
            i -= 1
        if i >= 0 and middle < ends[i]:
            cues[i].words.append(word)
        else:
            content.odd.add("words outside every segment, left out", f'"{word.text[:40]}"')


# --- subtitles ---

_STAMP = r"<\d[\d:.]*>"  # a time within a caption's text


def _srt(text: str, path: Path) -> Content:
    # pysubs2 takes a cue's last line for the next cue's number where it is a number: the last cue
    # has no next, and would lose its own.
    return _subtitles(text + "\n\n0\n", "srt", path)


def _vtt(text: str, path: Path) -> Content:
    """WebVTT; comments, styles and the names of cues, which pysubs2 takes for text, are left out.

    Captions of a live stream or of YouTube's recogniser roll: each shows the line before once
    more. In such files, known by the times within their text, a line that repeats is left out.
    """
    rolling = re.search(_STAMP, text) is not None
    cues: list[list[str]] = []  # each its times and lines
    comment, said, last, odd = False, False, "", Oddities()
    for line in re.split(r"\r\n|\n|\r", text):
        if not line:
            comment = said = False
        elif not said and re.match(r"(NOTE|STYLE|REGION)\b", line):
            comment = True
        elif "-->" in line and not comment:
            said = True
            cues.append([line])
        elif said:
            line = re.sub(_STAMP, "", line)
            words = clean(re.sub(r"<[^>]*>", "", line))
            if rolling and words and words == last:
                odd.add("caption lines that are shown twice, left out once", f'"{words[:40]}"')
            elif words:
                cues[-1].append(line)
                last = words
    if not cues and text.strip() and not text.startswith("WEBVTT"):
        raise wrong("it holds no cue", path, "Expected is WebVTT: 00:01.000 --> 00:02.500")
    # The number after each cue: see _srt.
    content = _subtitles("".join("\n".join([*cue, "", "0", ""]) for cue in cues), "vtt", path)
    content.odd = odd
    return content


def _subtitles(text: str, kind: str, path: Path) -> Content:
    import pysubs2

    content = Content()
    try:
        # Tags are left in: who speaks is in one of them.
        lines = pysubs2.SSAFile.from_string(text, kind, keep_html_tags=True)
    except (pysubs2.Pysubs2Error, ValueError, OverflowError) as error:
        raise wrong(f"{type(error).__name__}: {error}", path, f"Is it {kind.upper()}?") from error
    for line in lines:
        if line.is_comment:
            continue
        voice = re.match(r"\s*<v(?:\.[^\s>]*)?\s+([^>]+)>", line.text)
        said = html.unescape(re.sub(r"</?[A-Za-z][^>]*>", "", line.plaintext))
        content.cues.append(
            Stretch(
                clean(said),
                seconds(line.start / 1000),
                seconds(line.end / 1000),
                speaker=clean(voice[1]) if voice else "",
            )
        )
    if not content.cues and clean(text) not in ("", "0"):
        raise wrong("it holds no cue", path, f"Is it {kind.upper()}? 00:00:01,000 --> 00:00:02,500")
    return content


# --- GRID's .align and plain text ---


def _align(text: str, path: Path) -> Content:
    expected = "Each line of a .align file is START END WORD, times in 1/25000 s."
    words = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            start, end = (float(part) / _GRID_UNITS for part in parts[:2])
            if len(parts) != 3 or not (math.isfinite(start) and math.isfinite(end)):
                raise ValueError
        except ValueError:
            raise wrong(f'line {number}: "{line[:40]}"', path, expected) from None
        words.append(Timed(clean(parts[2]), seconds(start), seconds(end)))
    content = Content()
    content.cues = [Stretch("", words=spoken(words, content.odd))]
    return content


def _txt(text: str, path: Path) -> Content:
    return Content([Stretch(clean(text))])


PARSERS: dict[str, Callable[[str, Path], Content]] = {
    ".json": _json,
    ".align": _align,
    ".vtt": _vtt,
    ".srt": _srt,
    ".txt": _txt,
}
