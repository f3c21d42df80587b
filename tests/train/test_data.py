import numpy as np
import pytest
import synthetic
import torch

import mertool
from mertool import data, splits
from mertool.errors import DataError, UsageError
from mertool.store import Stream, Writer
from mertool.types import Clip, Label, Rows

CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path):
    with mertool.open(synthetic.write(tmp_path / "x.h5")) as f:
        yield f


def dataset(f, label="score", wanted=None, streams=("text", "audio"), **config):
    wanted = np.ones(len(f), bool) if wanted is None else wanted
    chosen = f.labels[label] if label else None
    return data.Dataset(f, chosen, list(streams), wanted, data.DataConfig(**config))


def test_batch_against_a_plain_loop(file):
    part = dataset(file)
    indices = torch.tensor([5, 0, 17])
    batch = part.batch(indices, CPU)
    for name in ("text", "audio"):
        rows = [file.rows(int(i), name).values for i in indices]
        longest = max(map(len, rows))
        assert batch.x[name].shape == (3, longest, rows[0].shape[1])
        for b, r in enumerate(rows):
            np.testing.assert_array_equal(batch.x[name][b, : len(r)], r)
            assert batch.x[name][b, len(r) :].abs().sum() == 0
            assert batch.mask[name][b].tolist() == [True] * len(r) + [False] * (longest - len(r))
    assert batch.ids == ("clip5", "clip0", "clip17")
    expected = file.label("score")[indices]
    np.testing.assert_allclose(batch.y[:, 0], expected, rtol=1e-6)


def test_fixed_lengths_crop_and_pad(file):
    part = dataset(file)
    batch = part.batch(torch.arange(4), CPU, {"text": 2, "audio": 30})
    assert batch.x["text"].shape[1] == 2 and batch.mask["text"].all()
    assert batch.x["audio"].shape[1] == 30 and not batch.mask["audio"][:, 20:].any()


def test_max_length_cuts_the_end(file):
    part = dataset(file, max_length=4)
    assert part.lengths == {"text": 4, "audio": 4}
    assert part.cropped["audio"] == len(file)
    np.testing.assert_array_equal(
        part.batch(torch.tensor([3]), CPU).x["audio"][0], file.rows(3, "audio").values[:4]
    )


def test_normaliser_is_mean_and_standard_deviation_of_the_rows(file):
    part = dataset(file)
    every = np.concatenate([file.rows(i, "audio").values for i in range(len(file))])
    fitted = data.Normaliser.fit(part)
    np.testing.assert_allclose(fitted.mean["audio"], every.mean(0), atol=1e-6)
    np.testing.assert_allclose(fitted.std["audio"], every.std(0), rtol=1e-5)
    part.normalise(fitted)
    np.testing.assert_allclose(part.values["audio"].mean(0), 0, atol=1e-5)
    # Padding stays zero, which after normalising is the training mean.
    batch = part.batch(torch.arange(10), CPU)
    assert batch.x["audio"][~batch.mask["audio"]].abs().sum() == 0


def test_a_constant_column_is_left_alone(tmp_path):
    with Writer(tmp_path / "x.h5", {"a": Stream(("p",))}) as writer:
        writer.add(Clip("1"), {"a": Rows(np.full((5, 1), 7, np.float32), np.zeros((5, 2)))})
    with mertool.open(tmp_path / "x.h5") as f:
        part = dataset(f, label=None, streams=["a"])
        part.normalise(data.Normaliser.fit(part))
        assert part.values["a"].tolist() == [[0.0]] * 5


def test_missing_labels_are_left_out_and_counted(tmp_path):
    label = Label("score", "regression", (), (0, 1))
    with Writer(tmp_path / "x.h5", {"a": Stream(("p",))}, [label]) as writer:
        for i in range(4):
            labels = {"score": 0.5} if i % 2 else {}
            rows = Rows(np.full((2, 1), i, np.float32), np.zeros((2, 2)))
            writer.add(Clip(str(i), labels=labels), {"a": rows})
    with mertool.open(tmp_path / "x.h5") as f:
        part = dataset(f, streams=["a"])
        assert part.ids == ["1", "3"] and part.unlabelled == 2
        assert part.values["a"][:, 0].tolist() == [1, 1, 3, 3]


