"""Bounded minimisation of many functions of one variable at once.

R. P. Brent, "Algorithms for minimization without derivatives", Prentice-Hall, 1973, chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GOLDEN = (3 - np.sqrt(5)) / 2
PRECISION = np.sqrt(np.finfo(float).eps)  # relative, of the points


def minimise(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    count: int,
    low: float,
    high: float,
    tolerance: float,
    evaluations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Local minima of many functions of one variable, each searched for within an interval.

    Brent (1973): steps of golden section, or to the vertex of the parabola through the three best
    points. Every function gets the steps it would get alone, those of MATLAB's fminbnd and of
    scipy.optimize.fminbound.

    Args:
        function: Values (A,) of some of the functions at the points (A,), given their indices (A,).
        count: Number of functions F.
        low: Lower end of the interval.
        high: Its upper end.
        tolerance: Absolute accuracy of the points.
        evaluations: At most, of each function.

    Returns:
        (F,) points, (F,) values there.
    """
    index = np.arange(count)
    point, value = np.empty(count), np.empty(count)
    a, b = np.full(count, low), np.full(count, high)
    best = a + GOLDEN * (b - a)
    second, third = best, best
    f_best = function(best, index)
    f_second, f_third = f_best, f_best
    step, earlier = np.zeros(count), np.zeros(count)  # the last step, and the one before it
    for evaluation in range(1, evaluations + 1):
        middle = (a + b) / 2
        least = PRECISION * np.abs(best) + tolerance / 3
        done = np.abs(best - middle) <= 2 * least - (b - a) / 2
        if evaluation == evaluations:
            done[:] = True
        if done.any():
            point[index[done]], value[index[done]] = best[done], f_best[done]
            live = ~done
            if not live.any():
                break
            index, middle, least = index[live], middle[live], least[live]
            a, b, step, earlier = a[live], b[live], step[live], earlier[live]
            best, second, third = best[live], second[live], third[live]
            f_best, f_second, f_third = f_best[live], f_second[live], f_third[live]

        # The vertex of the parabola lies p / q from the best point.
        r = (best - second) * (f_best - f_third)
        q = (best - third) * (f_best - f_second)
        p = (best - third) * q - (best - second) * r
        q = 2 * (q - r)
        p, q = np.where(q > 0, -p, p), np.abs(q)
        parabola = (np.abs(earlier) > least) & (np.abs(p) < np.abs(0.5 * q * earlier))
        parabola &= (p > q * (a - best)) & (p < q * (b - best))
        vertex = p / np.where(parabola, q, 1.0)
        crowded = (best + vertex - a < 2 * least) | (b - (best + vertex) < 2 * least)
        vertex = np.where(crowded, np.where(middle >= best, least, -least), vertex)
        longer = np.where(best >= middle, a - best, b - best)
        earlier = np.where(parabola, step, longer)
        step = np.where(parabola, vertex, GOLDEN * longer)
        new = best + np.where(step >= 0, 1, -1) * np.maximum(np.abs(step), least)
        f_new = function(new, index)

        better, right = f_new <= f_best, new >= best
        bound = np.where(better, best, new)  # the worse of the two points bounds the rest
        a, b = np.where(better == right, bound, a), np.where(better == right, b, bound)
        runner_up = ~better & ((f_new <= f_second) | (second == best))
        last = (f_new <= f_third) | (third == best) | (third == second)
        last &= ~better & ~runner_up
        moved = better | runner_up
        third = np.where(moved, second, np.where(last, new, third))
        f_third = np.where(moved, f_second, np.where(last, f_new, f_third))
        second = np.where(better, best, np.where(runner_up, new, second))
        f_second = np.where(better, f_best, np.where(runner_up, f_new, f_second))
        best, f_best = np.where(better, new, best), np.where(better, f_new, f_best)
    return point, value
