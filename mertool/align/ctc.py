"""Forced alignment with any wav2vec2-style CTC model: the languages are the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mertool.align.letters import read_alphabet
from mertool.align.spacing import evenly
from mertool.align.viterbi import Path, forced_paths, frames_needed
from mertool.errors import DataError
from mertool.extract.speech import SpeechFrames
from mertool.pretrained import find_model, load_ctc
from mertool.transcripts import voice
from mertool.types import Clip, Word
from mertool.words import split_words

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 2**31  # bytes that one clip's path may take: some 20 minutes of speech
# Nats per frame that a wildcard costs more than the most probable token: it takes what nothing else
# accounts for, and leaves pauses to the blank and letters to the words that have them.
_WILDCARD = 0.1


@dataclass
class _Task:
    """A clip on its way.

    Attributes:
        clip: The clip.
        texts: Its W words.
        duration: Its length, seconds.
        tokens: The words' letters, with delimiters between.
        owner: Word of each token, -1 for the delimiters between words.
        sound: What the model reads.
    """

    clip: Clip
    texts: list[str]
    duration: float
    tokens: list[int]
    owner: list[int]
    sound: np.ndarray


class CTC(SpeechFrames):
    """Aligns a transcript with the sound, by the letters that a CTC model hears.

    A word lasts from the first frame of its first letter to the last of its last on the most
    probable path through the whole transcript. Frame k stands for k to k + 1 hops of the model,
    20 ms each for all common ones. The path is the best of all, so a second pass over poor words
    would find the same again.

    A word's score is the geometric mean of the probabilities that the model gives the word's
    letters in their frames on the path (blanks between them are left out). A letter that the model
    does not have is a wildcard, in each frame a little less probable than the most probable token,
    and does not count; a word of nothing else gets a place and score 0.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The model cannot be had or loaded, or is of another kind.

    Attributes:
        batch: Clips, and windows of them, that go through the model together.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the aligner.

        Attributes:
            model: Hugging Face id, or a folder on this machine (which wins).
            batch: Clips that are aligned together; 0 = 8 on a GPU, 1 on a CPU.
            window_s: Longest sound that the model reads at once, seconds.
        """

        model: str = "facebook/wav2vec2-base-960h"
        batch: int = 0
        window_s: float = 20.0

        def __post_init__(self) -> None:
            if not self.model.strip():
                raise ValueError('model="" must be a Hugging Face id or a folder')
            if self.batch < 0:
                raise ValueError(f"batch={self.batch} must be at least 0")
            if not 1 <= self.window_s <= 600:
                raise ValueError(f"window_s={self.window_s} must lie between 1 and 600")

    def __init__(self, config: Config, device: str = "auto") -> None:
        self.config = config
        folder = find_model(config.model, "align")
        prepare, model = load_ctc(folder)
        self._blank, self._alphabet = read_alphabet(folder, model.config)
        # A column more for the wildcard.
        super().__init__(prepare, model, device, config.window_s, model.config.vocab_size + 1)
        self.batch = config.batch or self.batch

    def align(self, clip: Clip) -> list[Word]:
        """Find where each word of the transcript is said.

        Args:
            clip: A clip with a transcript and media.

        Returns:
            W words, one for each of `split_words(clip.text)`, in order, not overlapping, within
            the clip.

        Warns:
            MertoolWarning: The words could not be aligned: all are evenly spaced where there is
                voice, with score -1.

        Raises:
            MediaError: The sound cannot be decoded.
            DataError: The clip is too long.
        """
        return self.align_many([clip])[0]

    def align_many(self, clips: Sequence[Clip]) -> list[list[Word]]:
        """Align several clips, their sounds and paths together.

        Args:
            clips: Clips with a transcript and media.

        Returns:
            For each what `align` gives, but for the last digits of the scores.
        """
        made = [self._task(clip) for clip in clips]
        tasks = [task for task in made if isinstance(task, _Task)]
        paths = iter(self._paths(tasks, self._frames([task.sound for task in tasks])))
        return [
            self._words(task, next(paths)) if isinstance(task, _Task) else task for task in made
        ]

    def _task(self, clip: Clip) -> _Task | list[Word]:
        """What is to do for a clip, or its words where they cannot be aligned."""
        spans = split_words(clip.text)
        texts = [clip.text[a:b] for a, b in spans]
        if not texts:
            return []
        sound = clip.audio(self._rate)
        duration = len(sound) / self._rate if clip.end is None else clip.end - clip.start
        tokens: list[int] = []
        owner: list[int] = []
        between = self._alphabet.delimiter
        for i, (start, _) in enumerate(spans):
            # No delimiter between the words of scripts that have no spaces.
            if i and between is not None and spans[i - 1][1] < start:
                tokens.append(between)
                owner.append(-1)
            spelt = self._alphabet.spell(texts[i], clip.language)
            tokens += spelt
            owner += [i] * len(spelt)
        frames = self._rows(len(sound))
        reason = ""
        if not np.any(sound):
            reason = "there is no sound"
        elif set(tokens) <= {between, self._alphabet.wildcard}:
            reason = "no word can be written in the model's letters"
        elif frames < frames_needed(tokens):
            reason = "the sound is too short for the words"
        if reason:
            return evenly(texts, clip.audio(voice.RATE), duration, reason)
        if frames * (2 * len(tokens) + 1 + 4 * self._width) > LARGEST:
            raise DataError(
                f"The clip is too long to be aligned as a whole: {duration / 60:.0f} minutes, "
                f"{len(texts)} words.",
                clip.id,
                "Cut it into utterances first: mertool extract --segment sentences ...",
            )
        return _Task(clip, texts, duration, tokens, owner, self._normalise(sound))

    def _output(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, V + 1) log-probabilities; the last one is the wildcard's."""
        import torch

        logits = self._model(input_values=x, attention_mask=mask).logits
        logprobs = logits.float().log_softmax(dim=-1)
        wildcard = logprobs.amax(dim=-1, keepdim=True) - _WILDCARD
        return torch.cat([logprobs, wildcard], dim=-1)

    def _paths(self, tasks: list[_Task], emissions: list[np.ndarray]) -> list[Path | None]:
        """The path of each, of as many together as memory allows."""
        found: dict[int, Path | None] = {}
        group: list[int] = []
        for i in sorted(range(len(tasks)), key=lambda i: len(emissions[i])):
            states = 2 * max(len(tasks[j].tokens) for j in (*group, i)) + 1
            if group and (len(group) + 1) * len(emissions[i]) * states > LARGEST:
                found |= self._group_paths(group, tasks, emissions)
                group = []
            group.append(i)
        if group:
            found |= self._group_paths(group, tasks, emissions)
        return [found[i] for i in range(len(tasks))]

    def _group_paths(
        self, group: list[int], tasks: list[_Task], emissions: list[np.ndarray]
    ) -> dict[int, Path | None]:
        import torch

        lengths = [len(emissions[i]) for i in group]
        counts = [len(tasks[i].tokens) for i in group]
        padded = torch.zeros((len(group), max(lengths), self._width))
        targets = torch.full((len(group), max(counts)), self._blank)
        for row, i in enumerate(group):
            padded[row, : lengths[row]] = torch.from_numpy(emissions[i])
            targets[row, : counts[row]] = torch.tensor(tasks[i].tokens)
        padded, targets = padded.to(self._device), targets.to(self._device)
        paths = forced_paths(padded, lengths, targets, counts, self._blank)
        return dict(zip(group, paths, strict=True))

    def _words(self, task: _Task, path: Path | None) -> list[Word]:
        """The words where the path has them."""
        if path is None:
            reason = "the transcript does not fit the sound"
            return evenly(task.texts, task.clip.audio(voice.RATE), task.duration, reason)
        hop, wildcard = self._hop / self._rate, self._alphabet.wildcard
        owner, tokens = np.array(task.owner), np.array(task.tokens)
        spoken = np.flatnonzero(path.targets >= 0)
        target = path.targets[spoken]
        words = []
        for i, text in enumerate(task.texts):
            mine = owner[target] == i
            frames = spoken[mine]
            heard = path.logprobs[frames][tokens[target[mine]] != wildcard]
            start, end = (min(float(f) * hop, task.duration) for f in (frames[0], frames[-1] + 1))
            # Rounding may leave a probability of 1 a little above it.
            score = min(1.0, float(np.exp(heard.mean(dtype=np.float64)))) if len(heard) else 0.0
            words.append(Word(text, start, end, score))
        return words
