"""Recognition: a transcript made from the sound, by Whisper or, offline, by pocketsphinx."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mertool.transcripts import Transcript, moved
from mertool.transcripts.asr import Config
from mertool.transcripts.voice import RATE, activity, utterances
from mertool.types import Clip


@functools.lru_cache(maxsize=1)
def recogniser(config: Config) -> Any:
    """The recogniser of this process, built once: loading a model takes longer than a clip.

    Raises:
        MertoolError: It cannot be had.
        UsageError: It does not know the language.
    """
    if config.engine == "pocketsphinx":
        from mertool.transcripts.sphinx import Sphinx

        return Sphinx(config)
    from mertool.transcripts.whisper import Whisper

    return Whisper(config)


def recognise(clip: Clip, config: Config) -> Transcript:
    """Recognise what is said in a clip.

    The sound is streamed, so memory does not grow with its length. Only stretches with voice are
    given to the recogniser: it invents words for silence. They are cut in pauses, so that no word
    is cut.

    Args:
        clip: A clip with sound.
        config: Settings, with an engine.

    Returns:
        What is said, times in the clip's recording; without cues where nobody speaks.

    Raises:
        MediaError: The sound cannot be decoded.
        MertoolError: The recogniser cannot be had.
    """
    from mertool import media

    engine = recogniser(config)
    language = config.language or clip.language

    def read() -> Iterator[np.ndarray]:
        return media.audio_blocks(clip.media, RATE, clip.start, clip.end)

    heard = activity(read)
    spans = utterances(heard, engine.apart, engine.longest)
    if not spans:
        return Transcript(language=language, notes=["no speech is found"])
    found = engine.recognise(sounds(read(), spans), language, heard.stretches)
    found.cues = [
        replace(
            cue,
            start=cue.start + clip.start,
            end=cue.end + clip.start,
            words=tuple(moved(cue.words, clip.start)),
        )
        for cue in found.cues
    ]
    if not found.cues and not found.notes:
        found.notes.append("no word is recognised")
    return found


def sounds(
    blocks: Iterable[np.ndarray], spans: Sequence[tuple[float, float]]
) -> Iterator[tuple[float, np.ndarray]]:
    """Take stretches out of a stream of sound, holding no more than one of them.

    Args:
        blocks: The sound from its start, each (n,) float32 at 16 kHz.
        spans: (start, end) in seconds, in order, not overlapping.

    Yields:
        (start, (S,) float32) of each; shorter where the sound ends before.
    """
    blocks, held, at = iter(blocks), np.zeros(0, np.float32), 0  # at: sample that `held` starts at
    for start, end in spans:
        first, last = round(start * RATE), round(end * RATE)
        parts, reached = [held], at + len(held)
        while reached < last and (block := next(blocks, None)) is not None:
            parts.append(block)
            reached += len(block)
            if reached <= first:
                parts, at = [], reached
        joined = np.concatenate([np.zeros(0, np.float32), *parts])
        yield start, joined[max(0, first - at) : last - at]
        held, at = joined[last - at :].copy(), max(at, min(last, reached))
