"""What must hold of every metric, and the same numbers from independent code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mertool import metrics
from mertool.types import Label

MOSI = Label("score", "regression", (), (-3.0, 3.0))
SIMS = Label("score", "regression", (), (-1.0, 1.0))
STARS = Label("stars", "regression", (), (1.0, 5.0))
POLARITY = Label("polarity", "classification", ("neutral", "negative", "positive"))
FOUR = Label("emotion", "classification", ("a", "b", "c", "d"))
FIVE = Label("emotion", "classification", ("a", "b", "c", "d", "e"))
EMOTIONS = Label("emotions", "multilabel", ("happy", "sad", "angry", "neutral"))

COVERED = [
    *((MOSI, c) for c in metrics.CONVENTIONS),
    *((SIMS, c) for c in ("mertool", "mmsa", "tmt", "almt")),
    (STARS, "mertool"),
    *((POLARITY, c) for c in ("mertool", "mmsa", "misa", "tmt")),
    *((FOUR, c) for c in ("mertool", "misa", "tmt")),
    (FIVE, "tmt"),
    *((EMOTIONS, c) for c in ("mertool", "mult")),
]
covered = pytest.mark.parametrize("label, convention", COVERED, ids=lambda v: getattr(v, "name", v))


def sample(label: Label, seed: int = 0, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions that are right about half the time."""
    rng = np.random.default_rng(seed)
    k = len(label.classes)
    if label.task == "classification":
        y = rng.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
        return y, (1.2 * np.eye(k)[y] + rng.normal(size=(n, k)))
    if label.task == "multilabel":
        y = (rng.random((n, k)) < np.linspace(0.2, 0.6, k)).astype(float)
        return y, 2 * y - 1.3 + rng.normal(size=(n, k))
    low, high = label.range
    y = np.round(rng.uniform(low, high, n) * 5) / 5
    y[:: n // 10] = 0.0 if low < 0 else low
    return y, y[:, None] + rng.normal(scale=(high - low) / 5, size=(n, 1)) - 0.1


def perfect(label: Label, y: np.ndarray) -> np.ndarray:
    if label.task == "classification":
        return np.eye(len(label.classes))[y]
    return 2 * y - 1 if label.task == "multilabel" else y[:, None]


@covered
def test_the_order_of_clips_does_not_matter(label, convention):
    y, pred = sample(label)
    order = np.random.default_rng(1).permutation(len(y))
    first = metrics.scores(label, y, pred, convention)
    again = metrics.scores(label, y[order], pred[order], convention)
    # Sums in single precision depend on the order, in the last digits.
    assert again.values == pytest.approx(first.values, rel=1e-6)
    assert again.confusion == first.confusion


@covered
def test_perfect_predictions_are_perfect(label, convention):
    y, _ = sample(label)
    result = metrics.scores(label, y, perfect(label, y), convention)
    for name, value in result.values.items():
        ideal = 0.0 if name in metrics.LOWER_IS_BETTER else 1.0
        if label is POLARITY and convention in ("mmsa", "tmt") and name.endswith("_non0"):
            # Their bug: positive clips are never right, so that what remains are the negatives.
            negative, positive = (y == 1).sum(), (y == 2).sum()
            ideal = negative / (negative + positive)
            assert 0 < ideal < 0.5
            assert value == pytest.approx(ideal, abs=5.1e-5)
        else:
            assert value == pytest.approx(ideal), name
    if result.confusion:
        assert np.trace(result.confusion) == len(y) == np.sum(result.confusion)


def test_of_positive_clips_alone_the_bug_leaves_nothing():
    y = np.array([2, 2, 0])  # POLARITY: neutral, negative, positive
    for convention in ("mmsa", "misa", "mertool"):
        values = metrics.scores(POLARITY, y, perfect(POLARITY, y), convention).values
        assert values.get("acc2_non0", 1.0) == (0.0 if convention == "mmsa" else 1.0)


@covered
def test_values_stay_in_their_range(label, convention):
    for seed in range(5):
        y, pred = sample(label, seed, n=30)
        for name, value in metrics.scores(label, y, pred, convention).values.items():
            low = {"pearson": -1, "ccc": -1}.get(name, 0)
            assert low <= value <= (math.inf if name == "mae" else 1), name


# Independent references.


@pytest.mark.parametrize("seed", range(5))
def test_ccc_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=20).tolist()
    pred = [0.5 * v + 0.3 + rng.normal() for v in y]
    n = len(y)
    my, mp = sum(y) / n, sum(pred) / n
    sy = sum((v - my) ** 2 for v in y) / n
    sp = sum((v - mp) ** 2 for v in pred) / n
    both = sum((a - my) * (b - mp) for a, b in zip(y, pred, strict=True)) / n
    expected = 2 * both / (sy + sp + (my - mp) ** 2)
    assert metrics.ccc(np.array(y), np.array(pred)) == pytest.approx(expected, rel=1e-12)
    # Lin's C_b: at most the correlation, less by a shift of place or scale.
    assert abs(expected) < abs(stats.pearsonr(y, pred)[0])


