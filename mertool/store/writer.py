"""Writing a feature file clip by clip; it appears under its name only when complete."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mertool.errors import DataError, OutputError
from mertool.files import cannot_write
from mertool.processes import interrupts_held
from mertool.store.disk import Disk
from mertool.store.layout import CLIP_TEXT, FORMAT, TEXT, VERSION, Stream, label_array
from mertool.types import Clip, Label, Rows
from mertool.version import __version__

_BUFFER = 1 << 20  # numbers held back per stream before they go to disk


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, is a folder, or whose folder cannot be written.

    Raises:
        OutputError: One of these.
    """
    if path.is_dir():
        raise OutputError("The output is a folder.", str(path), "Give a file name with -o.")
    if path.exists() and not overwrite:
        raise OutputError(
            "The output exists already.",
            str(path),
            "Choose another name with -o, or add --overwrite.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


class Writer:
    """Writes a feature file clip by clip; it appears under its name only when complete.

    Use as a context manager; on an exception nothing is left behind.

    Args:
        path: Output file.
        streams: {name: Stream}.
        labels: Label columns of the file.
        attrs: Root attributes: command, dataset, alignment.

    Raises:
        OutputError: The disk is full or closed.
    """

    def __init__(
        self,
        path: str | Path,
        streams: Mapping[str, Stream],
        labels: Sequence[Label] = (),
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self._streams, self._labels = dict(streams), list(labels)
        self._attrs = dict(attrs or {})
        self._clips: list[Clip] = []
        self._splits: dict[str, tuple[list[str], dict[str, Any]]] = {}
        self._failures: list[tuple[str, str, str]] = []
        self._offsets: dict[str, list[int]] = {name: [0] for name in streams}
        self._buffers: dict[str, list[Rows]] = {name: [] for name in streams}
        self._held = dict.fromkeys(streams, 0)
        self._raw: Disk | None = None
        self._file: h5py.File | None = None

    def __enter__(self) -> Writer:
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with self._disk():
                self._raw = Disk(self._temporary)
                self._file = h5py.File(self._raw, "w")
                self._file.create_group("streams", track_order=True)
                for name, stream in self._streams.items():
                    self._create(name, stream)
        except BaseException:
            self._clear()
            raise
        return self

    def _create(self, name: str, stream: Stream) -> None:
        group = self._file.create_group(f"streams/{name}")
        width = len(stream.columns)
        group.create_dataset(
            "values", (0, width), "f4", maxshape=(None, width), chunks=(256, max(width, 1))
        )
        group.create_dataset("times", (0, 2), "f8", maxshape=(None, 2), chunks=(1024, 2))
        if stream.text:
            group.create_dataset("word", (0,), "i4", maxshape=(None,), chunks=(1024,))
            group.create_dataset("span", (0, 2), "i4", maxshape=(None, 2), chunks=(1024, 2))
        group["columns"] = np.array(stream.columns, dtype=TEXT)
        group.attrs.update(stream.attrs)

    def add(self, clip: Clip, streams: Mapping[str, Rows]) -> None:
        """Append one clip; a stream left out gets zero rows.

        Raises:
            DataError: Rows of a wrong shape or not finite (an extractor's mistake).
            OutputError: The disk is full.
        """
        for name, stream in self._streams.items():
            rows = streams.get(name)
            if rows is None:
                rows = Rows.empty(len(stream.columns), stream.text)
            check_rows(rows, stream, f'stream "{name}" of clip "{clip.id}"')
            self._offsets[name].append(self._offsets[name][-1] + len(rows))
            self._buffers[name].append(rows)
            self._held[name] += rows.values.size
            if self._held[name] > _BUFFER:
                with self._disk():
                    self._flush(name)
        # Rows are on their way to disk: a long file must not also stay in memory.
        self._clips.append(dataclasses.replace(clip, streams=None))

    def fail(self, clip_id: str, stage: str, error: str) -> None:
        """Record a clip that could not be processed."""
        self._failures.append((clip_id, stage, error))

    def split(
        self, name: str, values: Sequence[str], attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Add a named split.

        Args:
            name: Its name.
            values: (N,) of train, valid, test or "", for the clips added so far.
            attrs: How it was made: by, seed, protocol, protocol_sha256, sha256.
        """
        self._splits[name] = (list(values), dict(attrs or {}))

    def _flush(self, name: str) -> None:
        held, self._buffers[name], self._held[name] = self._buffers[name], [], 0
        if not held:
            return
        for key in self._streams[name].datasets:
            dataset = self._file[f"streams/{name}/{key}"]
            block = np.concatenate([getattr(rows, key) for rows in held])
            dataset.resize(len(dataset) + len(block), axis=0)
            dataset[len(dataset) - len(block) :] = block

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        try:
            if kind is None:
                with self._disk():
                    self._finish()
                    self._file.close()
                    self._raise_lost_write()
                    self._raw.close()
                    os.replace(self._temporary, self.path)
        finally:
            self._clear()

    def _clear(self) -> None:
        """Close whatever is open and remove what is not complete."""
        with interrupts_held():
            for file in (self._file, self._raw):
                if file is not None:
                    file.close()
            with contextlib.suppress(OSError):  # the folder may be gone or closed
                self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        file = self._file
        file.attrs.update(
            {
                "format": FORMAT,
                "version": VERSION,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "mertool": __version__,
                "command": "",
                "dataset": "",
                "alignment": "none",
                **self._attrs,
            }
        )
        for name in self._streams:
            self._flush(name)
            self._raise_lost_write()
            file[f"streams/{name}/offsets"] = np.array(self._offsets[name], "i8")
        clips = self._clips
        for key in CLIP_TEXT:
            file[f"clips/{key}"] = np.array([getattr(c, key) for c in clips], dtype=TEXT)
        file["clips/start"] = np.array([c.start for c in clips], "f8")
        file["clips/end"] = np.array([np.nan if c.end is None else c.end for c in clips], "f8")
        file.create_group("clips/labels", track_order=True)
        for label in self._labels:
            dataset = file.create_dataset(
                f"clips/labels/{label.name}", data=label_array(label, clips)
            )
            dataset.attrs["task"] = label.task
            dataset.attrs["classes"] = np.array(label.classes, dtype=TEXT)
            dataset.attrs["range"] = np.array(label.range, "f8")
        default = ([c.split for c in clips], {})
        for name, (values, attrs) in {"default": default, **self._splits}.items():
            file[f"splits/{name}"] = np.array(values, dtype=TEXT)
            file[f"splits/{name}"].attrs.update(attrs)
        words = [c.words or [] for c in clips]
        flat = [w for ws in words for w in ws]
        file["words/word"] = np.array([w.text for w in flat], dtype=TEXT)
        file["words/times"] = np.array([(w.start, w.end) for w in flat], "f8").reshape(-1, 2)
        file["words/score"] = np.array([w.score for w in flat], "f4")
        file["words/offsets"] = np.cumsum([0] + [len(ws) for ws in words], dtype="i8")
        for i, key in enumerate(("id", "stage", "error")):
            file[f"failures/{key}"] = np.array([f[i] for f in self._failures], dtype=TEXT)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a failed write, raised or remembered, into the error for users."""
        try:
            # Raised while HDF5 writes through `Disk`, Ctrl-C takes the process down.
            with interrupts_held():
                yield
            self._raise_lost_write()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _raise_lost_write(self) -> None:
        if self._raw is not None and self._raw.error is not None:
            raise self._raw.error


def check_rows(rows: Rows, stream: Stream, what: str) -> None:
    """Refuse rows that do not fit their stream.

    Raises:
        DataError: Wrong shape, or a value that is not finite.
    """
    problem = ""
    if not isinstance(rows, Rows):
        problem = f"they are a {type(rows).__name__}, expected Rows"
    else:
        count = np.shape(rows.values)[0] if np.ndim(rows.values) else 0
        expected = {"values": (count, len(stream.columns)), "times": (count, 2)}
        if stream.text:
            expected |= {"word": (count,), "span": (count, 2)}
        for name, shape in expected.items():
            array = getattr(rows, name)
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
                problem = f'"{name}" is no array of numbers'
            elif array.shape != shape:
                problem = f'"{name}" has shape {array.shape}, expected {shape}'
            elif not np.isfinite(array.astype(np.float32, copy=False)).all():
                problem = f'"{name}" holds values that are not finite'
            if problem:
                break
    if problem:
        raise DataError(
            f"The extractor gave rows that do not fit: {problem}.",
            what,
            "Report this to the extractor's author.",
        )
