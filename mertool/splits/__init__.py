"""Splits: filling them in, making folds of speakers, storing them, finding leaks (docs/splits.md).

A split is (N,) of "train", "valid", "test" or "" (in none), in the order of the file's clips. What
must not be torn apart is a unit: a speaker, else a recording, else a clip. All choices are made by
SHA-256 of the units' names, so they are the same on every machine and for every order of the clips.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from mertool.errors import DataError, UsageError, did_you_mean
from mertool.splits.disk import add
from mertool.splits.leakage import leaks, same_text
from mertool.store import FeatureFile
from mertool.types import SPLITS

__all__ = [
    "add",
    "assign",
    "by_units",
    "digest",
    "hold_out",
    "leaks",
    "of_split",
    "same_text",
    "units_of",
]

_SHARE = 0.15  # of the units, for valid and for test
_NEED = "Give more clips, or a split column in the manifest."


def assign(file: FeatureFile, name: str = "default") -> tuple[list[str], str]:
    """The split of every clip, filled in where the file leaves it open.

    Where there is no split at all, 15% of the speakers (of the recordings or clips, where speakers
    are unknown) become test and 15% valid; where only valid is missing, 15% of the train speakers
    are held out. Which ones is fixed by a hash of their names, so that every run takes the same.

    Args:
        file: An open feature file.
        name: Name of the split in the file.

    Returns:
        (N,) split names, and a sentence for the user where something was filled in, else "".

    Raises:
        DataError: There is a split, but no train clips; or too few clips to split.
    """
    splits = file.split(name)
    units, kind = units_of(file)
    if not any(splits):
        ranked = _ranked(units)
        if len(ranked) < 3:
            raise _too_few(len(ranked), kind, "train, valid and test", file)
        note = f"the file has no splits: 15% of the {kind} are test, 15% valid, by hash"
        return _one_split(units, ranked), note
    if "train" not in splits:
        raise DataError("No clip is in the train split.", str(file.path), "Mend the manifest.")
    if "valid" not in splits:
        ranked = _ranked(u for u, s in zip(units, splits, strict=True) if s == "train")
        held = set(ranked[: _share(len(ranked))])
        if len(held) == len(ranked):
            raise DataError(
                f"One training {kind[:-1]} cannot be divided into train and valid.",
                str(file.path),
                "Add valid clips to the split column.",
            )
        splits = [
            "valid" if s == "train" and u in held else s for u, s in zip(units, splits, strict=True)
        ]
        return splits, f"no clip is in valid: 15% of the training {kind} are held out, by hash"
    return splits, ""


def of_split(splits: Sequence[str], name: str, path: object) -> np.ndarray:
    """(N,) bool, the clips of one split; "all" = every clip.

    Raises:
        UsageError: No such split.
        DataError: It has no clips.
    """
    if name not in (*SPLITS, "all"):
        raise UsageError(f'There is no split "{name}".', "", did_you_mean(name, (*SPLITS, "all")))
    chosen = np.array([name in ("all", s) for s in splits], bool)
    if not chosen.any():
        raise DataError(
            f"No clip is in the {name} split.", str(path), "See: mertool data info FILE"
        )
    return chosen


def by_units(
    file: FeatureFile, folds: int, by: str = "speaker", seed: int = 0
) -> dict[str, list[str]]:
    """Cross-validation folds, or one split, that tear no unit apart.

    Units are ordered by sha256("SEED UNIT") and dealt out in turn: fold k tests every `folds`-th
    unit, from the k-th. 15% of its other units (at least one) are valid, the rest train.

    Args:
        file: An open feature file.
        folds: Number of folds; 1 = one split, with 15% of the units in test and 15% in valid.
        by: "speaker" (where unknown: the recording, else the clip) or "clip".
        seed: Another seed gives another order.

    Returns:
        {"fold-0": (N,) split names, ...}; {"default": (N,)} for one fold.

    Raises:
        UsageError: `by` is unknown, or no fold is asked for.
        DataError: No speaker or recording is known, or there are too few of them.
    """
    if by not in ("speaker", "clip"):
        raise UsageError(f'Clips cannot be divided by "{by}".', "", "Choose speaker or clip.")
    if folds < 1:
        raise UsageError("At least one fold is needed.", f"{folds} folds", "Try --folds 5")
    units, kind = units_of(file)
    if by == "clip":
        units, kind = [f"clip {i}" for i in file.ids], "clips"
    elif kind == "clips":
        raise DataError(
            "No clip's speaker or recording is known.",
            str(file.path),
            "Add a speaker column to the manifest, or divide by clip: --by clip",
        )
    ranked = _ranked(units, str(seed))
    if folds == 1:
        if len(ranked) < 3:
            raise _too_few(len(ranked), kind, "train, valid and test", file)
        return {"default": _one_split(units, ranked)}
    if len(ranked) < max(folds, 3):
        raise _too_few(len(ranked), kind, f"{folds} folds", file)
    return {
        f"fold-{k}": hold_out(units, ranked[k::folds], f"{seed} valid fold-{k}", kind, file)
        for k in range(folds)
    }


def hold_out(
    units: Sequence[str], test: Collection[str], salt: str, kind: str, file: FeatureFile
) -> list[str]:
    """One fold: the named units are test, 15% of the others (at least one) valid, the rest train.

    Args:
        units: (N,) unit of each clip.
        test: Units of the test split.
        salt: Valid units are the first in the order of sha256("SALT UNIT").
        kind: What the units are, in the plural, for the message.
        file: The feature file, for the message.

    Returns:
        (N,) split names.

    Raises:
        DataError: Fewer than two units are left for train and valid.
    """
    test = set(test)
    rest = _ranked((u for u in units if u not in test), salt)
    if len(rest) < 2:
        raise _too_few(len(rest), kind, "train and valid", file)
    valid = set(rest[: _share(len(rest))])
    return ["test" if u in test else "valid" if u in valid else "train" for u in units]


def digest(ids: Sequence[str], split: Sequence[str]) -> str:
    """SHA-256 of a split, whatever the order of the clips: of its sorted "ID<tab>SPLIT" lines."""
    lines = sorted(f"{i}\t{s}" for i, s in zip(ids, split, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def units_of(file: FeatureFile) -> tuple[list[str], str]:
    """(N,) what each clip must stay together with, and what these units mostly are, in the plural.

    A speaker; where unknown, a recording that several clips are cut from; else the clip itself.
    """
    speakers, paths = file.column("speaker"), file.column("path")
    shared = {p for p, count in Counter(paths).items() if p and count > 1}
    units = [
        f"speaker {s}" if s else f"recording {p}" if p in shared else f"clip {i}"
        for s, p, i in zip(speakers, paths, file.ids, strict=True)
    ]
    kind = "speakers" if any(speakers) else "recordings" if shared else "clips"
    return units, kind


def _ranked(units: Iterable[str], salt: str = "") -> list[str]:
    lead = f"{salt} " if salt else ""
    return sorted(set(units), key=lambda u: hashlib.sha256(f"{lead}{u}".encode()).hexdigest())


def _one_split(units: Sequence[str], ranked: Sequence[str]) -> list[str]:
    """(N,) split names: the first 15% of the ranked units test, the next 15% valid, then train."""
    held = _share(len(ranked))
    place = dict.fromkeys(ranked[:held], "test")
    place |= dict.fromkeys(ranked[held : 2 * held], "valid")
    return [place.get(u, "train") for u in units]


def _share(count: int) -> int:
    return max(1, round(_SHARE * count))


def _too_few(count: int, kind: str, what: str, file: FeatureFile) -> DataError:
    units = kind if count != 1 else kind[:-1]
    return DataError(f"{count} {units} cannot be divided into {what}.", str(file.path), _NEED)
