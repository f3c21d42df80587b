"""What the arrays of an npz archive are: parts by split, and the role of each array."""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mertool.errors import DataError, MertoolWarning
from mertool.types import SPLITS

_BY_SPLIT = re.compile(r"(.+)_(train|valid|val|dev|test)")
_TEXTS = ("transcript", "raw_text", "utterance", "text")  # the first that is there is taken


@dataclass
class Part:
    """Clips that stand in arrays of their own: all, or those of one split.

    Attributes:
        split: Of all its clips; "" where each has its own, or none.
        arrays: {key without the split's name: array, its first axis the clip}.
    """

    split: str
    arrays: dict[str, np.ndarray]

    @property
    def size(self) -> int:
        """Number of its clips."""
        return max(map(len, self.arrays.values()), default=0)


def note(message: str) -> None:
    """Tell the user, through the host, what was made of the file."""
    warnings.warn(message, MertoolWarning, stacklevel=2)


def read_arrays(source: Path) -> dict[str, np.ndarray]:
    """Every array of the archive, none of them unpickled."""
    arrays = {}
    key = ""
    try:
        if source.is_file() and not zipfile.is_zipfile(source):
            raise ValueError("it is no zip archive")
        archive = np.load(source, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array, no archive")
        with archive:
            for key in archive.files:
                arrays[key] = archive[key]
                if not isinstance(arrays[key], np.ndarray):
                    raise ValueError("no array")
    except (
        OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        if key and "allow_pickle" in str(error):
            raise DataError(
                f'The array "{key}" holds Python objects, which only unpickling could read.',
                str(source),
                "mertool unpickles nothing, as that can run code. Save it anew as an array of "
                "numbers or of texts (dtype float32 or str).",
            ) from error
        raise DataError(
            "The file is no npz archive that can be read.",
            f"{source}{f', array {key!r}' if key else ''}: {' '.join(str(error).split())}",
            "An npz archive is what numpy.savez writes. Pickled files are not read.",
        ) from error
    return arrays


def parts_of(arrays: dict[str, np.ndarray], source: str) -> list[Part]:
    """The arrays by split where every key ends in one, else all as they are."""
    found: dict[str, dict[str, np.ndarray]] = {}
    matches = {key: _BY_SPLIT.fullmatch(key) for key in arrays}
    if not arrays or not all(matches.values()):
        return [Part("", arrays)]
    for key, match in matches.items():
        split = {"val": "valid", "dev": "valid"}.get(match[2], match[2])
        if match[1] in found.setdefault(split, {}):
            raise DataError(
                f'"{match[1]}" has two arrays for the {split} clips.', source, "Leave one out."
            )
        found[split][match[1]] = arrays[key]
    return [Part(split, found[split]) for split in SPLITS if split in found]


def check_lengths(part: Part, source: Path) -> None:
    """Refuse arrays of one part that have not the same number of clips."""
    lengths = {name: len(array) for name, array in part.arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            "The arrays have not the same number of clips.",
            f"{source}{f', {part.split}' if part.split else ''}: "
            + ", ".join(f"{name} {n}" for name, n in lengths.items()),
            "The first axis of every array is the clip: mend the file.",
        )


def roles_of(parts: list[Part], source: str) -> dict[str, Any]:
    """What each array is, by its name, number of axes and type.

    Returns:
        {role: [key, ...]}, and under "labels" {label: key}.
    """
    roles: dict[str, Any] = {
        r: [] for r in ("id", "dialogue", "utterance", "path", "text", "speaker", "default",
                        "splits", "streams")
    }  # fmt: skip
    roles["labels"] = {}
    fixed = {
        "id": "id", "ids": "id", "dialogue_id": "dialogue", "utterance_id": "utterance",
        "video_id": "path", "speaker": "speaker", "split": "default",
    }  # fmt: skip
    texts: list[str] = []
    for key in dict.fromkeys(key for part in parts for key in part.arrays):
        arrays = [part.arrays[key] for part in parts if key in part.arrays]
        target = key in ("y", "label", "labels")
        if target:  # (N, 1) and (N, 1, 1) are how some sets keep their label
            arrays = [a.reshape(len(a), -1) if a.ndim > 1 else a for a in arrays]
            arrays = [a[:, 0] if a.ndim == 2 and a.shape[1] == 1 else a for a in arrays]
        shapes, types = {a.ndim for a in arrays}, {a.dtype.kind for a in arrays}
        axes = shapes.pop() if len(shapes) == 1 else 0
        is_text = types <= {"U", "S"}
        if axes in (2, 3) and types == {"f"} and not target and not key.startswith("label"):
            roles["streams"].append(key)
            continue
        if axes != 1 or not (is_text or types == {"f"} or types <= {"i", "u", "b"}):
            shape = " and ".join(f"{a.dtype} {a.shape}" for a in arrays)
            note(f'"{key}" ({shape}) is neither a stream nor a label: left out')
            for part in parts:
                part.arrays.pop(key, None)
            continue
        if key in fixed and not (roles[fixed[key]] and fixed[key] == "id"):
            roles[fixed[key]].append(key)
        elif key.startswith("split_") and is_text:
            roles["splits"].append(key)
        elif key in _TEXTS and is_text:
            texts.append(key)
        else:
            name = "label" if target and "label" not in roles["labels"] else key
            roles["labels"][name] = key
            for part in parts:
                if target and key in part.arrays:
                    part.arrays[key] = part.arrays[key].reshape(-1)
    roles["text"] = sorted(texts, key=_TEXTS.index)[:1]
    for key in sorted(texts, key=_TEXTS.index)[1:]:
        note(f'"{key}" is left out: the transcript is "{roles["text"][0]}"')
    if not roles["default"]:
        roles["default"] = roles["splits"][:1]
        if len(roles["splits"]) > 1:
            note(f'the default split is "{roles["splits"][0]}", the first in the file')
    _check_everywhere(parts, roles, source)
    return roles


def _check_everywhere(parts: list[Part], roles: dict[str, Any], source: str) -> None:
    """Refuse ids, texts and the like that only some splits have; a stream or label may be."""
    for role, keys in roles.items():
        for key in keys if role not in ("streams", "labels") else ():
            without = [part.split for part in parts if key not in part.arrays]
            if without:
                raise DataError(
                    f'There is no "{key}" for the {" and ".join(without)} clips.',
                    source,
                    f"Add {key}_{without[0]}, or leave {key} out of all splits.",
                )
