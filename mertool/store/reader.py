"""Reading a feature file lazily."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mertool.errors import DataError, did_you_mean
from mertool.store.layout import CLIP_TEXT, FORMAT, VERSION, Stream, is_missing
from mertool.types import Clip, Label, Rows, Word

_BLOCK = 64  # clips whose ids, texts and words are read at once: HDF5 takes its time for each read


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
        self._rows = {
            name: [self._file[f"streams/{name}/{key}"] for key in stream.datasets]
            for name, stream in self.streams.items()
        }
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
        return self.clips()

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
        return Rows(*(data[low:high] for data in self._rows[stream]))

    def values_of(self, index: int, stream: str, limit: int) -> np.ndarray:
        """(T, D) the first `limit` rows of a clip, without their times."""
        low, high = self._offsets[stream][index : index + 2]
        return self._rows[stream][0][low : min(high, low + limit)]

    def words(self, index: int) -> list[Word]:
        """The words of the clip at `index`."""
        [words] = self._words(index, index + 1)
        return words

    def _words(self, start: int, stop: int) -> Iterator[list[Word]]:
        group = self._file["words"]
        offsets = group["offsets"][start : stop + 1]
        first, last = offsets[0], offsets[-1]
        if first == last:
            yield from ([] for _ in range(start, stop))
            return
        texts = group["word"].asstr()[first:last]
        times, scores = (group[key][first:last].tolist() for key in ("times", "score"))
        bounds = (offsets - first).tolist()
        for low, high in zip(bounds, bounds[1:], strict=False):
            yield [
                Word(str(text), *span, score)
                for text, span, score in zip(
                    texts[low:high], times[low:high], scores[low:high], strict=True
                )
            ]

    def clip(self, index: int, rows: bool = True) -> Clip:
        """The clip at `index` with its streams; without them where `rows` is False."""
        [clip] = self._clips(index, index + 1, rows)
        return clip

    def clips(self, rows: bool = True) -> Iterator[Clip]:
        """All clips in order, with their streams; without them where `rows` is False."""
        for start in range(0, len(self), _BLOCK):
            yield from self._clips(start, min(start + _BLOCK, len(self)), rows)

    def _clips(self, start: int, stop: int, rows: bool) -> Iterator[Clip]:
        """Some clips in order; but for their rows they are read together."""
        clips = self._file["clips"]
        texts = [clips[key].asstr()[start:stop] for key in CLIP_TEXT]
        spans = self.spans(start, stop).tolist()
        labels = {name: clips["labels"][name][start:stop] for name in self.labels}
        for i, words in enumerate(self._words(start, stop)):
            begin, end = spans[i]
            yield Clip(
                **{key: column[i] for key, column in zip(CLIP_TEXT, texts, strict=True)},
                start=begin,
                end=None if np.isnan(end) else end,
                words=words,
                labels={
                    name: values[i].tolist()
                    for name, values in labels.items()
                    if not is_missing(self.labels[name], values[i])
                },
                streams={n: self.rows(start + i, n) for n in self.streams} if rows else None,
            )

    def label(self, name: str) -> np.ndarray:
        """(N,) or (N, K) values of a label; NaN or -1 where missing."""
        return self._file["clips/labels"][name][:]

    def column(self, name: str) -> list[str]:
        """(N,) of a text column of /clips: id, path, source, split, speaker, text, language."""
        return self._strings(f"clips/{name}")

    def spans(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(N, 2) start and end of each clip in its medium, seconds; NaN = to the medium's end."""
        clips = self._file["clips"]
        return np.stack([clips[key][start:stop] for key in ("start", "end")], axis=1)

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
        return self._rows[stream][0][:], self._offsets[stream]

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

    @property
    def transcript(self) -> dict[str, Any]:
        """Where the transcripts come from, and what recognised them; {} where it is not said."""
        try:
            facts = json.loads(self.attrs.get("transcript", "{}"))
        except (TypeError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

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
            "transcript": self.transcript,
        }
