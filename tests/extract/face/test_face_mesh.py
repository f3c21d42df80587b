from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from portraits import astronaut, models, task_file

from mertool.errors import MertoolError
from mertool.extract.face.mesh import LOOK, POINTS, Mesh, check

mediapipe = pytest.importorskip("mediapipe", reason="needs the extra: offline")

FPS = 25
EYE_CORNERS = [33, 133, 362, 263]
MOUTH_CORNERS = [61, 291]
# Points that a task file made of MediaPipe's wheel gives for the irises.
IRISES = (159, 158, 160, 145, 144, 386, 385, 387, 374, 373)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return astronaut()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task file."""
    return str(task_file(tmp_path_factory.mktemp("model") / "face.task", IRISES))


def follow(
    images: Sequence[np.ndarray], max_faces: int = 4, model: str = "", fps: float = FPS
) -> list[list[np.ndarray]]:
    """The faces of each frame."""
    mesh = Mesh(max_faces, model)
    try:
        return [mesh.faces(image, i / fps) for i, image in enumerate(images)]
    finally:
        mesh.close()


def side_by_side(left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray:
    """(256, 512, 3); None = nobody there."""
    nobody = np.full((256, 256, 3), 90, np.uint8)
    return np.concatenate([nobody if p is None else p for p in (left, right)], axis=1)


def centres(faces: Sequence[np.ndarray]) -> list[float]:
    """x of the middle of each face, from left to right."""
    return sorted(float(face[:468, 0].mean()) for face in faces)


def test_points_are_pixels(portrait: np.ndarray) -> None:
    """x to the right, y up, z to the viewer, whatever the picture's shape."""
    for margins in ((0, 0), (0, 200)), ((150, 50), (0, 0)):
        image = np.pad(portrait, (*margins, (0, 0)), mode="edge")
        [face] = follow([image] * 3)[-1]
        assert face.shape == (POINTS, 3)
        # The eyes of the picture, and its nose nearer than its ears.
        top = margins[0][0]
        np.testing.assert_allclose(face[[468, 473], 0], [107, 150], atol=3)
        np.testing.assert_allclose(-face[[468, 473], 1] - top, [101, 104], atol=3)
        assert face[4, 2] - face[[234, 454], 2].max() > 30
    # One unit for all: a face is about as deep as half its width.
    assert 0.3 < np.ptp(face[:468, 2]) / np.ptp(face[:468, 0]) < 1


def test_irises_lie_in_their_eyes(portrait: np.ndarray) -> None:
    [face] = follow([portrait] * 3)[-1]
    for iris, a, b in ((range(468, 473), 33, 133), (range(473, 478), 362, 263)):
        x = face[list(iris), 0]
        assert (face[a, 0] < x).all() and (x < face[b, 0]).all()
        # The first is the middle of the other four.
        np.testing.assert_allclose(face[iris[0], :2], face[iris[1:], :2].mean(axis=0), atol=0.5)


def test_a_second_face_is_seen_from_the_next_look_on(portrait: np.ndarray) -> None:
    """One face is followed; another appears after 1 s, between two looks."""
    late = 1.0 + LOOK / 2
    images = [side_by_side(portrait, portrait if i / FPS >= late else None) for i in range(2 * FPS)]
    counts = [len(faces) for faces in follow(images)]
    first = counts.index(2)
    assert counts == [1] * first + [2] * (len(counts) - first)
    assert late + 1 / FPS < first / FPS <= late + LOOK  # not at once: that is what saves time


def test_the_face_that_is_followed_stays_when_another_comes(portrait: np.ndarray) -> None:
    images = [side_by_side(portrait, portrait if i >= 5 else None) for i in range(20)]
    found = follow(images)
    assert [len(faces) for faces in (found[0], found[-1])] == [1, 2]
    here, there = centres(found[-1])
    assert here == pytest.approx(centres(found[0])[0], abs=2)
    assert there == pytest.approx(here + 256, abs=2)


def test_two_faces_are_seen_at_once(portrait: np.ndarray) -> None:
    assert [len(faces) for faces in follow([side_by_side(portrait, portrait)] * 3)] == [2] * 3


def test_a_face_that_comes_after_the_one_followed_left(portrait: np.ndarray) -> None:
    """It need not wait for a look: where nobody is followed, faces are looked for."""
    images = [side_by_side(portrait, None)] * 4 + [side_by_side(None, portrait)] * 8
    found = follow(images)
    assert all(len(faces) <= 1 for faces in found) and found[-1]
    assert centres(found[3])[0] < 256 < centres(found[-1])[0]


