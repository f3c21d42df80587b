"""What `face.py` runs in processes of its own: `face_runs.py WHAT ARGUMENTS`, both ways as JSON.

`speed` keeps to one core; `watch` follows the memory and the time of one extraction, by /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common

import mertool
from mertool import media
from mertool.types import Clip

END_TO_END, PLAIN, REFINED = "facemesh", "decode, mesh", "decode, refined mesh"
DECODE = "decode"
LOOK = 25  # frames between two looks at the workers' memory


def apart(what: str, modules: Sequence[Path] = (), **arguments: Any) -> dict[str, Any]:
    """Call `speed` or `watch` in a process of its own.

    Args:
        what: Which of the two.
        modules: Folders of Python modules that come before the installed ones.
        arguments: Its arguments.

    Returns:
        What it returns.

    Raises:
        BenchmarkError: It failed.
    """
    given = filter(None, [os.environ.get("PYTHONPATH")])
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*map(str, modules), *given]),
    }
    command = [sys.executable, __file__, what, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise common.BenchmarkError(f"{what} failed ({done.returncode}):\n{done.stderr[-2000:]}", 1)
    return json.loads(done.stdout.splitlines()[-1])


def speed(files: list[str], repeats: int) -> dict[str, Any]:
    """Seconds for the frames of some files, on one core.

    Args:
        files: Media files.
        repeats: How often everything is timed, in turn.

    Returns:
        {"frames": of all files, "pinned": kept to one core, "wall" and "cpu": {what is timed:
        seconds of each repeat}}. Loading MediaPipe and its models is not in it.

    Raises:
        RuntimeError: The extraction left out frames.
    """
    pinned = hasattr(os, "sched_setaffinity")
    if pinned:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="mertool-") as work:
        kinds: dict[str, Callable[[list[str]], int]] = {
            END_TO_END: lambda paths: extracted(paths, Path(work)),
            PLAIN: lambda paths: meshed(paths, refined=False),
            REFINED: lambda paths: meshed(paths, refined=True),
            DECODE: decoded,
        }
        frames = {name: run(files[:1]) for name, run in kinds.items()}
        spent: dict[str, Any] = {k: {name: [] for name in kinds} for k in ("wall", "cpu")}
        for _ in range(repeats):
            for name, run in kinds.items():
                wall, cpu = time.perf_counter(), time.process_time()
                frames[name] = run(files)
                spent["wall"][name].append(time.perf_counter() - wall)
                spent["cpu"][name].append(time.process_time() - cpu)
    if len(set(frames.values())) > 1:
        raise RuntimeError(f"not the same frames: {frames}")
    return {"frames": frames[DECODE], "pinned": pinned, **spent}


def extracted(files: list[str], work: Path) -> int:
    """Extract files as `mertool extract` does; returns the number of rows."""
    out = work / "speed.h5"
    report = mertool.extract(
        files, out, text="none", audio="none", vision="facemesh", overwrite=True
    )
    if report.failures:
        raise RuntimeError(f"failed: {report.failures}")
    with mertool.open(out) as file:
        return int(file.lengths("vision").sum())


def meshed(files: list[str], refined: bool) -> int:
    """Decode files and run MediaPipe on each frame, one graph per file; the number of frames."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    count = 0
    for path in files:
        with FaceMesh(max_num_faces=1, refine_landmarks=refined) as mesh:
            for _, image in media.frames(path):
                mesh.process(image)
                count += 1
    return count


def decoded(files: list[str]) -> int:
    return sum(1 for path in files for _ in media.frames(path))


def watch(file: str, out: str, vision: str, piece: float) -> dict[str, Any]:
    """Extract the vision stream of one file.

    Args:
        file: Media file.
        out: Feature file to write.
        vision: The extractor.
        piece: Seconds of the video between two readings of the clocks.

    Returns:
        "peak": largest resident set, MB; "worker": the same of the processes started, together;
        "marks": [frames read, CPU seconds, wall seconds] at the end of the first second (in which
        models are loaded), of each piece, and of the clip; "notes": what the user is told.

    Raises:
        MertoolError: The clip failed.
    """
    watcher = Watcher(piece)
    Clip.frames = watcher.wrapped(Clip.frames)  # type: ignore[method-assign]
    report = mertool.extract(file, out, text="none", audio="none", vision=vision, overwrite=True)
    watcher.look()
    return {
        "peak": peak("self"),
        "worker": sum(watcher.workers.values()),
        "marks": watcher.marks,
        "notes": [note for _, note in report.notes],
    }


class Watcher:
    """Reads clocks and memory as the frames of a clip are asked for.

    Args:
        piece: Seconds of the video between two readings of the clocks.
    """

    def __init__(self, piece: float) -> None:
        self.piece = piece
        self.marks: list[tuple[int, float, float]] = []
        self.workers: dict[str, float] = {}  # process id: peak, MB

    def wrapped(self, plain: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """`Clip.frames`, watched."""

        def frames(clip: Clip, fps: float | None = None) -> Iterator[Any]:
            self.marks.clear()  # the last reader of a clip is the one that counts
            due, count = min(1.0, self.piece / 2), 0  # models are loaded in the first second
            for at, image in plain(clip, fps):
                if at >= due:
                    self.mark(count)
                    due = len(self.marks) * self.piece
                if count % LOOK == 0:
                    self.look()
                count += 1
                yield at, image
            self.mark(count)
            self.look()

        return frames

    def mark(self, count: int) -> None:
        """Read the clocks when `count` frames were asked for."""
        self.marks.append((count, cpu_seconds(), time.perf_counter()))

    def look(self) -> None:
        """Read the memory of the workers, which is gone when they are."""
        for child in children():
            self.workers[child] = max(self.workers.get(child, 0.0), peak(child))


def cpu_seconds() -> float:
    """CPU time of this process and of those that it has started, so far."""
    ended = os.times()
    total = time.process_time() + ended.children_user + ended.children_system
    tick = os.sysconf("SC_CLK_TCK")
    for child in children():
        try:
            told = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        total += (int(told[11]) + int(told[12])) / tick
    return total


def children(process: str = "self") -> list[str]:
    """Ids of the running processes started by one, and by those."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += path.read_text().split()
        except OSError:
            continue
    return found + [below for child in found for below in children(child)]


def peak(process: str) -> float:
    """Largest resident set of a process since it started its program, MB (10^6 bytes); 0 = gone."""
    # Not the resources that the system reports: those count what the process was before, too.
    try:
        status = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(x.split()[1]) * 1024 / 1e6 for x in status if x.startswith("VmHWM"))


if __name__ == "__main__":
    function = {"speed": speed, "watch": watch}[sys.argv[1]]
    print(json.dumps(function(**json.loads(sys.argv[2]))))
