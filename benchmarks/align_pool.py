"""Pooling at MOSEI's size: time, memory, and whether the means are right.

The system counts to a process's memory what the one that started it held. So `measure` runs this
file as a program of its own, `align_pool.py CLIPS`, and that one another to write the feature file,
`align_pool.py FILE CLIPS`.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

import mertool
from mertool.cli.common import table
from mertool.store import Stream, Writer
from mertool.types import Clip, Rows, Word

CLIPS = 22_856  # MOSEI's segments
WORDS, SECONDS = 20, 7.0
STREAMS = {"audio": (74, 100.0), "vision": (35, 30.0)}  # columns, rows per second
PARTS = (0.25, 0.5, 1.0)
SAMPLE = 20  # clips pooled again, one number at a time
WALL, PEAK = 60.0, 1000.0  # seconds, MB; at most
LINEAR = 1.25  # time of a clip of the second half over that of one of the second quarter, at most
CLOSE = 1e-6  # values are about 1


def measure(clips: int = CLIPS) -> dict[str, Any]:
    """Run `mertool align` on a quarter, a half and the whole of so many clips.

    Raises:
        BenchmarkError: There is no room for the file, or mertool failed.
    """
    return alone(__file__, clips)


def alone(script: str, *arguments: Any) -> Any:
    """Run a script in a process of its own, which holds little; the JSON that it prints.

    Raises:
        BenchmarkError: It failed, and has said why.
    """
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise common.BenchmarkError(f"{Path(script).name} failed.", done.returncode)
    return json.loads(done.stdout)


def _measure(clips: int) -> dict[str, Any]:
    result: dict[str, Any] = {"clips": clips, "files": {}}
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        source, out = Path(temporary) / "feats.h5", Path(temporary) / "aligned.h5"
        bytes_of_clip = sum(4 * width * rate * SECONDS for width, rate in STREAMS.values())
        if shutil.disk_usage(temporary).free < 1.5 * clips * bytes_of_clip:
            raise common.BenchmarkError(f"There is no room in {temporary}. Set TMPDIR.")
        for part in PARTS:
            count = max(1, round(part * clips))
            common.say(f"write {count} clips")
            started = time.perf_counter()
            subprocess.run([sys.executable, __file__, source, str(count)], check=True)
            made = time.perf_counter() - started
            common.say("pool them")
            ran = common.mertool("align", source, "-o", out, "--overwrite")
            result["files"][f"{part:g}"] = {
                "clips": count, "done": ran.report["clips"], "size": source.stat().st_size / 1e9,
                "made": made, "wall": ran.wall, "cpu": ran.cpu, "peak": ran.peak,
            }  # fmt: skip
        common.say("pool some of them one number at a time")
        result["sample"] = compare(source, out)
    return result


def write(path: Path, clips: int) -> None:
    """Write a feature file of random rows and words; in every tenth clip, no face for a second."""
    rng = np.random.default_rng(0)
    streams = {
        name: Stream(tuple(f"{name}{i}" for i in range(width)), {"rate": rate, "timed": True})
        for name, (width, rate) in STREAMS.items()
    }
    cells = {}
    for name, (_, rate) in STREAMS.items():
        edges = np.arange(round(rate * SECONDS) + 1) / rate
        cells[name] = np.stack([edges[:-1], edges[1:]], axis=1)
    seen = (cells["vision"][:, 1] < 3) | (cells["vision"][:, 0] > 4)
    with Writer(path, streams) as writer:
        for i in range(clips):
            cuts = np.sort(rng.uniform(0, SECONDS, 2 * WORDS)).reshape(-1, 2).tolist()
            words = [Word(f"word{k}", *span, 1.0) for k, span in enumerate(cuts)]
            rows = {
                name: Rows(rng.random((len(times), STREAMS[name][0]), np.float32), times)
                for name, times in cells.items()
            }
            if i % 10 == 0:
                faces = rows["vision"]
                rows["vision"] = Rows(faces.values[seen], faces.times[seen])
            text = " ".join(word.text for word in words)
            writer.add(Clip(f"clip{i}", end=SECONDS, text=text, words=words), rows)


def compare(source: Path, out: Path) -> dict[str, Any]:
    """Largest difference from plain loops in a sample of clips, and how often which rule held."""
    found = {"clips": 0, "values": 0, "nearest": 0, "largest": 0.0}
    with mertool.open(source) as before, mertool.open(out) as after:
        chosen = random.Random(0).sample(range(len(before)), min(SAMPLE, len(before)))
        for index in {0, *chosen}:  # in the first, a second is without a face
            clip, pooled = before.clip(index), after.clip(index)
            found["clips"] += 1
            for name, rows in clip.streams.items():
                given = pooled.streams[name].values.tolist()
                for word, row in zip(clip.words, given, strict=True):
                    due, nearest = by_hand(rows, word.start, word.end)
                    gap = max(abs(a - b) for a, b in zip(row, due, strict=True))
                    found["largest"] = max(found["largest"], gap)
                    found["values"] += len(row)
                    found["nearest"] += nearest
    return found


def by_hand(rows: Rows, start: float, end: float) -> tuple[list[float], bool]:
    """One word's row: the mean weighted by overlap, or the nearest row; and whether that one."""
    total, sums = 0.0, [0.0] * rows.values.shape[1]
    nearest, least = 0, float("inf")
    for i, (low, high) in enumerate(rows.times.tolist()):
        overlap = min(end, high) - max(start, low)
        if overlap > 1e-6:
            total += overlap
            for column, value in enumerate(rows.values[i].tolist()):
                sums[column] += overlap * value
        away = abs((low + high) / 2 - (start + end) / 2)
        if away < least:
            nearest, least = i, away
    if total:
        return [value / total for value in sums], False
    return rows.values[nearest].tolist(), True


