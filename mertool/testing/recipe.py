"""Checks of recipes: a folder with a recipe.toml. Nothing is trained; `run --smoke` does that."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mertool.errors import MertoolError, UsageError, one_line
from mertool.metrics import SCALES, confusion, scale_of, scores, weighted_f1
from mertool.recipe.parts import Ablation, Recipe, Shape, Target
from mertool.recipe.read import find
from mertool.recipe.settle import Settled, settle, texts
from mertool.recipe.table import AUILC
from mertool.registry import Entry, registry
from mertool.testing.common import check_import
from mertool.testing.results import NOT_RUN, Failed, Result, need, run_checks
from mertool.types import DataSpec, Label


def check_recipe(name: str) -> list[Result]:
    """Run every check of a recipe.

    Args:
        name: Its registered name, a recipe.toml or its folder.

    Returns:
        One result per check; `failed` picks those that are wrong.

    Raises:
        UsageError: There is no such recipe.
        PluginError: Two plugins register the name.
    """
    if ("recipe", name) in registry().entries:
        entry = registry().get("recipe", name)
        return run_checks(CHECKS, Subject(name, entry), entry.facts)
    try:
        find(name)
    except UsageError:
        raise
    except MertoolError:
        pass  # the check "file" says it
    checks = {n: check for n, check in CHECKS.items() if n != "import"}
    results = run_checks(checks, Subject(name, None), {})
    return [Result("import", NOT_RUN, "it is a file of no plugin"), *results]


class Subject:
    """A recipe under test.

    Attributes:
        name: Its registered name, or a file.
        entry: What is registered; None for a file.
    """

    def __init__(self, name: str, entry: Entry | None) -> None:
        self.name, self.entry = name, entry

    @cached_property
    def recipe(self) -> Recipe:
        """What is in its file."""
        return find(self.name)

    @cached_property
    def full(self) -> Settled:
        """The settings of its full model."""
        return settle(self.recipe)

    def changed(self, ablation: Ablation) -> Settled:
        """The settings of an ablation."""
        return settle(self.recipe, texts(ablation.settings))

    def metrics(self) -> set[str]:
        """Names of all scores that its runs give, as [expected] has them."""
        several = len(self.recipe.targets) > 1
        found: set[str] = set()
        for target in self.recipe.targets:
            before = f"{target.label.name}/" if several else ""
            named = _scores(target.label, self.full).values
            found |= {before + name for name in named}
            if self.full.evaluate.mask:
                found |= {f"{before}{AUILC}{name}" for name in named}
        return found

    def spec(self, shape: Shape, target: Target, settled: Settled) -> DataSpec:
        """What a training on such a file hands to the fusion."""
        label, used = target.label, settled.run.modalities or tuple(shape.streams)
        longest = self.full.configs["data"].max_length
        return DataSpec(
            {n: (D, min(T, longest)) for n, (D, T) in shape.streams.items() if n in used},
            label.task, len(label.classes) or 1, label.classes, label.range, shape.alignment,
        )  # fmt: skip


def _few(label: Label) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions on which weighting F1 by truth and by prediction differs."""
    n, classes = 24, max(2, len(label.classes))
    if label.task == "regression":
        low, high = label.range
        y = np.linspace(low, high, n)
        return y, (np.where(np.arange(n) % 3 > 0, high, y) / 2)[:, None]
    if label.task == "classification":
        y = np.arange(n) % classes
        said = np.where(np.arange(n) % 5 > 1, classes - 1, y)
        return y, np.eye(classes)[said]
    y = (np.arange(n)[:, None] + np.arange(classes)) % 3 == 0
    return y.astype(float), np.where(np.arange(n)[:, None] % 4 > 2, 1.0, y - 0.5)


def _scores(label: Label, settled: Settled) -> Any:
    y, pred = _few(label)
    how = settled.evaluate
    return scores(label, y, pred, how.convention, how.scale if label.task == "regression" else "")


def check_file(recipe: Subject) -> None:
    """Its recipe.toml is there and is as docs/recipes.md says."""
    need(recipe.recipe.targets, "[run] label names no label")
    need(recipe.recipe.shapes, "[shapes] has no shape")


def check_names(recipe: Subject) -> None:
    """Its fusion is registered."""
    try:
        registry().get("fusion", recipe.recipe.plugin)
    except UsageError as error:
        raise Failed(one_line(error)) from error


