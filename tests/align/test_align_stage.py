"""The align stage on small feature files, with an aligner whose words are known."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import mertool
from mertool import align
from mertool.errors import DataError, MediaError, MertoolWarning, OutputError, UsageError
from mertool.store import FeatureFile, Stream, Writer
from mertool.types import Clip, Label, Rows, Word
from mertool.words import split_words

STREAMS = {
    "text": Stream(("t",), {"extractor": "fake", "rate": 0.0, "timed": False}, True),
    "audio": Stream(("a",), {"extractor": "fake", "rate": 2.0, "timed": True}),
    "vision": Stream(("v", "valid"), {"extractor": "fake", "rate": 1.0, "timed": True}),
}
LABELS = [
    Label("sentiment", "regression", (), (-3.0, 3.0)),
    Label("emotion", "classification", ("a", "b")),
]


class Second:
    """Says that each word lasts one second, the first beginning at 0.5 s."""

    @dataclass(frozen=True)
    class Config:
        late: float = 0.5

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config

    def align(self, clip: Clip) -> list[Word]:
        assert clip.streams is None and clip.media.is_file()
        if "crash" in clip.text:
            raise ZeroDivisionError("a foreign aligner's mistake")
        if "damaged" in clip.text:
            raise MediaError("The file is damaged.", str(clip.media), "Copy it again.")
        if "stop" in clip.text:
            raise KeyboardInterrupt
        if "odd" in clip.text:
            warnings.warn("an odd clip", MertoolWarning, stacklevel=2)
            warnings.warn("not for users", DeprecationWarning, stacklevel=2)
        texts = [clip.text[a:b] for a, b in split_words(clip.text)]
        if "lazy" in clip.text:
            texts = texts[:1]
        late = self.config.late
        return [
            Word(t, i + late, i + 1 + late, -1.0 if t == "odd" else 0.5)
            for i, t in enumerate(texts)
        ]


class Refused:
    """An aligner that must not be needed."""

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config, device: str = "cpu") -> None:
        raise AssertionError("the aligner was built")


class Installed:
    """A registry with one aligner of any name."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def load(self, kind: str, name: str) -> type:
        assert kind == "aligner"
        return self.cls


@pytest.fixture(autouse=True)
def second(monkeypatch):
    monkeypatch.setattr(align, "registry", lambda: Installed(Second))


def clip(name: str, text: str = "good bad", source: str = "", **more) -> Clip:
    return Clip(name, f"{name}.wav", source, 0.0, 4.0, text, "en", "anna", "train", **more)


def rows(text: str) -> dict[str, Rows]:
    """Two text rows per word (values 10 w + 1, 10 w + 3), audio row i = i, vision row i = i."""
    spans = split_words(text)
    word = np.repeat(np.arange(len(spans), dtype=np.int32), 2)
    values = 10 * word[:, None] + np.tile([1, 3], len(spans))[:, None]
    half, whole = np.arange(8) / 2, np.arange(4.0)
    valid = [1, 0, 1, 1]
    return {
        "text": Rows(
            values.astype(np.float32),
            np.zeros((len(word), 2)),
            word,
            np.array(spans, np.int32).reshape(-1, 2)[word],
        ),
        "audio": Rows(np.arange(8, dtype=np.float32)[:, None], np.stack([half, half + 0.5], 1)),
        "vision": Rows(
            np.stack([whole, valid], 1).astype(np.float32), np.stack([whole, whole + 1], 1)
        ),
    }


def write(path, clips, streams=STREAMS, failures=(), attrs=None, touch=True):
    with Writer(path, streams, LABELS, {"dataset": "toy", **(attrs or {})}) as writer:
        for c in clips:
            given = c.streams if c.streams is not None else rows(c.text)
            writer.add(c, {name: r for name, r in given.items() if name in streams})
            if touch and c.source:
                (path.parent / c.path).touch()
        for failure in failures:
            writer.fail(*failure)
    return path


@pytest.fixture
def feats(tmp_path):
    """One clip of 4 s with two words, 0.5 to 1.5 and 1.5 to 2.5 s."""
    one = clip("one", source=str(tmp_path), labels={"sentiment": 1.5, "emotion": 1})
    return write(tmp_path / "f.h5", [one], failures=[("gone", "decode", "damaged")])


