"""Compares a feature file with what a recipe knows of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mertool.errors import UsageError, did_you_mean
from mertool.metrics import scale_of
from mertool.recipe.parts import Ablation, Recipe, Shape, Target
from mertool.recipe.settle import Settled
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
    """Fill in shape and variants."""
    widths = {name: D for name, (D, _) in found.streams.items()}
    found.variants = [e.name for e in recipe.expected if e.fits(widths, found.alignment)]
    said = ", ".join(f"{name} {D}" for name, D in widths.items())
    said = f"({said}; alignment {found.alignment})"
    alike = [
        shape
        for shape in recipe.shapes
        if {n: D for n, (D, _) in shape.streams.items()} == widths
        and shape.alignment == found.alignment
    ]
    if not alike:
        found.void.append(f"the features {said} are not the paper's")
        return
    if not found.variants:
        found.void.append(f"the paper has no score for such features {said}")

    def distance(shape: Shape) -> int:
        return sum(abs(T - found.streams[n][1]) for n, (_, T) in shape.streams.items())

    shape = min(alike, key=distance)  # those of equal widths are told apart by their steps
    found.shape = shape.name
    longer = [n for n, (_, T) in shape.streams.items() if found.streams[n][1] > T]
    if longer:
        found.notes.append(
            f"clips are longer than those of the shape {shape.name}: {', '.join(longer)}"
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


def other_variant(recipe: Recipe, found: Match) -> str:
    """Why the paper's ablations belong to other features; "" = they do not."""
    if not recipe.reference or set(recipe.reference) & set(found.variants):
        return ""
    return f"they are of the variant {', '.join(recipe.reference)}"


def departures(recipe: Recipe, settled: Settled, changed: Sequence[str]) -> list[str]:
    """Settings that the user changed and that make it another experiment."""
    free = {"run.seeds", "run.label", "run.singles", "run.modalities"}
    other = sorted({name for name in changed if name not in free})
    said = [f"settings changed: {', '.join(other)}"] if other else []
    used = settled.run.modalities
    if used and set(used) != set(recipe.streams):
        said.append(f"streams {', '.join(used)} alone")
    return said


def absent(recipe: Recipe, ablation: Ablation, found: Match) -> str:
    """Why an ablation says nothing on these data; "" = it does."""
    known = set(recipe.streams)
    for values in ablation.settings.values():
        for value in values.values():
            if isinstance(value, list) and set(value) <= known and set(value) - set(found.streams):
                lacking = ", ".join(sorted(set(value) - set(found.streams)))
                return f"it needs {lacking}, which is not in use"
    kept = ablation.settings.get("run", {}).get("modalities")
    if kept is not None and set(kept) == set(found.streams):
        return "the stream that it leaves out is not in use"
    return ""
