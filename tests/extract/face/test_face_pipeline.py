from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from face_clips import FrameClip

from mertool.errors import MediaError, MertoolWarning
from mertool.extract.face.pipeline import (
    COLUMNS,
    Face,
    FaceSettings,
    batches,
    face_rows,
    track_rows,
)
from mertool.extract.face.tracks import Tracks
from mertool.types import Clip, Rows

Seen = list[list[Face]]


def pictures(count: int) -> list[np.ndarray]:
    """Pictures that hold their own number."""
    return [np.full((2, 2, 3), i, np.uint8) for i in range(count)]


def see_one(images: list[np.ndarray], times: list[float]) -> Seen:
    """One face in each picture, whose values are the picture's number and its time."""
    assert len(images) == len(times)
    return [
        [Face(np.array([0, 0, 9, 9]), np.array([image[0, 0, 0], time], np.float32))]
        for image, time in zip(images, times, strict=True)
    ]


def face(x: float, size: float, value: float) -> Face:
    return Face(np.array([x, 0, x + size, size]), np.array([value, value], np.float32))


def quietly(clip: Clip, see: object, settings: FaceSettings | None = None, size: int = 1) -> Rows:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return face_rows(clip, see, 2, settings or FaceSettings(), "toy", size)


def noted(clip: Clip, see: object, **settings: object) -> tuple[Rows, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = face_rows(clip, see, 2, FaceSettings(**settings), "toy")
    assert all(w.category is MertoolWarning for w in caught)
    notes = [str(w.message) for w in caught]
    assert not any("\n" in note for note in notes)
    return rows, notes


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_batches(size: int) -> None:
    parts = list(batches(FrameClip(pictures(7)), 0, size))
    assert [len(images) for _, images in parts] == [size] * (7 // size) + [7 % size] * (
        7 % size > 0
    )
    assert [image[0, 0, 0] for _, images in parts for image in images] == list(range(7))
    np.testing.assert_allclose([t for times, _ in parts for t in times], np.arange(7) / 25)


def test_batches_are_decoded_one_at_a_time() -> None:
    class Counted(FrameClip):
        decoded = 0

        def frames(self, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
            for frame in super().frames(fps):
                self.decoded += 1
                yield frame

    clip = Counted(pictures(9))
    for i, _ in enumerate(batches(clip, 0, 3)):
        assert clip.decoded == 3 * (i + 1)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_one_row_per_frame(size: int) -> None:
    clip = FrameClip(pictures(10))
    rows = quietly(clip, see_one, size=size)
    assert clip.fps is None and clip.listened == 0
    expected = [[i, 0.04 * i, 1, 1, 1] for i in range(10)]
    np.testing.assert_allclose(rows.values, expected, rtol=1e-6)
    assert rows.values.dtype == np.float32 and rows.times.dtype == np.float64
    np.testing.assert_allclose(rows.times, [[0.04 * i, 0.04 * (i + 1)] for i in range(10)])
    assert COLUMNS == ("faces", "track", "valid")


def test_rate() -> None:
    clip = FrameClip(pictures(25))
    rows = quietly(clip, see_one, FaceSettings(fps=5))
    assert clip.fps == 5
    np.testing.assert_array_equal(rows.values[:, 0], [0, 5, 10, 15, 20])


@pytest.mark.parametrize(
    ("end", "last"), [(None, 0.12), (0.11, 0.11), (5.0, 0.12)], ids=["open", "cut", "long sound"]
)
def test_last_cell(end: float | None, last: float) -> None:
    rows = quietly(FrameClip(pictures(3), end), see_one)
    assert rows.times[-1] == pytest.approx([0.08, last])


def test_one_frame() -> None:
    rows = quietly(FrameClip(pictures(1)), see_one)
    np.testing.assert_allclose(rows.values, [[0, 0, 1, 1, 1]])
    np.testing.assert_allclose(rows.times, [[0, 0.04]])


def test_uneven_times() -> None:
    rows = quietly(FrameClip(pictures(4), times=[0.1, 0.2, 0.5, 0.6]), see_one)
    np.testing.assert_allclose(rows.times, [[0.1, 0.2], [0.2, 0.5], [0.5, 0.6], [0.6, 0.7]])


def test_no_video() -> None:
    rows, notes = noted(FrameClip([]), see_one)
    assert notes == ["no video, no toy rows"]
    assert rows.values.shape == (0, 5) and rows.times.shape == (0, 2)


@pytest.mark.parametrize("missing", ["zero", "interpolate"])
def test_no_face(missing: str) -> None:
    rows, notes = noted(FrameClip(pictures(3)), lambda images, _: [[]], missing=missing)
    assert notes == ["no face found, no toy rows"]
    assert rows.values.shape == (0, 5) and rows.times.shape == (0, 2)


@pytest.mark.parametrize(("missing", "word"), [("zero", "zeros"), ("interpolate", "interpolated")])
def test_missing_frames(missing: str, word: str) -> None:
    def see(images: list[np.ndarray], times: list[float]) -> Seen:
        return [faces if times[0] > 0.09 else [] for faces in see_one(images, times)]

    rows, notes = noted(FrameClip(pictures(8)), see, missing=missing)
    assert notes == [f"3 of 8 frames (37.5%) are without a face: {word}"]
    np.testing.assert_array_equal(rows.values[:, 2:], [[0] * 3] * 3 + [[1] * 3] * 5)
    first = 0 if missing == "zero" else 3
    np.testing.assert_array_equal(rows.values[:, 0], [first] * 3 + [3, 4, 5, 6, 7])


def test_several_faces() -> None:
    """The larger leaves after 4 frames, and a new one comes when both have gone."""

    def see(images: list[np.ndarray], times: list[float]) -> Seen:
        i = int(images[0][0, 0, 0])
        return [
            [face(0, 50, 1)] * (i < 6) + [face(200, 90, 2)] * (i < 4) + [face(500, 9, 3)] * (i > 7)
        ]

    rows, notes = noted(FrameClip(pictures(10)), see)
    assert notes == [
        "4 of 10 frames show more than one face, 3 tracks in all; kept: track 2, the largest "
        "(mouths are not measured), and 1 more at other times",
        "4 of 10 frames (40.0%) are without the kept face: zeros",
    ]
    np.testing.assert_array_equal(rows.values[:, 0], [2] * 4 + [0] * 4 + [3] * 2)
    np.testing.assert_array_equal(rows.values[:, 2], [2] * 4 + [1] * 2 + [0] * 2 + [1] * 2)
    np.testing.assert_array_equal(rows.values[:, 3], [2] * 4 + [0] * 4 + [3] * 2)
    np.testing.assert_array_equal(rows.values[:, 4], [1] * 4 + [0] * 4 + [1] * 2)
    _, notes = noted(FrameClip(pictures(4)), see, keep="largest")
    assert notes == [
        "4 of 4 frames show more than one face, 2 tracks in all; kept: track 2, the largest"
    ]


def test_speaker() -> None:
    """The small face's mouth moves while there is sound, the large one's while there is none."""
    loud = np.repeat([0.0, 1.0, 0.0, 1.0], 8000)
    sound = loud * np.random.default_rng(0).normal(size=32000) * 0.1

    def see(images: list[np.ndarray], times: list[float]) -> Seen:
        faces = [face(0, 90, 1), face(200, 50, 2)]
        moves = times[0] % 1 >= 0.5
        faces[moves].mouth = 0.1 * (images[0][0, 0, 0] % 2)
        return [faces]

    clip = FrameClip(pictures(50), sound=sound)
    rows, notes = noted(clip, see)
    assert notes == [
        "50 of 50 frames show more than one face, 2 tracks in all; kept: track 2, whose mouth "
        "moves with the voice"
    ]
    np.testing.assert_array_equal(rows.values, [[2, 2, 2, 2, 1]] * 50)
    rows, _ = noted(clip, see, keep="largest")
    np.testing.assert_array_equal(rows.values, [[1, 1, 2, 1, 1]] * 50)


def test_given_tracks() -> None:
    """As from a table: the times and who is who are known."""
    tracks = Tracks(2)
    for time, ids in ((0.0, [3, 8]), (0.5, [8]), (1.0, [])):
        tracks.add(time, [face(0, 10 + i, i) for i in ids], ids)
    with pytest.warns(MertoolWarning):
        rows = track_rows(FrameClip([]), tracks, FaceSettings(), "table")
    np.testing.assert_array_equal(rows.values, [[8, 8, 2, 2, 1], [8, 8, 1, 2, 1], [0, 0, 0, 0, 0]])
    np.testing.assert_allclose(rows.times, [[0, 0.5], [0.5, 1], [1, 1.5]])


def test_damaged_video_fails_the_clip() -> None:
    class Damaged(FrameClip):
        def frames(self, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
            yield from super().frames(fps)
            raise MediaError("The file is damaged.", "clip", "Mend it.")

    with pytest.raises(MediaError, match="damaged"):
        quietly(Damaged(pictures(3)), see_one, size=2)


def test_faces_of_every_image_are_needed() -> None:
    with pytest.raises(ValueError, match="zip"):
        quietly(FrameClip(pictures(3)), lambda images, _: [[]], size=3)


def test_memory() -> None:
    """20 minutes at 25 frames per second, two faces of 50 columns, a third of the frames missing.

    The values take 40000 x 50 x 4 bytes = 8 MB, the rows 6.4 MB; kept as objects, the faces alone
    would take 20 MB.
    """
    import scipy.optimize  # noqa: F401  (what is imported is not to be counted)

    import mertool.media  # noqa: F401

    count = 30000
    image = np.zeros((2, 2, 3), np.uint8)

    class Long(FrameClip):
        def frames(self, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
            return ((i / 25, image) for i in range(count))

    def see(images: list[np.ndarray], times: list[float]) -> Seen:
        boxes = (np.array([0, 0, 9, 9]), np.array([20, 0, 28, 8]))
        here = 0 if times[0] % 3 >= 2 else 2
        return [[Face(box, np.full(50, times[0], np.float32), 0.1) for box in boxes[:here]]]

    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = FaceSettings(missing="interpolate")
            rows = face_rows(Long([], sound=np.ones(9)), see, 50, settings, "toy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows.values.shape == (count, 53)
    assert peak < 20e6


def test_settings_of_an_extractor() -> None:
    @dataclass(frozen=True)
    class Config(FaceSettings):
        extra: int = 1

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.extra < 0:
                raise ValueError(f"extra={self.extra}")

    config = Config(fps=5, extra=2)
    assert (config.fps, config.keep, config.missing, config.max_faces) == (5, "speaker", "zero", 4)
    with pytest.raises(ValueError, match="keep"):
        Config(keep="both")
    with pytest.raises(ValueError, match="extra"):
        Config(extra=-1)


@pytest.mark.parametrize(
    "settings",
    [
        {"fps": -1.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"keep": "first"},
        {"missing": "drop"},
        {"max_faces": 0},
        {"max_faces": 10**6},
    ],
)
def test_impossible_settings(settings: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FaceSettings(**settings)
