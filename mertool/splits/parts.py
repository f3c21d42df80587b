"""What a run takes from a file's splits: one split or folds, and what is doubtful about them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from mertool.errors import DataError
from mertool.splits import assign, by_units, units_of
from mertool.splits.leakage import leaks, same_text
from mertool.store import FeatureFile, is_missing
from mertool.types import Label


def parts(file: FeatureFile, splits: str, folds: int) -> tuple[dict[str, list[str]], list[str]]:
    """The splits of a run.

    Args:
        file: An open feature file.
        splits: Name of its split, where folds is 0.
        folds: Number of folds: fold-0, fold-1, ... of the file, or, where it has none, made of its
            speakers (seed 0).

    Returns:
        {fold: (N,) split of each clip}, one fold "" without cross-validation; and notes.

    Raises:
        DataError: No such split, another number of folds, or too few clips or speakers.
    """
    if not folds:
        assigned, note = assign(file, splits)
        return {"": assigned}, [note] if note else []
    stored = [name for name in file.splits if re.fullmatch(r"fold-\d+", name)]
    if not stored:
        kind = units_of(file)[1]
        return by_units(file, folds), [
            f"the file has no folds: its {kind} are dealt into {folds}, by hash"
        ]
    names = [f"fold-{k}" for k in range(folds)]
    if set(stored) != set(names):
        raise DataError(
            f"The file has {len(stored)} folds, not {folds}.",
            f"{file.path}: {', '.join(stored)}",
            f"Give --folds {len(stored)}, or make others: mertool data split --overwrite",
        )
    made, notes = {}, []
    for name in names:
        made[name], note = assign(file, name)
        notes += [f"{name}: {note}"] if note else []
    return made, notes


def doubts(
    file: FeatureFile, divided: Mapping[str, list[str]], label: Label, seen: np.ndarray
) -> list[str]:
    """Warnings that belong into every report: leaks, and a text that says nothing of the label.

    Args:
        file: An open feature file.
        divided: {fold: (N,) split of each clip}.
        label: What is predicted.
        seen: (N,) bool, the clips whose label may be looked at.
    """
    notes = []
    for fold, assigned in divided.items():
        notes += [f"{fold}: {leak}" if fold else leak for leak in leaks(file, assigned)]
    values, texts = file.label(label.name), file.column("text")
    chosen = np.flatnonzero(seen & ~np.asarray(is_missing(label, values)))
    same = same_text(label, values[chosen], [texts[i] for i in chosen])
    return [*notes, same] if same else notes
