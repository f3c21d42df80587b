import json
import math
import subprocess
import sys

import numpy as np
import pytest
import synthetic
import torch

import mertool
from mertool.errors import DataError, MertoolError, OutputError, PluginError, UsageError
from mertool.train import parse_seeds
from mertool.train.checkpoint import load
from mertool.train.loop import TrainConfig, learning_rate, task_loss

QUICK = ("train.epochs=4", "fusion.d_model=16")


@pytest.fixture
def features(tmp_path):
    return synthetic.write(tmp_path / "x.h5")


def train(features, out, **options):
    options = {"plugin": "concat", "label": "score", "seeds": 1, "settings": QUICK} | options
    options.setdefault("singles", False)
    return mertool.train(features, out, **options)


@pytest.mark.parametrize("label", ["score", "emotion", "traits"])
def test_every_task_learns(features, tmp_path, label):
    """Better than the constant predictor by far, on clips of speakers never seen."""
    run = tmp_path / "run"
    train(features, run, label=label, seeds=2, settings=("train.epochs=60", "train.lr=3e-3"))
    report = mertool.evaluate(run)
    if label == "score":
        assert report.mean["mae"] < 0.6 * report.baseline["mae"]
        assert report.mean["pearson"] > 0.8
    else:
        assert report.mean["accuracy"] > report.baseline["accuracy"] + 0.15
    assert report.clips == 12 and set(report.seeds) == {1111, 1112}
    values = [s["weighted_f1" if label != "score" else "mae"] for s in report.seeds.values()]
    name = "weighted_f1" if label != "score" else "mae"
    assert report.mean[name] == pytest.approx(np.mean(values))
    assert report.std[name] == pytest.approx(np.std(values, ddof=1))


def test_run_folder(features, tmp_path):
    run = tmp_path / "run"
    report = train(features, run, seeds="1111,1115", command="mertool train ...")
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    each = {"model.safetensors", "log.jsonl", "predictions-valid.csv", "best.json"}
    assert names == {"config.toml", "env.json", "splits.csv"} | {
        f"seed-{s}/{n}" for s in (1111, 1115) for n in each
    }
    env = json.loads((run / "env.json").read_text())
    assert env["command"] == "mertool train ..." and len(env["data"]["sha256"]) == 64
    assert env["packages"]["torch"] and env["python"]
    lines = [json.loads(x) for x in (run / "seed-1111" / "log.jsonl").read_text().splitlines()]
    assert [x["epoch"] for x in lines] == [1, 2, 3, 4]
    assert {"task", "total"} == set(lines[0]["train"])
    assert report.clips == {"train": 42, "valid": 6}
    mertool.evaluate(run)
    mertool.evaluate(run, split="valid")
    metrics = json.loads((run / "metrics.json").read_text())
    assert [o["split"] for o in metrics["openings"]] == ["test", "valid"]
    assert metrics["splits"]["test"]["mertool"]["clips"] == 12
    table = (run / "seed-1111" / "predictions-test.csv").read_text().splitlines()
    assert table[0] == "id,score,score_pred" and len(table) == 13


