"""What is wrong, or worth knowing, in a feature file before a long run: `mertool data check`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mertool.splits import leakage, same_text
from mertool.store import FeatureFile, is_missing
from mertool.types import SPLITS

_BLOCK = 1 << 20  # numbers read at a time
_NAMED = 5  # columns with non-finite values that get a finding of their own


@dataclass
class Finding:
    """One thing found.

    Attributes:
        level: "problem" (scores would be wrong or training fail) or "note".
        what: What was found.
        where: Stream, column, split or label; "" = the file.
        count: How many values, clips or names.
        examples: The first few, mostly clip ids.
    """

    level: str
    what: str
    where: str
    count: int
    examples: list[str] = field(default_factory=list)


@dataclass
class CheckReport:
    """What `check` found.

    Attributes:
        path: The feature file.
        clips: Its number of clips.
        findings: Problems first.
    """

    path: str
    clips: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> int:
        """Number of problems."""
        return sum(f.level == "problem" for f in self.findings)

    @property
    def exit_code(self) -> int:
        """1 where there is a problem."""
        return int(self.problems > 0)


def check(path: str | Path) -> CheckReport:
    """Look for mistakes in a feature file; its rows are read block by block.

    Args:
        path: The file.

    Returns:
        Non-finite values, times that are none, empty streams and clips, constant columns, missing
        labels, leaks of every split, clips that are in the file twice, texts that say nothing.

    Raises:
        DataError: No feature file.
    """
    with FeatureFile(path) as file, h5py.File(path, "r") as raw:
        report = CheckReport(str(path), len(file))
        splits = {name: np.array(file.split(name), object) for name in file.splits}
        prints = [hashlib.sha256() for _ in file.ids]
        for name in file.streams:
            report.findings += _values(file, raw, name, prints)
            report.findings += _times(file, raw, name)
        report.findings += _empty(file, splits)
        report.findings += _labels(file, splits)
        for name, split in splits.items():
            report.findings += [
                Finding("problem", leak.kind, f'split "{name}"', len(leak.names),
                        leak.names[: leakage.SHOWN])
                for leak in leakage.find(file, split)
            ]  # fmt: skip
        report.findings += _twins(file, prints, splits)
    report.findings.sort(key=lambda f: f.level != "problem")
    return report


def _blocks(data: h5py.Dataset, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of a dataset, a block after the other."""
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, len(data), step):
        yield start, data[start : start + step]


