"""Writing transcripts: whisperX's JSON and Praat's TextGrid."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from mertool.files import to_json, whole, write_text
from mertool.transcripts import Transcript
from mertool.words import split_words

_GRAIN = 4  # decimals of a TextGrid's times: 0.1 ms; praatio writes less with an exponent


def whisperx(transcript: Transcript) -> dict[str, Any]:
    """A transcript as whisperX writes it after alignment.

    A word that was placed, not aligned, has the score -1; where times are not known they are left
    out, as whisperX does.

    Returns:
        {"segments": [{start, end, text, words: [{word, start, end, score}], speaker}],
        "word_segments": [the words of all segments], "language"}, times in seconds.
    """
    segments = []
    for cue in transcript.cues:
        words: list[dict[str, Any]] = [
            {"word": word.text, **_times(word.start, word.end), "score": round(word.score, 4)}
            for word in cue.words
        ]
        if not words:
            words = [{"word": cue.text[a:b]} for a, b in split_words(cue.text)]
        segment = {**_times(cue.start, cue.end), "text": cue.text, "words": words}
        segments.append(segment | ({"speaker": cue.speaker} if cue.speaker else {}))
    every = [word for segment in segments for word in segment["words"]]
    return {"segments": segments, "word_segments": every, "language": transcript.language}


def _times(start: float | None, end: float | None) -> dict[str, float]:
    if start is None or end is None:
        return {}
    return {"start": round(start, 6), "end": round(end, 6)}


def save_json(path: Path, transcript: Transcript) -> None:
    """Write whisperX's JSON, whole or not at all.

    Raises:
        OutputError: The disk is full or closed.
    """
    write_text(path, to_json(whisperx(transcript), indent=1) + "\n")


def save_textgrid(path: Path, transcript: Transcript) -> list[str]:
    """Write a TextGrid with the tiers words, scores and utterances, whole or not at all.

    Intervals of a tier must not overlap and cannot be empty. Where cues overlap, the later begins
    where the earlier ends. What then has no length is left out: of the tier words where it is a
    word, which the utterance still holds.

    Args:
        path: The file.
        transcript: Its cues have times.

    Returns:
        Notes on what was cut or left out.

    Raises:
        OutputError: The disk is full or closed.
    """
    from praatio import textgrid

    notes: Counter[str] = Counter()
    utterances, words = [], []
    last = last_word = 0.0
    for cue in sorted(transcript.cues, key=lambda cue: cue.start or 0.0):
        if cue.start is None or cue.end is None:
            notes["clips without times, left out"] += 1
            continue
        start, end = round(cue.start, _GRAIN), round(cue.end, _GRAIN)
        if start < last:
            notes["clips that overlap the one before, cut"] += 1
            start = last
        if start >= end:
            notes["clips of no length, left out"] += 1
            continue
        utterances.append((start, end, cue.text))
        last = end
        if not cue.words:
            notes["clips without times of words, in the tier utterances only"] += 1
        for word in cue.words:
            low = max(round(word.start, _GRAIN), start, last_word)
            high = min(round(word.end, _GRAIN), end)
            if low >= high:
                notes["words of no length, in the tier utterances only"] += 1
                continue
            words.append(replace(word, start=low, end=high))
            last_word = high
    grid = textgrid.Textgrid(0, max(last, 10**-_GRAIN))
    for name, entries in (
        ("words", [(w.start, w.end, w.text) for w in words]),
        ("scores", [(w.start, w.end, f"{w.score:.4g}") for w in words]),
        ("utterances", utterances),
    ):
        grid.addTier(textgrid.IntervalTier(name, entries, grid.minTimestamp, grid.maxTimestamp))
    with whole(path) as temporary:
        grid.save(str(temporary), format="long_textgrid", includeBlankSpaces=True)
    return [f"{kind}: {count}" for kind, count in notes.items()]
