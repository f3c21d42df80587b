"""What a recipe is made of; docs/recipes.md explains its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertool.types import Label

SETTINGS = ("run", "data", "fusion", "train", "evaluate")
# Names become folders of a run: nothing of a recipe may lead out of it.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """A label that a recipe predicts.

    Attributes:
        label: Its name, task, classes and range.
        source: Regression label that the classes are made of where the file lacks them; "" = none.
        edges: Inner edges of those classes (a, b].
    """

    label: Label
    source: str = ""
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shape:
    """What a feature file of the data set looks like.

    Attributes:
        name: Its name in the recipe.
        streams: {stream: (D, steps)}.
        alignment: "none", "word" or "segments:N".
    """

    name: str
    streams: dict[str, tuple[int, int]]
    alignment: str


@dataclass(frozen=True)
class Expected:
    """Scores that the paper prints.

    Attributes:
        name: Variant.
        source: Paper and table.
        when: {"alignment" | stream: alignment | D}: the files that they are comparable with.
        values: {metric: value}, as printed: shares in percent.
    """

    name: str
    source: str
    when: dict[str, str | int]
    values: dict[str, float]

    def fits(self, widths: Mapping[str, int], alignment: str) -> bool:
        """Whether features of these widths and this alignment are those of the scores."""
        found = {**widths, "alignment": alignment}
        return all(found.get(key) == value for key, value in self.when.items())


@dataclass(frozen=True)
class Ablation:
    """One row of an ablation table.

    Attributes:
        name: Its name, and its run's folder.
        row: The paper's name for it.
        source: Paper and table.
        settings: What differs from the full model.
        values: {metric: value} of the paper; empty where it only draws the row.
    """

    name: str
    row: str
    source: str
    settings: Settings
    values: dict[str, float]


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        name: Its registered name, or its folder's.
        path: Its recipe.toml.
        about: title, paper, dataset, summary.
        settings: {section: {key: value}} of SETTINGS.
        targets: Labels, in the order of `run.label`.
        shapes: Feature files of the data set.
        expected: Scores of the paper.
        reference: Variants of `expected` that the ablation tables belong to; empty = all.
        ablations: Rows of its ablation tables.
        smoke: What is made smaller in a smoke run.
        clips: Clips of a smoke run's generated file.
        clips_of_paper: {split: number of clips} of the paper; empty where it has folds.
    """

    name: str
    path: Path
    about: dict[str, str]
    settings: Settings
    targets: tuple[Target, ...]
    shapes: tuple[Shape, ...]
    expected: tuple[Expected, ...]
    reference: tuple[str, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    smoke: Settings = field(default_factory=dict)
    clips: int = 16
    clips_of_paper: dict[str, int] = field(default_factory=dict)

    @property
    def plugin(self) -> str:
        """The fusion's name."""
        return str(self.settings["run"].get("plugin", ""))

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of its paper."""
        return tuple(self.settings["run"].get("modalities", ()))
