"""Clips, each from its media file to its own small feature file; runs in any process."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mertool import media
from mertool.config import to_dict
from mertool.errors import (
    MediaError,
    MertoolError,
    MertoolWarning,
    OutputError,
    PluginError,
    one_line,
    readable,
)
from mertool.files import sha256
from mertool.processes import one_thread
from mertool.registry import registry
from mertool.store import Stream, Writer, json_attr
from mertool.store.writer import check_rows
from mertool.types import Clip, Rows, Word
from mertool.words import split_words


@dataclass(frozen=True)
class StreamPlan:
    """How one stream is extracted.

    Attributes:
        name: Extractor name.
        owner: The plugin that registers it, with its version.
        modality: The stream's name: text, audio or vision.
        config: The extractor's config object.
    """

    name: str
    owner: str
    modality: str
    config: Any

    def key(self) -> dict[str, Any]:
        """What decides the stream's values, as plain data."""
        return {"name": self.name, "owner": self.owner, "config": to_dict(self.config)}


@dataclass
class Outcome:
    """What became of one clip.

    Attributes:
        index: Its place in the manifest.
        failure: (stage, error), or None.
        trace: The failure's traceback.
    """

    index: int
    failure: tuple[str, str] | None = None
    trace: str = ""


Task = tuple[int, Clip, list[StreamPlan], Path]  # what `extract_clip` takes

DIED = "the worker process died on this clip: a crash, or no memory left"

# Longer clips fill a GPU by themselves, and together they would fill the memory.
TOGETHER = 600.0  # seconds of media

# Extractors are built once per process: loading a model takes longer than a clip.
_BUILT: dict[str, Any] = {}


def _extractor(plan: StreamPlan) -> Any:
    key = json.dumps(plan.key(), sort_keys=True)
    if key not in _BUILT:
        cls = registry().load("extractor", plan.name)
        try:
            _BUILT[key] = cls(plan.config, "auto")
        except MertoolError:
            raise
        except Exception as error:  # foreign code
            raise PluginError(
                f'The extractor "{plan.name}" cannot be started: {one_line(error)}',
                plan.owner,
                f"Install what it needs, or choose another: --{plan.modality} NAME|none",
            ) from error
    return _BUILT[key]


def part_name(clip: Clip, plans: list[StreamPlan]) -> str:
    """File name of a clip's part: a hash of all that decides its content.

    Equal name, equal content: so a resumed run takes exactly the parts that still hold, and an
    id such as "../x" cannot leave the folder.
    """
    what = [
        [plan.modality, plan.key()] for plan in plans
    ] + [
        clip.id, clip.path, clip.source, clip.start, clip.end, clip.text, clip.language,
        stamp_of(clip),
        [[word.start, word.end, word.score] for word in clip.words or ()],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24] + ".h5"


def stamp_of(clip: Clip) -> list[int]:
    """Size and time of a clip's media file, by which a changed one is known; [] without it."""
    try:
        stat = clip.media.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def batch_of(extractor: Any) -> int:
    """Clips that an extractor (or its class, at most) takes at once; most take one."""
    return extractor.batch if hasattr(extractor, "extract_many") else 1


def extract_group(tasks: list[Task]) -> list[Outcome]:
    """Extract several clips; see `extract_clips`."""
    return list(extract_clips(tasks))


def extract_clips(tasks: list[Task]) -> Iterator[Outcome]:
    """Extract several clips of the same plans, one at a time but for what is made together.

    Raises:
        MertoolError: As `extract_clip`.
    """
    ahead = _together(tasks)
    for task in tasks:
        yield extract_clip(*task, ahead.get(task[0]))


