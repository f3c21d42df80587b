"""`mertool data export words`: the words of a feature file, a transcript for each recording."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import splitext
from typing import Any

from mertool.errors import DataError, OutputError, UsageError, did_you_mean
from mertool.files import cannot_write
from mertool.store import FeatureFile
from mertool.transcripts import Cue, Transcript, moved
from mertool.transcripts.write import save_json, save_textgrid
from mertool.types import Clip
from mertool.words import split_words

# Suffix of each kind of file.
KINDS = {"whisperx": ".json", "textgrid": ".TextGrid"}
# What Windows takes for a device, whatever the suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass
class ExportReport:
    """What an export wrote.

    Attributes:
        out: The folder.
        kind: "whisperx" or "textgrid".
        files: One for each recording: file (relative to `out`), medium, clips, words, and how many
            of the words have no times of their own (`placed`).
        skipped: Recordings that have no file; the notes say why.
        notes: What a user should know.
    """

    out: str
    kind: str
    files: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Recording:
    """Clips of one medium."""

    medium: str
    clips: list[Clip] = field(default_factory=list)


def export(
    features: str | Path, out: str | Path, kind: str = "whisperx", overwrite: bool = False
) -> ExportReport:
    """Write the words of a feature file, a transcript for each medium.

    Clips of one medium become its segments, with times in the recording. Files are named like the
    medium, below `out`; clips without media like their id.

    Args:
        features: A feature file.
        out: The folder; it is made where it does not exist.
        kind: "whisperx" or "textgrid".
        overwrite: Replace files that exist.

    Returns:
        What was written.

    Raises:
        UsageError: There is no such kind.
        DataError: No words, or for a TextGrid none with times.
        OutputError: A file exists or cannot be written.
    """
    if kind not in KINDS:
        raise UsageError(
            f'Words cannot be written as "{kind}".', f"--as {kind}", did_you_mean(kind, KINDS)
        )
    out = Path(out)
    report = ExportReport(str(out), kind)
    with FeatureFile(features) as file:
        recordings = _recordings(file.clips(rows=False))
    ready, timeless = [], []
    for recording in recordings:
        transcript = _transcript(recording, report)
        if not transcript.cues:
            report.skipped.append(recording.medium)
        elif kind == "textgrid" and not any(cue.words for cue in transcript.cues):
            timeless.append(recording.medium)
        else:
            ready.append((recording, transcript))
    _say_skipped(report.skipped, "recordings without a transcript", report)
    if timeless and not ready:
        raise DataError(
            "The words have no times yet; a TextGrid is nothing but times.",
            str(features),
            f"Align them first: mertool align {features} -o aligned.h5, or write --as whisperx",
        )
    _say_skipped(
        timeless, "recordings without times of words, so no TextGrid; align them first", report
    )
    report.skipped += timeless
    if not ready:
        raise DataError(
            "There is nothing to write: no clip has a transcript.",
            str(features),
            "Extract with a transcript; docs/words.md says where they come from.",
        )
    paths = _names([recording for recording, _ in ready], out, KINDS[kind], report)
    taken = [path for path in paths if os.path.lexists(path)]
    if taken and not overwrite:
        raise OutputError(
            f"{len(taken)} of the {len(paths)} files exist already.",
            str(taken[0]),
            "Add --overwrite, or choose another folder with -o.",
        )
    for path, (recording, transcript) in zip(paths, ready, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path.parent, error) from error
        if kind == "whisperx":
            save_json(path, transcript)
        else:
            notes = save_textgrid(path, transcript)
            report.notes += [f"{recording.medium}: {note}" for note in notes]
        words = [word for clip in recording.clips for word in clip.words or ()]
        report.files.append(
            {
                "file": path.relative_to(out).as_posix(),
                "medium": recording.medium,
                "clips": len(recording.clips),
                "words": len(words),
                "placed": sum(word.score < 0 for word in words),
            }
        )
    return report


def _say_skipped(media: list[str], why: str, report: ExportReport) -> None:
    if media:
        report.notes.append(f"{why}: {len(media)}, the first {media[0]}")


def _recordings(clips: Iterable[Clip]) -> list[_Recording]:
    """The clips by medium, in the order in which they are said."""
    found: dict[tuple[str, str], _Recording] = {}
    for clip in clips:
        key = (clip.source, clip.path) if clip.path else ("", f"\0{clip.id}")
        found.setdefault(key, _Recording(clip.path or clip.id)).clips.append(clip)
    for recording in found.values():
        recording.clips.sort(key=lambda clip: clip.start)
    return list(found.values())


def _transcript(recording: _Recording, report: ExportReport) -> Transcript:
    cues = []
    for clip in recording.clips:
        words = clip.words or []
        known = bool(words) and words[-1].end > 0  # before alignment all times are 0
        text = clip.text or " ".join(word.text for word in words)
        if split_words(text):
            end = clip.end
            if end is None and known:
                end = clip.start + words[-1].end
            start = None if end is None else clip.start
            said = tuple(moved(words, clip.start)) if known else ()
            cues.append(Cue(text, start, end, said, clip.speaker))
    languages = Counter(clip.language for clip in recording.clips if clip.language)
    if len(languages) > 1:
        report.notes.append(
            f"{recording.medium}: its clips are in {', '.join(languages)}; "
            f"written is {languages.most_common(1)[0][0]}"
        )
    return Transcript(cues, languages.most_common(1)[0][0] if languages else "")


# --- the names of files ---


def _names(
    recordings: list[_Recording], out: Path, suffix: str, report: ExportReport
) -> list[Path]:
    """A path below `out` for each recording; no two alike, whatever the letter case."""
    seen: set[str] = set()
    paths = []
    for recording in recordings:
        medium, first = recording.medium, recording.clips[0]
        stem = base = safe_name(splitext(medium)[0] if first.path else medium)
        count = 1
        while stem.casefold() in seen:
            count += 1
            stem = f"{base}-{count}"
        if count > 1:
            report.notes.append(f"{medium}: another recording has this name; written to {stem}")
        seen.add(stem.casefold())
        paths.append(out / f"{stem}{suffix}")
    return paths


def safe_name(name: str) -> str:
    """A relative path made of a name from elsewhere, without suffix, that leaves no folder.

    >>> safe_name("tapes/a"), safe_name("../../etc/x"), safe_name("/etc/con"), safe_name("..")
    ('tapes/a', 'etc/x', 'etc/con_', '_')
    """
    parts = []
    for part in name.replace("\\", "/").split("/"):
        part = re.sub(r'[\x00-\x1f\x7f<>:"|?*]', "_", part).strip(" ")
        part = part.lstrip(".").rstrip(". ")
        if _DEVICES.fullmatch(part):
            part += "_"
        while len(part.encode()) > 200:  # most file systems take 255 bytes, with the suffix
            part = part[:-1]
        if part:
            parts.append(part)
    return "/".join(parts) or "_"
