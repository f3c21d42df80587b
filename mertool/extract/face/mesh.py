"""The face mesh of MediaPipe: 478 points of each face in a frame."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from mertool.errors import MertoolError

POINTS = 478  # 468 of the face, 5 of each iris

# Seconds between two looks for further faces. While one face is followed nothing is looked for,
# which halves the time per frame.
LOOK = 0.5


class Mesh:
    """Follows the faces of one video.

    With the models of MediaPipe's wheel one face is followed, with a look for others twice a
    second; once there are several, all are looked for in every frame.

    Args:
        max_faces: Faces looked for.
        model: A face_landmarker task file of a newer MediaPipe; "" = the models of the wheel.
    """

    def __init__(self, max_faces: int, model: str = "") -> None:
        self.max_faces, self.model = max_faces, model
        self._follows = max_faces if model else 1  # faces looked for in every frame
        self._looked = -np.inf
        self._stamp = -1  # milliseconds, of the frame before
        self._graph = self._detector = None
        self._greeted = False  # MediaPipe speaks on stderr with a graph's first frames and face

    def faces(self, image: np.ndarray, time: float) -> list[np.ndarray]:
        """Find the faces of a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            time: Its time in the video, seconds; later than that of the frame before.

        Returns:
            (478, 3) of each face: pixels, x to the picture's right, y up, z to the viewer.

        Raises:
            MertoolError: The given model's points are none of a face.
            Exception: Whatever MediaPipe raises where it or its models are missing or broken.
        """
        with nullcontext() if self._greeted else quiet_stderr():
            found = self._look(image, time)
        height, width = image.shape[:2]
        # MediaPipe: x and z in picture widths, y in heights; y down, z away from the viewer.
        scale = np.array([width, -height, -width])
        faces = [np.array([(p.x, p.y, p.z) for p in face]) * scale for face in found]
        if self.model and any(len(face) != POINTS or not face[:, 2].any() for face in faces):
            # What MediaPipe makes of a model with another output, without a word.
            raise MertoolError(
                f"The model of a face does not give {POINTS} points in space.",
                self.model,
                "Give a face_landmarker task file as MediaPipe publishes it.",
            )
        return faces

    def _look(self, image: np.ndarray, time: float) -> list[Any]:
        if self.model:
            import mediapipe

            self._graph = self._graph or _landmarker(self.model, self.max_faces)
            picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            # Whole milliseconds, none twice: frames may be nearer to each other.
            self._stamp = max(self._stamp + 1, round(time * 1000))
            found = self._graph.detect_for_video(picture, self._stamp).face_landmarks
        else:
            if self._follows < self.max_faces and time >= self._looked + LOOK:
                self._looked = time
                self._detector = self._detector or _detector()
                if len(self._detector.process(image).detections or ()) > 1:
                    self.close()
                    self._follows = self.max_faces
            with quiet_stderr() if self._graph is None else nullcontext():
                self._graph = self._graph or _solution(self._follows)
                faces = self._graph.process(image).multi_face_landmarks or ()
            found = [face.landmark for face in faces]
        self._greeted |= bool(found)
        return found

    def close(self) -> None:
        """Free MediaPipe's graphs."""
        for opened in (self._graph, self._detector):
            if opened:
                opened.close()
        self._graph = self._detector = None


def check(model: str, setting: str = "vision.model") -> str:
    """Try MediaPipe and its models.

    Returns:
        The version of MediaPipe.

    Raises:
        MertoolError: MediaPipe or its models are not installed, or `model` is no task file.
    """
    import importlib.metadata

    if model and not Path(model).expanduser().is_file():
        raise MertoolError(
            "There is no such model of a face.",
            f"{setting}={model}",
            "Name a face_landmarker task file, or leave it out for the models in the wheel.",
        )
    try:
        with quiet_stderr():
            tried = Mesh(1, model)
            tried.faces(np.zeros((64, 64, 3), np.uint8), 0.0)
            tried.close()
        return importlib.metadata.version("mediapipe")
    except Exception as error:  # not installed, another release's layout, no models inside
        raise MertoolError(
            "MediaPipe FaceMesh cannot be used.",
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
            f"Give a face_landmarker task file that this MediaPipe reads: --set {setting}=FILE"
            if model
            else 'pip install "mertool[offline]" (mediapipe 0.10.21, the last release with its '
            f"models inside; Python 3.11 or 3.12), --set {setting}=FILE with a task file, or "
            "--vision none",
        ) from error


def _solution(max_faces: int) -> Any:
    from mediapipe.python.solutions.face_mesh import FaceMesh

    # Refined: the irises, and better lips and lids.
    return FaceMesh(max_num_faces=max_faces, refine_landmarks=True)


def _detector() -> Any:
    from mediapipe.python.solutions.face_detection import FaceDetection

    return FaceDetection(model_selection=0)  # that of the mesh


def _landmarker(model: str, max_faces: int) -> Any:
    from mediapipe.tasks.python import BaseOptions, vision

    # Read here: on some systems MediaPipe looks for absolute paths inside its own package.
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=Path(model).expanduser().read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        num_faces=max_faces,
    )
    return vision.FaceLandmarker.create_from_options(options)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send stderr nowhere: MediaPipe's C++ logs into it at once, whatever its settings."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
