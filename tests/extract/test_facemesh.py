from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from mertool.errors import MertoolError, MertoolWarning
from mertool.extract.facemesh import LANDMARKS, FaceMesh, normalise
from mertool.types import Clip, Rows

mediapipe = pytest.importorskip("mediapipe", reason="needs the extra: offline")
transform = pytest.importorskip("skimage.transform", reason="needs scikit-image")
data = pytest.importorskip("skimage.data", reason="needs scikit-image")

# The landmark that each becomes in a mirror.
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip


class FrameClip(Clip):
    """A clip whose frames are given."""

    def __init__(self, images: Sequence[np.ndarray], end: float | None = None) -> None:
        super().__init__(id="clip", end=end)
        self.images = images
        self.fps: float | None = -1.0

    def frames(self, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
        self.fps = fps
        return ((0.04 * i, image) for i, image in enumerate(self.images))


@pytest.fixture(scope="module")
def extractor() -> FaceMesh:
    return FaceMesh(FaceMesh.Config())


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """(512, 512, 3) with one frontal face of about 100 pixels, its eyes at (224, 102)."""
    return data.astronaut()


def look(extractor: FaceMesh, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(68, 3) landmarks and (3,) pose of the face in a still picture."""
    rows = extractor.extract(FrameClip([image] * 3))
    assert (rows.values[:, -1] == 1).all()
    return rows.values[-1, :204].reshape(68, 3), rows.values[-1, 204:207]


def assert_same_face(a: np.ndarray, b: np.ndarray) -> None:
    """Equal up to the mesh's jitter: a point of a face moves by 0.1 and more in speech."""
    assert np.abs(a - b).max() < 0.05
    assert np.abs(a - b).mean() < 0.012


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.uint8(np.clip(image, 0, 1) * 255)


def vertices(image: np.ndarray) -> np.ndarray:
    """(468, 3) in pixels, x to the right, y up, z to the viewer."""
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True) as mesh:
        face = mesh.process(image).multi_face_landmarks[0]
    height, width = image.shape[:2]
    return np.array([(p.x * width, -p.y * height, -p.z * width) for p in face.landmark])


def turned(image: np.ndarray, rotation: Rotation) -> np.ndarray:
    """The picture with its face turned in space, the background left as it is."""
    mesh = vertices(image)
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


def frontal() -> np.ndarray:
    """(468, 3) a made-up face that looks straight ahead, its eyes two units apart."""
    mesh = np.random.default_rng(0).normal(size=(468, 3))
    for right, left, x, y in ((33, 263, 1.0, 0.0), (133, 362, 0.4, 0.0), (129, 358, 0.3, -0.9)):
        mesh[right], mesh[left] = (-x, y, 0.1), (x, y, 0.1)
    mesh[[33, 263, 133, 362], 2] = 0.0
    lean = np.radians(8.66)  # of the canonical face
    mesh[2] = 0, -1, 0.5
    mesh[10] = mesh[2] + 2 * np.array([0, np.cos(lean), -np.sin(lean)])
    return mesh


def test_a_straight_face_has_no_pose() -> None:
    mesh = frontal()
    landmarks, pose = normalise(mesh)
    np.testing.assert_allclose(pose, 0, atol=1e-9)
    np.testing.assert_allclose(landmarks, mesh[list(LANDMARKS)] / 2, atol=1e-12)


@pytest.mark.parametrize(
    "angles", [(20, 0, 0), (0, 20, 0), (0, 0, 20), (-15, 40, 70), (50, -60, 5)]
)
def test_move_turn_and_scale_are_taken_off(angles: tuple[float, float, float]) -> None:
    pitch, yaw, roll = angles
    rotation = Rotation.from_euler("ZYX", [roll, yaw, pitch], degrees=True)
    mesh = rotation.apply(frontal()) * 37.5 + [100, -80, 20]
    landmarks, pose = normalise(mesh)
    np.testing.assert_allclose(pose, angles, atol=1e-9)
    np.testing.assert_allclose(landmarks, normalise(frontal())[0], atol=1e-12)


@pytest.mark.parametrize(
    ("angles", "nose", "crown"),
    [
        ((30, 0, 0), (0, -1), (0, 1)),  # pitch > 0: the nose goes down
        ((0, 30, 0), (1, 0), (0, 1)),  # yaw > 0: the nose goes to the picture's right
        ((0, 0, 30), (0, 0), (-1, 1)),  # roll > 0: the crown goes to the picture's left
    ],
)
def test_signs(
    angles: tuple[float, float, float], nose: tuple[int, int], crown: tuple[int, int]
) -> None:
    """The convention in words, on the head's axes as the camera sees them."""
    pitch, yaw, roll = angles
    axes = Rotation.from_euler("ZYX", [roll, yaw, pitch], degrees=True).as_matrix()
    np.testing.assert_array_equal(np.sign(np.round(axes[:2, 2], 9)), nose)
    np.testing.assert_array_equal(np.sign(np.round(axes[:2, 1], 9)), crown)
    _, pose = normalise(frontal() @ axes.T)
    np.testing.assert_allclose(pose, angles, atol=1e-9)


def test_landmarks_lie_on_the_contours_they_are_named_for() -> None:
    solution = mediapipe.solutions.face_mesh

    def points(*contours: frozenset) -> set[int]:
        return {i for contour in contours for edge in contour for i in edge}

    assert len(LANDMARKS) == len(set(LANDMARKS)) == 68
    assert points(solution.FACEMESH_FACE_OVAL) >= set(LANDMARKS[:17])
    assert points(solution.FACEMESH_RIGHT_EYEBROW) >= set(LANDMARKS[17:22])
    assert points(solution.FACEMESH_LEFT_EYEBROW) >= set(LANDMARKS[22:27])
    assert points(solution.FACEMESH_NOSE) >= set(LANDMARKS[27:31])
    assert points(solution.FACEMESH_RIGHT_EYE) >= set(LANDMARKS[36:42])
    assert points(solution.FACEMESH_LEFT_EYE) >= set(LANDMARKS[42:48])
    assert points(solution.FACEMESH_LIPS) >= set(LANDMARKS[48:])


def test_landmarks_lie_as_a_face_does(extractor: FaceMesh, portrait: np.ndarray) -> None:
    face, _ = look(extractor, portrait)
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


def test_mirrored_picture(extractor: FaceMesh, portrait: np.ndarray) -> None:
    face, pose = look(extractor, portrait)
    mirrored, mirrored_pose = look(extractor, np.ascontiguousarray(portrait[:, ::-1]))
    assert_same_face(face, mirrored[MIRROR] * [-1, 1, 1])
    np.testing.assert_allclose(mirrored_pose, pose * [1, -1, -1], atol=3)


@pytest.mark.parametrize("angle", [15, -15])
def test_picture_turned_in_its_plane(
    extractor: FaceMesh, portrait: np.ndarray, angle: float
) -> None:
    face, pose = look(extractor, portrait)
    image = to_bytes(transform.rotate(portrait, angle, center=(224, 112), mode="edge"))
    tilted, tilted_pose = look(extractor, image)  # angle > 0: counter-clockwise
    np.testing.assert_allclose(tilted_pose - pose, [0, 0, angle], atol=2)
    assert_same_face(face, tilted)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scaled_picture(extractor: FaceMesh, portrait: np.ndarray, scale: float) -> None:
    face, pose = look(extractor, portrait)
    image = to_bytes(transform.rescale(portrait, scale, channel_axis=2, anti_aliasing=True))
    scaled, scaled_pose = look(extractor, image)
    np.testing.assert_allclose(scaled_pose, pose, atol=2)
    assert_same_face(face, scaled)


def test_shape_of_the_picture_does_not_matter(extractor: FaceMesh, portrait: np.ndarray) -> None:
    face, _ = look(extractor, portrait)
    near = portrait[20:240, 110:340]
    for margins in ((0, 0), (230, 230)), ((115, 115), (0, 0)):
        assert_same_face(face, look(extractor, np.pad(near, (*margins, (0, 0))))[0])


@pytest.mark.parametrize("angle", [20, -20])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_face_turned_in_space(
    extractor: FaceMesh, portrait: np.ndarray, axis: str, angle: float
) -> None:
    """Hair and outline stay, so that the face seems to turn less than it was turned."""
    _, pose = look(extractor, portrait)
    image = turned(portrait, Rotation.from_euler(axis, angle, degrees=True))
    change = (look(extractor, image)[1] - pose) * np.sign(angle)
    index = {"x": 0, "y": 1}[axis]
    assert 5 < change[index] < 30
    assert (np.abs(np.delete(change, index)) < 5).all()
    if axis == "y":
        _, mirrored_pose = look(extractor, np.ascontiguousarray(image[:, ::-1]))
        assert np.sign(mirrored_pose[1]) == -np.sign(angle)


@pytest.mark.parametrize("small_first", [True, False])
def test_the_larger_of_two_faces_is_used(
    extractor: FaceMesh, portrait: np.ndarray, small_first: bool
) -> None:
    large = portrait[20:220, 120:340]
    mirrored = np.ascontiguousarray(large[:, ::-1])
    tilted = transform.rotate(mirrored, 20, mode="edge")  # to tell it from the large one
    small = to_bytes(transform.rescale(tilted, 0.7, channel_axis=2, anti_aliasing=True))
    small = np.pad(small, ((30, 30), (0, 0), (0, 0)), mode="edge")
    images = [small, large] if small_first else [large, small]
    both = np.concatenate([image[:200] for image in images], axis=1)
    with pytest.warns(MertoolWarning, match=r"^3 of 3 frames show more than one face"):
        face, pose = look(extractor, both)
    face_alone, pose_alone = look(extractor, np.ascontiguousarray(large))
    assert_same_face(face, face_alone)
    np.testing.assert_allclose(pose, pose_alone, atol=3)


def test_frames_without_a_face_are_marked(extractor: FaceMesh, portrait: np.ndarray) -> None:
    empty = np.full_like(portrait, 90)
    rows = extractor.extract(FrameClip([empty, portrait, portrait, empty, portrait]))
    assert rows.values[:, -1].tolist() == [0, 1, 1, 0, 1]
    assert not rows.values[[0, 3]].any()
    assert rows.values[[1, 2, 4], :204].any(axis=1).all()
    np.testing.assert_allclose(rows.times, [[0.04 * i, 0.04 * (i + 1)] for i in range(5)])


@pytest.mark.parametrize("shape", [(240, 320, 3), (2, 2, 3), (1, 300, 3)])
def test_no_face(extractor: FaceMesh, shape: tuple[int, ...]) -> None:
    with pytest.warns(MertoolWarning, match="no face"):
        rows = extractor.extract(FrameClip([np.full(shape, 90, np.uint8)] * 2))
    assert rows.values.shape == (0, 208)
    assert rows.times.shape == (0, 2)


def test_no_video(extractor: FaceMesh) -> None:
    with pytest.warns(MertoolWarning, match="no video"):
        assert len(extractor.extract(FrameClip([]))) == 0


@pytest.mark.parametrize(
    ("end", "last"), [(None, 0.12), (0.11, 0.11), (5.0, 0.12)], ids=["open", "cut", "long sound"]
)
def test_last_cell(
    extractor: FaceMesh, portrait: np.ndarray, end: float | None, last: float
) -> None:
    rows = extractor.extract(FrameClip([portrait] * 3, end))
    assert rows.times[-1] == pytest.approx([0.08, last])


def test_result_does_not_depend_on_what_was_seen_before(
    extractor: FaceMesh, portrait: np.ndarray
) -> None:
    moving = [np.roll(portrait, 3 * i, axis=1) for i in range(6)]
    other = [to_bytes(transform.rotate(portrait, 30, center=(224, 112), mode="edge"))] * 3

    def run(images: list[np.ndarray]) -> Rows:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return extractor.extract(FrameClip(images))

    first, again = run(moving).values, run(moving).values
    run(other)
    after_another = run(moving).values
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, after_another)


