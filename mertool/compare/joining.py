"""Joining the predictions of several systems: one label, one list of clips, one truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mertool.compare.systems import System
from mertool.errors import DataError, did_you_mean
from mertool.types import Label

_PREDICTION, _TRUTH = ("pred", "prediction"), "truth"
_MISSING = ("", "nan")
# Truths come from files that round differently; labels of the field are 0.1 or more apart.
_SAME_TRUTH = 1e-4


def agree(systems: Sequence[System]) -> tuple[Label, list[str]]:
    """The label that all systems predict, and notes.

    It is that of the first run; CSV files alone tell it by their cells.

    Raises:
        DataError: Two runs predict different labels.
    """
    runs = [s for s in systems if s.label is not None]
    if not runs:
        label = _guess(systems)
        low, high = label.range
        what = f"from {low:g} to {high:g}" if label.task == "regression" else ""
        what = what or f"of {', '.join(label.classes)}"
        return label, [f"no run says what the label is; by the files a {label.task} {what}"]
    label, notes = runs[0].label, []
    for other in runs[1:]:
        one, two = ((x.name, x.task, set(x.classes)) for x in (label, other.label))
        if one != two:
            raise DataError(
                "The runs predict different labels.",
                "; ".join(
                    f"{s.name}: {s.label.name} ({', '.join(s.label.classes) or s.label.task})"
                    for s in (runs[0], other)
                ),
                "Compare runs of one label.",
            )
        if label.range != other.label.range:
            notes.append(
                f"{other.name}: its label ranges from {other.label.range[0]:g} to "
                f"{other.label.range[1]:g}; scored with the range of {runs[0].name}"
            )
    return label, notes


def _guess(systems: Sequence[System]) -> Label:
    """The label of CSV files, by their columns and cells."""
    names = [c.removesuffix("_pred") for s in systems for c in s.columns if c.endswith("_pred")]
    if len(set(names)) > 1:
        raise DataError(
            "The files predict different labels.",
            ", ".join(dict.fromkeys(f"{n}_pred" for n in names)),
            "Name the column of the predictions alike, or pred.",
        )
    name = names[0] if names else "label"
    cells, truths, classes = set(), set(), set()
    for system in systems:
        classes |= {c.partition("=")[2] for c in system.columns if c.startswith(f"{name}=")}
        said, true = prediction_column(system, name), truth_column(system, name)
        for clips in system.seeds.values():
            cells |= {row[said] for row in clips.values()}
            truths |= {row[true] for row in clips.values()} if true else set()
    cells = (cells | truths) - {""}
    if any("|" in cell for cell in cells):
        members = {part.strip() for cell in cells for part in cell.split("|")} - {""}
        return Label(name, "multilabel", tuple(sorted(members | classes)))
    # The truth decides: among predictions a word would be a slip.
    known = [_number(cell) for cell in truths if cell.lower() not in _MISSING]
    if classes or None in known:
        return Label(name, "classification", tuple(sorted(cells | classes)))
    return Label(name, "regression", (), (min(known), max(known)) if known else (0.0, 0.0))


def prediction_column(system: System, name: str) -> str:
    """The column with the predictions of the label `name`.

    Raises:
        DataError: There is none.
    """
    for column in (f"{name}_pred", *_PREDICTION):
        if column in system.columns:
            return column
    raise DataError(
        f'There is no column "{name}_pred" or "pred".',
        system.name,
        did_you_mean(f"{name}_pred", system.columns),
    )


def truth_column(system: System, name: str) -> str | None:
    """The column with the truth, if there is one."""
    return next((c for c in (name, _TRUTH) if c in system.columns), None)


def truths(systems: Sequence[System], label: Label) -> tuple[list[str], np.ndarray, list[str]]:
    """The clips to score and what is true of them.

    The clips are those of the first run, or else of the first system that has the truth.

    Returns:
        (N,) ids, sorted, so that the order of a file changes nothing; (N, 1), (N,) or (N, K)
        truths; notes.

    Raises:
        DataError: No system has the truth, or two disagree.
    """
    order = sorted(systems, key=lambda s: not s.run)
    told = [(s, c) for s in order if (c := truth_column(s, label.name))]
    if not told:
        raise DataError(
            "No system has the truth.",
            ", ".join(s.name for s in systems),
            f'Add a column "{label.name}" or "truth" to a file, or compare with a run.',
        )
    # An empty cell of a label of several names means "none of them".
    missing = ("nan",) if label.task == "multilabel" else _MISSING
    known: dict[str, tuple[str, Any]] = {}
    for system, column in told:
        for clips in system.seeds.values():
            for name, cells in clips.items():
                if cells[column].lower() in missing:
                    continue
                value = _parse(label, cells[column], system, name)
                owner, before = known.setdefault(name, (system.name, value))
                if not np.allclose(value, before, rtol=0, atol=_SAME_TRUTH):
                    raise DataError(
                        f'The truth of the clip "{name}" differs.',
                        f"{owner} and {system.name} ({cells[column]})",
                        "The files belong to different data; or leave out the truth in one.",
                    )
    every = sorted(next(iter(told[0][0].seeds.values())))
    ids = [name for name in every if name in known]
    notes = []
    if len(ids) < len(every):
        notes.append(f"{len(every) - len(ids)} clips have no truth and are left out")
    if not ids:
        raise DataError("No clip has a truth.", told[0][0].name, "Fill in that column.")
    return ids, np.array([known[name][1] for name in ids]), notes


def predictions(
    system: System, label: Label, ids: Sequence[str]
) -> tuple[dict[int | str, np.ndarray], list[str]]:
    """{seed: (N, K) values or logits}, joined by id, and notes.

    Logits are log-probabilities where a file has them. Otherwise, and for several names, only
    the sign, or which one is the largest, means anything.

    Raises:
        DataError: A clip is missing, or a cell is wrong.
    """
    column, notes = prediction_column(system, label.name), []
    said: dict[int | str, np.ndarray] = {}
    for seed, clips in system.seeds.items():
        absent = [name for name in ids if name not in clips]
        if absent:
            where = "" if seed == "" else f", seed {seed}"
            raise DataError(
                f"{len(absent)} of {len(ids)} clips are not predicted.",
                f"{system.name}{where}: {', '.join(absent[:3])}{' ...' if absent[3:] else ''}",
                "Compare systems on the same clips: predict these, or cut the other file.",
            )
        if len(clips) > len(ids):
            notes.append(f"{system.name}: {len(clips) - len(ids)} more clips are left out")
        said[seed] = np.array([_parse(label, clips[i][column], system, i, True) for i in ids])
    if label.task == "regression":
        result = said
    elif label.task == "multilabel":
        result = {seed: present - 0.5 for seed, present in said.items()}
    else:
        logits, note = _logits(system, label, ids, said)
        result = logits or {seed: np.eye(len(label.classes))[i] for seed, i in said.items()}
        notes += [f"{system.name}: {note}"] if note else []
    return result, list(dict.fromkeys(notes))


def _logits(
    system: System, label: Label, ids: Sequence[str], said: dict[int | str, np.ndarray]
) -> tuple[dict[int | str, np.ndarray], str]:
    """{seed: (N, K) log-probabilities}; or nothing, and why the file has none to use."""
    columns = [f"{label.name}={c}" for c in label.classes]
    if not set(columns) <= set(system.columns):
        return {}, "no probability of each class; scored by the predicted class alone"
    result, rows = {}, np.arange(len(ids))
    for seed, chosen in said.items():
        cells = [[system.seeds[seed][i][c] for c in columns] for i in ids]
        share = np.array(
            [[_share(c, system, i) for c in r] for i, r in zip(ids, cells, strict=True)]
        )
        # Files keep six digits: what they show as equal was told apart before.
        if (share.max(1) > share[rows, chosen] + 2e-6).any():
            return {}, (
                "a predicted class is not the most probable one; the probabilities are not used"
            )
        result[seed] = np.log(np.maximum(share, 1e-7))
        result[seed][rows, chosen] = result[seed].max(1) + 1e-4
    return result, ""


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _share(cell: str, system: System, name: str) -> float:
    value = _number(cell)
    if value is None or value < 0:
        raise DataError(
            f'A probability is no number from 0 to 1: "{cell}".',
            f"{system.name}, clip {name}",
            "Mend the file, or leave out its columns of probabilities.",
        )
    return value


def _parse(label: Label, cell: str, system: System, name: str, said: bool = False) -> Any:
    """A cell as number, index of its class, or (K,) list of 0 and 1."""
    parts = [part.strip() for part in cell.split("|") if part.strip()]
    if label.task == "regression":
        value = _number(cell)
        # In single precision, as labels are stored and models predict: evaluate's own scores.
        value = None if value is None else [float(np.float32(value))]
    elif label.task == "classification":
        value = label.classes.index(cell) if cell in label.classes else None
    else:
        value = [float(c in parts) for c in label.classes]
        value = value if set(parts) <= set(label.classes) else None
    if value is None:
        raise DataError(
            f'{"A prediction" if said else "A truth"} is no value of "{label.name}": "{cell}".',
            f"{system.name}, clip {name}",
            f"Known: {' | '.join(label.classes)}" if label.classes else "Write a number.",
        )
    return value
