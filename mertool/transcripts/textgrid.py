"""Praat's TextGrid, long or short, of whatever program wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mertool.transcripts.formats import Content, Stretch, clean, hand_out, spoken, wrong
from mertool.transcripts.times import Timed, seconds
from mertool.words import split_words

_EXPECTED = 'A TextGrid with a tier "words", or with one interval tier alone; see docs/words.md'
# Of such a file, Praat takes texts in quotes and numbers and flags that stand alone; all else is
# for the human reader. So the long and the short form are one.
_TOKEN = re.compile(r'"(?P<text>[^"]*(?:""[^"]*)*)"|(?<!\S)(?P<number>[-+]?\d[\d.eE+-]*)(?!\S)')
# Where several speak, what one of them says without such a pause is a cue.
_PAUSE = 1.0  # seconds


def parse(text: str, path: Path) -> Content:
    """The cues of a TextGrid.

    Words are in a tier `words`, or `NAME - words` for each speaker, as the Montreal Forced
    Aligner writes it. A tier `utterances` beside it tells how they are written in sentences, one
    `scores` how sure they are; `mertool data export` writes both. Without a tier of words the only
    interval tier is taken: its labels are words where each is one word, else cues.

    Raises:
        DataError: It is no TextGrid, it is cut off, or no tier is known.
    """
    try:
        tiers = _tiers(text)
    except (ValueError, OverflowError) as error:
        raise wrong(f"no TextGrid: {error}", path, _EXPECTED) from error
    except StopIteration:
        raise wrong("the TextGrid ends too early", path, "Copy the whole file.") from None
    content = Content()
    found: dict[tuple[str, str], list[Timed]] = {}
    for name, entries in tiers:
        speaker, _, kind = name.rpartition(" - ")
        found.setdefault((speaker.strip(), kind.strip().casefold()), entries)
    speakers = [speaker for speaker, kind in found if kind == "words"]
    if not speakers and len(tiers) == 1:
        words = spoken(tiers[0][1], content.odd)
        if all(len(split_words(word.text)) <= 1 for word in words):
            content.cues = [Stretch("", words=words)]
        else:
            content.cues = [Stretch(word.text, word.start, word.end) for word in words]
    elif not speakers:
        names = ", ".join(name for name, _ in tiers)[:200] or "none"
        raise wrong(f"its interval tiers: {names}", path, _EXPECTED)
    for speaker in speakers:
        scores = {(e.start, e.end): e.text for e in found.get((speaker, "scores"), ())}
        words = [_scored(w, scores) for w in spoken(found[speaker, "words"], content.odd)]
        utterances = [
            Stretch(e.text, e.start, e.end, speaker=speaker)
            for e in found.get((speaker, "utterances"), ())
            if e.text
        ]
        if utterances:
            hand_out(words, Content(utterances, odd=content.odd))
            content.cues += utterances
        else:
            content.cues += _turns(words, speaker, len(speakers) > 1)
    content.cues.sort(key=lambda cue: cue.start or 0.0)  # those of several speakers
    return content


def _tiers(text: str) -> list[tuple[str, list[Timed]]]:
    """(name, intervals) of each interval tier.

    Raises:
        ValueError: A number stands where a text is needed, or the other way round.
        StopIteration: It ends too early.
    """
    tokens = _TOKEN.finditer(text)

    def label() -> str:
        token = next(tokens)
        if token["text"] is None:
            raise ValueError(f"a text is missing before {token[0][:20]}")
        return clean(token["text"].replace('""', '"'))

    def number() -> float:
        token = next(tokens)
        if token["number"] is None:
            raise ValueError(f"a number is missing before {token[0][:40]}")
        return float(token["number"])

    if not label().startswith("ooTextFile") or label() != "TextGrid":
        raise ValueError("it does not begin as one")
    number(), number()  # where all begins and ends
    result = []
    for _ in range(int(number())):
        kind, name = label(), label()
        number(), number()
        entries = []
        for _ in range(int(number())):
            start = number()
            end = number() if kind == "IntervalTier" else start
            entries.append(Timed(label(), seconds(start), seconds(end)))
        if kind == "IntervalTier":
            result.append((name, entries))
    return result


def _scored(word: Timed, scores: dict[tuple[float | None, float | None], str]) -> Timed:
    try:
        score = float(scores.get((word.start, word.end), "1"))
    except ValueError:
        return word
    return word._replace(score=score) if score == -1 or 0 <= score <= 1 else word


def _turns(words: Sequence[Timed], speaker: str, several: bool) -> list[Stretch]:
    """One cue; where several speak, one for each stretch without a pause."""
    cues: list[Stretch] = []
    for word in words:
        last = cues[-1].words[-1].end if cues else None
        pause = last is not None and word.start is not None and word.start - last >= _PAUSE
        if not cues or (several and pause):
            cues.append(Stretch("", word.start, speaker=speaker))
        cues[-1].words.append(word)
        cues[-1].end = word.end
    return cues
