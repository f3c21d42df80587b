"""Transcript files: whisperX and Whisper JSON, TextGrid, GRID's .align, WebVTT, SubRip, text."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from pathlib import Path

from mertool.errors import DataError
from mertool.transcripts import Cue, Transcript, clamped, moved, part_of, textgrid
from mertool.transcripts.formats import PARSERS, Content, Stretch, is_json_transcript
from mertool.transcripts.spelling import plain, timed
from mertool.transcripts.times import Oddities, filled, mended
from mertool.types import Clip, Word
from mertool.words import split_words

# Of the files beside a medium, those with times of words first.
SUFFIXES = (".json", ".TextGrid", ".align", ".vtt", ".srt", ".txt")
_PARSERS = {**PARSERS, ".textgrid": textgrid.parse}
_LARGEST = 100 << 20  # bytes: whisperX writes about 2 MB for an hour


def read(path: str | Path) -> Transcript:
    """Read a transcript; its suffix says what it is.

    Where any word has times all get some: a word without stands between its neighbours, score -1.

    Args:
        path: A .json, .TextGrid, .align, .vtt, .srt or .txt file.

    Returns:
        The transcript; its notes say what was odd and how it was mended.

    Raises:
        DataError: There is no such file, or it is none of these.
    """
    path = Path(path)
    if path.suffix.lower() not in _PARSERS:
        raise DataError(
            f'No transcript has the suffix "{path.suffix}".',
            str(path),
            f"Known are {' '.join(SUFFIXES)}; docs/words.md has the formats.",
        )
    try:
        stat = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    found = _read(path, stat.st_size, stat.st_mtime_ns)
    return replace(found, cues=list(found.cues), notes=list(found.notes))


@functools.lru_cache(maxsize=4)  # clips of one recording come one after the other
def _read(path: Path, size: int, changed: int) -> Transcript:
    text, odd_bytes = _decoded(path)
    content = _PARSERS[path.suffix.lower()](text, path)
    transcript = _settled(content)
    notes = content.odd.notes()
    if odd_bytes:
        notes.insert(0, odd_bytes)
    transcript.notes = [f"transcript {path.name}: {note}" for note in notes]
    return transcript


def beside(media: Path) -> Path | None:
    """The best transcript beside a medium: of its name, those with times of words first.

    A .json is one where it has a list "segments" or "word_segments".
    """
    for suffix in SUFFIXES:
        for spelt in dict.fromkeys((suffix, suffix.lower(), suffix.upper())):
            path = media.with_suffix(spelt)
            if (
                path != media
                and os.path.isfile(path)
                and (suffix != ".json" or _is_transcript(path))
            ):
                return path
    return None


def give(clip: Clip, transcript: Transcript, length: float | None = None) -> tuple[Clip, list[str]]:
    """Give a clip its part of the transcript of its recording.

    A word belongs to the clip in which its middle lies; where words have no times, a cue does. A
    transcript without times goes to a clip that is the whole recording only. A clip that has a
    text keeps it, and gets the words' times if the words are the same.

    Args:
        clip: Its text is "" or that of a manifest.
        transcript: Of the recording.
        length: Length of the recording in seconds, where it is known: what lies behind is left
            out and said.

    Returns:
        The clip with text, words (None where the transcript has no times of words) and, if it has
        none, language; and notes on what was odd.
    """
    notes = list(transcript.notes)
    whole = clip.start <= 0 and (clip.end is None or (length or 0) > 0 and clip.end >= length)
    cues, lost = [], 0
    high = min(x for x in (clip.end, length, float("inf")) if x is not None)
    odd = Oddities()
    for cue in transcript.cues:
        part = _part(cue, clip.start, high, whole)
        if part is None and cue.start is None and not cue.words:
            lost += 1
        elif part is not None:
            cues.append(part)
        if length is not None and clip.end in (None, length):
            _behind(cue, length, odd)
    if lost:
        notes.append("the transcript has no times, and the clip is a part of its recording: unused")
    notes += odd.notes()
    part = Transcript(cues, transcript.language)
    words, text = part.words, part.text
    if clip.text:
        text, words = clip.text, _times_for(clip.text, words, notes)
    if words is not None:
        words = [clamped(word, 0.0, high - clip.start) for word in moved(words, -clip.start)]
    language = clip.language or (transcript.language if text else "")
    return replace(clip, text=text, words=words if text else None, language=language), notes


def _decoded(path: Path) -> tuple[str, str]:
    """The text of a file, and a note where it is not in Unicode."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > _LARGEST:
        raise DataError(
            "The transcript is too large.",
            f"{path}: more than {_LARGEST >> 20} MB",
            "Is it a transcript? Cut the recording in parts.",
        )
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig"), ""
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace"), "not in UTF-8; read as Windows-1252"


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        "The transcript cannot be read.", f"{path}: {error.strerror}", "Check the path."
    )