def sims_class(v: float, k: int) -> int:
    """CH-SIMS's classes, as a chain of conditions."""
    tenth, seven = np.float32(0.1), np.float32(0.7)
    if k == 2:
        return 0 if v <= 0 else 1
    if k == 3:
        return 0 if v <= -tenth else 1 if v <= tenth else 2
    if v <= -seven:
        return 0
    if v <= -tenth:
        return 1
    if v <= tenth:
        return 2
    if v <= seven:
        return 3
    return 4


@pytest.mark.parametrize("k", [2, 3, 5])
def test_sims_bins_by_brute_force(k):
    rng = np.random.default_rng(0)
    grid = np.arange(-12, 13) / 10
    beside = [np.nextafter(np.float32(v), np.float32(s)) for v in grid for s in (-9, 9)]
    values = np.concatenate([grid, [-0.0], beside, rng.uniform(-1.5, 1.5, 200)]).astype(np.float32)
    expected = [sims_class(v, k) for v in values]
    assert metrics.sims_bins(values, k).tolist() == expected
    assert set(expected) == set(range(k))


def cmu_class(a: float) -> int:
    """The seven classes in the README of CMU-MOSEI, as a chain of conditions."""
    if a < -2:
        return -3
    if -2 <= a < -1:
        return -2
    if -1 <= a < 0:
        return -1
    if a == 0:
        return 0
    if 0 < a <= 1:
        return 1
    if 1 < a <= 2:
        return 2
    return 3


def test_cmu_rounding_by_brute_force():
    rng = np.random.default_rng(0)
    edges = np.arange(-4, 5.0)
    beside = [np.nextafter(v, s) for v in edges for s in (-9, 9)]
    values = np.concatenate([edges, [-0.0], beside, rng.uniform(-4, 4, 200)])
    assert metrics.cmu_rounded(values).tolist() == [cmu_class(v) for v in values]


@pytest.mark.parametrize("seed", range(5))
def test_weighted_accuracy_is_balanced_accuracy(seed):
    rng = np.random.default_rng(seed)
    y, said = rng.random(60) < 0.2, rng.random(60) < 0.5
    expected = sk.balanced_accuracy_score(y, said)
    assert metrics.weighted_accuracy(y, said) == pytest.approx(expected, rel=1e-12)
    assert metrics.mult_weighted_accuracy(y - 0.5, said - 0.5) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 4])
def test_f1_has_the_support_of_its_first_argument(seed, k):
    rng = np.random.default_rng(seed)
    y, said = rng.integers(0, k, 40), rng.choice(k, 40, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    if seed == 4:
        y[y == 1] = 0  # a class without members
    matrix = metrics.confusion(y, said, k)
    true = metrics.weighted_f1(matrix)
    pred = metrics.weighted_f1(matrix, "pred")
    assert true == pytest.approx(sk.f1_score(y, said, average="weighted", zero_division=0))
    assert pred == pytest.approx(sk.f1_score(said, y, average="weighted", zero_division=0))
    assert metrics.weighted_f1(matrix.T) == pytest.approx(pred)
    assert true != pytest.approx(pred)


# Names and values: each name recomputed from its definition, with other libraries.


class Named(NamedTuple):
    """A task, the arrays a definition is about, and {metric: its definition}."""

    label: Label
    prepare: Callable
    table: dict[str, Callable]


def f1(y, said) -> float:
    return sk.f1_score(y, said, average="weighted", zero_division=0)


def rows(y, pred):
    return y, pred[:, 0]


def whole(v, limit) -> list[int]:
    return [round(min(limit, max(-limit, x))) for x in v.tolist()]  # Python: half to even too


ERRORS = {
    "mae": sk.mean_absolute_error,
    "pearson": lambda y, p: stats.pearsonr(y, p)[0],
    "ccc": lambda y, p: (
        2 * np.cov(y, p, ddof=0)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2)
    ),
}


def sims_accuracy(k: int) -> Callable:
    return lambda y, p: sk.accuracy_score(
        [sims_class(np.float32(v), k) for v in y], [sims_class(np.float32(v), k) for v in p]
    )


def polar(y, pred):
    """Labels of POLARITY as -1, 0, 1, and the sign and the class that were said."""
    sign = np.array([0, -1, 1])
    return sign[y], np.where(pred[:, 2] > pred[:, 1], 1, -1), sign[pred.argmax(1)]