def test_words_by_hand(feats, tmp_path):
    report = mertool.align(feats, tmp_path / "o.h5", command="mertool align", progress=False)
    assert (report.clips, report.words, report.unaligned_words, report.exit_code) == (1, 2, 0, 0)
    with mertool.open(tmp_path / "o.h5") as file:
        assert file.alignment == "word"
        assert file.attrs["dataset"] == "toy" and file.attrs["command"] == "mertool align"
        assert file.failures == [("gone", "decode", "damaged")]
        assert file.split() == ["train"]
        assert sorted(file.labels.values(), key=str) == sorted(LABELS, key=str)
        one = file["one"]
        assert one.labels == {"sentiment": 1.5, "emotion": 1}
        assert (one.speaker, one.language, one.source) == ("anna", "en", str(tmp_path))
        assert one.words == [Word("good", 0.5, 1.5, 0.5), Word("bad", 1.5, 2.5, 0.5)]
        for stream in one.streams.values():
            assert stream.times.tolist() == [[0.5, 1.5], [1.5, 2.5]]
        text, audio, vision = (one.streams[name] for name in ("text", "audio", "vision"))
        assert text.values.tolist() == [[2.0], [12.0]]
        assert text.word.tolist() == [0, 1] and text.span.tolist() == [[0, 4], [5, 8]]
        assert audio.values.tolist() == [[1.5], [3.5]]
        # Row 1 has no face: word 0 sees row 0 alone, word 1 row 2 alone, each half the time.
        assert vision.values.tolist() == [[0.0, 0.5], [2.0, 0.5]]
        for name, stream in file.streams.items():
            attrs = stream.attrs
            assert stream.columns == STREAMS[name].columns and attrs["extractor"] == "fake"
            assert (bool(attrs["timed"]), attrs["rate"]) == (True, 0.0)
            assert (attrs["aligner"], attrs["pool"]) == ("pocketsphinx", "mean")
            before = json.loads(attrs["aligned_from"])
            assert before == {k: STREAMS[name].attrs[k] for k in ("rate", "timed")}


@pytest.mark.parametrize(
    ("how", "text", "audio"),
    [("max", [[3.0], [13.0]], [[2.0], [4.0]]), ("last", [[3.0], [13.0]], [[2.0], [4.0]])],
)
def test_other_pools(feats, tmp_path, how, text, audio):
    align.run(feats, tmp_path / "o.h5", pool=how)
    with mertool.open(tmp_path / "o.h5") as file:
        assert file["one"].streams["text"].values.tolist() == text
        assert file["one"].streams["audio"].values.tolist() == audio


