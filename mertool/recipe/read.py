"""Finds recipes, by name or file, and reads them."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

from mertool.errors import DataError
from mertool.recipe.parse import Parser
from mertool.recipe.parts import NAME, Recipe
from mertool.registry import registry

FILE = "recipe.toml"


def names() -> list[str]:
    """Registered recipes."""
    return registry().names("recipe")


def place(name: str) -> Path:
    """The recipe.toml of a registered recipe, or of a file or folder that the user names.

    Raises:
        UsageError: There is no such recipe.
        DataError: Its folder is not inside its package, or there is no such file.
    """
    # A bare name is never a folder: a copy beside the user is not to hide the registered recipe.
    if name.endswith(".toml") or "/" in name:
        path = Path(name) if name.endswith(".toml") else Path(name) / FILE
    else:
        package, _, folder = registry().get("recipe", name).target.partition(":")
        if not NAME.fullmatch(folder):
            raise DataError(
                f'The recipe "{name}" is in no folder of its package.',
                f"{package}:{folder}",
                "Its plugin registers it wrongly: the target is package:folder.",
            )
        path = Path(list(importlib.import_module(package).__path__)[0]) / folder / FILE
    if not path.is_file():
        raise DataError(
            "There is no such recipe file.", str(path), "mertool recipe ls names the recipes."
        )
    return path


def find(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: A registered name, a recipe.toml, or its folder.

    Raises:
        UsageError: There is no such recipe.
        DataError: Its file is not as it should be; all that is wrong is listed.
    """
    path = place(name)
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            "The recipe is no valid TOML.", f"{path}: {error}", "Mend that line."
        ) from error
    return Parser(path.resolve().parent.name, path, sections).recipe()
