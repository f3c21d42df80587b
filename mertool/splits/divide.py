"""Dividing the clips of a feature file and putting the splits into it: `mertool data split`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertool import splits
from mertool.errors import UsageError
from mertool.splits.protocols import PROTOCOLS, apply
from mertool.store import FeatureFile
from mertool.types import SPLITS


@dataclass
class DivideReport:
    """The splits that were made.

    Attributes:
        file: The feature file.
        attrs: How they were made: by and seed, or protocol and protocol_sha256.
        splits: Of each split: name, sha256, and of train, valid and test
            {"clips": number, "speakers": number of known ones}.
        notes: Leaks, and where file and protocol differ.
    """

    file: str
    attrs: dict[str, Any]
    splits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def divide(
    path: str | Path,
    *,
    by: str | None = None,
    folds: int | None = None,
    seed: int | None = None,
    protocol: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> DivideReport:
    """Divide a feature file's clips into train, valid and test, and put that into the file.

    Args:
        path: The feature file; it changes only if all goes well.
        by: "speaker" or "clip": what is never torn apart.
        folds: Number of folds; None = 1.
        seed: Another seed, other folds; None = 0.
        protocol: Name of a known division, instead of `by`.
        name: Name of a single split; None = "default", or "official" of a protocol.
        overwrite: Replace splits that exist.

    Returns:
        What was made, and notes.

    Raises:
        UsageError: Neither or both of `by` and `protocol`, an unknown one, folds or a seed for a
            protocol, or a name for several folds.
        DataError: No feature file, or its clips cannot be divided so.
        OutputError: A split exists, or the disk is full or closed.
    """
    if bool(by) == bool(protocol):
        raise UsageError(
            "By what are the clips to be divided?",
            f"{'Both' if by else 'Neither'} of --by and --protocol",
            "Give either --by speaker, --by clip or --protocol NAME.",
        )
    if protocol and (folds is not None or seed is not None):
        raise UsageError(
            "A protocol has folds of its own.",
            f"--protocol {protocol}",
            "Leave --folds and --seed out.",
        )
    attrs: dict[str, Any] = {"by": by, "seed": seed or 0}
    with FeatureFile(path) as file:
        if protocol:
            made, notes = apply(protocol, file)
            attrs = {"protocol": protocol, "protocol_sha256": PROTOCOLS[protocol].sha256}
        else:
            # `or` would make one split of a wrong 0.
            made, notes = splits.by_units(file, 1 if folds is None else folds, by, seed or 0), []
        if name:
            if len(made) > 1:
                raise UsageError(
                    "Folds have names of their own.", f"--name {name}", "Leave --name out."
                )
            made = {name: next(iter(made.values()))}
        speakers = file.column("speaker")
        if by == "clip" and any(speakers):
            notes.append("speakers are known and are in several parts: scores will be too good")
        else:
            notes += [f"{n}: {leak}" for n, s in made.items() for leak in splits.leaks(file, s)]
        rows = [_row(n, s, speakers, splits.digest(file.ids, s)) for n, s in made.items()]
    splits.add(path, made, dict.fromkeys(made, attrs), overwrite)
    return DivideReport(str(path), attrs, rows, notes)


def _row(name: str, split: list[str], speakers: list[str], sha256: str) -> dict[str, Any]:
    """Clips and known speakers of each part of a split."""
    row: dict[str, Any] = {"name": name, "sha256": sha256}
    for part in SPLITS:
        known = [who for who, s in zip(speakers, split, strict=True) if s == part]
        row[part] = {"clips": len(known), "speakers": len(set(known) - {""})}
    return row
