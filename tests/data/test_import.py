"""Readers: npz archives and word lists into a feature file, and readers of other packages."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import mertool
from mertool.errors import DataError, OutputError, PluginError, UsageError
from mertool.readers import recordings, run
from mertool.readers.padding import real_steps
from mertool.registry import registry


@pytest.fixture
def read(tmp_path):
    """`read(arrays, *settings)`: (open feature file, report) of an npz of these arrays."""
    opened = []

    def convert(arrays, *settings, save=np.savez):
        save(tmp_path / "set.npz", **arrays)
        report = run("npz", tmp_path / "set.npz", tmp_path / "f.h5", settings, overwrite=True)
        opened.append(mertool.open(tmp_path / "f.h5"))
        return opened[-1], report

    yield convert
    for file in opened:
        file.close()


@pytest.fixture
def read_words(tmp_path):
    """`read_words(rows)`: (clips by id, report) of a JSON list of clips."""

    def convert(rows):
        (tmp_path / "w.json").write_text(json.dumps(rows))
        report = run("words", tmp_path / "w.json", tmp_path / "w.h5", overwrite=True)
        with mertool.open(tmp_path / "w.h5") as file:
            return {clip.id: clip for clip in file}, report

    return convert


def by_split(sizes=(("train", 3), ("valid", 2), ("test", 2)), seed=0):
    """Sequences of 4 steps without any zero."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, n in sizes:
        arrays[f"audio_{split}"] = rng.normal(size=(n, 4, 3)).astype("f4") + 10
        arrays[f"video_{split}"] = rng.normal(size=(n, 4, 2)) + 10
        arrays[f"y_{split}"] = rng.normal(size=n).astype("f4")
    return arrays


def flat(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "id": np.array([f"{'ab'[i % 2]}_{i}" for i in range(n)]),
        "text": rng.normal(size=(n, 5)).astype("f4"),
        "audio": rng.normal(size=(n, 3)),
        "label": rng.normal(size=n).astype("f4"),
        "emotion": np.array(["sad", "glad", "sad", "calm", "glad", "sad"])[:n],
        "level": np.arange(7, 7 + n),
        "speaker": np.array([f"s{i % 3}" for i in range(n)]),
        "transcript": np.array([f"clip number {i}" for i in range(n)]),
        "split_first": np.array(["train", "dev", "test"] * n)[:n],
        "split_other": np.array(["test", "train", "val"] * n)[:n],
    }


def three_lines(error):
    assert error.what and error.where and error.fix


# --- npz by split ---


def test_arrays_by_split(read):
    arrays = by_split()
    arrays = {k.replace("valid", "dev"): v for k, v in arrays.items()}
    file, report = read(arrays)
    assert file.ids == ["train-0000", "train-0001", "train-0002", "valid-0000", "valid-0001",
                        "test-0000", "test-0001"]  # fmt: skip
    assert file.split() == ["train"] * 3 + ["valid"] * 2 + ["test"] * 2
    assert report.splits == {"default": {"train": 3, "valid": 2, "test": 2}}
    assert list(file.streams) == ["audio", "vision"] and file.alignment == "word"
    for clip in file:
        split, i = clip.id.replace("valid", "dev").split("-")
        audio, video = arrays[f"audio_{split}"][int(i)], arrays[f"video_{split}"][int(i)]
        np.testing.assert_array_equal(clip.streams["audio"].values, audio)
        np.testing.assert_array_equal(clip.streams["vision"].values, video.astype("f4"))
        assert clip.labels == {"label": arrays[f"y_{split}"][int(i)]}
    y = np.concatenate([arrays[f"y_{s}"] for s in ("train", "dev", "test")])
    assert file.labels["label"].range == (y.min(), y.max())
    attrs = file.streams["audio"].attrs
    assert attrs["extractor"] == "import:npz" and not attrs["timed"] and attrs["rate"] == 0
    assert attrs["owner"].startswith("mertool ")
    config = json.loads(attrs["config"])
    assert config["file"] == "set.npz" and len(config["sha256"]) == 64
    assert file.attrs["dataset"] == "set"


