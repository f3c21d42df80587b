"""Word times on clips with reference times: ours and plain pocketsphinx's, in one run, in turn."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import common
import numpy as np

from mertool import media
from mertool.align.sphinx import Pocketsphinx
from mertool.cli.common import table
from mertool.errors import MertoolWarning
from mertool.types import Clip

RATE = 16000
PAUSES = ("sil", "sp")
UNITS = 25000  # of GRID's .align, per second
OURS, PLAIN = "mertool", "plain"
TARGETS = {"median": 20.0, "p90": 40.0, "worst": 200.0}  # ms, start and end, at most
COST = 3.0  # CPU time, over that of plain pocketsphinx, at most


@dataclass
class Said(Clip):
    """A clip whose sound is decoded already.

    Attributes:
        sound: (S,) float32 at 16 kHz.
        reference: (start, end) of each word in seconds; None for one that is not said there.
    """

    sound: np.ndarray | None = None
    reference: tuple[tuple[float, float] | None, ...] = ()

    def audio(self, rate: int = RATE, channel: str = "mean") -> np.ndarray:
        """The sound, whatever is asked for."""
        return self.sound


Aligner = Callable[[Said], "list[tuple[float, float, float]] | None"]


def clips(folder: Path, number: int = 0) -> list[Said]:
    """The clips of a folder that have a .align beside them; the first `number`, 0 = all.

    Raises:
        BenchmarkError: There is none.
    """
    found = []
    for path in sorted(folder.iterdir()):
        marks = path.with_suffix(".align")
        if path.suffix.lower() in media.SUFFIXES and marks.is_file():
            lines = [line.split() for line in marks.read_text(encoding="utf-8").splitlines()]
            said = [(int(a) / UNITS, int(b) / UNITS, w) for a, b, w in lines if w not in PAUSES]
            sound = media.audio(path, RATE)
            found.append(
                Said(
                    path.stem, end=len(sound) / RATE, text=" ".join(w for *_, w in said),
                    language="en", sound=sound, reference=tuple((a, b) for a, b, _ in said),
                )
            )  # fmt: skip
        if number and len(found) == number:
            break
    if not found:
        raise common.BenchmarkError(f"No clip of {folder} has a .align beside it.")
    return found


def ours() -> Aligner:
    """Our aligner, as `mertool align` uses it."""
    aligner = Pocketsphinx(Pocketsphinx.Config())

    def align(clip: Said) -> list[tuple[float, float, float]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MertoolWarning)
            return [(w.start, w.end, w.score) for w in aligner.align(clip)]

    return align


def plain() -> Aligner:
    """Plain pocketsphinx as its documentation shows it, settings untouched; words have no score.

    One decoder for all clips: what it has learnt of the noise goes on from clip to clip. With a
    decoder for each clip it is worse: in GRID start 20/53/690 ms, end 20/50/230.
    """
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE, lm=None, bestpath=False, loglevel="FATAL")

    def align(clip: Said) -> list[tuple[float, float, float]] | None:
        decoder.set_align_text(clip.text)
        decoder.start_utt()
        samples = np.clip(np.rint(clip.sound * 32768), -32768, 32767).astype("<i2")
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        path = [s for s in decoder.seg() or () if s.word[0] not in "<["]
        if [s.word.split("(")[0] for s in path] != clip.text.split():
            return None
        return [(s.start_frame / 100, (s.end_frame + 1) / 100, 0.0) for s in path]

    return align


def errors(clip: Said, times: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """(n, 2) signed errors of start and end in ms, of the words that are said."""
    pairs = zip(times, clip.reference, strict=True)
    return np.array(
        [[1000 * (t[0] - r[0]), 1000 * (t[1] - r[1])] for t, r in pairs if r]
    ).reshape(-1, 2)  # fmt: skip


def summary(signed: np.ndarray) -> dict[str, float]:
    """Of errors in ms: median, 90th percentile and worst size, share within 50 ms, mean."""
    if not len(signed):
        return dict.fromkeys(("median", "p90", "worst", "within_50", "bias"), float("nan"))
    size = np.abs(signed)
    return {
        "median": float(np.median(size)), "p90": float(np.percentile(size, 90)),
        "worst": float(size.max()), "within_50": float(np.mean(size <= 50 + 1e-6)),
        "bias": float(signed.mean()),
    }  # fmt: skip


def both(each: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Summary of starts and ends."""
    signed = np.concatenate([np.zeros((0, 2)), *each])
    return {"start": summary(signed[:, 0]), "end": summary(signed[:, 1])}


def measure(folder: Path, number: int = 0, repeats: int = 5) -> dict[str, Any]:
    """Align the clips with both, in turn, several times.

    Returns:
        Errors of both in ms, clips in which there was no path, CPU seconds per second of sound.
    """
    said = clips(folder, number)
    length = sum(len(clip.sound) for clip in said) / RATE
    aligners = {OURS: ours(), PLAIN: plain()}
    result: dict[str, Any] = {"clips": len(said), "seconds": length, "repeats": {}}
    # Once for the errors, from a fresh start: plain pocketsphinx's depend on the clips before.
    for name, align in aligners.items():
        pairs = [(clip, times) for clip in said if (times := align(clip))]
        result[name] = {
            **both([errors(clip, times) for clip, times in pairs]),
            "words": sum(len(times) for _, times in pairs),
            "failed": len(said) - len(pairs),
        }  # fmt: skip
    for _ in range(repeats):
        for name, align in aligners.items():
            started = time.process_time()
            for clip in said:
                align(clip)
            spent = (time.process_time() - started) / length
            result["repeats"].setdefault(name, []).append(spent)
    for name in aligners:
        result[name]["cpu"] = median(result["repeats"][name])
    result["cost"] = result[OURS]["cpu"] / result[PLAIN]["cpu"]
    return result


def misses(result: dict[str, Any]) -> list[str]:
    made = result[OURS]
    found = [
        f"grid: {edge} {name} {made[edge][name]:.0f} ms, at most {most:.0f}"
        for edge in ("start", "end")
        for name, most in TARGETS.items()
        if not made[edge][name] <= most
    ]
    if result["cost"] > COST:
        found.append(f"grid: {result['cost']:.2f} times plain pocketsphinx's cost, at most {COST}")
    if made["failed"]:
        found.append(f"grid: {made['failed']} clips without a path")
    return found


def figures(made: dict[str, float]) -> list[str]:
    return [
        f"{made['median']:.0f}", f"{made['p90']:.0f}", f"{made['worst']:.0f}",
        f"{made['within_50']:.0%}", f"{made['bias']:+.0f}",
    ]  # fmt: skip


def lines(result: dict[str, Any]) -> list[str]:
    rows = [
        [f"{name}, {edge}", *figures(result[name][edge]), f"{result[name]['cpu']:.4f}"]
        for edge in ("start", "end")
        for name in (OURS, PLAIN)
    ]
    head = [f"{result['clips']} clips, ms", "median", "p90", "worst", "<= 50 ms", "bias", "CPU s/s"]
    return [table(head, rows)]


def key(result: dict[str, Any]) -> str:
    start, end = (
        "/".join(f"{result[OURS][edge][name]:.0f}" for name in TARGETS) for edge in ("start", "end")
    )
    return f"word start {start} ms, end {end} ms, {result['cost']:.2f} of plain's cost"
