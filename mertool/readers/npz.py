"""Reading `.npz` archives of feature arrays, the form in which many feature sets are shared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mertool.readers import recordings
from mertool.readers.arrays import Part, check_lengths, note, parts_of, read_arrays, roles_of
from mertool.readers.padding import check_alignment, real_steps
from mertool.types import Clip, Rows


@dataclass(frozen=True)
class Config:
    """Settings of the npz reader.

    Attributes:
        alignment: none, word or segments:N; auto = word where all streams are sequences of equally
            many steps, else none.
        nonfinite: What to do with values that are not finite: refuse the file, or zero them.
    """

    alignment: str = "auto"
    nonfinite: str = "refuse"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|none|word|segments:[1-9]\d*", self.alignment):
            raise ValueError(f"alignment={self.alignment} is none of auto, none, word, segments:N")
        if self.nonfinite not in ("refuse", "zero"):
            raise ValueError(f"nonfinite={self.nonfinite} is neither refuse nor zero")


class Npz:
    """Arrays by split (`audio_train`, `audio_valid`, ...) or flat with N rows each.

    2-D and 3-D arrays of floats are streams, 1-D arrays ids, texts, splits or labels;
    docs/import.md has the rules. Nothing is unpickled.
    """

    Config = Config

    def __init__(self, config: Config) -> None:
        self.config = config
        self.alignment = "none"
        self._source: Path | None = None

    def clips(self, source: Path) -> Iterator[Clip]:
        """The clips in the order of the arrays; split by split where they are by split.

        Raises:
            DataError: No npz archive, or its arrays do not fit together.
        """
        if self._source != source:
            self._load(source)
            self._source = source
        place = 0
        for part, steps in zip(self._parts, self._steps, strict=True):
            for i in range(part.size):
                yield self._clip(part, steps, i, place)
                place += 1

    def splits(self, source: Path) -> dict[str, dict[str, str]]:
        """Every `split_NAME` array as the split NAME."""
        return {
            key.removeprefix("split_"): dict(
                zip(
                    self._ids,
                    [place for part in self._parts for place in _strings(part.arrays[key])],
                    strict=True,
                )
            )
            for key in self._roles["splits"]
        }

    def _load(self, source: Path) -> None:
        """Read the archive, say what each array is, and find the padding."""
        self._parts = parts_of(read_arrays(source), str(source))
        self._roles = roles_of(self._parts, str(source))
        for part in self._parts:
            check_lengths(part, source)
        self._ids = [i for part in self._parts for i in self._name(part)]
        self._recordings = recordings(self._ids)
        if any(self._recordings) and not self._roles["path"] and not self._roles["dialogue"]:
            count = len(set(self._recordings))
            note(f"ids are read as RECORDING_NUMBER: {count} recordings, kept as the clips' path")
        names = self._roles["streams"]
        renamed = {"video": "vision"} if "vision" not in names else {}
        self._streams = {name: renamed.get(name, name) for name in names}
        for part in self._parts:
            for name in names:
                if name not in part.arrays:
                    note(f"{self._streams[name]}: no array for the {part.split} clips, no rows")
                else:
                    part.arrays[name] = self._floats(name, part.arrays[name])
        shapes = [
            {s: p.arrays[n].shape for n, s in self._streams.items() if n in p.arrays}
            for p in self._parts
        ]
        self.alignment = check_alignment(self.config.alignment, shapes, str(source))
        sequences = [
            {s: p.arrays[n] for n, s in self._streams.items() if _is_sequence(p, n)}
            for p in self._parts
        ]
        self._steps, notes = real_steps(sequences, self.alignment)
        for message in notes:
            note(message)

    def _floats(self, name: str, array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and told so
            array = array.astype(np.float32, copy=False)
        if self.config.nonfinite == "zero":
            count = array.size - np.count_nonzero(np.isfinite(array))
            if count:
                note(f"{self._streams[name]}: {count} values that are not finite are set to zero")
                array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
        return array

    def _name(self, part: Part) -> list[str]:
        """(size,) ids of the clips of one part."""
        roles, arrays = self._roles, part.arrays
        if roles["id"]:
            return _strings(arrays[roles["id"][0]])
        if roles["dialogue"] and roles["utterance"]:
            pairs = zip(
                _strings(arrays["dialogue_id"]), _strings(arrays["utterance_id"]), strict=True
            )
            return [f"dia{d}_utt{u}" for d, u in pairs]
        digits = max(4, len(str(part.size - 1)))
        return [f"{part.split or 'clip'}-{i:0{digits}d}" for i in range(part.size)]

    def _clip(self, part: Part, steps: dict[str, np.ndarray], i: int, place: int) -> Clip:
        def text(role: str) -> str:
            return _string(part.arrays[self._roles[role][0]][i]) if self._roles[role] else ""

        path = text("path") or self._recordings[place]
        if self._roles["dialogue"]:
            path = f"dia{text('dialogue')}"
        split = part.split
        if not split and self._roles["default"]:
            split = text("default")
        streams = {}
        for name, stream in self._streams.items():
            if name in part.arrays:
                values = part.arrays[name][i]
                values = values[slice(*steps[stream][i])] if values.ndim == 2 else values[None]
                streams[stream] = Rows(values, np.zeros((len(values), 2)))
        return Clip(
            id=self._ids[place],
            path=path,
            text=text("text"),
            speaker=text("speaker"),
            split=split,
            labels={
                label: _value(part.arrays[key][i])
                for label, key in self._roles["labels"].items()
                if key in part.arrays
            },
            streams=streams or None,
        )


def _is_sequence(part: Part, name: str) -> bool:
    return name in part.arrays and part.arrays[name].ndim == 3


def _string(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _strings(array: np.ndarray) -> list[str]:
    return [_string(value) for value in array.tolist()]


def _value(value: np.generic) -> float | str:
    """A label: floats are numbers, whole numbers and texts are names of classes."""
    return float(value) if value.dtype.kind == "f" else _string(value.item())