def test_a_stream_that_one_split_lacks(read):
    arrays = by_split()
    del arrays["audio_train"]
    for split, place in (("train", "test"), ("valid", "train"), ("test", "")):
        arrays[f"split_other_{split}"] = np.array([place] * len(arrays[f"y_{split}"]))
    file, report = read(arrays)
    assert file.split("other") == ["test"] * 3 + ["train"] * 2 + ["", ""]
    assert file.split() == ["train"] * 3 + ["valid"] * 2 + ["test"] * 2
    assert file.lengths("audio").tolist() == [0, 0, 0, 4, 4, 4, 4]
    assert file.lengths("vision").tolist() == [4] * 7
    assert report.notes == ["audio: no array for the train clips, no rows"]
    assert report.streams["audio"]["empty_clips"] == 3


def test_labels_with_axes_to_spare_and_arrays_that_are_neither(read):
    arrays = by_split()
    for split in ("train", "valid", "test"):
        n = len(arrays[f"y_{split}"])
        arrays[f"label_many_{split}"] = np.ones((n, 7), "f4")
        arrays[f"tokens_{split}"] = np.ones((n, 4), int)
        arrays[f"y_{split}"] = arrays[f"y_{split}"][:, None, None]
    file, report = read(arrays)
    assert list(file.labels) == ["label"] and list(file.streams) == ["audio", "vision"]
    assert file.label("label")[0] == arrays["y_train"][0, 0, 0]
    assert len(report.notes) == 2 and all("left out" in note for note in report.notes)
    assert "label_many" in report.notes[0] and "tokens" in report.notes[1]


def test_padding_of_aligned_streams_is_where_all_are_zero(read):
    arrays = by_split((("train", 5),))
    audio, video = arrays["audio_train"], arrays["video_train"]
    audio[1, :2], video[1, :2] = 0, 0  # left-padded
    audio[2, 3:], video[2, 3:] = 0, 0  # right-padded
    audio[3, :2], video[3, 1:] = 0, 0  # one or the other says something at every step
    audio[4, 1], video[4, 1] = 0, 0  # silence within
    file, report = read(arrays)
    assert file.lengths("audio").tolist() == file.lengths("vision").tolist() == [4, 2, 3, 4, 4]
    np.testing.assert_array_equal(file["train-0001"].streams["audio"].values, audio[1, 2:])
    np.testing.assert_array_equal(file["train-0002"].streams["audio"].values, audio[2, :3])
    np.testing.assert_array_equal(file["train-0003"].streams["audio"].values, audio[3])
    np.testing.assert_array_equal(file["train-0004"].streams["audio"].values, audio[4])
    assert report.notes == [
        "padding of zeros is stripped: 1 clips were left-padded, 1 right-padded"
    ]


def test_padding_of_streams_of_their_own_length(read):
    arrays = by_split((("train", 3),))
    arrays["audio_train"] = np.concatenate([arrays["audio_train"]] * 2, axis=1)  # 8 steps
    arrays["audio_train"][0, :5] = 0
    arrays["video_train"][1, 2:] = 0
    arrays["video_train"][2] = 0
    file, report = read(arrays)
    assert file.alignment == "none"
    assert file.lengths("audio").tolist() == [3, 8, 8]
    assert file.lengths("vision").tolist() == [4, 2, 0]
    assert report.notes == [
        "audio: padding of zeros is stripped: 1 clips were left-padded, 0 right-padded",
        "vision: padding of zeros is stripped: 0 clips were left-padded, 1 right-padded",
        "vision: 1 clips are zero throughout and have no rows",
    ]


