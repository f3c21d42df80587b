"""MOSI's transcripts to features of words: import, extract, align, without any media."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
from align_pool import alone

import mertool
from mertool.cli.common import table
from mertool.words import split_words

STEPS = ("import", "extract", "align")


def measure(folder: Path, clips: int = 0) -> dict[str, Any]:
    """Make word-level text features of MOSI's segments by minilm.

    Args:
        folder: Holds mosi_words.json, segments with the times of their words.
        clips: Take so many segments; 0 = all.

    Returns:
        Wall and CPU seconds and peak MB of each step, and counts.

    Raises:
        BenchmarkError: The file is missing, or mertool failed.
    """
    return alone(__file__, folder, clips)


def _measure(folder: Path, clips: int) -> dict[str, Any]:
    source = folder / "mosi_words.json"
    if not source.is_file():
        raise common.BenchmarkError(f"There is no {source}.")
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        features, aligned = Path(temporary) / "mosi.h5", Path(temporary) / "aligned.h5"
        if clips:
            some = json.loads(source.read_text(encoding="utf-8"))[:clips]
            source = Path(temporary) / "some.json"
            source.write_text(json.dumps(some), encoding="utf-8")
        common.say("import, extract and align MOSI's transcripts")
        ran = {
            "import": common.mertool("data", "import", "words", source, "-o", features),
            "extract": common.mertool(
                "extract", "--into", features, "--text", "minilm", "--set", "text.pool=mean"
            ),
            "align": common.mertool("align", features, "-o", aligned),
        }
        return {
            "steps": {
                name: {"wall": r.wall, "cpu": r.cpu, "peak": r.peak} for name, r in ran.items()
            },
            "clips": ran["extract"].report["clips"],
            "seconds": ran["extract"].report["seconds"],
            "failed": [name for name, *_ in ran["extract"].report["failures"]],
            "not_aligned": [name for name, *_ in ran["align"].report["failures"]],
            **count(features, aligned),
        }


def count(features: Path, aligned: Path) -> dict[str, int]:
    """Words of the transcripts, rows of them, and rows with the times that the file gave."""
    found = {"words": 0, "rows": 0, "wrong": 0, "timed": 0}
    with mertool.open(features) as before, mertool.open(aligned) as after:
        for clip in before:
            rows, spans = clip.streams["text"], split_words(clip.text)
            found["words"] += len(spans)
            found["rows"] += len(rows)
            found["wrong"] += rows.word.tolist() != list(range(len(spans)))
            found["wrong"] += list(map(tuple, rows.span.tolist())) != spans
            if clip.id in after:
                times = [(word.start, word.end) for word in clip.words]
                given = after[clip.id].streams["text"].times.tolist()
                found["timed"] += sum(a == tuple(b) for a, b in zip(times, given, strict=True))
    return found


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    if result["failed"] or result["wrong"] or result["rows"] != result["words"]:
        found.append(
            f"mosi: {result['rows']} rows for {result['words']} words, {result['wrong']} clips "
            f"with rows in wrong places, {len(result['failed'])} failed"
        )
    return found


def lines(result: dict[str, Any]) -> list[str]:
    rows = [
        [name, f"{made['wall']:.1f}", f"{made['cpu']:.1f}", f"{made['peak']:.0f}"]
        for name, made in result["steps"].items()
    ]
    left = ", ".join(result["not_aligned"]) or "none"
    return [
        table(["MOSI's text", "wall s", "CPU s", "peak MB"], rows),
        f"{result['clips']} segments, {result['words']} words, {result['rows']} rows; "
        f"{result['timed']} aligned by the file's times; left out, without any: {left}",
    ]


def key(result: dict[str, Any]) -> str:
    rate = result["clips"] / result["steps"]["extract"]["wall"]
    return f"MOSI's text {rate:.0f} clips/s, {result['rows']} rows of {result['words']} words"


def main() -> int:
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
    return 0


if __name__ == "__main__":
    common.main(main)
