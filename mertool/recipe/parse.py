"""Turns the sections of a recipe.toml into a Recipe, and lists all that is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mertool.errors import DataError, did_you_mean
from mertool.recipe.parts import NAME, SETTINGS, Ablation, Expected, Recipe, Settings, Shape, Target
from mertool.types import SPLITS, TASKS, Label

SECTIONS = ("recipe", *SETTINGS, "labels", "shapes", "expected", "ablations", "smoke")
_ALIGNMENT = re.compile(r"none|word|segments:[1-9]\d*")
_NEEDED = ("title", "paper", "dataset", "summary")


class Parser:
    """Reads the sections of one file.

    Args:
        name: The recipe's.
        path: Its file.
        sections: What TOML makes of it.
    """

    def __init__(self, name: str, path: Path, sections: dict[str, Any]) -> None:
        self.name, self.path, self.sections = name, path, sections
        self.errors: list[str] = []

    def recipe(self) -> Recipe:
        """The whole recipe.

        Raises:
            DataError: With all that is wrong.
        """
        for section in self.sections:
            if section not in SECTIONS:
                self.errors.append(
                    f"[{section}]: no such section. {did_you_mean(section, SECTIONS)}"
                )
        about = self.table("recipe")
        reference = self.many("[recipe] ablated", about.pop("ablated", []))
        counts = self.many("[recipe] clips", about.pop("clips", []), int)
        if counts and len(counts) != len(SPLITS):
            self.errors.append("[recipe] clips: of train, valid and test")
        self.keys("recipe", about, (*_NEEDED, "ablated", "clips"))
        for key in _NEEDED:
            if not (isinstance(about.get(key), str) and about[key].strip()):
                self.errors.append(f"[recipe] {key}: must be a text")
        settings = {name: self.table(name) for name in SETTINGS}
        if not settings["run"].get("plugin"):
            self.errors.append("[run] plugin: a recipe names its fusion")
        if settings["run"].pop("features", None) is not None:
            self.errors.append("[run] features: a recipe names no file, data=FILE.h5 does")
        self.many("[run] modalities", settings["run"].get("modalities", []))
        smoke = self.table("smoke")
        clips = smoke.pop("clips", 16)
        if type(clips) is not int or clips < 1:
            self.errors.append("[smoke] clips: must be a number of clips")
        made = Recipe(
            self.name, self.path, about, settings, self.targets(settings["run"]),
            tuple(self.shape(n, v) for n, v in self.named("shapes")),
            tuple(self.expectation(n, v) for n, v in self.named("expected")),
            reference,
            tuple(self.ablation(n, v) for n, v in self.named("ablations")),
            self.changes("[smoke]", smoke), clips, dict(zip(SPLITS, counts, strict=False)),
        )  # fmt: skip
        known = {e.name for e in made.expected}
        for name in made.reference:
            if name not in known:
                self.errors.append(f"[recipe] ablated: {did_you_mean(name, known)}")
        if self.errors:
            raise DataError(
                "The recipe is not as it should be.",
                "\n  ".join([str(self.path), *self.errors]),
                "docs/recipes.md explains the file.",
            )
        return made

    def table(self, name: str) -> dict[str, Any]:
        """A section; empty where there is none."""
        section = self.sections.get(name, {})
        if isinstance(section, dict):
            return dict(section)
        self.errors.append(f"{name}: must be a section")
        return {}

    def named(self, section: str) -> list[tuple[str, dict[str, Any]]]:
        """The parts [section.NAME] of a section."""
        found = []
        for name, part in self.table(section).items():
            if not isinstance(part, dict):
                self.errors.append(f"[{section}] {name}: must be a part [{section}.NAME]")
            elif not NAME.fullmatch(name):
                self.errors.append(f"[{section}.{name}]: a name has letters, digits, _ and -")
            else:
                found.append((name, dict(part)))
        return found

    def keys(self, where: str, part: Mapping[str, Any], known: tuple[str, ...]) -> None:
        """Note the keys that are not known."""
        self.errors += [
            f"[{where}] {key}: no such key. {did_you_mean(key, known)}"
            for key in part
            if key not in known
        ]

    def targets(self, run: dict[str, Any]) -> tuple[Target, ...]:
        """The labels that `run` names, from [labels.NAME]; its label becomes a list."""
        known = dict(self.named("labels"))
        chosen = run.get("label", "")
        chosen = [chosen] if isinstance(chosen, str) else list(self.many("[run] label", chosen))
        run["label"] = chosen
        found = []
        for name in chosen:
            if name not in known:
                self.errors.append(f"[run] label: there is no [labels.{name}]")
                continue
            part = known[name]
            self.keys(f"labels.{name}", part, ("task", "classes", "range", "from", "edges"))
            where, numbers = f"[labels.{name}]", (int, float)
            classes = self.many(f"{where} classes", part.get("classes", []))
            edges = self.many(f"{where} edges", part.get("edges", []), numbers)
            span = self.many(f"{where} range", part.get("range", [0.0, 0.0]), numbers)
            task = part.get("task")
            if task not in TASKS:
                self.errors.append(f"{where} task: one of {', '.join(TASKS)}")
            elif (task == "regression") == bool(classes):
                self.errors.append(f"{where} classes: for classes alone, and then needed")
            elif task == "regression" and not (len(span) == 2 and span[0] < span[1]):
                self.errors.append(f"{where} range: [lowest, highest]")
            if part.get("from") and len(edges) != len(classes) - 1:
                self.errors.append(f"{where} edges: one fewer than classes")
            label = Label(name, str(task), classes, span)
            found.append(Target(label, str(part.get("from", "")), edges))
        return tuple(found)

    def shape(self, name: str, part: dict[str, Any]) -> Shape:
        """[shapes.NAME]."""
        alignment = part.pop("alignment", "none")
        if not (isinstance(alignment, str) and _ALIGNMENT.fullmatch(alignment)):
            self.errors.append(f"[shapes.{name}] alignment: none, word or segments:N")
        streams = {}
        for stream, size in part.items():
            if not (
                isinstance(size, list)
                and len(size) == 2
                and all(type(v) is int and v > 0 for v in size)
            ):
                self.errors.append(f"[shapes.{name}] {stream}: [width, steps]")
            else:
                streams[stream] = (size[0], size[1])
        if not streams:
            self.errors.append(f"[shapes.{name}]: no stream")
        elif alignment != "none" and len({T for _, T in streams.values()}) > 1:
            self.errors.append(f"[shapes.{name}]: aligned streams have equal steps")
        return Shape(name, streams, str(alignment))

    def expectation(self, name: str, part: dict[str, Any]) -> Expected:
        """[expected.NAME]."""
        source, when = part.pop("source", ""), part.pop("when", {})
        where = f"[expected.{name}]"
        if not isinstance(when, dict):
            self.errors.append(f"{where} when: written {{ alignment = ..., STREAM = width }}")
            when = {}
        return Expected(
            name, self.text(where, "source", source), dict(when), self.numbers(where, part)
        )

    def ablation(self, name: str, part: dict[str, Any]) -> Ablation:
        """[ablations.NAME]."""
        where = f"[ablations.{name}]"
        row, source, values = (
            part.pop(k, d) for k, d in (("row", ""), ("source", ""), ("paper", {}))
        )
        settings = self.changes(where, part)
        if not settings:
            self.errors.append(f"{where}: changes nothing")
        return Ablation(
            name, self.text(where, "row", row), self.text(where, "source", source), settings,
            self.numbers(f"{where} paper", values) if values else {},
        )  # fmt: skip

    def many(self, where: str, value: Any, kind: type | tuple[type, ...] = str) -> tuple[Any, ...]:
        """A list of values of one type."""
        if isinstance(value, list) and all(isinstance(v, kind) for v in value):
            return tuple(value)
        self.errors.append(f"{where}: must be a list")
        return ()

    def text(self, where: str, key: str, value: Any) -> str:
        """A text that is not empty."""
        if not (isinstance(value, str) and value.strip()):
            self.errors.append(f"{where} {key}: must be a text")
        return str(value)

    def numbers(self, where: str, values: Any) -> dict[str, float]:
        """Scores by name, at least one."""
        if not isinstance(values, dict) or not values:
            self.errors.append(f"{where}: no score")
            return {}
        for key, value in values.items():
            if type(value) not in (int, float):
                self.errors.append(f"{where} {key}: must be a number")
        return dict(values)

    def changes(self, where: str, part: dict[str, Any]) -> Settings:
        """Settings of other sections, written section.key = value."""
        found = {}
        for section, values in part.items():
            if section in SETTINGS and isinstance(values, dict):
                found[section] = dict(values)
            else:
                self.errors.append(f"{where} {section}: settings are written section.key = value")
        return found
