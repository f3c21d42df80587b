"""A feature file whose label needs two modalities together: can a fusion do more than add?

Each clip has a hidden sign in text and another in audio; its label is their product. Text alone and
audio alone say nothing about it: the four pairs of signs occur equally often (per speaker, where
`clips` is a multiple of 40), so that within each sign of one stream the label is +1 as often as -1.
No sum of one function per stream fits it either. Vision is noise.

    path = interaction.write("x.h5")
    mertool.train(path, "run", plugin=NAME)     # the only label is "score"
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mertool.store import Stream, Writer
from mertool.types import Clip, Label, Rows

WIDTHS = {"text": 6, "audio": 5, "vision": 4}
CARRIERS = ("text", "audio")
SPEAKERS = 10


def write(
    path: Path, clips: int = 400, seed: int = 0, aligned: bool = True, noise: float = 0.5
) -> Path:
    """Write the file; the label "score" is +1 or -1.

    Args:
        path: The file to write.
        clips: N; a multiple of 40 balances the signs within every speaker.
        seed: Of the noise, the lengths and the order.
        aligned: True = all streams of a clip have the same steps (3 to 7, alignment "word");
            False = text 3 to 7, audio 8 to 14, vision 5 to 10.
        noise: Standard deviation of the noise on the sign, per step. Other columns have 1.

    Returns:
        `path`. Column 0 of text and of audio is the hidden sign plus noise at every step. Speakers
        0 to 6 are train, 7 is valid, 8 and 9 are test.
    """
    rng = np.random.default_rng(seed)
    streams = {
        m: Stream(
            tuple(f"{m[0]}{i}" for i in range(D)),
            {"extractor": "synthetic", "config": "{}"},
            m == "text",
        )
        for m, D in WIDTHS.items()
    }
    longest = {"text": (3, 7), "audio": (8, 14), "vision": (5, 10)}
    label = Label("score", "regression", (), (-1.0, 1.0))
    attrs = {"alignment": "word"} if aligned else {}
    with Writer(path, streams, [label], attrs) as writer:
        for i in rng.permutation(clips):
            speaker, pair = i % SPEAKERS, i // SPEAKERS % 4
            sign = {"text": 2 * (pair % 2) - 1, "audio": 2 * (pair // 2) - 1}
            rows, shared = {}, int(rng.integers(3, 8))
            for m, D in WIDTHS.items():
                low, high = longest[m]
                T = shared if aligned else int(rng.integers(low, high + 1))
                values = rng.normal(size=(T, D))
                if m in CARRIERS:
                    values[:, 0] = sign[m] + noise * values[:, 0]
                edges = np.linspace(0, 1, T + 1)
                rows[m] = Rows(values.astype(np.float32), np.stack([edges[:-1], edges[1:]], 1))
            steps = np.arange(len(rows["text"]), dtype=np.int32)
            rows["text"].word = steps
            rows["text"].span = np.stack([steps, steps + 1], 1)
            split = "train" if speaker < 7 else "valid" if speaker == 7 else "test"
            score = float(sign["text"] * sign["audio"])
            writer.add(
                Clip(
                    f"clip{i}",
                    speaker=f"s{speaker}",
                    split=split,
                    labels={"score": score},
                    end=1.0,
                ),
                rows,
            )
    return path
