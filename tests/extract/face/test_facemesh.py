from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face_clips import FPS, FrameClip
from portraits import astronaut, scaled, task_file, tilted
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from mertool.errors import MediaError, MertoolError, MertoolWarning
from mertool.extract.face import measures
from mertool.extract.face.facemesh import FaceMesh
from mertool.extract.face.measures import ACTION_UNITS
from mertool.extract.face.mesh import Mesh
from mertool.types import Clip, Rows

mediapipe = pytest.importorskip("mediapipe", reason="needs the extra: offline")

POSE = ["pitch", "yaw", "roll"]
UNITS = list(ACTION_UNITS)
# The landmark that each becomes in a mirror.
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip


@pytest.fixture(scope="module")
def extractor() -> FaceMesh:
    """With landmarks."""
    return FaceMesh(FaceMesh.Config(landmarks=True))


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return astronaut()


def column(extractor: FaceMesh, rows: Rows, *names: str) -> np.ndarray:
    """(T,) of one column, (T, n) of several."""
    found = rows.values[:, [extractor.columns.index(name) for name in names]]
    return found[:, 0] if len(names) == 1 else found


def landmarks(extractor: FaceMesh, rows: Rows) -> np.ndarray:
    """(T, 68, 3)."""
    names = [name for name in extractor.columns if name.startswith("lm")]
    return column(extractor, rows, *names).reshape(-1, 68, 3)


def extract(extractor: FaceMesh, images: Sequence[np.ndarray], **settings: Any) -> Rows:
    """Rows of pictures; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return extractor.extract(FrameClip(images, **settings))


def look(extractor: FaceMesh, image: np.ndarray) -> dict[str, np.ndarray]:
    """Landmarks, pose, units and eyes of the face in a still picture."""
    rows = extract(extractor, [image] * 3)
    assert (column(extractor, rows, "valid") == 1).all()
    return {
        "face": landmarks(extractor, rows)[-1],
        "pose": column(extractor, rows, *POSE)[-1],
        "units": column(extractor, rows, *UNITS)[-1],
        "eyes": column(extractor, rows, *measures.EYES_AND_MOUTH)[-1],
    }


def assert_same_face(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Equal up to the mesh's jitter: a point of a face moves by 0.1 and more in speech."""
    gaps = np.abs(a["face"] - b["face"])
    assert gaps.max() < 0.05 and gaps.mean() < 0.012
    # Distances of two such points; and of points of eyes, that are 0.3 wide.
    gaps = np.abs(a["units"] - b["units"])
    assert gaps.max() < 0.06 and gaps.mean() < 0.015
    assert np.abs(a["eyes"] - b["eyes"]).max() < 0.06


