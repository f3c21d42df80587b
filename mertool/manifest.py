"""From files, folders and manifests to the list of clips to process."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mertool.errors import DataError, did_you_mean
from mertool.media import SUFFIXES
from mertool.transcripts import files
from mertool.types import Clip, Label

_KNOWN = (
    "clip_id", "path", "start", "end", "text", "transcript", "language", "speaker", "split"
)  # fmt: skip
_SPLITS = {
    "": "", "train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"
}  # fmt: skip


@dataclass
class Manifest:
    """The clips to process, in order.

    Attributes:
        clips: With labels and splits filled in.
        labels: What each label column means.
        ignored: Number of media files in the folders that no manifest lists.
        name: Name of the data set: that of the first folder.
        transcripts: {clip id: file with the transcript of its recording}, where there is one.
    """

    clips: list[Clip] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    ignored: int = 0
    name: str = ""
    transcripts: dict[str, Path] = field(default_factory=dict)


@dataclass
class _Row:
    """A clip with its label cells and where it was listed, for error messages."""

    clip: Clip
    cells: dict[str, str]
    where: str
    transcript: Path | None = None


def read(
    sources: Sequence[str | Path], manifest: str | Path | None = None, sidecar: bool = True
) -> Manifest:
    """List the clips of files, folders and manifests.

    Args:
        sources: Media files, folders (a manifest.csv or MMSA label.csv in one is used by itself)
            or manifest CSV files.
        manifest: A manifest for the sources; its paths are relative to itself, else to a source.
        sidecar: Look for transcript files: the manifest's, and for a clip without text the file
            beside its medium. They are named, not read.

    Returns:
        The clips in manifest order, then in path order.

    Raises:
        DataError: A source is missing, a manifest is wrong, two clips have one id, or nothing
            is found.
    """
    found = Manifest()
    rows: list[_Row] = []
    folders = [Path(s).absolute() for s in sources]
    for source in folders:
        if not source.exists():
            raise DataError("There is no such file or folder.", str(source), "Check the path.")
    if manifest is not None:
        roots = [f for f in folders if f.is_dir()]
        rows = _read_csv(Path(manifest).absolute(), roots)
        listed = {row.clip.media.resolve() for row in rows}
        for root in roots:
            found.ignored += sum(p.resolve() not in listed for p in _scan(root))
    else:
        for source in folders:
            listing = _listing(source)
            if listing is not None:
                new = _read_csv(listing, [])
                listed = {row.clip.media.resolve() for row in new}
                if source.is_dir():
                    found.ignored += sum(p.resolve() not in listed for p in _scan(source))
                rows += new
            else:
                rows += _from_files(source)
    _refuse_twins(rows)
    if not rows:
        looked = [manifest] if manifest is not None else [_listing(f) or f for f in folders]
        raise DataError(
            "No clips are found.",
            ", ".join(map(str, looked)) or "no source is given",
            "A manifest needs a line per clip; media files are known by their suffix: "
            + " ".join(sorted(SUFFIXES)),
        )
    found.labels = _label_rows(rows)
    found.clips = [row.clip for row in rows]
    if sidecar:
        found.transcripts = {row.clip.id: path for row in rows if (path := _transcript(row))}
    first = Path(manifest).absolute() if manifest is not None else folders[0]
    found.name = first.name if first.is_dir() else first.parent.name
    return found


def cells(path: Path) -> dict[str, dict[str, str]]:
    """{clip id: every cell of its line} of a manifest, in order.

    Raises:
        DataError: The manifest is wrong.
    """
    rows, (_, lines) = _read_csv(path.absolute(), []), _open_csv(path)
    return {row.clip.id: line for row, (_, line) in zip(rows, lines, strict=True)}


def _listing(source: Path) -> Path | None:
    """The manifest a source stands for, if any."""
    if source.is_file():
        return source if source.suffix.lower() == ".csv" else None
    if (source / "manifest.csv").is_file():
        return source / "manifest.csv"
    mmsa = source / "label.csv"
    if mmsa.is_file() and "video_id" in _open_csv(mmsa)[0]:
        return mmsa
    return None


def _scan(folder: Path) -> list[Path]:
    """Media files below a folder, in path order; hidden ones are left out."""
    paths = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                paths.append(Path(root) / name)
    return sorted(paths)


def _from_files(source: Path) -> list[_Row]:
    paths, root = ([source], source.parent) if source.is_file() else (_scan(source), source)
    return [
        _Row(
            Clip(
                id=path.relative_to(root).with_suffix("").as_posix(),
                path=path.relative_to(root).as_posix(),
                source=str(root),
            ),
            {},
            str(path),
        )
        for path in paths
    ]


def _open_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line number, row) of a CSV file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        "A line of the manifest has not as many cells as the header.",
                        f"{path}, line {reader.line_num}",
                        "Put texts that hold a comma in double quotes.",
                    )
                rows.append((reader.line_num, {k: v.strip() for k, v in row.items()}))
            return header, rows
    except OSError as error:
        raise DataError(
            "The manifest cannot be read.",
            f"{path}: {error.strerror}",
            "Check the path: a manifest is a CSV file.",
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            "The manifest is not a CSV file in UTF-8.", f"{path}: {error}", "Save it as UTF-8."
        ) from error


def _read_csv(path: Path, roots: list[Path]) -> list[_Row]:
    header, lines = _open_csv(path)
    mmsa = "video_id" in header and "path" not in header
    needed = ("video_id", "clip_id") if mmsa else ("clip_id", "path")
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(
            f"The manifest lacks the column {' and '.join(missing)}.",
            f"{path} has: {', '.join(header) or 'nothing'}",
            "A manifest needs clip_id and path (relative to it); any other column is a label. "
            + did_you_mean(missing[0], header),
        )
    twice = {name for name in header if header.count(name) > 1}
    odd = [name for name in header if not name or "/" in name or name == "."]
    if twice or odd:
        raise DataError(
            "A column of the manifest has no usable name.",
            f"{path}: {', '.join(repr(n) for n in sorted(twice) + odd)}",
            'Names are unique, not empty and hold no "/".',
        )
    rows = []
    for number, cells in lines:
        where = f"{path}, line {number}"
        cells = {k: v.replace("\x00", "") for k, v in cells.items()}
        rows.append(_mmsa_row(cells, path, where) if mmsa else _row(cells, path, roots, where))
    return rows


def _row(cells: dict[str, str], path: Path, roots: list[Path], where: str) -> _Row:
    for name in ("clip_id", "path"):
        if not cells[name]:
            raise DataError(f"A clip has no {name}.", where, "Fill in that cell.")
    root = next((r for r in [path.parent, *roots] if (r / cells["path"]).exists()), path.parent)
    clip = Clip(
        id=cells["clip_id"],
        path=cells["path"],
        source=str(root),
        text=cells.get("text", ""),
        language=cells.get("language", ""),
        speaker=cells.get("speaker", ""),
        split=_split(cells.get("split", ""), where),
    )
    clip.start = _seconds(cells, "start", where) or 0.0
    clip.end = _seconds(cells, "end", where)
    if clip.end is not None and clip.end <= clip.start:
        raise DataError("A clip ends before it starts.", where, "Mend start or end (seconds).")
    transcript = None
    if name := cells.get("transcript"):
        transcript = next(
            (r / name for r in [path.parent, *roots] if os.path.isfile(r / name)), None
        )
        if transcript is None:
            raise DataError(
                "A transcript file is missing.",
                f"{where}: {name}",
                "The column transcript names a file, relative to the manifest, or is empty.",
            )
    labels = {k: v for k, v in cells.items() if k not in _KNOWN}
    return _Row(clip, labels, where, transcript)


def _mmsa_row(cells: dict[str, str], path: Path, where: str) -> _Row:
    """A line of MMSA's label.csv; media stand in [Raw/]video_id/clip_id.* beside it."""
    video, name = cells["video_id"], cells["clip_id"]
    folder = next(
        (f for f in (f"Raw/{video}", video) if (path.parent / f).is_dir()), f"Raw/{video}"
    )
    matches = [
        p for p in _scan(path.parent / folder) if p.stem == name
    ] if (path.parent / folder).is_dir() else []  # fmt: skip
    file = matches[0].name if matches else f"{name}.mp4"
    clip = Clip(
        id=f"{video}$_${name}",
        path=f"{folder}/{file}",
        source=str(path.parent),
        text=cells.get("text", ""),
        split=_split(cells.get("mode", ""), where),
        # Segments of one video share their speaker; the corpora name no other.
        speaker=video,
    )
    skip = {"video_id", "clip_id", "text", "mode"}
    return _Row(clip, {k: v for k, v in cells.items() if k not in skip}, where)


