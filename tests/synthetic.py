"""Feature files with known content, for tests of training, evaluation and alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mertool.store import Stream, Writer
from mertool.types import Clip, Label, Rows

LABELS = [
    Label("score", "regression", (), (-3.0, 3.0)),
    Label("emotion", "classification", ("calm", "glad", "sad")),
    Label("traits", "multilabel", ("high", "low")),
]

# Of the tasks, one in the default tests: what is tested takes seconds for each.
ONE_TASK = [
    "regression",
    *(pytest.param(t, marks=pytest.mark.slow) for t in ("classification", "multilabel")),
]


def write(
    path: Path,
    clips: int = 60,
    seed: int = 0,
    splits: bool = True,
    speakers: int = 10,
    shift: float = 1.0,
    labels: list[Label] | None = None,
    aligned: bool = False,
    attrs: dict | None = None,
) -> Path:
    """A file whose labels follow one hidden number that column 0 of both streams carries.

    Speakers 0..6 train, 7 valid, 8 and 9 test.
    """
    rng = np.random.default_rng(seed)
    columns = {"text": tuple(f"t{i}" for i in range(6)), "audio": ("a", "b", "c")}
    streams = {
        name: Stream(names, {"extractor": "synthetic", "config": "{}"}, name == "text")
        for name, names in columns.items()
    }
    alignment = {"alignment": "word"} if aligned else {}
    with Writer(path, streams, labels or LABELS, {**alignment, **(attrs or {})}) as writer:
        for i in range(clips):
            hidden = float(np.clip(rng.normal(), -1.5, 1.5))
            steps = rng.integers(3, 8)
            rows = {}
            for name in columns:
                count = steps if aligned or name == "text" else int(rng.integers(10, 20))
                values = rng.normal(size=(count, len(columns[name]))).astype(np.float32)
                values[:, 0] += shift * hidden
                times = np.linspace(0, 1, count + 1)
                rows[name] = Rows(values, np.stack([times[:-1], times[1:]], 1))
            count = len(rows["text"])
            rows["text"].word = np.arange(count, dtype=np.int32)
            rows["text"].span = np.stack([np.arange(count)] * 2, 1).astype(np.int32)
            speaker = i % speakers
            split = "train" if speaker < 7 else "valid" if speaker == 7 else "test"
            known = {
                "score": 2 * hidden,
                "emotion": int(np.digitize(hidden, [-0.5, 0.5])),
                "traits": [int(hidden > 0.3), int(hidden < -0.3)],
            }
            writer.add(
                Clip(
                    f"clip{i}",
                    speaker=f"s{speaker}",
                    split=split if splits else "",
                    labels={x.name: known[x.name] for x in labels or LABELS},
                    end=1.0,
                ),
                rows,
            )
    return path
