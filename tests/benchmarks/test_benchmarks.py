"""The benchmark scripts: they run, and their checks fail where a target is missed."""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from scripts import DEMO, FOLDER, clips, run

from mertool import media
from mertool.types import Clip

SCRIPTS = (
    "align", "board", "claim_fdmer", "claim_mcr", "claim_norm_tr", "claim_tdmer", "claim_tmt",
    "complexity", "covarep", "extract", "face", "interaction", "memory", "resume", "robustness",
    "sanity", "speech", "startup", "tutorial",
)  # fmt: skip
PARTS = {
    "agreement", "align_mosi", "align_pool", "align_robust", "align_speech", "align_words",
    "common", "face_memory", "face_runs", "known_faces", "odd_faces", "stub_feat",
}  # fmt: skip
NO_DATA = {"claim_fdmer", "claim_mcr", "complexity", "interaction", "startup"}  # need none


def test_every_script_is_covered():
    found = {path.stem for path in FOLDER.glob("*.py")} - PARTS
    assert found == set(SCRIPTS)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in readme for name in SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name):
    done = run(name, "--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--data", "--json", "--check", "Target:"))


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - NO_DATA))
def test_missing_data(name, tmp_path):
    done = run(name, "--data", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "no data folder" in done.stderr and "nowhere" in done.stderr
    assert not done.stdout


def test_startup():
    done = run("startup", "--json", "--check")
    result = json.loads(done.stdout)
    assert list(result)[-1] == "key_figure"
    assert result["median"].keys() == {"python", "click", "mertool --help"}
    assert not {"torch", "transformers", "h5py", "matplotlib"} & set(result["heavy"])
    # The time is the machine's; what the check makes of it is ours.
    assert result["missed"] == (
        [] if result["median"]["mertool --help"] < 0.5 else [result["missed"][0]]
    )
    assert done.returncode == bool(result["missed"])


def test_startup_finds_imports(script):
    startup = script("startup")
    assert startup.imported(["-c", "pass"]) == []
    assert startup.imported(["-c", "import h5py"]) == ["h5py", "numpy"]


def test_startup_check(script):
    startup = script("startup")
    good = {"median": {"mertool --help": 0.49}, "heavy": ["numpy"]}
    assert startup.misses(good) == []
    assert "torch" in startup.misses({**good, "heavy": ["numpy", "torch"]})[0]
    assert "0.50 s" in startup.misses({**good, "median": {"mertool --help": 0.5}})[0]


def complexity_result(complexity: ModuleType) -> dict[str, Any]:
    hand = complexity.by_hand()
    measured = {
        "parameters": 2_571_551, "macs_modules": hand["macs_modules"],
        "macs_all": hand["macs_all"], "macs_counter": hand["macs_all_without_attention"],
        "forward_ms": 1.25, "training_ms": 4.5, "forward_mb": 2.75, "training_mb": 12345.6,
        "repeats": (3, 3),
    }  # fmt: skip
    return {
        "batch": 16, "device": "cpu", "threads": 2,
        "tables": [{
            "streams": {"text": (768, 50)}, "fusions": {"a": measured, "b": dict(measured)},
        }],
        "mult": {
            **complexity.MULT, "measured": dict(measured), "by_hand": hand,
            "counter_sees_fused_attention": False,
        },
        "tmt": {
            **complexity.TMT, "stated": complexity.TMT_STATED,
            "measured": {
                "20": {"parameters": 2_602_241, "macs_all": 1_208_045_568},
                "50": {"parameters": 2_625_281, "macs_all": 2_782_998_528},
            },
            "by_hand": {T: complexity.tmt_by_hand(int(T)) for T in ("20", "50")},
        },
    }  # fmt: skip


def test_complexity_check(script):
    complexity = script("complexity")
    good = complexity_result(complexity)
    assert complexity.misses(good) == []
    text = "\n".join(complexity.lines(good))
    assert "16 clips of text=768x50, cpu, 2 threads" in text
    assert "2,571,551    1,900.5  2,505.0    2,426.4" in text and "12,345.6" in text
    assert "1,905,376,000" in text  # 1.91 G, as published
    assert complexity.key_figure(good) == (
        "mult as published has 2,571,551 parameters and 1.900 G multiply-accumulates by module "
        "calls, 2.426 G by torch's flop counter, 2.505 G in all; tmt at its paper's sizes has "
        "2,625,281 parameters and 1.208 G (its paper prints 1.31 M and 1.2 G)"
    )
    assert "20 steps 2,602,241 1,208,045,568 1,121,931,264" in " ".join(text.split())
    for key, off, told in (
        ("parameters", 1, ["mult has 2,571,552 parameters, not 2,571,551"]),
        ("macs_all", 1, ["mult: macs_all 2,505,030,401, by hand 2,505,030,400"]),
        ("macs_modules", 1, ["mult: macs_modules 1,900,460,801, by hand 1,900,460,800"]),
        (
            "macs_counter", 30_000_000,
            [
                "mult: macs_counter 2,456,387,200, by hand 2,426,387,200",
                "mult: macs_counter 2.456 G, published 2.4 G",
            ],
        ),
    ):  # fmt: skip
        bad = copy.deepcopy(good)
        bad["mult"]["measured"][key] += off
        assert complexity.misses(bad) == told
    # A torch whose counter knows the fused attention of a CPU.
    bad = copy.deepcopy(good)
    bad["mult"]["counter_sees_fused_attention"] = True
    assert "by hand 2,505,030,400" in complexity.misses(bad)[0]
    # A fusion that fails is told, and the others are there.
    bad = copy.deepcopy(good)
    bad["tables"][0]["fusions"]["b"] = {"error": "ValueError: no"}
    assert complexity.misses(bad) == ["b: ValueError: no"]
    assert "b: ValueError: no" in complexity.lines(bad)
    assert len(complexity.lines(bad)) == len(complexity.lines(good)) + 1
    bad["mult"]["measured"] = {"error": "no such fusion"}
    assert complexity.misses(bad) == ["b: ValueError: no", "mult: no such fusion"]
    assert "no such fusion" in complexity.key_figure(bad)
    bad = copy.deepcopy(good)
    bad["tmt"]["measured"]["20"]["macs_all"] += 1
    bad["tmt"]["measured"]["50"]["parameters"] -= 1
    assert complexity.misses(bad) == [
        "tmt, 20 steps: macs_all 1,208,045,569, not 1,208,045,568",
        "tmt, 50 steps: parameters 2,625,280, not 2,625,281",
    ]
    bad["tmt"]["measured"] = dict.fromkeys(("20", "50"), {"error": "no memory"})
    assert complexity.misses(bad) == ["tmt: no memory"] * 2
    assert complexity.key_figure(bad).endswith("2.505 G in all; tmt cannot be measured")
    assert "no memory" in "\n".join(complexity.lines(bad))


@pytest.mark.slow
def test_complexity_options(script):
    complexity = script("complexity")
    assert complexity.shapes(" text=768x50,audio=5x375") == {"text": (768, 50), "audio": (5, 375)}
    for wrong in ("text", "text=7", "text=x5", "=3x4", "text=0x5", "a=1x2,a=1x2", "a=1x2,"):
        with pytest.raises(argparse.ArgumentTypeError):
            complexity.shapes(wrong)
    for options in (("--streams", "text=7"), ("--batch", "0"), ("--plugin", "mlt")):
        done = run("complexity", *options)
        assert done.returncode == 2 and not done.stdout
        assert options[1] in done.stderr


@pytest.mark.slow
def test_complexity_goes_on_after_a_failure(script):
    complexity = script("complexity")
    streams = {"text": (3, 4), "audio": (2, 5)}
    assert complexity.measure("concat", streams, batch=2)["parameters"] > 0
    told = complexity.measure("concat", streams, batch=2, settings=["fusion.no=1"])
    assert told.keys() == {"error"} and "fusion.no" in told["error"]
    told = complexity.measure("concat", {"text": (10**7, 10**7)})
    assert told["error"].startswith("does not fit into the free memory")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the free memory")
def test_complexity_limits_memory(script):
    """A process of its own: the limit stays."""
    code = (
        "import complexity; complexity.limit_memory(); import torch\n"
        "try:\n    [torch.empty(2**30) for _ in range(10**5)]\n"
        "except RuntimeError as error: print(complexity.told(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER, timeout=300
    )
    assert done.stdout.startswith("does not fit"), done.stderr


def test_finish(script, capsys, monkeypatch):
    common = script("common")
    monkeypatch.setattr(sys, "argv", ["made_up.py"])
    for check, missed, code in ((True, ["slow"], 1), (True, [], 0), (False, ["slow"], 0)):
        for as_json in (True, False):
            args = argparse.Namespace(check=check, json=as_json)
            assert common.finish(args, {"x": float("nan")}, missed, ["line"], "key") == code
            printed = capsys.readouterr()
            assert ("slow" in printed.err) == bool(missed)
            if as_json:
                result = json.loads(printed.out)
                assert result["benchmark"] == "made_up" and result["x"] is None
                assert result["missed"] == missed and list(result)[-1] == "key_figure"
            else:
                assert printed.out == "line\nkey\n"


def test_failed_command_is_no_result(script, tmp_path):
    common = script("common")
    with pytest.raises(common.BenchmarkError, match="no such feature file") as caught:
        common.mertool("data", "info", tmp_path / "none.h5")
    assert caught.value.code == 1


def test_extract_check(script):
    extract = script("extract")
    one = {
        "wall": 4.0, "cpu": 5.0, "clips": 2, "seconds": 6.0, "transcripts": 1,
        "lacking": {"text": [], "audio": [], "vision": []}, "failures": [],
    }  # fmt: skip
    align = {"wall": 1.0, "words": 6, "evenly_spaced": 1, "failures": []}
    two = {**copy.deepcopy(one), "wall": 2.0}
    good = {"folders": [
        {"data": "d", "runs": {"1": one, "2": two}, "speedup": 2.0, "align": align}
    ]}  # fmt: skip
    assert extract.misses(good) == []
    assert extract.key_figure(good).startswith("2 of 2 clips")
    assert "1.00 clips/s with -j 2, 2.00 times -j 1" in extract.key_figure(good)
    assert "1.00" in extract.lines(good)[0] and "1.50" in extract.lines(good)[0]
    for stream in extract.STREAMS:
        bad = copy.deepcopy(good)
        bad["folders"][0]["runs"]["2"]["lacking"][stream] = ["b"]
        assert extract.misses(bad) == [f"d with -j 2: no {stream} rows for b"]
    bad = copy.deepcopy(good)
    bad["folders"][0]["runs"]["1"]["failures"] = ["c"]
    assert extract.misses(bad) == ["d with -j 1: failed: c"]
    assert extract.key_figure(bad).startswith("2 of 3 clips")
    bad = copy.deepcopy(good)
    bad["folders"][0]["align"]["failures"] = ["a"]
    assert extract.misses(bad) == ["d: not aligned: a"]


def test_resume_check(script):
    resume = script("resume")
    good = {
        "kills": [{"before": 0, "kept": 3}, {"before": 3, "kept": 3}],
        "completed": [{"kept": 3, "resumed": 3, "different": []}],
    }
    assert resume.misses(good) == []
    assert "2 kills in 1 extractions: 1 of 1" in resume.key_figure(good)
    bad = {**good, "completed": [{"kept": 3, "resumed": 3, "different": ["words/word"]}]}
    assert "words/word" in resume.misses(bad)[0]
    assert "0 of 1" in resume.key_figure(bad)
    assert resume.misses({**good, "completed": [{"kept": 3, "resumed": 2, "different": []}]})
    assert resume.misses({**good, "kills": [{"before": 3, "kept": 2}]})


def test_resume_compares_everything(script, tmp_path):
    resume = script("resume")

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs.update({"created": path.name, "command": path.name, "dataset": "d"})
            file["clips/end"] = np.array([1.0, np.nan])
            file["clips/id"] = np.array(["a", "é"], dtype=h5py.string_dtype("utf-8"))
            file["clips/id"].attrs["classes"] = np.array(["x"], dtype=h5py.string_dtype("utf-8"))
            file.create_group("streams/audio").attrs.update({"extractor": "covarep", "rate": 100.0})

    left, right = tmp_path / "left.h5", tmp_path / "right.h5"
    write(left)
    write(right)
    assert resume.differences(left, right) == []

    def change(name: str) -> None:
        with h5py.File(right, "r+") as file:
            if name == "/@dataset":
                file.attrs["dataset"] = "e"
            elif name == "clips/end":
                file["clips/end"][0] = np.nextafter(1.0, 2.0)
            elif name == "clips/id":
                file["clips/id"][1] = "e"
            elif name == "clips/id@classes":
                file["clips/id"].attrs["classes"] = np.array(
                    ["y"], dtype=h5py.string_dtype("utf-8")
                )
            elif name == "streams/audio@rate":
                file["streams/audio"].attrs["rate"] = np.float32(100)
            elif name == "streams/vision":
                file.create_group("streams/vision")

    for name in (
        "/@dataset", "clips/end", "clips/id", "clips/id@classes", "streams/audio@rate",
        "streams/vision",
    ):  # fmt: skip
        write(right)
        change(name)
        assert resume.differences(left, right) == [name]
        assert resume.differences(right, left) == [name]


def test_resume_counts_finished_clips(script, tmp_path):
    resume = script("resume")
    out, parts = tmp_path / "f.h5", tmp_path / "f.h5.part"
    assert resume.kept(out, 5) == 0
    parts.mkdir()
    for name in ("a.h5", "b.h5", ".c.h5.17.tmp"):
        (parts / name).touch()
    assert resume.kept(out, 5) == 2
    out.touch()
    assert resume.kept(out, 5) == 5


def test_memory_check(script):
    memory = script("memory")
    good = {
        "files": {
            "short": {"seconds": 10.0, "rows": {"text": 6, "audio": 1000, "vision": 250},
                      "peak": 500.0},
            "long": {"seconds": 600.0, "rows": {"text": 6, "audio": 60000, "vision": 14000},
                     "peak": 650.0},
        },
        "above": 150.0,
    }  # fmt: skip
    assert memory.misses(good) == []
    assert memory.key_figure(good) == "10 minutes: +150 MB, 1.30 times 10 seconds"
    assert "151 MB" in memory.misses({**good, "above": 151.0})[0]
    for stream in ("audio", "vision"):
        bad = copy.deepcopy(good)
        bad["files"]["long"]["rows"][stream] //= 2
        assert f"{stream} rows" in memory.misses(bad)[0]
        bad["files"]["short"]["rows"][stream] = bad["files"]["long"]["rows"][stream] = 0
        assert f"0 {stream} rows" in memory.misses(bad)[0]


def test_memory_repeats_a_clip(script, tmp_path):
    memory = script("memory")
    source = DEMO / "demo01.mp4"
    target = tmp_path / "long.mp4"
    memory.repeat(Clip("demo01", source.name, str(source.parent)), target, 9)
    old, new = media.probe(source), media.probe(target)
    assert new.duration == pytest.approx(9, abs=0.2)
    assert (new.width, new.height, new.fps) == (old.width, old.height, old.fps)
    frames = [image.astype(float) for _, image in media.frames(target)]
    count = sum(1 for _ in media.frames(source))
    assert len(frames) == round(9 * new.fps) > 2 * count
    for i in (count // 2, 2 * count - 5):  # the same picture one round later; others differ more
        same = np.abs(frames[i] - frames[i + count]).mean()
        apart = max(np.abs(frames[i] - frames[i + k]).mean() for k in range(1, count))
        assert same < 3 and same < apart / 2
    sound = media.audio(target)
    period = round(count / new.fps * 16000)
    one, two = sound[:period], sound[period : 2 * period]
    assert np.corrcoef(one, two)[0, 1] > 0.9
    assert np.corrcoef(media.audio(source)[: len(one)], one[: len(media.audio(source))])[0, 1] > 0.9


@pytest.mark.slow
def test_complexity_runs():
    quick = ["--plugin", "concat", "--plugin", "mult", "--batch", 2]
    small = ["--streams", "text=9x8,audio=3x20", "--streams", "face=4x6"]
    done = run("complexity", *quick, *small, "--json", "--check")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [list(t["fusions"]) for t in result["tables"]] == [["concat", "mult"]] * 2
    assert [t["streams"] for t in result["tables"]] == [
        {"text": [9, 8], "audio": [3, 20]}, {"face": [4, 6]},
    ]  # fmt: skip
    for made in result["tables"]:
        assert all(m["training_ms"] > 0 for m in made["fusions"].values())
    assert "2,571,551" in result["key_figure"] and list(result)[-1] == "key_figure"


PAGE = """
```python
# a/b.py
x = 1
y = 2
```

```sh
ls a               # prints b.py
ls nothing \\
  more            # fails
```

```text
b.py  and  more
```

```diff
--- a/b.py
+++ a/b.py
 x = 1
-y = 2
+y = 3
```

```toml
not = "followed"
```
"""


def test_tutorial_reads_a_page(script):
    tutorial = script("tutorial")
    write, first, second, change = tutorial.steps(PAGE)
    assert (write.what, write.name, write.text) == ("write", "a/b.py", "x = 1\ny = 2\n")
    assert (first.name, first.fails, first.shown) == ("ls a", False, ())
    assert second.name.split() == ["ls", "nothing", "more"] and second.fails
    assert second.shown == ("b.py  and  more",)
    assert (change.what, change.name) == ("change", "a/b.py")
    assert change.text == " x = 1\n-y = 2\n+y = 3\n"


def test_tutorial_follows_a_page(script, tmp_path):
    tutorial = script("tutorial")
    write, first, second, change = tutorial.steps(PAGE)
    assert "no such file" in tutorial.write(write, tmp_path)  # nothing has made it
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "b.py"
    path.write_text("old")
    assert tutorial.write(write, tmp_path) == "" and path.read_text() == "x = 1\ny = 2\n"
    assert tutorial.write(change, tmp_path) == "" and path.read_text() == "x = 1\ny = 3\n"
    assert "there 0 times" in tutorial.write(change, tmp_path)
    variables = {"PATH": "/usr/bin:/bin"}
    assert tutorial.command(first, tmp_path, variables, None) == ""
    first.shown = (" b.py ",)
    assert tutorial.command(first, tmp_path, variables, None) == ""
    first.shown = ("c.py",)
    assert tutorial.command(first, tmp_path, variables, None) == "does not print: c.py"
    first.fails = True
    assert "exit code 0, not 1" in tutorial.command(first, tmp_path, variables, None)


def test_tutorial_check(script):
    tutorial = script("tutorial")
    step = {"step": "mertool demo", "seconds": 1.25, "wrong": ""}
    good = {"clips": 6, "steps": [step, {**step, "step": "b"}], "left": 0, "seconds": 2.5}
    assert tutorial.misses(good) == []
    assert tutorial.lines(good)[0] == "   1.2 s  mertool demo"
    assert tutorial.key_figure(good) == (
        "2 of 2 steps of docs/plugins.md as it says, with 6 clips, in 2 s"
    )
    bad = {**good, "steps": [{**step, "wrong": "exit code 1, not 0"}], "left": 1}
    assert tutorial.misses(bad) == ["mertool demo: exit code 1, not 0", "1 steps not made"]
    assert tutorial.key_figure(bad).startswith("0 of 2 steps")
    assert tutorial.misses({**good, "steps": []}) == ["the page tells to do nothing"]


@pytest.mark.slow
def test_tutorial_runs(tmp_path):
    data = clips(tmp_path / "data", 6)
    manifest = (data / "manifest.csv").read_text(encoding="utf-8").splitlines()
    # With one label, as the demo's.
    (data / "manifest.csv").write_text("\n".join(row.rpartition(",")[0] for row in manifest))
    done = run("tutorial", "--data", data, "--json", "--check")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["clips"] == 6 and result["left"] == 0
    names = [s["step"] for s in result["steps"]]
    assert "pip install -e attend" in names and "mertool plugins check timbre" in names


@pytest.mark.slow
def test_extract_runs(tmp_path):
    data = clips(tmp_path / "data", 2)
    other = clips(tmp_path / "other", 1)
    done = run("extract", "--data", data, "--data", other, "--json", "--check")
    assert done.returncode == 0, done.stderr
    folders = json.loads(done.stdout)["folders"]
    assert [f["runs"][j]["clips"] for f in folders for j in "12"] == [2, 2, 1, 1]
    assert [f["align"]["words"] for f in folders] == [14, 7]
    # A clip that has lost its picture misses the target.
    (data / "demo02.mp4").write_bytes(b"")
    done = run("extract", "--data", data, "--check")
    assert done.returncode == 1
    assert "failed: demo02" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 of 2 clips have all streams")


@pytest.mark.slow
def test_resume_runs(tmp_path):
    data = clips(tmp_path / "data", 3)
    done = run("resume", "--data", data, "--kills", 3, "--seed", 3, "--json", "--check")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["kills"]) == 3 and result["clips"] == 3
    assert result["completed"] and not any(c["different"] for c in result["completed"])


@pytest.mark.slow
def test_memory_runs(tmp_path):
    data = clips(tmp_path / "data", 1)
    done = run("memory", "--data", data, "--minutes", 0.3, "--json", "--check")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    assert files["short"]["seconds"] == pytest.approx(10, abs=0.2)
    assert files["long"]["seconds"] == pytest.approx(18, abs=0.2)
    assert files["long"]["peak"] > 50
