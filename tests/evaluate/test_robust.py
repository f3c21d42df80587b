"""Damaged clips: which steps are lost, what stands in their place, and the area under the curve."""

import json

import numpy as np
import pytest
import synthetic
import torch

import mertool
from mertool.data import DataConfig, Dataset
from mertool.errors import UsageError
from mertool.evaluate import robust
from mertool.metrics import scores
from mertool.registry import registry
from mertool.train.checkpoint import load
from mertool.train.loop import fixed_lengths

CPU = torch.device("cpu")


def opened(path, order=None):
    with mertool.open(path) as file:
        wanted = np.ones(len(file), bool)
        return Dataset(file, file.labels["score"], ["text", "audio"], wanted, DataConfig())


@pytest.fixture
def data(tmp_path):
    return opened(synthetic.write(tmp_path / "x.h5"))


def lost(before, after):
    return (before != after).any(1).numpy()


@pytest.mark.parametrize("unit", robust.UNITS)
@pytest.mark.parametrize("noise", robust.NOISES)
def test_nothing_or_everything(data, noise, unit):
    values = data.values["audio"]
    assert torch.equal(robust.damage(data, "audio", 0.0, noise, unit, 1), values)
    every = robust.damage(data, "audio", 1.0, noise, unit, 1)
    if noise == "erase":
        assert not every.any()
    else:
        assert lost(values, every).all()
        assert abs(float(every.mean())) < 0.1 and float(every.std()) == pytest.approx(1, abs=0.1)


def test_steps_are_lost_each_on_its_own(data):
    values = data.values["audio"]
    gone = [lost(values, robust.damage(data, "audio", r, "erase", "steps", 5)) for r in (0.3, 0.6)]
    share = [g.mean() for g in gone]
    error = 4 * np.sqrt(0.25 / len(values))
    assert share[0] == pytest.approx(0.3, abs=error) and share[1] == pytest.approx(0.6, abs=error)
    assert (gone[1] | ~gone[0]).all()  # what is lost at a rate is lost at all higher ones
    other = lost(values, robust.damage(data, "audio", 0.3, "erase", "steps", 6))
    assert (other != gone[0]).any()
    again = lost(values, robust.damage(data, "audio", 0.3, "erase", "steps", 5))
    assert (again == gone[0]).all()


def test_a_window_is_one_stretch_of_the_asked_length(data):
    values, offsets = data.values["audio"], data.offsets["audio"].numpy()
    gone = lost(values, robust.damage(data, "audio", 0.4, "erase", "window", 1))
    starts = []
    for low, high in zip(offsets[:-1], offsets[1:], strict=True):
        inside = np.flatnonzero(gone[low:high])
        assert len(inside) == int(0.4 * (high - low) + 0.5)
        assert (np.diff(inside) == 1).all()
        starts.append(inside[0])
    assert len(set(starts)) > 3


def test_what_is_lost_depends_on_the_clip_and_not_on_the_others(data, tmp_path):
    few = opened(synthetic.write(tmp_path / "few.h5", clips=7))
    for unit in robust.UNITS:
        many = robust.damage(data, "audio", 0.5, "gauss", unit, 3)
        some = robust.damage(few, "audio", 0.5, "gauss", unit, 3)
        assert torch.equal(some, many[: len(some)])


def test_an_erased_step_stays_a_step_and_an_absent_stream_has_none(data):
    changes = robust.conditions(robust.Masking((0.0, 1.0)), ["text", "audio"])[""]
    indices = torch.arange(4)
    whole = data.batch(indices, CPU)
    erased = changes["audio@1"](data, 1).batch(indices, CPU)
    assert torch.equal(erased.mask["audio"], whole.mask["audio"]) and not erased.x["audio"].any()
    assert torch.equal(erased.x["text"], whole.x["text"])
    absent = changes["audio missing, absent"](data, 1).batch(indices, CPU)
    assert not absent.mask["audio"].any() and absent.mask["text"].any()
    both = changes["all streams@1"](data, 1).batch(indices, CPU)
    assert not both.x["audio"].any() and not both.x["text"].any()
    assert torch.equal(data.batch(indices, CPU).x["audio"], whole.x["audio"])  # untouched


def test_auilc_by_hand():
    """Eq. 10: a constant keeps its value, 1 - r gives a half, r^2 on 11 points 0.335."""
    rates = robust.parse("0:1:0.1", "erase", "steps", [], ["a"]).rates
    assert len(rates) == 11 and rates[0] == 0 and rates[3] == 0.3 and rates[-1] == 1
    assert robust.auilc(rates, [0.7] * 11) == pytest.approx(0.7)
    assert robust.auilc(rates, [1 - r for r in rates]) == pytest.approx(0.5)
    assert robust.auilc(rates, [r**2 for r in rates]) == pytest.approx(0.335)


@pytest.mark.parametrize(
    "wrong", ["", "0:1", "0:2:0.1", "0.5:0.5:0.1", "0:1:0", "a:b:c", "1:0:0.1"]
)
def test_wrong_rates(wrong):
    with pytest.raises(UsageError, match="no range"):
        robust.parse(wrong, "erase", "steps", [], ["a"])


def test_wrong_masking():
    with pytest.raises(UsageError, match='no noise "pink"'):
        robust.parse("0:1:0.5", "pink", "steps", [], ["a"])
    with pytest.raises(UsageError, match='no unit "frames"'):
        robust.parse("0:1:0.5", "erase", "frames", [], ["a"])
    with pytest.raises(UsageError, match='no stream "face"'):
        robust.parse("0:1:0.5", "erase", "steps", ["face"], ["a"])


