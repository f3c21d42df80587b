"""Facial landmarks without head pose, and head pose, from MediaPipe FaceMesh."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import warnings
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mertool.errors import MertoolError, MertoolWarning
from mertool.types import Clip, Rows

# The vertices of MediaPipe's mesh that stand where the 68 points of iBUG 300-W do, in their order
# (Sagonas et al. 2013). "Right" and "left" are the person's own: right is left in the picture.
LANDMARKS = (
    # 0-16 jaw line, right ear to left ear, 8 = chin
    *(127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356),
    # 17-21 right brow, outer to inner end; 22-26 left brow, inner to outer end
    *(70, 63, 105, 66, 107),
    *(336, 296, 334, 293, 300),
    # 27-30 bridge of the nose down to its tip; 31-35 under the nose, right to left
    *(168, 197, 5, 4),
    *(98, 97, 2, 326, 327),
    # 36-41 right eye: outer corner, upper lid, inner corner, lower lid back; 42-47 left eye: inner
    # corner, upper lid, outer corner, lower lid back
    *(33, 160, 158, 133, 153, 144),
    *(362, 385, 387, 263, 373, 380),
    # 48-59 outer lips: right corner, upper lip, 54 = left corner, lower lip back
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    # 60-67 inner lips, in the same way
    *(78, 81, 13, 311, 308, 402, 14, 178),
)
# The head's frame is built on points that speech and expression move least.
_ACROSS = ((33, 263), (133, 362), (129, 358))  # eye corners, wings of the nose: (right, left)
_FOREHEAD, _NOSE_BASE = 10, 2
# In MediaPipe's canonical face, which looks straight ahead, the line from the nose's base to the
# forehead leans back by this angle.
_LEAN = np.radians(8.66)
_EYES = (33, 133, 362, 263)
_OUTER_EYES = (33, 263)


class FaceMesh:
    """68 landmarks with the head's pose removed, the pose, and validity: 208 columns.

    Landmarks: x, y, z of each point in the head's own frame, whose origin is the mean of the four
    eye corners and whose unit is the distance of the two outer ones; x points to the person's left,
    y up, z out of the face. Moving, turning, tilting or scaling the face leaves them as they are,
    up to the mesh's own error.

    Pose, degrees: the head's frame is the camera's (x to the picture's right, y up, z to the
    viewer) turned by R = Rz(roll) Ry(yaw) Rx(pitch), each counter-clockwise seen against its axis.
    So, for a head that is otherwise straight, pitch > 0 = looking down, yaw > 0 = turned to the
    person's own left (the picture's right), roll > 0 = tilted counter-clockwise in the picture.
    MediaPipe's depth assumes a camera far away: read pose as a measure of movement, not as a
    calibrated angle.

    One row per frame, with valid = 1; a frame without a face has zeros throughout. Of several
    faces the largest is used, each frame for itself.

    Args:
        config: Settings.
        device: Ignored; this runs on the CPU.

    Raises:
        MertoolError: MediaPipe or its models are not installed.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `facemesh`.

        Attributes:
            fps: Frames per second to look at; 0 = every frame.
            max_faces: Faces looked for in a frame, among which the largest is chosen.
        """

        fps: float = 0.0
        max_faces: int = 4

        def __post_init__(self) -> None:
            if not 0 <= self.fps < float("inf"):
                raise ValueError(f"fps={self.fps} must be 0 (every frame) or above")
            if not 1 <= self.max_faces <= 100:
                raise ValueError(f"max_faces={self.max_faces} must lie between 1 and 100")

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        points = [f"lm{i:02d}_{axis}" for i in range(len(LANDMARKS)) for axis in "xyz"]
        self.columns = [*points, "pitch", "yaw", "roll", "valid"]
        try:
            with _silence():
                _new_mesh(config.max_faces).close()
            version = importlib.metadata.version("mediapipe")
        except Exception as error:  # not installed, another release's layout, no models inside
            raise MertoolError(
                "MediaPipe FaceMesh cannot be used.",
                f"{type(error).__name__}: {error}",
                'pip install "mertool[offline]" (mediapipe 0.10.21, the last release with its '
                "models inside; Python 3.11 or 3.12), or --vision none",
            ) from error
        self.info: dict[str, str | float] = {
            "model": "MediaPipe FaceMesh, 468 points",
            "revision": f"mediapipe {version}",
            "licence": "Apache-2.0",
            "rate": config.fps,
            "version": "1",
        }

    def extract(self, clip: Clip) -> Rows:
        """Follow the face of one clip.

        Args:
            clip: A clip with video.

        Returns:
            Rows of D = 208, one per frame; none, with a warning, for a clip without video or
            without any face.
        """
        width = len(self.columns)
        # Plain arrays grow without a second copy at the end: a clip may have any length.
        values, starts = array("f"), array("d")
        found = several = 0
        mesh = None
        try:
            for time, image in clip.frames(self.config.fps or None):
                if found:
                    faces = _faces(mesh, image)
                else:  # MediaPipe's graph and the first face in it are greeted on stderr
                    with _silence():
                        # One per clip: tracking must not go on from one clip to the next.
                        mesh = mesh or _new_mesh(self.config.max_faces)
                        faces = _faces(mesh, image)
                row = np.zeros(width, np.float32)
                if faces:
                    landmarks, pose = normalise(max(faces, key=_area))
                    row[:-1] = np.concatenate([landmarks.ravel(), pose])
                    row[-1] = 1
                found += bool(faces)
                several += len(faces) > 1
                values.frombytes(row.tobytes())
                starts.append(time)
        finally:
            if mesh:
                mesh.close()
        if not found:
            missing = "no face found" if starts else "no video"
            warnings.warn(f"{missing}, no facemesh rows", MertoolWarning, stacklevel=2)
            return Rows.empty(width)
        if several:
            warnings.warn(
                f"{several} of {len(starts)} frames show more than one face; the largest is used",
                MertoolWarning,
                stacklevel=2,
            )
        times = np.frombuffer(starts, np.float64)
        return Rows(np.frombuffer(values, np.float32).reshape(-1, width), _cells(times, clip))


def normalise(mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take position, size and pose off a mesh.

    Args:
        mesh: (468, 3) vertices, x to the picture's right, y up, z to the viewer, one unit for all.

    Returns:
        (68, 3) landmarks in the head's frame, and (3,) pitch, yaw, roll in degrees; both as
        described at `FaceMesh`.
    """
    x = sum(mesh[left] - mesh[right] for right, left in _ACROSS)
    x = x / np.linalg.norm(x)
    up = mesh[_FOREHEAD] - mesh[_NOSE_BASE]
    up = up - x * (x @ up)
    up = up / np.linalg.norm(up)
    out = np.cross(x, up)
    # Turned about x, so that the canonical face comes out straight.
    y = np.cos(_LEAN) * up + np.sin(_LEAN) * out
    z = np.cos(_LEAN) * out - np.sin(_LEAN) * up
    axes = np.stack([x, y, z], axis=1)  # R: its columns are the head's axes seen by the camera
    pose = np.degrees(
        [
            np.arctan2(axes[2, 1], axes[2, 2]),
            np.arcsin(np.clip(-axes[2, 0], -1, 1)),
            np.arctan2(axes[1, 0], axes[0, 0]),
        ]
    )
    right, left = _OUTER_EYES
    unit = np.linalg.norm(mesh[left] - mesh[right])
    return (mesh[list(LANDMARKS)] - mesh[list(_EYES)].mean(axis=0)) @ axes / unit, pose


