"""Pooling against plain loops over every row, interval and column."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mertool.align.pool import by_segments, pool, pool_text
from mertool.errors import DataError
from mertool.store import Stream
from mertool.types import Clip, Rows, Word

POOLS = ("mean", "max", "last")


def slow_pool(rows: Rows, intervals, how: str, valid_column: int | None) -> np.ndarray:
    """The definition, one number at a time."""
    out = []
    for a, b in intervals:
        hits = []
        for (s, e), v in zip(rows.times, rows.values.astype(float), strict=True):
            overlap = min(e, b) - max(s, a)
            if overlap > 1e-6:
                hits.append((s, e, overlap, v))
        if not hits:
            centres = [(abs((s + e) / 2 - (a + b) / 2), s, e) for s, e in rows.times]
            nearest = min(range(len(centres)), key=lambda i: centres[i])
            out.append(rows.values[nearest].astype(float))
        elif how == "max":
            out.append([max(h[3][d] for h in hits) for d in range(rows.values.shape[1])])
        elif how == "last":
            out.append(max(hits, key=lambda h: (h[0], h[1]))[3])
        else:
            row = []
            for d in range(rows.values.shape[1]):
                weights = [h[2] for h in hits]
                if valid_column is not None and d != valid_column:
                    seen = [w * h[3][valid_column] for w, h in zip(weights, hits, strict=True)]
                    weights = seen if sum(seen) > 0 else weights
                total = sum(w * h[3][d] for w, h in zip(weights, hits, strict=True))
                row.append(total / sum(weights))
            out.append(row)
    return np.array(out, float)


def random_cells(rng, kind: str) -> np.ndarray:
    n = int(rng.integers(1, 40))
    if kind == "regular":
        return np.stack([np.arange(n) * 0.01, np.arange(1, n + 1) * 0.01], 1)
    if kind == "video":
        edges = np.cumsum(rng.uniform(0.01, 0.08, n + 1))
        return np.stack([edges[:-1], edges[1:]], 1)
    starts = rng.uniform(0, 3, n)  # gaps, nested cells, any order
    return np.stack([starts, starts + rng.uniform(0.01, 1, n)], 1)


@pytest.mark.parametrize("how", POOLS)
@pytest.mark.parametrize("kind", ["regular", "video", "any"])
@pytest.mark.parametrize("valid_column", [None, 2])
def test_pool_is_what_a_plain_loop_gives(how, kind, valid_column):
    rng = np.random.default_rng(len(how + kind) + 100 * bool(valid_column))
    for _ in range(60):
        times = random_cells(rng, kind)
        values = rng.normal(size=(len(times), 4)).astype(np.float32)
        values[:, 2] = rng.choice([0, 0, 0.5, 1], len(times))
        starts = np.sort(rng.uniform(-0.5, 3.5, 12))
        intervals = np.stack([starts, starts + rng.choice([0, 0.02, 0.3, 2], 12)], 1)
        rows = Rows(values, times)
        got = pool(rows, intervals, how, valid_column)
        assert got.dtype == np.float32 and got.shape == (12, 4)
        expected = slow_pool(rows, intervals, how, valid_column)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", POOLS)
def test_rows_and_words_that_tie(how):
    """Times on a coarse grid: equal starts, equal centres, words midway between two rows."""
    rng = np.random.default_rng(7)
    for _ in range(200):
        n = int(rng.integers(1, 8))
        starts = rng.integers(0, 12, n) / 2
        times = np.stack([starts, starts + rng.integers(1, 5, n) / 2], 1)
        # Of rows with one cell it does not matter which comes first: they hold the same.
        values = (times @ [[1.0, 7.0], [10.0, -3.0]]).astype(np.float32)
        starts = rng.integers(-4, 16, 9) / 2
        intervals = np.stack([starts, starts + rng.integers(0, 3, 9) / 4], 1)
        rows = Rows(values, times)
        expected = slow_pool(rows, intervals, how, None)
        np.testing.assert_allclose(pool(rows, intervals, how), expected, rtol=1e-6)


@pytest.mark.parametrize("how", POOLS)
def test_the_order_of_the_rows_does_not_matter(how):
    rng = np.random.default_rng(3)
    times = random_cells(rng, "any")
    rows = Rows(rng.normal(size=(len(times), 3)).astype(np.float32), times)
    order = np.argsort(times[:, 0])
    sorted_rows = Rows(rows.values[order], times[order])
    intervals = np.sort(rng.uniform(-0.5, 3.5, (20, 2)), axis=1)
    np.testing.assert_array_equal(pool(rows, intervals, how), pool(sorted_rows, intervals, how))


def test_memory_of_a_long_clip_grows_with_rows_and_words_not_their_product():
    n = 100_000
    starts = np.arange(n) / 100
    rows = Rows(np.ones((n, 1), np.float32), np.stack([starts, starts + 0.01], 1))
    late = 2000 + np.arange(1000.0)  # words behind the last row: all take the nearest
    tracemalloc.start()
    pooled = pool(rows, np.stack([late, late + 0.5], 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pooled.tolist() == [[1.0]] * 1000
    assert peak < 50e6  # a number for each row and word would take 800 MB


def test_a_mean_by_hand():
    rows = Rows(
        np.array([[1.0], [4.0], [10.0]], np.float32), np.array([[0, 1], [1, 2], [2, 3]], float)
    )
    intervals = np.array([[0.5, 1.25], [2, 3], [5, 6]], float)
    assert pool(rows, intervals).tolist() == [[2.0], [10.0], [10.0]]  # (0.5*1 + 0.25*4) / 0.75
    assert pool(rows, intervals, "max").tolist() == [[4.0], [10.0], [10.0]]


def test_unseen_faces_do_not_count():
    rows = Rows(
        np.array([[7, 1], [0, 0], [0, 0], [9, 1]], np.float32),
        np.array([[0, 1], [1, 2], [2, 3], [3, 4]], float),
    )
    got = pool(rows, np.array([[0, 2], [1, 3], [0, 4]], float), "mean", 1)
    assert got.tolist() == [[7.0, 0.5], [0.0, 0.0], [8.0, 0.5]]


def test_a_bound_off_by_rounding_is_no_overlap():
    rows = Rows(np.array([[1], [5]], np.float32), np.array([[0.0, 0.3], [0.3, 0.6]]))
    interval = np.array([[0.0, 0.1 + 0.2]])  # 0.30000000000000004
    assert interval[0, 1] > 0.3
    for how in POOLS:
        assert pool(rows, interval, how).tolist() == [[1.0]]


def test_an_outlier_does_not_spoil_other_intervals():
    n = 5000
    values = np.full((n, 1), 0.1, np.float32)
    values[0] = 1e12
    rows = Rows(values, np.stack([np.arange(n), np.arange(1, n + 1)], 1) / 100)
    assert pool(rows, np.array([[20.0, 30.0]]))[0, 0] == np.float32(0.1)


@pytest.mark.parametrize("how", POOLS)
def test_text_rows_pool_over_their_word(how):
    rng = np.random.default_rng(4)
    for _ in range(50):
        t, n_words = int(rng.integers(0, 20)), int(rng.integers(1, 8))
        word = rng.integers(-1, n_words, t).astype(np.int32)
        values = rng.normal(size=(t, 3)).astype(np.float32)
        rows = Rows(values, np.zeros((t, 2)), word, np.zeros((t, 2), np.int32))
        expected = np.zeros((n_words, 3))
        for w in range(n_words):
            mine = [values[i].astype(float) for i in range(t) if word[i] == w]
            if mine:
                expected[w] = {"mean": np.mean(mine, 0), "max": np.max(mine, 0), "last": mine[-1]}[
                    how
                ]
        np.testing.assert_allclose(pool_text(rows, n_words, how), expected, atol=1e-6)


def test_text_rows_of_another_transcript_are_refused():
    rows = Rows(
        np.ones((1, 1), np.float32),
        np.zeros((1, 2)),
        np.array([3], np.int32),
        np.zeros((1, 2), np.int32),
    )
    with pytest.raises(DataError, match="word 3"):
        pool_text(rows, 2)


def test_segments_of_text_by_hand():
    # Words: a 0-1 s, b 1-2 s, c without rows 2-3 s; nothing is said from 3 to 4 s.
    clip = Clip("x", text="a b c", end=4.0)
    words = [Word("a", 0, 1, 1), Word("b", 1, 2, 1), Word("c", 2, 3, 1)]
    clip.streams = {
        "text": Rows(
            np.array([[1.0], [3.0], [10.0]], np.float32),
            np.zeros((3, 2)),
            np.array([0, 0, 1], np.int32),
            np.array([[0, 1], [0, 1], [2, 3]], np.int32),
        )
    }
    streams = {"text": Stream(("v",), {}, True)}

    def segments(n, how):
        return by_segments(clip, words, streams, n, how)["text"]

    three = segments(3, "mean")  # 0-4/3 s: a for 1 s, b for 1/3 s
    np.testing.assert_allclose(three.values[:, 0], [(2 * 1 + 10 / 3) / (4 / 3), 10, 0])
    assert three.word.tolist() == [0, 1, -1]
    assert three.span.tolist() == [[0, 1], [2, 3], [0, 0]]
    np.testing.assert_allclose(three.times, [[0, 4 / 3], [4 / 3, 8 / 3], [8 / 3, 4]])
    assert segments(3, "max").values[:, 0].tolist() == [10, 10, 0]
    assert segments(1, "last").values[:, 0].tolist() == [10]
    four = segments(4, "mean")
    assert four.values[:, 0].tolist() == [2, 10, 0, 0]
    assert four.word.tolist() == [0, 1, -1, -1]
