"""Forced alignment of English speech with pocketsphinx and its packaged acoustic model, offline.

Word times are those of the best Viterbi path through the transcript, in steps of 10 ms.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mertool.align.pronounce import PROGRAM, guesser, has_espeak
from mertool.align.skipping import grammar, matched
from mertool.align.spacing import evenly
from mertool.align.spelling import dictionary_words
from mertool.errors import MertoolError, MertoolWarning
from mertool.transcripts import clamped
from mertool.transcripts.sphinx import pcm16, plain
from mertool.transcripts.times import filled
from mertool.types import Clip, Word
from mertool.words import split_words

RATE = 16000  # Hz, the acoustic model's
_FRAMES = 100  # per second
# Frame k is computed from 25.6 ms that begin k * 10 ms into the sound. It tells of their middle,
# and stands for the 10 ms around that.
_MIDDLE = 0.0256 / 2 - 0.005  # seconds
# Forced alignment has few states, so the beams can be far wider than for recognition: the default
# ones lose the path where a transcript does not quite fit what is said, or there is noise.
_BEAMS = {"beam": 1e-200, "pbeam": 1e-200, "wbeam": 1e-200}
# A pause may stand between any two words and at both ends. By default it costs 34 nats there, and
# words are drawn out over the pauses instead.
_PAUSES = {"lw": 1.0, "silprob": 0.5}
# What the model's own feat.params say, but for two, both chosen on GRID: filters from 60 Hz on, not
# 130, for the voices of men; and spectral subtraction only where there is noise, as it takes weak
# beginnings and ends of words away too.
_FEATURES = {
    "featparams": os.devnull, "remove_noise": False, "lowerf": 60.0, "upperf": 6800.0, "nfilt": 25,
    "transform": "dct", "lifter": 22, "feat": "1s_c_d_dd", "svspec": "0-12/13-25/26-38",
    "agc": "none", "cmn": "batch", "varnorm": False,
}  # fmt: skip
_NOISY = 25.0  # dB between loud and quiet frames, below which there is noise; see `_is_noisy`
_ALSO = {"z": "Z EH D"}  # the dictionary is American
_NATS = 1024  # scores come back as exp(log-likelihood / 2 ** 10) (senone scores are shifted)
_MIDPOINT = -4.0  # nats per frame where the score is 0.5
_PRIOR, _PRIOR_FRAMES = -2.0, 5  # a short word's mean says little: it counts with 5 usual frames
_POOR = 0.5  # score below which a word is doubtful
_DOUBTFUL = 1 / 3  # of the words: with more, the transcript is searched anew; with fewer left, no
_LONGEST = 50  # words of a transcript that is searched anew: the grammar grows with their square


@dataclass(frozen=True)
class _Piece:
    """A dictionary word found in the sound: start and end in frames, log-likelihood in nats."""

    word: str
    start: int
    end: int
    loglik: float


class Pocketsphinx:
    """Aligns an English transcript with the sound.

    Where more than a third of the words fit badly (score below 0.5) and there is no noise to
    explain it, the sound is searched again, now with words that may be left out. Those that are
    left out get score -1 and stand between their neighbours.

    A word's score is 1 / (1 + exp(-4 - x)), where x is the mean over the word's frames, and five
    more of -2, of the log-likelihood (nats) of its states less that of the best state of the whole
    transcript in that frame. The score rises with the acoustic match; it is not a calibrated
    probability. How many words it is right about: docs/words.md, measured.

    Args:
        config: Settings.
        device: Ignored; pocketsphinx runs on the CPU.

    Raises:
        MertoolError: pocketsphinx, or espeak-ng where it is asked for, is not installed.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the aligner.

        Attributes:
            pronounce: Who pronounces words that the dictionary lacks. "espeak" = espeak-ng,
                "rules" = our letter-to-sound rules, "auto" = espeak where it is installed, else
                rules; what it comes to is recorded.
        """

        pronounce: str = "auto"

        def __post_init__(self) -> None:
            if self.pronounce not in ("auto", "espeak", "rules"):
                raise ValueError(f'pronounce="{self.pronounce}" must be auto, espeak or rules')
            if self.pronounce == "auto":
                object.__setattr__(self, "pronounce", "espeak" if has_espeak() else "rules")

    def __init__(self, config: Config | None = None, device: str = "cpu") -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise MertoolError(
                "The aligner pocketsphinx is not installed.",
                f"import pocketsphinx: {error}",
                "pip install pocketsphinx",
            ) from error

        self.config = config or self.Config()
        if self.config.pronounce == "espeak" and not has_espeak():
            raise MertoolError(
                "Words are to be pronounced by espeak-ng, which is not installed.",
                f"There is no program {PROGRAM} on the PATH.",
                "Install it, or --set align.pronounce=rules",
            )
        self._pronounce = guesser(self.config.pronounce)
        # No language model and no lattice: the transcript is the only path.
        self._decoder = Decoder(
            samprate=RATE, lm=None, bestpath=False, loglevel="FATAL",
            **_BEAMS, **_PAUSES, **_FEATURES,
        )  # fmt: skip
        for word, phones in _ALSO.items():
            self._decoder.add_word(f"{word}(2)", phones, update=False)

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
        words = [dictionary_words(text, self._known) for text in texts]
        silent = [text for text, parts in zip(texts, words, strict=True) if not parts]
        if len(silent) == len(texts):
            return evenly(texts, sound, duration, "no word can be pronounced in English")
        if not np.any(sound):
            return evenly(texts, sound, duration, "there is no sound")
        found = self._search(sound, [word for parts in words for word in parts])
        if found is None:
            return evenly(texts, sound, duration, "the transcript does not fit the sound")
        if silent:
            _warn(
                f"{len(silent)} of {len(texts)} words cannot be pronounced in English and are "
                f"evenly spaced: {', '.join(silent[:5])}"
            )
        queue = iter(found)
        timed = [
            _word(text, [next(queue) for _ in parts])
            for text, parts in zip(texts, words, strict=True)
        ]
        lost = [
            text for text, parts, word in zip(texts, words, timed, strict=True)
            if parts and not word
        ]  # fmt: skip
        if lost:
            _warn(
                f"{len(lost)} of {len(texts)} words are not heard and are evenly spaced between "
                f"their neighbours: {', '.join(lost[:5])}"
            )
        return [clamped(word, 0.0, duration) for word in filled(timed, texts, 0.0, duration)]

    def _known(self, word: str) -> bool:
        return self._decoder.lookup_word(word) is not None

    def _search(self, sound: np.ndarray, words: Sequence[str]) -> list[_Piece | None] | None:
        """Align dictionary words (or words that can be made one) with (S,) samples."""
        decoder = self._decoder
        for word in words:
            if not self._known(word):
                decoder.add_word(word, self._pronounce(word, decoder.lookup_word), update=False)
        decoder.config["remove_noise"] = noisy = _is_noisy(sound)  # heeded by reinit_feat
        samples = pcm16(sound)
        decoder.set_align_text(" ".join(words))
        first = self._path(samples)
        if [plain(piece.word) for piece in first] != list(words):
            first = []
        # In noise all words fit badly.
        doubtful = 0 if noisy else sum(_score([piece]) < _POOR for piece in first)
        if first and doubtful <= _DOUBTFUL * len(words) or not 1 < len(words) <= _LONGEST:
            return list(first) or None
        end, arcs = grammar(words)
        decoder.add_fsg("skipping", decoder.create_fsg("skipping", 0, end, arcs))
        decoder.activate_search("skipping")
        second = self._path(samples)
        places = matched(words, [plain(piece.word) for piece in second])
        if places is None or len(second) < _DOUBTFUL * len(words):
            return list(first) or None
        return [None if place is None else second[place] for place in places]

    def _path(self, samples: bytes) -> list[_Piece]:
        """The words of the best path, pauses left out; none where there is no path."""
        decoder = self._decoder
        decoder.reinit_feat()  # and so forgets the clip before: results depend on this one alone
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        return [
            _Piece(s.word, s.start_frame, s.end_frame + 1, _NATS * math.log(max(s.ascore, 1e-300)))
            for s in decoder.seg() or ()
            if s.word[0] not in "<[("  # <sil>, [NOISE], (NULL)
        ]


def _warn(message: str) -> None:
    warnings.warn(message, MertoolWarning, stacklevel=3)


def _word(text: str, parts: Sequence[_Piece | None]) -> Word | None:
    """A word of the transcript from its dictionary words; None where none of them is heard."""
    heard = [piece for piece in parts if piece]
    if not heard:
        return None
    first, last = heard[0].start, heard[-1].end
    start = first / _FRAMES + _MIDDLE if first else 0.0
    return Word(text, start, last / _FRAMES + _MIDDLE, _score(heard))


def _score(pieces: Sequence[_Piece]) -> float:
    frames = sum(p.end - p.start for p in pieces) + _PRIOR_FRAMES
    mean = (sum(p.loglik for p in pieces) + _PRIOR * _PRIOR_FRAMES) / frames
    return 1 / (1 + math.exp(min(_MIDPOINT - mean, 700.0)))


def _is_noisy(sound: np.ndarray) -> bool:
    """Whether quiet frames are less than 25 dB below loud ones.

    Of the levels of 10 ms with high frequencies raised, the 10th percentile lies 37 to 45 dB below
    the 95th in GRID and 34 to 98 in RAVDESS; with white noise 20 dB below the speech, 5 to 10.
    """
    raised = np.diff(sound) + np.float32(0.03) * sound[1:]  # x[i] - 0.97 x[i - 1]
    frames = raised[: len(raised) // 160 * 160].reshape(-1, 160)
    if not len(frames):
        return False
    quiet, loud = np.percentile(10 * np.log10((frames**2).mean(axis=1) + 1e-12), (10, 95))
    return bool(loud - quiet < _NOISY)
