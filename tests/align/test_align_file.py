"""The aligner `file`: word times of another program."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import mertool
from mertool.align.file import File
from mertool.errors import DataError, MertoolWarning
from mertool.store import Stream, Writer
from mertool.testing import check_aligner, failed
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.files import read
from mertool.transcripts.write import save_json
from mertool.types import Clip, Rows, Word
from mertool.words import split_words

SPOKEN = "one two three four"


@pytest.fixture
def put(tmp_path):
    """`put("a.json", text, start)`: a file whose words last a second each, from `start` on."""

    def write(name, text=SPOKEN, start=0.0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        words = tuple(
            Word(text[a:b], start + i, start + i + 1, 0.5)
            for i, (a, b) in enumerate(split_words(text))
        )
        end = words[-1].end if words else None
        save_json(path, Transcript([Cue(text, start if words else None, end, words)]))

    return write


def align(clip, folder=""):
    """(its words as (text, start, end, score), what was said of them)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        words = File(File.Config(str(folder))).align(clip)
    said = [str(w.message) for w in caught if issubclass(w.category, MertoolWarning)]
    return [(w.text, w.start, w.end, w.score) for w in words], said


def refused(clip, folder=""):
    with pytest.raises(DataError) as caught:
        align(clip, folder)
    assert len(str(caught.value).splitlines()) == 3
    return str(caught.value)


def clip_of(folder, text, start=0.0, end=None, path="tapes/a.mp4", name="c1"):
    return Clip(name, path, str(folder), start, end, text)


def test_beside_the_medium(put, tmp_path):
    put("tapes/a.json")
    words, said = align(clip_of(tmp_path, "One, TWO -- three! four"))
    assert words == [
        ("One,", 0, 1, 0.5), ("TWO", 1, 2, 0.5), ("three!", 2, 3, 0.5), ("four", 3, 4, 0.5)
    ]  # fmt: skip
    assert said == []


def test_a_part_of_the_recording(put, tmp_path):
    put("tapes/a.json", start=10.0)
    words, said = align(clip_of(tmp_path, "two three", 10.75, 12.75))
    assert words == [("two", 0.25, 1.25, 0.5), ("three", 1.25, 2.0, 0.5)] and said == []


def test_words_that_the_file_lacks_are_placed(put, tmp_path):
    put("tapes/a.json")
    words, said = align(clip_of(tmp_path, "oh one and then two for", 0.0, 6.0))
    assert words == [
        ("oh", 0, 0, -1), ("one", 0, 1, 0.5), ("and", 1, 1, -1), ("then", 1, 1, -1),
        ("two", 1, 2, 0.5), ("for", 2, 6, -1),
    ]  # fmt: skip
    assert said == ["a.json lacks 4 of 6 words: placed, score -1"]


def test_a_repeated_word_has_its_own_time(put, tmp_path):
    put("tapes/a.json", "no I said no no way")
    words, _ = align(clip_of(tmp_path, "no way"))
    assert words == [("no", 4, 5, 0.5), ("way", 5, 6, 0.5)]


def test_nothing_fits(put, tmp_path):
    put("tapes/a.json")
    assert "none of the clip's 2 words" in refused(clip_of(tmp_path, "quite different"))
    assert "nothing is said in the time" in refused(clip_of(tmp_path, "one", 50.0, 60.0))


def test_no_file(tmp_path):
    assert "a.*" in refused(clip_of(tmp_path, "one"))
    (tmp_path / "tapes").mkdir()
    (tmp_path / "tapes" / "a.json").write_text(json.dumps({"fps": 25}))
    assert "no transcript file" in refused(clip_of(tmp_path, "one"))
    (tmp_path / "tapes" / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\none\n")
    assert "no times of words" in refused(clip_of(tmp_path, "one"))
    (tmp_path / "tapes" / "a.align").write_text("0 1\n")
    assert 'line 1: "0 1"' in refused(clip_of(tmp_path, "one"))
    assert align(clip_of(tmp_path, " -- ")) == ([], [])
    with pytest.raises(DataError, match="folder of the transcript files is missing"):
        File(File.Config(str(tmp_path / "gone")))


@pytest.mark.parametrize("name", ["tapes/a", "a"])
def test_a_folder_of_files_of_media(put, tmp_path, name):
    put(f"times/{name}.json", start=10.0)
    clip = clip_of("/nowhere", "two three", 11.0, 13.0)
    words, _ = align(clip, tmp_path / "times")
    assert [w[1:3] for w in words] == [(0, 1), (1, 2)]


def test_a_file_of_one_clip_counts_from_its_start(put, tmp_path):
    put("times/v$_$3.2.json", "two three")
    put("times/a.json", start=50.0)
    clip = clip_of("/nowhere", "two three", 11.0, 13.0, name="v$_$3.2")
    assert [w[1:3] for w in align(clip, tmp_path / "times")[0]] == [(0, 1), (1, 2)]


def test_an_id_leads_nowhere_else(put, tmp_path):
    put("secret.json")
    put("times/b.json")
    for name in ("../secret", str(tmp_path / "secret"), "..", ""):
        clip = clip_of("/nowhere", "one", path="../secret.mp4", name=name)
        assert "no transcript file" in refused(clip, tmp_path / "times")


def test_what_is_odd_in_the_file_is_said(tmp_path):
    (tmp_path / "a.align").write_text("0 25000 one\n20000 50000 two\n")
    words, said = align(clip_of(tmp_path, "one two", path="a.mp4"))
    assert words == [("one", 0, 0.8, 1), ("two", 0.8, 2, 1)]
    assert "overlap the next" in said[0]


def test_a_file_that_changes_is_read_again(put, tmp_path):
    put("tapes/a.json", "one")
    assert align(clip_of(tmp_path, "one"))[0] == [("one", 0, 1, 0.5)]
    put("tapes/a.json", "one", start=3.0)
    assert align(clip_of(tmp_path, "one"))[0] == [("one", 3, 4, 0.5)]


def test_grid(shared):
    folder = shared / "data" / "grid"
    for path in sorted(folder.glob("*.align")):
        made = read(path)
        words, said = align(Clip(path.stem, f"{path.stem}.mpg", str(folder), text=made.text))
        assert words == [(w.text, w.start, w.end, 1.0) for w in made.words] and said == []


def test_features_without_media(put, tmp_path):
    put("times/c1.json")
    feats, out = tmp_path / "f.h5", tmp_path / "a.h5"
    with Writer(feats, {"audio": Stream(("a",), {"timed": True})}) as writer:
        rows = Rows(
            np.arange(4, dtype=np.float32)[:, None], np.array([[k, k + 1] for k in range(4)])
        )
        writer.add(Clip("c1", text=SPOKEN, end=4.0), {"audio": rows})
    report = mertool.align(
        feats, out, aligner="file", settings=[f"align.folder={tmp_path / 'times'}"]
    )
    assert (report.words, report.unaligned_words, report.failures) == (4, 0, [])
    with mertool.open(out) as file:
        assert file["c1"].streams["audio"].values[:, 0].tolist() == [0, 1, 2, 3]


def test_it_passes_the_checks_of_aligners():
    results = check_aligner("file")
    assert not failed(results) and {r.status for r in results} == {"passed"}
