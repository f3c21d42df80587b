"""Stands in for py-feat: its Detectorv2, with a network that reads faces off code pixels.

Copied to a folder on the PYTHONPATH as `feat/__init__.py`; see `test_pyfeat` for the code. Like the
real one it chats on stdout and changes torch for the whole process. $STUB_FEAT names what else is
odd about it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

ODD = os.environ.get("STUB_FEAT", "")
if ODD == "import":
    raise RuntimeError("operator torchvision::nms does not exist\nand more")

import torch  # noqa: E402

print("feat says hello")
os.environ["OMP_NUM_THREADS"] = "7"

AUS = [1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43]
MARK, RAISE, DIE, EXIT, TALK, SLEEP = 77, 1, 2, 3, 4, 5


class Table:
    """The little of a data frame that is needed."""

    def __init__(self, rows: list[dict[str, float]]) -> None:
        self.rows, self.columns = rows, list(rows[0])

    def __getitem__(self, name: str) -> list[float]:
        return [row[name] for row in self.rows]


class Detectorv2:
    """The signatures of py-feat 2.1.5."""

    def __init__(
        self, device="cpu", face_detection_threshold=0.5, identity_model="arcface",
        multitask_weights=None, amp=None, compile=False,
    ):  # fmt: skip
        torch.set_grad_enabled(False)
        torch.set_num_threads(2)
        os.write(1, b"a library in C says hello\n")
        self.known = {
            "device": str(device), "identity": identity_model, "weights": multitask_weights,
            "amp": amp, "offline": os.environ.get("HF_HUB_OFFLINE"),
            "variable": os.environ.get("FEAT_MULTITASK_WEIGHTS"),
        }  # fmt: skip
        if ODD == "models":
            raise OSError("We couldn't connect to the hub\nCheck your connection")
        if ODD == "quit":
            sys.exit("licence not accepted")
        if ODD == "die":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(5)
        self.info = {"face_model": "retinaface", "multitask_model": "face_multitask_v2"}
        self.calls = []

    def detect(
        self, inputs, data_type="image", output_size=None, batch_size=1, num_workers=0,
        pin_memory=False, face_identity_threshold=0.8, face_detection_threshold=None,
        skip_frames=None, progress_bar=True,
    ):  # fmt: skip
        assert data_type == "tensor" and batch_size == len(inputs) and not progress_bar
        assert inputs.dtype == torch.uint8 and inputs.shape[1] == 3 and inputs.is_contiguous()
        self.calls.append(list(inputs.shape))
        print("detecting")
        rows = []
        # Backwards: what tells a row's frame is its column, not its place.
        for i in reversed(range(len(inputs))):
            rows += self._rows(i, inputs[i].permute(1, 2, 0))
        if ODD == "lower":
            rows = [{name.lower(): value for name, value in row.items()} for row in rows]
        if ODD == "column":
            rows = [{k: v for k, v in row.items() if k != "AU43"} for row in rows]
        if ODD == "pandas":
            import pandas

            return pandas.DataFrame(rows)
        return Table(rows)

    def _rows(self, i: int, image: torch.Tensor) -> list[dict[str, float]]:
        mark, command, count = image[0, 0].tolist()
        if mark != MARK:
            level = round(float(image.float().mean()))  # a real picture has one face, in its middle
            face = [(2, 1, 2, level, level // 2, 255)] if level > 1 else []
        else:
            self._obey(command)
            face = [
                (*image[1, 2 * k].tolist(), *image[1, 2 * k + 1].tolist()) for k in range(count)
            ]
        corner = [value / 255 for value in image[-1, -1].tolist()]
        return [self._row(i, *one, corner) for one in face or [(0,) * 6]]

    def _row(self, i, x, y, size, level, mouth, score, corner) -> dict[str, float]:
        x, y, size, level = 16 * x, 16 * y, 16 * size, level / 255
        row = {
            "FaceRectX": x, "FaceRectY": y, "FaceRectWidth": size, "FaceRectHeight": 2 * size,
            "FaceScore": score / 255, "x_62": x + size / 2, "y_62": y + size,
            "x_66": x + size / 2, "y_66": y + size + mouth, "Pitch": level, "Roll": -level,
            "Yaw": size / 100, "X": 8.0, "Y": 8.0, "Z": 8.0,
            **{f"AU{n:02d}": level * (1 - k / 40) for k, n in enumerate(AUS)},
            **{
                name: (k + 1) / 28
                for k, name in enumerate("Neutral Happy Sad Surprise Fear Disgust Anger".split())
            },
            "valence": 8.0, "gaze_pitch": corner[0], "gaze_yaw": corner[2], "gaze_angle": 8.0,
            "_neutral": 8.0, "FrameHeight": 8.0, "input": "8",
        }  # fmt: skip
        if not score:
            row = dict.fromkeys(row, float("nan")) | {"FaceScore": 0.0}
        if score == 1:  # seen, but not measured
            row["AU12"] = float("nan")
        return row | {"frame": i}

    def _obey(self, command: int) -> None:
        if command == RAISE:
            raise ValueError(json.dumps({**self.known, **state(), "calls": self.calls}))
        if command == DIE:
            print("free(): invalid pointer", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if command == EXIT:
            sys.exit("enough")
        if command == TALK:
            for stream in (sys.stdout, sys.stderr):
                print("bla " * 100_000, file=stream, flush=True)
            os.write(1, b"bla " * 100_000)
        if command == SLEEP:
            Path(os.environ["STUB_FEAT_ASLEEP"]).touch()
            time.sleep(3600)


def state() -> dict[str, object]:
    """What this process is like."""
    return {
        "pid": os.getpid(), "grad": torch.is_grad_enabled(), "threads": torch.get_num_threads(),
        "omp": os.environ["OMP_NUM_THREADS"], "run as": sys.orig_argv[0],
        "mertool": "mertool" in sys.modules, "path": sys.path,
    }  # fmt: skip
