"""Putting splits into a feature file that exists."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mertool.errors import DataError, OutputError, UsageError
from mertool.files import cannot_write
from mertool.processes import interrupts_held
from mertool.store import FeatureFile
from mertool.store.disk import Disk
from mertool.store.layout import TEXT
from mertool.types import SPLITS

_FOLD = re.compile(r"fold-\d+")
_PIECE = 1 << 24  # bytes copied at a time


def add(
    path: str | Path,
    splits: Mapping[str, Sequence[str]],
    attrs: Mapping[str, Mapping[str, Any]],
    overwrite: bool = False,
) -> None:
    """Add named splits to a feature file: all of them, or the file stays as it was.

    Folds belong together: where `splits` has folds, those of the file count as existing whatever
    their number, and are removed when overwritten. With "default", `clips/split` changes too.

    Args:
        path: The feature file.
        splits: {name: (N,) of "train", "valid", "test" or ""}.
        attrs: {name: attributes}, such as by, seed, protocol and protocol_sha256; sha256 (see
            `digest`) is added.
        overwrite: Replace splits that exist.

    Raises:
        UsageError: A name that cannot be used.
        DataError: No feature file, or splits that are none of its clips.
        OutputError: A split exists, or the disk is full or closed.
    """
    from mertool.splits import digest

    path = Path(path)
    with FeatureFile(path) as file:
        ids, known = file.ids, file.splits
    for name, values in splits.items():
        if not name or "/" in name or name in (".", "all"):
            raise UsageError(f'A split cannot be named "{name}".', str(path), "Try: mine")
        if len(values) != len(ids) or not set(values) <= {*SPLITS, ""}:
            raise DataError(
                f'The split "{name}" does not fit the clips.',
                f"{path}: {len(ids)} clips, {len(values)} values: {', '.join(sorted(set(values)))}",
                'Give train, valid, test or "" for each clip.',
            )
    old = set(splits) & set(known)
    if any(map(_FOLD.fullmatch, splits)):
        old |= {name for name in known if _FOLD.fullmatch(name)}
    if old and not overwrite:
        raise OutputError(
            f"The file has such splits already: {', '.join(sorted(old))}.",
            str(path),
            "Add --overwrite to replace them, or choose another name with --name.",
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    raw: Disk | None = None
    try:
        # Written through `Disk`, as HDF5 takes the process down where a write fails.
        with interrupts_held():
            raw = Disk(temporary)
        _copy(path, raw)
        with interrupts_held():
            with h5py.File(raw, "r+") as file:
                for name in old:
                    del file[f"splits/{name}"]
                for name, values in splits.items():
                    file[f"splits/{name}"] = np.array(values, dtype=TEXT)
                    given = {**attrs.get(name, {}), "sha256": digest(ids, values)}
                    file[f"splits/{name}"].attrs.update(given)
                if "default" in splits:
                    file["clips/split"][:] = np.array(splits["default"], dtype=TEXT)
            if raw.error is not None:
                raise raw.error
            raw.close()
            shutil.copymode(path, temporary)
            os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with interrupts_held(), contextlib.suppress(OSError):
            if raw is not None:
                raw.close()
            temporary.unlink(missing_ok=True)


def _copy(path: Path, raw: Disk) -> None:
    with open(path, "rb") as source:
        while piece := source.read(_PIECE):
            raw.write(piece)
            if raw.error is not None:  # or it would keep the rest in memory
                raise raw.error
