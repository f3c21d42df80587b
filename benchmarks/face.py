"""The face: speed and memory of its extractors, odd videos, and what its measures answer to.

Speed: frames per second of `facemesh` from video file to feature file (decode, mesh, measures,
store), on one core; beside decoding and MediaPipe's face mesh alone, for one face, with and without
its refined landmarks; all in one process, in turn. Starting Python and loading models is left out.

Memory: peak resident set for a clip repeated to ten seconds, one, five and twenty minutes, with
that of worker processes (up to a minute, the median of three runs); CPU time per frame in each
twentieth of the longest, its first second left out. Noise: the standard deviation of the change
from one twentieth to the next. The same of `pyfeat` with a network that is a stub, whose answers
cost nothing: this measures all around it.

Odd: two faces, none, one that leaves, a picture turned with and without a header that says so,
grey, 4k, a single frame, a file damaged in the middle: one `mertool extract` of a folder of them.

Known: action-unit measures and pose against faces moved by known amounts.

Target: at least 120 frames per second at GRID's size, 70 at 720p. Peak memory of both extractors
flat within 10%; time per frame in the first and the last twentieth equal within 5% or three times
the noise, which may be 5% at most. Of the odd videos the damaged one fails and no other; a face in
sight is found in 90% of the frames (two as two; one that leaves in 30%), and without any there are
no rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import common
import face_memory
import odd_faces
from face_runs import END_TO_END, PLAIN, REFINED, apart

from mertool import manifest, media
from mertool.cli.common import table
from mertool.types import Clip

PARTS = ("speed", "memory", "odd", "known")
FASTEST = {"grid": 120.0, "720p": 70.0}  # frames per second, at least
CLIPS = 8  # of a folder
LENGTHS = (10.0, 60.0, 300.0, 1200.0)  # seconds


def main() -> int:
    args = options()
    parts = args.parts.split(",")
    folder = common.folder(args.data, "grid")
    folders = {"grid": folder}
    if "speed" in parts:
        folders["720p"] = common.folder(args.large, "ravdess_video")
    actor = crema(args.crema)
    result: dict[str, Any] = {"data": folder.name}
    for part in parts:
        common.say(part)
        if part == "speed":
            result[part] = {name: speed(each, args.repeats) for name, each in folders.items()}
        elif part == "memory":
            result[part] = face_memory.measure(some_clips(folder)[0], args.lengths)
        elif part == "odd":
            clips = some_clips(folder)
            result[part] = odd_faces.measure(clips[0], clips[-1])
        else:
            result[part] = module(part).measure(folder, actor, common.say)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def options() -> argparse.Namespace:
    """The parsed options.

    Raises:
        BenchmarkError: A wrong one.
    """
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", type=Path, help="clips  [default: grid]")
    parser.add_argument(
        "--large", metavar="DIR", type=Path, help="clips at 720p  [default: ravdess_video]"
    )
    parser.add_argument(
        "--crema", metavar="DIR", type=Path, help="CREMA-D clips  [default: crema_d, if there]"
    )
    parser.add_argument(
        "--parts", default=",".join(PARTS), metavar="NAME,...", help="[default: %(default)s]"
    )
    parser.add_argument(
        "--lengths", default=",".join(f"{x:g}" for x in LENGTHS), metavar="SECONDS,...",
        help="of the clips for memory  [default: %(default)s]",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="of speed  [default: %(default)s]")
    args = parser.parse_args()
    if set(args.parts.split(",")) - set(PARTS):
        raise common.BenchmarkError(f"--parts {args.parts}: known are {', '.join(PARTS)}.")
    if args.repeats < 1:
        raise common.BenchmarkError(f"--repeats {args.repeats}: at least 1.")
    try:
        args.lengths = [float(x) for x in args.lengths.split(",")]
    except ValueError:
        args.lengths = [0.0]
    if not 10 <= min(args.lengths) <= max(args.lengths) < 1e5:
        raise common.BenchmarkError("--lengths: seconds such as 10,60, each at least 10.")
    return args


def module(part: str) -> ModuleType:
    """The module that measures a part."""
    if part == "known":
        import known_faces

        return known_faces
    return {"memory": face_memory, "odd": odd_faces}[part]


def some_clips(folder: Path) -> list[Clip]:
    """The clips of a folder that have a picture.

    Raises:
        BenchmarkError: There is none.
    """
    clips = [c for c in manifest.read([folder]).clips if media.probe(c.media).has_video]
    if not clips:
        raise common.BenchmarkError(f"No clip of {folder} has a picture. Give another --data.")
    return clips


def crema(given: Path | None) -> Path | None:
    """The folder of CREMA-D; None where none is given and there is none."""
    try:
        return common.folder(given, "crema_d")
    except common.BenchmarkError:
        if given:
            raise
        return None


def speed(folder: Path, repeats: int) -> dict[str, Any]:
    """Frames per second on the first clips of a folder: each repeat's, and medians."""
    clips = some_clips(folder)[:CLIPS]
    info = media.probe(clips[0].media)
    made = apart("speed", files=[str(clip.media) for clip in clips], repeats=repeats)
    rates = {
        clock: {name: [made["frames"] / s for s in spent] for name, spent in made[clock].items()}
        for clock in ("wall", "cpu")
    }
    ours = rates["wall"][END_TO_END]
    return {
        "data": folder.name, "clips": len(clips), "frames": made["frames"],
        "size": [info.width, info.height], "pinned": made["pinned"],
        "fps": {name: median(each) for name, each in rates["wall"].items()},
        "cpu_fps": {name: median(each) for name, each in rates["cpu"].items()},
        "ratio": {
            name: median(a / b for a, b in zip(ours, rates["wall"][name], strict=True))
            for name in (PLAIN, REFINED)
        },
        "repeats": rates,
    }  # fmt: skip


def misses(result: dict[str, Any]) -> list[str]:
    found = [
        f"{name}: {made['fps'][END_TO_END]:.0f} frames per second, at least {FASTEST[name]:.0f}"
        for name, made in result.get("speed", {}).items()
        if made["fps"][END_TO_END] < FASTEST[name]
    ]
    for part in PARTS[1:]:
        found += module(part).misses(result[part]) if part in result else []
    return found


def lines(result: dict[str, Any]) -> list[str]:
    told: list[str] = []
    for name, made in result.get("speed", {}).items():
        width, height = made["size"]
        where = "one core" if made["pinned"] else "NOT kept to one core"
        told += [f"{name}: {made['frames']} frames of {width} x {height}, {where}"]
        rows = []
        for kind, fps in made["fps"].items():
            all_of = made["repeats"]["wall"][kind]
            figures = [fps, min(all_of), max(all_of), made["cpu_fps"][kind]]
            ratio = f"{made['ratio'][kind]:.2f}" if kind in made["ratio"] else ""
            rows.append([kind, *(f"{x:.0f}" for x in figures), ratio])
        header = ["", "frames/s", "least", "most", "by CPU time", f"{END_TO_END} of it"]
        told += [table(header, rows), ""]
    for part in PARTS[1:]:
        told += [*module(part).lines(result[part]), ""] if part in result else []
    return told


def key_figure(result: dict[str, Any]) -> str:
    told = [
        f"{made['fps'][END_TO_END]:.0f} frames/s at {name}, "
        f"{made['ratio'][REFINED]:.2f} of decoding and refined mesh alone"
        for name, made in result.get("speed", {}).items()
    ]
    told += [module(part).key(result[part]) for part in PARTS[1:] if part in result]
    return "; ".join(told)


if __name__ == "__main__":
    common.main(main)
