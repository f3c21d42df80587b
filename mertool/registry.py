"""Plugins: found through entry points, loaded one by one, their targets imported when used."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from dataclasses import dataclass, field
from typing import Any

import pluggy

from mertool import hookspecs
from mertool.errors import PluginError, UsageError, did_you_mean, one_line

GROUP = "mertool"
HOOKS = {
    "extractor": "register_extractors",
    "aligner": "register_aligners",
    "reader": "register_readers",
    "fusion": "register_fusions",
    "recipe": "register_recipes",
}


@dataclass(frozen=True)
class Entry:
    """One registered thing.

    Attributes:
        kind: A key of `HOOKS`.
        name: The name users type.
        target: "module:Class" or "package:folder".
        owner: "distribution version (entry point)" that registered it.
        facts: What the plugin says about it.
    """

    kind: str
    name: str
    target: str
    owner: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    owner: str
    error: str


class Registry:
    """Everything the installed plugins offer.

    A plugin that fails, at import or in a hook, is noted in `broken` with nothing of it kept;
    the others are not affected.

    Attributes:
        entries: {(kind, name): entries}; more than one entry is a clash, refused when used.
        broken: Plugins that failed.
        skipped: Owners left out by MERTOOL_PLUGINS.
    """

    def __init__(self, points: list[importlib.metadata.EntryPoint] | None = None) -> None:
        self.entries: dict[tuple[str, str], list[Entry]] = {}
        self.broken: list[Broken] = []
        self.skipped: list[str] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        if points is None:
            points = list(importlib.metadata.entry_points(group=GROUP))
        allowed = _allowed()
        for point in sorted(points, key=lambda p: (not _first_party(p), p.name)):
            owner = _owner(point)
            if allowed is not None and not _first_party(point) and point.name not in allowed:
                self.skipped.append(owner)
            else:
                self._add(point, owner)

    def _add(self, point: importlib.metadata.EntryPoint, owner: str) -> None:
        found: list[Entry] = []
        try:
            plugin = point.load()
            self._manager.register(plugin, name=owner)
            # An unknown hook name is a typo or a plugin for another version: say so.
            for caller in self._manager.get_hookcallers(plugin) or []:
                if caller.name not in HOOKS.values():
                    raise PluginError(f"unknown hook {caller.name}")
            for kind, hook in HOOKS.items():
                for impl in getattr(self._manager.hook, hook).get_hookimpls():
                    if impl.plugin is plugin:
                        impl.function(register=_collector(kind, owner, found))
        except Exception as error:  # any failure of foreign code is that plugin's, not ours
            if self._manager.has_plugin(owner):
                self._manager.unregister(name=owner)
            self.broken.append(Broken(owner, one_line(error)))
            return
        for entry in found:
            self.entries.setdefault((entry.kind, entry.name), []).append(entry)

    def names(self, kind: str, **facts: Any) -> list[str]:
        """Names of one kind whose facts have the given values."""
        return sorted(
            name
            for (k, name), entries in self.entries.items()
            if k == kind and all(entries[0].facts.get(f) == v for f, v in facts.items())
        )

    def get(self, kind: str, name: str) -> Entry:
        """The entry of a name.

        Raises:
            UsageError: No plugin registers it.
            PluginError: Two plugins do; both are named.
        """
        entries = self.entries.get((kind, name))
        if not entries:
            broken = f"; {len(self.broken)} broken" if self.broken else ""
            raise UsageError(
                f'There is no {kind} named "{name}".',
                did_you_mean(name, self.names(kind)) + broken,
                "List what is installed: mertool plugins ls",
            )
        if len(entries) > 1:
            raise PluginError(
                f'Two plugins register the {kind} "{name}".',
                " and ".join(entry.owner for entry in entries),
                "Uninstall one, or leave it out of MERTOOL_PLUGINS (a comma list of entry points).",
            )
        return entries[0]

    def load(self, kind: str, name: str) -> Any:
        """Import the target of a name.

        Raises:
            UsageError, PluginError: As `get`; PluginError also where the import fails.
        """
        entry = self.get(kind, name)
        module, _, attribute = entry.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # foreign code
            raise PluginError(
                f'The {kind} "{name}" cannot be imported: {type(error).__name__}: {error}',
                f"{entry.target} of {entry.owner}",
                "Reinstall that package, or see the traceback with --debug.",
            ) from error


def _collector(kind: str, owner: str, found: list[Entry]) -> hookspecs.Register:
    def register(name: str, target: str, **facts: Any) -> None:
        module, colon, attribute = target.partition(":")
        if not (name and module and colon and attribute):
            raise PluginError(f'register("{name}", "{target}"): the target is "module:Class"')
        if any((e.kind, e.name) == (kind, name) for e in found):
            raise PluginError(f'the {kind} "{name}" is registered twice by the same plugin')
        found.append(Entry(kind, name, target, owner, facts))

    return register


def _owner(point: importlib.metadata.EntryPoint) -> str:
    dist = point.dist
    return f"{dist.name} {dist.version} ({point.name})" if dist else f"({point.name})"


def _first_party(point: importlib.metadata.EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "mertool"


def _allowed() -> set[str] | None:
    """Entry points that MERTOOL_PLUGINS lets in; None = all. Our own are always in."""
    value = os.environ.get("MERTOOL_PLUGINS")
    if value is None:
        return None
    return {name.strip() for name in value.split(",") if name.strip()}


@functools.cache
def registry() -> Registry:
    """The registry of this process."""
    return Registry()
