"""The benchmark scripts: they run, and their checks fail where a target is missed."""

from __future__ import annotations

import argparse
import copy
import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

import mertool
from mertool import media
from mertool.types import Clip

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
DEMO = Path(mertool.__file__).parent / "demo" / "clips"
SCRIPTS = ("extract", "memory", "resume", "sanity", "speech", "startup")


def run(name: str, *args: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script under a name of its own."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # for dataclasses
        spec.loader.exec_module(module)
        return module

    return load


def clips(folder: Path, number: int) -> Path:
    """A data folder of the first demo clips, with emotions, and each split in turn."""
    folder.mkdir()
    with (DEMO / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:number]
    for i, row in enumerate(rows):
        shutil.copy(DEMO / row["path"], folder)
        row["split"] = ("train", "train", "valid", "test")[i % 4]
        row["emotion"] = ("happy", "sad")[i // 4 % 2]
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_every_script_is_covered():
    found = {path.stem for path in FOLDER.glob("*.py")} - {"common"}
    assert found == set(SCRIPTS)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in readme for name in SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name):
    done = run(name, "--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--data", "--json", "--check", "Target:"))


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - {"startup"}))
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
            file.create_group("streams/audio").attrs.update({"extractor": "mfcc", "rate": 100.0})

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


def test_speech_check(script):
    speech = script("speech")
    fusion = {
        "clips": {"train": 8, "valid": 2, "test": 2}, "parameters": 10, "train_seconds": 1.0,
        "mean": {"accuracy": 0.4, "unweighted_recall": 0.35},
        "sd": {"accuracy": 0.1, "unweighted_recall": 0.1},
        "seeds": {"1111": {"accuracy": 0.3}, "1112": {"accuracy": 0.5}},
        "majority": {"accuracy": 0.2},
    }  # fmt: skip
    good = {"alignment": "none", "fusions": {"mcr": fusion, "concat": copy.deepcopy(fusion)}}
    assert speech.misses(good) == []
    assert "0.3000 0.5000" in "\n".join(speech.lines(good))
    assert "mcr 0.4000, 2.00 times the majority's" in speech.key_figure(good)
    good["fusions"]["concat"]["mean"]["accuracy"] = 0.2
    assert speech.misses(good) == ["concat: accuracy 0.2000, majority 0.2000"]


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


@pytest.mark.slow
def test_speech_runs(tmp_path):
    data = clips(tmp_path / "data", 8)
    done = run("speech", "--data", data, "--seeds", 2, "--set", "train.epochs=1", "--json")
    assert done.returncode == 0, done.stderr
    fusions = json.loads(done.stdout)["fusions"]
    for fusion in fusions.values():
        assert fusion["clips"] == {"train": 4, "valid": 2, "test": 2}
        assert list(fusion["seeds"]) == ["1111", "1112"]
        assert fusion["train_seconds"] > 0 and isinstance(fusion["gpu"], list)
    # On the features of an earlier extraction.
    feats = tmp_path / "f.h5"
    command = ["extract", str(data), "-o", str(feats), "--vision", "none", "--text", "none"]
    subprocess.run([sys.executable, "-m", "mertool", *command], check=True)
    done = run("speech", "--features", feats, "--seeds", 1, "--set", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("test accuracy: mcr ")
