"""Where the words of every clip are: from the file, or from an aligner, in parallel."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mertool.errors import DataError, MertoolError, MertoolWarning, one_line
from mertool.processes import in_workers
from mertool.store import FeatureFile
from mertool.types import Clip, Word
from mertool.words import split_words


@dataclass(frozen=True)
class Plan:
    """What to do with every clip.

    Attributes:
        segments: Number of equal segments; 0 = words.
        pool: How rows are pooled.
        use_words: Word times are needed.
        aligner: Class of the aligner.
        config: Its settings.
        media: Folder of the media instead of each clip's source.
    """

    segments: int
    pool: str
    use_words: bool
    aligner: type
    config: Any
    media: str | None


@dataclass
class Found:
    """Words of one clip, or why there are none."""

    words: list[Word] | None = None
    error: str = ""
    notes: list[str] = field(default_factory=list)


def _stored(clip: Clip) -> bool:
    """Whether the file has the times of the clip's words already."""
    words = clip.words or []
    return len(words) == len(split_words(clip.text)) and any(w.score >= 0 for w in words)


def _media_of(clip: Clip, plan: Plan) -> Path:
    return Path(plan.media or clip.source) / clip.path


def needs_media(file: FeatureFile, plan: Plan) -> bool:
    """Whether any clip needs the aligner; refuse if no media are there at all."""
    missing = None
    columns = zip(*(file.column(key) for key in ("path", "source", "text")), strict=True)
    for i, (path, source, text) in enumerate(columns):
        clip = Clip("", path, source, text=text)
        if split_words(text) and not _stored(replace(clip, words=file.words(i))):
            missing = missing or clip
            if path and _media_of(clip, plan).is_file():
                return True
    if missing is None:
        return False
    where = str(_media_of(missing, plan)) if missing.path else "The clips name no media files."
    raise DataError(
        "The words have no times yet, and no clip's media can be found to align them with.",
        where,
        "Say where the media are: --media DIR (the folder that extract was given)",
    )


def place_words(file: FeatureFile, plan: Plan, jobs: int) -> Iterator[tuple[Clip, Found]]:
    """Every clip with its words, in order."""
    if jobs == 1:
        for clip in file:
            yield clip, _find(replace(clip, streams=None), plan)
        return
    # Workers need no rows. Results come as they finish and wait here for their turn.
    tasks = ((file.clip(i, rows=False), plan) for i in range(len(file)))
    early: dict[int, Found] = {}
    turn = 0
    for place, found in in_workers(_find, tasks, jobs):
        early[place] = found
        while turn in early:
            yield file.clip(turn), early.pop(turn)
            turn += 1
    if turn < len(file):
        raise MertoolError(
            "A worker process died: killed for its memory, or crashed on a damaged file.",
            f"{file.path}, at or soon after clip {file.ids[turn]}",
            "Try again with fewer processes (-j 1).",
        )


@functools.lru_cache(maxsize=1)
def aligner_of(cls: type, config: Any) -> Any:
    """The aligner of this process."""
    return cls(config)


def _find(clip: Clip, plan: Plan) -> Found:
    """Find the words of one clip; whatever goes wrong concerns this clip alone."""
    if not plan.use_words or _stored(clip):
        return Found(clip.words)
    if not split_words(clip.text):
        return Found([])
    path = _media_of(clip, plan)
    if not (clip.path and path.is_file()):
        return Found(error=f"The media file is missing: {path}" if clip.path else "No media file.")
    source = plan.media or clip.source
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = Found(aligner_of(plan.aligner, plan.config).align(replace(clip, source=source)))
            _check_words(found.words, clip)
        except Exception as error:  # a broken clip, or a foreign aligner's mistake
            found = Found(error=one_line(error))
    found.notes = [str(w.message) for w in caught if issubclass(w.category, MertoolWarning)]
    return found


def _check_words(words: Sequence[Word], clip: Clip) -> None:
    expected = len(split_words(clip.text))
    if len(words) != expected:
        raise DataError(f"The aligner gave {len(words)} words for {expected}.")
    times = np.array([(w.start, w.end) for w in words])
    if not (np.isfinite(times).all() and (np.diff(times.ravel()) >= 0).all() and times[0, 0] >= 0):
        raise DataError("The aligner gave words that are out of order or overlap.")
