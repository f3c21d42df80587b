"""What the feature file is made of: names, version, streams (docs/feature-file.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from mertool.types import Clip, Label

FORMAT, VERSION = "mertool", 1
TEXT = h5py.string_dtype("utf-8")
CLIP_TEXT = ("id", "path", "source", "split", "speaker", "text", "language", "sha256")


@dataclass(frozen=True)
class Stream:
    """What a stream's columns are and where they come from.

    Attributes:
        columns: (D,) names.
        attrs: extractor, version, model, revision, licence, config (JSON), rate (Hz), timed.
        text: Whether rows carry a word index and a character span.
    """

    columns: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    text: bool = False

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that hold its rows, in the order of `Rows`."""
        return ("values", "times", *(("word", "span") if self.text else ()))


def label_array(label: Label, clips: Sequence[Clip]) -> np.ndarray:
    """(N,) or (N, K) values of one label; NaN or -1 where missing."""
    values = [c.labels.get(label.name) for c in clips]
    if label.task == "regression":
        return np.array([np.nan if v is None else v for v in values], "f8")
    if label.task == "classification":
        return np.array([-1 if v is None else v for v in values], "i8")
    width = len(label.classes)
    rows = [[-1] * width if v is None else v for v in values]
    return np.array(rows, "i1").reshape(-1, width)


def is_missing(label: Label, values: Any) -> Any:
    """Where a label is missing: NaN (regression) or -1 (else). Scalar or (N,) bool."""
    values = np.asarray(values)
    if label.task == "regression":
        return np.isnan(values)
    if label.task == "classification":
        return values < 0
    return (values < 0).any(axis=-1)


def json_attr(value: Mapping[str, Any]) -> str:
    """A JSON attribute with a fixed key order, so that equal settings are equal strings."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
