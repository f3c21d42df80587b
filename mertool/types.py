"""The objects that flow through the pipeline: Clip, Rows, Word, DataSpec, Batch, FusionOutput.

Shape letters, used in every docstring of mertool:
    N clips of a file, B clips of a batch, T time steps (rows) of a stream, D features of a row,
    W words of a transcript, K outputs of a task, S audio samples, H attention heads,
    d width of a fusion.

Nothing heavy is imported here, so that plugins can name these types for free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

TASKS = ("regression", "classification", "multilabel")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Word:
    """One word of a transcript.

    Attributes:
        text: The word as it stands in the transcript.
        start: Start in seconds from the clip's start.
        end: End in seconds from the clip's start.
        score: The aligner's confidence in [0, 1]; -1 = placed by even spacing, not aligned.
    """

    text: str
    start: float
    end: float
    score: float = -1.0


@dataclass
class Rows:
    """The feature rows of one stream of one clip.

    Attributes:
        values: (T, D) float32, finite.
        times: (T, 2) float64, the cell each row stands for, in seconds from the clip's start.
        word: (T,) int32, index of the word each row belongs to (text streams only).
        span: (T, 2) int32, character range of each row in the transcript (text streams only).
    """

    values: np.ndarray
    times: np.ndarray
    word: np.ndarray | None = None
    span: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @staticmethod
    def empty(columns: int, text: bool = False) -> Rows:
        """Zero rows: what an absent stream gives."""
        return Rows(
            np.zeros((0, columns), np.float32),
            np.zeros((0, 2)),
            np.zeros(0, np.int32) if text else None,
            np.zeros((0, 2), np.int32) if text else None,
        )


@dataclass
class Clip:
    """One utterance: a stretch of a media file with its transcript and labels.

    Attributes:
        id: Unique name within a feature file.
        path: Media file, relative to `source`; "" when the clip has no media (imported features).
        source: The folder that `path` is relative to.
        start: Start within the media file, seconds.
        end: End within the media file, seconds; None = to its end.
        text: Transcript, "" when there is none.
        language: BCP 47 tag such as "en", "" when unknown.
        speaker: Speaker name, "" when unknown.
        split: "train", "valid", "test" or "".
        words: Words of the transcript; before alignment with score -1 and times 0.
        labels: {name: float | int | list[float]}; a missing label is absent.
        sha256: Of the media file, "" when unknown.
        streams: {name: Rows} when the clip comes from a feature file, else None.
    """

    id: str
    path: str = ""
    source: str = ""
    start: float = 0.0
    end: float | None = None
    text: str = ""
    language: str = ""
    speaker: str = ""
    split: str = ""
    words: list[Word] | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, Rows] | None = None
    sha256: str = ""

    @property
    def media(self) -> Path:
        """The media file on this machine."""
        return Path(self.source) / self.path

    def frames(self, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """Video frames of the clip, upright, decoded one at a time.

        Args:
            fps: Sample at about this rate; None = every frame.

        Yields:
            (time in seconds from the clip's start, (H, W, 3) uint8 RGB). Nothing without video.

        Raises:
            MediaError: The file cannot be decoded.
        """
        from mertool import media

        yield from media.frames(self.media, self.start, self.end, fps)

    def audio(self, rate: int = 16000, channel: str = "mean") -> np.ndarray:
        """The clip's sound.

        Args:
            rate: Sampling rate in Hz.
            channel: "mean" of the channels, or "first".

        Returns:
            (S,) float32 in [-1, 1); sample i is at i / rate seconds from the clip's start.
            Empty without sound.

        Raises:
            MediaError: The file cannot be decoded.
        """
        from mertool import media

        return media.audio(self.media, rate, self.start, self.end, channel)


@dataclass(frozen=True)
class Label:
    """What a label column means.

    Attributes:
        name: Column name.
        task: "regression", "classification" or "multilabel".
        classes: Class names, in the order of the stored integers (empty for regression).
        range: Smallest and largest value seen (regression only).
    """

    name: str
    task: str
    classes: tuple[str, ...] = ()
    range: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class DataSpec:
    """What a fusion needs to know to be built.

    Attributes:
        streams: {name: (D, length)}; length = steps per clip, exact where the fusion's
            `fixed_length` fact is set, else the longest in the training data.
        task: "regression", "classification" or "multilabel".
        n_out: K, number of outputs: 1, number of classes, number of labels.
        classes: Names of the K classes or labels; empty for regression.
        range: Range of a regression label over the whole file.
        alignment: "none", "word" or "segments:N".
    """

    streams: dict[str, tuple[int, int]]
    task: str = "regression"
    n_out: int = 1
    classes: tuple[str, ...] = ()
    range: tuple[float, float] = (0.0, 0.0)
    alignment: str = "none"


@dataclass
class Batch:
    """B clips, padded.

    Attributes:
        x: {stream: (B, T, D) float32}, normalised, zero right-padded.
        mask: {stream: (B, T) bool}, True = a real step. An absent stream is an all-False row.
        y: Labels: (B, 1) float regression, (B,) int64 classification, (B, K) float multilabel;
            None when unknown.
        ids: The clips' ids.
        record: Ask the fusion to fill `features`, `attention` and `weights`.
    """

    x: dict[str, Tensor]
    mask: dict[str, Tensor]
    y: Tensor | None = None
    ids: tuple[str, ...] = ()
    record: bool = False


class FusionOutput(NamedTuple):
    """What a fusion returns.

    Attributes:
        pred: (B, K): the label's scale for regression, logits otherwise.
        losses: {name: scalar}, extra terms, already weighted; the host adds the task loss.
        weights: {name: (B, K)}, small weight vectors, filled only when `batch.record`.
        features: {name: (B, d)}, filled only when `batch.record`.
        attention: {name: (B, H, Tq, Tk)}, filled only when `batch.record`.
    """

    pred: Tensor
    losses: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    features: dict[str, Tensor] = {}
    attention: dict[str, Tensor] = {}
