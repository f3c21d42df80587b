from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from mertool import stats


@pytest.mark.parametrize("seed", range(5))
def test_paired_t_against_scipy_and_the_formula(seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=5 + seed)
    b = a + rng.normal(0.3, 0.5, size=len(a))
    mean, p, reason = stats.paired_t(a, b)
    gap = a - b
    statistic = gap.mean() / (gap.std(ddof=1) / np.sqrt(len(gap)))
    assert reason == ""
    assert mean == pytest.approx(gap.mean())
    assert p == pytest.approx(ttest_rel(a, b).pvalue)
    assert p == pytest.approx(2 * student.sf(abs(statistic), len(gap) - 1))
    back = stats.paired_t(b, a)
    assert back[:2] == (pytest.approx(-mean), pytest.approx(p))


def test_paired_t_by_hand():
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3) with 2 degrees of freedom, p = 1 - t / sqrt(2 + t^2)
    mean, p, _ = stats.paired_t(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert p == pytest.approx(1 - np.sqrt(12 / 14))


@pytest.mark.parametrize(
    ("a", "b", "mean", "reason"),
    [
        ([], [], np.nan, "fewer than two"),
        ([0.5], [0.25], 0.25, "fewer than two"),
        ([1.0, 2.0], [1.0, 2.0], 0.0, "equal"),
        ([0.8, 0.85, 0.9], [0.75, 0.8, 0.85], 0.05, "equal"),  # but for rounding
        ([1.0, np.nan], [1.0, 2.0], np.nan, "undefined"),
    ],
)
def test_paired_t_says_why_it_has_no_p(a, b, mean, reason):
    got, p, why = stats.paired_t(np.array(a), np.array(b))
    assert got == pytest.approx(mean, nan_ok=True)
    assert np.isnan(p)
    assert reason in why


def by_definition(p):
    """Adjusted p: the smallest level at which Holm's stepwise procedure rejects the hypothesis."""

    def rejected(level):
        names = set()
        for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] > level / (len(p) - k) + 1e-15:
                break
            names.add(i)
        return names

    levels = sorted({min(1.0, x * k) for x in p for k in range(1, len(p) + 1)} | {1.0})
    return [next((q for q in levels if i in rejected(q)), 1.0) for i in range(len(p))]


def test_holm_textbook():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("seed", range(20))
def test_holm_against_its_definition(seed):
    rng = np.random.default_rng(seed)
    p = list(rng.uniform(size=rng.integers(1, 7)) ** 3)
    adjusted = stats.holm(p)
    assert adjusted == pytest.approx(by_definition(p))
    order = np.argsort(p)
    assert all(adjusted[i] <= adjusted[j] for i, j in pairwise(order))
    assert all(x <= y <= 1 for x, y in zip(p, adjusted, strict=True))


def test_holm_keeps_nan_and_does_not_count_it():
    assert stats.holm([0.01, float("nan"), 0.04]) == pytest.approx(
        [0.02, float("nan"), 0.04], nan_ok=True
    )
    assert stats.holm([]) == []
    assert stats.holm([0.7, 0.8]) == [1.0, 1.0]


def test_bootstrap_of_a_mean_has_the_analytic_standard_error():
    values = np.random.default_rng(3).normal(5, 2, size=200)
    names = [f"c{i}" for i in range(200)]
    draws = stats.bootstrap(lambda i: {"mean": values[i].mean()}, names, times=4000)["mean"]
    error = values.std(ddof=0) / np.sqrt(len(values))
    assert draws.shape == (4000,)
    # The sd of 4000 draws is known within 1 / sqrt(8000) = 1.1%; four of these are allowed.
    assert draws.std(ddof=1) == pytest.approx(error, rel=0.045)
    assert draws.mean() == pytest.approx(values.mean(), abs=4 * error / np.sqrt(4000))
    low, high = stats.interval(draws)
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error
    )


def test_bootstrap_draws_whole_groups():
    groups = ["b", "a", "b", "c", "a", "b"]
    members = {"a": [1, 4], "b": [0, 2, 5], "c": [3]}
    seen, drawn = [], set()

    def score(index):
        seen.append(index)
        return {"n": len(index)}

    draws = stats.bootstrap(score, groups, times=200)["n"]
    for index in seen:
        counts = np.bincount(index, minlength=6)
        times = {name: set(counts[m]) for name, m in members.items()}
        assert all(len(t) == 1 for t in times.values()), "a group was torn apart"
        assert sum(t.pop() for t in times.values()) == 3, "as many groups as there are"
        drawn.add(tuple(counts))
    assert len(drawn) == 10, "3 groups of 3 with replacement can be drawn in 10 ways"
    assert list(draws) == [len(i) for i in seen]


def test_bootstrap_repeats_itself_and_pairs_systems():
    a = np.random.default_rng(0).normal(size=30)
    names = [str(i) for i in range(30)]

    def score(index):
        return {"a": a[index].mean(), "b": a[index].mean() + 1}

    one, two = (stats.bootstrap(score, names, times=20, seed=7) for _ in range(2))
    other = stats.bootstrap(score, names, times=20, seed=8)
    assert np.array_equal(one["a"], two["a"])
    assert not np.array_equal(one["a"], other["a"])
    assert one["b"] - one["a"] == pytest.approx(np.ones(20))  # the same clips for both


def test_interval_of_known_draws():
    draws = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert stats.interval(draws) == pytest.approx((25, 975))
    assert stats.interval(draws, 0.9) == pytest.approx((50, 950))
    half = np.where(np.arange(1001) % 2 == 0, np.arange(1001.0), np.nan)
    assert stats.interval(half) == pytest.approx((25, 975))
    assert stats.bootstrap_p(half) == pytest.approx(2 * 2 / 502)  # 0 is on both sides
    few = np.where(np.arange(1001) % 3 == 0, 1.0, np.nan)
    assert np.isnan(stats.interval(few)).all()
    assert np.isnan(stats.bootstrap_p(few))


def test_bootstrap_p():
    assert stats.bootstrap_p(np.zeros(99)) == 1
    assert stats.bootstrap_p(np.ones(99)) == pytest.approx(2 * 1 / 100)
    assert stats.bootstrap_p(-np.ones(99)) == pytest.approx(2 * 1 / 100)
    assert stats.bootstrap_p(np.array([-1.0] * 10 + [1.0] * 89)) == pytest.approx(2 * 11 / 100)
    assert stats.bootstrap_p(np.array([-1.0, 1.0])) == 1