def of_label(k: int, function: Callable) -> Callable:
    return lambda y, said: function(y[:, k], said[:, k])


MULTILABEL = {
    "accuracy": sk.accuracy_score,
    "weighted_f1": f1,
    "weighted_accuracy": sk.balanced_accuracy_score,
}

TABLES = [
    Named(
        MOSI,
        rows,
        ERRORS
        | {
            "acc2_has0": lambda y, p: sk.accuracy_score(y >= 0, p >= 0),
            "f1_has0": lambda y, p: f1(y >= 0, p >= 0),
            "acc2_non0": lambda y, p: sk.accuracy_score(y[y != 0] > 0, p[y != 0] > 0),
            "f1_non0": lambda y, p: f1(y[y != 0] > 0, p[y != 0] > 0),
            "acc3": lambda y, p: sk.accuracy_score(whole(y, 1), whole(p, 1)),
            "acc5": lambda y, p: sk.accuracy_score(whole(y, 2), whole(p, 2)),
            "acc7": lambda y, p: sk.accuracy_score(whole(y, 3), whole(p, 3)),
            "acc7_cmu": lambda y, p: sk.accuracy_score(
                [cmu_class(v) for v in y], [cmu_class(v) for v in p]
            ),
        },
    ),
    Named(
        SIMS,
        rows,
        ERRORS
        | {
            "acc2": lambda y, p: sk.accuracy_score(y > 0, p > 0),
            "f1": lambda y, p: f1(y > 0, p > 0),
            "acc3": sims_accuracy(3),
            "acc5": sims_accuracy(5),
        },
    ),
    Named(
        STARS,
        rows,
        ERRORS
        | {
            "accuracy_rounded": lambda y, p: sk.accuracy_score(y.round(), p.round().clip(1, 5)),
            "weighted_f1_rounded": lambda y, p: f1(y.round(), p.round().clip(1, 5)),
        },
    ),
    Named(
        FOUR,
        lambda y, pred: (y, pred.argmax(1)),
        {
            "accuracy": sk.accuracy_score,
            "unweighted_recall": lambda y, s: sk.recall_score(y, s, average="macro"),
            "weighted_f1": f1,
        },
    ),
    Named(
        POLARITY,
        polar,
        {
            "accuracy": lambda y, _, s: sk.accuracy_score(y, s),
            "unweighted_recall": lambda y, _, s: sk.recall_score(y, s, average="macro"),
            "weighted_f1": lambda y, _, s: f1(y, s),
            "acc2_has0": lambda y, s, _: sk.accuracy_score(y > 0, s > 0),
            "f1_has0": lambda y, s, _: f1(y > 0, s > 0),
            "acc2_non0": lambda y, s, _: sk.accuracy_score(y[y != 0], s[y != 0]),
            "f1_non0": lambda y, s, _: f1(y[y != 0], s[y != 0]),
        },
    ),
    Named(
        EMOTIONS,
        lambda y, pred: (y > 0, pred > 0),
        {
            name: lambda y, s, f=function: np.mean([f(*c) for c in zip(y.T, s.T, strict=True)])
            for name, function in MULTILABEL.items()
        }
        | {"subset_accuracy": sk.accuracy_score}
        | {
            f"{name}:{emotion}": of_label(k, function)
            for k, emotion in enumerate(EMOTIONS.classes)
            for name, function in MULTILABEL.items()
        },
    ),
]
tables = pytest.mark.parametrize("named", TABLES, ids=lambda n: n.label.name)


def disagree(named: Named, values: dict[str, float], y: np.ndarray, pred: np.ndarray) -> list[str]:
    """Names whose value is not what the name says."""
    arrays = named.prepare(y, pred)
    assert set(values) == set(named.table)
    return [n for n, v in values.items() if v != pytest.approx(named.table[n](*arrays), rel=1e-9)]


@tables
@pytest.mark.parametrize("seed", range(3))
def test_each_name_is_what_is_computed(named, seed):
    y, pred = sample(named.label, seed)
    assert disagree(named, metrics.scores(named.label, y, pred).values, y, pred) == []


@tables
def test_two_swapped_names_are_noticed(named):
    """The test above would fail, for every pair of names."""
    y, pred = sample(named.label, seed=2, n=301)
    values = metrics.scores(named.label, y, pred).values
    pairs = list(itertools.combinations(values, 2))
    equal = [p for p in pairs if values[p[0]] == pytest.approx(values[p[1]], rel=1e-9)]
    assert not equal
    for a, b in pairs:
        swapped = values | {a: values[b], b: values[a]}
        assert disagree(named, swapped, y, pred) == [n for n in values if n in (a, b)]
