"""Adding and replacing streams of a feature file."""

import json

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


def test_without_sources_the_clips_are_those_of_the_file(tmp_path, clips):
    with_sources, without = tmp_path / "a.h5", tmp_path / "b.h5"
    for path in (with_sources, without):
        run(clips, path, text="letters", audio="none", vision="none")
    add_streams(clips, with_sources, vision="colour", audio="loudness")
    report = add_streams([], without, vision="colour", audio="loudness", jobs=2)
    assert report.clips == 4 and report.exit_code == 0 and not report.notes
    assert_same(with_sources, without)


def test_a_part_of_a_recording_stays_that_part(tmp_path, clips):
    (clips / "manifest.csv").write_text("clip_id,path,start,end\na,001.mp4,0.1,0.3\n")
    path = tmp_path / "x.h5"
    run(clips, path, text="none", audio="loudness", vision="none")
    add_streams([], path, vision="colour")
    with mertool.open(path) as file:
        clip = file["a"]
        assert (clip.start, clip.end) == (0.1, 0.3)
        assert 4 <= len(clip.streams["vision"]) <= 6  # 25 frames per second


def test_text_needs_no_media_and_the_rest_does(tmp_path, clips):
    path = tmp_path / "x.h5"
    run(clips, path, text="none", audio="loudness", vision="none")
    before = only(path, "clips", "streams/audio")
    for medium in clips.glob("*.mp4"):
        medium.unlink()
    report = add_streams([], path, text="letters")
    assert report.clips == 4 and report.exit_code == 0
    assert [note for note in report.notes if "no text" not in note[1]] == []
    same(only(path, "clips", "streams/audio"), before)
    with mertool.open(path) as file:
        assert file.lengths("text").tolist() == [1, 2, 0, 1]
        assert [w.text for w in file.clip(1).words] == ["two", "words"]
    with pytest.raises(DataError, match="None of the 4 clips"):
        add_streams([], path, vision="colour")


def words_file(folder):
    """An imported file of transcripts: no media, times of most words."""
    from mertool.readers import run as read

    rows = [
        {"id": "v_1", "transcript": "IT was good", "label": 1.5, "split": "train",
         "words": [["it", 10.0, 10.2], ["was", 10.2, 10.5], ["good", 10.9, 11.0]]},
        {"id": "v_2", "words": [["no", 1.0, 1.5], ["more", None, None], ["so", 2.0, 3.0]]},
        {"id": "w_1", "words": [["never", None, None], ["timed", None, None]]},
    ]  # fmt: skip
    (folder / "w.json").write_text(json.dumps(rows))
    read("words", folder / "w.json", folder / "w.h5")
    return folder / "w.h5"


def test_transcripts_without_media_from_import_to_alignment(tmp_path):
    path = words_file(tmp_path)
    with mertool.open(path) as file:
        before = {clip.id: clip.words for clip in file}
    assert add_streams((), path, text="letters", command="second").exit_code == 0
    with mertool.open(path) as file:
        assert {clip.id: clip.words for clip in file} == before
        assert file.lengths("text").tolist() == [3, 3, 2] and file.labels["label"].range == (
            1.5,
            1.5,
        )
    report = mertool.align(path, tmp_path / "a.h5")
    # The clip without any time, and without media, fails alone.
    assert [(name, stage) for name, stage, _ in report.failures] == [("w_1", "align")]
    assert (report.clips, report.words, report.unaligned_words) == (2, 6, 1)
    with mertool.open(tmp_path / "a.h5") as file:
        assert file.ids == ["v_1", "v_2"]
        text = file["v_1"].streams["text"]
        np.testing.assert_allclose(text.times, [[0, 0.2], [0.2, 0.5], [0.9, 1.0]], atol=1e-9)
        assert text.values[:, 0].tolist() == [2, 3, 4]
        np.testing.assert_allclose(file["v_2"].streams["text"].times[1], [0.5, 1.0])


def test_a_recording_that_only_gave_its_name_is_not_looked_for(tmp_path):
    """An imported path may be a name alone: text does without, sound cannot."""
    path = words_file(tmp_path)
    with mertool.open(path) as file:
        assert file.column("path") == ["v", "v", "w"]
    with pytest.raises(DataError, match="None of the 3 clips"):
        add_streams([], path, audio="loudness")


def test_without_sources_refused(tmp_path, clips):
    path = tmp_path / "x.h5"
    with Writer(path, {}) as writer:
        writer.split("fold-0", [])
    with pytest.raises(DataError, match="has no clips"):
        add_streams([], path, text="letters")
    run(clips, path, text="letters", audio="none", vision="none", overwrite=True)
    before = path.read_bytes()
    for wrong in (
        {"manifest": clips / "manifest.csv"}, {"transcript": "none"}, {"segment": "sentences"}
    ):  # fmt: skip
        with pytest.raises(UsageError, match="those of the feature file") as caught:
            add_streams([], path, text="letters", **wrong)
        assert f"--{next(iter(wrong))} " in caught.value.where
    assert path.read_bytes() == before


def test_without_sources_on_the_command_line(tmp_path, clips):
    from click.testing import CliRunner

    from mertool.cli.extract import extract

    path = str(tmp_path / "x.h5")
    run(clips, path, text="letters", audio="none", vision="none")

    def call(*args):
        return CliRunner().invoke(extract, [*args, "-q"], standalone_mode=False)

    done = call("--into", path, "--audio", "loudness")
    assert done.exception is None and done.stdout.startswith(f"{path}: 4 clips, 0 failed")
    wrong = call("-o", path)
    assert isinstance(wrong.exception, click.UsageError) and "SOURCE" in str(wrong.exception)
