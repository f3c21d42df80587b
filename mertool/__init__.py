"""mertool: from raw videos of people speaking to emotion and sentiment scores.

`mertool.open` reads a feature file; `mertool.extract`, `.align`, `.train`, `.evaluate`,
`.compare` and `.predict` are the stages of the pipeline: each is a module and can be called like
a function.
Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

from mertool.errors import MertoolError, MertoolWarning
from mertool.hookspecs import hookimpl
from mertool.types import Batch, Clip, DataSpec, FusionOutput, Label, Rows, Word
from mertool.version import __version__

__all__ = [
    "Batch",
    "Clip",
    "DataSpec",
    "FusionOutput",
    "Label",
    "MertoolError",
    "MertoolWarning",
    "Rows",
    "Word",
    "__version__",
    "align",
    "compare",
    "evaluate",
    "extract",
    "hookimpl",
    "open",
    "predict",
    "train",
]

_STAGES = ("extract", "align", "train", "evaluate", "compare", "predict")


def open(path: Any) -> Any:  # noqa: A001  (mertool.open reads as gzip.open does)
    """Open a feature file; see `mertool.store.FeatureFile`."""
    from mertool.store import FeatureFile

    return FeatureFile(path)


def __getattr__(name: str) -> Any:
    if name in _STAGES:
        return importlib.import_module(f"mertool.{name}")
    raise AttributeError(f"module 'mertool' has no attribute {name!r}")