def test_correlation_of_what_differs_by_rounding_alone_is_none():
    label = mertool.Label("score", "regression", (), (-3.0, 3.0))
    pred = np.array([[0.5], [0.5 + 1e-7], [0.5]])
    values = scores(label, [[1.0], [2.0], [3.0]], pred).values
    assert robust.without_nan(values, pred)["pearson"] == 0
    assert robust.without_nan(values, pred)["mae"] == values["mae"]
    pred = np.array([[0.5], [0.6], [0.9]])
    values = scores(label, [[1.0], [2.0], [3.0]], pred).values
    assert robust.without_nan(values, pred) == values


QUICK = ("concat", "mcr", "transformer")  # of any length, and two of fixed length


@pytest.mark.parametrize(
    "plugin",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in registry().names("fusion")
    ],
)
def test_curves_of_every_plugin(plugin, tmp_path):
    features = synthetic.write(tmp_path / "x.h5")
    run = tmp_path / "run"
    mertool.train(
        features, run, plugin=plugin, label="score", seeds=2, settings=("train.epochs=2",),
        singles=False,
    )  # fmt: skip
    report = mertool.evaluate(run, mask="0:1:0.5")
    made = report.robustness
    assert set(made["curves"]) == {"all streams", "text", "audio"}
    for which, curve in made["curves"].items():
        for name, values in curve.items():
            # Nothing lost: the score of the clips as they are.
            assert values[0] == pytest.approx(report.mean[name], abs=1e-6)
            expected = robust.auilc(made["rates"], values)
            assert made["auilc"][which]["mean"][name] == pytest.approx(expected)
    # Everything lost, by hand: every row zero, predicted by each seed's model.
    pearson, mae = [], []
    with mertool.open(features) as file:
        wanted = np.array(file.split()) == "test"
        label = file.labels["score"]
        data = Dataset(file, label, ["text", "audio"], wanted, DataConfig())
    for values in data.values.values():
        values.zero_()
    for seed in (1111, 1112):
        trained = load(run / f"seed-{seed}" / "model.safetensors", CPU)
        lengths = fixed_lengths(trained.spec, trained.facts)
        with torch.no_grad():
            pred = trained.model(data.batch(torch.arange(12), CPU, lengths)).pred
        mae.append(float((pred - data.y).abs().mean()))
        both = np.corrcoef(pred[:, 0], data.y[:, 0])[0, 1] if np.ptp(pred) > 1e-5 else 0.0
        pearson.append(both)
    all_lost = {name: values[-1] for name, values in made["curves"]["all streams"].items()}
    assert all_lost["mae"] == pytest.approx(np.mean(mae), abs=1e-5)
    assert all_lost["pearson"] == pytest.approx(np.mean(pearson), abs=1e-4)
    fills = {"zeros", "noise", "absent"}
    assert set(made["missing"]) == {"text", "audio"} and set(made["missing"]["text"]) == fills
    assert made["missing"]["text"]["zeros"]["mean"]["mae"] == pytest.approx(
        made["curves"]["text"]["mae"][-1]
    )


def test_repeating_gives_the_same_curves(tmp_path):
    features, run = synthetic.write(tmp_path / "x.h5"), tmp_path / "run"
    mertool.train(
        features, run, plugin="mcr", label="score", seeds=1, settings=("train.epochs=1",),
        singles=False,
    )  # fmt: skip
    for noise, unit in (("erase", "window"), ("gauss", "steps")):
        options = {"mask": "0:1:0.5", "noise": noise, "unit": unit}
        one, two = (mertool.evaluate(run, **options).robustness for _ in range(2))
        assert one == two


def test_curves_are_kept_beside_the_scores(tmp_path):
    features, run = synthetic.write(tmp_path / "x.h5"), tmp_path / "run"
    mertool.train(
        features, run, plugin="concat", label="emotion", seeds=1, settings=("train.epochs=2",),
        singles=False,
    )  # fmt: skip
    mertool.evaluate(run, mask="0:1:0.5", streams=["text"], noise="gauss", unit="window")
    mertool.evaluate(run, mask="0:0.5:0.5")
    mertool.evaluate(run)
    kept = json.loads((run / "metrics.json").read_text())
    assert set(kept["robustness"]["test"]["mertool"]) == {
        "gauss window text", "erase steps all streams text audio"
    }  # fmt: skip
    assert "robustness" not in kept["splits"]["test"]["mertool"]
    assert [o["split"] for o in kept["openings"]] == ["test"] * 3


def test_folds_are_pooled_for_the_curve(tmp_path):
    features, run = synthetic.write(tmp_path / "x.h5"), tmp_path / "run"
    mertool.train(
        features, run, plugin="concat", label="score", seeds=1, settings=("train.epochs=2",),
        singles=False, folds=3,
    )  # fmt: skip
    report = mertool.evaluate(run, mask="0:1:1")
    for name, values in report.robustness["curves"]["all streams"].items():
        assert values[0] == pytest.approx(report.mean[name], abs=1e-6)


def test_each_stream_alone_loses_its_steps_too(tmp_path):
    features = synthetic.write(tmp_path / "x.h5")
    options = {"plugin": "concat", "label": "score", "seeds": 2, "settings": ("train.epochs=2",)}
    mertool.train(features, tmp_path / "both", **options)
    mertool.train(features, tmp_path / "text", modalities=["text"], **options)
    both = mertool.evaluate(tmp_path / "both", mask="0:1:0.5").robustness
    alone = mertool.evaluate(tmp_path / "text", mask="0:1:0.5").robustness
    assert set(both["singles"]) == {"text", "audio"} and not alone["singles"]
    assert both["singles"]["text"] == alone["auilc"]["all streams"]