def test_alignment_can_be_said(read):
    arrays = by_split((("train", 2),))
    arrays["audio_train"][0, :2], arrays["video_train"][0, :1] = 0, 0
    file, _ = read(arrays)
    assert (file.alignment, file.lengths("audio").tolist()) == ("word", [3, 4])
    file, _ = read(arrays, "reader.alignment=none")
    assert (file.alignment, file.lengths("audio").tolist()) == ("none", [2, 4])
    assert file.lengths("vision").tolist() == [3, 4]
    file, report = read(arrays, "reader.alignment=segments:4")
    assert (file.alignment, file.lengths("audio").tolist()) == ("segments:4", [4, 4])
    assert not report.notes  # every segment is one, zeros or not
    with pytest.raises(DataError, match="segments:5") as caught:
        read(arrays, "reader.alignment=segments:5")
    three_lines(caught.value)
    with pytest.raises(UsageError, match="segments:x is none of"):
        read(arrays, "reader.alignment=segments:x")


def test_one_stream_is_aligned_to_nothing(read):
    arrays = by_split((("train", 2),))
    del arrays["video_train"]
    assert read(arrays)[0].alignment == "none"
    arrays = by_split((("train", 2),))
    arrays["text_train"] = np.ones((2, 5), "f4")  # one row per clip beside sequences
    file, _ = read(arrays)
    assert file.alignment == "none" and file.lengths("text").tolist() == [1, 1]
    with pytest.raises(DataError, match="cannot be aligned"):
        read(arrays, "reader.alignment=word")


def test_bounds_against_a_plain_loop():
    rng = np.random.default_rng(1)
    array = rng.normal(size=(40, 6, 2)) * (rng.random((40, 6, 1)) < 0.4)
    ((found,), _) = real_steps([{"a": array}], "none")
    for clip, (low, high) in zip(array, found["a"], strict=True):
        real = [t for t in range(6) if clip[t].any()]
        assert (low, high) == ((real[0], real[-1] + 1) if real else (0, 0))


# --- flat npz ---


def test_flat_arrays(read):
    arrays = flat()
    file, report = read(arrays)
    assert file.ids == arrays["id"].tolist() and file.alignment == "none"
    assert file.splits == ["default", "first", "other"]
    assert file.split() == file.split("first") == ["train", "valid", "test"] * 2
    assert file.split("other") == ["test", "train", "valid"] * 2
    assert file.column("path") == ["a", "b"] * 3  # the recordings
    assert file.column("speaker") == arrays["speaker"].tolist()
    assert file.column("text") == arrays["transcript"].tolist()
    assert {n: (x.task, x.classes) for n, x in file.labels.items()} == {
        "label": ("regression", ()),
        "emotion": ("classification", ("calm", "glad", "sad")),
        "level": ("classification", ("7", "8", "9", "10", "11", "12")),  # by value, not "10" first
    }
    assert file.label("emotion").tolist() == [2, 1, 2, 0, 1, 2]
    assert file.label("level").tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(file.label("label"), arrays["label"])
    np.testing.assert_array_equal(file.values("text")[0], arrays["text"])
    np.testing.assert_array_equal(file.values("audio")[0], arrays["audio"].astype("f4"))
    assert not file.streams["text"].text and file["a_0"].streams["text"].word is None
    assert any('default split is "split_first"' in note for note in report.notes)
    arrays["split"] = np.array(["test"] * 6)
    file, report = read(arrays)
    assert set(file.split()) == {"test"} and file.split("first")[0] == "train"


def test_clips_keep_what_is_theirs_in_any_order(read):
    arrays = flat()
    arrays["audio"] = np.random.default_rng(3).normal(size=(6, 4, 3))
    arrays["audio"][2, :2] = 0
    arrays["text"] = np.random.default_rng(4).normal(size=(6, 7, 3))
    arrays["text"][5, 3:] = 0
    order = np.array([4, 2, 5, 0, 3, 1])
    one, _ = read(arrays)
    clips = {clip.id: clip for clip in one}
    assert len(clips["a_2"].streams["audio"]) == 2 and len(clips["b_5"].streams["text"]) == 3
    one.close()
    other, _ = read({key: array[order] for key, array in arrays.items()})
    assert other.ids == [f"{'ab'[i % 2]}_{i}" for i in order]
    for clip in other:
        same = clips[clip.id]
        assert (clip.labels, clip.text, clip.speaker, clip.split, clip.path) == (
            same.labels, same.text, same.speaker, same.split, same.path
        )  # fmt: skip
        for name, rows in clip.streams.items():
            np.testing.assert_array_equal(rows.values, same.streams[name].values)
    assert other.split("other") == [arrays["split_other"][i].replace("val", "valid") for i in order]


