"""Before the features: each clip gets its transcript, from a file or a recogniser, and is cut.

Each recording is prepared by itself, in any process; what is wrong with one concerns it alone.
What takes long is kept in OUT.part, so that a stopped run need not do it again.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mertool import media
from mertool.errors import DataError, MediaError, MertoolWarning, OutputError, one_line
from mertool.extract import segment as segments
from mertool.extract.kept import Kept
from mertool.extract.worker import DIED, Outcome
from mertool.manifest import Manifest
from mertool.processes import in_workers
from mertool.store import json_attr
from mertool.transcripts import Cue, Transcript, asr, files, moved, recognise
from mertool.types import Clip

TRANSCRIPTS = ("sidecar", "asr", "none")


@dataclass(frozen=True)
class Plan:
    """How recordings are prepared.

    Attributes:
        transcript: Where words come from: sidecar, asr or none.
        asr: The recogniser, where it is asr.
        rule: How recordings are cut; None = not at all.
    """

    transcript: str
    asr: asr.Config | None = None
    rule: segments.Rule | None = None

    def attr(self, info: dict[str, Any], recognised: int) -> str:
        """What is recorded in the output: a JSON object."""
        facts: dict[str, Any] = {"from": self.transcript}
        if self.rule:
            facts["segment"] = str(self.rule)
        if self.asr:
            facts |= {"engine": self.asr.engine, "language": self.asr.language, **info}
            facts["recognised"] = recognised
        return json_attr(facts)


@dataclass
class Made:
    """What became of one recording.

    Attributes:
        clips: What it gives.
        notes: What a user should know.
        failure: (stage, error), or None.
        trace: The failure's traceback.
        recogniser: What recognised it, if anything did.
    """

    clips: list[Clip]
    notes: list[str] = field(default_factory=list)
    failure: tuple[str, str] | None = None
    trace: str = ""
    recogniser: dict[str, Any] | None = None


@dataclass
class Prepared:
    """Clips ready for extraction.

    Attributes:
        listing: The manifest with them.
        failures: {place in it: what is wrong}.
        notes: {place in it: notes}.
        attr: What is recorded of their transcripts.
    """

    listing: Manifest
    failures: dict[int, Outcome] = field(default_factory=dict)
    notes: dict[int, list[str]] = field(default_factory=dict)
    attr: str = ""


def prepare(
    listing: Manifest,
    plan: Plan,
    folder: Path,
    known: dict[int, Made],
    jobs: int = 1,
    progress: bool = False,
) -> Prepared:
    """Give the clips of a manifest their transcripts, and cut them.

    Args:
        listing: As read.
        plan: How.
        folder: Where what takes long is kept.
        known: {place: what it gave} of recordings that an earlier run has prepared this way.
        jobs: Number of processes.
        progress: Show a progress bar on a terminal's stderr.

    Raises:
        MertoolError: The recogniser cannot be had, a result cannot be kept, or two clips come to
            have one name: the whole run must stop.
    """
    made = dict(known)
    todo = [i for i in range(len(listing.clips)) if i not in made]
    tasks = [
        (listing.clips[i], listing.transcripts.get(listing.clips[i].id), plan, folder) for i in todo
    ]
    slow = bool(plan.asr or plan.rule)
    with tqdm(
        total=len(listing.clips),
        initial=len(known),
        unit="clip",
        desc="recognise" if plan.asr else "segment",
        disable=None if progress and slow else True,
    ) as bar:
        for k, result in _each(prepare_clip, tasks, jobs if slow else 1):
            clip = listing.clips[todo[k]]
            made[todo[k]] = result or Made([clip], failure=("process", DIED))
            bar.update()
    recognise.recogniser.cache_clear()  # its memory is the extractors' now
    result = Prepared(replace(listing, clips=[]))
    info: dict[str, Any] = {}
    for i in range(len(listing.clips)):
        place = len(result.listing.clips)
        info = made[i].recogniser or info
        if made[i].failure:
            result.failures[place] = Outcome(place, made[i].failure, made[i].trace)
        elif made[i].notes:
            result.notes[place] = made[i].notes
        result.listing.clips += made[i].clips
    _refuse_twins(result.listing.clips)
    count = sum(one.recogniser is not None and one.failure is None for one in made.values())
    result.attr = plan.attr(info, count)
    return result


def _each(
    function: Callable[..., Made], tasks: list[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[int, Made | None]]:
    """(place, result) of each task, None where it killed its process; in any order."""
    if jobs == 1:
        for place, task in enumerate(tasks):
            yield place, function(*task)
        return
    left = dict(enumerate(tasks))
    while left:
        places = list(left)
        for k, result in in_workers(function, [left[place] for place in places], jobs):
            del left[places[k]]
            yield places[k], result
        # Where tasks are left a process died, and the culprit is among the first: one at a time.
        for place in list(left)[:jobs]:
            alone = next(in_workers(function, [left.pop(place)], 1), None)
            yield place, alone[1] if alone else None


def _refuse_twins(clips: list[Clip]) -> None:
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise DataError(
                f'Two clips come to have the id "{clip.id}".',
                str(clip.media),
                "Give the recordings other names, or ids in a manifest.csv.",
            )
        seen.add(clip.id)


def prepare_clip(clip: Clip, path: Path | None, plan: Plan, folder: Path) -> Made:
    """Prepare one recording.

    Args:
        clip: The recording, or a part of one.
        path: Its transcript, if there is a file.
        plan: How.
        folder: Where what takes long is kept.

    Raises:
        MertoolError: The recogniser cannot be had, or its result cannot be kept.
    """
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(sys.stderr),  # stdout is for results; libraries may chat
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MertoolWarning)
        made, stage = Made([clip]), "transcript"
        wanted = bool(plan.asr) and path is None and not clip.text
        kept = Kept(folder, clip)
        if wanted and not kept.has_transcript(plan.asr):
            recognise.recogniser(plan.asr)  # where it cannot be had, none is worth trying
        try:
            transcript = files.read(path) if path else None
            if wanted:
                transcript, made.recogniser = kept.transcript(plan.asr)
            end = _end(clip, plan, transcript)
            if transcript:
                manifest = clip.text
                clip, made.notes = files.give(clip, transcript, end)
                if manifest:  # which wins, and is the one to be cut
                    transcript = _of_clip(clip)
            elif clip.text:
                transcript = _of_clip(clip)
            if wanted and clip.text and made.recogniser["weak"]:
                engine = made.recogniser["engine"]
                made.notes.append(f"transcript recognised by {engine}, a weak recogniser")
            made.clips = [clip]
            if plan.rule:
                stage = "segment"
                rule, end = plan.rule, min(end, clip.end or end)
                sound = segments.needs_sound(rule, transcript, clip.start, end)
                heard = kept.activity() if sound else None
                made.clips, notes = segments.segment(clip, transcript, rule, heard, end)
                made.notes += notes
        except OutputError:
            raise
        # A decoder's, a recogniser's, a file's: this recording's, not the run's.
        except (Exception, SystemExit) as error:
            stage = "media" if isinstance(error, MediaError) else stage
            made.failure, made.trace = (stage, one_line(error)), traceback.format_exc()
        made.notes += [str(w.message) for w in caught if issubclass(w.category, MertoolWarning)]
    return made


def _end(clip: Clip, plan: Plan, transcript: Transcript | None) -> float | None:
    """Length of a clip's recording, seconds; None where it is not known and not needed."""
    timed = transcript and any(cue.start is not None for cue in transcript.cues)
    if not (timed or plan.rule):
        return None
    try:
        return media.probe(clip.media).duration
    except MediaError:
        if plan.rule:
            raise
        return None  # extraction will say what is wrong


def _of_clip(clip: Clip) -> Transcript:
    """The transcript that a clip's text and words are, times in the recording."""
    words = tuple(moved(clip.words or (), clip.start))
    times = (words[0].start, words[-1].end) if words else (None, None)
    return Transcript([Cue(clip.text, *times, words)] if clip.text else [], clip.language)
