"""`mertool data export words`: what is written is what is read back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mertool.errors import DataError, OutputError, UsageError
from mertool.store import Writer
from mertool.transcripts import Cue, Transcript
from mertool.transcripts.export import export, safe_name
from mertool.transcripts.files import give, read
from mertool.transcripts.write import save_json, save_textgrid, whisperx
from mertool.types import Clip, Word
from mertool.words import split_words


def words(text, start=0.0, step=0.5, score=0.75):
    """Words that follow each other from `start`."""
    spans = split_words(text)
    return [
        Word(text[a:b], start + i * step, start + (i + 1) * step, score)
        for i, (a, b) in enumerate(spans)
    ]


def said(name, text, start=0.0, path="a.mp4", **more):
    """A clip of two seconds."""
    given = {"words": words(text), "language": "en", "speaker": "ann", **more}
    return Clip(name, path, "/videos", start, start + 2.0, text, **given)


@pytest.fixture
def file(tmp_path):
    """`file(clips)`: path of a feature file of them."""

    def write(*clips):
        path = tmp_path / "f.h5"
        with Writer(path, {}) as writer:
            for clip in clips:
                writer.add(clip, {})
        return path

    return write


CLIPS = [
    said("a2", "Well -- it's", 2.0),
    said("a1", "One two.", 0.0),
    said("b", "Hi", path="tapes/b.wav", words=words("Hi", score=-1.0), language="", speaker=""),
    said("none", "", path="c.mp4"),
    said("alone", "Me", path=""),
]


def test_a_file_for_each_medium(file, tmp_path):
    report = export(file(*CLIPS), tmp_path / "out")
    assert [x["file"] for x in report.files] == ["a.json", "tapes/b.json", "alone.json"]
    assert report.files[1] == {
        "file": "tapes/b.json", "medium": "tapes/b.wav", "clips": 1, "words": 1, "placed": 1
    }  # fmt: skip
    assert report.skipped == ["c.mp4"]
    assert report.notes == ["recordings without a transcript: 1, the first c.mp4"]
    document = json.loads((tmp_path / "out" / "a.json").read_text())
    assert document["language"] == "en"
    assert document["segments"][1] == {
        "start": 2.0, "end": 4.0, "text": "Well -- it's", "speaker": "ann", "words": [
            {"word": "Well", "start": 2.0, "end": 2.5, "score": 0.75},
            {"word": "it's", "start": 2.5, "end": 3.0, "score": 0.75},
        ],
    }  # fmt: skip
    assert [w["word"] for w in document["word_segments"]] == ["One", "two.", "Well", "it's"]
    assert json.loads((tmp_path / "out" / "tapes" / "b.json").read_text())["language"] == ""


@pytest.mark.parametrize("kind", ["whisperx", "textgrid"])
def test_clips_get_back_what_they_had(file, tmp_path, kind):
    report = export(file(*CLIPS), tmp_path / "out", kind)
    made = {x["medium"]: read(tmp_path / "out" / x["file"]) for x in report.files}
    for clip in CLIPS:
        if not clip.text:
            continue
        bare = Clip(clip.id, clip.path, clip.source, clip.start, clip.end)
        again, notes = give(bare, made[clip.path or clip.id])
        assert (again.text, notes) == (clip.text, [])
        assert again.words == clip.words


def test_textgrid_as_praat_sees_it(file, tmp_path):
    from praatio import textgrid

    export(file(*CLIPS), tmp_path / "out", "textgrid")
    grid = textgrid.openTextgrid(str(tmp_path / "out" / "a.TextGrid"), False)
    assert grid.tierNames == ("words", "scores", "utterances") and grid.maxTimestamp == 4.0
    assert [tuple(e) for e in grid.getTier("words").entries] == [
        (0, 0.5, "One"), (0.5, 1, "two."), (2, 2.5, "Well"), (2.5, 3, "it's")
    ]  # fmt: skip
    assert [e.label for e in grid.getTier("scores").entries] == ["0.75"] * 4
    assert [tuple(e) for e in grid.getTier("utterances").entries] == [
        (0, 2, "One two."), (2, 4, "Well -- it's")
    ]  # fmt: skip


def test_words_without_times(file, tmp_path):
    timeless = [Word("One", 0, 0), Word("two.", 0, 0)]
    path = file(said("x", "One two.", words=timeless), said("y", "Hi", path="b.mp4"))
    report = export(path, tmp_path / "json")
    assert report.files[0]["placed"] == 2
    segment = json.loads((tmp_path / "json" / "a.json").read_text())["segments"][0]
    assert segment["words"] == [{"word": "One"}, {"word": "two."}] and segment["end"] == 2.0
    assert read(tmp_path / "json" / "a.json").words is None
    report = export(path, tmp_path / "grid", "textgrid")
    assert [x["file"] for x in report.files] == ["b.TextGrid"] and report.skipped == ["a.mp4"]
    assert "align them first: 1, the first a.mp4" in report.notes[0]
    path.unlink()
    with pytest.raises(DataError, match="no times yet") as caught:
        export(file(said("x", "One two.", words=timeless)), tmp_path / "none", "textgrid")
    assert "mertool align" in caught.value.fix and len(str(caught.value).splitlines()) == 3
    assert not (tmp_path / "none").exists()


def test_nothing_to_write(file, tmp_path):
    with pytest.raises(DataError, match="nothing to write"):
        export(file(said("x", "")), tmp_path / "out")
    with pytest.raises(UsageError, match='"srt"'):
        export("f.h5", tmp_path / "out", "srt")


def test_files_that_exist(file, tmp_path):
    path, out = file(*CLIPS), tmp_path / "out"
    (out / "tapes").mkdir(parents=True)
    (out / "tapes" / "b.json").write_text("mine")
    with pytest.raises(OutputError, match="1 of the 3 files exist already"):
        export(path, out)
    assert [p.name for p in out.iterdir()] == ["tapes"]
    export(path, out, overwrite=True)
    assert json.loads((out / "tapes" / "b.json").read_text())
    assert not [p for p in out.rglob("*") if p.name.endswith("tmp")]


def test_an_output_that_cannot_be_written(file, tmp_path):
    (tmp_path / "out").write_text("a file")
    for kind in ("whisperx", "textgrid"):
        with pytest.raises(OutputError):
            export(
                file(*CLIPS) if kind == "whisperx" else tmp_path / "f.h5", tmp_path / "out", kind
            )


def test_media_of_one_name(file, tmp_path):
    clips = [
        said("1", "One", path="a.mp4"),
        said("2", "Two", path="a.wav"),
        said("3", "Three", path="A.mkv"),
        said("4", "Four", path="a-2.mp4"),
        said("a", "Five", path=""),
    ]
    report = export(file(*clips), tmp_path / "out")
    names = [x["file"] for x in report.files]
    assert names == ["a.json", "a-2.json", "A-3.json", "a-2-2.json", "a-4.json"]
    assert [read(tmp_path / "out" / n).text for n in names] == "One Two Three Four Five".split()
    assert sum("another recording has this name" in note for note in report.notes) == 4


def test_no_name_leaves_the_folder(file, tmp_path):
    names = ["../x", "/etc/passwd", "..", "C:\\a\\b", "con", "a/../../b", ".hidden", "x" * 300]
    clips = [said(f"c{i}", "Hi", path=name) for i, name in enumerate(names)]
    clips += [said(name, "Hi", path="") for name in ("../../y", "é/\n?", "v$_$3", "NUL.txt")]
    out = tmp_path / "deep" / "out"
    report = export(file(*clips), out)
    written = {p.relative_to(out).as_posix() for p in out.rglob("*.json")}
    assert written == {x["file"] for x in report.files} and len(written) == len(clips)
    assert {p for p in tmp_path.rglob("*.json")} == {p for p in out.rglob("*.json")}
    assert {"x.json", "etc/passwd.json", "_.json", "C_/a/b.json", "con_.json"} <= written
    assert {"a/b.json", "hidden.json", "y.json", "é/__.json", "v$_$3.json"} <= written
    assert "NUL.txt_.json" in written


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12) | st.text("./\\ aC:", max_size=12))
def test_safe_names(name):
    parts = safe_name(name).split("/")
    assert all(part.strip(" .") and not part.startswith(".") for part in parts)
    assert not set('<>:"|?*\\\n\0') & set(safe_name(name))


def test_several_languages_are_said(file, tmp_path):
    clips = [said("1", "Hi"), said("2", "Salut", 2.0, language="fr"), said("3", "Hi", 4.0)]
    report = export(file(*clips), tmp_path / "out")
    assert "its clips are in en, fr; written is en" in report.notes[0]


def test_clips_that_overlap(file, tmp_path):
    clips = [
        said("1", "One two three four"),
        said("2", "three four five", 1.0),
        said("3", "x", 0.5),
    ]
    export(file(*clips), tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "a.json").read_text())["segments"]) == 3
    report = export(tmp_path / "f.h5", tmp_path / "out", "textgrid")
    assert report.notes == [
        "a.mp4: clips that overlap the one before, cut: 2",
        "a.mp4: words of no length, in the tier utterances only: 4",
    ]
    made = read(tmp_path / "out" / "a.TextGrid")
    assert [(c.start, c.end, c.text) for c in made.cues] == [
        (0, 2, "One two three four"), (2, 2.5, "x"), (2.5, 3, "three four five")
    ]  # fmt: skip


def test_words_of_no_length_stay_in_the_text(tmp_path):
    found = (Word("a", 0, 1, 1.0), Word("b", 1, 1, -1.0), Word("c", 1, 2, 1.0))
    notes = save_textgrid(tmp_path / "a.TextGrid", Transcript([Cue("a b c", 0, 2, found)]))
    assert notes == ["words of no length, in the tier utterances only: 1"]
    assert read(tmp_path / "a.TextGrid").words == list(found)


def test_numbers_of_json_are_plain():
    cue = Cue("a b", 0.1 + 0.2, 1 / 3, (Word("a", 0.1 + 0.2, 1 / 3, 2 / 3), Word("b", 0.4, 0.5)))
    assert whisperx(Transcript([cue]))["segments"][0]["words"] == [
        {"word": "a", "start": 0.3, "end": 0.333333, "score": 0.6667},
        {"word": "b", "start": 0.4, "end": 0.5, "score": -1.0},
    ]


LETTERS = 'ab"é我5.-[]{}<&>\\ \u3000'


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(LETTERS, max_size=10), max_size=4), st.data())
def test_round_trip(tmp_path_factory, texts, data):
    cues, place = [], 0
    for text in texts:
        spans, begin = split_words(text), place
        found = []
        for a, b in spans:
            place += data.draw(st.integers(0, 3))
            length = data.draw(st.integers(1, 4))
            score = data.draw(st.sampled_from([-1.0, 0.0, 0.25, 1.0]))
            found.append(Word(text[a:b], place / 8, (place + length) / 8, score))
            place += length
        place += 1
        if found:
            cues.append(Cue(" ".join(text.split()), begin / 8, place / 8, tuple(found)))
    transcript = Transcript(cues, "en")
    folder = tmp_path_factory.getbasetemp()
    save_json(folder / "r.json", transcript)
    assert read(folder / "r.json") == transcript
    notes = save_textgrid(folder / "r.TextGrid", transcript)
    made = read(folder / "r.TextGrid")
    assert made.notes == notes == [] and made.cues == cues


def test_times_survive_to_a_tenth_of_a_millisecond(tmp_path):
    found = tuple(Word(f"w{i}", i / 7, (i + 0.9) / 7, 1.0) for i in range(50))
    cue = Cue(" ".join(w.text for w in found), 0.0, 50 / 7, found)
    save_textgrid(tmp_path / "a.TextGrid", Transcript([cue]))
    save_json(tmp_path / "a.json", Transcript([cue]))
    for name, tolerance in (("a.TextGrid", 6e-5), ("a.json", 6e-7)):
        for one, two in zip(read(tmp_path / name).words, found, strict=True):
            assert math.isclose(one.start, two.start, abs_tol=tolerance)
            assert math.isclose(one.end, two.end, abs_tol=tolerance)