def _split(value: str, where: str) -> str:
    if value.lower() not in _SPLITS:
        raise DataError(
            f'There is no split "{value}".', where, "Write train, valid (or dev, val) or test."
        )
    return _SPLITS[value.lower()]


def _seconds(cells: dict[str, str], name: str, where: str) -> float | None:
    value = cells.get(name, "")
    if not value:
        return None
    number = _number(value)
    if number is None or not math.isfinite(number) or number < 0:
        raise DataError(f'{name} is no time in seconds: "{value}".', where, "Write 12.5, say.")
    return number


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _refuse_twins(rows: list[_Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        if row.clip.id in seen:
            raise DataError(
                f'Two clips have the id "{row.clip.id}".',
                f"{seen[row.clip.id]} and {row.where}",
                "Ids are unique: rename one, or list the clips in a manifest.csv.",
            )
        seen[row.clip.id] = row.where


def _label_rows(rows: list[_Row]) -> list[Label]:
    """Decide what each label column is and fill in every clip's labels."""
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    labels = []
    for name in names:
        filled = [(row, row.cells[name]) for row in rows if row.cells.get(name)]
        if not filled:
            continue
        numbers = [_number(cell) for _, cell in filled]
        if any("|" in cell for _, cell in filled):
            parts = [[p.strip() for p in cell.split("|") if p.strip()] for _, cell in filled]
            classes = tuple(sorted({p for ps in parts for p in ps}))
            labels.append(Label(name, "multilabel", classes))
            for (row, _), present in zip(filled, parts, strict=True):
                row.clip.labels[name] = [int(c in present) for c in classes]
        elif all(n is not None for n in numbers):
            finite = [n for n in numbers if math.isfinite(n)]
            if not finite:
                continue
            labels.append(Label(name, "regression", (), (min(finite), max(finite))))
            for (row, _), number in zip(filled, numbers, strict=True):
                if math.isfinite(number):
                    row.clip.labels[name] = number
        else:
            classes = tuple(sorted({cell for _, cell in filled}))
            labels.append(Label(name, "classification", classes))
            for row, cell in filled:
                row.clip.labels[name] = classes.index(cell)
    return labels


def _transcript(row: _Row) -> Path | None:
    """The file with the transcript of a clip's recording: the manifest's, or the one beside it."""
    clip = row.clip
    if row.transcript is not None or clip.text:
        return row.transcript
    path = files.beside(clip.media)
    # A .txt has no times: nobody knows which part of it belongs to a part of the recording.
    if path is not None and path.suffix.lower() == ".txt" and (clip.start or clip.end is not None):
        return None
    return path
