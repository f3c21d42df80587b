"""What `mertool evaluate` prints under a name is what that name says, computed from the files."""

import csv
import re

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner
from scipy.stats import pearsonr
from sklearn import metrics as sk

import mertool
from mertool.cli import cli

SEEDS = (1111, 1112)


def whole(values, k):
    return [int(v) for v in np.round(np.clip(np.asarray(values, np.float32), -k, k))]


def signs(y, p, drop_zero):
    pairs = [(a, b) for a, b in zip(y, p, strict=True) if a != 0 or not drop_zero]
    return [a > 0 if drop_zero else a >= 0 for a, _ in pairs], [
        b > 0 if drop_zero else b >= 0 for _, b in pairs
    ]


def truth_f1(y, p):
    return sk.f1_score(y, p, average="weighted", zero_division=0)


REGRESSION = {
    "mae": sk.mean_absolute_error,
    "pearson": lambda y, p: pearsonr(y, p)[0],
    "acc2_has0": lambda y, p: sk.accuracy_score(*signs(y, p, False)),
    "f1_has0": lambda y, p: truth_f1(*signs(y, p, False)),
    "acc2_non0": lambda y, p: sk.accuracy_score(*signs(y, p, True)),
    "f1_non0": lambda y, p: truth_f1(*signs(y, p, True)),
    "acc3": lambda y, p: sk.accuracy_score(whole(y, 1), whole(p, 1)),
    "acc5": lambda y, p: sk.accuracy_score(whole(y, 2), whole(p, 2)),
    "acc7": lambda y, p: sk.accuracy_score(whole(y, 3), whole(p, 3)),
}
EMOTION = {
    "accuracy": sk.accuracy_score,
    "unweighted_recall": lambda y, p: sk.recall_score(
        y, p, labels=sorted(set(y)), average="macro", zero_division=0
    ),
    "weighted_f1": truth_f1,
}


@pytest.fixture(scope="module", params=["score", "emotion"])
def case(request, tmp_path_factory):
    """Printed means, and each seed's truths and predictions as the files have them."""
    folder = tmp_path_factory.mktemp(request.param)
    run = folder / "run"
    mertool.train(
        synthetic.write(folder / "x.h5", clips=200), run, plugin="concat", label=request.param,
        seeds=2, settings=("train.epochs=12",), singles=False,
    )  # fmt: skip
    printed = CliRunner().invoke(cli, ["evaluate", str(run)], catch_exceptions=False).output
    number = r"-?\d+\.\d+"
    found = re.findall(rf"^(\S+) \((\w+)\) +({number}) +({number})", printed, re.MULTILINE)
    assert {convention for _, convention, _, _ in found} == {"mertool"}
    files = []
    for seed in SEEDS:
        with open(run / f"seed-{seed}" / "predictions-test.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        cast = float if request.param == "score" else str
        name = request.param
        files.append(([cast(r[name]) for r in rows], [cast(r[f"{name}_pred"]) for r in rows]))
    expected = REGRESSION if request.param == "score" else EMOTION
    return {n: (float(m), float(sd)) for n, _, m, sd in found}, files, expected


def wrong(printed, files, expected):
    """Names whose printed mean or deviation is not that of the files."""
    found = []
    for name, compute in expected.items():
        each = [compute(y, p) for y, p in files]
        said = (np.mean(each), np.std(each, ddof=1))
        if not np.allclose(printed[name], said, atol=6e-5):
            found.append(name)
    return found


def test_printed_numbers_are_what_their_names_say(case):
    printed, files, expected = case
    assert set(expected) <= set(printed)
    assert wrong(printed, files, expected) == []


def test_swapped_names_are_noticed(case):
    printed, files, expected = case
    names = list(expected)
    for one, two in zip(names, names[1:], strict=False):
        swapped = {**printed, one: printed[two], two: printed[one]}
        if printed[one] != printed[two]:  # equal numbers cannot be told apart
            assert wrong(swapped, files, expected) != []
    assert len(set(printed.values())) > len(printed) // 2


def test_swapped_truth_and_prediction_are_noticed(case):
    printed, files, expected = case
    assert wrong(printed, [(p, y) for y, p in files], expected) != []
