"""Benchmarks of scores: speech, robustness, interaction, the board of the five methods."""

from __future__ import annotations

import copy
import csv
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scripts import clips, mmmo, run

import mertool
from mertool.types import Clip, Label


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
    mmmo(tmp_path, text=True)
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
