"""Pooling: feature rows to one row per word or segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mertool.errors import DataError
from mertool.store import Stream
from mertool.types import Clip, Rows, Word
from mertool.words import split_words

POOLS = ("mean", "max", "last")
MOMENT = 1e-6  # seconds: less is rounding of neighbouring cells' bounds, no overlap


def pool(
    rows: Rows, intervals: np.ndarray, how: str = "mean", valid_column: int | None = None
) -> np.ndarray:
    """Pool timed rows over intervals.

    A row counts in an interval when its cell overlaps it by more than a microsecond. `mean`
    weights rows by the duration of that overlap and, with `valid_column`, by their validity, so
    that frames without a face do not count; the validity column itself is pooled as the share of
    the overlap that is valid. Where nothing in an interval is valid, `mean` is the plain one. An
    interval that no row overlaps takes the row whose centre is nearest to its own (the earlier one
    of two).

    Args:
        rows: T >= 1 timed rows in any order; cells may overlap or leave gaps.
        intervals: (W, 2) start and end in seconds.
        how: "mean", "max" (of each column) or "last" (the overlapping row that starts last).
        valid_column: Column that holds the validity (0 to 1) of each row; used by "mean".

    Returns:
        (W, D) float32.
    """
    values, times = rows.values, rows.times
    if not (np.diff(times[:, 0]) > 0).all():
        order = np.lexsort((times[:, 1], times[:, 0]))
        values, times = values[order], times[order]
    interval, row, weight = _overlaps(times, intervals)
    pooled = np.empty((len(intervals), values.shape[1]), np.float32)

    empty = np.bincount(interval, minlength=len(intervals)) == 0
    if empty.any():
        pooled[empty] = values[_nearest(times, intervals[empty])]

    if not empty.all():
        # Overlaps are in the order of their interval, so each one's are a run of the list.
        first = np.flatnonzero(np.diff(interval, prepend=-1))
        pooled[~empty] = _reduce(values, row, weight, first, how, valid_column)
    return pooled


def _overlaps(
    times: np.ndarray, intervals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every overlap of an interval with a row: (interval, row, duration), each (P,)."""
    # Cells are sorted by start but may be nested: the running maximum of the ends is sorted, so
    # that [low, high) has all rows that overlap, and perhaps some that do not.
    low = np.searchsorted(np.maximum.accumulate(times[:, 1]), intervals[:, 0], "right")
    high = np.searchsorted(times[:, 0], intervals[:, 1], "left")
    count = np.maximum(high - low, 0)
    interval = np.repeat(np.arange(len(intervals)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + low[interval]
    duration = np.minimum(times[row, 1], intervals[interval, 1]) - np.maximum(
        times[row, 0], intervals[interval, 0]
    )
    real = duration > MOMENT
    return interval[real], row[real], duration[real]


def _nearest(times: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """(W,) the row whose centre is nearest to that of each interval, the earlier one of two."""
    centre, wanted = times.mean(axis=1), intervals.mean(axis=1)
    order = np.argsort(centre, kind="stable")
    centre = centre[order]
    after = np.searchsorted(centre, wanted)
    # Of rows with one centre, the first.
    before = np.searchsorted(centre, centre[np.maximum(after - 1, 0)])
    after = np.minimum(after, len(centre) - 1)
    gap = np.abs(centre[before] - wanted) - np.abs(centre[after] - wanted)
    first, last = np.minimum(order[before], order[after]), order[after]
    return np.where(gap == 0, first, np.where(gap < 0, order[before], last))


def _reduce(
    values: np.ndarray,
    row: np.ndarray,
    weight: np.ndarray,
    first: np.ndarray,
    how: str,
    valid_column: int | None,
) -> np.ndarray:
    """Reduce each run of overlaps, the runs beginning at `first`, to one row."""
    if how == "last":
        return values[row[np.append(first[1:], len(row)) - 1]]
    if how == "max":
        return np.maximum.reduceat(values[row], first)
    if how != "mean":
        raise ValueError(f"{how!r} is none of {POOLS}")
    summands = values[row].astype(np.float64)
    if valid_column is None:
        return _mean(summands, weight, first)
    valid = _mean(summands[:, valid_column, None], weight, first)
    # A run without any valid row keeps its plain weights.
    plain = np.repeat(valid[:, 0] <= 0, np.diff(first, append=len(row)))
    seen = np.where(plain, weight, weight * summands[:, valid_column])
    pooled = _mean(summands, seen, first)
    pooled[:, valid_column] = valid[:, 0]
    return pooled


def _mean(values: np.ndarray, weight: np.ndarray, first: np.ndarray) -> np.ndarray:
    total = np.add.reduceat(weight, first)
    return np.add.reduceat(values * weight[:, None], first) / total[:, None]


def pool_text(rows: Rows, n_words: int, how: str = "mean") -> np.ndarray:
    """Pool text rows (sub-word tokens) over the words they belong to.

    Args:
        rows: T text rows; a negative word index belongs to no word.
        n_words: W, the number of words of the transcript.
        how: "mean", "max" or "last" of the rows of each word.

    Returns:
        (W, D) float32; zeros for a word without rows.

    Raises:
        DataError: A row belongs to a word that the transcript does not have.
    """
    if rows.word.max(initial=-1) >= n_words:
        raise DataError(
            f"A text row belongs to word {rows.word.max()}, the transcript has {n_words} words.",
            "",
            "Extract the text again.",
        )
    mine = rows.word >= 0
    word, values = rows.word[mine], rows.values[mine].astype(np.float64)
    pooled = np.zeros((n_words, values.shape[1]))
    if how == "last":
        _, back = np.unique(word[::-1], return_index=True)
        last = len(word) - 1 - back
        pooled[word[last]] = values[last]
    elif how == "max":
        pooled[word] = -np.inf
        np.maximum.at(pooled, word, values)
    elif how == "mean":
        np.add.at(pooled, word, values)
        pooled /= np.maximum(np.bincount(word, minlength=n_words), 1)[:, None]
    else:
        raise ValueError(f"{how!r} is none of {POOLS}")
    return pooled.astype(np.float32)


def by_words(
    clip: Clip, words: Sequence[Word], streams: Mapping[str, Stream], how: str
) -> dict[str, Rows]:
    """One row per word of a clip, in every stream that has rows.

    Args:
        clip: A clip with its streams.
        words: Its W timed words.
        streams: What the streams are.
        how: "mean", "max" or "last".

    Returns:
        {name: W rows}; a stream without rows is left out, as is all when W = 0.
    """
    times, pooled = _times(words), {}
    for name, rows in clip.streams.items():
        if not (words and len(rows)):
            continue
        if streams[name].text:
            index = np.arange(len(words), dtype=np.int32)
            pooled[name] = Rows(pool_text(rows, len(words), how), times, index, _spans(clip))
        else:
            pooled[name] = Rows(pool(rows, times, how, _valid(streams[name])), times)
    return pooled


def by_segments(
    clip: Clip, words: Sequence[Word], streams: Mapping[str, Stream], count: int, how: str
) -> dict[str, Rows]:
    """One row per equal part of a clip, in every stream that has rows.

    Text is pooled over each word first, then the words over each segment as timed rows are. Where
    nothing is said the text row is zeros, its word is -1 and its span (0, 0); elsewhere word and
    span are those of the first word in the segment.

    Args:
        clip: A clip with its streams and its end.
        words: Its W timed words; not needed without text rows.
        streams: What the streams are.
        count: N, the number of segments.
        how: "mean", "max" or "last".

    Returns:
        {name: N rows}; a stream without rows is left out.

    Raises:
        DataError: The clip's length is not known.
    """
    if clip.end is None:
        raise DataError(
            "The clip's length is not known, so it cannot be cut into segments.",
            clip.id,
            "Extract it again, or give its end in the manifest.",
        )
    edges = np.linspace(0.0, clip.end - clip.start, count + 1)
    cells, pooled = np.stack([edges[:-1], edges[1:]], axis=1), {}
    for name, rows in clip.streams.items():
        if not len(rows):
            continue
        if streams[name].text:
            pooled[name] = _text_by_segments(rows, words, cells, _spans(clip), how)
        else:
            pooled[name] = Rows(pool(rows, cells, how, _valid(streams[name])), cells)
    return pooled


def _text_by_segments(
    rows: Rows, words: Sequence[Word], cells: np.ndarray, spans: np.ndarray, how: str
) -> Rows:
    values = np.zeros((len(cells), rows.values.shape[1]), np.float32)
    word, span = np.full(len(cells), -1, np.int32), np.zeros((len(cells), 2), np.int32)
    # A word without rows (of a truncated text) has nothing to give to a mean.
    said = np.unique(rows.word[rows.word >= 0]) if words else []
    if len(said):
        of_words, times = pool_text(rows, len(words), how)[said], _times(words)[said]
        overlap = np.minimum(cells[:, None, 1], times[:, 1]) - np.maximum(
            cells[:, None, 0], times[:, 0]
        )
        spoken = (overlap > MOMENT).any(axis=1)
        values[spoken] = pool(Rows(of_words, times), cells[spoken], how)
        word[spoken] = said[(overlap[spoken] > MOMENT).argmax(axis=1)]
        span[spoken] = spans[word[spoken]]
    return Rows(values, cells, word, span)


def _times(words: Sequence[Word]) -> np.ndarray:
    return np.array([(w.start, w.end) for w in words], np.float64).reshape(-1, 2)


def _spans(clip: Clip) -> np.ndarray:
    return np.array(split_words(clip.text), np.int32).reshape(-1, 2)


def _valid(stream: Stream) -> int | None:
    return stream.columns.index("valid") if "valid" in stream.columns else None
