"""Reading a feature file lazily."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mertool.errors import DataError, did_you_mean
from mertool.store.layout import CLIP_TEXT, FORMAT, VERSION, Stream, is_missing
from mertool.types import Clip, Label, Rows, Word


class FeatureFile:
    """A feature file, opened lazily: only what is asked for is read.

    >>> with mertool.open("feats.h5") as f:          # doctest: +SKIP
    ...     clip = f["clip_1"]
    ...     clip.streams["audio"].values.shape       # (T, D)

    Args:
        path: The file.

    Raises:
        DataError: Missing, not a mertool file, or written by a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except FileNotFoundError as error:
            raise DataError(
                "There is no such feature file.",
                str(path),
                "Make one: mertool extract VIDEOS -o feats.h5",
            ) from error
        except OSError as error:
            raise DataError(
                "The file cannot be opened as HDF5.", str(path), "Is it a mertool feature file?"
            ) from error
        try:
            self._read_head()
        except BaseException as error:
            self._file.close()
            if isinstance(error, KeyError | TypeError | ValueError | AttributeError | OSError):
                raise DataError(
                    "The feature file is incomplete or not as it should be.",
                    f"{path}: {error}",
                    "Make it again; docs/feature-file.md has the layout.",
                ) from error
            raise

    def _read_head(self) -> None:
        """Read all that is small: attributes, ids, what the streams and labels are."""
        attrs = dict(self._file.attrs)
        if attrs.get("format") != FORMAT or "clips/id" not in self._file:
            raise DataError(
                "The file is HDF5 but no mertool feature file.",
                str(self.path),
                "Make one: mertool extract VIDEOS -o feats.h5",
            )
        if attrs["version"] > VERSION:
            raise DataError(
                f"The file has version {attrs['version']}; this mertool reads up to {VERSION}.",
                str(self.path),
                "Upgrade: pip install -U mertool",
            )
        self.attrs: dict[str, Any] = attrs
        self.alignment: str = str(attrs["alignment"])
        self.ids: list[str] = self._strings("clips/id")
        self._index = {name: i for i, name in enumerate(self.ids)}
        self.streams: dict[str, Stream] = {
            name: Stream(
                tuple(group["columns"].asstr()[:]), dict(group.attrs), text="word" in group
            )
            for name, group in self._file["streams"].items()
        }
        self._offsets = {n: self._file[f"streams/{n}/offsets"][:] for n in self.streams}
        self.labels: dict[str, Label] = {
            name: Label(
                name,
                str(data.attrs["task"]),
                tuple(str(c) for c in data.attrs["classes"]),
                tuple(float(v) for v in data.attrs["range"]),
            )
            for name, data in self._file["clips/labels"].items()
        }

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Clip]:
        return (self.clip(i) for i in range(len(self)))

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._index

    def __getitem__(self, clip_id: str) -> Clip:
        if clip_id not in self._index:
            raise DataError(
                f'There is no clip "{clip_id}".', str(self.path), did_you_mean(clip_id, self.ids)
            )
        return self.clip(self._index[clip_id])

    def _strings(self, name: str) -> list[str]:
        return list(self._file[name].asstr()[:]) if len(self._file[name]) else []

    def lengths(self, stream: str) -> np.ndarray:
        """(N,) number of rows of each clip."""
        return np.diff(self._offsets[stream])

    def rows(self, index: int, stream: str) -> Rows:
        """The rows of one stream of the clip at `index`."""
        low, high = self._offsets[stream][index : index + 2]
        group = self._file[f"streams/{stream}"]
        text = "word" in group
        return Rows(
            group["values"][low:high],
            group["times"][low:high],
            group["word"][low:high] if text else None,
            group["span"][low:high] if text else None,
        )

    def values_of(self, index: int, stream: str, limit: int) -> np.ndarray:
        """(T, D) the first `limit` rows of a clip, without their times."""
        low, high = self._offsets[stream][index : index + 2]
        return self._file[f"streams/{stream}/values"][low : min(high, low + limit)]

    def words(self, index: int) -> list[Word]:
        """The words of the clip at `index`."""
        group = self._file["words"]
        low, high = group["offsets"][index : index + 2]
        if low == high:
            return []
        texts, times = group["word"].asstr()[low:high], group["times"][low:high]
        scores = group["score"][low:high]
        return [
            Word(str(t), float(a), float(b), float(s))
            for t, (a, b), s in zip(texts, times, scores, strict=True)
        ]

    def clip(self, index: int, rows: bool = True) -> Clip:
        """The clip at `index` with its streams; without them where `rows` is False."""
        clips = self._file["clips"]
        values = {key: clips[key].asstr()[index] for key in CLIP_TEXT}
        end = float(clips["end"][index])
        labels = {}
        for name, label in self.labels.items():
            value = clips["labels"][name][index]
            if not is_missing(label, value):
                labels[name] = value.tolist()
        return Clip(
            **values,
            start=float(clips["start"][index]),
            end=None if np.isnan(end) else end,
            words=self.words(index),
            labels=labels,
            streams={name: self.rows(index, name) for name in self.streams} if rows else None,
        )

    def label(self, name: str) -> np.ndarray:
        """(N,) or (N, K) values of a label; NaN or -1 where missing."""
        return self._file["clips/labels"][name][:]

    def column(self, name: str) -> list[str]:
        """(N,) of a text column of /clips: id, path, source, split, speaker, text, language."""
        return self._strings(f"clips/{name}")

    def spans(self) -> np.ndarray:
        """(N, 2) start and end of each clip in its medium, seconds; NaN = to the medium's end."""
        clips = self._file["clips"]
        return np.stack([clips["start"][:], clips["end"][:]], axis=1)

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self._file["splits"])

    def split(self, name: str = "default") -> list[str]:
        """(N,) "train", "valid", "test" or "" of each clip.

        Raises:
            DataError: No split of that name.
        """
        if name not in self.splits:
            raise DataError(
                f'There is no split "{name}".', str(self.path), did_you_mean(name, self.splits)
            )
        return self._strings(f"splits/{name}")

    def split_attrs(self, name: str) -> dict[str, Any]:
        """How a split was made: by, seed, protocol, protocol_sha256, sha256, where known."""
        return dict(self._file[f"splits/{name}"].attrs)

    def values(self, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """All rows of a stream: values (sum T, D) float32 and offsets (N + 1,) int64."""
        return self._file[f"streams/{stream}/values"][:], self._offsets[stream]

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """(id, stage, error) of each clip that could not be processed."""
        keys = ("id", "stage", "error")
        return list(zip(*(self._strings(f"failures/{k}") for k in keys), strict=True))

    def to_numpy(self) -> dict[str, Any]:
        """The whole file as padded arrays.

        Returns:
            {"id", "split", "speaker", "transcript": (N,) str, "labels": {name: array},
            "streams": {name: (N, T, D) float32, zero right-padded},
            "mask": {name: (N, T) bool, True = a real row}}.
        """
        streams, mask = {}, {}
        for name in self.streams:
            values, offsets = self.values(name)
            lengths = np.diff(offsets)
            real = np.arange(lengths.max(initial=0)) < lengths[:, None]
            padded = np.zeros((*real.shape, values.shape[1]), np.float32)
            padded[real] = values
            streams[name], mask[name] = padded, real
        return {
            "id": np.array(self.ids),
            "split": np.array(self.split()),
            "speaker": np.array(self.column("speaker")),
            "transcript": np.array(self.column("text")),
            "labels": {name: self.label(name) for name in self.labels},
            "streams": streams,
            "mask": mask,
        }

    def info(self) -> dict[str, Any]:
        """What is in the file, as plain values (`mertool data info`)."""
        streams = {}
        for name, stream in self.streams.items():
            lengths = self.lengths(name)
            streams[name] = {
                "extractor": str(stream.attrs.get("extractor", "")),
                "columns": len(stream.columns),
                "rows": int(lengths.sum()),
                "median_rows": float(np.median(lengths)) if len(lengths) else 0.0,
                "longest": int(lengths.max(initial=0)),
                "empty_clips": int((lengths == 0).sum()),
            }
        labels = {}
        for name, label in self.labels.items():
            missing = is_missing(label, self.label(name))
            labels[name] = {
                "task": label.task,
                "classes": list(label.classes),
                "range": list(label.range),
                "missing": int(np.sum(missing)),
            }
        splits = self.split()
        return {
            "file": str(self.path),
            "clips": len(self),
            "failures": [
                dict(zip(("id", "stage", "error"), f, strict=True)) for f in self.failures
            ],
            "alignment": self.alignment,
            "splits": {s or "(none)": splits.count(s) for s in sorted(set(splits))},
            "speakers": len(set(self.column("speaker")) - {""}),
            "streams": streams,
            "labels": labels,
            "created": str(self.attrs["created"]),
            "mertool": str(self.attrs["mertool"]),
            "command": str(self.attrs["command"]),
            "dataset": str(self.attrs["dataset"]),
        }