def check_keys(recipe: Subject) -> None:
    """Every setting exists and its value fits, in the smoke run too."""
    _settled(lambda: recipe.full)
    _settled(lambda: settle(recipe.recipe, texts(recipe.recipe.smoke)), "[smoke]: ")


def _settled(make: Any, where: str = "") -> Settled:
    try:
        return make()
    except MertoolError as error:
        raise Failed(where + one_line(error)) from error


def check_expected(recipe: Subject) -> None:
    """[expected] names its source, and scores that evaluation gives."""
    made, known = recipe.recipe, recipe.metrics()
    need(made.expected, "[expected] has no score")
    for block in made.expected:
        for name in block.values:
            need(
                name in known,
                f"[expected.{block.name}] {name}: no score of this task has that name",
            )


def check_support(recipe: Subject) -> None:
    """[evaluate] f1_support is what the convention weights F1 by."""
    for target in recipe.recipe.targets:
        label, y_pred = target.label, _few(target.label)
        found = _scores(label, recipe.full)
        matrix, name = _two(label, *y_pred, recipe.full.evaluate.scale)
        by = {w: weighted_f1(matrix, w) for w in ("true", "pred")}
        need(abs(by["true"] - by["pred"]) > 1e-3, "the check cannot tell one from the other")
        said = recipe.full.evaluate.f1_support
        need(
            abs(found.values[name] - by[said]) < 1e-3,
            f'f1_support is "{said}", but the convention "{found.convention}" weights F1 otherwise',
        )


def _two(label: Label, y: np.ndarray, pred: np.ndarray, scale: str) -> tuple[np.ndarray, str]:
    """A confusion matrix, counted here, and the name of its weighted F1."""
    if label.task == "classification":
        return confusion(y, pred.argmax(1), len(label.classes)), "weighted_f1"
    if label.task == "multilabel":
        return confusion(y[:, 0] > 0.5, pred[:, 0] > 0, 2), f"weighted_f1:{label.classes[0]}"
    kind = scale or scale_of(label)
    need(kind in SCALES[:2], "a label of another scale has no weighted F1 of two classes")
    if kind == "sims":
        return confusion(y > 0, pred[:, 0] > 0, 2), "f1"
    return confusion(y >= 0, pred[:, 0] >= 0, 2), "f1_has0"


def check_ablations(recipe: Subject) -> None:
    """Every ablation's settings exist and differ from the full model's; its scores have names."""
    known = recipe.metrics()
    for ablation in recipe.recipe.ablations:
        where = f"[ablations.{ablation.name}]"
        settled = _settled(lambda a=ablation: recipe.changed(a), f"{where}: ")
        need(settled != recipe.full, f"{where} is the full model")
        for name in ablation.values:
            need(name in known, f"{where} {name}: no score of this task has that name")


def check_shapes(recipe: Subject) -> None:
    """Every shape has the streams, and every variant of [expected] some shape."""
    made = recipe.recipe
    for shape in made.shapes:
        lacking = sorted(set(made.streams) - set(shape.streams))
        need(not lacking, f"[shapes.{shape.name}] lacks {', '.join(lacking)}")
    for block in made.expected:
        fitting = [
            s for s in made.shapes
            if block.fits({n: D for n, (D, _) in s.streams.items()}, s.alignment)
        ]  # fmt: skip
        need(fitting, f"[expected.{block.name}] when: no shape is so")


def check_builds(recipe: Subject) -> None:
    """The fusion can be built at every shape and for every ablation; no memory is taken."""
    import torch

    made = recipe.recipe
    fusion = registry().load("fusion", made.plugin)
    cases = [(f"[shapes.{s.name}]", s, recipe.full) for s in made.shapes]
    cases += [(f"[ablations.{a.name}]", made.shapes[0], recipe.changed(a)) for a in made.ablations]
    for where, shape, settled in cases:
        for target in made.targets:
            try:
                with torch.device("meta"):
                    fusion(settled.configs["fusion"], recipe.spec(shape, target, settled))
            except Exception as error:  # foreign code
                raise Failed(f"{where}: {one_line(error)}") from error


CHECKS = {
    "import": check_import,
    "file": check_file,
    "names": check_names,
    "keys": check_keys,
    "expected": check_expected,
    "support": check_support,
    "ablations": check_ablations,
    "shapes": check_shapes,
    "builds": check_builds,
}
