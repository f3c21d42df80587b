"""Selecting from and merging feature files."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import h5py
import numbered
import numpy as np
import pytest

import mertool
from mertool.errors import DataError, OutputError, UsageError
from mertool.store import Stream, Writer, json_attr, rewrite
from mertool.types import Clip, Label, Rows

COUNT = 30


def ids(path):
    with mertool.open(path) as file:
        return file.ids


def names(numbers):
    return [f"clip-{i}" for i in numbers]


@pytest.fixture
def feats(tmp_path):
    attrs = {"alignment": "word", "dataset": "numbers"}
    return numbered.write(tmp_path / "feats.h5", range(COUNT), failed=[77, 78], attrs=attrs)


# --- select ---


def test_what_is_kept_is_kept_whole(feats, tmp_path):
    before = feats.read_bytes()
    wanted = [20, 3, 3, 7, 29]
    report = rewrite.select(feats, tmp_path / "x.h5", ids=names(wanted), command="second")
    assert report == rewrite.RewriteReport(
        str(tmp_path / "x.h5"), 4, COUNT, ["text", "audio"], notes=[]
    )
    numbered.assert_joined(tmp_path / "x.h5", {*wanted})
    assert ids(tmp_path / "x.h5") == names(sorted({*wanted}))  # the order of the file
    with mertool.open(feats) as old, mertool.open(tmp_path / "x.h5") as new:
        assert new.streams == old.streams and list(new.streams) == list(old.streams)
        assert new.labels == old.labels and list(new.labels) == list(old.labels)
        assert new.failures == old.failures and len(new.failures) == 2
        assert (new.attrs["dataset"], new.alignment, new.attrs["command"]) == (
            "numbers", "word", "second"
        )  # fmt: skip
        assert new.splits == old.splits == ["default", "fold-0", "fold-1"]
        assert new.split_attrs("fold-1") == {"by": "speaker", "seed": 3}
    assert feats.read_bytes() == before


def test_streams_alone_leave_the_clips(feats, tmp_path):
    report = rewrite.select(feats, tmp_path / "x.h5", streams=["audio"])
    assert report.streams == ["audio"] and report.clips == COUNT
    found = numbered.contents(tmp_path / "x.h5")
    assert list(found) == names(range(COUNT))
    for i in range(COUNT):
        assert found[f"clip-{i}"] == numbered.expected(i, streams=["audio"])
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.split_attrs("fold-0") == numbered.SPLIT_ATTRS  # of the same clips: with sha256


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"split": "test"}, lambda i: numbered.split("default", i) == "test"),
        ({"split": "default:valid"}, lambda i: numbered.split("default", i) == "valid"),
        ({"split": "fold-1:train"}, lambda i: numbered.split("fold-1", i) == "train"),
        ({"speakers": ["s1", "s4"]}, lambda i: i % 6 in (1, 4)),
        (
            {"split": "fold-0:train", "speakers": ["s0", "s2"], "ids": names(range(20))},
            lambda i: i % 4 == 0 and i % 6 in (0, 2) and i < 20,
        ),
    ],
)
def test_criteria(feats, tmp_path, given, holds):
    report = rewrite.select(feats, tmp_path / "x.h5", **given)
    wanted = [i for i in range(COUNT) if holds(i)]
    assert ids(tmp_path / "x.h5") == names(wanted) and report.clips == len(wanted) > 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Which clips or streams"),
        ({"ids": ["clip-1", "clip-1o", "x"]}, 'no clip "clip-1o" and 1 more.*"clip-1'),
        ({"split": "tset"}, 'no part of a split "tset".*Did you mean "test"'),
        ({"split": "fold-2:test"}, 'no split "fold-2".*Did you mean "fold-'),
        ({"split": "fold-0"}, 'no part of a split "fold-0".*Known: test, train, valid'),
        ({"speakers": ["s1", "z"]}, 'no speaker "z".*Known: s0, s1'),
        ({"streams": ["vison"]}, 'no stream "vison".*Known: audio, text'),
    ],
)
def test_unknown_names_are_wrong_usage(feats, tmp_path, given, message):
    with pytest.raises(UsageError) as caught:
        rewrite.select(feats, tmp_path / "x.h5", **given)
    caught.match("(?s)" + message)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"ids": []},
        {"streams": []},
        {"speakers": []},
        {"split": "test", "speakers": ["s0"]},
        {"ids": ["clip-77"]},
    ],
)
def test_nothing_left(feats, tmp_path, given):
    with pytest.raises(DataError, match="is left"):
        rewrite.select(feats, tmp_path / "x.h5", **given)
    assert [p.name for p in tmp_path.iterdir()] == ["feats.h5"]


def test_ids_of_clips_that_failed_are_a_note(feats, tmp_path):
    report = rewrite.select(feats, tmp_path / "x.h5", ids=["clip-3", "clip-77", "clip-78"])
    assert report.clips == 1 and report.notes == ["ids of clips that failed: 2"]


def test_an_existing_output_is_kept(feats, tmp_path):
    other = numbered.write(tmp_path / "other.h5", [99], attrs={"alignment": "word"})
    for make in (
        lambda **more: rewrite.select(feats, tmp_path / "x.h5", split="test", **more),
        lambda **more: rewrite.merge([feats, other], tmp_path / "x.h5", **more),
    ):
        (tmp_path / "x.h5").write_text("mine")
        with pytest.raises(OutputError, match="exists already"):
            make()
        assert (tmp_path / "x.h5").read_text() == "mine"
        make(overwrite=True)
        assert len(ids(tmp_path / "x.h5")) > 1


def test_a_file_can_be_replaced_by_its_own_clips(feats):
    rewrite.select(feats, feats, split="fold-0:test", overwrite=True)
    numbered.assert_joined(feats, range(2, COUNT, 4))


def test_a_broken_clip_leaves_nothing_unless_it_is_left_out(feats, tmp_path):
    with h5py.File(feats, "r+") as file:
        low = file["streams/audio/offsets"][7]
        file["streams/audio/values"][low] = np.nan
    with pytest.raises(DataError, match="not finite"):
        rewrite.select(feats, tmp_path / "x.h5", ids=names([3, 7]))
    assert [p.name for p in tmp_path.iterdir()] == ["feats.h5"]
    rewrite.select(feats, tmp_path / "x.h5", ids=names([3, 8]))
    numbered.assert_joined(tmp_path / "x.h5", [3, 8])


# --- the list of ids ---


def test_lists_of_ids(tmp_path, monkeypatch):
    path = tmp_path / "ids.txt"
    path.write_bytes(b"\xef\xbb\xbfa b\r\n\r\n  \xc3\xbc \n")
    assert rewrite.read_ids(str(path)) == ["a b", "ü"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x\ny")))
    assert rewrite.read_ids("-") == ["x", "y"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        rewrite.read_ids(str(path))
    with pytest.raises(UsageError, match="No such file"):
        rewrite.read_ids(str(tmp_path / "none.txt"))


# --- merge ---


def test_merged_files_hold_all_clips(tmp_path):
    numbers = [range(5, 12), [3, 1], range(20, 30)]
    paths = [numbered.write(tmp_path / f"{k}.h5", n) for k, n in enumerate(numbers)]
    before = [path.read_bytes() for path in paths]
    report = rewrite.merge(paths, tmp_path / "x.h5", command="merging")
    assert report == rewrite.RewriteReport(str(tmp_path / "x.h5"), 19, 19, ["text", "audio"], [])
    numbered.assert_joined(tmp_path / "x.h5", [i for n in numbers for i in n])
    assert ids(tmp_path / "x.h5") == names([*range(5, 12), 3, 1, *range(20, 30)])
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.streams == numbered.STREAMS and list(file.labels.values()) == numbered.LABELS
        assert file.attrs["dataset"] == "numbers" and file.attrs["command"] == "merging"
        # The hash was that of the clips of one file.
        assert file.split_attrs("fold-0") == {"by": "speaker", "seed": 3}
    assert [path.read_bytes() for path in paths] == before


def test_split_attributes_that_differ_are_dropped(tmp_path):
    one = numbered.write(tmp_path / "a.h5", [1, 2], split_attrs={"by": "speaker", "seed": 3})
    two = numbered.write(tmp_path / "b.h5", [3], split_attrs={"by": "speaker", "seed": 4})
    rewrite.merge([one, two], tmp_path / "x.h5")
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.split_attrs("fold-0") == {"by": "speaker"} and file.split_attrs("default") == {}


def audio(columns=None, text=False, **attrs):
    stream = numbered.STREAMS["audio"]
    return Stream(columns or stream.columns, {**stream.attrs, **attrs}, text)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (audio(("f0", "x", "f2")), 'column 1 is "f1" and "x"'),
        (audio(extractor="c"), "extractor: b and c"),
        (audio(config='{"hop": 20}'), 'config: {"hop": 10} and {"hop": 20}'),
        (audio(config='{"hop": 10, "new": 1}'), 'config: {} and {"new": 1}'),
        (audio(config="[]"), 'config: {"hop": 10} and {}'),
        (audio(config="none"), 'config: {"hop": 10} and none'),
        (audio(rate=50.0), "rate: 100.0 and 50.0"),
        (audio(timed=False), "timed: True and False"),
        (audio(pool="max"), "pool: none and max"),
    ],
)
def test_streams_that_differ_are_refused(tmp_path, stream, message):
    one = numbered.write(tmp_path / "a.h5", [1])
    two = numbered.write(tmp_path / "b.h5", [2], streams={**numbered.STREAMS, "audio": stream})
    with pytest.raises(DataError) as caught:
        rewrite.merge([one, two], tmp_path / "x.h5")
    assert message in str(caught.value) and "a.h5 and" in str(caught.value)
    assert 'stream "audio"' in str(caught.value) and not (tmp_path / "x.h5").exists()


def small(path, streams=None, **attrs):
    """A file of one clip without rows."""
    with Writer(path, streams or {}, (), attrs) as writer:
        writer.add(Clip(path.stem), {})
    return path


def test_other_ways_in_which_streams_differ(tmp_path):
    one = small(tmp_path / "a.h5", {"m": Stream(("p",))})
    two = small(tmp_path / "b.h5", {"m": Stream(("p", "q"))})
    with pytest.raises(DataError, match="1 and 2 columns"):
        rewrite.merge([one, two], tmp_path / "x.h5")
    three = small(tmp_path / "c.h5", {"m": Stream(("p",), text=True)})
    with pytest.raises(DataError, match="only one of them has words"):
        rewrite.merge([one, three], tmp_path / "x.h5")
    four = small(tmp_path / "d.h5", {"m": Stream(("p",))}, alignment="word")
    with pytest.raises(DataError, match='a.h5: "none"; .*d.h5: "word"'):
        rewrite.merge([one, four], tmp_path / "x.h5")


def test_what_made_a_stream_is_all_named(tmp_path):
    one = small(tmp_path / "a.h5", {"m": Stream(("p",), {"owner": "mertool 1", "model": "x"})})
    two = small(tmp_path / "b.h5", {"m": Stream(("p",), {"owner": "mertool 2", "model": "x"})})
    report = rewrite.merge([one, two], tmp_path / "x.h5")
    assert report.notes == ['stream "m": owner differs: mertool 1, mertool 2']
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.streams["m"].attrs == {"owner": "mertool 1, mertool 2", "model": "x"}


def test_files_that_imports_read_are_no_settings(tmp_path):
    paths = []
    for name, more in (("a", {}), ("b", {}), ("c", {"nonfinite": "zero"})):
        config = {"nonfinite": "refuse", "file": f"{name}.npz", "sha256": name * 64, **more}
        attrs = {"extractor": "import:npz", "config": json_attr(config)}
        paths.append(small(tmp_path / f"{name}.h5", {"m": Stream(("p",), attrs)}))
    rewrite.merge(paths[:2], tmp_path / "x.h5")
    with mertool.open(tmp_path / "x.h5") as file:
        assert json.loads(file.streams["m"].attrs["config"]) == {
            "nonfinite": "refuse", "file": "a.npz, b.npz", "sha256": f"{'a' * 64}, {'b' * 64}"
        }  # fmt: skip
    with pytest.raises(DataError, match="config"):
        rewrite.merge(paths, tmp_path / "y.h5")


def test_a_stream_that_a_file_lacks(tmp_path):
    audio_only = {"audio": numbered.STREAMS["audio"]}
    one = numbered.write(tmp_path / "a.h5", [1, 2], streams=audio_only)
    two = numbered.write(tmp_path / "b.h5", [3, 4])
    report = rewrite.merge([one, two], tmp_path / "x.h5")
    assert report.streams == ["audio", "text"]
    assert report.notes == [f'stream "text" is not in {one}: no rows for its 2 clips']
    found = numbered.contents(tmp_path / "x.h5")
    for i in (3, 4):
        assert found[f"clip-{i}"] == numbered.expected(i)
    for i in (1, 2):
        empty = {f"text {key}": [] for key in ("values", "times", "word", "span")}
        assert found[f"clip-{i}"] == numbered.expected(i, streams=["audio"]) | empty


def test_labels_are_united(tmp_path):
    def write(name, labels, clips):
        with Writer(tmp_path / name, {}, labels) as writer:
            for clip_id, values in clips.items():
                writer.add(Clip(clip_id, labels=values), {})
        return tmp_path / name

    one = write(
        "a.h5",
        [
            Label("score", "regression", (), (-1.0, 2.0)),
            Label("emotion", "classification", ("sad", "calm")),
            Label("traits", "multilabel", ("high", "low")),
            Label("mine", "classification", ("x", "y")),
        ],
        {
            "a1": {"score": 2.0, "emotion": 0, "traits": [1, 0], "mine": 1},
            "a2": {"emotion": 1},
        },
    )
    two = write(
        "b.h5",
        [
            Label("theirs", "regression", (), (0.0, 1.0)),
            Label("traits", "multilabel", ("low", "loud")),
            Label("emotion", "classification", ("angry", "calm", "sad", "bored")),
            Label("score", "regression", (), (-3.0, 1.0)),
        ],
        {
            "b1": {"score": -3.0, "emotion": 0, "traits": [1, 1], "theirs": 0.5},
            "b2": {"emotion": 1, "traits": [0, 1]},
            "b3": {"emotion": 2, "traits": [1, 0]},
            "b4": {"emotion": 3},
        },
    )
    report = rewrite.merge([one, two], tmp_path / "x.h5")
    with mertool.open(tmp_path / "x.h5") as file:
        assert list(file.labels.values()) == [
            Label("score", "regression", (), (-3.0, 2.0)),
            Label("emotion", "classification", ("sad", "calm", "angry", "bored")),
            Label("traits", "multilabel", ("high", "low", "loud")),
            Label("mine", "classification", ("x", "y")),
            Label("theirs", "regression", (), (0.0, 1.0)),
        ]
        nan = np.nan
        np.testing.assert_array_equal(file.label("score"), [2, nan, -3, nan, nan, nan])
        assert file.label("emotion").tolist() == [0, 1, 2, 1, 0, 3]
        assert file.label("traits").tolist() == [
            [1, 0, 0], [-1, -1, -1], [0, 1, 1], [0, 0, 1], [0, 1, 0], [-1, -1, -1]
        ]  # fmt: skip
        assert file.label("mine").tolist() == [1, -1, -1, -1, -1, -1]
        np.testing.assert_array_equal(file.label("theirs"), [nan, nan, 0.5, nan, nan, nan])
    assert report.notes == [
        f'label "emotion": no angry, bored in {one}',
        f'label "traits": loud not known in {one}: 0 for its 2 clips',
        f'label "traits": high not known in {two}: 0 for its 4 clips',
        f'label "mine" is not in {two}: missing for its 4 clips',
        f'label "theirs" is not in {one}: missing for its 2 clips',
    ]


def test_labels_of_two_tasks_are_refused(tmp_path):
    one = numbered.write(tmp_path / "a.h5", [1])
    score = replace(numbered.LABELS[1], name="score")
    two = tmp_path / "b.h5"
    with Writer(two, numbered.STREAMS, [score]) as writer:
        writer.add(Clip("other", labels={"score": 0}), {})
    with pytest.raises(DataError, match='label "score" has two tasks') as caught:
        rewrite.merge([one, two], tmp_path / "x.h5")
    assert f"{one}: regression; {two}: classification" in str(caught.value)


def test_a_split_that_a_file_lacks(tmp_path):
    one = numbered.write(tmp_path / "a.h5", [4, 5], splits=["fold-1"])
    two = numbered.write(tmp_path / "b.h5", [6, 7], splits=["fold-0"])
    report = rewrite.merge([one, two], tmp_path / "x.h5")
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.split("fold-0") == ["", "", *(numbered.split("fold-0", i) for i in (6, 7))]
        assert file.split("fold-1") == [*(numbered.split("fold-1", i) for i in (4, 5)), "", ""]
        assert file.split() == file.column("split") == ["valid", "test", "train", "train"]
        assert file.split_attrs("fold-0") == {}
    assert report.notes == [
        f'split "fold-1" is not in {two}: no part for its 2 clips',
        f'split "fold-0" is not in {one}: no part for its 2 clips',
    ]


def test_equal_ids_are_refused(tmp_path):
    paths = [numbered.write(tmp_path / f"{k}.h5", [k, 7 - k]) for k in range(4)]
    with pytest.raises(DataError, match='"clip-5" is in two files') as caught:
        rewrite.merge([paths[2], paths[1], numbered.write(tmp_path / "y.h5", [9, 5, 2])], "x.h5")
    assert f"{paths[2]} and {tmp_path / 'y.h5'} (and 1 more)" in str(caught.value)
    with pytest.raises(DataError, match="in two files"):
        rewrite.merge([paths[0], paths[0]], tmp_path / "x.h5")
    with pytest.raises(UsageError, match="at least two"):
        rewrite.merge([paths[0]], tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_failures_that_another_file_made_good(tmp_path):
    one = numbered.write(tmp_path / "a.h5", [1], failed=[2, 3])
    two = numbered.write(tmp_path / "b.h5", [2], failed=[3, 4])
    report = rewrite.merge([one, two], tmp_path / "x.h5")
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.failures == [(f"clip-{i}", "media", f"broken {i}") for i in (3, 4)]
    (note,) = report.notes
    assert note.startswith("1 clip failed in one file")


def test_speakers_of_two_data_sets(tmp_path):
    one = numbered.write(tmp_path / "a.h5", [0, 1, 2], attrs={"dataset": "mosi"})
    two = numbered.write(tmp_path / "b.h5", [6, 7, 11], attrs={"dataset": "sims"})
    report = rewrite.merge([one, two], tmp_path / "x.h5")
    (note,) = report.notes
    assert note.startswith("2 speakers of one name") and note.endswith(": s0, s1")
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.attrs["dataset"] == "mosi, sims"
        assert file.column("source") == [f"/media/{i % 3}" for i in (0, 1, 2, 6, 7, 11)]


def test_a_select_and_its_rest_make_the_whole(feats, tmp_path):
    """Also of what was merged before: merge(merge(a, b), c) is one file like any."""
    third = [names(range(k, COUNT, 3)) for k in range(3)]
    for k in range(3):
        rewrite.select(feats, tmp_path / f"{k}.h5", ids=third[k])
    rewrite.merge([tmp_path / "2.h5", tmp_path / "0.h5"], tmp_path / "20.h5")
    rewrite.merge([tmp_path / "20.h5", tmp_path / "1.h5"], tmp_path / "x.h5")
    numbered.assert_joined(tmp_path / "x.h5", range(COUNT))
    with mertool.open(feats) as old, mertool.open(tmp_path / "x.h5") as new:
        assert new.streams == old.streams and new.labels == old.labels
        assert new.failures == old.failures and new.alignment == "word"


def test_clips_are_read_one_at_a_time(tmp_path, monkeypatch):
    """No more rows are held than the writer's buffer: the file may be larger than the memory."""
    paths = []
    for k in range(2):
        with Writer(tmp_path / f"{k}.h5", {"m": Stream(("p",))}) as writer:
            for i in range(20):
                rows = Rows(np.ones((60, 1), np.float32), np.zeros((60, 2)))
                writer.add(Clip(f"{k}-{i}"), {"m": rows})
        paths.append(tmp_path / f"{k}.h5")

    events = []
    add, read = Writer.add, mertool.store.FeatureFile.rows

    def spied_add(self, clip, streams):
        add(self, clip, streams)
        events.append(("held", sum(self._held.values())))

    def spied_read(self, index, stream):
        events.append(("read", 0))
        return read(self, index, stream)

    monkeypatch.setattr("mertool.store.writer._BUFFER", 100)
    monkeypatch.setattr(Writer, "add", spied_add)
    monkeypatch.setattr("mertool.store.FeatureFile.rows", spied_read)
    rewrite.merge(paths, tmp_path / "x.h5")
    rewrite.select(tmp_path / "x.h5", tmp_path / "y.h5", streams=["m"])
    assert [kind for kind, _ in events] == ["read", "held"] * 80
    assert max(rows for _, rows in events) <= 100