def test_dialogues(read):
    arrays = {
        "text": np.ones((3, 2), "f4"),
        "dialogue_id": np.array([0, 0, 1]),
        "utterance_id": np.array([0, 1, 0]),
        "utterance": np.array(["hi", "ho", "hm"]),
        "sentiment": np.array([0.5, np.nan, -1.0]),
        "laughs": np.array([True, False, True]),
    }
    file, report = read(arrays, save=np.savez_compressed)
    assert file.ids == ["dia0_utt0", "dia0_utt1", "dia1_utt0"]
    assert file.column("path") == ["dia0", "dia0", "dia1"]
    assert file.column("text") == ["hi", "ho", "hm"]
    assert file.split() == [""] * 3
    assert file.labels["sentiment"].range == (-1, 0.5)
    assert np.isnan(file.label("sentiment")).tolist() == [False, True, False]
    assert file.labels["laughs"].classes == ("False", "True")
    assert report.labels["sentiment"]["missing"] == 1 and not report.notes


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a_1", "a_2", "b_c_1"], ["a", "a", "b_c"]),
        (["a$_$1", "a$_$2", "b$_$1"], ["a", "a", "b"]),
        (["a_1", "b_1", "c_1"], ["", "", ""]),  # nothing is repeated
        (["a_1", "a_2", "b"], ["", "", ""]),
        (["clip_1", "clip_2"], ["", ""]),  # one name for all is no recording
        (["train_1", "train_2", "test_1"], ["", "", ""]),
        ([], []),
    ],
)
def test_recordings(ids, expected):
    assert recordings(ids) == expected


# --- what is refused ---


def test_objects_are_never_unpickled(read, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    arrays = flat()
    arrays["words"] = np.array([Trap()] * 6, dtype=object)
    with pytest.raises(DataError, match='"words" holds Python objects') as caught:
        read(arrays)
    three_lines(caught.value)
    np.save(tmp_path / "one.npy", arrays["words"], allow_pickle=True)
    with pytest.raises(DataError, match="no npz archive"):
        run("npz", tmp_path / "one.npy", tmp_path / "g.h5")
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "g.h5").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off", None])
def test_no_archive(tmp_path, content):
    source = tmp_path / "x.npz"
    if content is None:
        source.mkdir()
    else:
        source.write_bytes(content)
    with pytest.raises(DataError, match="no npz archive") as caught:
        run("npz", source, tmp_path / "x.h5")
    three_lines(caught.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_damaged_archive(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **flat())
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[80:140] = bytes(60)
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError, match="no npz archive"):
        run("npz", tmp_path / "x.npz", tmp_path / "x.h5")


def test_values_that_are_not_finite(read):
    arrays = flat()
    arrays["audio"][3, 1], arrays["audio"][5, :2] = np.nan, np.inf
    arrays["audio"][4, 0] = 1e300  # beyond float32
    with pytest.raises(DataError, match="4 feature values in 3 clips") as caught:
        read(arrays)
    three_lines(caught.value)
    assert 'the first are 1 in stream "audio" of clip "b_3"' in caught.value.where
    assert "reader.nonfinite=zero" in caught.value.fix
    file, report = read(arrays, "reader.nonfinite=zero")
    assert file["b_3"].streams["audio"].values[0, 1] == 0
    assert file["b_5"].streams["audio"].values[0].tolist()[:2] == [0, 0]
    np.testing.assert_array_equal(
        file["b_3"].streams["audio"].values[0, [0, 2]], arrays["audio"][3, [0, 2]].astype("f4")
    )
    assert any("audio: 4 values that are not finite" in note for note in report.notes)
    assert json.loads(file.streams["audio"].attrs["config"])["nonfinite"] == "zero"