def _together(tasks: list[Task]) -> dict[int, dict[str, Rows]]:
    """{place of a clip: {stream: rows}} of the extractors that take several clips at once here.

    Nothing where a clip fails or has a note: one at a time, it is known whose that is.
    """
    if len(tasks) == 1:
        return {}
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sys.stderr),
        one_thread(),
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", MertoolWarning)
        extractors = [(plan.modality, _extractor(plan)) for plan in tasks[0][2]]
        extractors = [(m, e) for m, e in extractors if batch_of(e) > 1]
        if not extractors:
            return {}
        try:
            clips = [measure(clip) for _, clip, _, _ in tasks]
            if sum(clip.end - clip.start for clip in clips) > TOGETHER:
                return {}
            made = {m: list(e.extract_many(clips)) for m, e in extractors}
            return {
                task[0]: {m: rows[i] for m, rows in made.items()} for i, task in enumerate(tasks)
            }
        except (Exception, SystemExit):
            return {}


def extract_clip(
    index: int,
    clip: Clip,
    plans: list[StreamPlan],
    part: Path,
    ahead: dict[str, Rows] | None = None,
) -> Outcome:
    """Extract every stream of one clip and write its part file.

    Args:
        index: The clip's place in the manifest.
        clip: The clip.
        plans: One per stream.
        part: The file to write; it appears only when complete.
        ahead: Rows of streams that are made already.

    Returns:
        What became of it; a failure of this clip alone is no exception.

    Raises:
        MertoolError: An extractor cannot be built, or the part cannot be written: the whole
            run must stop.
    """
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(sys.stderr),  # stdout is for results; extractors may chat
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MertoolWarning)
        extractors = {plan.modality: _extractor(plan) for plan in plans}
        stage = "media"
        try:
            clip = measure(clip)
            streams: dict[str, Stream] = {}
            rows: dict[str, Rows] = {}
            for plan in plans:
                stage, name = f"{plan.modality}:{plan.name}", plan.modality
                if ahead and name in ahead:
                    rows[name] = ahead[name]
                else:
                    with one_thread():
                        rows[name] = extractors[name].extract(clip)
                streams[name] = _stream(plan, extractors[name])
                check_rows(rows[name], streams[name], f"{plan.name} of {plan.owner}")
            stage = "store"
            notes = [str(w.message) for w in caught if issubclass(w.category, MertoolWarning)]
            with Writer(part, streams, attrs={"notes": json.dumps(notes)}) as writer:
                writer.add(clip, rows)
        except OutputError:
            raise
        # A decoder's or an extractor's, even one that calls sys.exit: this clip's, not the run's.
        except (Exception, SystemExit) as error:
            return Outcome(index, (stage, one_line(error)), traceback.format_exc())
    return Outcome(index)


def measure(clip: Clip) -> Clip:
    """Check the clip's media and fill in its true end, its hash and the words of its transcript.

    Raises:
        MediaError: The media cannot be read, or the clip lies behind its end.
    """
    for text in (clip.id, clip.path, clip.source):
        if readable(text) != text:
            raise MediaError(
                "The file's name is not valid UTF-8.", readable(text), "Give it another name."
            )
    words = clip.words
    if words is None:
        words = [Word(clip.text[a:b], 0.0, 0.0) for a, b in split_words(clip.text)]
    if not clip.path:  # a transcript alone, of an imported file
        return dataclasses.replace(clip, words=words)
    info = media.probe(clip.media)
    end = info.duration if clip.end is None else min(clip.end, info.duration)
    if clip.start >= info.duration:
        raise MediaError(
            f"The clip starts at {clip.start:g} s, the file ends at {info.duration:g} s.",
            str(clip.media),
            "Mend the manifest.",
        )
    if clip.end is not None and clip.end > info.duration + 0.1:
        warnings.warn(
            f"its end, {clip.end:g} s, is past the file's, {info.duration:g} s",
            MertoolWarning,
            stacklevel=2,
        )
    return dataclasses.replace(clip, end=end, sha256=sha256(clip.media), words=words)


def _stream(plan: StreamPlan, extractor: Any) -> Stream:
    text = plan.modality == "text"
    attrs = {
        "version": "", "model": "", "revision": "", "licence": "", "rate": 0.0,
        **getattr(extractor, "info", {}),
        "extractor": plan.name,
        "config": json_attr(to_dict(plan.config)),
        "owner": plan.owner,
        "timed": not text,
    }  # fmt: skip
    return Stream(tuple(extractor.columns), attrs, text)
