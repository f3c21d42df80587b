"""Rows, labels, texts and splits stay joined by clip id, however a file is rearranged."""

from __future__ import annotations

import shutil

import h5py
import numbered
import numpy as np
import pytest
import torch

import mertool
from mertool import metrics
from mertool.data import DataConfig, Dataset
from mertool.store import Writer, is_missing, rewrite

COUNT = 60
LABELS = [label.name for label in numbered.LABELS]


def shuffled(source, out, seed):
    """The same clips in another order, through the reader and the writer."""
    order = np.random.default_rng(seed).permutation(COUNT)
    with mertool.open(source) as file:
        with Writer(out, file.streams, list(file.labels.values()), {"dataset": "x"}) as writer:
            for i in order:
                clip = file.clip(int(i))
                writer.add(clip, clip.streams)
            for name in file.splits:
                values = file.split(name)
                writer.split(name, [values[i] for i in order], file.split_attrs(name))
    return out


@pytest.fixture(scope="module", params=[0, 1, 2])
def files(request, tmp_path_factory):
    """{what was done: (file, numbers of its clips)}."""
    tmp_path = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(request.param)
    plain = numbered.write(tmp_path / "plain.h5", range(COUNT))
    mixed = shuffled(plain, tmp_path / "mixed.h5", request.param)
    half = sorted(int(i) for i in rng.permutation(COUNT)[: COUNT // 2])
    rest = sorted(set(range(COUNT)) - set(half))
    for name, numbers in (("half", half), ("rest", rest)):
        ids = [f"clip-{i}" for i in rng.permutation(numbers)]
        rewrite.select(mixed, tmp_path / f"{name}.h5", ids=ids)
    rewrite.merge([tmp_path / "rest.h5", tmp_path / "half.h5"], tmp_path / "merged.h5")
    numbers = {"plain": range(COUNT), "mixed": range(COUNT), "half": half, "merged": range(COUNT)}
    return {name: (tmp_path / f"{name}.h5", list(n)) for name, n in numbers.items()}


# --- the file ---


def test_every_clip_keeps_what_is_its_own(files):
    orders = {}
    for name, (path, numbers) in files.items():
        numbered.assert_joined(path, numbers)
        orders[name] = list(numbered.contents(path))
    assert orders["plain"] != orders["mixed"] != orders["merged"]  # they were rearranged at all
    kept = [i for i in orders["mixed"] if i in orders["half"]]
    assert orders["half"] == kept
    assert orders["merged"] == [i for i in orders["mixed"] if i not in kept] + kept


# --- what training gets ---


def training_data(path, label, part, split="default"):
    """{id: (rows of each stream, y)} that a data set hands out, in batches of any order."""
    with mertool.open(path) as file:
        wanted = np.array(file.split(split)) == part
        made = Dataset(file, file.labels[label], list(file.streams), wanted, DataConfig(), part)
    found = {}
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(1))
    for indices in order.split(7):
        batch = made.batch(indices, torch.device("cpu"))
        for b, name in enumerate(batch.ids):
            rows = {s: batch.x[s][b][batch.mask[s][b]].tolist() for s in batch.x}
            found[name] = (rows, batch.y[b].tolist())
    return found


def by_number(numbers, label, part, split="default"):
    """The same, as the numbers of the clips say."""
    found = {}
    for i in numbers:
        clip, rows = numbered.clip(i), numbered.rows(i)
        if label not in clip.labels or numbered.split(split, i) != part:
            continue
        y = clip.labels[label]
        y = [float(np.float32(y))] if label == "score" else y
        found[clip.id] = ({s: r.values.tolist() for s, r in rows.items()}, y)
    return found


@pytest.mark.parametrize("label", LABELS)
def test_training_gets_rows_and_labels_of_one_clip(files, label):
    for path, numbers in files.values():
        for split, part in (("default", "train"), ("default", "test"), ("fold-1", "valid")):
            wanted = by_number(numbers, label, part, split)
            assert len(wanted) >= 2
            assert training_data(path, label, part, split) == wanted


# --- scores ---


def predictions(seed=5):
    """{label: {id: raw prediction}}, right about half the time, of a system that is done."""
    rng, found = np.random.default_rng(seed), {}
    for label in numbered.LABELS:
        width = max(1, len(label.classes))
        found[label.name] = {f"clip-{i}": rng.normal(size=width) for i in range(COUNT)}
    for i in range(COUNT):
        known = numbered.clip(i).labels
        if "score" in known:
            found["score"][f"clip-{i}"] += known["score"]
        if "emotion" in known:
            found["emotion"][f"clip-{i}"][known["emotion"]] += 1
    return found


def scored(path, label, pred):
    """The metrics of predictions that are joined to the file's labels by id."""
    with mertool.open(path) as file:
        y, meaning = file.label(label), file.labels[label]
        labelled = np.flatnonzero(~np.asarray(is_missing(meaning, y)))
        rows = np.stack([pred[file.ids[i]] for i in labelled])
    return metrics.scores(meaning, y[labelled], rows).values


@pytest.mark.parametrize("label", LABELS)
def test_scores_do_not_depend_on_the_order(files, label):
    pred = predictions()[label]
    first = scored(files["plain"][0], label, pred)
    assert all(np.isfinite(v) for v in first.values())
    for name in ("mixed", "merged"):
        assert scored(files[name][0], label, pred) == pytest.approx(first, rel=1e-12)
    path, numbers = files["half"]
    known = [i for i in numbers if label in numbered.clip(i).labels]
    meaning = next(x for x in numbered.LABELS if x.name == label)
    y = np.array([numbered.clip(i).labels[label] for i in known])
    half = metrics.scores(meaning, y, np.stack([pred[f"clip-{i}"] for i in known])).values
    assert scored(path, label, pred) == pytest.approx(half, rel=1e-12)


# --- the tests above notice a wrong join ---


def rolled(path, name, folder):
    """A copy in which one dataset is moved by one clip, or by one row."""
    copy = shutil.copy(path, folder / "rolled.h5")
    with h5py.File(copy, "r+") as file:
        file[name][...] = np.roll(file[name][()], 1, axis=0)
    return copy


@pytest.mark.parametrize(
    "name",
    [
        *(f"clips/labels/{label}" for label in LABELS),
        "clips/speaker", "clips/text", "clips/split", "clips/end", "clips/id",
        "splits/default", "splits/fold-0", "splits/fold-1",
        "streams/text/values", "streams/text/times", "streams/text/word", "streams/text/span",
        "streams/audio/values", "streams/audio/times", "words/word", "words/times",
    ],
)  # fmt: skip
def test_a_wrong_join_in_the_file_is_noticed(files, name, tmp_path):
    path, numbers = files["merged"]
    wrong = rolled(path, name, tmp_path)
    with pytest.raises(AssertionError):
        numbered.assert_joined(wrong, numbers)


@pytest.mark.parametrize("label", LABELS)
def test_a_wrong_join_of_labels_is_noticed_in_training_and_scores(files, label, tmp_path):
    path, numbers = files["merged"]
    pred = predictions()[label]
    wanted, first = by_number(numbers, label, "train"), scored(path, label, pred)
    assert training_data(path, label, "train") == wanted
    wrong = rolled(path, f"clips/labels/{label}", tmp_path)
    assert training_data(wrong, label, "train") != wanted
    assert scored(wrong, label, pred) != pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("stream", ["text", "audio"])
def test_a_wrong_join_of_rows_is_noticed_in_training(files, stream, tmp_path):
    path, numbers = files["merged"]
    wrong = rolled(path, f"streams/{stream}/values", tmp_path)
    assert training_data(wrong, "score", "train") != by_number(numbers, "score", "train")
