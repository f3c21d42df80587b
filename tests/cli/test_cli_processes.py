"""What takes a process of its own: Ctrl-C, kill, a full disk, memory."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from cli.toys import OPTIONS, assert_same, environment, make_clips, start
from media_samples import Track, noisy, steady, write_media

# Parts of different sizes: 250 rows of `colour` fill one of HDF5's chunks, 300 need two.
TOYS = [*OPTIONS, "--set=vision.repeat=25"]
CLIPS = 10  # more than wait in the queue of two workers


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    texts = ["a", "b", "", *"defghij"]
    return make_clips(tmp_path_factory.mktemp("processes") / "clips", texts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, clips, plugin):
    """What a run gives that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(
        ["extract", clips, "-o", folder / "x.h5", *TOYS], environment(plugin, folder / "seen.txt")
    )
    assert f"{CLIPS} clips, 0 failed" in process.communicate()[0] and process.returncode == 0
    return folder / "x.h5"


def parts(out):
    folder = out.with_name(out.name + ".part")
    return sorted(p.name for p in folder.glob("*.h5")) if folder.exists() else []


def wait_for_parts(process, out, count):
    until = time.monotonic() + 60
    while len(parts(out)) < count:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)


def assert_no_trace(out):
    """Neither the output nor a half-written file; parts alone."""
    assert not out.exists() and not list(out.parent.glob(".*.tmp"))


INTERRUPTED = [
    "Error: Interrupted.",
    "  mertool extract",
    "  Finished work is kept: repeat with --resume to go on.",
]


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c(tmp_path, clips, env, whole, jobs):
    out = tmp_path / "x.h5"
    stuck = {**env, "TOYS_STOP": "clip4"}
    process = start(["extract", clips, "-o", out, "-j", jobs, *TOYS], stuck)
    wait_for_parts(process, out, 3)
    # As a terminal does: to every process that it started.
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    kept = parts(out)
    assert process.returncode == 1 and stdout == "" and 3 <= len(kept) < CLIPS
    said = [x for x in stderr.splitlines() if x and not x.startswith("colour looks at")]
    assert said == INTERRUPTED, stderr
    assert_no_trace(out)
    process = start(["extract", clips, "-o", out, "--resume", "-j", 3 - jobs, *TOYS], env)
    stdout, stderr = process.communicate()
    assert process.returncode == 0 and f"{len(kept)} from before" in stdout
    assert_same(out, whole)


def test_ctrl_c_while_workers_start(tmp_path, clips, env):
    """Processes that have not begun to work yet keep quiet, too."""
    out = tmp_path / "x.h5"
    process = start(["extract", clips, "-o", out, "-j", 2, *TOYS], env)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    if not os.path.exists(children):
        process.kill()
        pytest.skip("this system does not list a process's children")
    until = time.monotonic() + 60
    while True:  # a worker is there, besides two resource trackers
        with open(children) as file:
            if len(file.read().split()) >= 3:
                break
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 1 and stdout == ""
    assert [x for x in stderr.splitlines() if x and "colour" not in x] == INTERRUPTED, stderr
    assert_no_trace(out)


