"""Reading transcripts with word times: a JSON list of clips, each with its words."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mertool.errors import DataError, MertoolWarning
from mertool.readers import is_number, recordings
from mertool.transcripts import moved
from mertool.transcripts.times import Oddities, Timed, filled, mended
from mertool.types import Clip, Word
from mertool.words import split_words

_KNOWN = ("id", "split", "label", "transcript", "words", "speaker")


class Words:
    """A list of {id, words: [[word, start, end], ...]} with transcript, label, split, speaker.

    Times are seconds in the recording. They become times from the clip's start, which is its first
    timed word's. Whoever aligned the words left no score: a word with times has score 1, one
    without is placed in the gap between its neighbours and has score -1.
    """

    def __init__(self, config: object) -> None:
        pass

    def clips(self, source: Path) -> Iterator[Clip]:
        """The clips in the order of the file, without streams.

        Raises:
            DataError: The file is no such list.
        """
        rows = _read(source)
        paths = recordings([row["id"] for row in rows])
        extra = sorted({key for row in rows for key in row} - set(_KNOWN))
        if extra:
            _note(f"not read: {', '.join(extra)}")
        for row, path in zip(rows, paths, strict=True):
            yield _clip(row, path, f"{source}, clip {row['id']}")


def _note(message: str) -> None:
    warnings.warn(message, MertoolWarning, stacklevel=2)


def _read(source: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(source.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "The file is no JSON document.", f"{source}: {error}", "Check the file."
        ) from error
    problem = "" if isinstance(rows, list) else f"the document is a {type(rows).__name__}"
    for i, row in enumerate(rows if not problem else ()):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not row["id"]:
            problem = problem or f'entry {i} has no "id" that is a text'
        elif not isinstance(row.get("words"), list):
            problem = problem or f'entry {i}, {row["id"]}, has no list "words"'
        for key in ("transcript", "split", "speaker") if not problem else ():
            if not isinstance(row.get(key) or "", str):
                problem = f'entry {i}, {row["id"]}: "{key}" is no text'
    if problem:
        raise DataError(
            "The file is no list of clips with words.",
            f"{source}: {problem}",
            'Expected: [{"id": "a_1", "words": [["well", 0.2, 0.5], ...]}, ...]; '
            "see docs/import.md",
        )
    return rows


def _clip(row: dict[str, Any], path: str, where: str) -> Clip:
    found = [_word(word, where) for word in row["words"]]
    text = row.get("transcript") or " ".join(word.text for word in found)
    start, end, words = _placed(found)
    spans = split_words(text)
    if len(spans) == len(words):
        spelt = [text[a:b] for a, b in spans]
        words = [
            Word(own if own.lower() == w.text.lower() else w.text, w.start, w.end, w.score)
            for own, w in zip(spelt, words, strict=True)
        ]
    else:
        _note("the words are not as many as those of the transcript: to align they are not used")
    label = row.get("label")
    return Clip(
        id=row["id"],
        path=path,
        start=start,
        end=end,
        text=text,
        speaker=row.get("speaker") or "",
        split=row.get("split") or "",
        words=words,
        labels={} if label is None else {"label": label},
    )


def _word(word: Any, where: str) -> Timed:
    """A word, with its times where it has any."""
    if isinstance(word, list) and len(word) == 3 and isinstance(word[0], str):
        if is_number(word[1]) and is_number(word[2]) and min(word[1:]) >= 0:
            return Timed(word[0], float(word[1]), float(word[2]))
        if word[1] is None or word[2] is None:
            return Timed(word[0])
    raise DataError(
        f"A word is not as it should be: {str(word)[:60]}",
        where,
        "A word is [text, start, end], seconds of at least 0; null where they are not known.",
    )


def _placed(found: list[Timed]) -> tuple[float, float | None, list[Word]]:
    """Start and end of the clip, and its words with times from that start, in order."""
    odd, texts = Oddities(), [word.text for word in found]
    words = mended(found, odd)
    known = [word for word in words if word is not None]
    if not known:
        if found:
            _note("no word has times")
        return 0.0, None, [Word(text, 0.0, 0.0) for text in texts]
    start, end = known[0].start, known[-1].end
    if odd.notes():
        _note("words that overlap are cut, of those that run backwards the times are unused")
    if len(known) < len(found):
        _note("words without times are placed between their neighbours, score -1")
    return start, end, moved(filled(words, texts, start, end), -start)
