"""The align stage with aligners that take several clips at once, and with named aligners."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mertool import align
from mertool.align import place
from mertool.errors import DataError, MertoolWarning
from mertool.store import FeatureFile, Stream, Writer
from mertool.types import Clip, Rows, Word
from mertool.words import split_words

STREAMS = {"audio": Stream(("a",), {"extractor": "fake", "rate": 2.0, "timed": True})}


class Many:
    """Takes clips together; each word lasts a tenth of its clip."""

    batch = 4
    calls: list[list[str]] = []  # noqa: RUF012 - of this process

    @dataclass(frozen=True)
    class Config:
        late: float = 0.0
        name: str = "it's"

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config

    def align(self, clip: Clip) -> list[Word]:
        return self._words([clip])[0]

    def align_many(self, clips: list[Clip]) -> list[list[Word]]:
        return self._words(clips)

    def _words(self, clips: list[Clip]) -> list[list[Word]]:
        self.calls.append([clip.id for clip in clips])
        found = []
        for clip in clips:
            assert clip.streams is None and clip.media.is_file()
            if "crash" in clip.text:
                raise ZeroDivisionError("a foreign aligner's mistake")
            if "odd" in clip.text:
                warnings.warn("an odd clip", MertoolWarning, stacklevel=2)
            texts = [clip.text[a:b] for a, b in split_words(clip.text)]
            step = (clip.end - clip.start) / 10
            late = self.config.late
            words = [Word(t, i * step + late, (i + 1) * step, 0.5) for i, t in enumerate(texts)]
            found.append(words[:1] if "lazy" in clip.text else words)
        return found


class Installed:
    """A registry with one aligner."""

    def load(self, kind: str, name: str) -> type:
        assert kind == "aligner" and name in ("many", "pocketsphinx")
        return Many


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "registry", Installed)
    Many.calls.clear()


def write(path: Path, clips: list[tuple[str, float, str, list[Word] | None]]) -> Path:
    """A file of (id, length, text, words)."""
    row = Rows(np.ones((1, 1), np.float32), np.array([[0.0, 1.0]]))
    with Writer(path, STREAMS, [], {}) as writer:
        for name, length, text, words in clips:
            (path.parent / f"{name}.wav").touch()
            clip = Clip(name, f"{name}.wav", str(path.parent), 0.0, length, text, words=words)
            writer.add(clip, {"audio": row})
    return path


def plain(count: int = 10) -> list[tuple[str, float, str, None]]:
    return [(f"c{i}", float(1 + (7 * i) % 10), "good bad", None) for i in range(count)]


def words_of(path: Path) -> dict[str, list[Word]]:
    with FeatureFile(path) as file:
        return {clip.id: clip.words for clip in file}


def test_clips_of_similar_length_go_together_and_come_in_order(tmp_path: Path) -> None:
    feats = write(tmp_path / "f.h5", plain())
    report = align.run(feats, tmp_path / "o.h5", aligner="many")
    assert (report.clips, report.words, report.failures) == (10, 20, [])
    lengths = {name: length for name, length, _, _ in plain()}
    assert [[lengths[name] for name in call] for call in Many.calls] == [
        [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]
    ]  # fmt: skip
    words = words_of(tmp_path / "o.h5")
    assert list(words) == [f"c{i}" for i in range(10)]
    for name, length in lengths.items():
        assert words[name][1] == Word("bad", length / 10, length / 5, 0.5)


def test_nothing_is_lost_where_one_fails(tmp_path: Path) -> None:
    texts = ["good", "crash now", "odd one", "lazy one", "fine", "", "well"]
    clips = [(f"c{i}", 1.0 + i, text, None) for i, text in enumerate(texts)]
    (feats := write(tmp_path / "f.h5", clips))
    (tmp_path / "c6.wav").unlink()
    reports = {
        jobs: align.run(feats, tmp_path / f"{jobs}.h5", aligner="many", jobs=jobs)
        for jobs in (1, 2)
    }
    for report in reports.values():
        assert [name for name, _, _ in report.failures] == ["c1", "c3", "c6"]
        assert "ZeroDivisionError" in report.failures[0][2]
        assert "missing" in report.failures[2][2]
        assert ("c2", "an odd clip") in report.warnings
        assert [name for name, _ in report.warnings] == ["c2", "c5"]
    assert words_of(tmp_path / "1.h5") == words_of(tmp_path / "2.h5")


@pytest.mark.parametrize("jobs", [1, 2])
def test_as_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    feats = write(tmp_path / "f.h5", plain(70))
    together = align.run(feats, tmp_path / "t.h5", aligner="many", jobs=jobs)
    monkeypatch.setattr(Many, "batch", 1)
    alone = align.run(feats, tmp_path / "a.h5", aligner="many", jobs=jobs)
    assert together.words == alone.words == 140
    assert words_of(tmp_path / "t.h5") == words_of(tmp_path / "a.h5")


def test_long_clips_go_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_TOGETHER", 11.0)
    align.run(write(tmp_path / "f.h5", plain()), tmp_path / "o.h5", aligner="many")
    assert sorted(map(len, Many.calls)) == [1] * 6 + [4]


# --- A named aligner ---

STORED = [Word("good", 0.25, 0.5, 1.0), Word("bad", 0.5, 0.75, 1.0)]


def test_times_in_the_file_are_used_unless_an_aligner_is_named(tmp_path: Path) -> None:
    feats = write(tmp_path / "f.h5", [("a", 1.0, "good bad", STORED), ("b", 1.0, "well", None)])
    align.run(feats, tmp_path / "kept.h5")
    assert Many.calls == [["b"]]
    assert words_of(tmp_path / "kept.h5")["a"] == STORED
    align.run(feats, tmp_path / "anew.h5", aligner="many")
    assert Many.calls[1:] == [["a", "b"]]
    assert words_of(tmp_path / "anew.h5")["a"][0] == Word("good", 0.0, 0.1, 0.5)
    for name, anew in (("kept", False), ("anew", True)):
        with FeatureFile(tmp_path / f"{name}.h5") as file:
            attrs = file.streams["audio"].attrs
            assert attrs["aligner"] == ("many" if anew else "pocketsphinx")
            assert bool(attrs["realigned"]) is anew
            assert json.loads(attrs["aligner_config"]) == {"late": 0.0, "name": "it's"}


def test_no_aligner_is_recorded_where_none_was_run(tmp_path: Path) -> None:
    feats = write(tmp_path / "f.h5", [("a", 1.0, "good bad", STORED)])
    align.run(feats, tmp_path / "o.h5")
    with FeatureFile(tmp_path / "o.h5") as file:
        attrs = file.streams["audio"].attrs
        assert (attrs["aligner"], attrs["aligner_config"]) == ("", "")
        assert not attrs["realigned"]
    (tmp_path / "a.wav").unlink()
    with pytest.raises(DataError, match="cannot be aligned anew"):
        align.run(feats, tmp_path / "p.h5", aligner="many")


def test_words_out_of_order_are_said_and_aligned_anew(tmp_path: Path) -> None:
    wrong = [Word("good", 0.5, 0.75, 1.0), Word("bad", 0.0, 0.25, 1.0)]
    feats = write(
        tmp_path / "f.h5", [("a", 1.0, "good bad", wrong), ("b", 1.0, "good bad", STORED)]
    )
    report = align.run(feats, tmp_path / "o.h5")
    assert report.warnings == [("a", "its word times are out of order: all words are aligned anew")]
    assert Many.calls == [["a"]]
    words = words_of(tmp_path / "o.h5")
    assert words["a"][0].start == 0 and words["b"] == STORED


def test_words_past_the_end_are_said(tmp_path: Path) -> None:
    late = [Word("good", 0.5, 0.75, 1.0), Word("bad", 1.0, 1.25, 1.0)]
    report = align.run(write(tmp_path / "f.h5", [("a", 1.0, "good bad", late)]), tmp_path / "o.h5")
    assert report.warnings == [("a", "1 of 2 words end after the clip's end, 1 s")]
    assert words_of(tmp_path / "o.h5")["a"] == late


def test_predict_aligns_as_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name stands for all words, the default for those without times; settings come back."""
    from types import SimpleNamespace

    import mertool.predict
    from mertool.data import DataConfig
    from mertool.train.prepare import prepare
    from mertool.types import Label

    row = Rows(np.ones((1, 1), np.float32), np.array([[0.0, 1.0]]))
    feats, stream = tmp_path / "f.h5", Stream(("a",), {**STREAMS["audio"].attrs, "config": "{}"})
    with Writer(feats, {"audio": stream}, [Label("y", "regression", (), (0.0, 1.0))], {}) as writer:
        for i, split in enumerate(["train", "train", "valid", "valid"]):
            (tmp_path / f"{i}.wav").touch()
            clip = Clip(
                str(i), f"{i}.wav", str(tmp_path), 0.0, 1.0, "well", split=split,
                labels={"y": i / 3},
            )  # fmt: skip
            writer.add(clip, {"audio": row})
    monkeypatch.setattr(mertool.predict, "registry", Installed)
    asked = []

    def run(features, aligned, **options):
        asked.append({k: options.get(k) for k in ("to", "aligner", "pool", "settings")})
        return SimpleNamespace(failures=[], warnings=[])

    for name in ("many", None):
        out = tmp_path / f"{name}.h5"
        align.run(feats, out, aligner=name, pool="max", settings=["align.late=0.01"])
        split = np.array(["train", "train", "valid", "valid"])
        made = prepare(out, "y", ["audio"], split, DataConfig())
        trained = SimpleNamespace(streams={}, alignment=made.alignment)
        with monkeypatch.context() as patch:
            patch.setattr("mertool.align.run", run)
            patch.setattr(
                "mertool.extract.run", lambda *_, **__: SimpleNamespace(failures=[], notes=[])
            )
            report = mertool.predict.PredictReport()
            for own in ([], ["align.late=0.5"]):
                words = {"transcript": "sidecar", "settings": own}
                mertool.predict._features(trained, ["x.mp4"], tmp_path, words, 1, False, report)
    recorded, changed = [
        ["align.late=0.01", "align.name=it's"], ["align.name=it's", "align.late=0.5"]
    ]  # fmt: skip
    assert asked == [
        {"to": "word", "aligner": aligner, "pool": "max", "settings": settings}
        for aligner in ("many", None)
        for settings in (recorded, changed)
    ]