def test_ctrl_c_while_writing(tmp_path):
    """Ctrl-C in the midst of HDF5's writing is heard when it is done, and takes nothing down."""
    code = """
import signal
import sys
import numpy as np
from mertool.store import Stream, Writer
from mertool.store.disk import Disk
from mertool.types import Clip, Rows

at, path = int(sys.argv[1]), sys.argv[2]
writes, real = 0, Disk.write

def write(self, data):
    global writes
    writes += 1
    if writes == at:
        signal.raise_signal(signal.SIGINT)
    return real(self, data)

Disk.write = write
try:
    with Writer(path, {"a": Stream(tuple("abcd"))}) as writer:
        for i in range(100):
            rows = Rows(np.ones((3000, 4), np.float32), np.zeros((3000, 2)))
            writer.add(Clip(str(i)), {"a": rows})
except KeyboardInterrupt:
    print("interrupted")
else:
    print("written", writes)
"""
    path = tmp_path / "x.h5"

    def run(at):
        done = subprocess.run(
            [sys.executable, "-c", code, str(at), path], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    word, writes = run(0)
    assert word == "written" and path.exists()
    path.unlink()
    for at in (1, 3, int(writes) // 2):
        assert run(at) == ["interrupted"] and list(tmp_path.iterdir()) == []
    assert run(writes) == ["interrupted"]  # the last write: the file is complete, or absent
    if path.exists():
        import mertool

        with mertool.open(path) as file:
            assert len(file) == 100


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_runs_resume_to_the_same_file(tmp_path, clips, env, whole, jobs):
    out = tmp_path / "x.h5"
    args = ["extract", clips, "-o", out, "--resume", "-j", jobs, *TOYS]
    for count in (1, 4, 8):
        # One process stops behind that many clips; of two, one stops at once.
        stop = f"clip{count}" if jobs == 1 else "clip0"
        process = start(args, {**env, "TOYS_STOP": stop})
        wait_for_parts(process, out, count)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not out.exists() and len(parts(out)) >= count
    done = len(parts(out))
    process = start(args, env)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert f"{done} from before" in stdout
    assert_same(out, whole)
    assert not out.with_name("x.h5.part").exists() and not list(tmp_path.glob(".*"))


def limited(size):
    """Files of at most `size` bytes: plays a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_full_disk(tmp_path, clips, env, whole, jobs):
    """Full while the parts are merged, then while parts are written, then no more."""
    out, folder = tmp_path / "x.h5", tmp_path / "x.h5.part"

    def run(limit=None):
        process = start(
            ["extract", clips, "-o", out, "--resume", "-j", jobs, *TOYS], env,
            preexec_fn=limited(limit) if limit else None,
        )  # fmt: skip
        stdout, stderr = process.communicate()
        said = [x for x in stderr.splitlines() if not x.startswith(("colour looks at", "Note:"))]
        return process.returncode, stdout, said

    def assert_full(done, where):
        code, stdout, said = done
        assert (code, stdout) == (1, "") and len(said) == 3, said
        assert said[0] == "Error: The output cannot be written: File too large."
        assert where in said[1] and "--resume" in said[2]
        assert_no_trace(out)

    assert_full(run(limit=whole.stat().st_size - 1), str(out))
    assert len(parts(out)) == CLIPS

    sizes = {p: p.stat().st_size for p in folder.iterdir()}
    large = [p for p in sizes if sizes[p] == max(sizes.values())]
    assert 0 < len(large) < CLIPS
    for part in large:
        part.unlink()
    assert_full(run(limit=max(sizes.values()) - 1), str(folder))
    assert len(parts(out)) >= CLIPS - len(large)

    kept = len(parts(out))
    code, stdout, said = run()
    assert code == 0 and f"{kept} from before" in stdout and said == []
    assert_same(out, whole)


def test_exit_codes_of_the_process(tmp_path, clips, env):
    """`python -m mertool`: the codes reach the shell; results and messages keep apart."""
    out = tmp_path / "x.h5"
    manifest = tmp_path / "some.csv"
    manifest.write_text("clip_id,path\na,001.mp4\nb,gone.mp4\n")
    process = start(["extract", clips, "--manifest", manifest, "-o", out, "--json", *OPTIONS], env)
    stdout, stderr = process.communicate()
    assert process.returncode == 3 and json.loads(stdout)["failures"][0][0] == "b"
    assert "Failed: b (media)" in stderr
    process = start(["extract", clips, "-o", out, *OPTIONS], env)
    assert process.communicate() == (
        "",
        f"Error: The output exists already.\n  {out}\n"
        "  Choose another name with -o, or add --overwrite.\n",
    )
    assert process.returncode == 1
    process = start(["extract", clips], env)
    assert process.communicate()[0] == "" and process.returncode == 2


def test_a_reader_that_leaves(tmp_path, clips, env):
    """`mertool ... | head -1` ends without a complaint."""
    out = tmp_path / "x.h5"
    start(["extract", clips, "-o", out, *OPTIONS], env).communicate()
    process = start(["data", "info", out], env)
    process.stdout.close()
    assert process.wait(60) in (0, 1) and process.stderr.read() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_results_that_cannot_be_written(tmp_path, clips, env):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mertool", "plugins", "ls"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "Error: The system refused: No space left on device.",
        "  mertool plugins",
        "  Mend that and repeat; --debug shows the traceback.",
    ]


def peak_memory(folder, env, *streams):
    """MiB that a process needs at most to extract a folder."""
    code = """
import resource
import sys
from mertool.extract import run
streams = dict(pair.split("=") for pair in sys.argv[3:])
report = run(sys.argv[1], sys.argv[2], text="none", **streams)
assert report.clips == 1 and not report.failures
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, folder, folder / "x.h5", *streams],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout) / (1024 if sys.platform != "darwin" else 1024**2)


@pytest.mark.parametrize(
    "streams",
    [
        ["audio=covarep", "vision=none"],
        pytest.param(["audio=covarep", "vision=facemesh"], marks=pytest.mark.slow),
    ],
    ids=["sound", "sound and picture"],
)
@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tmp_path, env, streams):
    """Ten minutes need at most 150 MB more than ten seconds."""
    if "vision=facemesh" in streams:
        pytest.importorskip("mediapipe", reason="needs the extra: offline")
    peaks = []
    for seconds in (10, 600):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        write_media(
            folder / "clip.mkv", steady(seconds, 5), [Track(noisy(seconds))],
            audio="pcm_s16le", codec_options={"preset": "ultrafast"},
        )  # fmt: skip
        peaks.append(peak_memory(folder, env, *streams))
    assert peaks[1] - peaks[0] <= 150