def test_segments_by_hand(feats, tmp_path):
    report = align.run(feats, tmp_path / "o.h5", to="segments:4")
    assert report.words == 2
    with mertool.open(tmp_path / "o.h5") as file:
        assert file.alignment == "segments:4"
        one = file["one"]
        for stream in one.streams.values():
            assert stream.times.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
        assert one.streams["audio"].values[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
        text = one.streams["text"]
        assert text.values[:, 0].tolist() == [2.0, 7.0, 12.0, 0.0]
        assert text.word.tolist() == [0, 0, 1, -1]
        assert text.span.tolist() == [[0, 4], [0, 4], [5, 8], [0, 0]]
        assert [w.text for w in one.words] == ["good", "bad"]


def test_segments_without_text_need_no_words(tmp_path, monkeypatch):
    monkeypatch.setattr(align, "registry", lambda: Installed(Refused))
    timed = {k: v for k, v in STREAMS.items() if not v.text}
    feats = write(tmp_path / "f.h5", [clip("one"), clip("two", "")], timed)
    report = align.run(feats, tmp_path / "o.h5", to="segments:2")
    assert (report.clips, report.words, report.exit_code) == (2, 0, 0)
    with mertool.open(tmp_path / "o.h5") as file:
        assert file["two"].streams["audio"].values[:, 0].tolist() == [1.5, 5.5]
        assert file.streams["audio"].attrs["aligner"] == ""


def test_word_times_in_the_file_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(align, "registry", lambda: Installed(Refused))
    words = [Word("good", 0, 1, 0.9), Word("bad", 3, 4, -1)]
    feats = write(tmp_path / "f.h5", [clip("one", words=words), clip("two", "")])
    report = align.run(feats, tmp_path / "o.h5")
    assert (report.words, report.unaligned_words) == (2, 1)
    with mertool.open(tmp_path / "o.h5") as file:
        assert file["one"].words == [Word("good", 0, 1, np.float32(0.9)), Word("bad", 3, 4, -1)]
        assert file["one"].streams["audio"].values.tolist() == [[0.5], [6.5]]


def test_word_times_that_were_only_spaced_are_sought_again(tmp_path):
    words = [Word("good", 0, 2, -1), Word("bad", 2, 4, -1)]
    feats = write(tmp_path / "f.h5", [clip("one", words=words, source=str(tmp_path))])
    assert align.run(feats, tmp_path / "o.h5").unaligned_words == 0


def test_absent_streams_and_transcripts(tmp_path):
    here = str(tmp_path)
    deaf = clip(
        "deaf", source=here, streams={k: v for k, v in rows("good bad").items() if k != "audio"}
    )
    mute = clip("mute", "", here, streams={k: v for k, v in rows("").items()})
    dots = clip("dots", "...", here, streams={**rows("good"), "audio": rows("")["audio"]})
    for to, expected in (
        ("word", {"deaf": [2, 0, 2], "mute": [0, 0, 0], "dots": [0, 0, 0]}),
        ("segments:3", {"deaf": [3, 0, 3], "mute": [0, 3, 3], "dots": [3, 3, 3]}),
    ):
        feats = write(tmp_path / "f.h5", [deaf, mute, dots])
        report = align.run(feats, tmp_path / "o.h5", to=to, overwrite=True)
        assert report.exit_code == 0
        with mertool.open(tmp_path / "o.h5") as file:
            got = {c.id: [len(c.streams[n]) for n in ("text", "audio", "vision")] for c in file}
            assert got == expected
            if to != "word":
                assert not file["dots"].streams["text"].values.any()
        noted = [name for name, _ in report.warnings]
        assert noted == (["mute", "dots"] if to == "word" else [])


def test_one_missing_medium_is_one_failure(tmp_path):
    here = str(tmp_path)
    feats = write(tmp_path / "f.h5", [clip("one", source=here), clip("two", source=here)])
    (tmp_path / "one.wav").unlink()
    report = align.run(feats, tmp_path / "o.h5")
    assert report.exit_code == 3 and report.clips == 1
    [(name, stage, error)] = report.failures
    assert (name, stage) == ("one", "align") and str(tmp_path / "one.wav") in error
    with mertool.open(tmp_path / "o.h5") as file:
        assert file.ids == ["two"] and file.failures == report.failures


def test_no_media_at_all_is_told_before_anything_is_done(tmp_path):
    feats = write(
        tmp_path / "f.h5", [clip("one", source="/gone"), clip("two", source="/gone")], touch=False
    )
    with pytest.raises(DataError) as error:
        align.run(feats, tmp_path / "o.h5")
    assert "--media DIR" in error.value.fix and "/gone/one.wav" in error.value.where
    assert not (tmp_path / "o.h5").exists()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("one", "two"):
        (moved / f"{name}.wav").touch()
    report = align.run(feats, tmp_path / "o.h5", media=moved)
    assert report.clips == 2
    with mertool.open(tmp_path / "o.h5") as file:
        assert file.column("source") == ["/gone", "/gone"]


def test_clips_without_media_names(tmp_path):
    imported = clip("one")
    imported.path = ""
    with pytest.raises(DataError, match="name no media"):
        align.run(write(tmp_path / "f.h5", [imported]), tmp_path / "o.h5")


def test_a_bad_clip_does_not_stop_the_rest(tmp_path):
    texts = {"a": "fine", "b": "crash now", "c": "damaged", "d": "lazy one", "e": "odd one"}
    clips = [clip(name, text, str(tmp_path)) for name, text in texts.items()]
    report = align.run(write(tmp_path / "f.h5", clips), tmp_path / "o.h5")
    assert report.exit_code == 3
    assert [name for name, _, _ in report.failures] == ["b", "c", "d"]
    errors = {name: error for name, _, error in report.failures}
    assert errors["b"] == "ZeroDivisionError: a foreign aligner's mistake"
    assert "The file is damaged." in errors["c"] and "\n" not in errors["c"]
    assert "1 words for 2" in errors["d"]
    assert report.warnings == [("e", "an odd clip")]
    assert (report.clips, report.words, report.unaligned_words) == (2, 3, 1)
    with mertool.open(tmp_path / "o.h5") as file:
        assert file.ids == ["a", "e"]
        assert file["e"].words[0].score == -1


def test_all_failed_is_an_error_and_no_file(tmp_path):
    feats = write(tmp_path / "f.h5", [clip("a", "crash", str(tmp_path))])
    with pytest.raises(DataError, match="All 1 clips failed"):
        align.run(feats, tmp_path / "o.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "f.h5"]


def test_text_of_another_transcript_is_a_failure(tmp_path):
    here = str(tmp_path)
    wrong = clip("wrong", "one", here, streams=rows("one two three"))
    report = align.run(write(tmp_path / "f.h5", [wrong, clip("b", "x", here)]), tmp_path / "o.h5")
    assert [name for name, _, _ in report.failures] == ["wrong"]


def test_ctrl_c_leaves_nothing(tmp_path):
    here = str(tmp_path)
    feats = write(tmp_path / "f.h5", [clip("a", "go", here), clip("b", "stop", here)])
    with pytest.raises(KeyboardInterrupt):
        align.run(feats, tmp_path / "o.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav", "f.h5"]


def test_processes_change_nothing(tmp_path):
    names = [f"c{i}" for i in range(12)]
    texts = ["good bad", "odd one", "crash", "one two three"] * 3
    clips = [clip(n, t, str(tmp_path)) for n, t in zip(names, texts, strict=True)]
    feats = write(tmp_path / "f.h5", clips)
    one = align.run(feats, tmp_path / "1.h5")
    two = align.run(feats, tmp_path / "2.h5", jobs=2)
    assert (one.failures, one.warnings, one.words) == (two.failures, two.warnings, two.words)
    assert len(one.failures) == 3
    with FeatureFile(tmp_path / "1.h5") as a, FeatureFile(tmp_path / "2.h5") as b:
        assert a.ids == b.ids and a.failures == b.failures
        assert [c.words for c in a] == [c.words for c in b]
        for name in STREAMS:
            np.testing.assert_array_equal(a.values(name)[0], b.values(name)[0])


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(n_clips: int) -> float:
        half_second = np.arange(8000) / 2
        big = Rows(
            np.ones((8000, 64), np.float32), np.stack([half_second, half_second + 0.5], axis=1)
        )
        streams = {"audio": Stream(tuple(map(str, range(64))), {"timed": True})}
        clips = [clip(f"c{i}", "", streams={"audio": big}) for i in range(n_clips)]
        feats = write(tmp_path / f"{n_clips}.h5", clips, streams)
        tracemalloc.start()
        align.run(feats, tmp_path / "o.h5", to="segments:3", overwrite=True)
        highest = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        return highest

    few, many = peak(4), peak(24)  # 2 MB of rows each
    assert many < few + 5


def test_settings_reach_the_aligner(feats, tmp_path):
    align.run(feats, tmp_path / "o.h5", settings=["align.late=1"])
    with mertool.open(tmp_path / "o.h5") as file:
        assert file["one"].words[0].start == 1.0
    with pytest.raises(UsageError, match=r"align\.lat: .*late"):
        align.run(feats, tmp_path / "p.h5", settings=["align.lat=1"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": "words"},
        {"to": "segments"},
        {"to": "segments:0"},
        {"to": "segments:-2"},
        {"to": "segments:2.5"},
        {"to": "segments:x"},
        {"to": "word:3"},
        {"pool": "median"},
        {"jobs": 0},
    ],
    ids=str,
)
def test_wrong_values_are_refused(feats, tmp_path, wrong):
    with pytest.raises(UsageError) as error:
        align.run(feats, tmp_path / "o.h5", **wrong)
    assert error.value.what and error.value.where and error.value.fix
    assert not (tmp_path / "o.h5").exists()


def test_unknown_aligner(feats, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(UsageError, match="pocketsphinx"):
        align.run(feats, tmp_path / "o.h5", aligner="pocketsphynx")


def test_an_existing_output_is_kept(feats, tmp_path):
    align.run(feats, tmp_path / "o.h5")
    with pytest.raises(OutputError, match="exists"):
        align.run(feats, tmp_path / "o.h5", to="segments:2")
    align.run(feats, tmp_path / "o.h5", to="segments:2", overwrite=True)
    with pytest.raises(DataError, match='aligned already, to "segments:2"'):
        align.run(tmp_path / "o.h5", tmp_path / "p.h5")


def test_rows_without_times_are_refused(tmp_path):
    streams = {"audio": Stream(("a",), {"timed": False})}
    feats = write(tmp_path / "f.h5", [clip("one", source=str(tmp_path))], streams)
    with pytest.raises(DataError, match='stream "audio"'):
        align.run(feats, tmp_path / "o.h5")


def test_progress_is_silent_where_stderr_is_no_terminal(feats, tmp_path, capsys):
    align.run(feats, tmp_path / "o.h5", progress=True)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")


def test_importing_is_cheap():
    code = (
        "import sys, mertool.align, mertool.align.sphinx; "
        "print([m for m in ('torch', 'av', 'pocketsphinx', 'joblib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
