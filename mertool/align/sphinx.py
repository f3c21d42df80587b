"""Forced alignment of English speech with pocketsphinx and its packaged acoustic model, offline.

Word times are those of the best Viterbi path through the transcript, on a 10 ms grid.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mertool.align.spelling import dictionary_words, pronounce
from mertool.errors import MertoolError, MertoolWarning
from mertool.types import Clip, Word
from mertool.words import split_words

RATE = 16000  # Hz, the acoustic model's
_FRAMES = 100  # per second
# Forced alignment has few states, so the beams can be far wider than for recognition: the default
# ones lose the path where a transcript does not quite fit what is said.
_BEAMS = {"beam": 1e-200, "pbeam": 1e-200, "wbeam": 1e-200}
_NATS = 1024  # scores come back as exp(log-likelihood / 2 ** 10) (senone scores are shifted)
_MIDPOINT = -4.0  # nats per frame where the score is 0.5


@dataclass(frozen=True)
class _Piece:
    """A dictionary word found in the sound: start and end in frames, log-likelihood in nats."""

    start: int
    end: int
    loglik: float


class Pocketsphinx:
    """Aligns an English transcript with the sound.

    A word's score is 1 / (1 + exp(-4 - x)), where x is the mean over the word's frames of the
    log-likelihood (nats) of its states less that of the best state of the whole transcript in that
    frame. x is about -2 for words that are said and about -6 for words that are not (medians over
    GRID and RAVDESS sentences, with right and with foreign transcripts); -4 is where they part.
    The score rises with the acoustic match; it is not a calibrated probability.

    Args:
        config: Has no settings yet.
        device: Ignored; pocketsphinx runs on the CPU.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the aligner: none."""

    def __init__(self, config: Config = Config(), device: str = "cpu") -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise MertoolError(
                "The aligner pocketsphinx is not installed.",
                f"import pocketsphinx: {error}",
                "pip install pocketsphinx",
            ) from error

        # No language model and no lattice: the transcript is the only path.
        self._decoder = Decoder(samprate=RATE, lm=None, bestpath=False, loglevel="FATAL", **_BEAMS)

    def align(self, clip: Clip) -> list[Word]:
        """Find where each word of the transcript is said.

        Args:
            clip: A clip with a transcript and media.

        Returns:
            W words, one for each of `split_words(clip.text)`, in order, not overlapping, within
            the clip. Score -1 where a word could not be aligned and stands between its neighbours.

        Warns:
            MertoolWarning: Words were placed by even spacing, or the language is not English.

        Raises:
            MediaError: The sound cannot be decoded.
        """
        texts = [clip.text[a:b] for a, b in split_words(clip.text)]
        if not texts:
            return []
        sound = clip.audio(RATE)
        duration = len(sound) / RATE if clip.end is None else clip.end - clip.start
        if clip.language and clip.language.split("-")[0].casefold() != "en":
            _warn(f'the language is "{clip.language}": the English model gives rough word times')
        pieces = [dictionary_words(text, self._known) for text in texts]
        silent = [text for text, words in zip(texts, pieces, strict=True) if not words]
        if len(silent) == len(texts):
            _warn("no word can be pronounced in English; all words are evenly spaced")
            return _spaced(texts, duration)
        if not np.any(sound):
            _warn("there is no sound; all words are evenly spaced")
            return _spaced(texts, duration)
        found = self._search(sound, [word for words in pieces for word in words])
        if found is None:
            _warn("the transcript does not fit the sound; all words are evenly spaced")
            return _spaced(texts, duration)
        if silent:
            _warn(
                f"{len(silent)} of {len(texts)} words cannot be pronounced in English and are "
                f"evenly spaced: {', '.join(silent[:5])}"
            )
        queue = iter(found)
        timed = [
            _word(t, [next(queue) for _ in ws], duration)
            for t, ws in zip(texts, pieces, strict=True)
        ]
        return _fill(texts, timed, duration)

    def _known(self, word: str) -> bool:
        return self._decoder.lookup_word(word) is not None

    def _search(self, sound: np.ndarray, words: Sequence[str]) -> list[_Piece] | None:
        """Align dictionary words (or words that `pronounce` makes one) with (S,) samples."""
        decoder = self._decoder
        for word in words:
            if not self._known(word):
                decoder.add_word(word, pronounce(word, decoder.lookup_word), update=False)
        # Forgets the noise floor of the clip before: results must not depend on the order of clips.
        decoder.reinit_feat()
        samples = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype("<i2")
        decoder.set_align_text(" ".join(words))
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        path = [s for s in decoder.seg() or () if s.word[0] not in "<["]  # <sil>, [NOISE]
        if [re.sub(r"\(\d+\)$", "", s.word) for s in path] != list(words):
            return None
        return [
            _Piece(s.start_frame, s.end_frame + 1, _NATS * math.log(max(s.ascore, 1e-300)))
            for s in path
        ]


def _warn(message: str) -> None:
    warnings.warn(message, MertoolWarning, stacklevel=3)


def _word(text: str, pieces: Sequence[_Piece], duration: float) -> Word | None:
    if not pieces:
        return None
    frames = sum(p.end - p.start for p in pieces)
    mean = sum(p.loglik for p in pieces) / frames
    start, end = (min(f / _FRAMES, duration) for f in (pieces[0].start, pieces[-1].end))
    return Word(text, start, end, 1 / (1 + math.exp(min(_MIDPOINT - mean, 700.0))))


def _fill(texts: Sequence[str], timed: Sequence[Word | None], duration: float) -> list[Word]:
    """Space the words that have no time evenly between their neighbours."""
    words: list[Word] = []
    for i, word in enumerate(timed):
        if word is not None:
            words.append(word)
        elif len(words) == i:
            after = next((j for j in range(i, len(timed)) if timed[j] is not None), len(timed))
            low = words[-1].end if words else 0.0
            high = duration if after == len(timed) else timed[after].start
            words += _spaced(texts[i:after], high, low)
    return words


def _spaced(texts: Sequence[str], end: float, start: float = 0.0) -> list[Word]:
    edges = np.linspace(start, max(start, end), len(texts) + 1).tolist()
    return [Word(t, a, b) for t, a, b in zip(texts, edges, edges[1:], strict=False)]


# --- From the words of a transcript to words of the pronunciation dictionary ---
