"""Checks that every kind of plugin has: how it registers, and its settings."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mertool.config import resolve, settings_of, to_dict, to_toml
from mertool.errors import MertoolError, PluginError, UsageError, one_line
from mertool.registry import Entry, registry
from mertool.testing.results import FAILED, NOT_RUN, Check, Failed, Result, need, run_checks

# Every command imports every registering module: these would make each of them slow.
HEAVY = ("torch", "transformers", "tensorflow", "av", "mediapipe", "sklearn", "matplotlib")

_REGISTER = """
import importlib.metadata, sys
from mertool.registry import GROUP, Registry, _owner
kind, name, owner, *heavy = sys.argv[1:]
points = [p for p in importlib.metadata.entry_points(group=GROUP) if _owner(p) == owner]
Registry(points).get(kind, name)
print(*[module for module in heavy if module in sys.modules])
"""


@dataclass
class Plugin:
    """A plugin under test.

    Attributes:
        entry: What is registered.
        section: Section of its settings: fusion, text, audio, vision, align or reader.
        cls: Its class.
        config: The settings that the checks use.
    """

    entry: Entry
    section: str
    cls: Any
    config: Any


def find(kind: str, name: str, section: str, settings: Sequence[str]) -> Plugin:
    """The plugin with its settings.

    Raises:
        UsageError: There is none, or a setting is wrong.
        PluginError: It is registered twice, cannot be imported, or its Config is none.
    """
    entry = registry().get(kind, name)
    cls = registry().load(kind, name)
    config = resolve({section: settings_of(cls, f'the {kind} "{name}"')}, settings)[section]
    return Plugin(entry, section, cls, config)


def check_all(
    kind: str,
    name: str,
    section: str,
    settings: Sequence[str],
    checks: dict[str, Check],
    subject: Any = Plugin,
) -> list[Result]:
    """Run all checks of one plugin; `subject` makes of its `Plugin` what they are handed."""
    try:
        plugin = find(kind, name, section, settings)
    except PluginError as error:
        if len(registry().entries.get((kind, name), ())) != 1:
            raise  # a clash: which of the two would be checked?
        reason = "the plugin cannot be loaded"
        return [
            Result(check, *((FAILED, one_line(error)) if i == 0 else (NOT_RUN, reason)))
            for i, check in enumerate(checks)
        ]
    made = plugin if subject is Plugin else subject(plugin)
    return run_checks(checks, made, plugin.entry.facts)


def check_import(plugin: Any) -> None:
    """Registering imports neither torch nor another heavy package."""
    entry = plugin.entry
    done = subprocess.run(
        [sys.executable, "-c", _REGISTER, entry.kind, entry.name, entry.owner, *HEAVY],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or [""]
    need(not done.returncode, f"it does not register in a fresh process: {lines[-1]}")
    need(not lines[-1], f"the registering module imports {lines[-1].replace(' ', ', ')}")


def check_config(plugin: Any) -> None:
    """Settings survive TOML and JSON; an unknown one is refused."""
    config, section = plugin.config, plugin.section
    sections = {section: type(config)}
    need(type(config).__dataclass_params__.frozen, "its Config is not frozen")
    plain = to_dict(config)
    for text, read in (
        (to_toml({section: plain}), tomllib.loads),
        (json.dumps({section: plain}), json.loads),
    ):
        try:
            again = resolve(sections, base=read(text))[section]
        except MertoolError as error:
            raise Failed(f"its settings cannot be read back: {one_line(error)}") from error
        need(again == config, f"its settings are others after writing and reading: {again}")
    need("no_such_setting" not in plain, "it has a setting called no_such_setting")
    try:
        resolve(sections, [f"{section}.no_such_setting=1"])
    except UsageError:
        pass
    else:
        raise Failed("an unknown setting is not refused")
    need(
        dataclasses.replace(config) == config,
        "its settings are others after dataclasses.replace",
    )
