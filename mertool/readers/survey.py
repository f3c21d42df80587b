"""What a reader's clips are, learnt in a first pass: stream widths, label types, unique ids."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mertool.errors import DataError, PluginError
from mertool.types import Clip, Label, Rows

_SPLITS = {
    "": "", "train": "train", "valid": "valid", "val": "valid", "dev": "valid",
    "validation": "valid", "test": "test",
}  # fmt: skip
_TEXTS = ("path", "source", "text", "language", "speaker", "sha256")


def split_of(value: str, where: str) -> str:
    """The split that a name stands for: train, valid, test or "".

    Raises:
        DataError: None of them.
    """
    if str(value).lower() not in _SPLITS:
        raise DataError(
            f'There is no split "{value}".', where, "Write train, valid (or dev, val) or test."
        )
    return _SPLITS[str(value).lower()]


@dataclass
class _Seen:
    """The values of one label so far.

    Attributes:
        kinds: {"number", "name" or "list": the first clip with such a value}.
        names: Class names.
        low: Smallest number.
        high: Largest number.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    low: float = math.inf
    high: float = -math.inf


class Survey:
    """Learns from a first pass over the clips what a feature file needs to know beforehand.

    Args:
        what: The reader, for errors.
        source: What it reads, for errors.
        mendable: The reader has a setting for values that are not finite.

    Attributes:
        ids: {id: place in the source}.
        widths: {stream: D}.
        text: {stream: whether its rows name words and characters}.
        labels: {name: Label}, after `finish`.
        blank: Labels without any value.
    """

    def __init__(self, what: str, source: str, mendable: bool) -> None:
        self._what, self._source, self._mendable = what, source, mendable
        self.ids: dict[str, int] = {}
        self.widths: dict[str, int] = {}
        self.text: dict[str, bool] = {}
        self.labels: dict[str, Label] = {}
        self.blank: list[str] = []
        self._seen: dict[str, _Seen] = {}
        self._first: dict[str, str] = {}  # stream: the clip that set its width
        self._unfinite: list[tuple[str, str, int]] = []

    def _contract(self, problem: str, where: str) -> PluginError:
        return PluginError(f"{self._what} {problem}.", where, "Report this to the reader's author.")

    def add(self, clip: Clip) -> None:
        """Take note of one clip.

        Raises:
            DataError: Its id is taken, its rows are not as wide as those before, its split unknown.
            PluginError: It is no proper Clip.
        """
        place = len(self.ids)
        if not isinstance(clip, Clip) or not isinstance(clip.id, str) or not clip.id:
            raise self._contract("gave something that is no Clip with an id", f"clip {place}")
        if clip.id in self.ids:
            raise DataError(
                f'Two clips have the id "{clip.id}".',
                f"{self._source}: clips {self.ids[clip.id]} and {place} (counted from 0)",
                "Ids are unique: rename one.",
            )
        self.ids[clip.id] = place
        split_of(clip.split, f"{self._source}, clip {clip.id}")
        for word in clip.words or ():
            if not (math.isfinite(word.start) and word.start <= word.end < math.inf):
                raise self._contract(f'gave the word "{word.text}" no proper times', clip.id)
        for name, rows in (clip.streams or {}).items():
            self._add_rows(name, rows, clip.id)
        for name, value in clip.labels.items():
            _check_name(name, "label", self._source)
            self._add_label(name, value, clip.id)

    def _add_rows(self, name: str, rows: Rows, clip: str) -> None:
        where = f'stream "{name}" of clip "{clip}"'
        if not isinstance(rows, Rows) or np.ndim(rows.values) != 2:
            raise self._contract("gave no Rows with values (T, D)", where)
        if rows.values.dtype != np.float32 or np.shape(rows.times) != (len(rows), 2):
            raise self._contract("gave values that are not float32, or times not (T, 2)", where)
        width, text = rows.values.shape[1], rows.word is not None
        if name not in self.widths:
            _check_name(name, "stream", self._source)
            self.widths[name], self.text[name], self._first[name] = width, text, clip
        elif width != self.widths[name]:
            raise DataError(
                f"The rows have {width} columns; those of other clips have {self.widths[name]}.",
                f'{self._source}: {where}, clip "{self._first[name]}"',
                "All clips of a stream have the same columns.",
            )
        elif text != self.text[name]:
            raise self._contract("gave words for the rows of some clips only", where)
        if not np.isfinite(rows.values).all():
            self._unfinite.append((name, clip, int((~np.isfinite(rows.values)).sum())))

    def _add_label(self, name: str, value: Any, clip: str) -> None:
        seen = self._seen.setdefault(name, _Seen())
        value = _plain(value)
        if value is None:
            return
        if isinstance(value, float):
            kind = "number"
            seen.low, seen.high = min(seen.low, value), max(seen.high, value)
        else:
            kind = "name" if isinstance(value, str) else "list"
            names = [value] if kind == "name" else value
            if not all(isinstance(n, str) and n for n in names):
                raise self._contract(
                    f"gave the label {value!r}", f'label "{name}" of clip "{clip}"'
                )
            seen.names.update(names)
        seen.kinds.setdefault(kind, clip)
        if len(seen.kinds) > 1 and "number" in seen.kinds:
            raise DataError(
                f'The label "{name}" is a number in some clips and a name in others.',
                f"{self._source}: clips {' and '.join(seen.kinds.values())}",
                "A label is all numbers or all names: mend one of them.",
            )

    def finish(self) -> None:
        """Decide what each label is.

        Raises:
            DataError: There are no clips, or there were rows that are not finite.
        """
        if not self.ids:
            raise DataError(
                "No clips are found.", self._source, "Is the file of that format, and not empty?"
            )
        if self._unfinite:
            name, clip, count = self._unfinite[0]
            clips = len({c for _, c, _ in self._unfinite})
            raise DataError(
                f"{sum(n for *_, n in self._unfinite)} feature values in {clips} clips are not "
                "finite (NaN or infinite).",
                f'{self._source}: the first are {count} in stream "{name}" of clip "{clip}"',
                "Set them to zero with --set reader.nonfinite=zero, or mend the source."
                if self._mendable
                else "Mend the source.",
            )
        for name, seen in self._seen.items():
            if not seen.kinds:
                self.blank.append(name)
            elif "number" in seen.kinds:
                self.labels[name] = Label(name, "regression", (), (seen.low, seen.high))
            else:
                task = "multilabel" if "list" in seen.kinds else "classification"
                self.labels[name] = Label(name, task, tuple(_sorted(seen.names)))

    def plain(self, clip: Clip) -> Clip:
        """The clip as the store takes it: labels as numbers, splits by their names, no NUL."""
        labels = {}
        for name, label in self.labels.items():
            value = _plain(clip.labels.get(name))
            if value is None or label.task == "regression":
                if value is not None:
                    labels[name] = value
            elif label.task == "classification":
                labels[name] = label.classes.index(value)
            else:
                present = [value] if isinstance(value, str) else value
                labels[name] = [int(c in present) for c in label.classes]
        texts = {key: getattr(clip, key).replace("\0", "") for key in _TEXTS}
        words = clip.words and [replace(w, text=w.text.replace("\0", "")) for w in clip.words]
        return replace(
            clip, **texts, words=words, labels=labels, split=split_of(clip.split, clip.id)
        )


def _check_name(name: Any, what: str, source: str) -> None:
    if not isinstance(name, str) or not name or name == "." or "/" in name or "\0" in name:
        raise DataError(
            f"The name of a {what} cannot be used: {name!r}.",
            source,
            'Names are texts, not empty, and hold no "/".',
        )


def _plain(value: Any) -> float | str | list[Any] | None:
    """A label as a number, a name or a list of names; None where it is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple | np.ndarray):
        return list(value)
    return value or None


def _sorted(names: set[str]) -> list[str]:
    """Class names in order; by value where all are numbers, so that "10" comes after "9"."""
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