def test_two_clips_with_one_id(read):
    arrays = flat()
    arrays["id"][4] = "b_1"
    with pytest.raises(DataError, match='Two clips have the id "b_1"') as caught:
        read(arrays)
    three_lines(caught.value)
    assert "clips 1 and 4" in caught.value.where


def test_arrays_of_other_lengths(read):
    arrays = flat()
    arrays["label"] = arrays["label"][:-1]
    with pytest.raises(DataError, match="same number of clips") as caught:
        read(arrays)
    assert "label 5" in caught.value.where and "text 6" in caught.value.where
    arrays = by_split()
    arrays["y_valid"] = np.ones(5)
    with pytest.raises(DataError, match="same number of clips") as caught:
        read(arrays)
    assert "valid: " in caught.value.where


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio_test": np.ones((2, 4, 5), "f4")}, "5 columns; those of other clips have 3"),
        ({"audio_dev": np.ones((2, 4, 3), "f4")}, "two arrays for the valid clips"),
        ({"id_train": np.array(["x", "y", "z"])}, 'no "id" for the valid and test clips'),
    ],
)
def test_splits_that_do_not_fit(read, change, message):
    with pytest.raises(DataError, match=message) as caught:
        read({**by_split(), **change})
    three_lines(caught.value)


def test_other_refusals(read, tmp_path):
    with pytest.raises(DataError, match='no split "held-out"'):
        read({**flat(), "split": np.array(["held-out"] * 6)})
    with pytest.raises(DataError, match="No clips are found"):
        read({})
    with pytest.raises(DataError, match="No clips are found"):
        read({"seed": np.array(3)})
    with pytest.raises(DataError, match="name of a stream cannot be used: 'a/b'"):
        read({"a/b": np.ones((2, 2))})
    read(flat())
    with pytest.raises(OutputError, match="exists already"):
        run("npz", tmp_path / "set.npz", tmp_path / "f.h5")
    with pytest.raises(DataError, match="no such file"):
        run("npz", tmp_path / "none.npz", tmp_path / "f.h5", overwrite=True)
    with pytest.raises(UsageError, match="(?s)no reader named.*npz"):
        run("npx", tmp_path / "set.npz", tmp_path / "f.h5", overwrite=True)


# --- words ---

ROW = {
    "id": "rec_a_1", "split": "dev", "label": 1.5, "transcript": "It WAS good, really",
    "words": [["it", 10.0, 10.2], ["was", 10.2, 10.5], ["good,", 10.9, 11.0], ["really", 11, 12]],
}  # fmt: skip
OTHER = {"id": "rec_a_2", "words": [["no", 1.0, 1.5]]}
THIRD = {"id": "b_7", "words": [], "label": -1}


def test_words(read_words):
    clips, report = read_words([ROW, OTHER, THIRD])
    clip = clips["rec_a_1"]
    assert (clip.start, clip.end, clip.path, clip.split) == (10.0, 12.0, "rec_a", "valid")
    assert clip.labels == {"label": 1.5} and clip.text == "It WAS good, really"
    assert [w.text for w in clip.words] == ["It", "WAS", "good,", "really"]
    times = [(w.start, w.end) for w in clip.words]
    assert np.allclose(times, [(0, 0.2), (0.2, 0.5), (0.9, 1), (1, 2)])
    assert {w.score for w in clip.words} == {1.0} and clip.streams == {}
    assert clips["rec_a_2"].text == "no" and not clips["rec_a_2"].labels
    assert (clips["b_7"].words, clips["b_7"].text, clips["b_7"].end) == ([], "", None)
    assert report.labels["label"] == {
        "task": "regression", "classes": [], "range": [-1, 1.5], "missing": 1
    }  # fmt: skip
    assert report.notes == []


