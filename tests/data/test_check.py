import json

import h5py
import numpy as np
import pytest
import synthetic

import mertool.check
from mertool.check import check
from mertool.errors import DataError
from mertool.store import Stream, Writer
from mertool.types import Clip, Label, Rows


def found(path, level=None):
    """{(what, where): finding}"""
    report = check(path)
    return {(f.what, f.where): f for f in report.findings if level in (None, f.level)}


@pytest.fixture(params=[1 << 20, 7], ids=["whole", "blocks"])
def block(request, monkeypatch):
    """Rows are read at once, or in blocks smaller than a clip."""
    monkeypatch.setattr(mertool.check, "_BLOCK", request.param)


def edit(path, **changes):
    """Set `{"streams/audio/values": (index, value)}`."""
    with h5py.File(path, "r+") as file:
        for name, (index, value) in changes.items():
            file[name][index] = value


def test_a_sound_file_has_no_problems(tmp_path, block):
    report = check(synthetic.write(tmp_path / "x.h5"))
    assert report.findings == [] and report.exit_code == 0 and report.clips == 60


def test_values_that_are_not_finite(tmp_path, block):
    path = synthetic.write(tmp_path / "x.h5")
    with h5py.File(path) as file:
        offsets = file["streams/audio/offsets"][:]
    rows = [offsets[3], offsets[3] + 1, offsets[60] - 1]
    with h5py.File(path, "r+") as file:
        values = file["streams/audio/values"]
        for row, value in zip(rows, (np.nan, np.inf, -np.inf), strict=True):
            values[row, 1] = value
        values[offsets[5], 2] = np.nan
    problems = found(path, "problem")
    assert set(problems) == {
        ("values that are not finite", "audio: b"), ("values that are not finite", "audio: c")
    }  # fmt: skip
    one = problems["values that are not finite", "audio: b"]
    assert one.count == 3 and one.examples == ["clip3", "clip59"]
    assert problems["values that are not finite", "audio: c"].examples == ["clip5"]
    assert check(path).exit_code == 1


def test_many_bad_columns_are_gathered(tmp_path):
    path = synthetic.write(tmp_path / "x.h5")
    edit(path, **{"streams/text/values": ((0, slice(None)), np.nan)})
    problems = found(path, "problem")
    assert len(problems) == 6
    assert problems["values that are not finite", "text: 1 more columns"].count == 1


