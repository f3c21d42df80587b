"""The demo command, with a training cut short, and what its clips can teach.

The clips can be learned from: each stream alone predicts the label of a clip left out.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import mertool
from mertool import demo
from mertool.errors import OutputError


def test_the_whole_chain_ran(done):
    out, report, said = done
    with mertool.open(out / "aligned.h5") as file:
        assert len(file) == 24 and file.alignment == "word" and not file.failures
        assert all(file.lengths(s).min() > 0 for s in ("text", "audio", "vision"))
    assert report.scores.clips == 5 and report.scores.split == "test"
    kept = json.loads((out / "run" / "metrics.json").read_text())
    assert kept["splits"]["test"]["mertool"]["mean"]["mae"] == report.scores.mean["mae"]
    assert all((out / name).exists() for name in ("feats.h5", "aligned.h5", "run"))
    assert [line.split()[2] for line in said if line.startswith("$")] == [
        "extract", "align", "train", "evaluate",
    ]  # fmt: skip


def test_what_it_says_can_be_typed(done):
    """The commands it prints exist, with these options."""
    import shlex

    from mertool.cli import cli

    _, _, said = done
    for line in (s for s in said if s.startswith("$ mertool")):
        name, *args = shlex.split(line[len("$ mertool ") :])
        command = cli.get_command(None, name)
        command.make_context(name, args)


def test_nothing_is_overwritten_unasked(done, tmp_path):
    out, _, _ = done
    with pytest.raises(OutputError, match="exists already"):
        demo.run(out)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds no demo"):
        demo.run(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


# --- The clips can be learned from ---


@pytest.fixture(scope="module")
def clips(done: tuple) -> list[mertool.Clip]:
    with mertool.open(done[0] / "feats.h5") as file:
        return list(file)


def labels(clips: list[mertool.Clip]) -> np.ndarray:
    return np.array([clip.labels["sentiment"] for clip in clips])


def pooled(clips: list[mertool.Clip], stream: str) -> np.ndarray:
    """Mean over a clip's rows, and their standard deviation where rows are samples in time."""
    rows = [clip.streams[stream].values for clip in clips]
    mean = np.stack([values.mean(axis=0) for values in rows])
    if stream == "text":
        return mean
    return np.hstack([mean, np.stack([values.std(axis=0) for values in rows])])


def leave_one_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Predictions of y (N, ...) for each clip by a ridge fitted on all others.

    Columns have unit variance, so a penalty equal to their number is one rule for all streams,
    with nothing tuned to any of them. Values beyond three deviations count as three: some of
    COVAREP's columns are 0 in nearly every row, and one clip that differs would outweigh all else.
    """
    guesses = np.empty_like(y)
    near = FunctionTransformer(np.clip, kw_args={"a_min": -3, "a_max": 3})
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        model = make_pipeline(StandardScaler(), near, Ridge(alpha=x.shape[1]))
        guesses[i] = model.fit(x[rest], y[rest]).predict(x[i : i + 1])[0]
    return guesses


def test_a_face_in_every_frame(clips: list[mertool.Clip]) -> None:
    for clip in clips:
        frames = sum(1 for _ in clip.frames())
        assert len(clip.streams["vision"]) == frames, clip.id
        assert (clip.streams["vision"].values[:, -1] == 1).all(), clip.id


@pytest.mark.parametrize("stream", ["text", "audio", "vision"])
def test_each_stream_carries_the_label(clips: list[mertool.Clip], stream: str) -> None:
    x, y = pooled(clips, stream), labels(clips)
    rng = np.random.default_rng(0)
    shuffled = np.column_stack([y, *(rng.permutation(y) for _ in range(999))])
    guesses = leave_one_out(x, shuffled)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(guesses.T, shuffled.T, strict=True)]
    p = np.mean(np.array(r) >= r[0])  # counts the true labels themselves, as it should
    print(f"{stream}: r = {r[0]:.2f}, p = {p:.3f}")
    assert r[0] >= 0.7
    assert p < 0.01


def test_streams_err_apart_so_that_fusing_helps(clips: list[mertool.Clip]) -> None:
    y = labels(clips)
    guesses = {s: leave_one_out(pooled(clips, s), y) for s in ("text", "audio", "vision")}
    alone = {s: np.corrcoef(guess, y)[0, 1] for s, guess in guesses.items()}
    fused = np.corrcoef(sum(guesses.values()), y)[0, 1]
    print(f"alone {alone}, fused {fused:.3f}")
    assert fused > max(alone.values())
    # Not so clean that every model would be perfect.
    assert max(alone.values()) < 0.97