# --- the commands ---


def test_select_command(call, feats, tmp_path):
    listed = tmp_path / "ids.txt"
    listed.write_text("clip-5\nclip-77\nclip-11\n")
    done = call("data", "select", feats, "-o", tmp_path / "x.h5", "--ids", listed,
                "--streams", "audio,text", "--speaker", "s5")  # fmt: skip
    assert done.code == 0 and done.err == "Note: ids of clips that failed: 1\n"
    assert done.out == f"{tmp_path / 'x.h5'}: 2 of 30 clips, streams text, audio\n"
    numbered.assert_joined(tmp_path / "x.h5", [5, 11])
    done = call(
        "data", "select", feats, "-o", tmp_path / "y.h5", "--split", "fold-0:test", "--json"
    )
    told = json.loads(done.out)
    assert told["clips"] == len(ids(tmp_path / "y.h5")) == len(range(2, COUNT, 4))
    with mertool.open(tmp_path / "y.h5") as file:
        assert file.attrs["command"].startswith("mertool")


def test_merge_command(call, tmp_path):
    one = numbered.write(tmp_path / "a.h5", [1, 2])
    two = numbered.write(tmp_path / "b.h5", [3], streams={"text": numbered.STREAMS["text"]})
    done = call("data", "merge", one, two, "-o", tmp_path / "x.h5")
    assert done.code == 0 and done.err == (
        f'Note: stream "audio" is not in {two}: no rows for its 1 clip\n'
    )
    assert done.out == f"{tmp_path / 'x.h5'}: 3 of 3 clips, streams text, audio\n"
    again = call("data", "merge", one, two, "-o", tmp_path / "x.h5", "--json")
    assert again.code == 1 and "--overwrite" in again.err and again.out == ""
    done = call("data", "merge", one, two, "-o", tmp_path / "x.h5", "--json", "--overwrite", "-q")
    assert done.err == "" and json.loads(done.out)["clips"] == 3


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (["select", "feats.h5", "-o", "x.h5"], 2, "--ids, --split"),
        (["select", "feats.h5", "-o", "x.h5", "--split", "tests"], 2, 'Did you mean "test"'),
        (["select", "feats.h5", "-o", "x.h5", "--ids", "none.txt"], 2, "none.txt"),
        (["select", "feats.h5", "-o", "x.h5", "--streams", ","], 1, "No stream is left"),
        (["select", "gone.h5", "-o", "x.h5", "--split", "test"], 1, "no such feature file"),
        (["merge", "feats.h5", "-o", "x.h5"], 2, "at least two"),
        (["merge", "-o", "x.h5"], 2, "FILE..."),
        (["merge", "feats.h5", "gone.h5", "-o", "x.h5"], 1, "gone.h5"),
        (["merge", "feats.h5", "feats.h5", "-o", "x.h5"], 1, "in two files"),
    ],
)
def test_what_the_commands_refuse(call, feats, monkeypatch, args, code, part):
    monkeypatch.chdir(feats.parent)
    done = call("data", *args)
    assert done.code == code and part in done.err and len(done.err.splitlines()) <= 3
    assert done.out == "" and not (feats.parent / "x.h5").exists()