def _is_transcript(path: Path) -> bool:
    """Whether a JSON file is a transcript, be it a broken one."""
    try:
        if path.stat().st_size > _LARGEST:
            return False
        text = _decoded(path)[0]
        return is_json_transcript(json.loads(text))
    except (ValueError, RecursionError):
        return '"segments"' in text or '"word_segments"' in text
    except (OSError, DataError):
        return False


def _settled(content: Content) -> Transcript:
    """Cues in order, each with its words in the spelling of its text, in order."""
    cues = [cue for cue in map(_with_text, content.cues) if cue.text]
    starts = [cue.start for cue in cues]
    if None not in starts:
        if starts != sorted(starts):
            late = next(i for i in range(1, len(cues)) if starts[i] < starts[i - 1])
            content.odd.add("cues out of order, sorted by start", f"at {starts[late]:.2f} s")
        cues.sort(key=lambda cue: cue.start)
    texts = [[cue.text[a:b] for a, b in split_words(cue.text)] for cue in cues]
    matched = [timed(own, cue.words) for own, cue in zip(texts, cues, strict=True)]
    words = mended([word for part in matched for word in part], content.odd)
    if not any(words):
        words_of: list[list[Word]] = [[] for _ in cues]
    else:
        words_of = _placed(cues, texts, words, content.odd)
    return Transcript(
        [
            Cue(cue.text, *_ends(cue, own, content.odd), tuple(own), cue.speaker)
            for cue, own in zip(cues, words_of, strict=True)
        ],
        content.language,
    )


def _with_text(cue: Stretch) -> Stretch:
    return cue if cue.text else replace(cue, text=" ".join(w.text for w in cue.words if w.text))


def _placed(
    cues: list[Stretch], texts: list[list[str]], words: list[Word | None], odd: Oddities
) -> list[list[Word]]:
    """Words without times between their neighbours, within their cue where that has times."""
    result, place, last = [], 0, 0.0
    for cue, own in zip(cues, texts, strict=True):
        part = words[place : place + len(own)]
        place += len(own)
        following = next((word.start for word in words[place:] if word is not None), None)
        first = next((word.start for word in part if word is not None), following)
        low, high = max(last, cue.start or 0.0), cue.end
        if first is not None:
            low = min(low, first)
        if following is not None:
            high = min(following, following if high is None else high)
        known = [word.end for word in part if word is not None]
        high = max(low, *known[-1:], low if high is None else high)
        for text, word in zip(own, part, strict=True):
            if word is None:
                odd.add("words placed between their neighbours, score -1", f'"{text[:40]}"')
        result.append(filled(part, own, low, high))
        last = result[-1][-1].end if own else last
    return result


def _ends(cue: Stretch, words: list[Word], odd: Oddities) -> tuple[float | None, float | None]:
    """Start and end of a cue: its own, else its words'."""
    start, end = cue.start, cue.end
    if start is None and words:
        start = words[0].start
    if end is None and words:
        end = words[-1].end
    if start is not None and end is not None and end < start:
        odd.add("cues that end before they start, taken to last no time", f"at {start:.2f} s")
        end = start
    return (start, end) if start is not None and end is not None else (None, None)


def _part(cue: Cue, low: float, high: float, whole: bool) -> Cue | None:
    """What of a cue lies between two times of the recording; None = nothing."""
    if cue.words:
        part = part_of(cue.text, cue.words, low, high)
        if part is None:
            return None
        words, characters = part
        return replace(cue, text=cue.text[characters].strip(), words=cue.words[words])
    if cue.start is None or cue.end is None:
        return cue if whole else None
    return cue if low <= (cue.start + cue.end) / 2 < high else None


def _behind(cue: Cue, length: float, odd: Oddities) -> None:
    """Count what lies behind the recording's end."""
    for word in cue.words:
        if (word.start + word.end) / 2 >= length:
            odd.add(
                "words past the end of the recording, left out",
                f'"{word.text[:40]}" at {word.start:.2f} s',
            )
    if not cue.words and cue.start is not None and (cue.start + (cue.end or 0)) / 2 >= length:
        odd.add("cues past the end of the recording, left out", f"at {cue.start:.2f} s")


def _times_for(text: str, words: list[Word] | None, notes: list[str]) -> list[Word] | None:
    """The words of a text with the times of a transcript's words, if they are the same."""
    if not words:
        return None
    texts = [text[a:b] for a, b in split_words(text)]
    if [plain(t) for t in texts] != [plain(w.text) for w in words]:
        notes.append(
            f"the text has {len(texts)} words, its transcript file {len(words)}, and they are not "
            "the same: the file's times are unused"
        )
        return None
    return [replace(word, text=own) for own, word in zip(texts, words, strict=True)]