def _faces(mesh: Any, image: np.ndarray) -> list[np.ndarray]:
    """The (468, 3) vertices of each face, in pixels; x to the right, y up, z to the viewer."""
    height, width = image.shape[:2]
    found = mesh.process(image).multi_face_landmarks or ()
    # MediaPipe: x and z in picture widths, y in heights; y down, z away from the viewer.
    scale = np.array([width, -height, -width])
    return [np.array([(p.x, p.y, p.z) for p in face.landmark]) * scale for face in found]


def _area(face: np.ndarray) -> float:
    """Area of the box around a face, square pixels."""
    return float(np.prod(np.ptp(face[:, :2], axis=0)))


def _cells(times: np.ndarray, clip: Clip) -> np.ndarray:
    """(T, 2) cells of frames: each to the next, the last as long as is usual, within the clip."""
    from mertool.media import cells

    end = None
    if len(times) > 1:
        end = times[-1] + np.median(np.diff(times))
        if clip.end is not None:
            end = min(end, clip.end - clip.start)
    return cells(times, end)


def _new_mesh(max_faces: int) -> Any:
    from mediapipe.python.solutions.face_mesh import FaceMesh as MediaPipeFaceMesh

    return MediaPipeFaceMesh(max_num_faces=max_faces)


@contextmanager
def _silence() -> Iterator[None]:
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