def test_fps_is_handed_on(portrait: np.ndarray) -> None:
    clip = FrameClip([portrait])
    extractor = FaceMesh(FaceMesh.Config(fps=12.5))
    extractor.extract(clip)
    assert clip.fps == 12.5
    assert extractor.info["rate"] == 12.5
    FaceMesh(FaceMesh.Config()).extract(clip)
    assert clip.fps is None


def test_columns(extractor: FaceMesh) -> None:
    assert len(extractor.columns) == len(set(extractor.columns)) == 208
    assert extractor.columns[:3] == ["lm00_x", "lm00_y", "lm00_z"]
    assert extractor.columns[-4:] == ["pitch", "yaw", "roll", "valid"]
    assert extractor.info["licence"] == "Apache-2.0"


@pytest.mark.parametrize(
    "settings", [{"fps": -1.0}, {"fps": float("nan")}, {"max_faces": 0}, {"max_faces": 10**6}]
)
def test_impossible_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FaceMesh.Config(**settings)


def test_mediapipe_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MertoolError) as caught:
        FaceMesh(FaceMesh.Config())
    assert 'pip install "mertool[offline]"' in caught.value.fix


def test_nothing_on_stderr() -> None:
    """In a fresh process, where MediaPipe has not yet said what it says once."""
    program = (
        "import sys, skimage.data\n"
        "from mertool.extract.facemesh import FaceMesh\n"
        "assert 'mediapipe' not in sys.modules\n"
        "class Clip:\n"
        "    id, start, end = 'clip', 0.0, None\n"
        "    def frames(self, fps=None):\n"
        "        image = skimage.data.astronaut()\n"
        "        return iter([(0.0, image * 0), (0.04, image), (0.08, image)])\n"
        "print(FaceMesh(FaceMesh.Config()).extract(Clip()).values[:, -1].tolist())\n"
        "print('still there', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[0.0, 1.0, 1.0]\n"
    assert done.stderr == "still there\n"


def test_real_speech(shared: Path, extractor: FaceMesh) -> None:
    """A clip of a person speaking: the lips move, the skull does not."""
    clip = Clip("clip", path="grid/bbaf2n.mpg", source=str(shared / "data"))
    rows = extractor.extract(clip)
    assert len(rows) == 75
    assert (rows.values[:, -1] == 1).all()
    np.testing.assert_allclose(np.diff(rows.times, axis=1), 0.04, atol=1e-3)
    face = rows.values[:, :204].reshape(-1, 68, 3)
    opening = np.linalg.norm(face[:, 62] - face[:, 66], axis=1)
    assert np.ptp(opening) > 0.05
    assert face[:, [27, 36, 39, 42, 45]].std(axis=0).max() < 0.02
