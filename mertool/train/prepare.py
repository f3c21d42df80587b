"""What a training needs of a feature file: folds, rows, normaliser, description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mertool import data as datasets
from mertool import splits as divisions
from mertool.align import DEFAULT
from mertool.errors import DataError
from mertool.metrics import baseline_of
from mertool.splits.parts import doubts
from mertool.splits.parts import parts as parts_of
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
        alignment: {"to", "aligner", "aligner_config", "pool"}; empty where the features are
            unaligned. An empty aligner is the default one, for words without times only.
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


@dataclass
class Plan:
    """Which clips are used for what.

    Attributes:
        ids: (N,) ids of the file's clips.
        parts: {fold: (N,) split of each clip}; one fold "" without cross-validation.
        streams: The streams to use.
        notes: What a user should know.
    """

    ids: list[str]
    parts: dict[str, list[str]]
    streams: list[str]
    notes: list[str]


def plan(
    features: Path, label: str | None, modalities: Sequence[str] | None, splits: str, folds: int
) -> Plan:
    """Settle splits and streams; reads no rows, and no label of a test clip.

    Args:
        features: The feature file.
        label: Name of the label; None = the only one.
        modalities: Streams to use; None = all that the training clips have rows of.
        splits: Name of a split of the file, where folds is 0.
        folds: Number of folds: fold-0, fold-1, ... of the file, or, where it has none, made of its
            speakers.

    Raises:
        UsageError: Unknown label, stream or split.
        DataError: The file has another number of folds, or a split lacks clips.
    """
    with FeatureFile(features) as file:
        target = datasets.pick_label(file, label)
        parts, notes = parts_of(file, splits, folds)
        seen = np.isin(next(iter(parts.values())), ("train", "valid"))
        notes += doubts(file, parts, target, seen)
        train = divisions.of_split(next(iter(parts.values())), "train", file.path)
        streams = datasets.pick_streams(file, modalities, train)
        if not modalities:
            notes += [
                f'the stream "{name}" has no rows to train on and is left out'
                for name in file.streams
                if name not in streams and file.lengths(name).any()
            ]
        return Plan(file.ids, parts, streams, notes)


def prepare(
    features: Path,
    label: str | None,
    streams: Sequence[str],
    assigned: Sequence[str],
    config: datasets.DataConfig,
) -> Prepared:
    """Read the train and valid clips of a feature file.

    Args:
        features: The file.
        label: Name of the label; None = the only one.
        streams: Streams to use.
        assigned: (N,) split of each clip.
        config: Cropping.

    Raises:
        UsageError: Unknown label.
        DataError: A split has no labelled clips.
    """
    with FeatureFile(features) as file:
        target = datasets.pick_label(file, label)
        parts = {}
        for name in ("train", "valid"):
            wanted = divisions.of_split(assigned, name, file.path)
            parts[name] = datasets.Dataset(file, target, streams, wanted, config, name)
            if not len(parts[name]):
                raise DataError(
                    f"No labelled clip is in the {name} split.", str(features), "Label some clips."
                )
        made = {
            m: {"columns": list(file.streams[m].columns), "attrs": _plain(file.streams[m].attrs)}
            for m in streams
        }
        alignment = {}
        if file.alignment != "none":
            how = made[streams[0]]["attrs"]
            keys = ("aligner", "aligner_config", "pool")
            alignment = {"to": file.alignment, **{k: how.get(k, "") for k in keys}}
            if alignment["aligner"] == DEFAULT and not how.get("realigned"):
                alignment["aligner"] = ""  # a name would stand for all words, timed or not
        spec = datasets.make_spec(file, target, parts["train"])
    normaliser = datasets.Normaliser.fit(parts["train"])
    baseline = baseline_of(target, parts["train"].y)
    for part in parts.values():
        part.normalise(normaliser)
    return Prepared(
        target, parts, spec, normaliser, made, alignment, baseline, _left_out(parts, config)
    )


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
