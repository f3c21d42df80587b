"""Checks of forced aligners."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mertool.testing import clips
from mertool.testing.common import Plugin, check_all, check_config, check_import
from mertool.testing.results import Result, need
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.times import filled
from mertool.transcripts.write import save_json
from mertool.types import Clip, Word
from mertool.words import split_words

TEXT = "one two three"


def check_aligner(name: str, settings: Sequence[str] = ()) -> list[Result]:
    """Run every check of a registered aligner, on an English sentence and on odd clips.

    Args:
        name: Its registered name.
        settings: "align.key=value" settings to check it with.

    Returns:
        One result per check; `failed` picks those that break the contract.

    Raises:
        UsageError: There is no such aligner, or a setting is wrong.
        PluginError: Two plugins register the name.
    """
    with tempfile.TemporaryDirectory() as folder:

        def subject(plugin: Plugin) -> Subject:
            return Subject(plugin, Path(folder))

        return check_all("aligner", name, "align", settings, CHECKS, subject)


class Subject:
    """An aligner and the clips it is tried on.

    Attributes:
        entry: What is registered.
        section: "align".
        config: Its settings.
        folder: Where odd clips are written.
    """

    def __init__(self, plugin: Plugin, folder: Path) -> None:
        self.entry, self.section, self.config = plugin.entry, plugin.section, plugin.config
        self.folder, self._cls = folder, plugin.cls

    @cached_property
    def one(self) -> Any:
        """The aligner, as a process has one."""
        return self._cls(self.config)

    @cached_property
    def ordinary(self) -> Clip:
        """A face that speaks a sentence."""
        clip = clips.ordinary()
        copy = shutil.copy(clip.media, self.folder)
        return self._with_file(dataclasses.replace(clip, path=Path(copy).name))

    @cached_property
    def silent(self) -> Clip:
        """Half a second of silence with words to place."""
        return self._with_file(clips.blank(self.folder, TEXT))

    def _with_file(self, clip: Clip) -> Clip:
        """The clip, in a folder where a transcript stands beside it, for aligners that read one.

        Its words follow each other evenly: it is no help to those that do not.
        """
        clip = dataclasses.replace(clip, source=str(self.folder))
        spans = split_words(clip.text)
        texts = [clip.text[a:b] for a, b in spans]
        words = filled([None] * len(texts), texts, clip.start, clip.end)
        words = tuple(dataclasses.replace(word, score=0.5) for word in words)
        cue = Cue(clip.text, clip.start, clip.end, words)
        save_json(clip.media.with_suffix(".json"), Transcript([cue], clip.language))
        return clip

    @cached_property
    def aligned(self) -> list[tuple[Clip, list[Word]]]:
        """Both with their words."""
        return [(clip, list(self.one.align(clip))) for clip in (self.ordinary, self.silent)]


def check_words(aligner: Subject) -> None:
    """One Word for each word of the transcript, in its spelling."""
    for clip, words in aligner.aligned:
        expected = [clip.text[a:b] for a, b in split_words(clip.text)]
        need(all(isinstance(w, Word) for w in words), "not all that align gives are Words")
        need([w.text for w in words] == expected, f"{[w.text for w in words]} for {expected}")


def check_order(aligner: Subject) -> None:
    """Words follow each other and do not overlap."""
    for clip, words in aligner.aligned:
        edges = [edge for w in words for edge in (w.start, w.end)]
        need(edges == sorted(edges), f"clip {clip.id}: words overlap or are out of order")


def check_inside(aligner: Subject) -> None:
    """Words lie inside the clip; times count from its start."""
    part = clips.part(aligner.ordinary, 0.3, aligner.ordinary.end)
    for clip, words in (*aligner.aligned, (part, aligner.one.align(part))):
        length = clip.end - clip.start
        inside = all(0 <= w.start <= w.end <= length + 1e-6 for w in words)
        need(inside, f"clip {clip.id}, {length:.2f} s long: {[(w.start, w.end) for w in words]}")


def check_scores(aligner: Subject) -> None:
    """Scores are from 0 to 1, or -1 for a word that was placed, not aligned."""
    for _, words in aligner.aligned:
        wrong = [w.score for w in words if not (0 <= w.score <= 1 or w.score == -1)]
        need(not wrong, f"scores {wrong[:3]}")


def check_empty(aligner: Subject) -> None:
    """An empty transcript gives no words."""
    empty = dataclasses.replace(aligner.ordinary, text="", words=[])
    need(len(list(aligner.one.align(empty))) == 0, "words for an empty transcript")


def check_silence(aligner: Subject) -> None:
    """Words that are not there are placed all the same: silence is no failure."""
    words = aligner.one.align(aligner.silent)
    need(len(words) == len(TEXT.split()), f"{len(words)} words placed in silence")


def check_together(aligner: Subject) -> None:
    """With `align_many`, clips together get the words that each gets alone."""
    if not hasattr(aligner.one, "align_many"):
        return
    batch = getattr(aligner.one, "batch", None)
    need(isinstance(batch, int) and batch > 0, f"its batch is {batch!r}, no number of clips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(aligner.one.align_many([clip for clip, _ in aligner.aligned]))
    need(len(found) == len(aligner.aligned), f"{len(found)} lists for {len(aligner.aligned)} clips")
    for (clip, alone), many in zip(aligner.aligned, found, strict=True):
        same = len(alone) == len(many) and all(
            (a.text, a.start, a.end) == (b.text, b.start, b.end) and abs(a.score - b.score) < 1e-3
            for a, b in zip(alone, many, strict=True)
        )
        need(same, f"clip {clip.id}: other words together than alone")


def check_repeat(aligner: Subject) -> None:
    """The same clip gives the same words, after other clips too."""
    for clip, words in reversed(aligner.aligned):
        need(list(aligner.one.align(clip)) == words, f"clip {clip.id}: other words a second time")


CHECKS = {
    "import": check_import,
    "config": check_config,
    "words": check_words,
    "order": check_order,
    "inside": check_inside,
    "scores": check_scores,
    "empty": check_empty,
    "silence": check_silence,
    "together": check_together,
    "repeat": check_repeat,
}
