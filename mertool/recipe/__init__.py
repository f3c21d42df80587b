"""Recipes: `mertool.recipe.run(name, data)` reproduces one published result from a feature file.

read.py finds a recipe, parse.py reads its file into the classes of parts.py, settle.py joins it
with what the user changes, match.py compares a feature file with the shapes a recipe knows,
labels.py makes classes of a regression label, generated.py writes the file of a smoke run,
running.py trains and scores, table.py puts the paper's scores beside ours.
"""

from __future__ import annotations

import importlib
from typing import Any

# Imported when used: only running needs torch.
_WHERE = {
    "Recipe": "parts",
    "Report": "running",
    "find": "read",
    "names": "read",
    "run": "running",
}
__all__ = list(_WHERE)  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"mertool.recipe.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'mertool.recipe' has no attribute {name!r}")
