"""Does an extraction that is killed and resumed give what an uninterrupted one gives?

`mertool extract -j 2` is killed (SIGKILL, the whole process group) at random moments, drawn over
the time that an uninterrupted run takes, and resumed each time with --resume. Whenever a run ends
before its moment, its output is compared with the uninterrupted one and a new extraction begins;
so all kills hit a running extraction. The last one is completed and compared as well.

Target: every dataset and attribute is equal (but the root's created and command), and a resumed
run takes over every clip that was finished before the kill.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import common
import h5py
import numpy as np

from mertool.cli.common import table

OWN = ("created", "command")  # root attributes that differ between equal runs


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", type=Path, help="clips  [default: grid]")
    parser.add_argument("--seed", type=int, default=1, help="of the moments  [default: 1]")
    parser.add_argument("--kills", type=int, default=10, help="[default: 10]")
    args = parser.parse_args()
    folder = common.folder(args.data, "grid")
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        result = measure(folder, Path(temporary), args.kills, args.seed)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def measure(folder: Path, temporary: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill, resume and compare, until `kills` kills have hit a running extraction."""
    whole = temporary / "whole.h5"
    common.say("an uninterrupted run")
    ran = common.mertool("extract", folder, "-o", whole, "-j", 2)
    result: dict[str, Any] = {
        "data": folder.name, "clips": ran.report["clips"], "seed": seed, "seconds": ran.wall,
        "kills": [], "completed": [],
    }  # fmt: skip
    moments = random.Random(seed)
    while True:
        # Without a moment, once all kills are done: the last extraction is completed.
        done = len(result["kills"]) == kills
        moment = None if done else moments.uniform(0, ran.wall)
        number = len(result["completed"]) + 1
        out = temporary / f"killed-{number}.h5"
        before = kept(out, result["clips"])
        report = attempt(folder, out, moment)
        if report is None:
            after = kept(out, result["clips"])
            kill = {"extraction": number, "moment": moment, "before": before, "kept": after}
            result["kills"].append(kill)
            common.say(f"killed after {moment:.1f} s: {after} clips kept")
            continue
        different = differences(whole, out)
        result["completed"].append(
            {"kept": before, "resumed": report["resumed"], "different": different}
        )
        common.say(f"extraction {number} completed: {len(different)} differences")
        if done:
            return result


def kept(out: Path, clips: int) -> int:
    """Number of clips that are finished: all in the output, or the parts beside it."""
    if out.exists():
        return clips
    return sum(not p.name.startswith(".") for p in Path(f"{out}.part").glob("*.h5"))


def attempt(folder: Path, out: Path, moment: float | None) -> dict[str, Any] | None:
    """Extract or resume; the report, or None where it was killed `moment` seconds after its start.

    Raises:
        BenchmarkError: The extraction failed by itself.
    """
    args = ["extract", folder, "-o", out, "-j", 2]
    if out.exists() or Path(f"{out}.part").exists():
        args.append("--resume")
    with tempfile.TemporaryFile() as out_text, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            common.command(*args), stdout=out_text, stderr=errors, start_new_session=True
        )
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed = process.wait() == -signal.SIGKILL
            # The process that would have cleaned up after the others was killed with them.
            for semaphore in Path("/dev/shm").glob(f"sem.loky-{process.pid}-*"):
                semaphore.unlink(missing_ok=True)
            if killed:
                return None
        return common.printed(process.returncode, "extract", out_text, errors)


def differences(left: Path, right: Path) -> list[str]:
    """What differs between two feature files: groups, datasets and attributes, bit by bit."""
    with h5py.File(left) as a, h5py.File(right) as b:
        one, two = contents(a), contents(b)
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def contents(file: h5py.File) -> dict[str, Any]:
    """{name: comparable content} of every group, dataset and attribute of an HDF5 file."""
    found: dict[str, Any] = {f"/@{k}": plain(v) for k, v in file.attrs.items() if k not in OWN}

    def visit(name: str, item: Any) -> None:
        found[name] = plain(item[()]) if isinstance(item, h5py.Dataset) else "group"
        found.update({f"{name}@{key}": plain(value) for key, value in item.attrs.items()})

    file.visititems(visit)
    return found


def plain(value: Any) -> Any:
    """Type, shape and bytes of an array (so that NaN equals NaN); strings as they are."""
    array = np.asarray(value)
    content = array.tolist() if array.dtype == object else array.tobytes()
    return str(array.dtype), array.shape, content


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    for number, done in enumerate(result["completed"], 1):
        if done["different"]:
            found.append(f"extraction {number} differs in {', '.join(done['different'])}")
        if done["resumed"] < done["kept"]:
            found.append(
                f"extraction {number} took over {done['resumed']} of {done['kept']} finished clips"
            )
    for number, kill in enumerate(result["kills"], 1):
        if kill["kept"] < kill["before"]:
            found.append(f"kill {number}: {kill['before']} clips were kept, then {kill['kept']}")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    share = result["seconds"] / 100
    rows = [
        [i, k["extraction"], f"{k['moment'] / share:.0f}", k["before"], k["kept"]]
        for i, k in enumerate(result["kills"], 1)
    ]
    header = ["kill", "extraction", "moment, % of a whole run", "clips before", "clips kept"]
    return [
        f"{result['data']}: {result['clips']} clips, {result['seconds']:.1f} s uninterrupted",
        table(header, rows),
        "",
    ]


def key_figure(result: dict[str, Any]) -> str:
    equal = sum(not done["different"] for done in result["completed"])
    return (
        f"{len(result['kills'])} kills in {len(result['completed'])} extractions: {equal} of "
        f"{len(result['completed'])} outputs equal the uninterrupted one"
    )


if __name__ == "__main__":
    common.main(main)
