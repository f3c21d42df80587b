"""Telling real steps from padding in arrays of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mertool.errors import DataError


def check_alignment(
    wanted: str, shapes: Sequence[Mapping[str, tuple[int, ...]]], source: str
) -> str:
    """The alignment of a set of arrays.

    Args:
        wanted: "auto", "none", "word" or "segments:N".
        shapes: For each part of the set, {stream: shape of its array}: (N, D) or (N, T, D).
        source: The file, for errors.

    Returns:
        "none", "word" or "segments:N"; for "auto" "word" where there are at least two streams,
        all of them sequences, and in each part of equally many steps.

    Raises:
        DataError: An alignment is asked for that the arrays cannot have.
    """
    if wanted == "none":
        return "none"
    steps = [{name: s[1] if len(s) == 3 else 1 for name, s in part.items()} for part in shapes]
    equal = all(len(set(part.values())) <= 1 for part in steps)
    if wanted == "auto":
        sequences = all(len(s) == 3 for part in shapes for s in part.values())
        several = len({name for part in shapes for name in part}) > 1
        return "word" if equal and sequences and several else "none"
    count = {str(n) for part in steps for n in part.values()}
    if not equal or (wanted != "word" and count != {wanted.partition(":")[2]}):
        told = [", ".join(f"{name} {n}" for name, n in part.items()) for part in steps]
        raise DataError(
            f'The arrays cannot be aligned to "{wanted}": their numbers of steps do not fit.',
            f"{source}: {'; '.join(told)}",
            "Leave reader.alignment out, or set it to none.",
        )
    return wanted


def real_steps(
    parts: Sequence[Mapping[str, np.ndarray]], alignment: str
) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    """Which steps of each clip are real: those from the first to the last that is not all zero.

    Zeros within a clip stay: only what stands before and after it is padding. In aligned streams
    a step is the same word in all, so it is padding only where every stream is zero. Of
    "segments:N" every step is real.

    Args:
        parts: For each part of the set, {stream: (N, T, D) array}.
        alignment: "none", "word" or "segments:N".

    Returns:
        For each part {stream: (N, 2) first real step and the one after the last}, and notes on
        what was stripped.
    """
    found: list[dict[str, np.ndarray]] = []
    counts: dict[str, np.ndarray] = {}
    for arrays in parts:
        if alignment.startswith("segments"):
            whole = {n: np.tile([0, a.shape[1]], (len(a), 1)) for n, a in arrays.items()}
            found.append(whole)
            continue
        full = {name: array.any(axis=2) for name, array in arrays.items()}
        if alignment == "word" and full:
            both = np.logical_or.reduce(list(full.values()))
            bounds = _bounds(both)
            found.append(dict.fromkeys(full, bounds))
            _count(counts, "clips", bounds, both.shape[1])
        else:
            found.append({name: _bounds(steps) for name, steps in full.items()})
            for name, steps in full.items():
                _count(counts, name, found[-1][name], steps.shape[1])
    notes = []
    for name, (left, right, empty) in counts.items():
        of = "" if name == "clips" else f"{name}: "
        if left or right:
            notes.append(
                f"{of}padding of zeros is stripped: {left} clips were left-padded, "
                f"{right} right-padded"
            )
        if empty:
            notes.append(f"{of}{empty} clips are zero throughout and have no rows")
    return found, notes


def _bounds(real: np.ndarray) -> np.ndarray:
    """(N, 2) first True of each row of (N, T) and the place after the last; 0, 0 without any."""
    length = real.shape[1]
    some = real.any(axis=1)
    first = np.where(some, real.argmax(axis=1), 0) if length else np.zeros(len(real), int)
    last = np.where(some, length - real[:, ::-1].argmax(axis=1), 0) if length else first
    return np.stack([first, last], axis=1)


def _count(counts: dict[str, np.ndarray], name: str, bounds: np.ndarray, length: int) -> None:
    some = bounds[:, 1] > 0
    left, right = some & (bounds[:, 0] > 0), some & (bounds[:, 1] < length)
    counts[name] = counts.get(name, np.zeros(3, int)) + [left.sum(), right.sum(), (~some).sum()]
