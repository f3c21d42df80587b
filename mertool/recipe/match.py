"""Compares a feature file with what a recipe knows of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mertool.errors import UsageError, did_you_mean
from mertool.metrics import scale_of
from mertool.recipe.parts import Recipe, Target
from mertool.store import FeatureFile
from mertool.types import Label


@dataclass
class Match:
    """What was found.

    Attributes:
        shape: Name of the recipe's shape that the file has; "" = none of them.
        streams: {stream: (D, longest clip's steps)} of the streams in use.
        alignment: The file's.
        variants: Names of the recipe's [expected] that belong to such features.
        void: Why scores on this file are not comparable with the paper's; empty = they are.
        notes: What a user should know.
    """

    shape: str = ""
    streams: dict[str, tuple[int, int]] = field(default_factory=dict)
    alignment: str = "none"
    variants: list[str] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def match(recipe: Recipe, features: Path, streams: Sequence[str], labels: Sequence[str]) -> Match:
    """Compare a feature file with the recipe's shapes and labels; reads no rows.

    Args:
        recipe: The recipe.
        features: The feature file.
        streams: Streams in use; empty = all of the file.
        labels: Labels to be predicted.

    Raises:
        UsageError: The file has no such stream or label.
        DataError: It is no feature file.
    """
    with FeatureFile(features) as file:
        for name in streams:
            if name not in file.streams:
                raise UsageError(
                    f'There is no stream "{name}".', str(features),
                    f"{did_you_mean(name, file.streams)}; choose with run.modalities=A,B",
                )  # fmt: skip
        used = [name for name in file.streams if not streams or name in streams]
        found = Match(alignment=file.alignment)
        for name in used:
            lengths = file.lengths(name)
            steps = int(lengths.max()) if len(lengths) else 0
            found.streams[name] = (len(file.streams[name].columns), steps)
        targets = _paired(recipe, labels)
        for name in labels:
            if name not in file.labels:
                raise UsageError(
                    f'There is no label "{name}".', str(features),
                    f"{did_you_mean(name, file.labels)}; choose with run.label=NAME",
                )  # fmt: skip
            found.void += _other_label(file.labels[name], targets.get(name))
    _shape(recipe, found)
    return found


def _shape(recipe: Recipe, found: Match) -> None:
    widths = {name: D for name, (D, _) in found.streams.items()}
    alike = [
        shape
        for shape in recipe.shapes
        if {n: D for n, (D, _) in shape.streams.items()} == widths
        and shape.alignment == found.alignment
    ]
    said = ", ".join(f"{name} {D}" for name, D in widths.items())
    if not alike:
        found.void.append(f"the features ({said}; alignment {found.alignment}) are not the paper's")
        return
    # Equal widths at other lengths (a crop, say) are told apart by the steps.
    shape = min(
        alike, key=lambda s: sum(abs(T - found.streams[n][1]) for n, (_, T) in s.streams.items())
    )
    found.shape = shape.name
    longer = [n for n, (_, T) in shape.streams.items() if found.streams[n][1] > T]
    if longer:
        found.notes.append(
            f"clips are longer than those of the shape {shape.name}: {', '.join(longer)}"
        )
    found.variants = [e.name for e in recipe.expected if e.fits(widths, found.alignment)]
    if not found.variants:
        found.void.append(
            f"the paper has no score for such features ({said}; alignment {found.alignment})"
        )


def _paired(recipe: Recipe, labels: Sequence[str]) -> dict[str, Target]:
    """{label in use: the recipe's label it stands for}, by name, else by place."""
    known = {t.label.name: t for t in recipe.targets}
    by_place = dict(zip(labels, recipe.targets, strict=False))
    return {
        name: known.get(name) or by_place[name]
        for name in labels
        if name in known or name in by_place
    }


def key_of(recipe: Recipe, labels: Sequence[str], label: str) -> str:
    """What stands before a metric's name for a label: "LABEL/" where a recipe has several."""
    target = _paired(recipe, labels).get(label)
    return f"{target.label.name}/" if target and len(recipe.targets) > 1 else ""


def _other_label(label: Label, target: Target | None) -> list[str]:
    """Why a label is not the recipe's; its name does not matter."""
    if target is None:
        return [f'the label "{label.name}" is none of the recipe\'s']
    want = target.label
    # A class may be spelt otherwise; the names of several labels at once are part of their scores.
    same = {
        "regression": scale_of(label) == scale_of(want),
        "classification": len(label.classes) == len(want.classes),
        "multilabel": sorted(label.classes) == sorted(want.classes),
    }
    if label.task != want.task or not same[label.task]:
        span = f"{label.range[0]:g} to {label.range[1]:g}"
        kind = f"{label.task}, {', '.join(label.classes) or span}"
        return [f'the label "{label.name}" ({kind}) is not that of the paper']
    return []
