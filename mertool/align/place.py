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
from mertool.processes import in_workers, one_thread
from mertool.store import FeatureFile
from mertool.types import Clip, Word
from mertool.words import split_words

# Longer clips fill a GPU by themselves, and together they would fill the memory.
_TOGETHER = 600.0  # seconds of media
_SORTED = 8  # batches' worth of clips among which those of similar length go together


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
        anew: All words are aligned, those too that have times in the file.
    """

    segments: int
    pool: str
    use_words: bool
    aligner: type
    config: Any
    media: str | None
    anew: bool = False


@dataclass
class Found:
    """Words of one clip, or why there are none."""

    words: list[Word] | None = None
    error: str = ""
    notes: list[str] = field(default_factory=list)


def _timed(clip: Clip) -> bool:
    """Whether the file has times of the clip's words."""
    words = clip.words or []
    return len(words) == len(split_words(clip.text)) and any(w.score >= 0 for w in words)


def _ordered(words: Sequence[Word]) -> bool:
    times = np.array([(w.start, w.end) for w in words])
    return bool(
        np.isfinite(times).all()
        and (times >= 0).all()
        and (times[:, 0] <= times[:, 1]).all()
        and (np.diff(times[:, 0]) >= 0).all()
    )


def _needs_aligner(clip: Clip, plan: Plan) -> bool:
    if not (plan.use_words and split_words(clip.text)):
        return False
    return plan.anew or not (_timed(clip) and _ordered(clip.words))


def _media_of(clip: Clip, plan: Plan) -> Path:
    return Path(plan.media or clip.source) / clip.path


def _can_align(clip: Clip, plan: Plan) -> bool:
    """Whether the aligner has what it needs: the clip's media, unless it looks times up."""
    if not getattr(plan.aligner, "reads_media", True):
        return True
    return bool(clip.path) and _media_of(clip, plan).is_file()


def has_work(file: FeatureFile, plan: Plan) -> bool:
    """Whether any clip needs the aligner and has its media; refuse if none can be placed at all."""
    missing, timed = None, False
    for clip in file.clips(rows=False):
        if _needs_aligner(clip, plan):
            missing = missing or clip
            if _can_align(clip, plan):
                return True
        else:
            timed |= bool(clip.words)
    if missing is None or timed:  # with times of some, the others fail one by one
        return False
    where = str(_media_of(missing, plan)) if missing.path else "The clips name no media files."
    raise DataError(
        "The words cannot be aligned anew: no clip's media can be found."
        if plan.anew
        else "The words have no times yet, and no clip's media can be found to align them with.",
        where,
        "Say where the media are: --media DIR (the folder that extract was given)",
    )


def place_words(
    file: FeatureFile, plan: Plan, jobs: int, batch: int = 1
) -> Iterator[tuple[Clip, Found]]:
    """Every clip with its words, in order.

    Args:
        file: The clips.
        plan: What to do with them.
        jobs: Processes.
        batch: Clips that the aligner takes together; more than one only if it has `align_many`.

    Yields:
        The clips with their rows.
    """
    if jobs == batch == 1:
        for clip in file:
            yield clip, _find(replace(clip, streams=None), plan)
        return
    # The aligner needs no rows. Results come out of order and wait here for their turn.
    tasks = ((group, plan) for group in _groups(file, batch))
    results = (
        (_find_group(*task) for task in tasks)
        if jobs == 1
        else (found for _, found in in_workers(_find_group, tasks, jobs))
    )
    early: dict[int, Found] = {}
    turn = 0
    for found in results:
        early.update(found)
        while turn in early:
            yield file.clip(turn), early.pop(turn)
            turn += 1
    if turn < len(file):
        raise MertoolError(
            "A worker process died: killed for its memory, or crashed on a damaged file.",
            f"{file.path}, at or soon after clip {file.ids[turn]}",
            "Try again with fewer processes (-j 1).",
        )


Group = list[tuple[int, Clip]]  # (place in the file, clip)


