"""Conformance checks: whether a plugin keeps the contract of docs/plugin-reference.md.

In a test of your package: `assert not failed(check_fusion("name"))`; on the command line:
`mertool plugins check name`. Each check is one function, in the module of its kind.
"""

from __future__ import annotations

import importlib
from typing import Any

# Imported when used: only the fusions' checks need torch.
_WHERE = {
    "Result": "results",
    "check_aligner": "aligner",
    "check_extractor": "extractor",
    "check_fusion": "fusion",
    "check_reader": "reader",
    "check_recipe": "recipe",
    "failed": "results",
}
__all__ = list(_WHERE)  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"mertool.testing.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'mertool.testing' has no attribute {name!r}")
