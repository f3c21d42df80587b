"""From a feature file to batches: normalisation, padding, all rows on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mertool.errors import DataError, UsageError, did_you_mean
from mertool.store import FeatureFile, is_missing
from mertool.types import Batch, DataSpec, Label


@dataclass(frozen=True)
class DataConfig:
    """How clips become batches.

    Attributes:
        max_length: Rows of a stream kept per clip; what is longer is cut off at the end.
    """

    max_length: int = 500

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError("max_length must be at least 1")


def pick_label(file: FeatureFile, name: str | None) -> Label:
    """The label to predict; a file with only one needs no name.

    Raises:
        DataError: The file has no labels.
        UsageError: No such label, or several and none is named.
    """
    if not file.labels:
        raise DataError(
            "The feature file has no labels.",
            str(file.path),
            "Add a label column to the manifest and extract with it.",
        )
    if name is None:
        if len(file.labels) > 1:
            raise UsageError(
                "The feature file has several labels; which one?",
                ", ".join(file.labels),
                "Add --label NAME.",
            )
        return next(iter(file.labels.values()))
    if name not in file.labels:
        raise UsageError(
            f'There is no label "{name}".', str(file.path), did_you_mean(name, file.labels)
        )
    return file.labels[name]


def pick_streams(file: FeatureFile, names: Sequence[str] | None, wanted: np.ndarray) -> list[str]:
    """The streams to use: the named ones, or all that hold any row of the wanted clips.

    Args:
        file: The feature file.
        names: Streams asked for; None = all.
        wanted: (N,) bool, the training clips.

    Raises:
        UsageError: No such stream.
        DataError: A stream asked for, or every stream, is empty.
    """
    for name in names or ():
        if name not in file.streams:
            raise UsageError(
                f'There is no stream "{name}".', str(file.path), did_you_mean(name, file.streams)
            )
    chosen = [s for s in (names or file.streams) if file.lengths(s)[wanted].any()]
    empty = sorted(set(names or ()) - set(chosen))
    if empty or not chosen:
        raise DataError(
            f"The stream {', '.join(empty) or 'of every modality'} has no rows to train on.",
            str(file.path),
            "Choose others with --modalities, or extract that modality.",
        )
    return [s for s in file.streams if s in chosen]


@dataclass
class Normaliser:
    """Mean and standard deviation of every column, fitted on training rows only.

    Attributes:
        mean: {stream: (D,) float32}.
        std: {stream: (D,) float32}; 1 where a column is constant.
    """

    mean: dict[str, Tensor] = field(default_factory=dict)
    std: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def fit(data: Dataset) -> Normaliser:
        """Fit on all rows of a data set, in float64."""
        result = Normaliser()
        for name, values in data.values.items():
            exact = values.double()
            if len(exact) == 0:
                exact = torch.zeros(1, values.shape[1], dtype=torch.float64)
            std = exact.std(0, correction=0)
            result.mean[name] = exact.mean(0).float()
            result.std[name] = torch.where(std > 1e-6, std, torch.ones_like(std)).float()
        return result


class Dataset:
    """The clips of some splits with one label, as ragged tensors.

    Attributes:
        split: Which split they are of: "train", "valid", "test", or "" (unknown).
        ids: (N,) clip ids.
        values: {stream: (sum T, D) float32}.
        offsets: {stream: (N + 1,) int64}.
        y: (N, 1) float32, (N,) int64 or (N, K) float32; NaN or -1 where unknown.
        unlabelled: Clips left out because their label is missing.
        cropped: {stream: clips with more than max_length rows}.
    """

    def __init__(
        self,
        file: FeatureFile,
        label: Label | None,
        streams: Sequence[str],
        wanted: Sequence[bool] | np.ndarray,
        config: DataConfig,
        split: str = "",
    ) -> None:
        """Read the wanted clips.

        Args:
            file: The feature file.
            label: The label; None = none is needed, and no clip is left out for lacking it.
            streams: Streams to read.
            wanted: (N,) which clips of the file.
            config: Cropping.
            split: What the wanted clips are; training refuses to learn or select from "test".
        """
        wanted = np.asarray(wanted, bool)
        self.label, self.split = label, split
        if label is not None:
            values = file.label(label.name)
            labelled = ~np.asarray(is_missing(label, values))
            self.unlabelled = int((wanted & ~labelled).sum())
            wanted = wanted & labelled
            self.y = _target(label, values[wanted])
        else:
            self.unlabelled, self.y = 0, None
        indices = np.flatnonzero(wanted)
        self.ids = [file.ids[i] for i in indices]
        self.values: dict[str, Tensor] = {}
        self.offsets: dict[str, Tensor] = {}
        self.cropped: dict[str, int] = {}
        for name in streams:
            lengths = file.lengths(name)[indices]
            self.cropped[name] = int((lengths > config.max_length).sum())
            kept = np.minimum(lengths, config.max_length)
            offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
            values = np.empty((offsets[-1], len(file.streams[name].columns)), np.float32)
            for n, i in enumerate(indices):
                values[offsets[n] : offsets[n + 1]] = file.values_of(int(i), name, int(kept[n]))
            self.values[name] = torch.from_numpy(values)
            self.offsets[name] = torch.from_numpy(offsets)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> dict[str, int]:
        """{stream: the longest clip's rows, at least 1}."""
        return {
            m: max(1, int(o.diff().max())) if len(o) > 1 else 1 for m, o in self.offsets.items()
        }

    @property
    def blank(self) -> np.ndarray:
        """(N,) bool, clips without a row in any stream: there is nothing to judge them by."""
        counts = [offsets.diff().cpu().numpy() for offsets in self.offsets.values()]
        return np.sum(counts, axis=0) == 0

    def normalise(self, normaliser: Normaliser) -> None:
        """Normalise every row in place."""
        for name, values in self.values.items():
            values.sub_(normaliser.mean[name]).div_(normaliser.std[name])

    def to(self, device: torch.device) -> Dataset:
        """Move to the device where the whole set takes at most half of its free memory.

        Otherwise the rows stay where they are, and each batch is moved.
        """
        size = sum(v.nbytes for v in self.values.values())
        if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        self.values = {m: v.to(device) for m, v in self.values.items()}
        self.offsets = {m: o.to(device) for m, o in self.offsets.items()}
        self.y = None if self.y is None else self.y.to(device)
        return self

    def batch(
        self,
        indices: Tensor,
        device: torch.device,
        lengths: dict[str, int] | None = None,
        record: bool = False,
    ) -> Batch:
        """Gather clips into a padded batch.

        Args:
            indices: (B,) int64 on the CPU.
            device: Where the batch goes.
            lengths: {stream: steps} to crop or pad to; None = the batch's longest.
            record: Passed on to the fusion.
        """
        x, mask = {}, {}
        for name, values in self.values.items():
            offsets = self.offsets[name]
            place = indices.to(offsets.device)
            start = offsets[place]
            count = offsets[place + 1] - start
            steps = lengths[name] if lengths else max(1, int(count.max()))
            step = torch.arange(steps, device=offsets.device)
            real = step < count[:, None]
            if len(values):
                # Padded places point at row 0 and are blanked below.
                rows = torch.where(real, start[:, None] + step, 0)
                padded = values[rows] * real[..., None]
            else:
                padded = values.new_zeros((*real.shape, values.shape[1]))
            x[name], mask[name] = padded.to(device), real.to(device)
        y = None if self.y is None else self.y[indices.to(self.y.device)].to(device)
        return Batch(x, mask, y, tuple(self.ids[i] for i in indices.tolist()), record)


def _target(label: Label, values: np.ndarray) -> Tensor:
    if label.task == "regression":
        return torch.from_numpy(values.astype(np.float32))[:, None]
    if label.task == "classification":
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.astype(np.float32))


def make_spec(file: FeatureFile, label: Label, train: Dataset) -> DataSpec:
    """Describe the training data to a fusion."""
    lengths = train.lengths
    if file.alignment != "none":
        # Aligned streams share their steps, even where the longest clip lacks one of them.
        lengths = dict.fromkeys(lengths, max(lengths.values()))
    return DataSpec(
        streams={m: (v.shape[1], lengths[m]) for m, v in train.values.items()},
        task=label.task,
        n_out=len(label.classes) or 1,
        classes=label.classes,
        range=label.range,
        alignment=file.alignment,
    )
