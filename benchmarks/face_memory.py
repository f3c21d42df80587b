"""Memory and time per frame of the face extractors as a clip gets longer."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from statistics import median, stdev
from typing import Any

import common
import memory
from face_runs import apart

import mertool
from mertool.cli.common import table
from mertool.types import Clip

EXTRACTORS = ("facemesh", "pyfeat")
PIECES, PARTS = 20, 12  # of the longest clip; of each piece
FLAT = 1.1  # largest peak over smallest
SHORT, RUNS = 60.0, 3  # up to so many seconds a clip is extracted so often
EQUAL, NOISES, NOISIEST = 0.05, 3.0, 0.05
STUB = Path(__file__).with_name("stub_feat.py")


def measure(clip: Clip, lengths: list[float]) -> dict[str, dict[str, Any]]:
    """Extract a clip repeated to some lengths.

    Returns:
        {extractor: {length in seconds: figures of `watched`}}.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in EXTRACTORS}
    piece = max(lengths) / PIECES
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        work = Path(temporary)
        (work / "stub" / "feat").mkdir(parents=True)
        shutil.copyfile(STUB, work / "stub" / "feat" / "__init__.py")
        for seconds in lengths:
            common.say(f"write a clip of {seconds:g} s")
            path = work / "clip.mp4"
            memory.repeat(clip, path, seconds)
            for name, files in found.items():
                common.say(f"{name} on {seconds:g} s")
                runs = RUNS if seconds <= SHORT else 1
                files[f"{seconds:g}"] = watched(path, name, piece, work / "stub", runs)
    return found


def watched(path: Path, vision: str, piece: float, stub: Path, runs: int) -> dict[str, Any]:
    """Extract one file; its rows, memory in MB and milliseconds per frame of each piece.

    Of the runs of a short file, that with the median of the peaks is taken.

    Raises:
        BenchmarkError: It failed.
    """
    out = path.with_suffix(".h5")
    given = {"file": str(path), "out": str(out), "vision": vision, "piece": piece / PARTS}
    ran = [apart("watch", [stub], **given) for _ in range(runs)]
    made = sorted(ran, key=lambda one: one["peak"] + one["worker"])[runs // 2]
    with mertool.open(out) as file:
        rows = next(iter(file)).streams["vision"].values
    frames, cpu, wall = per_frame(made["marks"])
    return {
        "frames": frames,
        "rows": len(rows),
        "valid": float(rows[:, -1].mean()) if len(rows) else 0.0,
        "peak": made["peak"] + made["worker"],
        "worker": made["worker"],
        "peaks": [one["peak"] + one["worker"] for one in ran],
        "notes": made["notes"],
        "cpu_ms": cpu,
        "wall_ms": wall,
    }


def per_frame(marks: list[list[float]]) -> tuple[int, list[float], list[float]]:
    """Number of frames, and CPU and wall milliseconds per frame of each piece.

    Of the parts of a piece, the median: what else the machine does for a moment is left out.

    Args:
        marks: (frames so far, CPU seconds, wall seconds), as face_runs.py gives them.
    """
    steps = [
        [after - before for before, after in zip(*pair, strict=True)]
        for pair in zip(marks, marks[1:], strict=False)
    ]
    usual = median(step[0] for step in steps)
    steps = [step for step in steps if step[0] > usual / 3]  # a rest at the end is no piece
    cpu, wall = ([1000 * step[i] / step[0] for step in steps] for i in (1, 2))
    firsts = range(0, len(steps), PARTS)
    cpu, wall = ([median(ms[i : i + PARTS]) for i in firsts] for ms in (cpu, wall))
    return int(marks[-1][0]), cpu, wall


def flatness(files: dict[str, Any]) -> dict[str, float]:
    """Most memory over least; time per frame of the last piece over the first's, and its noise."""
    peaks = [f["peak"] for f in files.values()]
    times = files[max(files, key=float)]["cpu_ms"]
    # Changes between neighbours: a time that grows steadily adds next to nothing to their spread.
    changes = [after - before for before, after in zip(times, times[1:], strict=False)]
    return {
        "memory": max(peaks) / min(peaks),
        "time": times[-1] / times[0],
        "noise": stdev(changes) / median(times),
    }


def misses(result: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    for name, files in result.items():
        for seconds, f in files.items():
            # Memory and time that a lost face saves are no merit.
            if f["rows"] != f["frames"] or f["valid"] < 0.9:
                told = f"{f['rows']} rows of {f['frames']} frames, {f['valid']:.0%} with a face"
                found.append(f"{name}, {seconds} s: {told}")
        flat = flatness(files)
        if flat["memory"] > FLAT:
            told = f"differs {flat['memory']:.2f} times, at most {FLAT:.2f}"
            found.append(f"{name}: peak memory {told}")
        if flat["noise"] > NOISIEST:
            found.append(f"{name}: time per frame is too noisy to tell, {flat['noise']:.2f}")
        if abs(flat["time"] - 1) > max(EQUAL, NOISES * flat["noise"]):
            told = f"{flat['time']:.3f} times the first's, noise {flat['noise']:.3f}"
            found.append(f"{name}: the last frames' time is {told}")
    return found


def lines(result: dict[str, dict[str, Any]]) -> list[str]:
    told = []
    for name, files in result.items():
        rows = [
            [f"{seconds} s", str(f["rows"]), f"{f['valid']:.3f}", f"{f['peak']:.1f}",
             f"{f['worker']:.1f}", f"{median(f['cpu_ms']):.3f}", f"{median(f['wall_ms']):.3f}"]
            for seconds, f in files.items()
        ]  # fmt: skip
        header = [name, "rows", "valid", "peak MB", "of it worker", "CPU ms/frame", "wall ms/frame"]
        told += [table(header, rows)]
        longest = max(files, key=float)
        times = " ".join(f"{ms:.3f}" for ms in files[longest]["cpu_ms"])
        told += [f"CPU ms per frame of {longest} s, piece by piece: {times}"]
        flat = flatness(files)
        told += [
            f"most memory over least {flat['memory']:.3f}; last time over first "
            f"{flat['time']:.3f}, noise {flat['noise']:.3f}",
            "",
        ]
    return told[:-1]


def key(result: dict[str, dict[str, Any]]) -> str:
    told = []
    for name, files in result.items():
        flat = flatness(files)
        told.append(
            f"{name} memory {flat['memory']:.2f}, time {flat['time']:.2f} +- {flat['noise']:.2f}"
        )
    return "; ".join(told)
