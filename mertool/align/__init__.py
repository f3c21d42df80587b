"""The align stage: one row per word, or per equal segment, in every stream of a feature file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mertool.align.place import Found, Plan, aligner_of, has_work, place_words
from mertool.align.pool import POOLS, by_segments, by_words
from mertool.config import resolve, settings_of, to_dict
from mertool.errors import DataError, UsageError, one_line
from mertool.processes import check_jobs
from mertool.registry import registry
from mertool.stage import callable_stage
from mertool.store import FeatureFile, Stream, Writer, check_output, json_attr
from mertool.types import Clip

DEFAULT = "pocketsphinx"  # aligner of words without times, where none is named


@dataclass
class AlignReport:
    """What an alignment did.

    Attributes:
        out: The aligned feature file.
        clips: Number of clips in it.
        words: Number of words whose times were needed.
        unaligned_words: Those of them that were placed by even spacing.
        failures: (id, stage, error) of each clip that failed in this stage.
        warnings: (id, message) of each note about a clip.
    """

    out: Path
    clips: int = 0
    words: int = 0
    unaligned_words: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 3 when some clips failed."""
        return 3 if self.failures else 0


def run(
    source: str | Path,
    out: str | Path,
    *,
    to: str = "word",
    aligner: str | None = None,
    pool: str = "mean",
    media: str | Path | None = None,
    settings: Sequence[str] = (),
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> AlignReport:
    """Align a feature file: give all streams of a clip the same rows.

    Words get their times from the file if it has them, else from pocketsphinx; an aligner that is
    named places all words anew. With `to="word"`
    every stream has one row per word of the transcript. With `to="segments:N"` a clip is cut into
    N equal parts; words are then needed only to place text rows. A stream without rows in a clip
    stays without. The whole is streamed, clip by clip.

    Args:
        source: Feature file that is not aligned.
        out: Feature file to write.
        to: "word" or "segments:N".
        aligner: Name of a registered aligner; None = pocketsphinx, for words without times only.
        pool: "mean" (weighted by overlap and validity), "max" or "last".
        media: Folder that the clips' paths are relative to, if not the one they came from.
        settings: "align.key=value" settings of the aligner.
        jobs: Processes that run the aligner.
        overwrite: Replace `out` if it exists.
        progress: Show a progress bar on stderr, if that is a terminal.
        command: The command line, recorded in the file.

    Returns:
        What was done.

    Raises:
        UsageError: A wrong name, value or setting.
        DataError: The file is aligned already, cannot be aligned, none of its media are found, or
            every clip failed.
        OutputError: The output exists or cannot be written.
    """
    from tqdm import tqdm

    segments, out = _check_usage(to, pool, jobs), Path(out)
    name = aligner or DEFAULT
    cls = registry().load("aligner", name)
    config = resolve({"align": settings_of(cls, f'the aligner "{name}"')}, settings)["align"]
    with FeatureFile(source) as file:
        _check_streams(file)
        check_output(out, overwrite)
        use_words = not segments or any(s.text for s in file.streams.values())
        plan = Plan(
            segments, pool, use_words, cls, config, str(media) if media else None, bool(aligner)
        )
        runs_aligner = use_words and has_work(file, plan)
        # What predict needs to do the same to other clips.
        made = {
            "pool": pool,
            "aligner": name if runs_aligner else "",
            "aligner_config": json_attr(to_dict(config)) if runs_aligner else "",
            "realigned": runs_aligner and plan.anew,
        }
        streams = {key: _aligned_stream(stream, made) for key, stream in file.streams.items()}
        own = ("format", "version", "created", "mertool")  # of each file, set by the writer
        attrs = {key: value for key, value in file.attrs.items() if key not in own}
        attrs |= {"command": command, "alignment": f"segments:{segments}" if segments else "word"}
        batch = 1
        if runs_aligner:
            one = aligner_of(cls, config)  # one that cannot start is no fault of the clips
            batch = one.batch if hasattr(one, "align_many") else 1
        report = AlignReport(out)
        with Writer(out, streams, list(file.labels.values()), attrs) as writer:
            for failure in file.failures:
                writer.fail(*failure)
            bar = tqdm(
                place_words(file, plan, jobs if runs_aligner else 1, batch),
                "align",
                len(file),
                unit="clip",
                disable=None if progress else True,
            )
            kept = []
            for i, (clip, found) in enumerate(bar):
                if _add(clip, found, file.streams, plan, writer, report):
                    kept.append(i)
            for name in file.splits:
                values, attrs = file.split(name), file.split_attrs(name)
                if len(kept) < len(values):
                    attrs.pop("sha256", None)  # that of all clips
                writer.split(name, [values[i] for i in kept], attrs)
            if report.failures and not report.clips:
                name, _, error = report.failures[0]
                raise DataError(
                    f"All {len(file)} clips failed; nothing was written.",
                    f"{name}: {error}",
                    "Mend the cause; the first clip's is shown.",
                )
    return report


def _check_usage(to: str, pool: str, jobs: int) -> int:
    """Refuse wrong values; give the number of segments, 0 = words."""
    kind, _, count = to.partition(":")
    if to != "word" and not (kind == "segments" and count.isdecimal() and int(count) > 0):
        raise UsageError(
            f'Streams cannot be aligned to "{to}".',
            "--to takes word or segments:N, N a whole number of at least 1.",
            "For example: --to word, or --to segments:20",
        )
    if pool not in POOLS:
        raise UsageError(
            f'There is no pooling "{pool}".', f"--pool takes {', '.join(POOLS)}.", "Try --pool mean"
        )
    check_jobs(jobs)
    return int(count) if to != "word" else 0


def _check_streams(file: FeatureFile) -> None:
    if file.alignment != "none":
        raise DataError(
            f'The file is aligned already, to "{file.alignment}".',
            str(file.path),
            "Align the file that extract wrote; aligned rows cannot be told apart again.",
        )
    for name, stream in file.streams.items():
        if not stream.text and not stream.attrs.get("timed", True):
            raise DataError(
                f'The rows of stream "{name}" have neither times nor words; they cannot be placed.',
                str(file.path),
                f"Extract {name} from the media, without that stream.",
            )


def _aligned_stream(stream: Stream, made: dict[str, Any]) -> Stream:
    before = {
        key: np.asarray(stream.attrs[key]).item()
        for key in ("rate", "timed")
        if key in stream.attrs
    }
    attrs = {**stream.attrs, "aligned_from": json_attr(before), **made}
    # Rows follow the words or the clip's length now: there is no rate.
    return replace(stream, attrs={**attrs, "timed": True, "rate": 0.0})


def _add(
    clip: Clip,
    found: Found,
    streams: dict[str, Stream],
    plan: Plan,
    writer: Writer,
    report: AlignReport,
) -> bool:
    """Pool one clip into the output, or note its failure; say whether it went well."""
    report.warnings += [(clip.id, note) for note in found.notes]
    error, rows = found.error, {}
    if not error:
        words = found.words or []
        if plan.use_words and not words and not plan.segments:
            report.warnings.append((clip.id, "there is no transcript, so no words: no rows"))
        try:
            if plan.segments:
                rows = by_segments(clip, words, streams, plan.segments, plan.pool)
            else:
                rows = by_words(clip, words, streams, plan.pool)
        except DataError as problem:
            error = one_line(problem)
    if error:
        report.failures.append((clip.id, "align", error))
        writer.fail(clip.id, "align", error)
        return False
    if plan.use_words:
        clip.words = words
        report.words += len(words)
        report.unaligned_words += sum(w.score < 0 for w in words)
    writer.add(clip, rows)
    report.clips += 1
    return True


callable_stage(__name__)
