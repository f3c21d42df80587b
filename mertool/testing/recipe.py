"""Checks of recipes: a folder with a recipe.toml. No command runs recipes yet."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mertool.config import resolve, settings_of
from mertool.errors import UsageError, did_you_mean, one_line
from mertool.registry import Entry, registry
from mertool.testing.common import check_import
from mertool.testing.results import Failed, Result, need, run_checks

SECTIONS = (
    "recipe", "data", "extract", "align", "fusion", "train", "evaluate", "expected", "smoke"
)  # fmt: skip
STREAMS = ("text", "audio", "vision")


def check_recipe(name: str) -> list[Result]:
    """Run every check of a registered recipe.

    Args:
        name: Its registered name.

    Returns:
        One result per check; `failed` picks those that are wrong.

    Raises:
        UsageError: There is no such recipe.
        PluginError: Two plugins register the name.
    """
    entry = registry().get("recipe", name)
    return run_checks(CHECKS, Subject(entry), entry.facts)


class Subject:
    """A recipe.

    Attributes:
        entry: What is registered.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    @property
    def path(self) -> Path:
        """Its recipe.toml."""
        package, _, folder = self.entry.target.partition(":")
        return Path(list(importlib.import_module(package).__path__)[0]) / folder / "recipe.toml"

    @property
    def sections(self) -> dict[str, Any]:
        """What is in it."""
        return tomllib.loads(self.path.read_text(encoding="utf-8"))

    def section(self, name: str) -> dict[str, Any]:
        """A section; empty where there is none."""
        section = self.sections.get(name, {})
        need(isinstance(section, dict), f"{name} is no section")
        return section

    def chosen(self) -> Iterator[tuple[str, str]]:
        """(kind, name) of every plugin that it names."""
        for stream in STREAMS:
            name = self.section("extract").get(stream, "none")
            if name != "none":
                yield "extractor", name
        if "aligner" in self.section("align"):
            yield "aligner", self.section("align")["aligner"]
        yield "fusion", self.section("recipe").get("fusion", "")


def check_file(recipe: Subject) -> None:
    """Its recipe.toml is there, is TOML and has no unknown section."""
    need(recipe.path.is_file(), f"there is no {recipe.path.name} in {recipe.path.parent}")
    for name in recipe.sections:
        need(name in SECTIONS, f"[{name}]: {did_you_mean(name, SECTIONS)}")


def check_names(recipe: Subject) -> None:
    """Extractors, aligner and [recipe] fusion are registered."""
    for kind, name in recipe.chosen():
        try:
            registry().get(kind, str(name))
        except UsageError as error:
            raise Failed(one_line(error)) from error


def check_keys(recipe: Subject) -> None:
    """Every key of [fusion], [train] and [data] is a setting, and its value fits."""
    from mertool.data import DataConfig
    from mertool.train.loop import TrainConfig

    name = str(recipe.section("recipe").get("fusion", ""))
    fusion = settings_of(registry().load("fusion", name), f'the fusion "{name}"')
    known = {"fusion": fusion, "train": TrainConfig, "data": DataConfig}
    resolve(known, base={section: recipe.section(section) for section in known})


def check_expected(recipe: Subject) -> None:
    """[expected] gives scores and names their source: the paper and its table."""
    expected = recipe.section("expected")
    source = expected.get("source", "")
    need(isinstance(source, str) and source.strip(), "[expected] has no source")
    need(any(isinstance(v, int | float) for v in expected.values()), "[expected] has no score")


CHECKS = {
    "import": check_import,
    "file": check_file,
    "names": check_names,
    "keys": check_keys,
    "expected": check_expected,
}
