"""Feature files in which everything about a clip follows from its number, read back with h5py.

What is read is compared with what the number says, not with another file: rows, labels and splits
that were joined wrongly in both files would pass the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mertool.store import Stream, Writer
from mertool.types import Clip, Label, Rows, Word

LABELS = [
    Label("score", "regression", (), (-3.0, 3.0)),
    Label("emotion", "classification", ("calm", "glad", "sad")),
    Label("traits", "multilabel", ("high", "low")),
]
STREAMS = {
    "text": Stream(
        ("t0", "t1"), {"extractor": "a", "config": "{}", "rate": 0.0, "timed": False}, text=True
    ),
    "audio": Stream(
        ("f0", "f1", "f2"),
        {"extractor": "b", "config": '{"hop": 10}', "rate": 100.0, "timed": True},
    ),
}
PARTS = ("train", "valid", "test")
SPLIT_ATTRS = {"by": "speaker", "seed": 3, "sha256": "of all clips"}
_TEXTS = ("id", "path", "source", "speaker", "text", "language", "sha256")


def clip(i: int) -> Clip:
    """The clip of a number; some lack an end or a label."""
    labels = {"score": (i % 61) / 10 - 3, "emotion": i * i % 3, "traits": [i >> 1 & 1, i & 1]}
    for name, lacks in (("score", i % 7 == 3), ("emotion", i % 11 == 5), ("traits", i % 13 == 6)):
        if lacks:
            del labels[name]
    words = [Word(f"w{i}-{k}", i + k / 8, i + (k + 1) / 8, k / 4 - 1) for k in range(i % 4)]
    return Clip(
        f"clip-{i}", f"{i}.mp4", f"/media/{i % 3}", i / 2, None if i % 5 == 0 else i / 2 + 1,
        f"this is {i}", ("en", "de", "zh")[i % 3], f"s{i % 6}", split("default", i), words,
        labels, sha256=f"{i:064x}",
    )  # fmt: skip


def split(name: str, i: int) -> str:
    """The part of a named split that a number is in."""
    if name == "default":
        return ("train", "train", "train", "train", "valid", "test")[i % 6]
    k = int(name.removeprefix("fold-"))
    return (*PARTS, "")[(i + k) % 4]


def rows(i: int) -> dict[str, Rows]:
    """1 to 4 rows of text, 0 to 4 rows of audio."""
    made = {}
    for name, count in (("text", 1 + i % 4), ("audio", i % 5)):
        t, width = np.arange(count), len(STREAMS[name].columns)
        values = 100 * i + 10 * t[:, None] + np.arange(width) + (0.5 if name == "audio" else 0)
        made[name] = Rows(values.astype(np.float32), np.stack([i + t / 4, i + (t + 1) / 4], 1))
    t = np.arange(1 + i % 4)
    made["text"].word = (i + t).astype(np.int32)
    made["text"].span = np.stack([i + 2 * t, i + 3 * t], 1).astype(np.int32)
    return made


def write(
    path: Path,
    numbers: Sequence[int],
    splits: Sequence[str] = ("fold-0", "fold-1"),
    streams: dict[str, Stream] | None = None,
    labels: Sequence[Label] = LABELS,
    failed: Iterable[int] = (),
    attrs: dict[str, Any] | None = None,
    split_attrs: dict[str, Any] | None = None,
) -> Path:
    """A file of these clips, in this order."""
    attrs = {"dataset": "numbers", "command": "first", **(attrs or {})}
    streams = STREAMS if streams is None else streams
    with Writer(path, streams, labels, attrs) as writer:
        for i in numbers:
            writer.add(clip(i), {n: r for n, r in rows(i).items() if n in streams})
        for name in splits:
            values = [split(name, i) for i in numbers]
            writer.split(name, values, split_attrs or SPLIT_ATTRS)
        for i in failed:
            writer.fail(f"clip-{i}", "media", f"broken {i}")
    return path


def expected(
    i: int, splits: Sequence[str] = ("fold-0", "fold-1"), streams: Iterable[str] = STREAMS
) -> dict[str, Any]:
    """What `contents` is to find of a number."""
    c = clip(i)
    found: dict[str, Any] = {key: getattr(c, key) for key in _TEXTS}
    found |= {"start": c.start, "end": c.end, "clips/split": c.split}
    found["words"] = [(w.text, w.start, w.end, w.score) for w in c.words]
    missing = {"score": None, "emotion": -1, "traits": [-1, -1]}
    found |= {f"label {n}": c.labels.get(n, v) for n, v in missing.items()}
    found |= {f"split {n}": split(n, i) for n in ("default", *splits)}
    for name in streams:
        r = rows(i)[name]
        found |= {f"{name} values": r.values.tolist(), f"{name} times": r.times.tolist()}
        if r.word is not None:
            found |= {f"{name} word": r.word.tolist(), f"{name} span": r.span.tolist()}
    return found


def contents(path: Path) -> dict[str, dict[str, Any]]:
    """{id: everything of the clip}, in the order of the file; without mertool's own reader."""
    read: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            text = h5py.check_string_dtype(item.dtype)
            read[name] = (item.asstr() if text else item)[()].tolist()

    with h5py.File(path) as file:
        file.visititems(visit)
        streams = {
            name: sorted(set(g) - {"offsets", "columns"}) for name, g in file["streams"].items()
        }
        labels, splits = list(file["clips/labels"]), list(file["splits"])
    words = list(zip(read["words/word"], read["words/times"], read["words/score"], strict=True))
    found = {}
    for n, clip_id in enumerate(read["clips/id"]):
        one = {key: read[f"clips/{key}"][n] for key in (*_TEXTS, "start", "end")}
        one["end"] = _known(one["end"])
        one["clips/split"] = read["clips/split"][n]
        low, high = read["words/offsets"][n : n + 2]
        one["words"] = [(word, *times, score) for word, times, score in words[low:high]]
        one |= {f"label {k}": _known(read[f"clips/labels/{k}"][n]) for k in labels}
        one |= {f"split {k}": read[f"splits/{k}"][n] for k in splits}
        for name, keys in streams.items():
            low, high = read[f"streams/{name}/offsets"][n : n + 2]
            one |= {f"{name} {key}": read[f"streams/{name}/{key}"][low:high] for key in keys}
        found[clip_id] = one
    return found


def _known(value: Any) -> Any:
    return None if value != value else value  # NaN


def assert_joined(
    path: Path, numbers: Iterable[int], splits: Sequence[str] = ("fold-0", "fold-1")
) -> None:
    """The file has the clips of these numbers, in whatever order, each with what is its own."""
    found = contents(path)
    assert sorted(found) == sorted(f"clip-{i}" for i in numbers)
    for i in numbers:
        assert found[f"clip-{i}"] == expected(i, splits), i
