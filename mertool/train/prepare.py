"""What a training needs of a feature file: splits, rows, normaliser, description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mertool import data as datasets
from mertool.errors import DataError
from mertool.metrics import baseline_of
from mertool.store import FeatureFile
from mertool.types import DataSpec, Label


@dataclass
class Prepared:
    """Training data, ready to be batched.

    Attributes:
        label: What is to be predicted.
        parts: {"train", "valid": clips}, normalised. The test split is not read.
        spec: What the fusion is built for.
        normaliser: Fitted on the training rows.
        streams: {stream: {"columns", "attrs"}}: how its features were made.
        alignment: {"to", "aligner", "pool"}; empty where the features are unaligned.
        baseline: The training labels' mean, or the share of each class.
        notes: What a user should know.
    """

    label: Label
    parts: dict[str, datasets.Dataset]
    spec: DataSpec
    normaliser: datasets.Normaliser
    streams: dict[str, Any]
    alignment: dict[str, str]
    baseline: list[float]
    notes: list[str]


def prepare(
    features: Path,
    label: str | None,
    modalities: Sequence[str] | None,
    splits: str,
    config: datasets.DataConfig,
) -> Prepared:
    """Read the train and valid clips of a feature file.

    Args:
        features: The file.
        label: Name of the label; None = the only one.
        modalities: Streams to use; None = all that are not empty.
        splits: Name of the split in the file.
        config: Cropping.

    Raises:
        UsageError: Unknown label, stream or split.
        DataError: A split has no labelled clips.
    """
    with FeatureFile(features) as file:
        target = datasets.pick_label(file, label)
        names = datasets.pick_streams(file, modalities)
        assigned, note = datasets.assign_splits(file, splits)
        parts = {}
        for name in ("train", "valid"):
            wanted = datasets.of_split(assigned, name, file.path)
            parts[name] = datasets.Dataset(file, target, names, wanted, config)
            if not len(parts[name]):
                raise DataError(
                    f"No labelled clip is in the {name} split.", str(features), "Label some clips."
                )
        streams = {
            m: {"columns": list(file.streams[m].columns), "attrs": _plain(file.streams[m].attrs)}
            for m in names
        }
        alignment = {}
        if file.alignment != "none":
            how = streams[names[0]]["attrs"]
            alignment = {"to": file.alignment, **{k: how.get(k, "") for k in ("aligner", "pool")}}
        spec = datasets.make_spec(file, target, parts["train"])
    normaliser = datasets.Normaliser.fit(parts["train"])
    baseline = baseline_of(target, parts["train"].y)
    for part in parts.values():
        part.normalise(normaliser)
    notes = [note] if note else []
    return Prepared(
        target, parts, spec, normaliser, streams, alignment, baseline,
        notes + _left_out(parts, config),
    )  # fmt: skip


def _left_out(parts: dict[str, datasets.Dataset], config: datasets.DataConfig) -> list[str]:
    """Say what is left out or cut."""
    notes = [
        f"{part.unlabelled} {name} clips have no label and are left out"
        for name, part in parts.items()
        if part.unlabelled
    ]
    notes += [
        f"{part.blank.sum()} {name} clips have no row in any stream and are used too"
        for name, part in parts.items()
        if part.blank.any()
    ]
    for stream in parts["train"].values:
        cropped = sum(part.cropped[stream] for part in parts.values())
        if cropped:
            notes.append(
                f"{cropped} clips have more than {config.max_length} {stream} rows and are cut: "
                "align --to segments:N keeps all of a clip, --set data.max_length=N cuts later"
            )
    return notes


def _plain(attrs: dict[str, Any]) -> dict[str, Any]:
    """HDF5 attributes as JSON values."""
    return {k: v.item() if isinstance(v, np.generic) else str(v) for k, v in attrs.items()}
