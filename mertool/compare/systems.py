"""Predictions to compare: of runs, and of any other system as a CSV file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertool.errors import DataError
from mertool.types import Label


@dataclass
class System:
    """What one system predicted, as cells of its CSV files.

    Attributes:
        name: As given; of a single modality, with its stream behind.
        seeds: {seed, or "" where the file names none: {clip id: {column: cell}}}.
        label: What is predicted, where a run's model says so.
        run: Whether it is a run folder.
        singles: {stream: that stream alone}, of a run.
        record: {convention: scores}, what the run's metrics.json says of the split.
    """

    name: str
    seeds: dict[int | str, dict[str, dict[str, str]]]
    label: Label | None = None
    run: bool = False
    singles: dict[str, System] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Columns of its CSV files."""
        return list(next(iter(next(iter(self.seeds.values())).values())))


def read(path: str | Path, split: str) -> System:
    """Read a run folder or a CSV file; a split is never opened here.

    Raises:
        DataError: It is neither, or the run keeps no predictions on the split.
    """
    path = Path(path)
    if path.is_dir():
        return _run(path, split)
    if path.suffix.lower() == ".csv":
        return System(str(path), _by_seed(path))
    raise DataError(
        "The file is neither a run nor a CSV." if path.exists() else "There is no such run.",
        str(path),
        "Give the folder that mertool train wrote, or a CSV with the columns id and pred.",
    )


def _run(run: Path, split: str) -> System:
    parts = sorted(run.glob("fold-*")) or [run]
    system = System(str(run), _seeds(run, parts, split), _label(parts), True)
    for name in sorted({p.parent.name for part in parts for p in part.glob("only-*/seed-*")}):
        only = _seeds(run, [part / name for part in parts], split)
        system.singles[name.removeprefix("only-")] = System(f"{run} {name}", only)
    path = run / "metrics.json"
    if path.is_file():
        try:
            system.record = json.loads(path.read_text(encoding="utf-8"))["splits"].get(split, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            fix = f"Remove it and write it anew: mertool evaluate {run} --split {split}"
            raise DataError("The scores of the run cannot be read.", str(path), fix) from error
    return system


def _seeds(run: Path, parts: Sequence[Path], split: str) -> dict[int | str, dict]:
    """{seed: predictions, pooled over the folds}."""
    found = {int(p.name[5:]) for q in parts for p in q.glob("seed-*") if p.name[5:].isdecimal()}
    if not found:
        raise DataError(
            "The folder is no run: it has no seed-* folder.",
            str(run),
            "Give the folder that mertool train wrote, or a CSV with the columns id and pred.",
        )
    pooled: dict[int | str, dict] = {seed: {} for seed in sorted(found)}
    for seed, clips in pooled.items():
        for part in parts:
            path = part / f"seed-{seed}" / f"predictions-{split}.csv"
            if not path.is_file():
                raise DataError(
                    f'The run keeps no predictions on "{split}".',
                    str(path),
                    f"mertool evaluate {run} --split {split}",
                )
            for name, cells in _rows(path):
                if name in clips and len(parts) > 1:
                    raise DataError(
                        f'Several folds predict the same clips on "{split}".',
                        f"{path}, clip {name}",
                        "Compare what each clip is predicted once for: --split test",
                    )
                _add(clips, name, cells, path)
    return pooled


def _label(parts: Sequence[Path]) -> Label | None:
    """The label of the first model, read from the header of its file."""
    from safetensors import SafetensorError, safe_open

    paths = [p for part in parts for p in sorted(part.glob("seed-*/model.safetensors"))]
    if not paths:
        return None
    try:
        with safe_open(paths[0], "numpy") as file:
            known = json.loads((file.metadata() or {})["mertool"])["label"]
        return Label(known["name"], known["task"], tuple(known["classes"]), tuple(known["range"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "The file is no model that mertool wrote.", str(paths[0]), f"({type(error).__name__})"
        ) from error


def _rows(path: Path) -> Iterable[tuple[str, dict[str, str]]]:
    """(clip id, cells) of each line of a CSV."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        "A line has not as many cells as the header.",
                        f"{path}, line {reader.line_num}",
                        "Put texts that hold a comma in double quotes.",
                    )
                rows.append({k: v.strip() for k, v in row.items()})
    except OSError as error:
        where = f"{path}: {error.strerror}"
        raise DataError("The predictions cannot be read.", where, "Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        where = f"{path}: {error}"
        raise DataError("The file is no CSV in UTF-8.", where, "Save it as UTF-8.") from error
    if "id" not in reader.fieldnames or not rows:
        raise DataError(
            "The file holds no predictions." if not rows else 'The column "id" is missing.',
            f"{path} has: {', '.join(reader.fieldnames) or 'nothing'}",
            "A line per clip with the columns id and pred is needed.",
        )
    return [(row["id"], row) for row in rows]


def _by_seed(path: Path) -> dict[int | str, dict]:
    seeds: dict[int | str, dict] = {}
    for name, cells in _rows(path):
        seed = cells.get("seed")
        if seed is not None and not seed.isdecimal():
            raise DataError(
                f'A seed is no whole number: "{seed}".', f"{path}, clip {name}", "Write 1111, say."
            )
        _add(seeds.setdefault("" if seed is None else int(seed), {}), name, cells, path)
    return dict(sorted(seeds.items()))


def _add(clips: dict[str, dict[str, str]], name: str, cells: dict[str, str], path: Path) -> None:
    if name in clips:
        raise DataError(
            "A clip is predicted twice.",
            f"{path}, clip {name}",
            "Keep one line per clip; predictions of several seeds need a seed column.",
        )
    clips[name] = cells
