"""Feature files made of others: some of the clips and streams of one, or the clips of several."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertool.errors import DataError, UsageError, did_you_mean
from mertool.store import unite
from mertool.store.reader import FeatureFile
from mertool.store.writer import Writer, check_output
from mertool.types import SPLITS


@dataclass
class RewriteReport:
    """What was written.

    Attributes:
        out: The new feature file.
        clips: Number of clips in it.
        found: Number of clips in the file or files it was made of.
        streams: Its streams.
        notes: What a user should know.
    """

    out: str
    clips: int = 0
    found: int = 0
    streams: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def select(
    source: str | Path,
    out: str | Path,
    *,
    ids: Iterable[str] | None = None,
    split: str | None = None,
    speakers: Iterable[str] | None = None,
    streams: Iterable[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> RewriteReport:
    """Write some clips, or some streams, of a feature file into another, clip by clip.

    A clip is kept where all that is given of ids, split and speakers holds. Clips and streams
    keep their order. All else is kept as it is: labels with their classes and range, words,
    splits, failures, attributes. Only a split's `sha256`, that of all clips, is dropped where
    clips are left out.

    Args:
        source: A feature file.
        out: Feature file to write.
        ids: Ids of the clips to keep.
        split: "test" = those of the test part of the default split; "fold-0:train" names a split.
        speakers: Keep the clips of these.
        streams: Streams to keep; None = all.
        overwrite: Replace `out` if it exists.
        progress: Show a progress bar on stderr, if that is a terminal.
        command: The command line, recorded in the file.

    Returns:
        What was written.

    Raises:
        UsageError: No criterion, or an unknown id, split, speaker or stream.
        DataError: No feature file, or nothing is left.
        OutputError: The output exists or cannot be written.
    """
    if ids is None and split is None and speakers is None and streams is None:
        raise UsageError(
            "Which clips or streams are to be kept?",
            "Nothing says so.",
            "Give at least one of --ids, --split, --speaker and --streams.",
        )
    out = Path(out)
    with FeatureFile(source) as file:
        report = RewriteReport(str(out), found=len(file))
        chosen = set(file.streams)
        if streams is not None:
            chosen = _known(streams, file.streams, "stream", file)
        kept_streams = {name: s for name, s in file.streams.items() if name in chosen}
        report.streams = list(kept_streams)
        kept = _wanted(file, ids, split, speakers, report.notes)
        if not kept or (streams is not None and not chosen):
            raise DataError(
                f"No {'clip' if not kept else 'stream'} is left.",
                str(file.path),
                "Ask for more; mertool data info FILE shows what there is.",
            )
        check_output(out, overwrite)
        attrs = {**unite.root_attrs([file]), "command": command}
        with Writer(out, kept_streams, list(file.labels.values()), attrs) as writer:
            for i in _bar(kept, "select", len(kept), progress):
                rows = {name: file.rows(i, name) for name in kept_streams}
                writer.add(file.clip(i, rows=False), rows)
                report.clips += 1
            for name in file.splits:
                values, made = file.split(name), file.split_attrs(name)
                if len(kept) < len(file):
                    made.pop("sha256", None)  # that of all clips
                writer.split(name, [values[i] for i in kept], made)
            for failure in file.failures:
                writer.fail(*failure)
    return report


def merge(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> RewriteReport:
    """Write the clips of several feature files one after the other into one, clip by clip.

    Streams of one name must be the same in all files; a file that lacks one gets zero rows of it.
    A label's classes are united: the first file's in their order, then the new ones of the next.
    A label or a named split that a file lacks is missing, or "", for its clips.

    Args:
        sources: Two or more feature files.
        out: Feature file to write.
        overwrite: Replace `out` if it exists.
        progress: Show a progress bar on stderr, if that is a terminal.
        command: The command line, recorded in the file.

    Returns:
        What was written, and notes on what some files lack.

    Raises:
        UsageError: Fewer than two files.
        DataError: No feature file; an id is in two files; a stream, a label's task or the
            alignment differs.
        OutputError: The output exists or cannot be written.
    """
    if len(sources) < 2:
        raise UsageError(
            "Merging takes at least two feature files.",
            ", ".join(map(str, sources)),
            "For example: mertool data merge a.h5 b.h5 -o both.h5",
        )
    out = Path(out)
    with ExitStack() as stack:
        files = [stack.enter_context(FeatureFile(path)) for path in sources]
        unite.check_ids(files)
        report = RewriteReport(str(out), found=sum(map(len, files)))
        attrs = {**unite.root_attrs(files), "command": command}
        streams = unite.streams(files, report.notes)
        labels = unite.labels(files, report.notes)
        splits = unite.splits(files, report.notes)
        failures = unite.failures(files, report.notes)
        unite.same_speakers(files, report.notes)
        report.streams = list(streams)
        check_output(out, overwrite)
        with Writer(out, streams, list(labels.values()), attrs) as writer:
            clips = ((file, clip) for file in files for clip in file)
            for file, clip in _bar(clips, "merge", report.found, progress):
                clip.labels = {
                    name: unite.value(value, file.labels[name], labels[name])
                    for name, value in clip.labels.items()
                }
                writer.add(clip, clip.streams or {})
                report.clips += 1
            for name, (values, made) in splits.items():
                writer.split(name, values, made)
            for failure in failures:
                writer.fail(*failure)
    return report


def read_ids(path: str) -> list[str]:
    """The ids in a text file, one per line; "-" = standard input. Empty lines do not count.

    Raises:
        UsageError: It cannot be read, or is no UTF-8 text.
    """
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        lines = raw.decode("utf-8-sig").splitlines()
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"The ids cannot be read: {why}.", path, "Check the path.") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            "The ids are no UTF-8 text.", path, "Give a text file with one id per line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _wanted(
    file: FeatureFile,
    ids: Iterable[str] | None,
    split: str | None,
    speakers: Iterable[str] | None,
    notes: list[str],
) -> list[int]:
    """Places of the clips that all criteria keep, in the order of the file."""
    kept = set(range(len(file)))
    if ids is not None:
        # A list of all clips of a corpus names those that failed too: that is no mistake.
        failed = {name for name, _, _ in file.failures} - set(file.ids)
        listed = set(ids)
        if listed & failed:
            notes.append(f"ids of clips that failed: {len(listed & failed)}")
        listed = _known(listed - failed, file.ids, "clip", file)
        kept &= {i for i, name in enumerate(file.ids) if name in listed}
    if split is not None:
        name, _, part = split.rpartition(":")
        _known([name or "default"], file.splits, "split", file)
        _known([part], SPLITS, "part of a split", file)
        kept &= {i for i, s in enumerate(file.split(name or "default")) if s == part}
    if speakers is not None:
        people = file.column("speaker")
        chosen = _known(speakers, set(people) - {""}, "speaker", file)
        kept &= {i for i, who in enumerate(people) if who in chosen}
    return sorted(kept)


def _known(names: Iterable[str], known: Iterable[str], what: str, file: FeatureFile) -> set[str]:
    """The names as a set; refused where the file lacks one."""
    chosen = set(names)
    unknown = sorted(chosen - set(known))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UsageError(
            f'There is no {what} "{unknown[0]}"{more}.',
            str(file.path),
            did_you_mean(unknown[0], known),
        )
    return chosen


def _bar(items: Iterable[Any], name: str, total: int, progress: bool) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, name, total, unit="clip", disable=None if progress else True)
