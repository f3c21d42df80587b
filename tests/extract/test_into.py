"""Adding and replacing streams of a feature file."""

import click
import numpy as np
import pytest
from cli.toys import assert_same, contents, make_clips, use

import mertool
from mertool.errors import DataError, OutputError, UsageError
from mertool.extract import add_streams, run
from mertool.store import Stream, Writer


@pytest.fixture(autouse=True)
def toys(tmp_path, monkeypatch):
    with use(tmp_path / "installed", monkeypatch):
        yield


@pytest.fixture
def clips(tmp_path):
    return make_clips(tmp_path / "clips", ["one", "two words", "", "four"])


def only(path, *parts):
    return {k: v for k, v in contents(path).items() if any(p in k for p in parts)}


def same(one, two):
    assert one.keys() == two.keys() and one
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def test_a_stream_added_later_is_as_if_made_at_once(tmp_path, clips):
    at_once, later = tmp_path / "all.h5", tmp_path / "later.h5"
    run(clips, at_once, text="letters", audio="loudness", vision="colour")
    run(clips, later, text="letters", audio="loudness", vision="none", command="first")
    report = add_streams(clips, later, vision="colour", command="second", jobs=2)
    assert report.out == str(later) and report.clips == 4 and report.exit_code == 0
    assert_same(later, at_once)
    with mertool.open(later) as file:
        assert str(file.attrs["command"]).split("\n") == ["first", "second"]
    assert [p.name for p in tmp_path.iterdir() if "into" in p.name] == []


def test_a_stream_is_replaced_and_nothing_else(tmp_path, clips):
    path = tmp_path / "x.h5"
    run(clips, path, text="letters", audio="none", vision="colour")
    before = only(path, "streams/text", "clips")
    add_streams(clips, path, vision="colour", settings=["vision.gain=2"])
    same(only(path, "streams/text", "clips"), before)
    with mertool.open(path) as file:
        assert '"gain": 2' in file.streams["vision"].attrs["config"]


def test_splits_and_failures_stay_and_a_bad_clip_keeps_its_place(tmp_path, clips):
    path = tmp_path / "x.h5"
    run(clips, path, text="letters", audio="none", vision="none")
    with mertool.open(path) as file:
        copied = list(file)
    with Writer(path, {"text": Stream(("letters", "first"), {}, True)}) as writer:
        for clip in copied:
            writer.add(clip, clip.streams)
        writer.split("fold-0", ["train"] * 4)
        writer.fail("gone", "media", "long ago")
    victim = copied[1].media
    victim.write_text("no media")
    report = add_streams(clips, path, audio="loudness")
    assert [f[0] for f in report.failures] == [copied[1].id] and report.exit_code == 3
    with mertool.open(path) as file:
        assert len(file) == 4 and file.split("fold-0") == ["train"] * 4
        assert [f[0] for f in file.failures] == ["gone", copied[1].id]
        assert (file.lengths("audio") > 0).tolist() == [True, False, True, True]


def test_other_media_or_another_text_give_no_rows(tmp_path, clips):
    path = tmp_path / "x.h5"
    run(clips, path, text="letters", audio="none", vision="none")
    other = make_clips(tmp_path / "other", ["one", "other words", "", "four", "a stranger"])
    report = add_streams(other, path, text="letters")
    told = dict(report.notes)
    with mertool.open(path) as file:
        second = file.ids[1]
        assert file.lengths("text")[1] == 0 and file.lengths("text")[0] == 1
    assert "transcript is not" in told[second]
    assert any("left out" in note for note in told.values())


def test_refused(tmp_path, clips):
    path = tmp_path / "x.h5"
    with pytest.raises(DataError, match="no such feature file"):
        add_streams(clips, path, audio="loudness")
    run(clips, path, text="letters", audio="none", vision="none")
    before = path.read_bytes()
    for wrong in ({}, {"audio": "none"}):
        with pytest.raises(UsageError, match="Which stream"):
            add_streams(clips, path, **wrong)
    with pytest.raises(UsageError, match="no extractor"):
        add_streams(clips, path, audio="loudnes")
    stranger = make_clips(tmp_path / "stranger", ["x"])
    (stranger / "manifest.csv").write_text("clip_id,path\nnobody,001.mp4\n")
    with pytest.raises(DataError, match="No clip of the feature file"):
        add_streams(stranger, path, audio="loudness")
    assert path.read_bytes() == before
    aligned = tmp_path / "a.h5"
    with mertool.open(path) as file:
        copied = list(file)
    with Writer(
        aligned, {"text": Stream(("letters", "first"), {}, True)}, attrs={"alignment": "word"}
    ) as w:
        for clip in copied:
            w.add(clip, clip.streams)
    with pytest.raises(DataError, match="aligned"):
        add_streams(clips, aligned, audio="loudness")


def test_on_the_command_line(tmp_path, clips):
    from click.testing import CliRunner

    from mertool.cli.extract import extract

    path = str(tmp_path / "x.h5")
    run(clips, path, text="letters", audio="none", vision="none")

    def call(*args):
        return CliRunner().invoke(extract, [str(clips), *args, "-q"], standalone_mode=False)

    done = call("--into", path, "--audio", "loudness")
    assert done.exception is None and done.stdout.startswith(f"{path}: 4 clips, 0 failed")
    for wrong in (("--into", path, "-o", path), (), ("--into", path, "--overwrite")):
        assert isinstance(call(*wrong).exception, click.UsageError)


def test_a_stopped_merge_is_resumed_or_made_again(tmp_path, clips, monkeypatch):
    path = tmp_path / "x.h5"
    run(clips, path, text="letters", audio="none", vision="none")
    before = path.read_bytes()

    def stop(*args):
        raise OutputError("The output cannot be written: played.", str(path))

    for again in ({"resume": True}, {}):
        with monkeypatch.context() as patch:
            patch.setattr("mertool.extract.into._merge", stop)
            with pytest.raises(OutputError):
                add_streams(clips, path, audio="loudness")
        assert path.read_bytes() == before
        report = add_streams(clips, path, audio="loudness", **again)
        assert report.clips == 4 and report.resumed == (4 if again else 0)
        before = path.read_bytes()
