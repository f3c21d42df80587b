"""Real feature sets: what is imported is what stands in the files, and gives the stated figures."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

import mertool
from mertool import readers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def imported(shared, tmp_path):
    """`imported(name)`: (open feature file, the file it was read from, the report)."""
    opened = []

    def read(reader: str, path: str):
        source = shared / "data" / path
        report = readers.run(reader, source, tmp_path / "x.h5")
        opened.append(mertool.open(tmp_path / "x.h5"))
        return opened[-1], source, report

    yield read
    for file in opened:
        file.close()


@pytest.fixture
def sanity(monkeypatch):
    """The benchmark script."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("sanity", ROOT / "benchmarks" / "sanity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_figures(sanity, name, file, clips):
    """The stated figures are met, and computed on that many clips."""
    figures, scored = sanity.BASELINES[name](file)
    assert scored == clips
    for key, stated in sanity.STATED[name].items():
        assert sanity.within(key, figures[key], stated, clips), (key, figures[key])


def test_mosi(imported, sanity):
    file, source, report = imported("npz", "mosi/mosi_utterance.npz")
    raw = np.load(source)
    assert file.ids == raw["id"].tolist() and file.alignment == "none"
    assert file.splits == ["default", "official", "original"]
    assert file.split("default") == file.split("original") == raw["split_original"].tolist()
    official = np.where(raw["split_official"] == "val", "valid", raw["split_official"])
    assert file.split("official") == official.tolist()
    assert report.splits["official"] == {"train": 1284, "valid": 229, "test": 686}
    np.testing.assert_array_equal(file.label("label"), raw["label"])
    assert file.labels["label"].range == (-3, 3)
    np.testing.assert_array_equal(file.label("label_bin"), raw["label_bin"])
    assert file.labels["label_bin"].classes == ("0", "1")
    assert file.column("text") == raw["transcript"].tolist()
    assert file.column("path") == [i.rpartition("_")[0] for i in raw["id"].tolist()]
    assert len(set(file.column("path"))) == 93
    for stream, key in (("text", "text"), ("audio", "audio"), ("vision", "video")):
        np.testing.assert_array_equal(file.values(stream)[0], raw[key])
        assert (file.lengths(stream) == 1).all()
    assert_figures(sanity, "mosi", file, 752)


@pytest.mark.slow
def test_mosi_words(imported, sanity):
    file, source, report = imported("words", "mosi/mosi_words.json")
    raw = json.loads(source.read_text())
    assert file.ids == [r["id"] for r in raw] and not file.streams
    assert file.column("text") == [r["transcript"] for r in raw]
    np.testing.assert_array_equal(file.label("label"), [r["label"] for r in raw])
    assert file.split() == [r["split"].replace("val", "valid") for r in raw]
    placed = 0
    for clip, row in zip(file, raw, strict=True):
        assert [w.text for w in clip.words] == row["transcript"].split()
        for word, (_, start, end) in zip(clip.words, row["words"], strict=True):
            if start is None:
                assert word.score == -1
                placed += 1
            else:
                found = (word.start + clip.start, word.end + clip.start)
                assert found == pytest.approx((start, end), abs=1e-9) and word.score == 1
    assert placed == 76
    assert any("without times" in note and "36" in note for note in report.notes)
    assert_figures(sanity, "mosi-words", file, 686)


@pytest.mark.slow
def test_mmmo(imported, sanity):
    file, source, report = imported("npz", "mmmo/mmmo.npz")
    raw = np.load(source)
    assert file.alignment == "word"
    assert report.splits == {"default": {"train": 220, "valid": 40, "test": 80}}
    assert "text: no array for the train clips, no rows" in report.notes
    left = right = 0
    for clip in file:
        split, number = clip.split, int(clip.id.partition("-")[2])
        assert clip.id == f"{split}-{number:04d}"
        assert clip.labels["label"] == raw[f"y_{split}"][number]
        arrays = {"audio": raw[f"audio_{split}"][number], "vision": raw[f"video_{split}"][number]}
        if split == "train":
            assert len(clip.streams["text"]) == 0
        else:
            arrays["text"] = raw[f"text_{split}"][number]
        real = [t for t in range(20) if any(a[t].any() for a in arrays.values())]
        for name, array in arrays.items():
            expected = array[real[0] : real[-1] + 1]
            np.testing.assert_array_equal(clip.streams[name].values, expected)
        left, right = left + (real[0] > 0), right + (real[-1] < 19)
    assert left == 45  # as its README says, it is left-padded
    assert any(f"{left} clips were left-padded, {right} right" in note for note in report.notes)
    assert_figures(sanity, "mmmo", file, 80)


def test_meld(imported, sanity):
    file, source, _ = imported("npz", "meld/meld_val.npz")
    raw = np.load(source)
    pairs = list(zip(raw["dialogue_id"].tolist(), raw["utterance_id"].tolist(), strict=True))
    assert file.ids == [f"dia{d}_utt{u}" for d, u in pairs]
    assert file.column("path") == [f"dia{d}" for d, _ in pairs]
    assert set(file.split()) == {""} and file.column("text") == raw["utterance"].tolist()
    for name in ("emotion", "sentiment"):
        classes = np.array(file.labels[name].classes)
        assert classes[file.label(name)].tolist() == raw[name].tolist()
    for name in ("text", "audio"):
        np.testing.assert_array_equal(file.values(name)[0], raw[name])
    assert_figures(sanity, "meld", file, 1108)


def test_an_import_that_mixes_up_clips_would_be_seen(shared, tmp_path, sanity):
    """The figures are no accident of any file: labels of the clip before do not give them."""
    raw = dict(np.load(shared / "data" / "mosi/mosi_utterance.npz"))
    raw["label"] = np.roll(raw["label"], 1)
    np.savez(tmp_path / "x.npz", **raw)
    readers.run("npz", tmp_path / "x.npz", tmp_path / "x.h5")
    with mertool.open(tmp_path / "x.h5") as file:
        figures, _ = sanity.mosi(file)
    assert figures["corr"] < 0.5
    assert not sanity.within("corr", figures["corr"], sanity.STATED["mosi"]["corr"], 752)


def test_the_stated_figures_are_those_of_the_data(shared, sanity):
    text = " ".join((shared / "data" / "README.md").read_text(encoding="utf-8").split())
    told = re.search(r"Plain baselines on them.*?majority 0\.423", text)[0]
    numbers = {f"{float(n):.3f}" for n in re.findall(r"\d\.\d{3}", told)}
    assert numbers == {f"{n:.3f}" for s in sanity.STATED.values() for n in s.values()}


def test_a_figure_that_is_off_is_missed(sanity):
    one = {"figures": {"mae": 1.0, "acc2": 0.5}, "stated": {"mae": 1.0, "acc2": 0.5}, "scored": 100}
    assert sanity.misses({"sets": {"d": one}}) == []
    assert sanity.key_figure({"sets": {"d": one}}).startswith("2 of 2")
    one["figures"] = {"mae": 1.0009, "acc2": 0.489}
    assert [m.split(":")[0] for m in sanity.misses({"sets": {"d": one}})] == ["d mae", "d acc2"]
    one["figures"] = {"mae": 0.9993, "acc2": 0.51}
    assert sanity.misses({"sets": {"d": one}}) == []
    assert "+0.0100" in "\n".join(sanity.lines({"sets": {"d": one}}))
