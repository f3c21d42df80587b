"""benchmarks/face.py and its parts: what it makes and reads, and what misses a target."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts import DEMO, clips, run

from mertool import media
from mertool.errors import MediaError
from mertool.types import Clip


def speeds(script_face: ModuleType, fps: float) -> dict[str, Any]:
    kinds = dict.fromkeys(("facemesh", "decode, mesh", "decode, refined mesh", "decode"), fps)
    return {
        "data": "d", "clips": 2, "frames": 150, "size": [360, 288], "pinned": True,
        "fps": kinds, "cpu_fps": kinds,
        "ratio": {script_face.PLAIN: 0.5, script_face.REFINED: 0.75},
        "repeats": {"wall": {kind: [fps, fps + 1] for kind in kinds}},
    }  # fmt: skip


def test_speed_check(script):
    face = script("face")
    good = {"speed": {"grid": speeds(face, 120.0), "720p": speeds(face, 70.0)}}
    assert face.misses(good) == []
    assert face.key_figure(good) == (
        "120 frames/s at grid, 0.75 of decoding and refined mesh alone; "
        "70 frames/s at 720p, 0.75 of decoding and refined mesh alone"
    )
    assert face.lines(good)[0] == "grid: 150 frames of 360 x 288, one core"
    good["speed"]["720p"]["fps"]["facemesh"] = 69.0
    assert face.misses(good) == ["720p: 69 frames per second, at least 70"]


def test_known_is_asked(script, monkeypatch):
    face = script("face")
    known = ModuleType("known_faces")
    known.misses = known.lines = lambda result: [result["a"]]
    known.key = lambda result: result["a"] + "!"
    monkeypatch.setitem(sys.modules, "known_faces", known)
    result = {"known": {"a": "moved"}}
    assert face.misses(result) == ["moved"]
    assert face.lines(result) == ["moved", ""]
    assert face.key_figure(result) == "moved!"


def grown(peaks: list[float], times: list[float]) -> dict[str, Any]:
    one = {"frames": 250, "rows": 250, "valid": 1.0, "worker": 1.0, "wall_ms": times}
    return {
        str(10 * 6**i): {**one, "peak": peak, "cpu_ms": times} for i, peak in enumerate(peaks)
    }  # fmt: skip


def test_memory_check(script):
    memory = script("face_memory")
    steady = [4.0, 4.02, 4.0, 3.98, 4.0]
    good = {"facemesh": grown([200.0, 219.0], steady)}
    assert memory.misses(good) == []
    assert memory.key(good) == "facemesh memory 1.09, time 1.00 +- 0.01"
    assert "last time over first 1.000, noise 0.00" in memory.lines(good)[-1]
    assert "1.11 times" in memory.misses({"pyfeat": grown([200.0, 180.0], steady)})[0]
    # A slow growth is no noise, noise alone is no growth, and too much of it tells nothing.
    slower = [4.0 + 0.1 * i for i in range(20)]
    assert "1.475 times" in memory.misses({"facemesh": grown([200.0], slower)})[0]
    noisy = [4.0, 4.1, 3.9, 4.0, 4.1, 3.9, 4.0, 4.1, 4.0, 4.3]
    assert memory.misses({"facemesh": grown([200.0], noisy)}) == []
    [miss] = memory.misses({"facemesh": grown([200.0], [4.0, 6.0] * 10 + [4.0])})
    assert "too noisy" in miss
    lost = grown([200.0, 200.0], steady)
    lost["60"]["rows"] -= 1
    assert memory.misses({"facemesh": lost}) == [
        "facemesh, 60 s: 249 rows of 250 frames, 100% with a face"
    ]
    lost["60"] |= {"rows": 250, "valid": 0.5}
    assert len(memory.misses({"facemesh": lost})) == 1


def test_time_per_frame(script, monkeypatch):
    memory = script("face_memory")
    monkeypatch.setattr(memory, "PARTS", 1)
    marks = [[25, 1.0, 11.0], [50, 1.1, 11.2], [100, 1.3, 11.6], [150, 1.55, 12.0], [151, 2, 14]]
    frames, cpu, wall = memory.per_frame(marks)
    assert frames == 151
    assert cpu == pytest.approx([4, 4, 5]) and wall == pytest.approx([8, 8, 8])
    monkeypatch.setattr(memory, "PARTS", 3)
    assert memory.per_frame(marks)[1] == pytest.approx([4])  # of a piece of three parts


def test_frames_are_watched(script):
    watcher = script("face_runs").Watcher(2.0)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        plain = watcher.wrapped(lambda clip, fps=None: ((0.04 * i, i) for i in range(110)))
        assert [i for _, i in plain(Clip("a"))] == list(range(110))
        # At 1 s, then every 2 s, and at the end.
        assert [mark[0] for mark in watcher.marks] == [25, 50, 100, 110]
        assert all(np.diff([mark[1:] for mark in watcher.marks], axis=0).ravel() >= 0)
        if sys.platform == "linux":
            assert watcher.workers[str(child.pid)] > 1
    finally:
        child.communicate(b"\n")


def odd_result() -> list[dict[str, Any]]:
    seen = {"rows": 75, "valid": 1.0, "found": 1.0, "tracks": 1, "failure": "", "notes": []}
    whole = {"frames": 75, "faces": 1, "seen": 0.9, **seen}
    none = {"rows": 0, "valid": 0.0, "found": 0.0, "tracks": 0, "notes": ["no face found"]}
    return [
        {"name": "plain", **whole},
        {"name": "two_faces", **whole, "faces": 2, "found": 2.0},
        {"name": "no_face", **whole, "faces": 0, "seen": 0, **none},
        {"name": "turned", **whole, "seen": 0, **none},
        {"name": "corrupt_middle", "frames": 75, "faces": 1, "seen": 0, "failure": "it breaks",
         "notes": []},
    ]  # fmt: skip


def test_odd_check(script):
    odd = script("odd_faces")
    good = odd_result()
    assert odd.misses(good) == []
    assert odd.key(good) == "5 of 5 odd videos as they should be"
    table, *told = odd.lines(good)
    assert "two_faces           75    75   1.00   2.00       1" in table
    assert told == [
        "no_face: no face found", "turned: no face found", "corrupt_middle FAILED: it breaks",
    ]  # fmt: skip
    for i, change, miss in (
        (0, {"rows": 74}, "plain: 74 rows of 75 frames"),
        (0, {"valid": 0.8}, "plain: a face in 80% of the frames, at least 90%"),
        (0, {"failure": "no"}, "plain: failed: no"),
        (1, {"found": 1.5}, "two_faces: 1.50 faces per frame, not 2"),
        (2, {"rows": 75}, "no_face: 75 rows, but no face"),
        (3, {"rows": 3}, "turned: 3 rows of 75 frames"),
        (4, {"failure": "", "rows": 75}, "corrupt_middle: is damaged and did not fail"),
    ):
        bad = copy.deepcopy(good)
        bad[i] |= change
        assert odd.misses(bad) == [miss]
        assert odd.key(bad).startswith("4 of 5")


def test_odd_videos(script, tmp_path):
    odd = script("odd_faces")
    odd.WIDE = (216, 384)  # as 4k, only faster
    one, other = (Clip(name, f"{name}.mp4", str(DEMO)) for name in ("demo01", "demo02"))
    videos = {video.name: video for video in odd.write_all(tmp_path, one, other)}
    shown = {}
    for name, video in videos.items():
        path = tmp_path / f"{name}.mp4"
        if name == odd.DAMAGED:
            with pytest.raises(MediaError, match="breaks after"):
                list(media.frames(path))
            continue
        shown[name] = [image.astype(float) for _, image in media.frames(path)]
        assert len(shown[name]) == video.frames > 0
        assert len(media.audio(path)) > 0
    plain = np.stack(shown["plain"])
    original = np.stack([image for _, image in one.frames()])
    assert np.abs(plain - original).mean() < 5
    assert np.abs(plain - shown["rotated"]).mean() < 5
    assert np.abs(np.rot90(plain, axes=(1, 2)) - shown["turned"]).mean() < 5
    grey = np.stack(shown["greyscale"])
    assert np.ptp(grey, axis=3).max() <= 2 < np.ptp(plain, axis=3).max()
    width = plain.shape[2]
    beside = [image for _, image in other.frames()]
    for a, b, both in zip(plain, beside, shown["two_faces"], strict=False):
        assert np.abs(both[:, :width] - a).mean() < 5
        assert np.abs(both[:, width:] - b).mean() < 5
    # The same colours in other places; in `leaves`, the same picture at both ends and none between.
    none = np.stack(shown["no_face"])
    assert np.abs(none.mean(axis=(1, 2)) - plain.mean(axis=(1, 2))).max() < 3
    assert np.abs(none - plain).mean() > 20
    leaves = np.stack(shown["face_leaves"])
    for end in (0, -1):
        assert np.abs(leaves[end] - plain[end]).mean() < 5
    assert leaves[len(leaves) // 2].std(axis=(0, 1)).max() < 3
    assert shown["4k"][0].shape == (216, 384, 3)
    assert np.abs(shown["4k"][0][:, 84:-84].mean() - plain[0].mean()) < 3
    assert len(shown["one_frame"]) == 1


def test_stub_answers_as_py_feat(script):
    torch = pytest.importorskip("torch")
    stub = script("stub_feat")
    images = torch.zeros(2, 3, 8, 6, dtype=torch.uint8)
    images[1] = 255
    table = stub.Detectorv2(device="cpu").detect(images, data_type="tensor", batch_size=2)
    assert list(table["frame"]) == [0, 1] and list(table["AU12"]) == [0, 1]
    assert all(len(table[name]) == 2 for name in table.columns)
    assert sum(name.startswith("AU") for name in table.columns) == 20


def test_wrong_options(tmp_path):
    data = clips(tmp_path / "data", 1)
    for option, value, told in (
        ("--parts", "speed,beauty", "known are speed"),
        ("--repeats", 0, "at least 1"),
        ("--lengths", "10,x", "--lengths"),
        ("--lengths", "10,1", "--lengths"),
    ):
        done = run("face", "--data", data, option, value)
        assert done.returncode == 2 and told in done.stderr and not done.stdout
    done = run("face", "--data", data, "--crema", tmp_path / "nowhere", "--parts", "known")
    assert done.returncode == 2 and "nowhere" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_face_runs(tmp_path):
    pytest.importorskip("mediapipe", reason="needs the extra: offline")
    data = clips(tmp_path / "data", 2)
    done = run(
        "face", "--data", data, "--large", data, "--parts", "speed,memory,odd", "--repeats", 1,
        "--lengths", "10,20", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    frames = sum(1 for i in (1, 2) for _ in media.frames(DEMO / f"demo0{i}.mp4"))
    for made in result["speed"].values():
        assert made["frames"] == frames and made["pinned"]
        assert made["fps"]["decode"] > made["fps"]["decode, mesh"] > 0
    for files in result["memory"].values():
        assert [(f["frames"], f["rows"]) for f in files.values()] == [(250, 250), (500, 500)]
        assert all(f["peak"] > 50 and f["valid"] > 0.9 for f in files.values())
        assert len(files["20"]["cpu_ms"]) == 20 and min(files["20"]["cpu_ms"]) > 0
    assert all(f["worker"] > 50 for f in result["memory"]["pyfeat"].values())
    # Times and memory are the machine's; what the videos give is not.
    names = {video["name"] for video in result["odd"]}
    assert len(names) == 10 and not [m for m in result["missed"] if m.split(":")[0] in names]
    assert "10 of 10 odd videos" in result["key_figure"]
