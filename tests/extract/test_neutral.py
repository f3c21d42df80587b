from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from media_samples import Track, steady, tone, write_media

import mertool
from mertool.extract import run
from mertool.extract.neutral import BY_SPEAKER, Neutral
from mertool.store import Stream
from mertool.types import Rows


def rows(values: list[list[float]]) -> dict[str, Rows]:
    made = np.array(values, np.float32)
    return {"vision": Rows(made, np.zeros((len(made), 2)))}


def test_median_of_clip_medians_comes_off_valid_rows_of_named_columns() -> None:
    streams = {"vision": Stream(("a", "b", "valid"), {BY_SPEAKER: '["a"]'})}
    clips = [
        ("ann", rows([[1, 5, 1], [2, 5, 1], [9, 5, 1], [7, 0, 0], [0, 0, 0]])),  # median 2
        ("ann", rows([[4, 5, 1]])),  # median 4
        ("ann", rows([[10, 5, 1], [12, 5, 1]])),  # median 11
        ("bob", rows([[100, 5, 1]])),
        ("bob", {"vision": Rows.empty(3)}),
    ]
    neutral = Neutral(streams, clips)
    for speaker, made in clips:
        neutral.take_off(speaker, made)
    # The fourth row is interpolated, the fifth has nothing in it.
    assert clips[0][1]["vision"].values.tolist() == [
        *([-3, 5, 1], [-2, 5, 1], [5, 5, 1], [3, 0, 0], [0, 0, 0])
    ]
    assert clips[1][1]["vision"].values.tolist() == [[0, 5, 1]]
    assert clips[3][1]["vision"].values.tolist() == [[0, 5, 1]]


def test_other_streams_are_not_even_read() -> None:
    def never():
        raise AssertionError
        yield

    before = rows([[1, 2, 1]])
    Neutral({"vision": Stream(("a", "b", "valid"), {})}, never()).take_off("ann", before)
    assert before["vision"].values.tolist() == [[1, 2, 1]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers, two clips each, all with one face; in half of them it is squeezed."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    pytest.importorskip("mediapipe", reason="needs the extra: offline")
    face = data.astronaut()[:256, 96:352]
    wide = np.ascontiguousarray(face[:, np.arange(320) * 4 // 5])
    folder = tmp_path_factory.mktemp("speakers")
    lines = [["clip_id", "path", "speaker"]]
    for name, image in (("a1", face), ("a2", wide), ("b1", face), ("b2", face)):
        write_media(folder / f"{name}.mp4", steady(0.2), [Track(tone(0.2))], lambda i, x=image: x)
        lines.append([name, f"{name}.mp4", "ann" if name[0] == "a" else "bob"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder


def units(out: Path) -> dict[str, np.ndarray]:
    with mertool.open(out) as file:
        columns = file.streams["vision"].columns
        places = [i for i, c in enumerate(columns) if c.endswith("_geo")]
        return {clip.id: clip.streams["vision"].values[:, places] for clip in file}


def test_facemesh_by_speaker(clips: Path, tmp_path: Path) -> None:
    options = {"text": "none", "audio": "none"}
    run(clips, tmp_path / "raw.h5", **options)
    report = run(clips, tmp_path / "off.h5", settings=["vision.neutral=speaker"], **options)
    assert not report.failures
    raw, off = units(tmp_path / "raw.h5"), units(tmp_path / "off.h5")
    for one, other in (("a1", "a2"), ("b1", "b2")):
        rest = np.median([np.median(raw[one], axis=0), np.median(raw[other], axis=0)], axis=0)
        np.testing.assert_allclose(off[one], raw[one] - rest, atol=1e-6)
        np.testing.assert_allclose(off[other], raw[other] - rest, atol=1e-6)
    assert np.abs(off["a1"]).max() > 1e-3


def test_a_clip_that_is_added_changes_its_speaker(clips: Path, tmp_path: Path) -> None:
    options = {"text": "none", "audio": "none", "settings": ["vision.neutral=speaker"]}
    held = clips / "a2.mp4"
    away = tmp_path / "a2.mp4"
    held.rename(away)
    out = tmp_path / "x.h5"
    assert len(run(clips, out, **options).failures) == 1
    alone = units(out)
    away.rename(held)
    report = run(clips, out, resume=True, **options)
    assert not report.failures
    assert np.abs(np.median(alone["a1"], axis=0)).max() < 1e-6
    both = units(out)
    np.testing.assert_allclose(np.median(both["a1"], 0), -np.median(both["a2"], 0), atol=1e-6)
    run(clips, tmp_path / "anew.h5", **options)
    for name, values in units(tmp_path / "anew.h5").items():
        np.testing.assert_array_equal(values, both[name])


def test_a_clip_without_speaker_fails_alone(clips: Path, tmp_path: Path) -> None:
    listing = (clips / "manifest.csv").read_text().replace("b2.mp4,bob", "b2.mp4,")
    other = clips / "other.csv"
    other.write_text(listing)
    report = run(
        clips,
        tmp_path / "x.h5",
        manifest=other,
        text="none",
        audio="none",
        settings=["vision.neutral=speaker"],
    )
    other.unlink()
    assert [name for name, _, _ in report.failures] == ["b2"]
    assert "no speaker" in report.failures[0][2]
    assert report.clips == 3