def test_times(tmp_path, block):
    path = synthetic.write(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        offsets, times = file["streams/audio/offsets"][:], file["streams/audio/times"]
        times[offsets[2] + 1, 0] = np.nan
        times[offsets[4] + 3] = times[offsets[4] + 1]  # goes back
        times[offsets[6], 1] = -1.0  # ends before it starts
    problems = found(path, "problem")
    assert problems["times that are not finite", "audio"].examples == ["clip2"]
    assert problems["times that run backwards", "audio"].examples == ["clip4", "clip6"]
    assert len(problems) == 2


def test_times_start_anew_with_every_clip(tmp_path, block):
    """A clip's first row is earlier than the last of the clip before: that is no mistake."""
    path = tmp_path / "x.h5"
    rng = np.random.default_rng(0)
    with Writer(path, {"audio": Stream(("a",))}) as writer:
        for i, count in enumerate((3, 0, 5, 1)):
            times = np.stack([np.arange(count), np.arange(count) + 1], 1).astype(float)
            rows = Rows(rng.normal(size=(count, 1)).astype(np.float32), times)
            writer.add(Clip(str(i)), {"audio": rows})
    assert found(path, "problem") == {}


def test_constant_columns_are_a_note(tmp_path, block):
    path = synthetic.write(tmp_path / "x.h5")
    edit(path, **{"streams/audio/values": ((slice(None), slice(1, 3)), 3.5)})
    (note,) = check(path).findings
    assert (note.level, note.where, note.count) == ("note", "audio", 2)
    assert note.examples == ["b", "c"]


def some(path, rows, clips=None, labels=(), texts=False):
    """A file whose clip i has rows[i] = {stream: number of rows}."""
    rng = np.random.default_rng(1)
    streams = {"audio": Stream(("a", "b")), "vision": Stream(("v",)), "text": Stream(("t",))}
    with Writer(path, streams, list(labels)) as writer:
        for i, counts in enumerate(rows):
            data = {}
            for name, count in counts.items():
                values = rng.normal(size=(count, len(streams[name].columns))).astype(np.float32)
                times = np.stack([np.arange(count), np.arange(count) + 1], 1).astype(float)
                data[name] = Rows(values, times)
            writer.add(clips[i] if clips else Clip(f"c{i}"), data)
    return path


def test_empty_streams_and_clips(tmp_path):
    parts = ["train"] * 3 + ["valid"] * 2 + ["test"] * 2
    rows = [{"audio": 3, "vision": 2}, {"audio": 3}, {"vision": 2}, {"audio": 1, "vision": 4},
            {"vision": 3}, {"audio": 2}, {}]  # fmt: skip
    clips = [Clip(f"c{i}", split=s) for i, s in enumerate(parts)]
    report = check(some(tmp_path / "x.h5", rows, clips))
    told = {(f.level, f.what, f.where): (f.count, f.examples) for f in report.findings}
    assert told == {
        ("problem", "no rows in one part of a split", 'vision: test of split "default"'): (2, []),
        ("note", "no rows at all; training leaves it out", "text"): (7, []),
        ("note", "clips without rows", "audio"): (3, ["c2", "c4", "c6"]),
        ("note", "clips without rows", "vision"): (3, ["c1", "c5", "c6"]),
        ("note", "clips without rows in any stream", ""): (1, ["c6"]),
    }
    assert [f.level for f in report.findings][0] == "problem"


def test_missing_labels(tmp_path):
    labels = [Label("score", "regression"), Label("mood", "classification", ("glad", "sad"))]
    clips = [
        Clip("a", split="train", labels={"score": 1.0, "mood": 0}),
        Clip("b", split="train", labels={"mood": 1}),
        Clip("c", split="test", labels={"mood": 1}),
    ]
    told = found(some(tmp_path / "x.h5", [{"audio": 2}] * 3, clips, labels))
    note = told["clips without the label", "score"]
    assert (note.level, note.count, note.examples) == ("note", 2, ["b", "c"])
    problem = told["no label in one part of a split", 'score: test of split "default"']
    assert (problem.level, problem.count) == ("problem", 1)
    assert not any(where.startswith("mood") for _, where in told)


def test_a_planted_speaker_leak_is_found_in_every_split(tmp_path):
    path = synthetic.write(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        split = list(file["splits/default"].asstr()[:])
        split[8] = "train"  # speaker s8 is of test
        file["splits/other"] = np.array(split, dtype=h5py.string_dtype())
    (problem,) = found(path, "problem").values()
    assert (problem.what, problem.where) == ("speaker leak", 'split "other"')
    assert problem.examples == ["s8"]


def twin_file(path, one, two, streams=("audio", "text")):
    """Clips 0 and 1 have the same rows, in splits `one` and `two`."""
    rng = np.random.default_rng(2)
    made = {name: Stream(("a", "b"), text=name == "text") for name in streams}
    rows = {}
    with Writer(path, made) as writer:
        for i, split in enumerate([one, two, "train", "valid", "test"]):
            if i != 1:
                for name in streams:
                    count = 3 + i
                    times = np.stack([np.arange(count), np.arange(count) + 1], 1).astype(float)
                    more = ()
                    if name == "text":
                        more = np.arange(count, dtype=np.int32), np.zeros((count, 2), np.int32)
                    values = rng.normal(size=(count, 2)).astype(np.float32)
                    rows[name] = Rows(values, times, *more)
            writer.add(Clip(f"c{i}", split=split), rows)
    return path


@pytest.mark.parametrize(
    ("one", "two", "level", "what", "where"),
    [
        ("train", "test", "problem", "same clip under several ids in two parts",
         'split "default"'),
        ("train", "train", "note", "same clip under several ids", ""),
        ("train", "", "note", "same clip under several ids", ""),
    ],
)  # fmt: skip
def test_one_clip_under_two_ids(tmp_path, block, one, two, level, what, where):
    (finding,) = check(twin_file(tmp_path / "x.h5", one, two)).findings
    assert (finding.level, finding.what, finding.where) == (level, what, where)
    assert finding.count == 2 and finding.examples == ["c0 = c1"]


def test_clips_that_differ_in_one_value_are_two(tmp_path, block):
    path = twin_file(tmp_path / "x.h5", "train", "test")
    edit(path, **{"streams/audio/values": ((5, 1), 0.25)})  # a row of c1
    assert check(path).findings == []


def test_the_same_words_are_no_twins(tmp_path):
    (finding,) = check(twin_file(tmp_path / "x.h5", "train", "test", ("text",))).findings
    assert (finding.level, finding.what) == ("note", "same text rows, and no others")


def test_the_same_rows_in_another_stream_are_no_twins(tmp_path):
    rows = Rows(np.ones((2, 1), np.float32), np.array([[0.0, 1.0], [1.0, 2.0]]))
    with Writer(tmp_path / "x.h5", {"a": Stream(("x",)), "b": Stream(("x",))}) as writer:
        writer.add(Clip("one"), {"a": rows})
        writer.add(Clip("two"), {"b": rows})
    assert not any("same" in f.what for f in check(tmp_path / "x.h5").findings)


def test_text_that_says_nothing(tmp_path):
    label = Label("mood", "classification", ("glad", "sad"))
    clips = [Clip(f"c{i}", text=("kids", "dogs")[i % 2], labels={"mood": i // 2 % 2})
             for i in range(8)]  # fmt: skip
    report = check(some(tmp_path / "x.h5", [{"audio": 2}] * 8, clips, [label]))
    (note,) = [f for f in report.findings if "said" in f.what]
    assert note.level == "note" and note.where == "mood" and note.count == 8
    assert note.what.startswith("the same 2 sentences are said for every")


def test_rows_are_never_read_whole(tmp_path, monkeypatch):
    path = synthetic.write(tmp_path / "x.h5")
    with h5py.File(path) as file:
        total = len(file["streams/audio/values"])
    monkeypatch.setattr(mertool.check, "_BLOCK", 30)
    seen = []
    real = h5py.Dataset.__getitem__

    def spy(self, index, *more):
        result = real(self, index, *more)
        if self.name == "/streams/audio/values":
            seen.append(len(result))
        return result

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    check(path)
    assert sum(seen) == total and max(seen) == 10


def test_an_empty_file_is_checked(tmp_path):
    with Writer(tmp_path / "x.h5", {"audio": Stream(("a",))}, synthetic.LABELS):
        pass
    assert check(tmp_path / "x.h5").exit_code == 0


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="no such feature file"):
        check(tmp_path / "x.h5")


# --- the command ---


def test_check_command(call, tmp_path):
    path = synthetic.write(tmp_path / "x.h5")
    done = call("data", "check", path)
    assert done.code == 0 and "60 clips; problems: 0, notes: 0" in done.out
    edit(path, **{"streams/audio/values": ((0, 0), np.nan)})
    done = call("data", "check", path)
    assert done.code == 1 and done.err == ""
    assert "problems: 1" in done.out and "audio: a" in done.out and "clip0" in done.out
    done = call("data", "check", path, "--json")
    told = json.loads(done.out)
    assert done.code == 1 and told["problems"] == 1
    assert told["findings"][0] == {
        "level": "problem", "what": "values that are not finite", "where": "audio: a",
        "count": 1, "examples": ["clip0"],
    }  # fmt: skip


def test_notes_alone_are_no_failure(call, tmp_path):
    path = synthetic.write(tmp_path / "x.h5")
    edit(path, **{"streams/audio/values": ((slice(None), 1), 3.5)})
    done = call("data", "check", path)
    assert done.code == 0 and "never change" in done.out


def test_check_of_what_is_no_feature_file(call, tmp_path):
    (tmp_path / "x.h5").write_text("no")
    done = call("data", "check", tmp_path / "x.h5")
    assert done.code == 1 and done.out == "" and done.err.count("\n") == 3
