"""One clip, from its media file to its own small feature file; runs in any process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertool import media
from mertool.config import to_dict
from mertool.errors import MediaError, MertoolError, MertoolWarning, OutputError
from mertool.files import sha256
from mertool.registry import registry
from mertool.store import Stream, Writer, json_attr
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
        notes: Warnings.
    """

    index: int
    failure: tuple[str, str] | None = None
    notes: list[str] = field(default_factory=list)


# Extractors are built once per process: loading a model takes longer than a clip.
_BUILT: dict[str, Any] = {}


def _extractor(plan: StreamPlan) -> Any:
    key = json.dumps(plan.key(), sort_keys=True)
    if key not in _BUILT:
        _BUILT[key] = registry().load("extractor", plan.name)(plan.config, "auto")
    return _BUILT[key]


def part_name(clip: Clip, plans: list[StreamPlan]) -> str:
    """File name of a clip's part: a hash of all that decides its content.

    Equal name, equal content: so a resumed run takes exactly the parts that still hold, and an
    id such as "../x" cannot leave the folder.
    """
    try:
        stat = clip.media.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        stamp = []
    what = [
        [plan.modality, plan.key()] for plan in plans
    ] + [clip.id, clip.path, clip.source, clip.start, clip.end, clip.text, stamp]  # fmt: skip
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24] + ".h5"


def extract_clip(index: int, clip: Clip, plans: list[StreamPlan], part: Path) -> Outcome:
    """Extract every stream of one clip and write its part file.

    Args:
        index: The clip's place in the manifest.
        clip: The clip.
        plans: One per stream.
        part: The file to write; it appears only when complete.

    Returns:
        What became of it; a failure of this clip alone is no exception.

    Raises:
        MertoolError: An extractor cannot be built, or the part cannot be written: the whole
            run must stop.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MertoolWarning)
        extractors = {plan.modality: _extractor(plan) for plan in plans}
        stage = "media"
        try:
            clip = _measure(clip)
            rows: dict[str, Rows] = {}
            for plan in plans:
                stage = f"{plan.modality}:{plan.name}"
                rows[plan.modality] = extractors[plan.modality].extract(clip)
            stage = "store"
            notes = [str(w.message) for w in caught if issubclass(w.category, MertoolWarning)]
            streams = {plan.modality: _stream(plan, extractors[plan.modality]) for plan in plans}
            with Writer(part, streams, attrs={"notes": json.dumps(notes)}) as writer:
                writer.add(clip, rows)
        except OutputError:
            raise
        except MertoolError as error:
            return Outcome(index, (stage, " ".join(str(error).split())))
        except Exception as error:  # a decoder's or an extractor's: this clip's, not the run's
            return Outcome(index, (stage, f"{type(error).__name__}: {error}"))
    return Outcome(index, None, notes)


def _measure(clip: Clip) -> Clip:
    """Check the clip's media and fill in its true end and its hash."""
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
    words = [Word(clip.text[a:b], 0.0, 0.0) for a, b in split_words(clip.text)]
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


def extract_in_worker(*args: Any) -> Outcome:
    """`extract_clip` in a worker process, where Ctrl-C is left to the parent."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return extract_clip(*args)
