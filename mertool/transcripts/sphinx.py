"""Recognition of English with what comes with pocketsphinx: offline and light, but weak.

Its acoustic model is of read speech and its language model of newspapers and broadcasts: of clear
read sentences it gets most words, of short or emotional ones few.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mertool.errors import MertoolError, UsageError
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.asr import Config, Pieces, ordered
from mertool.transcripts.voice import RATE
from mertool.types import Word

_FRAMES = 100  # per second


class Sphinx:
    """Recognises English speech; a word's score is its posterior in the lattice of hypotheses.

    Args:
        config: Settings.

    Raises:
        MertoolError: pocketsphinx is not installed.
        UsageError: The language is not English.

    Attributes:
        apart: A pause of so many seconds parts two pieces.
        longest: Longest piece, seconds.
        info: What is recorded.
    """

    apart = 0.5
    longest = 20.0
    info = {"engine": "pocketsphinx", "model": "en-us", "revision": "", "weak": True}

    def __init__(self, config: Config) -> None:
        if config.language and not _english(config.language):
            raise UsageError(
                "pocketsphinx recognises English only.",
                f"asr.language={config.language}",
                "Take Whisper: --set asr.engine=whisper",
            )
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise MertoolError(
                "The recogniser pocketsphinx is not installed.",
                f"import pocketsphinx: {error}",
                "pip install pocketsphinx, or take Whisper: --set asr.engine=whisper",
            ) from error
        self._decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def recognise(
        self, pieces: Pieces, language: str, stretches: Sequence[tuple[float, float]]
    ) -> Transcript:
        """Recognise the pieces of one recording.

        Args:
            pieces: In order.
            language: Of the speech, "" when unknown.
            stretches: Not used; where there is voice.

        Returns:
            A cue for each piece in which a word is found, times as those of the pieces.
        """
        if language and not _english(language):
            note = f'not recognised: the language is "{language}", and pocketsphinx knows English'
            return Transcript(language=language, notes=[note])
        # Forgets the noise floor of the recording before: results must not depend on their order.
        self._decoder.reinit_feat()
        cues = []
        for start, sound in pieces:
            words = self._words(start, sound)
            cues.append(Cue(" ".join(word.text for word in words), words=tuple(words)))
        return Transcript(ordered(cues), language or "en")

    def _words(self, start: float, sound: np.ndarray) -> list[Word]:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm16(sound), full_utt=True)
        self._decoder.end_utt()
        found = []
        for part in self._decoder.seg() or ():
            if part.word[0] in "<[":  # silence and noises
                continue
            edges = part.start_frame / _FRAMES, (part.end_frame + 1) / _FRAMES
            a, b = (start + min(edge, len(sound) / RATE) for edge in edges)
            found.append(Word(plain(part.word), a, b, min(1.0, max(0.0, part.prob))))
        return found


def pcm16(sound: np.ndarray) -> bytes:
    """(S,) float32 in [-1, 1) as pocketsphinx takes it: 16 bits, little-endian."""
    return np.clip(np.rint(sound * 32768.0), -32768, 32767).astype("<i2").tobytes()


def plain(word: str) -> str:
    """A word without the number of its pronunciation.

    >>> plain("to(2)")
    'to'
    """
    return re.sub(r"\(\d+\)$", "", word)


def _english(language: str) -> bool:
    return language.split("-")[0].casefold() == "en"