def test_words_without_times_fill_the_gap(read_words):
    words = [["a", None, None], ["b", 5.0, 6.0], ["c", None, 6.2], ["d", None, None],
             ["e", 7.0, 8.0], ["f", None, None]]  # fmt: skip
    none = [["a", None, None], ["b", None, None]]
    clips, report = read_words([{"id": "x", "words": words}, {"id": "y", "words": none}])
    times = [(w.start, w.end, w.score) for w in clips["x"].words]
    assert np.allclose(
        times,
        [(0, 0, -1), (0, 1, 1), (1, 1.5, -1), (1.5, 2, -1), (2, 3, 1), (3, 3, -1)],
    )
    assert (clips["x"].start, clips["x"].end) == (5, 8)
    assert [(w.start, w.end, w.score) for w in clips["y"].words] == [(0, 0, -1)] * 2
    assert clips["y"].end is None
    assert sorted(report.notes) == [
        "no word has times",
        "words without times are placed between their neighbours, score -1",
    ]


def test_times_that_run_backwards_are_unused(read_words):
    words = [["a", 1.0, 2.0], ["b", 1.5, 3.0], ["c", 4.0, 3.5], ["d", 0.5, 5.0], ["e", 4.0, 5.0]]
    clips, report = read_words([{"id": "x", "words": words}])
    times = [(w.start, w.end, w.score) for w in clips["x"].words]
    assert np.allclose(times, [(0, 0.5, 1), (0.5, 2, 1), (2, 2.5, -1), (2.5, 3, -1), (3, 4, 1)])
    assert "run backwards" in report.notes[0] and "placed" in report.notes[1]


def test_words_that_are_not_those_of_the_transcript(read_words):
    clips, report = read_words([{**ROW, "transcript": "It was"}])
    assert [w.text for w in clips["rec_a_1"].words] == ["it", "was", "good,", "really"]
    assert clips["rec_a_1"].text == "It was" and "not as many" in report.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"id": "a"', "no JSON document"),
        ("\udcff", "no JSON document"),
        ("[" * 100000, "no JSON document"),
        ('{"a": 1}', "the document is a dict"),
        ("[1]", 'entry 0 has no "id"'),
        ('[{"id": 5, "words": []}]', 'entry 0 has no "id"'),
        ('[{"id": "a"}]', 'entry 0, a, has no list "words"'),
        ('[{"id": "a", "words": [], "transcript": 3}]', '"transcript" is no text'),
        ('[{"id": "a", "words": [["x", 1]]}]', "A word is not as it should be"),
        ('[{"id": "a", "words": [["x", "1", "2"]]}]', "A word is not as it should be"),
        ('[{"id": "a", "words": [["x", NaN, 2]]}]', "A word is not as it should be"),
        ('[{"id": "a", "words": [["x", -1, 2]]}]', "A word is not as it should be"),
        ('[{"id": "a", "words": [], "split": "x"}]', 'no split "x"'),
        ("[]", "No clips are found"),
    ],
)
def test_lists_that_are_refused(tmp_path, content, message):
    (tmp_path / "w.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        run("words", tmp_path / "w.json", tmp_path / "w.h5")
    three_lines(caught.value)
    assert not (tmp_path / "w.h5").exists()


# --- readers of other packages ---

PLUGIN = """
    import warnings
    from dataclasses import dataclass
    import numpy as np
    from mertool import Clip, MertoolWarning, Rows, hookimpl

    @hookimpl
    def register_readers(register):
        register("toy", "toy_reader:Toy", summary="clips out of thin air")

    CLIPS = []

    class Toy:
        @dataclass(frozen=True)
        class Config:
            factor: float = 1.0

        columns = {"audio": ("loud", "high")}
        info = {"audio": {"timed": True, "rate": 10.0, "licence": "MIT"}}
        alignment = "none"

        def __init__(self, config):
            self.config = config

        def clips(self, source):
            for i, line in enumerate(source.read_text().split()):
                warnings.warn("made up", MertoolWarning)
                values = np.full((i + 1, 2), self.config.factor, np.float32)
                times = np.stack([np.arange(i + 1.0), np.arange(1, i + 2.0)], 1) / 10
                traits = [["high"], ["low", "high"], []][i % 3]
                streams = {"audio": Rows(values, times)} if i else None
                if i:
                    word, span = np.zeros(i + 1, "i4"), np.zeros((i + 1, 2), "i4")
                    streams["text"] = Rows(values, times * 0, word, span)
                yield Clip(line, text="a word", labels={"traits": traits, "score": i, "mood": "ok",
                           "gap": None}, streams=streams, split="validation")

        def splits(self, source):
            return {"half": {"one": "train", "two": "dev"}}

    class Broken:
        def __init__(self, config):
            pass

        def clips(self, source):
            yield from CLIPS.pop(0) if CLIPS else ()
            if not CLIPS:
                raise KeyError("boom")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install(module, code)` puts a package of one module with a plugin on sys.path."""
    site = tmp_path / "site"
    installed = []

    def put(module, code):
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mertool]\n{module} = {module}\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delenv("MERTOOL_PLUGINS", raising=False)
        registry.cache_clear()
        assert not registry().broken
        installed.append(module)
        return sys.modules[module]

    yield put
    registry.cache_clear()
    for module in installed:
        del sys.modules[module]