def _groups(file: FeatureFile, batch: int) -> Iterator[Group]:
    """The clips by `batch`; among some of them, those of similar length together."""
    waiting: Group = []
    for i, clip in enumerate(file.clips(rows=False)):
        waiting.append((i, clip))
        if len(waiting) == (_SORTED * batch if batch > 1 else 1) or i == len(file) - 1:
            waiting.sort(key=lambda item: _length(item[1]))
            yield from (waiting[k : k + batch] for k in range(0, len(waiting), batch))
            waiting = []


def _length(clip: Clip) -> float:
    return float("inf") if clip.end is None else clip.end - clip.start


@functools.lru_cache(maxsize=1)
def aligner_of(cls: type, config: Any) -> Any:
    """The aligner of this process."""
    return cls(config)


def _find_group(group: Group, plan: Plan) -> list[tuple[int, Found]]:
    """Find the words of several clips, together where that goes well."""
    ahead = _together([clip for _, clip in group], plan)
    return [(i, _find(clip, plan, ahead.get(k))) for k, (i, clip) in enumerate(group)]


def _together(clips: list[Clip], plan: Plan) -> dict[int, list[Word]]:
    """{place in `clips`: words} by an aligner that takes several clips at once.

    Nothing where a clip fails or has a note: one at a time, it is known whose that is.
    """
    mine = {
        k: _for_aligner(clip, plan)
        for k, clip in enumerate(clips)
        if _needs_aligner(clip, plan) and _can_align(clip, plan)
    }
    if len(mine) < 2 or sum(map(_length, mine.values())) > _TOGETHER:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", MertoolWarning)
        try:
            aligner = aligner_of(plan.aligner, plan.config)
            with one_thread():
                found = aligner.align_many(list(mine.values()))
            ahead = dict(zip(mine, found, strict=True))
            for k, words in ahead.items():
                _check_words(words, mine[k])
        except Exception:
            return {}
    return ahead


def _for_aligner(clip: Clip, plan: Plan) -> Clip:
    return replace(clip, source=plan.media or clip.source)


def _find(clip: Clip, plan: Plan, ahead: list[Word] | None = None) -> Found:
    """Find the words of one clip; whatever goes wrong concerns this clip alone.

    Args:
        clip: The clip without its rows.
        plan: What to do.
        ahead: Its words, where the aligner has been run already.
    """
    if not _needs_aligner(clip, plan):
        words = clip.words if _timed(clip) or not plan.use_words else []
        return Found(words, notes=_past_end(clip, words or []))
    notes = []
    if not plan.anew and _timed(clip):
        notes = ["its word times are out of order: all words are aligned anew"]
    if ahead is not None:
        return Found(ahead, notes=notes)
    if not _can_align(clip, plan):
        path = _media_of(clip, plan)
        return Found(error=f"The media file is missing: {path}" if clip.path else "No media file.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            aligner = aligner_of(plan.aligner, plan.config)
            with one_thread():
                found = Found(aligner.align(_for_aligner(clip, plan)))
            _check_words(found.words, clip)
        except Exception as error:  # a broken clip, or a foreign aligner's mistake
            found = Found(error=one_line(error))
    notes += [str(w.message) for w in caught if issubclass(w.category, MertoolWarning)]
    return replace(found, notes=notes)


def _past_end(clip: Clip, words: Sequence[Word]) -> list[str]:
    """A note where times from the file lie behind the clip's end by more than rounding."""
    length = _length(clip)
    late = sum(w.end > length + 0.1 for w in words)
    return [f"{late} of {len(words)} words end after the clip's end, {length:g} s"] if late else []


def _check_words(words: Sequence[Word], clip: Clip) -> None:
    expected = len(split_words(clip.text))
    if len(words) != expected:
        raise DataError(f"The aligner gave {len(words)} words for {expected}.")
    times = np.array([(w.start, w.end) for w in words])
    if not (np.isfinite(times).all() and (np.diff(times.ravel()) >= 0).all() and times[0, 0] >= 0):
        raise DataError("The aligner gave words that are out of order or overlap.")
