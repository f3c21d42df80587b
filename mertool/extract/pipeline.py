"""Clips in, feature file out: in parallel, resumable, one bad clip at a time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from tqdm import tqdm

from mertool import manifest as manifests
from mertool.errors import DataError, UsageError, did_you_mean, readable
from mertool.extract import segment as segments
from mertool.extract.neutral import Neutral
from mertool.extract.plan import plan_streams
from mertool.extract.prepare import TRANSCRIPTS, Plan, Prepared, prepare
from mertool.extract.resume import finished_before, is_whole, part_folder, prepared_before
from mertool.extract.worker import (
    DIED,
    Outcome,
    Task,
    batch_of,
    extract_clip,
    extract_clips,
    extract_group,
    part_name,
)
from mertool.processes import check_jobs, in_workers
from mertool.registry import registry
from mertool.store import FeatureFile, Writer
from mertool.types import Clip


@dataclass
class ExtractReport:
    """What an extraction gave.

    Attributes:
        out: The feature file.
        clips: Number of clips in it.
        resumed: How many of them were finished before this run.
        failures: (id, stage, error) of each clip that could not be processed.
        notes: (id, message): what a user should know of single clips.
        traces: {id of a failed clip: the failure's traceback}.
        ignored: Media files in the folders that no manifest lists.
        seconds: Wall time.
    """

    out: str
    clips: int = 0
    resumed: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    traces: dict[str, str] = field(default_factory=dict)
    ignored: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """3 when some clips failed, else 0."""
        return 3 if self.failures else 0


def run(
    sources: Sequence[str | Path] | str | Path | manifests.Manifest,
    out: str | Path,
    *,
    manifest: str | Path | None = None,
    profile: str = "offline",
    text: str | None = None,
    audio: str | None = None,
    vision: str | None = None,
    transcript: str = "sidecar",
    segment: str = "",
    settings: Sequence[str] = (),
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> ExtractReport:
    """Extract the features of clips into one feature file.

    Args:
        sources: Media files, folders or manifests; or the clips themselves.
        out: The feature file to write.
        manifest: A manifest for the sources.
        profile: Named set of extractors.
        text: Extractor of the text stream, or "none"; None = the profile's.
        audio: The same for audio.
        vision: The same for vision.
        transcript: "sidecar" = the manifest's text or transcript, else the file beside a clip;
            "asr" = the same, and clips without are recognised; "none".
        segment: Cut each clip into utterances: by its "sentences", its "cues", or pieces of at most
            so many seconds ("10").
        settings: "audio.channel=first" and the like.
        jobs: Number of processes.
        resume: Go on with an interrupted run, and try failed clips again.
        overwrite: Replace an existing output.
        progress: Show a progress bar on a terminal's stderr.
        command: Recorded in the file.

    Returns:
        What was written and what failed.

    Raises:
        UsageError: An unknown extractor, setting or transcript, or no process.
        PluginError: An extractor cannot be imported or started.
        MertoolError: The recogniser cannot be had.
        DataError: No clips, a wrong manifest, or no clip at all could be processed.
        OutputError: The output exists or cannot be written. Finished clips stay in OUT.part.
    """
    started = time.monotonic()
    out = Path(out)
    if transcript not in TRANSCRIPTS:
        raise UsageError(
            f'There is no transcript "{transcript}".',
            f"--transcript {transcript}",
            did_you_mean(transcript, TRANSCRIPTS),
        )
    check_jobs(jobs)
    chosen = {"text": text, "audio": audio, "vision": vision}
    plans, asr = plan_streams(profile, chosen, settings, transcript == "asr")
    plan = Plan(transcript, asr, segments.rule(segment))
    if isinstance(sources, manifests.Manifest):
        listing = sources
    else:
        sources = [sources] if isinstance(sources, str | Path) else list(sources)
        listing = manifests.read(sources, manifest, sidecar=transcript != "none")
    if transcript == "none":
        for clip in listing.clips:
            clip.text = ""
    report = ExtractReport(str(out), ignored=listing.ignored)
    folder = part_folder(out, resume, overwrite)
    try:
        known = prepared_before(out, listing, plan) if resume else {}
        prepared = prepare(listing, plan, folder, known, jobs, progress)
        listing = prepared.listing
        finished = finished_before(out, listing, plans) if resume else {}
        tasks = []
        for i, clip in enumerate(listing.clips):
            if i not in finished and i not in prepared.failures:
                part = folder / part_name(clip, plans)
                tasks.append((i, clip, plans, part))
        todo = [task for task in tasks if not is_whole(task[3])]
        outcomes: dict[int, Outcome] = dict(prepared.failures)
        failed = len(outcomes)
        report.resumed = len(listing.clips) - len(todo) - failed
        with tqdm(
            total=len(listing.clips),
            initial=report.resumed + failed,
            unit="clip",
            desc="extract",
            disable=None if progress else True,
        ) as bar:
            for outcome in _outcomes(todo, jobs):
                outcomes[outcome.index] = outcome
                if outcome.failure:
                    failed += 1
                    bar.set_postfix(failed=failed, refresh=False)
                bar.update()
        parts = {task[0]: task[3] for task in tasks}
        _merge(out, prepared, parts, finished, outcomes, report, command)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        # Where no clip was finished there is nothing to resume, and nothing to keep.
        with suppress(OSError):
            folder.rmdir()
    report.seconds = time.monotonic() - started
    return report


def _outcomes(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    """Run the tasks, in this process or in `jobs` others, yielding as they finish."""
    size = _at_once(tasks, jobs)
    if jobs == 1:
        for group in _groups(tasks, size):
            yield from extract_clips(group)
        return
    left = {task[0]: task for task in tasks}
    while left:
        groups = [(group,) for group in _groups(list(left.values()), size)]
        for _, outcomes in in_workers(extract_group, groups, jobs):
            for outcome in outcomes:
                del left[outcome.index]
                yield outcome
        # Where clips are left, a worker process died (a crash in a decoder, say) and took its pool
        # along. They begin in order: the culprit is among the first. Those run one at a time, so
        # that the clip that kills its worker is known by name.
        if size > 1:
            size = 1  # the first of the groups would be many
            continue
        for task in list(left.values())[:jobs]:
            del left[task[0]]
            alone = next(in_workers(extract_clip, [task], 1), None)
            yield alone[1] if alone else Outcome(task[0], ("process", DIED))


def _at_once(tasks: list[Task], jobs: int) -> int:
    """Clips handed over together: what an extractor can use, as long as no process is idle."""
    plans = tasks[0][2] if tasks else []
    classes = [registry().load("extractor", plan.name) for plan in plans]
    most = max(map(batch_of, classes), default=1)
    return max(1, min(most, ceil(len(tasks) / jobs)))


def _groups(tasks: list[Task], size: int) -> Iterator[list[Task]]:
    for first in range(0, len(tasks), size):
        yield tasks[first : first + size]


def _merge(
    out: Path,
    prepared: Prepared,
    parts: dict[int, Path],
    finished: dict[int, int],
    outcomes: dict[int, Outcome],
    report: ExtractReport,
    command: str,
) -> None:
    """Write the output from the part files, in manifest order."""
    listing = prepared.listing
    failed = [i for i in sorted(outcomes) if outcomes[i].failure]
    for i in failed:
        name = readable(listing.clips[i].id)
        report.failures.append((name, *outcomes[i].failure))
        report.traces[name] = outcomes[i].trace
    if len(failed) == len(listing.clips):
        name, stage, error = report.failures[0]
        raise DataError(
            f"None of the {len(listing.clips)} clips could be processed.",
            f"The first, {name}, failed at {stage}: {error}",
            "Check the files; run with --debug for more.",
        ) from RuntimeError(report.traces[name])
    with ExitStack() as stack:
        failed = set(failed)
        before = stack.enter_context(FeatureFile(out)) if finished else None
        first = next(i for i in range(len(listing.clips)) if i not in failed)
        if first in finished:
            streams = before.streams
        else:
            with FeatureFile(parts[first]) as part:
                streams = part.streams
        attrs = {"command": command, "dataset": listing.name, "transcript": prepared.attr}

        def made(i: int) -> tuple[Clip, list[str]]:
            if i in finished:
                return before.clip(finished[i]), []
            with FeatureFile(parts[i]) as part:
                notes = json.loads(part.attrs["notes"])
                return part.clip(0), prepared.notes.get(i, []) + notes

        kept = [i for i in range(len(listing.clips)) if i not in failed]
        neutral = Neutral(streams, ((listing.clips[i].speaker, made(i)[0].streams) for i in kept))
        writer = stack.enter_context(Writer(out, streams, listing.labels, attrs))
        for i in kept:
            clip, (stored, notes) = listing.clips[i], made(i)
            neutral.take_off(clip.speaker, stored.streams)
            clip.end, clip.sha256, clip.words = stored.end, stored.sha256, stored.words
            writer.add(clip, stored.streams)
            report.notes += [(clip.id, note) for note in notes]
            report.clips += 1
        for failure in report.failures:
            writer.fail(*failure)
