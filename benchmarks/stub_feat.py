"""A py-feat whose network is a stub, put in py-feat's place as the package `feat`.

It has what mertool's worker process uses of `Detectorv2`, and answers at once: one face in each
frame, always at the same place, every measure the mean brightness of the frame.
"""

from __future__ import annotations

from typing import Any

__version__ = "2.1.1+stub"

AUS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
MEASURES = (
    *(f"AU{n:02d}" for n in AUS),
    "Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger",
    "Pitch", "Roll", "Yaw", "gaze_pitch", "gaze_yaw",
)  # fmt: skip
POINTS = 68  # of the face, in the order of iBUG 300-W


class Table(dict[str, Any]):
    """Columns by name, as far as a data frame is asked for them."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self)


class Detectorv2:
    """Args: any, as py-feat's takes them."""

    info = {"face_model": "stub", "multitask_model": "stub"}

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def detect(self, inputs: Any, **settings: Any) -> Table:
        """(B, 3, H, W) images -> B rows, one per image."""
        count, _, height, width = inputs.shape
        bright = (inputs.float().mean(dim=(1, 2, 3)) / 255).tolist()
        same: dict[str, float] = {
            "FaceRectX": width / 4, "FaceRectY": height / 4,
            "FaceRectWidth": width / 2, "FaceRectHeight": height / 2, "FaceScore": 0.9,
            **{f"x_{i}": width / 2 for i in range(POINTS)},
            **{f"y_{i}": height / 2 for i in range(POINTS)},
        }  # fmt: skip
        return Table(
            frame=list(range(count)),
            **{name: [value] * count for name, value in same.items()},
            **dict.fromkeys(MEASURES, bright),
        )
