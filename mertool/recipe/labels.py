"""Makes the classes that a recipe predicts of a regression label, where the file has only that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mertool.files import sha256
from mertool.recipe.parts import Recipe, Target
from mertool.store import FeatureFile, Writer, is_missing


def complete(
    recipe: Recipe, features: Path, labels: Sequence[str], out: Path
) -> tuple[Path, list[str]]:
    """Write a copy of a feature file with the labels it lacks, if it lacks any.

    Args:
        recipe: The recipe; `from` and `edges` of its labels say how they are made.
        features: The feature file.
        labels: Labels to be predicted.
        out: Folder of the copy, features.h5.

    Returns:
        The file to use, and notes. The copy that an earlier call made of the same file is kept.

    Raises:
        DataError: It is no feature file.
        OutputError: The disk is full or closed.
    """
    with FeatureFile(features) as file:
        known = file.labels
        lacking = [
            t for t in recipe.targets
            if t.label.name in labels and t.label.name not in known
            and t.source in known and known[t.source].task == "regression"
        ]  # fmt: skip
        if not lacking:
            return features, []
        notes = [
            f'the label "{t.label.name}" is made of "{t.source}", cut at '
            + ", ".join(f"{edge:g}" for edge in t.edges)
            for t in lacking
        ]
        copy, digest = out / "features.h5", sha256(features)
        if not copy.is_file() or _origin(copy) != digest:
            _write(file, lacking, copy, digest)
        return copy, notes


def _origin(path: Path) -> str:
    with FeatureFile(path) as file:
        return str(file.attrs.get("made_of", ""))


def _write(file: FeatureFile, targets: Sequence[Target], out: Path, digest: str) -> None:
    made = {t.label.name: classes(file.label(t.source), t.edges) for t in targets}
    attrs = {
        "alignment": file.alignment,
        "dataset": str(file.attrs.get("dataset", "")),
        "made_of": digest,
    }
    labels = [*file.labels.values(), *(t.label for t in targets)]
    with Writer(out, file.streams, labels, attrs) as writer:
        for i in range(len(file)):
            clip = file.clip(i, rows=False)
            for name, values in made.items():
                if not is_missing(_label(targets, name), values[i]):
                    clip.labels[name] = int(values[i])
            writer.add(clip, {name: file.rows(i, name) for name in file.streams})
        for name in file.splits:
            writer.split(name, file.split(name), file.split_attrs(name))
        for failure in file.failures:
            writer.fail(*failure)


def _label(targets: Sequence[Target], name: str) -> object:
    return next(t.label for t in targets if t.label.name == name)


def classes(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """(N,) number of the class (a, b] of each value, -1 where it is NaN.

    Compared in float32, the precision of stored labels, so that a value on an edge lies on it.
    """
    found = np.searchsorted(np.array(edges, np.float32), values.astype(np.float32), side="left")
    return np.where(np.isnan(values), -1, found)
