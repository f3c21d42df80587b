"""Statistics of a comparison: paired t-test, Holm's correction, bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def paired_t(a: np.ndarray, b: np.ndarray) -> tuple[float, float, str]:
    """Two-sided paired t-test (Student).

    Args:
        a: (S,) scores of one system, one per seed.
        b: (S,) scores of the other, of the same seeds.

    Returns:
        Mean difference a - b; p; and where p is NaN, the reason.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    gap = a - b
    mean = float(gap.mean()) if len(gap) else float("nan")
    if len(gap) < 2:
        return mean, float("nan"), "fewer than two pairs"
    if not np.isfinite(gap).all():
        return mean, float("nan"), "a score is undefined"
    # Rounding leaves equal differences unequal in their last digits; a t from these is noise.
    if np.ptp(gap) <= 1e-12 * max(np.abs(a).max(), np.abs(b).max()):
        return mean, float("nan"), "all differences are equal"
    from scipy.stats import ttest_rel

    return mean, float(ttest_rel(a, b).pvalue), ""


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests by Holm's step-down procedure.

    Holm, "A simple sequentially rejective multiple test procedure" (1979): the k-th smallest of m
    is multiplied by m - k + 1, and none may be below a smaller one's.

    Args:
        p: p-values; a NaN is no test: it stays and is not counted.

    Returns:
        The adjusted values, in the order given, at most 1.
    """
    adjusted = [float("nan")] * len(p)
    tests = sorted((i for i in range(len(p)) if not np.isnan(p[i])), key=lambda i: p[i])
    highest = 0.0
    for rank, i in enumerate(tests):
        highest = max(highest, min(1.0, (len(tests) - rank) * float(p[i])))
        adjusted[i] = highest
    return adjusted


def bootstrap(
    score: Callable[[np.ndarray], dict[str, float]],
    groups: Sequence[str],
    times: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Scores of samples drawn with replacement from the clips (Efron 1979).

    Args:
        score: From (n,) clip indices to {metric: value}. Scoring two systems in one call makes
            the bootstrap a paired one.
        groups: (N,) the group of each clip. Whole groups are drawn: name the speakers to keep
            the clips of one together, or the clips themselves to draw single ones.
        times: Number of samples.
        seed: Of the random numbers.

    Returns:
        {metric: (times,) values}.
    """
    rng = np.random.default_rng(seed)
    names, of = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(of, minlength=len(names)))[:-1])
    draws: dict[str, list[float]] = {}
    for _ in range(times):
        picked = rng.integers(0, len(names), len(names))
        for name, value in score(np.concatenate([members[g] for g in picked])).items():
            draws.setdefault(name, []).append(value)
    return {name: np.array(values, np.float64) for name, values in draws.items()}


def _enough(draws: np.ndarray) -> np.ndarray:
    """The finite draws; none where they are fewer than half."""
    finite = draws[np.isfinite(draws)]
    return finite if 2 * len(finite) >= len(draws) else finite[:0]


def interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap draws.

    Args:
        draws: (times,) values; NaN draws are left out.
        level: Share of the draws that it holds.

    Returns:
        Its ends; NaN where fewer than half of the draws are finite.
    """
    finite = _enough(np.asarray(draws, np.float64))
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p(draws: np.ndarray) -> float:
    """Two-sided p of a difference: twice the smaller share of the draws on one side of zero.

    Shares are (k + 1) / (n + 1): a finite number of draws cannot show that p is 0.

    Args:
        draws: (times,) differences; NaN draws are left out.

    Returns:
        p, at most 1; NaN where fewer than half of the draws are finite.
    """
    finite = _enough(np.asarray(draws, np.float64))
    if not len(finite):
        return float("nan")
    fewer = min((finite <= 0).sum(), (finite >= 0).sum())
    return min(1.0, 2 * (int(fewer) + 1) / (len(finite) + 1))


def spread(each: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float | None]]:
    """Mean and sample standard deviation (divisor n - 1; None of one) of every metric.

    Args:
        each: One dictionary per seed; None counts as NaN (it is what JSON has in its place).
    """
    mean, std = {}, {}
    for name in each[0]:
        values = np.array([values[name] for values in each], np.float64)
        mean[name] = float(values.mean())
        std[name] = float(values.std(ddof=1)) if len(values) > 1 else None
    return mean, std
