"""Geometric action units, head pose, gaze and openings from MediaPipe FaceMesh."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from mertool.errors import MertoolError
from mertool.extract.face import measures
from mertool.extract.face.mesh import Mesh, check
from mertool.extract.face.pipeline import COLUMNS, Face, FaceSettings, face_rows
from mertool.types import Clip, Rows

NEUTRAL = ("none", "speaker", "clip")
LEAST = 10.0  # seconds
_LIPS = (13, 14)  # middle of the inner lips


class FaceMesh:
    """Measures of action units, head pose, gaze, openings of eyes and mouth; landmarks on request.

    `AU01_geo` and so on: see `measures`. Pitch, yaw and roll are in degrees; for a head that is
    otherwise straight, pitch > 0 = looking down, yaw > 0 = turned to the person's own left (the
    picture's right), roll > 0 = tilted counter-clockwise in the picture. MediaPipe's depth assumes
    a camera far away: read pose as a measure of movement, not as a calibrated angle. `gaze_x`,
    `gaze_y`, `ear_right`, `ear_left`, `mar`: see `measures.eyes_and_mouth`.

    Landmarks: x, y, z of 68 points in the head's own frame, whose origin is the mean of the four
    eye corners and whose unit is the distance of the two outer ones; x points to the person's left,
    y up, z out of the face. Moving, turning, tilting or scaling the face leaves them as they are,
    up to the mesh's own error.

    One row per frame; the last columns are those of every face extractor.

    Args:
        config: Settings.
        device: Ignored; this runs on the CPU.

    Raises:
        MertoolError: MediaPipe or its models are not installed, or `model` is no model.
    """

    @dataclass(frozen=True)
    class Config(FaceSettings):
        """Settings of `facemesh`.

        Attributes:
            fps: Frames per second to look at; 0 = every frame.
            keep: Of several faces: "speaker" = the one whose mouth moves with the voice, or
                "largest".
            missing: Frames without the kept face: "zero", or "interpolate" (linear in time);
                valid = 0 either way.
            max_faces: Faces looked for in a frame.
            landmarks: Also give the 68 landmarks, 204 columns.
            neutral: Take the face at rest off the action units: "none", or their medians over the
                "speaker" (all of his clips in this run) or the "clip" (of 10 s or more).
            model: A face_landmarker task file, for releases of MediaPipe without models inside;
                "" = the models of its wheel.
        """

        landmarks: bool = False
        neutral: str = "none"
        model: str = ""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.neutral not in NEUTRAL:
                raise ValueError(f'neutral="{self.neutral}" must be one of {", ".join(NEUTRAL)}')

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        version = check(config.model)
        points = range(len(measures.LANDMARKS)) if config.landmarks else ()
        self._own = [*measures.COLUMNS, *(f"lm{i:02d}_{axis}" for i in points for axis in "xyz")]
        self.columns = [*self._own, *COLUMNS]
        self.info: dict[str, str | float] = {
            "model": config.model or "MediaPipe FaceMesh with irises, 478 points",
            "revision": f"mediapipe {version}",
            "licence": "of the given model" if config.model else "Apache-2.0",
            "rate": config.fps,
            "version": "2",
        }
        if config.neutral == "speaker":  # taken off when all clips are there
            self.info["neutral_by_speaker"] = json.dumps(list(measures.ACTION_UNITS))

    def extract(self, clip: Clip) -> Rows:
        """Follow the face of one clip.

        Args:
            clip: A clip with video.

        Returns:
            Rows, one per frame; none, with a warning, for a clip without video or without any face.

        Raises:
            MertoolError: The face at rest is to be taken off, and the clip is too short for it or
                its speaker unknown.
        """
        _check_neutral(self.config.neutral, clip)
        # One per clip: tracking must not go on from one clip to the next.
        mesh = Mesh(self.config.max_faces, self.config.model)

        def see(images: list[np.ndarray], times: list[float]) -> list[list[Face]]:
            found = [mesh.faces(image, time) for image, time in zip(images, times, strict=True)]
            return [[self._face(points) for points in faces] for faces in found]

        try:
            rows = face_rows(clip, see, len(self._own), self.config, "facemesh")
        finally:
            mesh.close()
        if self.config.neutral == "clip" and len(rows):
            units = slice(len(measures.ACTION_UNITS))
            seen = rows.values[:, -1] > 0
            rest = np.median(rows.values[seen, units], axis=0)
            # Rows that lie between measured ones follow them; zeros stay zeros.
            between = self.config.missing == "interpolate"
            rows.values[seen | between, units] -= rest
        return rows

    def _face(self, points: np.ndarray) -> Face:
        head, pose = measures.head_frame(points)
        parts = [measures.action_units(head), pose, measures.eyes_and_mouth(head)]
        if self.config.landmarks:
            parts.append(head[list(measures.LANDMARKS)].ravel())
        x, y = points[:, 0], -points[:, 1]
        box = np.array([x.min(), y.min(), x.max(), y.max()])
        upper, lower = head[list(_LIPS)]
        mouth = float(np.linalg.norm(upper - lower))
        return Face(box, np.concatenate(parts).astype(np.float32), mouth)


def _check_neutral(neutral: str, clip: Clip) -> None:
    if neutral == "speaker" and not clip.speaker:
        raise MertoolError(
            "The speaker's face at rest cannot be known: the clip has no speaker.",
            clip.id,
            'Name the speakers in the manifest (column "speaker"), or --set vision.neutral=none',
        )
    length = np.inf if clip.end is None else clip.end - clip.start
    if neutral == "clip" and length < LEAST:
        raise MertoolError(
            "The clip is too short to tell a face at rest from what the clip is about.",
            f"{clip.id}: {length:.1f} s, at least {LEAST:g}",
            "--set vision.neutral=speaker, or none",
        )