def test_training_never_reads_the_test_split(features, tmp_path):
    """Poisoned test labels and rows change nothing in what is trained."""
    import h5py

    train(features, tmp_path / "a")
    with h5py.File(features, "r+") as f:
        test = np.flatnonzero(np.array(f["clips/split"].asstr()) == "test")
        for i in test:
            f["clips/labels/score"][i] = 1e6
            low, high = f["streams/audio/offsets"][i : i + 2]
            f["streams/audio/values"][low:high] = 1e6
    train(features, tmp_path / "b")
    name = "seed-1111/model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_same_seed_same_numbers(features, tmp_path):
    train(features, tmp_path / "a")
    train(features, tmp_path / "b")
    for name in ("seed-1111/model.safetensors", "seed-1111/predictions-valid.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    train(features, tmp_path / "c", seeds="1112")
    assert (tmp_path / "c/seed-1112/predictions-valid.csv").read_bytes() != (
        tmp_path / "a/seed-1111/predictions-valid.csv"
    ).read_bytes()


def test_the_checkpoint_gives_the_score_that_selected_it(features, tmp_path):
    run = tmp_path / "run"
    report = train(features, run, settings=("train.epochs=30", "train.lr=0.02"))
    best = report.seeds[1111]
    lines = [json.loads(x) for x in (run / "seed-1111" / "log.jsonl").read_text().splitlines()]
    assert best["valid_loss"] == min(x["valid_loss"] for x in lines)
    again = mertool.evaluate(run, split="valid")
    assert again.mean["mae"] == pytest.approx(best["valid_loss"], abs=1e-6)
    assert again.mean["mae"] == pytest.approx(best["valid"]["mae"], abs=1e-6)


def test_early_stopping(features, tmp_path):
    report = train(
        features, tmp_path / "r", settings=("train.epochs=200", "train.patience=2", "train.lr=0.1")
    )
    lines = (tmp_path / "r/seed-1111/log.jsonl").read_text().splitlines()
    assert len(lines) == report.seeds[1111]["epoch"] + 2 < 200


def test_a_lone_model_is_enough(features, tmp_path):
    run = tmp_path / "run"
    train(features, run)
    alone = tmp_path / "somewhere" / "model.safetensors"
    alone.parent.mkdir()
    (run / "seed-1111" / "model.safetensors").rename(alone)
    for path in (run / "config.toml", run / "env.json"):
        path.unlink()
    rows = mertool.predict(alone, features).rows
    assert len(rows) == 60 and set(rows[0]) == {"id", "score_pred"}
    assert mertool.evaluate(alone, features).clips == 12
    with pytest.raises(DataError, match="needs a feature file"):
        mertool.evaluate(alone)


def test_predictions_average_the_seeds(features, tmp_path):
    run = tmp_path / "run"
    train(features, run, seeds=2)
    both = mertool.predict(run, features).rows
    each = [
        mertool.predict(run / f"seed-{s}" / "model.safetensors", features).rows
        for s in (1111, 1112)
    ]
    for mean, a, b in zip(both, *each, strict=True):
        expected = (a["score_pred"] + b["score_pred"]) / 2
        assert mean["score_pred"] == pytest.approx(expected, abs=1e-5)


def test_predictions_do_not_depend_on_who_else_is_in_the_file(features, tmp_path):
    run = tmp_path / "run"
    train(features, run)
    every = {r["id"]: r["score_pred"] for r in mertool.predict(run, features).rows}
    few = synthetic.write(tmp_path / "few.h5", clips=5)
    for row in mertool.predict(run, few).rows:
        assert row["score_pred"] == pytest.approx(every[row["id"]], abs=1e-5)


def test_resume_trains_only_what_is_missing(features, tmp_path):
    run = tmp_path / "run"
    train(features, run, seeds=1)
    first = (run / "seed-1111" / "model.safetensors").stat().st_mtime_ns
    report = train(features, run, seeds=2, resume=True)
    assert report.resumed == ["seed-1111"] and set(report.seeds) == {1111, 1112}
    assert (run / "seed-1111" / "model.safetensors").stat().st_mtime_ns == first
    with pytest.raises(OutputError, match="other settings"):
        train(features, run, resume=True, settings=("train.epochs=5",))


def test_a_run_repeats_from_its_own_config(features, tmp_path):
    train(features, tmp_path / "a", settings=(*QUICK, "train.lr=0.01"))
    mertool.train(config=tmp_path / "a" / "config.toml", out=tmp_path / "b")
    name = "seed-1111/model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_fusion_that_cannot_be_built_leaves_no_run(features, tmp_path):
    settings = ("fusion.targets=face",)
    with pytest.raises(UsageError, match="no such stream"):
        train(features, tmp_path / "run", plugin="mcr", settings=settings)
    assert not (tmp_path / "run").exists()


def test_errors_in_a_config_file_come_all_at_once(features, tmp_path):
    (tmp_path / "c.toml").write_text(
        f'[run]\nplugin = "concat"\nfeatures = "{features}"\nlable = "score"\nseeds = ["x"]\n'
        "[train]\nepochs = 1.5\n[fusoin]\nx = 1\n"
    )
    with pytest.raises(UsageError) as caught:
        mertool.train(config=tmp_path / "c.toml", out=tmp_path / "r")
    for part in ("run.lable", 'Did you mean "label"', "run.seeds", "train.epochs", "[fusoin]"):
        assert part in caught.value.where
    (tmp_path / "d.toml").write_text("run = 3\n")
    with pytest.raises(UsageError, match="must be a section"):
        mertool.train(features, tmp_path / "r", plugin="concat", config=tmp_path / "d.toml")


def test_existing_runs_are_not_lost(features, tmp_path):
    train(features, tmp_path / "run")
    with pytest.raises(OutputError, match="exists already"):
        train(features, tmp_path / "run")
    train(features, tmp_path / "run", overwrite=True)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not overwritten"):
        train(features, tmp_path / "papers", overwrite=True)
    assert (tmp_path / "papers" / "thesis.tex").exists()


def test_wrong_usage(features, tmp_path):
    with pytest.raises(UsageError, match='Did you mean "concat"'):
        train(features, tmp_path / "r", plugin="concta")
    with pytest.raises(UsageError, match="3 settings are wrong"):
        train(
            features, tmp_path / "r",
            settings=("train.epoch=3", "fusion.width=2", "train.lr=-1"),
        )  # fmt: skip
    with pytest.raises(UsageError, match="device"):
        train(features, tmp_path / "r", device="warp")
    with pytest.raises(UsageError, match="number of seeds"):
        train(features, tmp_path / "r", seeds="many")
    with pytest.raises(UsageError, match="needs plugin"):
        mertool.train(features, tmp_path / "r")
    with pytest.raises(DataError, match="no such feature file"):
        train(tmp_path / "none.h5", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_evaluating_other_features_than_the_model_knows(features, tmp_path):
    run = tmp_path / "run"
    train(features, run)
    other = synthetic.write(tmp_path / "aligned.h5", aligned=True)
    with pytest.raises(DataError, match="alignment"):
        mertool.evaluate(run, other)
    changed = synthetic.write(tmp_path / "changed.h5", seed=5)
    assert any("changed" in note for note in mertool.evaluate(run, changed).notes)
    with pytest.raises(DataError, match="no run"):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "seed-1").mkdir()
        (tmp_path / "empty" / "seed-1" / "model.safetensors").write_bytes(b"x")
        mertool.evaluate(tmp_path / "empty")


def test_a_file_that_is_no_model(features, tmp_path):
    fake = tmp_path / "model.safetensors"
    fake.write_bytes(b"\x80\x04not a model")
    with pytest.raises(DataError, match="no model that mertool wrote"):
        load(fake, torch.device("cpu"))
    with pytest.raises(DataError, match="no such run"):
        mertool.predict(tmp_path / "nothing", features)


def test_seeds():
    assert parse_seeds("5") == [1111, 1112, 1113, 1114, 1115] == parse_seeds(5)
    assert parse_seeds("7, 9,7") == [7, 9]
    assert parse_seeds("2024") == [2024]
    for wrong in ("0", "x", "1,b", ""):
        with pytest.raises(UsageError):
            parse_seeds(wrong)


def test_schedules_by_hand():
    constant = TrainConfig(warmup=0.2)
    assert [learning_rate(s, 10, constant) for s in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    linear = TrainConfig(schedule="linear", warmup=0.2)
    assert learning_rate(2, 10, linear) == 1.0
    assert learning_rate(6, 10, linear) == pytest.approx(0.5)
    cosine = TrainConfig(schedule="cosine")
    assert learning_rate(0, 10, cosine) == 1.0
    assert learning_rate(5, 10, cosine) == pytest.approx(0.5)
    assert learning_rate(10, 10, cosine) == pytest.approx(0.0)


def test_task_losses():
    pred, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [5.0]])
    assert task_loss("regression", "l1")(pred, y) == 1.5
    assert task_loss("regression", "mse")(pred, y) == 2.5
    logits = torch.tensor([[0.0, 0.0]])
    assert task_loss("classification", "l1")(logits, torch.tensor([1])) == pytest.approx(
        math.log(2)
    )
    assert task_loss("multilabel", "mse")(logits, torch.ones(1, 2)) == pytest.approx(math.log(2))
    assert task_loss("regression", "none") is None
    with pytest.raises(PluginError):
        task_loss("regression", "bce")


