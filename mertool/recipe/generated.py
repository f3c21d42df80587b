"""Feature files of made-up numbers in exactly the shapes of a recipe, for its smoke run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mertool.recipe.parts import Recipe, Shape
from mertool.store import Stream, Writer
from mertool.types import SPLITS, Clip, Label, Rows

_SPEAKERS = 8
_MOST = {"train": 0.5, "valid": 0.25, "test": 0.25}


def of_recipe(recipe: Recipe, shape: Shape, out: Path, folds: int) -> Path:
    """The generated file of a shape, in the folder `out`; one that is there is kept.

    A label that is made of another is left for `labels.complete` to make, as of a user's file.
    """
    path = out / "generated.h5"
    labels = {t.label.name: t.label for t in recipe.targets if not t.source}
    turns: dict[str, list[float]] = {}
    for target in (t for t in recipe.targets if t.source):
        inner = np.array(target.edges)
        reach = 1.4 * np.abs(inner).max()
        middles = (np.array([-reach, *inner]) + np.array([*inner, reach])) / 2
        labels[target.source] = Label(target.source, "regression", (), (-reach, reach))
        turns[target.source] = max(turns.get(target.source, []), middles.tolist(), key=len)
    if not path.is_file():
        out.mkdir(exist_ok=True)
        write(path, shape, list(labels.values()), recipe.clips, folds, turns)
    return path


def write(
    path: Path,
    shape: Shape,
    labels: Sequence[Label],
    clips: int,
    folds: int = 0,
    turns: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> Path:
    """Write random rows with random labels: nothing can be learnt of them but that code runs.

    Args:
        path: The file to write.
        shape: Widths, steps and alignment; in each split the first clip has all steps.
        labels: In each split every class occurs, and of a regression label both signs.
        clips: N; more where a split would be too small for that.
        folds: Number of folds: speakers are dealt into fold-0, fold-1, ...; 0 = none.
        turns: {regression label: the values it takes in turn}; else they are evenly spaced.
        seed: Of the random numbers.

    Returns:
        `path`.
    """
    rng = np.random.default_rng(seed)
    streams = {
        name: Stream(
            tuple(f"{name[0]}{i}" for i in range(D)), {"extractor": "generated", "config": "{}"},
            name == "text",
        )
        for name, (D, _) in shape.streams.items()
    }  # fmt: skip
    turns = turns or {}
    classes = (len(label.classes) for label in labels if label.task == "classification")
    least = max([3, *classes, *map(len, turns.values())])
    speakers = max(_SPEAKERS, folds)
    count = {split: max(least, int(clips * share)) for split, share in _MOST.items()}
    if folds:  # in every fold the test speaker has clips of every class
        count = {"": speakers * least}
    ids: list[str] = []
    with Writer(path, streams, labels, {"alignment": shape.alignment}) as writer:
        for split, total in count.items():
            for i in range(total):
                speaker = i // least if folds else (SPLITS.index(split) + 3 * i) % speakers
                # Speakers of one split are of that split alone.
                name = f"s{speaker}" if folds else f"{split}-s{speaker}"
                clip = Clip(
                    f"clip{len(ids)}", speaker=name, split=split, end=1.0, text=f"clip {len(ids)}",
                    labels={label.name: value(label, i, total, turns) for label in labels},
                )  # fmt: skip
                writer.add(clip, _rows(shape, rng, whole=i == 0))
                ids.append(name)
        for k in range(folds):
            writer.split(f"fold-{k}", [_fold(int(n[1:]), k, folds) for n in ids], {"by": "speaker"})
    return path


def _fold(speaker: int, k: int, folds: int) -> str:
    if speaker % folds == k:
        return "test"
    return "valid" if speaker % folds == (k + 1) % folds else "train"


def value(label: Label, i: int, total: int, turns: Mapping[str, Sequence[float]]) -> Any:
    """The label of clip i of `total`: every class in turn, or evenly spaced over the range."""
    if label.name in turns:
        return turns[label.name][i % len(turns[label.name])]
    if label.task == "classification":
        return i % len(label.classes)
    if label.task == "multilabel":
        return [(i + k) % 2 for k in range(len(label.classes))]
    low, high = label.range
    return low + (high - low) * (i + 0.5) / total


def _rows(shape: Shape, rng: np.random.Generator, whole: bool) -> dict[str, Rows]:
    rows = {}
    share = 1.0 if whole else rng.uniform(0.2, 1.0)
    for name, (D, T) in shape.streams.items():
        if shape.alignment == "none" and not whole:
            share = rng.uniform(0.2, 1.0)
        # Segments are as many in every clip.
        steps = T if shape.alignment.startswith("segments") else max(1, round(share * T))
        edges = np.linspace(0, 1, steps + 1)
        made = Rows(
            rng.standard_normal((steps, D), np.float32), np.stack([edges[:-1], edges[1:]], 1)
        )
        if name == "text":
            made.word = np.zeros(steps, np.int32)
            made.span = np.zeros((steps, 2), np.int32)
        rows[name] = made
    return rows
