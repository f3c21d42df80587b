"""Checks of feature extractors."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mertool.errors import MertoolWarning
from mertool.registry import registry
from mertool.store import Stream
from mertool.store.writer import check_rows
from mertool.testing import clips
from mertool.testing.common import Plugin, check_all, check_config, check_import
from mertool.testing.results import NotRun, Result, need
from mertool.types import Clip, Rows

SLACK = 0.05  # seconds; the last frame's or window's cell may end this much behind the clip
RATES_DIFFER = 0.1  # of a column's spread, on average


def check_extractor(name: str, settings: Sequence[str] = ()) -> list[Result]:
    """Run every check of a registered extractor.

    Args:
        name: Its registered name.
        settings: "MODALITY.key=value" settings to check it with.

    Returns:
        One result per check; `failed` picks those that break the contract.

    Raises:
        UsageError: There is no such extractor, or a setting is wrong.
        PluginError: Two plugins register the name.
    """
    modality = str(registry().get("extractor", name).facts.get("modality", ""))
    with tempfile.TemporaryDirectory() as folder:

        def subject(plugin: Plugin) -> Subject:
            return Subject(plugin, Path(folder))

        return check_all("extractor", name, modality, settings, CHECKS, subject)


class Subject:
    """An extractor and the clips it is tried on.

    Attributes:
        entry: What is registered.
        section: Its modality: text, audio or vision.
        config: Its settings.
        folder: Where odd clips are written.
    """

    def __init__(self, plugin: Plugin, folder: Path) -> None:
        self.entry, self.section, self.config = plugin.entry, plugin.section, plugin.config
        self.folder, self._cls = folder, plugin.cls

    def build(self) -> Any:
        """A new extractor."""
        return self._cls(self.config, "auto")

    @cached_property
    def one(self) -> Any:
        """The extractor that most checks use, as a process has one."""
        return self.build()

    @cached_property
    def ordinary(self) -> Clip:
        """A face that speaks a sentence."""
        return clips.ordinary()

    def rows(self, clip: Clip, extractor: Any = None) -> Rows:
        """The rows of a clip, as the pipeline takes them."""
        extractor = extractor or self.one
        rows = extractor.extract(clip)
        stream = Stream(tuple(extractor.columns), {}, self.section == "text")
        check_rows(rows, stream, self.entry.name)
        return rows


def check_modality(extractor: Subject) -> None:
    """It says whether it reads text, audio or vision."""
    known = ("text", "audio", "vision")
    need(extractor.section in known, f'modality is "{extractor.section}", not one of {known}')


def check_columns(extractor: Subject) -> None:
    """Columns are D different names, and an ordinary clip gives finite rows of them."""
    rows = extractor.rows(extractor.ordinary)
    columns = list(extractor.one.columns)
    need(all(isinstance(c, str) and c for c in columns), "columns are not all names")
    need(columns and len(set(columns)) == len(columns), "columns are none, or two have one name")
    need(len(rows), "a face that speaks a sentence gives no row")
    need(rows.values.dtype == np.float32, f"values are of type {rows.values.dtype}")


def check_places(extractor: Subject) -> None:
    """Times run forward inside the clip; text rows lie inside the transcript."""
    whole = extractor.ordinary
    for clip in (whole, clips.part(whole, 0.5, 1.2)):
        rows = extractor.rows(clip)
        if extractor.section == "text":
            lie = ((rows.span >= 0) & (rows.span <= len(clip.text))).all()
            need(lie and (rows.span[:, 0] <= rows.span[:, 1]).all(), "spans leave the transcript")
            need(
                ((rows.word >= -1) & (rows.word < len(clip.words))).all(),
                "rows name words that the transcript has not",
            )
            continue
        start, end = rows.times.T
        need((start <= end).all(), "a row ends before it starts")
        need((np.diff(start) >= 0).all(), "rows are not in the order of time")
        length = clip.end - clip.start
        need(
            not len(rows) or (start[0] >= 0 and end.max() <= length + SLACK),
            f"rows from {start.min(initial=0):.2f} to {end.max(initial=0):.2f} s in a clip of "
            f"{length:.2f} s (times count from the clip's start)",
        )


def check_blank(extractor: Subject) -> None:
    """Silence, black frames and an empty transcript are no failure."""
    extractor.rows(clips.blank(extractor.folder))


def check_brief(extractor: Subject) -> None:
    """A clip of 50 ms is no failure."""
    extractor.rows(clips.part(extractor.ordinary, 0.5, 0.55))


def check_absent(extractor: Subject) -> None:
    """A clip without sound, picture or transcript gives no rows, and a note that says so."""
    made = clips.mute if extractor.section in ("text", "audio") else clips.blind
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = extractor.rows(made(extractor.folder))
    need(not len(rows), f"{len(rows)} rows of a clip without {extractor.section}")
    noted = any(issubclass(w.category, MertoolWarning) for w in caught)
    need(noted, "no MertoolWarning says why there are no rows")


def check_repeat(extractor: Subject) -> None:
    """The same clip gives the same bytes, after other clips and from a new extractor too."""
    first = extractor.rows(extractor.ordinary)
    extractor.rows(clips.part(extractor.ordinary, 0.2, 0.7))
    _equal(extractor.rows(extractor.ordinary), first, "a second time")
    _equal(extractor.rows(extractor.ordinary, extractor.build()), first, "a new extractor")


def check_labels(extractor: Subject) -> None:
    """Rows do not depend on labels, speaker or split."""
    told = dataclasses.replace(
        extractor.ordinary, labels={"sentiment": 3.0}, speaker="someone", split="test"
    )
    # Each from a new extractor: what depends on the clips before is for the check "repeat".
    before, after = (extractor.rows(c, extractor.build()) for c in (extractor.ordinary, told))
    _equal(after, before, "other labels, speaker and split")


def check_rates(extractor: Subject) -> None:
    """Sound of 44.1 kHz gives what sound of 16 kHz gives."""
    if extractor.section != "audio":
        raise NotRun("of audio extractors only")
    one, other = (
        extractor.rows(clips.blind(extractor.folder, rate), extractor.build())
        for rate in (16000, 44100)
    )
    need(abs(len(one) - len(other)) <= 1, f"{len(other)} rows instead of {len(one)}")
    count = min(len(one), len(other))
    a, b = one.values[:count].astype(float), other.values[:count].astype(float)
    # Spread between rows, at least that of a tenth of the column's size: some columns are constant.
    spread = np.maximum(a.std(0), 0.1 * np.abs(a).mean(0)) + 1e-6
    gap = np.median(np.abs(a - b), axis=0) / spread if count else np.zeros(1)
    worst = int(gap.argmax())
    need(
        gap[worst] <= RATES_DIFFER,
        f'column "{extractor.one.columns[worst]}" differs by {gap[worst]:.2g} of its spread',
    )


def _equal(rows: Rows, before: Rows, what: str) -> None:
    for name in ("values", "times", "word", "span"):
        a, b = getattr(rows, name), getattr(before, name)
        equal = (a is None and b is None) or np.asarray(a).tobytes() == np.asarray(b).tobytes()
        need(equal, f"{what}: other {name}")


CHECKS = {
    "import": check_import,
    "config": check_config,
    "modality": check_modality,
    "columns": check_columns,
    "places": check_places,
    "blank": check_blank,
    "brief": check_brief,
    "absent": check_absent,
    "repeat": check_repeat,
    "labels": check_labels,
    "rates": check_rates,
}
