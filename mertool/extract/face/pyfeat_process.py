"""The process that py-feat runs in, seen from outside: `pyfeat_worker` is what runs in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from mertool.errors import MertoolError
from mertool.extract.face import pyfeat_worker as worker

OLDEST = (2, 1, 1)  # of py-feat: before, pitch had the other sign
INSTALL = (
    "Give it an environment of its own: python -m venv pyfeat-env, pyfeat-env/bin/pip install "
    f'"py-feat>={".".join(map(str, OLDEST))}", --set vision.python=pyfeat-env/bin/python; '
    "or take --vision facemesh"
)
_FETCH = (
    "Connect to the network once, or copy the weights: hf download py-feat/retinaface_r34 "
    "--cache-dir FOLDER (the folder in brackets), and --set vision.weights=FILE for those of "
    "py-feat/face_multitask_v2; or take --vision facemesh"
)
_NAME_PYTHON = "Name bin/python of the environment with py-feat: --set vision.python=PATH"
# Stage of a failure before the first clip -> what is wrong, and what to do.
_FAILURES = {
    "import": ("py-feat cannot be imported.", INSTALL),
    "device": ("The device cannot be used.", "Take --device cpu, or mend torch there."),
    "models": ("py-feat's models cannot be loaded.", _FETCH),
    "columns": ("py-feat's table has other columns.", INSTALL),
    "detect": ("py-feat does not work: it fails on an empty picture.", INSTALL),
}
_LESS = "Other clips go on. If memory is short: --set vision.batch=N with a smaller N"


class Process:
    """py-feat in a process of its own.

    It ends with this object, with `close`, and with the process that started it.

    Args:
        python: Its interpreter.
        weights: Local multi-task weights, or "".
        device: "auto", "cpu" or "cuda".
        columns: What is wanted of py-feat's table.

    Raises:
        MertoolError: It does not start, or py-feat does not work in it.

    Attributes:
        facts: What it says of itself, see `pyfeat_worker.load`.
    """

    def __init__(self, python: str, weights: str, device: str, columns: Sequence[str]) -> None:
        self._python, self._width = python, len(columns)
        settings = {"device": device, "weights": weights, "columns": list(columns)}
        env = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        env.pop("FEAT_MULTITASK_WEIGHTS", None)  # only settings choose weights: they are recorded
        if weights:
            env["HF_HUB_OFFLINE"] = "1"
        try:
            self._process = subprocess.Popen(
                [python, worker.__file__, json.dumps(settings)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
            )  # fmt: skip
        except OSError as error:
            raise self._no_python(f"{type(error).__name__}: {error.strerror}") from error
        self._said = bytearray()  # the end of its stderr
        listener = threading.Thread(
            target=_listen, args=(self._process.stderr, self._said), daemon=True
        )
        listener.start()
        self._end = weakref.finalize(self, _end, self._process, listener)
        try:
            answer = worker.receive(self._process.stdout)
        except (EOFError, ValueError) as error:  # it died, or is no Python
            self.close()
            raise self._no_python(self._last_words()) from error
        except BaseException:
            self.close()
            raise
        if "ready" not in answer:
            self.close()
            what, fix = _FAILURES[answer["stage"]]
            cause = RuntimeError(answer["trace"])
            raise MertoolError(what, f"{python}: {answer['error']}", fix) from cause
        self.facts: dict[str, Any] = answer["ready"]

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._end.alive and self._process.poll() is None

    def close(self) -> None:
        """End it, now."""
        self._end()

    def ask(self, images: Sequence[np.ndarray], what: str) -> tuple[list[int], np.ndarray]:
        """Have a batch of frames looked at.

        Args:
            images: (H, W, 3) uint8 RGB, all of one size.
            what: What they are, for errors.

        Returns:
            The frame of each row of py-feat's table, and its (rows, columns) float32.

        Raises:
            MertoolError: py-feat failed on them, or died.
        """
        try:
            worker.send(self._process.stdin, {"shape": [len(images), *images[0].shape]})
            for image in images:
                self._process.stdin.write(np.ascontiguousarray(image))
            self._process.stdin.flush()
            answer = worker.receive(self._process.stdout)
            if "frames" in answer:
                size = 4 * self._width * len(answer["frames"])
                raw = worker.read(self._process.stdout, size)
                return answer["frames"], np.frombuffer(raw, np.float32).reshape(-1, self._width)
        except (EOFError, BrokenPipeError) as error:
            with suppress(subprocess.TimeoutExpired):  # or `close` would be its cause of death
                self._process.wait(timeout=5)
            self.close()
            raise MertoolError(
                f"py-feat's process died: {self._cause()}.", f"{what}: {self._last_words()}", _LESS
            ) from error
        except BaseException:  # Ctrl-C, say: this answer would be taken for that to the next batch
            self.close()
            raise
        cause = RuntimeError(answer["trace"])
        raise MertoolError("py-feat failed.", f"{what}: {answer['error']}", _LESS) from cause

    def _cause(self) -> str:
        """How it ended."""
        code = self._process.returncode
        if code >= 0:
            return f"exit status {code}"
        name = {int(s): s.name for s in signal.Signals}.get(-code, f"signal {-code}")
        return f"{name}, as when no memory is left" if name == "SIGKILL" else name

    def _last_words(self) -> str:
        """The last line it wrote to stderr."""
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    def _no_python(self, reason: str) -> MertoolError:
        return MertoolError(
            "The Python for py-feat does not start.", f"{self._python}: {reason}", _NAME_PYTHON
        )


def _listen(pipe: BinaryIO, said: bytearray) -> None:
    """Take what comes, so that the other side never waits, and keep the end of it."""
    with pipe:
        while some := pipe.read1(4096):
            said += some
            del said[:-8192]


def _end(process: subprocess.Popen[bytes], listener: threading.Thread) -> None:
    """End a process, and leave no zombie."""
    process.kill()
    # One behind a wrapper script is not reached by that, but by the end of its stdin.
    with suppress(OSError):
        process.stdin.close()
    process.stdout.close()
    process.wait()
    # For its last words; not for ever, since a child of it may hold the pipe.
    if listener is not threading.current_thread():
        listener.join(timeout=1)
