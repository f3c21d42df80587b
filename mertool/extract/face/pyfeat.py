"""Action units, emotions, pose and gaze from py-feat, run in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from mertool.config import PROGRAM
from mertool.errors import MertoolError
from mertool.extract.face.pipeline import COLUMNS, Face, FaceSettings, face_rows
from mertool.extract.face.pyfeat_process import INSTALL, OLDEST, Process
from mertool.files import sha256
from mertool.types import Clip, Rows

AUS = tuple(
    f"AU{n:02d}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
)
EMOTIONS = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger")
# The extractor's own columns, and py-feat's names of them.
NAMES = {
    **{name: name for name in AUS},
    **{f"emotion_{name.lower()}": name for name in EMOTIONS},
    **{"pitch": "Pitch", "roll": "Roll", "yaw": "Yaw"},
    **{"gaze_pitch": "gaze_pitch", "gaze_yaw": "gaze_yaw", "face_score": "FaceScore"},
}
_BOX = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight")  # of the upper left corner
_LIPS = ("x_62", "y_62", "x_66", "y_66")  # iBUG 300-W: middle of the inner lips, upper and lower


class PyFeat:
    """20 action units, 7 emotions, head pose and gaze by py-feat's multi-task network.

    Detectorv2 of py-feat 2.1.1 or later: RetinaFace finds the faces, one network measures each.
    It runs in a process of its own, since py-feat changes torch for all who use it (no gradients,
    one thread), and in an environment of its own if need be, since its requirements clash with
    others'. Frames reach it a batch at a time. The process ends with the extractor; where it dies
    on a clip, the next clip has a new one.

    Columns, in py-feat's units: AU01 to AU43, probability that the action unit is there, 0 to 1,
    not its intensity; emotion_*, probabilities that sum to 1; pitch, roll, yaw, radians, > 0 where
    the head looks up, is tilted to the person's right, is turned to the person's right; gaze_pitch,
    gaze_yaw, radians, with the same signs; face_score, confidence of RetinaFace, 0 to 1. Then
    those of every face extractor.

    Args:
        config: Settings.
        device: "auto" (a GPU where py-feat's own torch can use one), "cpu" or "cuda".

    Raises:
        MertoolError: py-feat, its Python or its weights are missing, or it does not work.
    """

    @dataclass(frozen=True)
    class Config(FaceSettings):
        """Settings of `pyfeat`.

        Attributes:
            fps: Frames per second to look at; 0 = every frame.
            keep: Of several faces: "speaker" = the one whose mouth moves with the voice, or
                "largest".
            missing: Frames without the kept face: "zero", or "interpolate" (linear in time);
                valid = 0 either way.
            max_faces: Faces of a frame that are followed, the largest ones.
            python: The Python that has py-feat, `bin/python` of a virtual environment; "" = that
                of the environment variable MERTOOL_PYFEAT_PYTHON, or the one mertool runs on.
            weights: The multi-task weights, a .safetensors file or the folder of one; nothing is
                downloaded then. "" = py-feat's own cache, filled from the hub.
            batch: Frames that go through the networks together.
        """

        python: str = field(default="", metadata=PROGRAM)
        weights: str = ""
        batch: int = 8

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.batch <= 1024:
                raise ValueError(f"batch={self.batch} must lie between 1 and 1024")

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        self.columns = [*NAMES, *COLUMNS]
        weights = _weights(config.weights)
        wanted = [*NAMES.values(), *_BOX, *_LIPS]
        self._start = (_interpreter(config.python), weights, device, wanted)
        self._process = Process(*self._start)
        facts = self._process.facts
        version = tuple(map(int, re.findall(r"\d+", facts["version"])[:3]))
        if version and version < OLDEST:
            self.close()
            raise MertoolError("py-feat is too old.", f"version {facts['version']}", INSTALL)
        commits = {name.split("/")[-1]: commit[:12] for name, commit in facts["commits"].items()}
        if weights:
            file = Path(weights)
            commits["face_multitask_v2"] = f"{file.name} sha256 {sha256(file)[:12]}"
        used = {name: commits.get(name, "?") for name in ("face_multitask_v2", "retinaface_r34")}
        self.info: dict[str, str | float] = {
            "model": f"py-feat Detectorv2: {', '.join(facts['models'])}",
            "revision": f"py-feat {facts['version']}; "
            + ", ".join(f"{name} {commit}" for name, commit in used.items()),
            "licence": "code MIT; weights: non-commercial research only (backbone CC BY-NC 4.0, "
            "terms of several data sets)",
            "rate": config.fps,
            "version": "1",
        }

    def extract(self, clip: Clip) -> Rows:
        """Measure the kept face of one clip.

        Args:
            clip: A clip with video.

        Returns:
            Rows of D = 36, one per frame; none, with a warning, for a clip without video or without
            any face.

        Raises:
            MertoolError: py-feat fails or dies on it; other clips may still be extracted.
        """
        if not self._process.alive:
            self._process = Process(*self._start)
        return face_rows(clip, self._see, len(NAMES), self.config, "pyfeat", self.config.batch)

    def close(self) -> None:
        """End py-feat's process; a later `extract` starts another."""
        self._process.close()

    def _see(self, images: list[np.ndarray], times: list[float]) -> list[list[Face]]:
        faces: list[list[Face]] = []
        # One size at a time: a video may change its own in the middle.
        for _, run in groupby(images, key=np.shape):
            batch = list(run)
            at = times[len(faces)], times[len(faces) + len(batch) - 1]
            frames, values = self._process.ask(batch, f"frames of {at[0]:.3f} s to {at[1]:.3f} s")
            found = faces_of(frames, values, len(batch))
            faces += [_largest(some, self.config.max_faces) for some in found]
        return faces


def faces_of(frames: Sequence[int], values: np.ndarray, count: int) -> list[list[Face]]:
    """Turn rows of py-feat's table into faces.

    Args:
        frames: The frame of each row.
        values: (rows, 33 + 8): the columns of NAMES, the box and the lips, in this order.
        count: Number of frames.

    Returns:
        The faces of each frame. A row without a face has score 0 or no box; one that could not be
        measured (NaN) is left out, too.
    """
    faces: list[list[Face]] = [[] for _ in range(count)]
    width = len(NAMES)
    score = list(NAMES).index("face_score")
    for frame, row in zip(frames, values, strict=True):
        own, (left, top, wide, high), lips = row[:width], row[width : width + 4], row[width + 4 :]
        if not np.isfinite(row[: width + 4]).all() or own[score] <= 0 or wide <= 0 or high <= 0:
            continue
        mouth = float(np.hypot(lips[0] - lips[2], lips[1] - lips[3]) / high)
        box = np.array([left, top, left + wide, top + high], np.float64)
        faces[frame].append(Face(box, own, mouth if np.isfinite(mouth) else 0.0))
    return faces


def _largest(faces: list[Face], most: int) -> list[Face]:
    """The largest faces, in their order."""
    if len(faces) <= most:
        return faces
    area = [(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]) for face in faces]
    kept = sorted(range(len(faces)), key=lambda i: -area[i])[:most]
    return [faces[i] for i in sorted(kept)]


def _interpreter(python: str) -> str:
    """The program of the setting `python`."""
    python = python or os.environ.get("MERTOOL_PYFEAT_PYTHON", "")
    if not python:
        return sys.executable
    # Links stay: by its own path an interpreter knows its environment.
    found = shutil.which(os.path.expanduser(python))  # a Path would lose "./"
    if not found:
        raise MertoolError(
            "The Python for py-feat is not there.",
            f"vision.python={python}",
            "Name bin/python of the environment with py-feat: --set vision.python=PATH",
        )
    return found


def _weights(weights: str) -> str:
    """The file of the setting `weights`, or ""."""
    if not weights:
        return ""
    path = Path(weights).expanduser().absolute()  # links stay: those of a cache have the suffix
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    # Others are pickles, which run code when they are read.
    if len(files) != 1 or not files[0].is_file() or files[0].suffix != ".safetensors":
        found = f"{len(files)} .safetensors files" if path.is_dir() else "no .safetensors file"
        raise MertoolError(
            "There are no weights for py-feat, or not one file of them.",
            f"vision.weights={weights}: {found}",
            "Name the file: --set vision.weights=face_multitask_v28.safetensors (from the hub: "
            "hf download py-feat/face_multitask_v2)",
        )
    return str(files[0])
