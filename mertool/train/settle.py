"""What is trained on what: arguments, a config file and settings become one set of configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mertool.config import resolve, settings_of
from mertool.data import DataConfig
from mertool.errors import UsageError
from mertool.registry import Entry, registry
from mertool.train.loop import TrainConfig

SEEDS = (1111, 1112, 1113, 1114, 1115)


@dataclass(frozen=True)
class RunConfig:
    """What is trained on what.

    Attributes:
        plugin: The fusion.
        features: The feature file.
        label: Label to predict; empty = the only one.
        modalities: Streams to use; empty = all that are not empty.
        seeds: One model is trained for each.
        splits: Name of the split in the file.
        folds: Number of folds of a cross-validation; 0 = none, one split.
        singles: Whether the fusion is also trained on each stream alone, for comparison.
    """

    plugin: str = ""
    features: str = ""
    label: str = ""
    modalities: tuple[str, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    splits: str = "default"
    folds: int = 0
    singles: bool = True


def parse_seeds(text: str | int | Sequence[int]) -> list[int]:
    """Seeds from "3" (the first three of 1111, 1112, ...) or "1111,1115".

    Raises:
        UsageError: It is neither.
    """
    if isinstance(text, Sequence) and not isinstance(text, str):
        return list(text)
    parts = [p.strip() for p in str(text).split(",")]
    if not all(p.isdigit() for p in parts) or (len(parts) == 1 and int(parts[0]) < 1):
        raise UsageError(
            f'"{text}" is no number of seeds.', "--seeds", "Write 5, or a list: 1111,1112"
        )
    if len(parts) == 1 and int(parts[0]) < SEEDS[0]:
        return [SEEDS[0] + i for i in range(int(parts[0]))]
    return list(dict.fromkeys(int(p) for p in parts))


def settle(
    base: dict[str, Any], arguments: dict[str, Any], settings: Sequence[str]
) -> tuple[Entry, Any, dict[str, Any]]:
    """Find the fusion and settle every setting; arguments win over the config file.

    Args:
        base: The config file's sections.
        arguments: Values for its section "run"; None = not given.
        settings: "section.key=value" strings.

    Returns:
        The fusion's entry, its class, and the config object of each section.

    Raises:
        UsageError: No plugin or features, or anything unknown or wrong, all of it at once.
        PluginError: The fusion is broken.
    """
    given = {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in arguments.items()
        if v or isinstance(v, bool)
    }
    chosen = given
    if isinstance(base.get("run", {}), dict):  # anything else is refused below
        chosen = {**base.get("run", {}), **given}
        base = {**base, "run": chosen}
    for needed, hint in (("plugin", "--plugin NAME"), ("features", "mertool train FILE.h5")):
        if not chosen.get(needed):
            raise UsageError(f"Training needs {needed}.", "", f"Give {hint}.")
    if chosen.get("folds") and chosen.get("splits", "default") != "default":
        raise UsageError(
            "One split or a cross-validation?",
            f"splits {chosen['splits']}, folds {chosen['folds']}",
            "Give --splits NAME or --folds K, not both.",
        )
    entry = registry().get("fusion", str(chosen["plugin"]))
    fusion = registry().load("fusion", entry.name)
    sections = {
        "run": RunConfig,
        "fusion": settings_of(fusion, f'the fusion "{entry.name}"'),
        "train": TrainConfig,
        "data": DataConfig,
    }
    return entry, fusion, resolve(sections, settings, base)
