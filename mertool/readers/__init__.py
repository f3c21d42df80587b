"""Reading the feature sets of others into a feature file: `mertool data import`."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertool.config import resolve, settings_of, to_dict
from mertool.errors import DataError, MertoolError, MertoolWarning, PluginError
from mertool.files import sha256
from mertool.readers.survey import Survey, split_of
from mertool.registry import registry
from mertool.store import FeatureFile, Stream, Writer, check_output, json_attr
from mertool.types import SPLITS, Clip


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        out: The feature file.
        clips: Number of clips in it.
        alignment: "none", "word" or "segments:N".
        splits: {split: {"train", "valid", "test" or "(none)": number of clips}}.
        streams: {stream: columns, rows, empty_clips, ...}, as `mertool data info` has them.
        labels: {label: task, classes, range, missing}, likewise.
        notes: What a user should know of what was read.
    """

    out: str
    clips: int = 0
    alignment: str = "none"
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run(
    format: str,  # noqa: A002  (what users call it)
    source: str | Path,
    out: str | Path,
    settings: Sequence[str] = (),
    overwrite: bool = False,
    command: str = "",
    *,
    progress: bool = False,
) -> ImportReport:
    """Read the features of others into a feature file.

    The reader's clips are gone through twice: to learn the widths of the streams and what the
    labels are, then to write. No more than one clip is held, beyond what the reader itself holds.

    Args:
        format: Name of a registered reader.
        source: What it reads: a file or a folder.
        out: Feature file to write.
        settings: "reader.key=value" settings of the reader.
        overwrite: Replace `out` if it exists.
        command: The command line, recorded in the file.
        progress: Show a progress bar on stderr, if that is a terminal.

    Returns:
        What is in the file.

    Raises:
        UsageError: An unknown format or setting.
        DataError: The source is missing or not as it should be: two clips with one id, rows that
            are not finite or not as wide as those before, a label of two kinds.
        PluginError: The reader fails, or breaks the contract.
        OutputError: The output exists or cannot be written.
    """
    from tqdm import tqdm

    cls = registry().load("reader", format)
    config = resolve({"reader": settings_of(cls, f'the reader "{format}"')}, settings)["reader"]
    source, out = Path(source), Path(out)
    if not source.exists():
        raise DataError("There is no such file or folder.", str(source), "Check the path.")
    check_output(out, overwrite)
    what = f'The reader "{format}"'
    reader = cls(config)

    found = Survey(what, str(source), hasattr(config, "nonfinite"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MertoolWarning)
        for clip in _clips(reader, source, what):
            found.add(clip)
    found.finish()
    said = Counter(str(w.message) for w in caught if issubclass(w.category, MertoolWarning))
    notes = [note if n == 1 else f"{note} ({n} clips)" for note, n in said.items()]
    notes += [f'label "{name}" has no value in any clip: left out' for name in found.blank]

    origin = {"file": source.name, "sha256": sha256(source) if source.is_file() else ""}
    common = {
        "extractor": f"import:{format}",
        "config": json_attr({**to_dict(config), **origin}),
        "owner": registry().get("reader", format).owner,
        **dict.fromkeys(("version", "model", "revision", "licence"), ""),
        "rate": 0.0,
        "timed": False,
    }
    info, columns = getattr(reader, "info", {}), getattr(reader, "columns", {})
    streams = {
        name: Stream(
            tuple(columns.get(name) or (f"{name}_{i}" for i in range(width))),
            {**common, **info.get(name, {})},
            found.text[name],
        )
        for name, width in found.widths.items()
    }
    for name, stream in streams.items():
        if len(stream.columns) != found.widths[name]:
            raise PluginError(
                f"{what} names {len(stream.columns)} columns for {found.widths[name]}.",
                f'stream "{name}"',
                "Report this to the reader's author.",
            )
    attrs = {
        "command": command,
        "dataset": source.stem if source.is_file() else source.absolute().name,
        "alignment": getattr(reader, "alignment", "none"),
    }
    with (
        warnings.catch_warnings(),
        Writer(out, streams, list(found.labels.values()), attrs) as writer,
    ):
        warnings.simplefilter("ignore")  # said in the first pass
        bar = tqdm(
            _clips(reader, source, what),
            "import",
            len(found.ids),
            unit="clip",
            disable=None if progress else True,
        )
        again = []
        for clip in bar:
            again.append(clip.id)
            writer.add(found.plain(clip), clip.streams or {})
        if again != list(found.ids):
            raise PluginError(
                f"{what} gave other clips when it was asked again.",
                str(source),
                "Its clips(source) must give the same each time; tell its author.",
            )
        for name, values in _splits(reader, source, found, what).items():
            writer.split(name, values)
    with FeatureFile(out) as file:
        facts = file.info()
        counts = {name: Counter(file.split(name)) for name in file.splits}
    return ImportReport(
        out=str(out),
        clips=len(found.ids),
        alignment=facts["alignment"],
        splits={
            name: {s or "(none)": n[s] for s in (*SPLITS, "") if n[s]} for name, n in counts.items()
        },
        streams=facts["streams"],
        labels=facts["labels"],
        notes=notes,
    )


def _clips(reader: Any, source: Path, what: str) -> Iterator[Clip]:
    """The reader's clips; what fails in a reader of others is told as such."""
    try:
        yield from reader.clips(source)
    except MertoolError:
        raise
    except Exception as error:  # foreign code
        raise PluginError(
            f"{what} failed: {type(error).__name__}: {error}",
            str(source),
            "Is the file of that format? --debug shows the traceback.",
        ) from error


def _splits(reader: Any, source: Path, found: Survey, what: str) -> dict[str, list[str]]:
    """{name: (N,) split of each clip} of the named splits that the reader knows."""
    if not hasattr(reader, "splits"):
        return {}
    result = {}
    for name, places in reader.splits(source).items():
        strangers = places.keys() - found.ids.keys()
        if strangers:
            raise PluginError(
                f'{what} puts a clip that it does not give into the split "{name}".',
                f"{len(strangers)} such, the first: {min(strangers)}",
                "Report this to the reader's author.",
            )
        result[name] = [split_of(places.get(i, ""), f'split "{name}", clip {i}') for i in found.ids]
    return result


def recordings(ids: Sequence[str]) -> list[str]:
    """The recording that each id names where all are VIDEO_N and a VIDEO has several, else "".

    Utterances of one recording share their speaker: what divides clips must keep them together.

    >>> recordings(["a_1", "a_2", "b_1"])
    ['a', 'a', 'b']
    >>> recordings(["clip_1", "clip_2"])
    ['', '']
    """
    parts = [re.fullmatch(r"(.+?)(?:\$_\$|_)\d+", i) for i in ids]
    names = [part[1] for part in parts if part]
    # One name for all, or names of splits, say where a clip stands and not what it was cut from.
    told = len(names) == len(ids) and 1 < len(set(names)) < len(ids)
    return names if told and not set(names) <= {*SPLITS, "val", "dev"} else [""] * len(ids)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON document is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