def test_one_of_two_faces_leaves(portrait: np.ndarray) -> None:
    images = [side_by_side(portrait, portrait)] * 4 + [side_by_side(portrait, None)] * 8
    counts = [len(faces) for faces in follow(images)]
    assert counts[:4] == [2] * 4 and counts[-1] == 1


@pytest.mark.parametrize("model", ["", "task"])
def test_no_more_faces_than_asked_for(
    portrait: np.ndarray, model: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue("task") if model else ""
    images = [side_by_side(portrait, portrait)] * (int(LOOK * FPS) + 5)
    assert {len(faces) for faces in follow(images, 1, path)} == {1}
    three = np.concatenate([images[0], portrait], axis=1)
    assert {len(faces) for faces in follow([three] * 4, 2, path)} == {2}


def test_closed_twice_and_never_opened() -> None:
    mesh = Mesh(4)
    mesh.close()
    mesh.close()


# A task file


def test_a_task_file_gives_the_same_face(portrait: np.ndarray, task: str) -> None:
    """Its model is that of the wheel without refinement of eyes and lips."""
    [expected] = follow([portrait] * 4)[-1]
    for max_faces in (1, 4):
        found = follow([portrait] * 4, max_faces, task)
        assert [len(faces) for faces in found] == [1] * 4
        face = found[-1][0]
        assert face.shape == (POINTS, 3) and face.any(axis=1).all()
        unit = np.linalg.norm(expected[263] - expected[33])
        for end in (np.min, np.max):  # the box
            sides = end(face[:468], axis=0) - end(expected[:468], axis=0)
            assert np.abs(sides).max() < 0.06 * unit
        gaps = np.linalg.norm(face[:468] - expected[:468], axis=1) / unit
        assert gaps[EYE_CORNERS + MOUTH_CORNERS].max() < 0.06 and gaps.mean() < 0.05
        # The last ten points are what the model says of the irises.
        np.testing.assert_array_equal(face[468:], face[list(IRISES)])


def test_a_task_file_finds_all_faces_in_every_frame(portrait: np.ndarray, task: str) -> None:
    images = [side_by_side(portrait, None)] * 3 + [side_by_side(portrait, portrait)] * 3
    assert [len(faces) for faces in follow(images, 4, task)] == [1] * 3 + [2] * 3


def test_a_task_file_and_frames_less_than_a_millisecond_apart(
    portrait: np.ndarray, task: str
) -> None:
    """MediaPipe takes whole milliseconds, and none twice."""
    assert len(follow([portrait] * 4, 4, task, fps=4000)[-1]) == 1


def test_version(task: str) -> None:
    assert check("") == check(task) == mediapipe.__version__


def test_home_folder(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(task).parent))
    assert check("~/face.task")


@pytest.mark.parametrize("path", ["nowhere.task", "."])
def test_no_such_model(tmp_path: Path, path: str) -> None:
    with pytest.raises(MertoolError) as caught:
        check(str(tmp_path / path))
    error = caught.value
    assert error.what == "There is no such model of a face."
    assert error.where == f"vision.model={tmp_path / path}" and "task file" in error.fix


@pytest.mark.parametrize("content", [b"", b"Not a model, but text.\n" * 100])
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.task"
    path.write_bytes(content)
    with pytest.raises(MertoolError) as caught:
        check(str(path))
    error = caught.value
    assert error.what == "MediaPipe FaceMesh cannot be used."
    assert error.where and "\n" not in error.where
    assert "--set vision.model=" in error.fix


def test_a_setting_of_another_name(tmp_path: Path) -> None:
    with pytest.raises(MertoolError) as caught:
        check(str(tmp_path / "nowhere.task"), "vision.mesh")
    assert caught.value.where.startswith("vision.mesh=")


def test_a_model_of_other_points_is_not_believed(portrait: np.ndarray, tmp_path: Path) -> None:
    """The wheel's own mesh, as it is, would give 478 scrambled points, all of depth 0."""
    path = tmp_path / "face.task"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        made.write(
            models() / "face_detection" / "face_detection_short_range.tflite",
            "face_detector.tflite",
        )
        made.write(
            models() / "face_landmark" / "face_landmark.tflite", "face_landmarks_detector.tflite"
        )
    with pytest.raises(MertoolError, match="does not give 478 points"):
        follow([portrait] * 2, 1, str(path))
