"""Checks of readers; they need something to read."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mertool.errors import DataError
from mertool.testing.common import Plugin, check_all, check_config, check_import
from mertool.testing.results import NotRun, Result, need
from mertool.types import Clip


def check_reader(
    name: str, source: str | Path | None = None, settings: Sequence[str] = ()
) -> list[Result]:
    """Run every check of a registered reader.

    Args:
        name: Its registered name.
        source: A small file or folder that it can read; None = how it reads is not checked.
        settings: "reader.key=value" settings to read it with.

    Returns:
        One result per check; `failed` picks those that break the contract.

    Raises:
        UsageError: There is no such reader, or a setting is wrong.
        PluginError: Two plugins register the name.
        DataError: There is no such source.
    """
    if source is not None and not Path(source).exists():
        raise DataError("There is no such file or folder.", str(source), "Check the path.")

    def subject(plugin: Plugin) -> Subject:
        return Subject(plugin, source, settings)

    return check_all("reader", name, "reader", settings, CHECKS, subject)


class Subject:
    """A reader and what it is to read.

    Attributes:
        entry: What is registered.
        section: "reader".
        config: Its settings.
        settings: The same, as they were given.
    """

    def __init__(self, plugin: Plugin, source: str | Path | None, settings: Sequence[str]) -> None:
        self.entry, self.section, self.config = plugin.entry, plugin.section, plugin.config
        self.settings = settings
        self._source, self._cls = source, plugin.cls

    @property
    def source(self) -> Path:
        """What to read."""
        if self._source is None:
            raise NotRun("no source to read was given")
        return Path(self._source)

    def build(self) -> Any:
        """A new reader."""
        return self._cls(self.config)


def check_clips(reader: Subject) -> None:
    """It gives clips, each with an id of its own."""
    clips = list(reader.build().clips(reader.source))
    need(clips, "no clips")
    need(all(isinstance(clip, Clip) for clip in clips), "not all that clips() gives are Clips")
    ids = [clip.id for clip in clips]
    need(len(set(ids)) == len(ids), f"{len(ids) - len(set(ids))} ids are not unique")


def check_rows(reader: Subject) -> None:
    """Rows are finite float32 numbers."""
    for clip in reader.build().clips(reader.source):
        for name, rows in (clip.streams or {}).items():
            where = f'stream "{name}" of clip "{clip.id}"'
            need(rows.values.dtype == np.float32, f"{where}: {rows.values.dtype}")
            need(np.isfinite(rows.values).all(), f"{where}: values that are not finite")


def check_twice(reader: Subject) -> None:
    """Asked twice, it gives the same clips, in the same order."""
    one = reader.build()
    passes = [[_plain(clip) for clip in one.clips(reader.source)] for _ in range(2)]
    need(passes[0] == passes[1], "the second pass gives other clips")


def check_whole(reader: Subject) -> None:
    """`mertool data import` makes a feature file of it."""
    from mertool.readers import run

    with tempfile.TemporaryDirectory() as folder:
        report = run(reader.entry.name, reader.source, Path(folder) / "x.h5", reader.settings)
    need(report.clips, "the feature file has no clips")


def _plain(clip: Clip) -> Any:
    streams = {
        name: [None if a is None else np.asarray(a).tobytes() for a in vars(rows).values()]
        for name, rows in (clip.streams or {}).items()
    }
    # As text: labels that are NaN, or arrays, would not be equal to themselves.
    return repr(dataclasses.replace(clip, streams=None)), streams


CHECKS = {
    "import": check_import,
    "config": check_config,
    "clips": check_clips,
    "rows": check_rows,
    "twice": check_twice,
    "whole": check_whole,
}