def _clips_of(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sorted places of the clips that some rows belong to."""
    return np.unique(np.searchsorted(offsets, rows, side="right") - 1)


def _examples(file: FeatureFile, clips: Sequence[int] | np.ndarray) -> list[str]:
    return [file.ids[int(i)] for i in clips[: leakage.SHOWN]]


def _values(file: FeatureFile, raw: h5py.File, name: str, prints: list[Any]) -> Iterator[Finding]:
    """Non-finite values and constant columns of a stream; its rows go into the clips' hashes."""
    data = raw[f"streams/{name}/values"]
    offsets = raw[f"streams/{name}/offsets"][:]
    columns = file.streams[name].columns
    bad = np.zeros(len(columns), int)
    low, high = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    touched: dict[int, set[int]] = defaultdict(set)  # column: clips
    for i in np.flatnonzero(np.diff(offsets)):
        prints[i].update(f"{name} {offsets[i + 1] - offsets[i]} ".encode())
    for start, block in _blocks(data, len(columns)):
        finite = np.isfinite(block)
        bad += (~finite).sum(0)
        low = np.minimum(low, np.where(finite, block, np.inf).min(0))
        high = np.maximum(high, np.where(finite, block, -np.inf).max(0))
        for column in np.flatnonzero(~finite.all(0)):
            rows = start + np.flatnonzero(~finite[:, column])
            touched[column].update(_clips_of(offsets, rows).tolist())
        for i in _clips_of(offsets, np.arange(start, start + len(block))):
            part = block[max(offsets[i] - start, 0) : offsets[i + 1] - start]
            prints[i].update(np.ascontiguousarray(part).tobytes())
    worst = np.flatnonzero(bad)
    for column in worst[:_NAMED]:
        yield Finding(
            "problem", "values that are not finite", f"{name}: {columns[column]}",
            int(bad[column]), _examples(file, sorted(touched[column])),
        )  # fmt: skip
    if len(worst) > _NAMED:
        rest = worst[_NAMED:]
        clips = sorted(set().union(*(touched[c] for c in rest)))
        yield Finding(
            "problem", "values that are not finite", f"{name}: {len(rest)} more columns",
            int(bad[rest].sum()), _examples(file, clips),
        )  # fmt: skip
    constant = np.flatnonzero(low == high) if len(data) > 1 else []
    if len(constant):
        examples = [columns[c] for c in constant[: leakage.SHOWN]]
        yield Finding("note", "columns that never change", name, len(constant), examples)


def _times(file: FeatureFile, raw: h5py.File, name: str) -> Iterator[Finding]:
    """Rows of a stream whose times are not finite or run backwards."""
    data, offsets = raw[f"streams/{name}/times"], raw[f"streams/{name}/offsets"][:]
    odd: set[int] = set()
    back: set[int] = set()
    last = -np.inf
    for start, block in _blocks(data, 2):
        odd.update(_clips_of(offsets, start + np.flatnonzero(~np.isfinite(block).all(1))).tolist())
        before = np.concatenate([[last], block[:-1, 0]])
        first = offsets[(offsets >= start) & (offsets < start + len(block))] - start
        before[first] = -np.inf  # a clip's first row comes after none
        wrong = (block[:, 0] < before) | (block[:, 1] < block[:, 0])
        back.update(_clips_of(offsets, start + np.flatnonzero(wrong)).tolist())
        last = block[-1, 0]
    for clips, what in ((odd, "times that are not finite"), (back, "times that run backwards")):
        if clips:
            examples = _examples(file, sorted(clips))
            yield Finding("problem", what, name, len(clips), examples)


def _empty(file: FeatureFile, splits: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Streams and clips without rows."""
    total = np.zeros(len(file), int)
    for name in file.streams:
        lengths = file.lengths(name)
        total += lengths
        if not lengths.any():
            yield Finding("note", "no rows at all; training leaves it out", name, len(file))
            continue
        for split, values in splits.items():
            for part in SPLITS:
                clips = np.flatnonzero(values == part)
                if len(clips) and not lengths[clips].any():
                    yield Finding(
                        "problem", "no rows in one part of a split",
                        f'{name}: {part} of split "{split}"', len(clips),
                    )  # fmt: skip
        none = np.flatnonzero(lengths == 0)
        if len(none):
            yield Finding("note", "clips without rows", name, len(none), _examples(file, none))
    blank = np.flatnonzero(total == 0)
    if len(blank):
        yield Finding(
            "note", "clips without rows in any stream", "", len(blank), _examples(file, blank)
        )


def _labels(file: FeatureFile, splits: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Labels that are missing, and labels of which the text says nothing."""
    texts = np.array(file.column("text"), object)
    for name, label in file.labels.items():
        values = file.label(name)
        missing = np.asarray(is_missing(label, values))
        if missing.any():
            none = np.flatnonzero(missing)
            examples = _examples(file, none)
            yield Finding("note", "clips without the label", name, len(none), examples)
        for split, assigned in splits.items():
            for part in SPLITS:
                clips = assigned == part
                if clips.any() and missing[clips].all():
                    where = f'{name}: {part} of split "{split}"'
                    count = int(clips.sum())
                    yield Finding("problem", "no label in one part of a split", where, count)
        sentence = same_text(label, values[~missing], list(texts[~missing]))
        if sentence:
            yield Finding("note", sentence, name, int((~missing).sum()))


def _twins(
    file: FeatureFile, prints: list[Any], splits: dict[str, np.ndarray]
) -> Iterator[Finding]:
    """Clips with the same rows in every stream, under two ids."""
    text = {name for name, s in file.streams.items() if s.text or name == "text"}
    # Two people who say the same have the same text rows; only sound or picture tell them apart.
    solid = np.zeros(len(file), bool)
    some = np.zeros(len(file), bool)
    for name in file.streams:
        some |= file.lengths(name) > 0
        if name not in text:
            solid |= file.lengths(name) > 0
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i in np.flatnonzero(some):
        groups[prints[i].digest()].append(int(i))
    twins = [g for g in groups.values() if len(g) > 1]
    same = [g for g in twins if solid[g[0]]]
    torn: set[int] = set()
    for split, assigned in splits.items():
        found = [g for g in same if len(set(assigned[g]) - {""}) > 1]
        torn.update(g[0] for g in found)
        yield from _twin_finding(file, found, "problem", "same clip under several ids in two parts",
                                 f'split "{split}"')  # fmt: skip
    rest = [g for g in same if g[0] not in torn]
    yield from _twin_finding(file, rest, "note", "same clip under several ids", "")
    alike = [g for g in twins if not solid[g[0]]]
    yield from _twin_finding(file, alike, "note", "same text rows, and no others", "")


def _twin_finding(
    file: FeatureFile, groups: list[list[int]], level: str, what: str, where: str
) -> Iterator[Finding]:
    if groups:
        examples = [" = ".join(_examples(file, g)) for g in groups[: leakage.SHOWN]]
        yield Finding(level, what, where, sum(map(len, groups)), examples)
