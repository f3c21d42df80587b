"""Clips in, feature file out: in parallel, resumable, one bad clip at a time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mertool import manifest as manifests
from mertool.config import resolve, to_dict
from mertool.errors import DataError, OutputError, UsageError, did_you_mean
from mertool.extract.worker import (
    Outcome,
    StreamPlan,
    extract_clip,
    extract_in_worker,
    part_name,
)
from mertool.files import cannot_write
from mertool.registry import registry
from mertool.store import FeatureFile, Writer, check_output, json_attr

MODALITIES = ("text", "audio", "vision")

# Named sets of extractors. "offline" needs no download.
PROFILES: dict[str, dict[str, str]] = {
    "offline": {"text": "minilm", "audio": "mfcc", "vision": "facemesh"},
}


@dataclass
class ExtractReport:
    """What an extraction gave.

    Attributes:
        out: The feature file.
        clips: Number of clips in it.
        resumed: How many of them were finished before this run.
        failures: (id, stage, error) of each clip that could not be processed.
        notes: (id, message): what a user should know of single clips.
        ignored: Media files in the folders that no manifest lists.
        seconds: Wall time.
    """

    out: str
    clips: int = 0
    resumed: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """3 when some clips failed, else 0."""
        return 3 if self.failures else 0


def run(
    sources: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    manifest: str | Path | None = None,
    profile: str = "offline",
    text: str | None = None,
    audio: str | None = None,
    vision: str | None = None,
    transcript: str = "sidecar",
    settings: Sequence[str] = (),
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> ExtractReport:
    """Extract the features of clips into one feature file.

    Args:
        sources: Media files, folders or manifests.
        out: The feature file to write.
        manifest: A manifest for the sources.
        profile: Named set of extractors.
        text: Extractor of the text stream, or "none"; None = the profile's.
        audio: The same for audio.
        vision: The same for vision.
        transcript: "sidecar" = the manifest's text, else the .txt beside a clip; "none".
        settings: "audio.hop_ms=10" and the like.
        jobs: Number of processes.
        resume: Go on with an interrupted run, and try failed clips again.
        overwrite: Replace an existing output.
        progress: Show a progress bar on a terminal's stderr.
        command: Recorded in the file.

    Returns:
        What was written and what failed.

    Raises:
        UsageError: An unknown extractor or setting.
        DataError: No clips, a wrong manifest, or no clip at all could be processed.
        OutputError: The output exists or cannot be written. Finished clips stay in OUT.part.
    """
    started = time.monotonic()
    out = Path(out)
    plans = plan_streams(profile, {"text": text, "audio": audio, "vision": vision}, settings)
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    listing = manifests.read(sources, manifest, sidecar=transcript == "sidecar")
    if transcript == "none":
        for clip in listing.clips:
            clip.text = ""
    folder = _part_folder(out, resume, overwrite)
    report = ExtractReport(str(out), ignored=listing.ignored)
    finished = _finished_before(out, listing, plans) if resume else {}
    tasks = []
    for i, clip in enumerate(listing.clips):
        if i not in finished:
            part = folder / part_name(clip, plans)
            tasks.append((i, clip, plans, part))
    todo = [task for task in tasks if not task[3].exists()]
    report.resumed = len(listing.clips) - len(todo)
    outcomes: dict[int, Outcome] = {}
    with tqdm(
        total=len(listing.clips),
        initial=report.resumed,
        unit="clip",
        desc="extract",
        disable=None if progress else True,
    ) as bar:
        for outcome in _outcomes(todo, jobs):
            outcomes[outcome.index] = outcome
            if outcome.failure:
                failed = sum(o.failure is not None for o in outcomes.values())
                bar.set_postfix(failed=failed, refresh=False)
            bar.update()
    parts = {task[0]: task[3] for task in tasks}
    _merge(out, listing, plans, parts, finished, outcomes, report, command)
    shutil.rmtree(folder, ignore_errors=True)
    report.seconds = time.monotonic() - started
    return report


def plan_streams(
    profile: str, chosen: dict[str, str | None], settings: Sequence[str]
) -> list[StreamPlan]:
    """Settle which extractor, with which config, makes each stream.

    Raises:
        UsageError: An unknown profile, extractor or setting, or no stream is left.
        PluginError: An extractor cannot be imported.
    """
    if profile not in PROFILES:
        raise UsageError(
            f'There is no profile "{profile}".',
            did_you_mean(profile, PROFILES),
            "--profile offline",
        )
    names = {m: chosen.get(m) or PROFILES[profile].get(m, "none") for m in MODALITIES}
    names = {m: name for m, name in names.items() if name != "none"}
    if not names:
        raise UsageError(
            "Every stream is switched off.", "--text none --audio none --vision none", "Keep one."
        )
    classes: dict[str, Any] = {}
    for modality, name in names.items():
        entry = registry().get("extractor", name)
        if entry.facts.get("modality") != modality:
            known = registry().names("extractor", modality=modality)
            raise UsageError(
                f'"{name}" is no extractor for {modality}.',
                f"--{modality} {name}",
                did_you_mean(name, known),
            )
        classes[modality] = registry().load("extractor", name)
    configs = resolve({m: cls.Config for m, cls in classes.items()}, settings)
    return [
        StreamPlan(name, registry().get("extractor", name).owner, m, configs[m])
        for m, name in names.items()
    ]


def _part_folder(out: Path, resume: bool, overwrite: bool) -> Path:
    """The folder of finished clips, made ready."""
    folder = out.with_name(out.name + ".part")
    if resume and overwrite:
        raise UsageError("Resume or overwrite?", "--resume --overwrite", "Give one of the two.")
    check_output(out, overwrite or resume)
    if folder.exists() and not resume:
        if not overwrite:
            raise OutputError(
                "An unfinished extraction of that name is there.",
                str(folder),
                "Add --resume to go on with it, or --overwrite to begin again.",
            )
        shutil.rmtree(folder)
    try:
        folder.mkdir(exist_ok=True)
        for left in folder.glob(".*.tmp"):
            left.unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def _finished_before(
    out: Path, listing: manifests.Manifest, plans: list[StreamPlan]
) -> dict[int, int]:
    """{place in the manifest: place in the existing output} of clips that still hold."""
    if not out.exists():
        return {}
    with FeatureFile(out) as file:
        for plan in plans:
            attrs = file.streams[plan.modality].attrs if plan.modality in file.streams else {}
            if (attrs.get("extractor"), attrs.get("config"), attrs.get("owner")) != (
                plan.name,
                json_attr(to_dict(plan.config)),
                plan.owner,
            ):
                raise OutputError(
                    f"The output was made with other settings for {plan.modality}.",
                    str(out),
                    "Repeat the command it was made with, or add --overwrite instead of --resume.",
                )
        places = {name: i for i, name in enumerate(file.ids)}
        keys = ("path", "source", "text")
        columns = {key: file.column(key) for key in keys}
        found = {}
        for i, clip in enumerate(listing.clips):
            j = places.get(clip.id)
            if j is not None and all(columns[k][j] == getattr(clip, k) for k in keys):
                found[i] = j
        return found


Task = tuple[int, Any, list[StreamPlan], Path]


def _outcomes(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    """Run the tasks, in this process or in `jobs` others, yielding as they finish."""
    if jobs == 1:
        for task in tasks:
            yield extract_clip(*task)
        return
    left = {task[0]: task for task in tasks}
    for outcome in _in_workers(tasks, jobs):
        del left[outcome.index]
        yield outcome
    # A worker process died (a crash in a decoder, say) and took its pool along. What is left
    # runs one at a time, so that the clip that kills its worker is known by name.
    for task in left.values():
        outcome = next(_in_workers([task], 1), None)
        yield outcome or Outcome(task[0], ("process", "the worker process died on this clip"))


def _in_workers(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    """Outcomes as they come; ends early, without an exception, where a worker dies."""
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    from joblib.externals.loky import get_reusable_executor

    # Each worker gets its share of the cores; more threads than cores only wait for each other.
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    env = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    pool = get_reusable_executor(max_workers=jobs, kill_workers=True, reuse=False, env=env)
    finished = False
    try:
        futures = [pool.submit(extract_in_worker, *task) for task in tasks]
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                return
        finished = True
    finally:
        # After Ctrl-C or an error the rest is not worth waiting for.
        pool.shutdown(wait=finished, kill_workers=not finished)


def _merge(
    out: Path,
    listing: manifests.Manifest,
    plans: list[StreamPlan],
    parts: dict[int, Path],
    finished: dict[int, int],
    outcomes: dict[int, Outcome],
    report: ExtractReport,
    command: str,
) -> None:
    """Write the output from the part files, in manifest order."""
    import json

    for i, clip in enumerate(listing.clips):
        failure = outcomes[i].failure if i in outcomes else None
        if failure:
            report.failures.append((clip.id, *failure))
    if len(report.failures) == len(listing.clips):
        name, stage, error = report.failures[0]
        raise DataError(
            f"None of the {len(listing.clips)} clips could be processed.",
            f"The first, {name}, failed at {stage}: {error}",
            "Check the files; run with --debug for more.",
        )
    failed = {name for name, _, _ in report.failures}
    with ExitStack() as stack:
        before = stack.enter_context(FeatureFile(out)) if finished else None
        first = next(i for i, c in enumerate(listing.clips) if c.id not in failed)
        if first in finished:
            streams = before.streams
        else:
            with FeatureFile(parts[first]) as part:
                streams = part.streams
        attrs = {"command": command, "dataset": listing.name}
        writer = stack.enter_context(Writer(out, streams, listing.labels, attrs))
        for i, clip in enumerate(listing.clips):
            if clip.id in failed:
                continue
            if i in finished:
                stored = before.clip(finished[i])
                notes = []
            else:
                with FeatureFile(parts[i]) as part:
                    stored = part.clip(0)
                    notes = json.loads(part.attrs["notes"])
            clip.end, clip.sha256, clip.words = stored.end, stored.sha256, stored.words
            writer.add(clip, stored.streams)
            report.notes += [(clip.id, note) for note in notes]
            report.clips += 1
        for failure in report.failures:
            writer.fail(*failure)
