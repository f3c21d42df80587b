"""Reading transcripts with word times: a JSON list of clips, each with its words."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mertool.errors import DataError, MertoolWarning
from mertool.readers import is_number, recordings
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
    text = row.get("transcript") or " ".join(word for word, _ in found)
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


def _word(word: Any, where: str) -> tuple[str, tuple[float, float] | None]:
    """A word and its times, None where it has none."""
    if isinstance(word, list) and len(word) == 3 and isinstance(word[0], str):
        if is_number(word[1]) and is_number(word[2]) and min(word[1:]) >= 0:
            return word[0], (float(word[1]), float(word[2]))
        if word[1] is None or word[2] is None:
            return word[0], None
    raise DataError(
        f"A word is not as it should be: {str(word)[:60]}",
        where,
        "A word is [text, start, end], seconds of at least 0; null where they are not known.",
    )


def _placed(
    found: list[tuple[str, tuple[float, float] | None]],
) -> tuple[float, float | None, list[Word]]:
    """Start and end of the clip, and its words with times from that start, in order."""
    timed = [times for _, times in found if times]
    if not timed:
        if found:
            _note("no word has times")
        return 0.0, None, [Word(text, 0.0, 0.0) for text, _ in found]
    start = timed[0][0]
    words: list[Word | None] = []
    last, clipped = 0.0, False
    for text, times in found:
        if times is None:
            words.append(None)
            continue
        low = max(times[0] - start, last)
        high = max(times[1] - start, low)
        clipped |= times[0] - start < last - 1e-3 or times[1] < times[0]
        words.append(Word(text, low, high, 1.0))
        last = high
    if clipped:
        _note("words that overlap or run backwards are cut to begin where the one before ends")
    if len(timed) < len(found):
        _note("words without times are placed between their neighbours, score -1")
    return start, start + last, _filled(words, [text for text, _ in found], last)


def _filled(words: list[Word | None], texts: list[str], end: float) -> list[Word]:
    """Words without times share the gap between their neighbours evenly."""
    result = list(words)
    i = 0
    while i < len(result):
        stop = i
        while stop < len(result) and result[stop] is None:
            stop += 1
        low = result[i - 1].end if i else 0.0
        high = result[stop].start if stop < len(result) else end
        for k in range(i, stop):
            a, b = ((high - low) * (k + d - i) / (stop - i) for d in (0, 1))
            result[k] = Word(texts[k], low + a, low + b, -1.0)
        i = stop + 1
    return result
