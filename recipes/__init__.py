"""Recipes: one folder is one whole reproduction of a published result."""

from __future__ import annotations

from pathlib import Path

from mertool.hookspecs import Register, hookimpl


@hookimpl
def register_recipes(register: Register) -> None:
    """Register every folder with a recipe.toml; its first line says what it is."""
    for path in sorted(Path(__file__).parent.glob("*/recipe.toml")):
        with path.open(encoding="utf-8") as file:  # every command comes here: no TOML is parsed
            summary = file.readline().strip("# \n")
        register(path.parent.name, f"{__name__}:{path.parent.name}", summary=summary)