def flipped(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


def turned(image: np.ndarray, rotation: Rotation) -> np.ndarray:
    """The picture with its face turned in space, the background left as it is."""
    tracker = Mesh(1)
    [mesh] = tracker.faces(image, 0.0)
    tracker.close()
    centre = mesh.mean(axis=0)
    target = rotation.apply(mesh - centre) + centre
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    origin = LinearNDInterpolator(target[:, :2], mesh[:, :2])(columns, -rows)
    inside = np.isfinite(origin[..., 0])
    result = image.copy()
    for channel in range(3):
        result[inside, channel] = map_coordinates(
            image[..., channel], [-origin[inside, 1], origin[inside, 0]], order=1
        )
    return result


# What a row says


def test_columns(extractor: FaceMesh) -> None:
    plain = FaceMesh(FaceMesh.Config())
    assert plain.columns == [*measures.COLUMNS, "faces", "track", "valid"]
    points = [f"lm{i:02d}_{axis}" for i in range(68) for axis in "xyz"]
    assert extractor.columns == [*measures.COLUMNS, *points, "faces", "track", "valid"]
    assert len(set(extractor.columns)) == len(extractor.columns) == 24 + 204 + 3
    assert extractor.columns[0] == "AU01_geo"


def test_info() -> None:
    info = FaceMesh(FaceMesh.Config()).info
    assert info["licence"] == "Apache-2.0" and "FaceMesh" in info["model"]
    assert info["revision"] == f"mediapipe {mediapipe.__version__}"
    assert "neutral_by_speaker" not in info
    assert "neutral_by_speaker" not in FaceMesh(FaceMesh.Config(neutral="clip")).info
    info = FaceMesh(FaceMesh.Config(neutral="speaker")).info
    assert json.loads(info["neutral_by_speaker"]) == UNITS


def test_landmarks_change_nothing_else(extractor: FaceMesh, portrait: np.ndarray) -> None:
    plain = FaceMesh(FaceMesh.Config())
    with_points = extract(extractor, [portrait] * 2)
    np.testing.assert_array_equal(
        extract(plain, [portrait] * 2).values, column(extractor, with_points, *plain.columns)
    )


def test_values_are_those_of_the_measures(extractor: FaceMesh, portrait: np.ndarray) -> None:
    tracker = Mesh(4)
    [mesh] = tracker.faces(portrait, 0.0)
    tracker.close()
    head, pose = measures.head_frame(mesh)
    rows = extract(extractor, [portrait])
    for names, expected in (
        (POSE, pose),
        (UNITS, measures.action_units(head)),
        (measures.EYES_AND_MOUTH, measures.eyes_and_mouth(head)),
    ):
        np.testing.assert_allclose(column(extractor, rows, *names)[0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        landmarks(extractor, rows)[0], head[list(measures.LANDMARKS)], atol=1e-6
    )


def test_landmarks_lie_as_a_face_does(extractor: FaceMesh, portrait: np.ndarray) -> None:
    face = look(extractor, portrait)["face"]
    x, y, z = face.T
    assert (np.diff(x[:17]) > -0.02).all()  # the jaw line runs from right to left
    assert y[8] == y.min()  # the chin is lowest
    assert (np.diff(x[17:27]) > 0).all()
    assert (np.diff(y[27:31]) < 0).all() and z[30] == z.max()  # the nose's tip is foremost
    assert (np.diff(x[31:36]) > 0).all()
    assert (y[[37, 38, 43, 44]] > y[[41, 40, 47, 46]]).all()  # lids
    assert x[36] < x[39] < 0 < x[42] < x[45]
    assert (np.diff(x[48:55]) > 0).all() and (np.diff(x[54:60]) < 0).all()
    assert y[51] > y[62] > y[66] > y[57]  # lips
    assert np.linalg.norm(face[45] - face[36]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(face[[36, 39, 42, 45]].mean(axis=0), 0, atol=1e-6)


# The same face in other pictures


def test_mirrored_picture(extractor: FaceMesh, portrait: np.ndarray) -> None:
    there, back = look(extractor, portrait), look(extractor, flipped(portrait))
    gaze_x, gaze_y, right, left, mouth = there["eyes"]
    expected = {
        "face": there["face"][MIRROR] * [-1, 1, 1],
        "units": there["units"],
        "eyes": np.array([-gaze_x, gaze_y, left, right, mouth]),
    }
    assert_same_face(expected, back)
    np.testing.assert_allclose(back["pose"], there["pose"] * [1, -1, -1], atol=3)


@pytest.mark.parametrize("angle", [15, -15])
def test_picture_turned_in_its_plane(
    extractor: FaceMesh, portrait: np.ndarray, angle: float
) -> None:
    there, back = look(extractor, portrait), look(extractor, tilted(portrait, angle))
    np.testing.assert_allclose(back["pose"] - there["pose"], [0, 0, angle], atol=2)
    assert_same_face(there, back)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scaled_picture(extractor: FaceMesh, portrait: np.ndarray, scale: float) -> None:
    there, back = look(extractor, portrait), look(extractor, scaled(portrait, scale))
    np.testing.assert_allclose(back["pose"], there["pose"], atol=2)
    assert_same_face(there, back)


def test_shape_of_the_picture_does_not_matter(extractor: FaceMesh, portrait: np.ndarray) -> None:
    there = look(extractor, portrait)
    near = portrait[20:240, 14:244]
    for margins in ((0, 0), (230, 230)), ((115, 115), (0, 0)):
        assert_same_face(there, look(extractor, np.pad(near, (*margins, (0, 0)))))


@pytest.mark.parametrize("angle", [20, -20])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_face_turned_in_space(
    extractor: FaceMesh, portrait: np.ndarray, axis: str, angle: float
) -> None:
    """Hair and outline stay, so that the face seems to turn less than it was turned."""
    image = turned(portrait, Rotation.from_euler(axis, angle, degrees=True))
    change = (look(extractor, image)["pose"] - look(extractor, portrait)["pose"]) * np.sign(angle)
    index = {"x": 0, "y": 1}[axis]
    assert 5 < change[index] < 30
    assert (np.abs(np.delete(change, index)) < 5).all()
    if axis == "y":
        assert np.sign(look(extractor, flipped(image))["pose"][1]) == -np.sign(angle)


# Several faces, and none


def two_faces(portrait: np.ndarray, small_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a large and a small face, and the large one alone."""
    large = portrait[20:220, 24:244]
    small = tilted(flipped(portrait), 20)[20:220, 24:244]  # to tell it from the large one
    small = np.pad(scaled(small, 0.7), ((30, 30), (0, 0), (0, 0)), mode="edge")
    images = [small, large] if small_first else [large, small]
    return np.concatenate([image[:200] for image in images], axis=1), np.ascontiguousarray(large)


@pytest.mark.parametrize("small_first", [True, False])
def test_the_larger_of_two_faces(portrait: np.ndarray, small_first: bool) -> None:
    extractor = FaceMesh(FaceMesh.Config(landmarks=True, keep="largest"))
    both, large = two_faces(portrait, small_first)
    note = r"^3 of 3 frames show more than one face, 2 tracks in all; kept: track \d, the largest$"
    with pytest.warns(MertoolWarning, match=note):
        rows = extractor.extract(FrameClip([both] * 3))
    assert (column(extractor, rows, "faces", "valid") == [2, 1]).all()
    alone = look(extractor, large)
    gaps = np.abs(landmarks(extractor, rows)[-1] - alone["face"])
    assert gaps.max() < 0.05 and gaps.mean() < 0.012
    np.testing.assert_allclose(column(extractor, rows, *POSE)[-1], alone["pose"], atol=3)


def test_the_face_that_speaks(portrait: np.ndarray) -> None:
    """The smaller one's lips part while there is sound."""
    both, _ = two_faces(portrait, small_first=True)
    tracker = Mesh(2)
    small = min(tracker.faces(both, 0.0), key=lambda face: np.ptp(face[:, 1]))
    tracker.close()
    opened = lips_parted(both, small)
    loud = [8 <= i < 20 for i in range(30)]
    images = [opened if speaks and i % 4 < 2 else both for i, speaks in enumerate(loud)]
    sound = np.repeat(loud, 640) * np.random.default_rng(0).normal(0, 0.1, 30 * 640)
    found = {}
    for keep in ("speaker", "largest"):
        chosen = FaceMesh(FaceMesh.Config(keep=keep))
        with pytest.warns(MertoolWarning, match="^30 of 30 frames show more than one face") as told:
            rows = chosen.extract(FrameClip(images, sound=sound))
        assert len(told) == 1 and column(chosen, rows, "valid").all()
        found[keep] = column(chosen, rows, "roll"), column(chosen, rows, "mar"), told[0].message
    # The small face is tilted, by 20 degrees.
    assert (found["speaker"][0] - found["largest"][0] > 15).all()
    assert np.ptp(found["speaker"][1]) > 3 * np.ptp(found["largest"][1])
    assert "whose mouth moves with the voice" in str(found["speaker"][2])
    assert str(found["largest"][2]).endswith(", the largest")


def lips_parted(image: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The picture with a dark mouth drawn between a face's lips."""
    from skimage.draw import ellipse

    result = image.copy()
    x, y = face[[61, 291, 13, 14, 17], 0], -face[[61, 291, 13, 14, 17], 1]
    width = np.hypot(x[1] - x[0], y[1] - y[0])
    rows, columns = ellipse(
        y[3] + 0.1 * width, x[3], 0.3 * width, 0.3 * width, shape=image.shape[:2]
    )
    result[rows, columns] = 30, 5, 5
    return result


def test_frames_without_a_face_are_marked(extractor: FaceMesh, portrait: np.ndarray) -> None:
    empty = np.full_like(portrait, 90)
    with pytest.warns(MertoolWarning, match=r"^2 of 5 frames \(40.0%\) are without a face: zeros$"):
        rows = extractor.extract(FrameClip([empty, portrait, portrait, empty, portrait]))
    assert column(extractor, rows, "valid").tolist() == [0, 1, 1, 0, 1]
    assert not rows.values[[0, 3]].any()
    assert landmarks(extractor, rows)[[1, 2, 4]].any(axis=(1, 2)).all()
    np.testing.assert_allclose(rows.times, [[0.04 * i, 0.04 * (i + 1)] for i in range(5)])


def test_a_face_that_leaves_and_returns(portrait: np.ndarray) -> None:
    """After more than a second at the same place it is a new track, and still kept."""
    away = [np.full_like(portrait, 90)] * int(1.2 * FPS)
    images = [portrait] * 5 + away + [portrait] * 5
    gone = np.arange(5, 5 + len(away))
    zero = FaceMesh(FaceMesh.Config())
    with pytest.warns(MertoolWarning, match=r"^30 of 40 frames \(75.0%\) are without a face"):
        rows = zero.extract(FrameClip(images))
    track = column(zero, rows, "track")
    assert track.tolist() == [1] * 5 + [0] * len(gone) + [2] * 5
    np.testing.assert_array_equal(column(zero, rows, "valid"), track > 0)
    np.testing.assert_array_equal(column(zero, rows, "faces"), track > 0)
    assert not rows.values[gone].any()
    units = column(zero, rows, *UNITS)
    np.testing.assert_allclose(units[4], units[-1], atol=0.06)

    between = FaceMesh(FaceMesh.Config(missing="interpolate"))
    with pytest.warns(MertoolWarning, match="without a face: interpolated"):
        filled = between.extract(FrameClip(images))
    for name in ("faces", "track", "valid"):
        np.testing.assert_array_equal(column(between, filled, name), column(zero, rows, name))
    for name in measures.COLUMNS:
        values = column(zero, rows, name)
        share = (gone - 4) / (len(gone) + 1)
        expected = values[4] + share * (values[gone[-1] + 1] - values[4])
        np.testing.assert_allclose(column(between, filled, name)[gone], expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(240, 320, 3), (2, 2, 3), (1, 300, 3)])
def test_no_face(extractor: FaceMesh, shape: tuple[int, ...]) -> None:
    with pytest.warns(MertoolWarning, match="^no face found, no facemesh rows$"):
        rows = extractor.extract(FrameClip([np.full(shape, 90, np.uint8)] * 2))
    assert rows.values.shape == (0, len(extractor.columns))
    assert rows.times.shape == (0, 2)


def test_no_video(extractor: FaceMesh) -> None:
    with pytest.warns(MertoolWarning, match="^no video, no facemesh rows$"):
        assert len(extractor.extract(FrameClip([]))) == 0


def test_a_clip_that_breaks_off(
    extractor: FaceMesh, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error goes on, and what was opened for it is closed."""
    closed = []
    monkeypatch.setattr(Mesh, "close", lambda mesh: closed.append(mesh))

    class Broken(FrameClip):
        def frames(self, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
            yield from super().frames(fps)
            raise MediaError("It breaks off.", "clip", "Record it again.")

    with pytest.raises(MediaError, match="It breaks off"):
        extractor.extract(Broken([portrait] * 2))
    extractor.extract(FrameClip([portrait]))
    assert len(closed) == 2


# Times


@pytest.mark.parametrize(
    ("end", "last"), [(None, 0.12), (0.11, 0.11), (5.0, 0.12)], ids=["open", "cut", "long sound"]
)
def test_last_cell(
    extractor: FaceMesh, portrait: np.ndarray, end: float | None, last: float
) -> None:
    rows = extract(extractor, [portrait] * 3, end=end)
    assert rows.times[-1] == pytest.approx([0.08, last])


def test_fps_is_handed_on(portrait: np.ndarray) -> None:
    clip = FrameClip([portrait])
    extractor = FaceMesh(FaceMesh.Config(fps=12.5))
    extractor.extract(clip)
    assert clip.fps == 12.5
    assert extractor.info["rate"] == 12.5
    FaceMesh(FaceMesh.Config()).extract(clip)
    assert clip.fps is None


def test_result_does_not_depend_on_what_was_seen_before(
    extractor: FaceMesh, portrait: np.ndarray
) -> None:
    moving = [np.roll(portrait, 3 * i, axis=1) for i in range(6)]
    first, again = extract(extractor, moving).values, extract(extractor, moving).values
    extract(extractor, [tilted(portrait, 30)] * 3)
    after_another = extract(extractor, moving).values
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, after_another)


# The face at rest


def neutral_clip(portrait: np.ndarray, length: float = 10.0, speaker: str = "") -> FrameClip:
    """A face that moves, with a gap, at few frames per second."""
    images = [np.roll(portrait, 2 * i, axis=1) for i in range(5)]
    images += [np.full_like(portrait, 90)] * 2 + [tilted(portrait, 5 * i) for i in range(-2, 2)]
    clip = FrameClip(images, end=length, times=[i * length / 11 for i in range(11)])
    clip.speaker = speaker
    return clip


@pytest.mark.parametrize("missing", ["zero", "interpolate"])
def test_neutral_of_a_clip(portrait: np.ndarray, missing: str) -> None:
    """Medians over the measured rows are taken off the action units, and off nothing else."""
    clip = neutral_clip(portrait)
    plain, neutral = (
        FaceMesh(FaceMesh.Config(neutral=neutral, missing=missing)) for neutral in ("none", "clip")
    )
    with pytest.warns(MertoolWarning, match="2 of 11 frames"):
        before, after = plain.extract(clip), neutral.extract(clip)
    seen = column(plain, before, "valid") > 0
    assert seen.tolist() == [True] * 5 + [False] * 2 + [True] * 4
    others = [name for name in plain.columns if name not in UNITS]
    np.testing.assert_array_equal(column(plain, before, *others), column(neutral, after, *others))
    units, rest = column(plain, before, *UNITS), column(neutral, after, *UNITS)
    np.testing.assert_allclose(np.median(rest[seen], axis=0), 0, atol=1e-6)
    expected = units - [np.sort(u)[len(u) // 2] for u in units[seen].T]  # 9 rows: the fifth
    if missing == "zero":
        expected[~seen] = 0
    np.testing.assert_allclose(rest, expected, atol=1e-6)
    assert np.ptp(rest[seen], axis=0).min() > 0


def test_neutral_of_a_short_clip(portrait: np.ndarray) -> None:
    extractor = FaceMesh(FaceMesh.Config(neutral="clip"))
    clip = neutral_clip(portrait, 9.9)
    clip.start, clip.end = 5.0, 14.9
    with pytest.raises(MertoolError) as caught:
        extractor.extract(clip)
    assert "too short" in caught.value.what
    assert caught.value.where == "clip: 9.9 s, at least 10"
    assert "neutral=speaker" in caught.value.fix
    assert clip.fps == -1.0  # it is not even looked at


def test_neutral_of_a_clip_without_a_face() -> None:
    extractor = FaceMesh(FaceMesh.Config(neutral="clip"))
    with pytest.warns(MertoolWarning, match="no face"):
        rows = extractor.extract(FrameClip([np.full((64, 64, 3), 90, np.uint8)], end=12.0))
    assert rows.values.shape == (0, len(extractor.columns))


def test_neutral_of_a_speaker(portrait: np.ndarray) -> None:
    """The extractor leaves the values: they are taken off when all clips are there."""
    extractor = FaceMesh(FaceMesh.Config(neutral="speaker"))
    with pytest.raises(MertoolError) as caught:
        extractor.extract(neutral_clip(portrait, 1.0))
    assert "no speaker" in caught.value.what and caught.value.where == "clip"
    assert "manifest" in caught.value.fix
    with pytest.warns(MertoolWarning, match="2 of 11 frames"):
        rows = extractor.extract(neutral_clip(portrait, 1.0, speaker="her"))
        plain = FaceMesh(FaceMesh.Config()).extract(neutral_clip(portrait, 1.0))
    np.testing.assert_array_equal(rows.values, plain.values)


# Settings, models, what is printed


@pytest.mark.parametrize(
    "settings",
    [
        {"fps": -1.0},
        {"fps": float("nan")},
        {"max_faces": 0},
        {"max_faces": 10**6},
        {"keep": "loudest"},
        {"missing": "nan"},
        {"neutral": "face"},
    ],
)
def test_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FaceMesh.Config(**settings)


def test_a_task_file(portrait: np.ndarray, tmp_path: Path, extractor: FaceMesh) -> None:
    path = task_file(tmp_path / "face.task", (159, 158, 160, 145, 144, 386, 385, 387, 374, 373))
    given = FaceMesh(FaceMesh.Config(landmarks=True, model=str(path)))
    assert given.info["model"] == str(path) and given.info["licence"] == "of the given model"
    assert given.info["revision"] == f"mediapipe {mediapipe.__version__}"
    ours, theirs = look(extractor, portrait), look(given, portrait)
    np.testing.assert_allclose(ours["pose"], theirs["pose"], atol=3)
    assert np.abs(ours["face"] - theirs["face"]).mean() < 0.03


def test_no_task_file(tmp_path: Path) -> None:
    with pytest.raises(MertoolError) as caught:
        FaceMesh(FaceMesh.Config(model=str(tmp_path / "nowhere.task")))
    assert caught.value.where == f"vision.model={tmp_path / 'nowhere.task'}"


def test_mediapipe_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MertoolError) as caught:
        FaceMesh(FaceMesh.Config())
    assert 'pip install "mertool[offline]"' in caught.value.fix


def test_nothing_on_stderr(tmp_path: Path) -> None:
    """In a fresh process, where MediaPipe has not yet said what it says once."""
    np.save(tmp_path / "portrait.npy", astronaut())
    program = """
import sys, warnings
import numpy as np
from mertool.extract.face.facemesh import FaceMesh
assert "mediapipe" not in sys.modules
from face_clips import FrameClip
warnings.simplefilter("ignore")
face = np.load(sys.argv[1])
nobody = np.zeros_like(face)
# Nobody, one face, from 0.6 s on two, one, nobody, two.
pairs = [(nobody, nobody)] * 2 + [(face, nobody)] * 13 + [(face, face)] * 15
pairs += [(nobody, face)] * 3 + [(nobody, nobody)] * 3 + [(face, face)] * 3
images = [np.concatenate(pair, axis=1) for pair in pairs]
extractor = FaceMesh(FaceMesh.Config())
for clip in (images, images[::-1], images[2:4]):
    rows = extractor.extract(FrameClip(clip))
    print(rows.values[:, extractor.columns.index("faces")].max())
print("still there", file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "portrait.npy")],
        capture_output=True, text=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.stdout == "2.0\n2.0\n1.0\n"
    assert done.stderr == "still there\n"


# Real clips


def test_real_speech(shared: Path, extractor: FaceMesh) -> None:
    """A clip of a person speaking: the lips move, the skull does not."""
    clip = Clip("clip", path="grid/bbaf2n.mpg", source=str(shared / "data"))
    rows = extractor.extract(clip)
    assert len(rows) == 75
    assert (column(extractor, rows, "valid") == 1).all()
    assert (column(extractor, rows, "faces", "track") == 1).all()
    np.testing.assert_allclose(np.diff(rows.times, axis=1), 0.04, atol=1e-3)
    face = landmarks(extractor, rows)
    opening = np.linalg.norm(face[:, 62] - face[:, 66], axis=1)
    assert np.ptp(opening) > 0.05
    assert face[:, [27, 36, 39, 42, 45]].std(axis=0).max() < 0.02
    # The measures of the mouth's opening go with it.
    for name in ("AU25_geo", "mar"):
        assert np.corrcoef(opening, column(extractor, rows, name))[0, 1] > 0.9, name


def test_happy_and_angry(shared: Path) -> None:
    """The same sentence by the same actor: lip corners pulled, brows less lowered."""
    extractor = FaceMesh(FaceMesh.Config())
    means = {}
    for emotion in ("HAP", "ANG"):
        path = f"crema_d/1001_DFA_{emotion}_XX.flv"
        rows = extractor.extract(Clip(emotion, path=path, source=str(shared / "data")))
        assert (column(extractor, rows, "valid") == 1).mean() > 0.95
        means[emotion] = column(extractor, rows, "AU12_geo", "AU04_geo").mean(axis=0)
    (happy_12, happy_04), (angry_12, angry_04) = means["HAP"], means["ANG"]
    assert happy_12 > angry_12 + 0.01
    assert happy_04 < angry_04 - 0.01
