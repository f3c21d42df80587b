"""py-feat in a process of its own; started and fed by `mertool.extract.face.pyfeat`.

    PYTHON pyfeat_worker.py SETTINGS

PYTHON may belong to another virtual environment, with py-feat and without mertool: this script
imports nothing but the standard library, numpy, torch and feat. SETTINGS is a JSON object with
`device`, `weights` and `columns`.

A message, either way, is 8 bytes (MAGIC, length of the header), a header in JSON, and raw bytes.
Out first: {"ready": facts}, or a failure, which ends the process. Then for each batch:

    in   {"shape": [B, H, W, 3]} and B frames, uint8
    out  {"frames": [frame of each row]} and (rows, columns) float32, or a failure

A failure is {"stage", "error", "trace"}, without raw bytes. The process ends with its stdin, so
that it never outlives whoever started it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import sys
import traceback
from typing import Any, BinaryIO

MAGIC = b"mFt1"
_HEAD = struct.Struct("<4sI")


class StageError(Exception):
    """What went wrong, and in which stage."""

    def __init__(self, stage: str, error: str) -> None:
        self.stage = stage
        super().__init__(error)


def send(pipe: BinaryIO, header: dict[str, Any], raw: bytes = b"") -> None:
    """Write a message."""
    text = json.dumps(header).encode()
    pipe.write(_HEAD.pack(MAGIC, len(text)) + text)
    pipe.write(raw)
    pipe.flush()


def receive(pipe: BinaryIO) -> dict[str, Any]:
    """Read the header of the next message.

    Raises:
        EOFError: The other side has ended.
        ValueError: It does not speak this protocol.
    """
    magic, length = _HEAD.unpack(read(pipe, _HEAD.size))
    if magic != MAGIC:
        raise ValueError(f"{magic!r} is not the beginning of a message")
    return json.loads(bytes(read(pipe, length)))


def read(pipe: BinaryIO, length: int) -> bytearray:
    """Read exactly `length` bytes.

    Raises:
        EOFError: The other side has ended before.
    """
    raw = bytearray(length)
    view, done = memoryview(raw), 0
    while done < length:
        count = pipe.readinto(view[done:])
        if not count:
            raise EOFError
        done += count
    return raw


def load(settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Build the detector.

    Returns:
        It, and what is known of it: version, device, models, cache (the folder of the weights),
        commits ({hub repository: commit} of those in it).

    Raises:
        StageError: In the stage import, device or models.
    """
    try:
        import feat
        import torch
        from feat import Detectorv2
    except BaseException as error:  # libraries that do not go together raise all kinds of things
        raise StageError("import", first_line(error)) from error
    torch.set_num_threads(1)  # the last digits would vary with their number
    device = settings["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise StageError("device", first_line(error)) from error
    cache = os.path.join(os.path.dirname(os.path.abspath(feat.__file__)), "resources")
    try:
        detector = Detectorv2(
            device=device,
            identity_model=None,
            multitask_weights=settings["weights"] or None,
            amp=False,  # half precision on GPUs would give other values than CPUs do
        )
    except BaseException as error:
        raise StageError("models", f"{first_line(error)} [{cache}]") from error
    models = getattr(detector, "info", {})
    facts = {
        "version": version(feat),
        "device": device,
        "models": [str(models[key]) for key in ("face_model", "multitask_model") if key in models],
        "cache": cache,
        "commits": commits(cache),
    }
    return detector, facts


def version(feat: Any) -> str:
    """The version of py-feat."""
    from importlib import metadata

    try:
        return metadata.version("py-feat")
    except metadata.PackageNotFoundError:  # run from a checkout
        return str(getattr(feat, "__version__", "unknown"))


def commits(cache: str) -> dict[str, str]:
    """{hub repository: commit} of a cache folder."""
    found = {}
    for name in sorted(os.listdir(cache)) if os.path.isdir(cache) else []:
        path = os.path.join(cache, name, "refs", "main")
        if name.startswith("models--") and os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                found[name[len("models--") :].replace("--", "/")] = file.read().strip()
    return found


def see(detector: Any, frames: Any, columns: list[str]) -> tuple[list[int], Any]:
    """Run the detector on a batch.

    Args:
        detector: A Detectorv2.
        frames: (B, H, W, 3) uint8.
        columns: What is wanted of its table; upper and lower case count as one.

    Returns:
        The frame of each row of the table, and (rows, columns) float32.

    Raises:
        StageError: In the stage columns: there is no such column.
    """
    import numpy as np
    import torch

    images = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    table = detector.detect(images, data_type="tensor", batch_size=len(images), progress_bar=False)
    names = list(table.columns)
    lower = {name.lower(): name for name in reversed(names)}

    def column(name: str) -> Any:
        found = name if name in names else lower.get(name.lower())
        if found is None:
            known = version(sys.modules["feat"])
            raise StageError("columns", f"no {name} in the table of py-feat {known}")
        return np.asarray(table[found], dtype=np.float64)

    frame = [int(i) for i in column("frame")]
    if any(not 0 <= i < len(frames) for i in frame):
        raise ValueError(f"rows of frames {frame}, where only {len(frames)} were given")
    values = np.stack([column(name) for name in columns], axis=1)
    return frame, values.astype(np.float32)


def first_line(error: BaseException) -> str:
    """Kind and first line of an exception."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def failed(error: BaseException) -> dict[str, str]:
    """The header of a failure."""
    known = isinstance(error, StageError)
    return {
        "stage": error.stage if known else "detect",
        "error": str(error) if known else first_line(error),
        "trace": traceback.format_exc(),
    }


def main() -> int:
    """Serve until stdin ends."""
    # What libraries print goes to stderr, and what they read is nothing: the pipes are ours.
    inlet, outlet = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    # Ctrl-C is for the one who started this; it ends this process when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The modules beside this script are mertool's: a library that imports "image" means another.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    settings = json.loads(sys.argv[1])
    try:
        detector, facts = load(settings)
        import numpy as np

        # No face is in there, but a table with all columns comes out: errors show before any clip.
        see(detector, np.zeros((1, 240, 320, 3), np.uint8), settings["columns"])
    except BaseException as error:
        send(outlet, failed(error))
        return 1
    send(outlet, {"ready": facts})
    while True:
        try:
            shape = receive(inlet)["shape"]
            frames = np.frombuffer(read(inlet, math.prod(shape)), np.uint8).reshape(shape)
        except EOFError:
            return 0
        try:
            frame, values = see(detector, frames, settings["columns"])
        except (Exception, SystemExit) as error:  # this batch's; the next may be better
            send(outlet, failed(error))
        else:
            send(outlet, {"frames": frame}, values.tobytes())
            del values
        del frames


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever asked has died meanwhile
        os._exit(1)