@pytest.fixture
def toy(install):
    """The module of an installed package with a reader."""
    return install("toy_reader", textwrap.dedent(PLUGIN))


def test_a_reader_of_another_package(toy, tmp_path):
    (tmp_path / "names.txt").write_text("one two three")
    report = run("toy", tmp_path / "names.txt", tmp_path / "x.h5", ["reader.factor=2"])
    assert report.notes == [
        "made up (3 clips)", 'label "gap" has no value in any clip: left out'
    ]  # fmt: skip
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.ids == ["one", "two", "three"] and file.split() == ["valid"] * 3
        assert file.split("half") == ["train", "valid", ""]
        assert {n: (x.task, x.classes, x.range) for n, x in file.labels.items()} == {
            "traits": ("multilabel", ("high", "low"), (0, 0)),
            "score": ("regression", (), (0, 2)),
            "mood": ("classification", ("ok",), (0, 0)),
        }
        assert file.label("traits").tolist() == [[1, 0], [1, 1], [0, 0]]
        assert file.streams["audio"].columns == ("loud", "high")
        attrs = file.streams["audio"].attrs
        assert (
            attrs["extractor"] == "import:toy" and attrs["owner"] == "toy_reader 1.0 (toy_reader)"
        )
        assert attrs["timed"] and attrs["rate"] == 10 and attrs["licence"] == "MIT"
        assert json.loads(attrs["config"])["factor"] == 2
        assert file.lengths("audio").tolist() == [0, 2, 3] and file.streams["text"].text
        np.testing.assert_allclose(file["two"].streams["audio"].times, [(0, 0.1), (0.1, 0.2)])
        assert (file.values("audio")[0] == 2).all()


def rows(shape=(1, 2), kind="f4", **more):
    return mertool.Rows(np.ones(shape, kind), np.zeros((shape[0], 2)), **more)


@pytest.mark.parametrize(
    ("clips", "kind", "message"),
    [
        ([mertool.Clip("a")], PluginError, "failed: KeyError: 'boom'"),
        (["a"], PluginError, "no Clip"),
        ([mertool.Clip("")], PluginError, "no Clip"),
        ([mertool.Clip("a", streams={"x": np.ones((2, 2))})], PluginError, "no Rows"),
        ([mertool.Clip("a", streams={"x": rows(kind="f8")})], PluginError, "not float32"),
        ([mertool.Clip("a", streams={"x": rows()}),
          mertool.Clip("b", streams={"x": rows((1, 3))})], DataError, "3 columns; .* have 2"),
        ([mertool.Clip("a", labels={"y": 1}), mertool.Clip("b", labels={"y": "one"})],
         DataError, "a number in some clips and a name in others"),
        ([mertool.Clip("a", labels={"y": [1]})], PluginError, "gave the label"),
        ([mertool.Clip("a", labels={"y/z": 1})], DataError, "name of a label cannot be used"),
        ([mertool.Clip("a", words=[mertool.Word("w", 1, 0.5)])], PluginError, "no proper times"),
    ],
)  # fmt: skip
def test_a_reader_that_breaks_the_contract(toy, tmp_path, monkeypatch, clips, kind, message):
    monkeypatch.setattr(toy, "Toy", toy.Broken)
    monkeypatch.setattr(toy, "CLIPS", [clips])
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(kind, match=message) as caught:
        run("toy", tmp_path / "x.txt", tmp_path / "x.h5")
    three_lines(caught.value)
    assert not (tmp_path / "x.h5").exists()


