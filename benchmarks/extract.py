"""Speed and yield of `mertool extract` on real clips, with one process and with two.

Every folder is extracted with -j 1 and with -j 2 by the default extractors, three times in turn,
then aligned to words where it has transcripts. Times are wall times of the whole command, start of
Python included: for a few short clips they are mostly that. The quickest of the three counts.

Target: every clip has rows in all three streams (text where it has a transcript), none fails.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common

from mertool import manifest
from mertool.cli.common import table

FOLDERS = ("grid", "crema_d", "ravdess_video")
STREAMS = ("text", "audio", "vision")
JOBS = (1, 2)
RUNS = 3  # of each; the quickest counts, as it is the one least disturbed


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path, action="append",
        help=f"folder of clips; may be given several times  [default: {', '.join(FOLDERS)}]",
    )  # fmt: skip
    args = parser.parse_args()
    folders = (
        [common.folder(path, "") for path in args.data]
        if args.data
        else [common.folder(None, name) for name in FOLDERS]
    )
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        # The first run on a machine reads models and libraries from disk: not counted.
        first = manifest.read([folders[0]]).clips[0].media
        common.mertool("extract", first, "-o", Path(temporary) / "first.h5")
        result = {
            "folders": [
                measure(folder, Path(temporary) / str(i)) for i, folder in enumerate(folders)
            ]
        }
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def measure(folder: Path, temporary: Path) -> dict[str, Any]:
    """Extract and align one folder."""
    runs: dict[str, dict[str, Any]] = {str(jobs): {"walls": []} for jobs in JOBS}
    for number in range(RUNS):
        for jobs in JOBS:
            common.say(f"{folder.name}: extract -j {jobs}, {number + 1} of {RUNS}")
            out = temporary / f"j{jobs}.h5"
            ran = common.mertool("extract", folder, "-o", out, "-j", jobs, "--overwrite")
            runs[str(jobs)]["walls"].append(ran.wall)
            runs[str(jobs)].update(cpu=ran.cpu, **inspect(out))
    for run in runs.values():
        run["wall"] = min(run["walls"])
    result: dict[str, Any] = {"data": folder.name, "runs": runs}
    result["speedup"] = runs["1"]["wall"] / runs["2"]["wall"]
    result["align"] = None
    if runs["1"]["transcripts"]:
        common.say(f"{folder.name}: align")
        ran = common.mertool("align", temporary / "j1.h5", "-o", temporary / "aligned.h5")
        result["align"] = {
            "wall": ran.wall,
            "words": ran.report["words"],
            "evenly_spaced": ran.report["unaligned_words"],
            "failures": [failure[0] for failure in ran.report["failures"]],
        }
    return result


def inspect(features: Path) -> dict[str, Any]:
    """What a feature file holds: clips, seconds, and which clips lack a stream they should have."""
    import mertool

    with mertool.open(features) as file:
        spoken = [bool(text) for text in file.column("text")]
        lacking = {}
        for name in STREAMS:
            rows = file.lengths(name) if name in file.streams else [0] * len(file)
            due = spoken if name == "text" else [True] * len(file)
            lacking[name] = [
                clip for clip, n, d in zip(file.ids, rows, due, strict=True) if d and not n
            ]
        return {
            "clips": len(file),
            "seconds": sum(clip.end - clip.start for clip in file),
            "transcripts": sum(spoken),
            "lacking": lacking,
            "failures": [clip for clip, _, _ in file.failures],
        }


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    for folder in result["folders"]:
        for jobs, run in folder["runs"].items():
            where = f"{folder['data']} with -j {jobs}"
            for stream, clips in run["lacking"].items():
                if clips:
                    found.append(f"{where}: no {stream} rows for {', '.join(clips)}")
            if run["failures"]:
                found.append(f"{where}: failed: {', '.join(run['failures'])}")
        if folder["align"] and folder["align"]["failures"]:
            found.append(f"{folder['data']}: not aligned: {', '.join(folder['align']['failures'])}")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    header = ["folder", "clips", "failed", *STREAMS, "clips/s -j 1", "-j 2", "ratio",
              "video s/s -j 1", "-j 2", "words", "evenly spaced"]  # fmt: skip
    rows = []
    for folder in result["folders"]:
        one, two = (folder["runs"][str(jobs)] for jobs in JOBS)
        due = {"text": one["transcripts"], "audio": one["clips"], "vision": one["clips"]}
        full = [f"{due[s] - len(one['lacking'][s])}/{due[s]}" for s in STREAMS]
        speed = [f"{run['clips'] / run['wall']:.2f}" for run in (one, two)]
        pace = [f"{run['seconds'] / run['wall']:.2f}" for run in (one, two)]
        align = folder["align"]
        words = [align["words"], align["evenly_spaced"]] if align else ["-", "-"]
        rows.append(
            [folder["data"], one["clips"], len(one["failures"]), *full, *speed,
             f"{folder['speedup']:.2f}", *pace, *words]
        )  # fmt: skip
    return [table(header, rows), ""]


def key_figure(result: dict[str, Any]) -> str:
    ones, twos = ([f["runs"][str(jobs)] for f in result["folders"]] for jobs in JOBS)
    clips, failed = sum(r["clips"] for r in ones), sum(len(r["failures"]) for r in ones)
    wanting = sum(len({c for lack in r["lacking"].values() for c in lack}) for r in ones)
    speeds = [sum(r["clips"] for r in rs) / sum(r["wall"] for r in rs) for rs in (ones, twos)]
    return (
        f"{clips - wanting} of {clips + failed} clips have all streams; {speeds[1]:.2f} clips/s "
        f"with -j 2, {speeds[1] / speeds[0]:.2f} times -j 1"
    )


if __name__ == "__main__":
    common.main(main)
