"""What an earlier run has left that still holds: parts, and the clips of a finished output."""

from __future__ import annotations

import dataclasses
import glob
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np

from mertool.config import to_dict
from mertool.errors import DataError, MediaError, OutputError, UsageError
from mertool.extract import segment as segments
from mertool.extract.neutral import BY_SPEAKER
from mertool.extract.prepare import Made, Plan
from mertool.extract.worker import StreamPlan, measure
from mertool.files import cannot_write, sha256
from mertool.manifest import Manifest
from mertool.store import FeatureFile, check_output, json_attr
from mertool.types import Clip


def part_folder(out: Path, resume: bool, overwrite: bool) -> Path:
    """The folder of finished clips, made ready.

    Raises:
        OutputError: The output or an unfinished one exists, or the folder cannot be made.
        UsageError: Both flags are set.
    """
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
    try:
        if not resume and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        # What a killed run was writing: parts, or the output itself.
        merging = out.parent.glob(f".{glob.escape(out.name)}.*.tmp")
        for left in [*folder.glob(".*.tmp"), *merging]:
            left.unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def finished_before(out: Path, listing: Manifest, plans: list[StreamPlan]) -> dict[int, int]:
    """{place in the manifest: place in the existing output} of clips that still hold.

    Raises:
        OutputError: The output was made with other settings.
    """
    if not out.exists():
        return {}
    wanted = {p.modality: (p.name, json_attr(to_dict(p.config)), p.owner) for p in plans}
    with FeatureFile(out) as file:
        made = {
            name: tuple(stream.attrs.get(key) for key in ("extractor", "config", "owner"))
            for name, stream in file.streams.items()
        }
        other = {m for m in made.keys() | wanted.keys() if made.get(m) != wanted.get(m)}
        if file.alignment != "none":
            other.add("alignment")
        if other:
            raise OutputError(
                f"The output was made with other settings for {', '.join(sorted(other))}.",
                str(out),
                "Repeat the command it was made with, or add --overwrite instead of --resume.",
            )
        if any(BY_SPEAKER in stream.attrs for stream in file.streams.values()):
            return {}  # a clip that is added changes all others of its speaker
        places = {name: i for i, name in enumerate(file.ids)}
        return {
            i: places[clip.id]
            for i, clip in enumerate(listing.clips)
            if clip.id in places and _is_same(clip, file.clip(places[clip.id], rows=False))
        }


def prepared_before(out: Path, listing: Manifest, plan: Plan) -> dict[int, Made]:
    """{place in the manifest: what it gave} of recordings that need not be recognised again.

    They are in the existing output, all of them, recognised and cut the same way.
    """
    if plan.asr is None or not out.exists():
        return {}
    with FeatureFile(out) as file:
        made = file.transcript
        wanted = json.loads(plan.attr({}, 0))
        if any(made.get(key) != wanted[key] for key in wanted.keys() - {"recognised"}):
            return {}
        failed = [name for name, _, _ in file.failures]
        stored: dict[tuple[str, str], list[Clip]] = {}
        for clip in file.clips(rows=False):
            stored.setdefault((clip.path, clip.source), []).append(clip)
    found = {}
    info = {key: made[key] for key in ("engine", "model", "revision", "weak") if key in made}
    for i, clip in enumerate(listing.clips):
        # The borders of a part may have changed; how it was cut then no longer holds.
        if clip.text or clip.id in listing.transcripts or clip.start or clip.end is not None:
            continue
        pattern = re.compile(re.escape(clip.id) + (segments.SUFFIX if plan.rule else ""))
        own = [c for c in stored.get((clip.path, clip.source), ()) if pattern.fullmatch(c.id)]
        if not own or clip.id in failed or any(pattern.fullmatch(name) for name in failed):
            continue
        if not clip.media.exists() or sha256(clip.media) == own[0].sha256:
            facts = {k: getattr(clip, k) for k in ("speaker", "split", "labels")}
            found[i] = Made([dataclasses.replace(c, **facts) for c in own], recogniser=info)
    return found


def _is_same(clip: Clip, stored: Clip) -> bool:
    """Whether a clip and its media are still what they were when the output was made."""
    keys = ("path", "source", "text", "language", "start")
    if any(getattr(clip, key) != getattr(stored, key) for key in keys):
        return False
    if not clip.media.exists():  # features that cannot be made again are kept
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            now = measure(clip)
    except MediaError:
        return False
    return (now.end, now.sha256, _times(now)) == (stored.end, stored.sha256, _times(stored))


def _times(clip: Clip) -> list[tuple[float, float, float]]:
    """Start, end and score of each word, as a file holds them."""
    return [(w.start, w.end, float(np.float32(w.score))) for w in clip.words or ()]


def is_whole(part: Path) -> bool:
    """Whether a part is there and readable; after a power cut it may be empty."""
    if not part.exists():
        return False
    try:
        FeatureFile(part).close()
    except DataError:
        return False
    return True