def test_an_absent_stream_is_an_all_false_row(tmp_path):
    with Writer(tmp_path / "x.h5", {"a": Stream(("p",)), "b": Stream(("q",))}) as writer:
        rows = Rows(np.ones((2, 1), np.float32), np.zeros((2, 2)))
        writer.add(Clip("1"), {"a": rows})
        writer.add(Clip("2"), {"a": rows, "b": rows})
    with mertool.open(tmp_path / "x.h5") as f:
        part = dataset(f, label=None, streams=["a", "b"])
        batch = part.batch(torch.arange(2), CPU)
        assert batch.mask["b"].tolist() == [[False, False], [True, True]]
        alone = part.batch(torch.tensor([0]), CPU)
        assert alone.x["b"].shape == (1, 1, 1) and not alone.mask["b"].any()


def test_targets_of_every_task(file):
    assert dataset(file, "emotion").y.dtype == torch.int64
    assert dataset(file, "traits").y.shape == (len(file), 2)
    assert dataset(file, "score").y.shape == (len(file), 1)


def test_spec(file):
    part = dataset(file)
    spec = data.make_spec(file, file.labels["emotion"], part)
    assert spec.n_out == 3 and spec.classes == ("calm", "glad", "sad")
    assert spec.streams["audio"] == (3, part.lengths["audio"])


def test_aligned_streams_share_their_length(tmp_path):
    with mertool.open(synthetic.write(tmp_path / "x.h5", aligned=True)) as f:
        spec = data.make_spec(f, f.labels["score"], dataset(f))
    assert spec.alignment == "word" and len({t for _, t in spec.streams.values()}) == 1


def test_splits_of_the_file_are_kept(file):
    assigned, note = splits.assign(file)
    assert assigned == file.split() and note == ""


def test_no_splits_at_all_are_made_by_speaker(tmp_path):
    path = synthetic.write(tmp_path / "x.h5", splits=False)
    with mertool.open(path) as f:
        assigned, note = splits.assign(f)
        again, _ = splits.assign(f)
        speakers = f.column("speaker")
    assert assigned == again and "speakers" in note
    assert set(assigned) == {"train", "valid", "test"}
    for speaker in set(speakers):
        assert len({s for s, p in zip(assigned, speakers, strict=True) if p == speaker}) == 1


def test_a_missing_valid_split_is_held_out_of_train_by_speaker(tmp_path):
    path = tmp_path / "x.h5"
    with Writer(path, {"a": Stream(("p",))}) as writer:
        for i in range(40):
            split = "test" if i >= 30 else "train"
            writer.add(Clip(str(i), speaker=f"s{i % 10}", split=split), {})
    with mertool.open(path) as f:
        assigned, note = splits.assign(f)
    assert assigned[30:] == ["test"] * 10 and "held out" in note
    held = {i % 10 for i in range(30) if assigned[i] == "valid"}
    kept = {i % 10 for i in range(30) if assigned[i] == "train"}
    assert held and kept and not held & kept


def test_too_few_to_split(tmp_path):
    path = synthetic.write(tmp_path / "x.h5", clips=4, splits=False, speakers=2)
    with mertool.open(path) as f, pytest.raises(DataError, match="cannot be divided"):
        splits.assign(f)


def test_picking_labels_and_streams(file):
    every = np.ones(len(file), bool)
    with pytest.raises(UsageError, match="which one"):
        data.pick_label(file, None)
    with pytest.raises(UsageError, match='Did you mean "score"'):
        data.pick_label(file, "scores")
    with pytest.raises(UsageError, match='Did you mean "audio"'):
        data.pick_streams(file, ["adio"], every)
    assert set(data.pick_streams(file, None, every)) == {"text", "audio"}
    with pytest.raises(UsageError, match="no split"):
        splits.of_split(["train"], "tset", "x")
    with pytest.raises(DataError, match="No clip"):
        splits.of_split(["train"], "test", "x")


def test_a_stream_without_training_rows_is_left_out(tmp_path):
    """As the text of the released ICT-MMMO, which only valid and test clips have."""
    path = tmp_path / "x.h5"
    rows = Rows(np.ones((2, 1), np.float32), np.zeros((2, 2)))
    with Writer(path, {"text": Stream(("p",)), "audio": Stream(("p",))}) as writer:
        for i in range(9):
            split = ("train", "valid", "test")[i % 3]
            both = {"audio": rows} | ({} if split == "train" else {"text": rows})
            writer.add(Clip(str(i), split=split), both)
    with mertool.open(path) as f:
        train = np.array(f.split()) == "train"
        assert data.pick_streams(f, None, train) == ["audio"]
        with pytest.raises(DataError, match="no rows to train on"):
            data.pick_streams(f, ["text"], train)