def growth(files: dict[str, Any]) -> float:
    """CPU time of a further clip among many over that of one among few: 1 = linear."""
    few, some, many = (files[f"{part:g}"] for part in PARTS)
    steps = [
        (after["cpu"] - before["cpu"]) / max(1, after["clips"] - before["clips"])
        for before, after in ((few, some), (some, many))
    ]
    return steps[1] / max(steps[0], 1e-9)


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    whole, sample = result["files"]["1"], result["sample"]
    if whole["wall"] > WALL:
        found.append(f"pooling: {whole['wall']:.0f} s, at most {WALL:.0f}")
    if whole["peak"] > PEAK:
        found.append(f"pooling: {whole['peak']:.0f} MB, at most {PEAK:.0f}")
    # Of a few clips, the time is noise.
    if result["clips"] >= CLIPS and growth(result["files"]) > LINEAR:
        found.append(f"pooling: time grows {growth(result['files']):.2f} times as fast as clips")
    if sample["largest"] > CLOSE:
        found.append(f"pooling: off by {sample['largest']:.2g}, at most {CLOSE:g}")
    for name, made in result["files"].items():
        if made["done"] != made["clips"]:
            found.append(f"pooling: {made['done']} of {made['clips']} clips at {name}")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    rows = [
        [str(f["clips"]), f"{f['size']:.2f}", f"{f['wall']:.1f}", f"{f['cpu']:.1f}",
         f"{1000 * f['wall'] / f['clips']:.2f}", f"{f['peak']:.0f}", f"{f['made']:.0f}"]
        for f in result["files"].values()
    ]  # fmt: skip
    header = ["clips", "file GB", "wall s", "CPU s", "ms/clip", "peak MB", "to write it, s"]
    sample = result["sample"]
    return [
        f"{WORDS} words, {SECONDS:g} s, " + ", ".join(
            f"{name} {width} columns at {rate:g} Hz" for name, (width, rate) in STREAMS.items()
        ) + "; the file just written",
        table(header, rows),
        f"CPU time of a further clip, second half over second quarter: "
        f"{growth(result['files']):.2f}",
        f"{sample['clips']} clips by plain loops: {sample['values']} values, largest difference "
        f"{sample['largest']:.2g}; {sample['nearest']} words had the nearest row",
    ]  # fmt: skip


def key(result: dict[str, Any]) -> str:
    whole = result["files"]["1"]
    return (
        f"{whole['clips']} clips pooled in {whole['wall']:.1f} s and {whole['peak']:.0f} MB, "
        f"off by {result['sample']['largest']:.1g}"
    )


def main() -> int:
    if len(sys.argv) == 3:
        write(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        print(json.dumps(_measure(int(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    common.main(main)
