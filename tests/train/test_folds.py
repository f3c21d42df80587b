"""Cross-validation, single modalities beside the fusion, and what may be selected on."""

import csv
import json

import numpy as np
import pytest
import synthetic
import torch

import mertool
from mertool import splits
from mertool.data import DataConfig, Dataset
from mertool.errors import DataError, UsageError
from mertool.train import folder as folders
from mertool.train.loop import TrainConfig, Trainer

QUICK = ("train.epochs=2", "fusion.d_model=8")


@pytest.fixture
def features(tmp_path):
    return synthetic.write(tmp_path / "x.h5")


def train(features, out, **options):
    options = {"plugin": "concat", "label": "score", "seeds": 2, "settings": QUICK} | options
    return mertool.train(features, out, **options)


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_clip_is_tested_once_by_a_model_that_never_saw_its_speaker(features, tmp_path):
    run = tmp_path / "run"
    report = train(features, run, folds=5, singles=False)
    assert set(report.models) == {f"fold-{k}/seed-{s}" for k in range(5) for s in (1111, 1112)}
    scored = mertool.evaluate(run)
    assert scored.clips == 60 and set(scored.folds) == {f"fold-{k}" for k in range(5)}
    with mertool.open(features) as file:
        speaker = dict(zip(file.ids, file.column("speaker"), strict=True))
    tested = []
    division = {row.pop("id"): row for row in table(run / "splits.csv")}
    for k in range(5):
        fold = f"fold-{k}"
        ids = [row["id"] for row in table(run / fold / "seed-1111" / "predictions-test.csv")]
        assert ids == [name for name, row in division.items() if row[fold] == "test"]
        held = {speaker[name] for name in ids}
        valid = {speaker[n] for n, row in division.items() if row[fold] == "valid"}
        learnt = {speaker[n] for n, row in division.items() if row[fold] == "train"}
        assert held and valid and learnt
        assert not (held & valid or held & learnt or valid & learnt)
        tested += ids
    assert sorted(tested) == sorted(speaker)


def test_pooled_scores_are_those_of_all_predictions_together(features, tmp_path):
    run = tmp_path / "run"
    train(features, run, folds=3, singles=False)
    report = mertool.evaluate(run)
    for seed in (1111, 1112):
        rows = [
            row
            for k in range(3)
            for row in table(run / f"fold-{k}" / f"seed-{seed}" / "predictions-test.csv")
        ]
        gaps = [abs(float(row["score"]) - float(row["score_pred"])) for row in rows]
        assert report.seeds[seed]["mae"] == pytest.approx(np.mean(gaps), abs=1e-6)
    assert report.folds["fold-1"]["baseline"]["mae"] > 0 and not report.folds["fold-1"]["singles"]
    # The mean over folds is another number than the pooled one where folds differ in size.
    sizes = np.array([made["clips"] for made in report.folds.values()])
    each = np.array([made["mean"]["mae"] for made in report.folds.values()])
    assert (sizes * each).sum() / 60 == pytest.approx(report.mean["mae"], abs=1e-6)
    low, high = report.interval["mae"]
    assert low < report.mean["mae"] < high and (report.unit, report.units) == ("speakers", 10)


def test_folds_of_the_file_are_used(features, tmp_path):
    with mertool.open(features) as file:
        made = splits.by_units(file, 4, seed=7)
    splits.add(features, made, {}, overwrite=False)
    run = tmp_path / "run"
    train(features, run, folds=4, singles=False, seeds=1)
    rows = table(run / "splits.csv")
    assert [row["fold-2"] for row in rows] == made["fold-2"]
    env = json.loads((run / "env.json").read_text())
    ids = [row["id"] for row in rows]
    assert env["data"]["splits"]["fold-2"] == splits.digest(ids, made["fold-2"])
    with pytest.raises(DataError, match="has 4 folds, not 3"):
        train(features, tmp_path / "other", folds=3)
    with pytest.raises(UsageError, match="One split or a cross-validation"):
        train(features, tmp_path / "other", folds=4, splits="fold-1")


def test_a_stopped_cross_validation_is_not_scored_but_resumed(features, tmp_path):
    run = tmp_path / "run"
    train(features, run, folds=3, singles=False)
    (run / "fold-1" / "seed-1112" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="1112 was not trained in every fold"):
        mertool.evaluate(run)
    report = train(features, run, folds=3, singles=False, resume=True)
    assert len(report.resumed) == 5 and "fold-1/seed-1112" not in report.resumed
    assert mertool.evaluate(run).clips == 60
    with pytest.raises(UsageError, match="cannot be pooled over all"):
        mertool.evaluate(run, split="all")
    rows = mertool.predict(run, features).rows  # the mean of all folds and seeds
    assert len(rows) == 60


