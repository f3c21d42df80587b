"""Joins a recipe's settings with a smoke run's, the user's and an ablation's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mertool.config import resolve, settings_of, to_dict
from mertool.data import DataConfig
from mertool.errors import UsageError
from mertool.metrics import CONVENTIONS, SCALES
from mertool.recipe.parts import Recipe, Settings
from mertool.registry import registry
from mertool.train.loop import TrainConfig
from mertool.train.settle import RunConfig, parse_seeds


@dataclass(frozen=True)
class EvaluateConfig:
    """How a recipe's runs are scored.

    Attributes:
        split: Which clips.
        convention: Whose definitions the scores follow.
        scale: What a regression label's values mean: mosi, sims or other; empty = by its range.
        f1_support: What F1 is weighted by, true or pred; a statement that must hold of the
            convention, for a comparison that hangs on it.
        mask: Shares of lost steps, START:END:STEP, for scores "auilc:..."; empty = none.
        noise: What lost steps become: erase or gauss.
        unit: What is lost: steps or window.
    """

    split: str = "test"
    convention: str = "mertool"
    scale: str = ""
    f1_support: str = "true"
    mask: str = ""
    noise: str = "erase"
    unit: str = "steps"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("split", ("train", "valid", "test")),
            ("convention", CONVENTIONS),
            ("scale", ("", *SCALES)),
            ("f1_support", ("true", "pred")),
            ("noise", ("erase", "gauss")),
            ("unit", ("steps", "window")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(filter(None, allowed))}")


@dataclass(frozen=True)
class Settled:
    """Everything a run needs, checked.

    Attributes:
        run, evaluate: Their configs; `run.label` is empty.
        labels: Labels, each trained by itself.
        configs: {"fusion" | "train" | "data": config}.
    """

    run: RunConfig
    evaluate: EvaluateConfig
    labels: tuple[str, ...]
    configs: dict[str, Any]

    @property
    def settings(self) -> list[str]:
        """The configs as `mertool.train` takes them."""
        plain = {section: to_dict(config) for section, config in self.configs.items()}
        return texts(plain)


def texts(settings: Settings) -> list[str]:
    """Settings as "section.key=value"."""
    return [
        f"{section}.{key}={value if isinstance(value, str) else json.dumps(value)}"
        for section, values in settings.items()
        for key, value in values.items()
    ]


def settle(recipe: Recipe, *layers: Sequence[str]) -> Settled:
    """Settle every setting of a run.

    Args:
        recipe: The recipe.
        layers: "section.key=value" settings; a later layer wins over an earlier one, and all win
            over the recipe.

    Raises:
        UsageError: Anything unknown or wrong, all of it at once.
        PluginError: The fusion is broken.
    """
    base = {section: dict(values) for section, values in recipe.settings.items()}
    special = {"label": base["run"].pop("label"), "seeds": base["run"].pop("seeds", 5)}
    plugin, kept = recipe.plugin, []
    for setting in (s for layer in layers for s in layer):
        name, equals, value = (part.strip() for part in setting.partition("="))
        if equals and name in ("run.label", "run.seeds"):
            special[name.removeprefix("run.")] = value
            continue
        if equals and name == "run.plugin":
            plugin = value
        if name == "run.features":
            raise UsageError(
                "The feature file is no setting of a recipe.", setting, f"Give data={value}"
            )
        kept.append(setting)
    fusion = registry().load("fusion", plugin)
    sections = {
        "run": RunConfig,
        "fusion": settings_of(fusion, f'the fusion "{plugin}"'),
        "train": TrainConfig,
        "data": DataConfig,
        "evaluate": EvaluateConfig,
    }
    seeds = parse_seeds(_plain(special["seeds"]))
    try:
        configs = resolve(sections, [*kept, f"run.seeds={json.dumps(seeds)}"], base)
    except UsageError as error:
        raise UsageError(
            error.what,
            error.where,
            f"Settings are written section.key=value; see: mertool recipe show {recipe.name}",
        ) from None
    run, evaluate = configs.pop("run"), configs.pop("evaluate")
    if run.folds and run.splits != "default":
        raise UsageError(
            "One split or a cross-validation?", f"splits {run.splits}, folds {run.folds}",
            "Give run.folds=0 with run.splits=NAME.",
        )  # fmt: skip
    return Settled(run, evaluate, tuple(_labels(special["label"])), configs)


def _plain(seeds: Any) -> Any:
    """Seeds of TOML (5 or a list) or of the command line ("5", "1111,1112", "[1111, 1112]")."""
    if isinstance(seeds, list):
        return [*seeds]
    return str(seeds).strip("[] ").replace(" ", "")


def _labels(value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.strip("[] ").replace('"', "").split(",")
    return [name.strip() for name in value if name.strip()]
