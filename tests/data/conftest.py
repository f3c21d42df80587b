"""What the tests of splits and checks share: the command line, hand-made feature files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mertool.cli import common, main
from mertool.store import Stream, Writer
from mertool.types import Clip, Rows


class Done(NamedTuple):
    """What a command gave: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """`call(*args)` runs `mertool ARGS`."""

    def run(*args: object) -> Done:
        monkeypatch.setattr(common, "STATE", common.State())
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in args])
        return Done(caught.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`make(clips)` writes a feature file of these clips, each with two rows of its own."""

    def write(clips: Iterable[Clip], name: str = "x.h5", labels: Iterable = ()) -> Path:
        path = tmp_path / name
        with Writer(path, {"audio": Stream(("a", "b"))}, list(labels)) as writer:
            for i, clip in enumerate(clips):
                values = np.array([[i, 1], [i, 2]], np.float32)
                times = np.array([[0.0, 0.5], [0.5, 1.0]])
                writer.add(clip, {"audio": Rows(values, times)})
        return path

    return write
