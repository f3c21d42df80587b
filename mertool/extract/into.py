"""Adding a stream to a feature file, or replacing one; the other streams stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mertool.errors import DataError, UsageError
from mertool.extract.pipeline import ExtractReport, run
from mertool.extract.plan import MODALITIES
from mertool.manifest import Manifest
from mertool.store import FeatureFile, Writer
from mertool.types import Clip


def add_streams(
    sources: Sequence[str | Path] | str | Path,
    features: str | Path,
    *,
    text: str | None = None,
    audio: str | None = None,
    vision: str | None = None,
    command: str = "",
    **options: Any,
) -> ExtractReport:
    """Extract the named streams of a feature file's clips and put them into it.

    The clips are found in the sources by their ids; they, their labels, splits and other streams
    stay. A clip that fails, or is not in the sources, keeps its place with zero rows of the new
    stream. The file is replaced when all is done, so a stopped run can be resumed.

    Without sources the clips are the file's own, with the transcripts and words that it holds and
    the media where they were. Text alone needs no media.

    Args:
        sources: Media files, folders or manifests, as for `run`; none = the file's own clips.
        features: A feature file that is not aligned.
        text: Extractor of the text stream; None = that stream is left alone.
        audio: The same for audio.
        vision: The same for vision.
        command: Recorded in the file, after its own.
        **options: manifest, transcript, settings, jobs, resume and progress, as for `run`.

    Returns:
        What was extracted and what failed.

    Raises:
        UsageError: No stream is named, or as for `run`.
        DataError: The file is missing or aligned, or has no clip of the sources.
        OutputError: The disk is full or closed.
    """
    features = Path(features)
    chosen = {m: v for m, v in zip(MODALITIES, (text, audio, vision), strict=True) if v}
    if not chosen or "none" in chosen.values():
        raise UsageError(
            "Which stream is to be added?",
            "--into takes --text, --audio or --vision with the name of an extractor.",
            "For example: --into feats.h5 --vision facemesh",
        )
    own = not isinstance(sources, str | Path) and not sources
    for key, usual in (("manifest", None), ("transcript", "sidecar"), ("segment", "")):
        if own and (options.get(key) or usual) != usual:
            raise UsageError(
                "Without sources the clips are those of the feature file, as they are.",
                f"--{key} {options[key]}",
                f"Name the sources, or leave --{key} out.",
            )
    with FeatureFile(features) as file:
        if file.alignment != "none":
            raise DataError(
                f'The file is aligned, to "{file.alignment}".',
                str(features),
                "Add the stream to the file that extract wrote, and align again.",
            )
        listing = _own_clips(file, media=list(chosen) != ["text"]) if own else sources
    extra = features.with_name(f"{features.name}.into.h5")
    names = {m: chosen.get(m, "none") for m in MODALITIES}
    # A run that was stopped while merging has left a whole extraction: resumed, or made again.
    overwrite = extra.exists() and not options.get("resume")
    report = run(listing, extra, **names, overwrite=overwrite, command=command, **options)
    _merge(features, extra, report, command)
    extra.unlink()
    report.out = str(features)
    return report


def _own_clips(file: FeatureFile, media: bool) -> Manifest:
    """The clips of a feature file; where media are not needed, those that are gone do not matter.

    Raises:
        DataError: It has none.
    """
    if not len(file):
        raise DataError("The feature file has no clips.", str(file.path), "Name the sources.")
    clips = []
    for clip in file.clips(rows=False):
        clip.words = clip.words or None  # to be found in the transcript
        there = media or (clip.path and clip.media.is_file())
        clips.append(clip if there else replace(clip, path="", source=""))
    return Manifest(clips)


def _merge(features: Path, extra: Path, report: ExtractReport, command: str) -> None:
    """Write the file anew: its clips, with the streams of `extra` among its own."""
    with FeatureFile(features) as old, FeatureFile(extra) as new:
        known = {name: i for i, name in enumerate(new.ids)}
        if not known.keys() & set(old.ids):
            extra.unlink()
            raise DataError(
                "No clip of the feature file is among the sources.",
                f"{features} begins with {old.ids[0]}, the sources with {new.ids[0]}",
                "Name the folder or manifest that the file was made from.",
            )
        kept = ("dataset", "alignment", "transcript")
        attrs = {k: old.attrs[k] for k in kept if k in old.attrs}
        attrs["command"] = "\n".join(c for c in (str(old.attrs["command"]), command) if c)
        failures = [f for f in old.failures if f not in report.failures] + report.failures
        streams = {**old.streams, **new.streams}
        with Writer(features, streams, list(old.labels.values()), attrs) as writer:
            report.clips = 0
            for clip in old:
                rows = {m: r for m, r in clip.streams.items() if m not in new.streams}
                found = new.clip(known[clip.id]) if clip.id in known else None
                problem = _problem(clip, found)
                if problem:
                    report.notes.append((clip.id, problem))
                else:
                    rows |= found.streams
                    clip.words = clip.words or found.words
                    report.clips += 1
                writer.add(clip, rows)
            for name in old.splits:
                writer.split(name, old.split(name), old.split_attrs(name))
            for failure in failures:
                writer.fail(*failure)
        strangers = known.keys() - set(old.ids)
        report.notes += [(name, "is not in the feature file and is left out") for name in strangers]


def _problem(clip: Clip, made: Clip | None) -> str:
    """Why a clip gets no rows of the new streams; "" where it does."""
    if made is None:
        return "has no rows of the new stream: it failed or is not among the sources"
    media = ("sha256", "start", "end")
    if made.path and any(getattr(made, key) != getattr(clip, key) for key in media):
        return "has no rows of the new stream: its media are not those of the feature file"
    if "text" in made.streams and made.text != clip.text:
        return "has no rows of the new stream: its transcript is not that of the feature file"
    return ""
