"""The five hooks a plugin can implement.

Each is handed `register(name, target, **facts)`; `target` is "module:Class" (for recipes
"package:folder") and is imported only when used. docs/plugins.md documents every fact.
"""

from __future__ import annotations

from collections.abc import Callable

import pluggy

hookspec = pluggy.HookspecMarker("mertool")
hookimpl = pluggy.HookimplMarker("mertool")

Register = Callable[..., None]


@hookspec
def register_extractors(register: Register) -> None:
    """Feature extractors. Facts: modality ("text", "audio", "vision"), summary."""


@hookspec
def register_aligners(register: Register) -> None:
    """Forced aligners, transcript to timed words. Facts: summary."""


@hookspec
def register_readers(register: Register) -> None:
    """Readers of corpora and feature files of other projects. Facts: summary."""


@hookspec
def register_fusions(register: Register) -> None:
    """Fusion models. Facts: summary, paper, task_loss, fixed_length."""


@hookspec
def register_recipes(register: Register) -> None:
    """Recipes, each a folder with a recipe.toml. Facts: summary."""