def test_each_stream_alone_stands_beside_the_fusion(features, tmp_path):
    run = tmp_path / "run"
    report = train(features, run)
    each = {f"{only}seed-{s}" for only in ("", "only-text/", "only-audio/") for s in (1111, 1112)}
    assert set(report.models) == each and set(report.seeds) == {1111, 1112}
    scored = mertool.evaluate(run)
    assert set(scored.singles) == {"text", "audio"}
    # What is called "text alone" is what training on text alone gives.
    train(features, tmp_path / "text", modalities=["text"])
    alone = mertool.evaluate(tmp_path / "text")
    assert alone.mean == scored.singles["text"]["mean"] and not alone.singles
    # predict uses the fusion, not its companions.
    train(features, tmp_path / "none", singles=False)
    assert mertool.predict(run, features).rows == mertool.predict(tmp_path / "none", features).rows
    assert not mertool.evaluate(tmp_path / "none").singles


def test_a_fusion_that_needs_two_streams_is_still_trained(features, tmp_path):
    """MCR told to aim at text has nothing to aim at in audio alone."""
    settings = ("train.epochs=1", "fusion.targets=text", "fusion.d_model=8", "fusion.heads=2")
    report = train(features, tmp_path / "run", plugin="mcr", seeds=1, settings=settings)
    assert any("cannot be trained on audio alone" in note for note in report.notes)
    assert set(report.models) == {"seed-1111", "only-text/seed-1111"}


def test_selecting_on_test_fails(features, tmp_path):
    """Planted in the data that the loop is given, and in the settings."""
    with mertool.open(features) as file:
        label, config = file.labels["score"], DataConfig()
        parts = {
            name: Dataset(
                file, label, ["audio"], splits.of_split(file.split(), name, ""), config, name
            )
            for name in ("train", "valid", "test")
        }
    model, spec = torch.nn.Linear(1, 1), None
    with pytest.raises(UsageError, match="given to the training as valid"):
        Trainer(model, spec, {}, TrainConfig(), parts["train"], parts["test"], torch.device("cpu"))
    with pytest.raises(UsageError, match="given to the training as train"):
        Trainer(model, spec, {}, TrainConfig(), parts["test"], parts["valid"], torch.device("cpu"))

    with pytest.raises(UsageError, match="no such"):
        train(features, tmp_path / "b", settings=("train.select=test",))


def test_leaks_are_told_in_every_report(tmp_path):
    """One speaker in train and test, and two sentences said for every emotion."""
    path = synthetic.write(tmp_path / "x.h5")
    import h5py

    with h5py.File(path, "r+") as file:
        file["clips/speaker"][...] = np.array(["ann", "bob"] * 30, object)
        text = np.array([f"sentence {i // 2 % 2}" for i in range(60)], object)
        del file["clips/text"]
        file["clips/text"] = text
    trained = train(path, tmp_path / "run", label="emotion", singles=False)
    scored = mertool.evaluate(tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for notes in (trained.notes, scored.notes, kept["splits"]["test"]["mertool"]["notes"]):
        assert any(note.startswith("speaker leak: 2 speakers") for note in notes), notes
    assert any("text says nothing" in note for note in trained.notes)


def test_clips_seen_in_training_are_told(features, tmp_path):
    """The same clips with other splits: what is test there was train here."""
    run = tmp_path / "run"
    train(features, run, seeds=1, singles=False)
    import h5py

    other = synthetic.write(tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        split = np.array(file["splits/default"].asstr()[:])
        moved = np.where(split == "train", "test", np.where(split == "test", "train", split))
        file["splits/default"][...] = moved
    report = mertool.evaluate(run, other)
    assert "leak: 42 of the scored clips were in the run's train or valid split" in report.notes


def test_a_refused_score_is_still_an_opening(features, tmp_path):
    run = tmp_path / "run"
    train(features, run, seeds=1, singles=False, label="emotion")
    with pytest.raises(UsageError):
        mertool.evaluate(run, convention="almt")
    kept = json.loads((run / "metrics.json").read_text())
    assert [o["split"] for o in kept["openings"]] == ["test"] and not kept["splits"]


def test_models_are_found_by_fold_stream_and_seed(tmp_path):
    for place in ("seed-2", "seed-10", "only-text/seed-2", "notes/seed-3"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.safetensors").touch()
    found = [(m.fold, m.only, m.seed) for m in folders.models(tmp_path)]
    assert found == [("", "", 2), ("", "", 10), ("", "text", 2)]