def test_a_loss_that_explodes_stops_with_advice(features, tmp_path):
    with pytest.raises(MertoolError, match="not finite") as caught:
        train(features, tmp_path / "r", settings=("train.lr=1e30", "train.clip=0"))
    assert "train.lr" in caught.value.fix


@pytest.mark.gpu
@pytest.mark.parametrize("plugin", ["concat", "mcr"])
@pytest.mark.parametrize("label", ["score", "emotion", "traits"])
def test_on_a_gpu(features, tmp_path, plugin, label):
    """Trained there, in mixed precision, and scored on either device alike."""
    settings = ("train.epochs=3",)
    train(features, tmp_path / "r", plugin=plugin, label=label, settings=settings, device="cuda")
    there = mertool.evaluate(tmp_path / "r", device="cuda").mean
    here = mertool.evaluate(tmp_path / "r", device="cpu").mean
    for name, value in here.items():
        assert there[name] == pytest.approx(value, abs=1e-3)


def test_training_needs_no_media_library(features, tmp_path):
    """train, evaluate and predict from features run where these packages are absent."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("av", "mediapipe", "pocketsphinx", "soundfile"):
            raise ModuleNotFoundError("absent: " + name)
sys.meta_path.insert(0, Absent())
import mertool
for plugin in ("concat", "mcr"):
    mertool.train({str(features)!r}, {str(tmp_path)!r} + "/" + plugin, plugin=plugin,
                  label="score", seeds=1, settings=["train.epochs=1"])
    mertool.evaluate({str(tmp_path)!r} + "/" + plugin)
    mertool.predict({str(tmp_path)!r} + "/" + plugin, {str(features)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