def test_a_reader_that_changes_its_mind(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "Toy", toy.Broken)
    passes = [[mertool.Clip("a"), mertool.Clip("b")], [mertool.Clip("b"), mertool.Clip("a")], []]
    monkeypatch.setattr(toy, "CLIPS", passes)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(PluginError, match="other clips when it was asked again"):
        run("toy", tmp_path / "x.txt", tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_the_reader_of_the_plugin_page(install, tmp_path):
    folder = Path(__file__).parents[2] / "docs"
    page = (folder / "plugin-reference.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(# csvrows.py\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    install("csvrows", code)
    (tmp_path / "e.csv").write_text("id,split,emotion,f0,energy\na,train,sad,1,2\nb,dev,glad,0,0\n")
    report = run("csvrows", tmp_path / "e.csv", tmp_path / "x.h5", ["reader.stream=voice"])
    assert report.notes == ["a clip is zero throughout"]
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.streams["voice"].columns == ("f0", "energy")
        assert file.values("voice")[0].tolist() == [[1, 2], [0, 0]]
        assert file.split() == ["train", "valid"] and file.label("emotion").tolist() == [1, 0]


# --- the command ---


def test_the_command(call, tmp_path, monkeypatch):
    np.savez(tmp_path / "set.npz", **by_split())
    command = ("data", "import", "npz", tmp_path / "set.npz", "-o", tmp_path / "f.h5")
    monkeypatch.setattr("sys.argv", ["mertool", *map(str, command)])
    done = call(*command)
    assert done.code == 0 and done.err == ""
    assert "7 clips, alignment word" in done.out
    for line in ("default 3 2 2 0", "audio 3 28 4.0 4 0", "label regression"):
        assert line in " ".join(done.out.split()), line
    with mertool.open(tmp_path / "f.h5") as file:
        assert file.attrs["command"] == " ".join(["mertool", *map(str, command)])
    done = call(*command)
    assert done.code == 1 and "exists already" in done.err
    arrays = by_split()
    arrays["audio_train"][0, 0] = arrays["video_train"][0, 0] = 0
    np.savez(tmp_path / "set.npz", **arrays)
    done = call(*command, "--overwrite", "--json")
    assert "Note: padding of zeros is stripped: 1 clips were left-padded" in done.err
    report = json.loads(done.out)
    assert done.code == 0 and report["clips"] == 7 and report["streams"]["audio"]["rows"] == 27
    assert report["splits"] == {"default": {"train": 3, "valid": 2, "test": 2}}
    settings = ("--set", "reader.alignment=none", "--set", "reader.nothing=1")
    done = call(*command, "--overwrite", *settings)
    assert done.code == 2 and "reader.nothing" in done.err and not done.out
    done = call("data", "import", "npy", "x", "-o", "y")
    assert done.code == 2 and "npz, words" in done.err
    help_text = call("data", "import", "--help").out
    assert "mertool data import npz" in help_text and "--overwrite" in help_text


def test_what_is_imported_can_be_trained_on(tmp_path):
    arrays = by_split((("train", 12), ("valid", 4), ("test", 4)))
    del arrays["audio_valid"]
    np.savez(tmp_path / "set.npz", **arrays)
    run("npz", tmp_path / "set.npz", tmp_path / "f.h5")
    mertool.train(
        tmp_path / "f.h5", tmp_path / "run", plugin="concat", seeds=1, device="cpu",
        settings=["train.epochs=1"],
    )  # fmt: skip
    assert mertool.evaluate(tmp_path / "run", device="cpu").clips == 4
