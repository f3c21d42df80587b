"""Pictures of faces, cut out of frames, by MediaPipe's face detectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from mertool.errors import MertoolError
from mertool.extract.face.mesh import quiet_stderr

# Side of the square that is cut out, over the longer side of the detected box. The box goes from
# the brows to the chin; the square shows the whole head.
MARGIN = 1.5


class Crops:
    """Finds faces in single frames.

    First by the detector for faces within about 2 m of the camera; where that finds none, by the
    one for 5 m (MediaPipe's BlazeFace, short and full range).

    Args:
        max_faces: Of more, the largest.

    Raises:
        MertoolError: MediaPipe or its models are not installed.
    """

    def __init__(self, max_faces: int) -> None:
        self._most = max_faces
        try:
            with quiet_stderr():
                self._detectors = [_detector(i) for i in (0, 1)]
                for detector in self._detectors:
                    # What they have to say they say with the first image.
                    detector.process(np.zeros((64, 64, 3), np.uint8))
        except Exception as error:  # not installed, another release's layout, no models inside
            raise MertoolError(
                "MediaPipe's face detection cannot be used.",
                f"{type(error).__name__}: {error}",
                'pip install "mertool[offline]" (mediapipe 0.10.21, the last release with its '
                "models inside; Python 3.11 or 3.12), or whole frames: --set vision.crop=frame",
            ) from error

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """The squares around the faces of a frame.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (4,) left, top, right, bottom of each, whole pixels within the frame, largest first.
        """
        height, width = image.shape[:2]
        for detector in self._detectors:
            found = detector.process(image).detections or ()
            boxes = [face.location_data.relative_bounding_box for face in found]
            if boxes:
                break
        squares = [
            square(
                np.array([b.xmin, b.ymin, b.xmin + b.width, b.ymin + b.height])
                * [width, height, width, height],
                height,
                width,
            )
            for b in boxes
        ]
        return sorted(squares, key=lambda box: box[0] - box[2])[: self._most]


def square(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Widen a box to a square within the frame.

    Args:
        box: (4,) left, top, right, bottom, pixels.
        height: Of the frame.
        width: Of the frame.

    Returns:
        (4,) int64: a square about the box's centre, its side MARGIN times the box's longer side.
        Where it would leave the frame it is moved inwards, and made smaller only if it must be.
    """
    side = MARGIN * max(box[2] - box[0], box[3] - box[1])
    side = int(np.clip(round(side), 1, min(height, width)))
    centre = (box[:2] + box[2:]) / 2
    corner = np.clip(np.rint(centre - side / 2), 0, [width - side, height - side]).astype(np.int64)
    return np.concatenate([corner, corner + side])


def _detector(model: int) -> Any:
    from mediapipe.python.solutions.face_detection import FaceDetection

    return FaceDetection(model_selection=model)
