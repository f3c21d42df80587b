"""A throw-away plugin with cheap extractors, and the folders of clips they are tried on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from media_samples import talking

from mertool.registry import registry

CODE = '''
import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np

from mertool import MertoolError, MertoolWarning, Rows, hookimpl


@hookimpl
def register_extractors(register):
    register("letters", "toys_module:Letters", modality="text", summary="a row per word")
    register("loudness", "toys_module:Loudness", modality="audio", summary="ten rows a second")
    register("colour", "toys_module:Colour", modality="vision", summary="mean colour of frames")
    register("moody", "toys_module:Moody", modality="vision", summary="does what the text says")
    register("unfit", "toys_module:Unfit", modality="vision", summary="cannot be started")
    register("unready", "toys_module:Unready", modality="vision", summary="says what is missing")


class Letters:
    columns = ["letters", "first"]

    def __init__(self, config, device):
        pass

    def extract(self, clip):
        words = [(w.text, clip.text.index(w.text)) for w in clip.words]
        if not words:
            warnings.warn("no text", MertoolWarning)
            return Rows.empty(2, text=True)
        values = np.array([(len(w), ord(w[0])) for w, _ in words], np.float32)
        span = np.array([(a, a + len(w)) for w, a in words], np.int32)
        return Rows(values, np.zeros((len(words), 2)), np.arange(len(words), dtype=np.int32), span)


class Loudness:
    columns = ["rms"]

    def __init__(self, config, device):
        pass

    def extract(self, clip):
        sound = clip.audio(16000)
        if not len(sound):
            warnings.warn("no sound", MertoolWarning)
            return Rows.empty(1)
        blocks = np.array_split(sound, max(1, len(sound) // 1600))
        ends = np.cumsum([len(b) for b in blocks]) / 16000
        values = np.array([[np.sqrt(np.mean(b**2))] for b in blocks], np.float32)
        return Rows(values, np.stack([np.append(0, ends[:-1]), ends], 1))


class Colour:
    columns = ["red", "green", "blue"]

    @dataclass(frozen=True)
    class Config:
        """gain: factor of the values; repeat: rows per frame."""

        gain: float = 1.0
        repeat: int = 1

        def __post_init__(self):
            if self.repeat < 1:
                raise ValueError("repeat must be at least 1")

    def __init__(self, config, device):
        self.config = config
        self.info = {"version": "1", "licence": "MIT"}

    def extract(self, clip):
        with open(os.environ["TOYS_LOG"], "a") as log:
            log.write(clip.id + "\\n")
        print(f"colour looks at {clip.id}\\n", end="")  # in one piece, from any process
        if clip.id == os.environ.get("TOYS_STOP"):
            time.sleep(600)
        rows = [(t, self.config.gain * image.mean(axis=(0, 1))) for t, image in clip.frames()]
        if not rows:
            warnings.warn("no picture", MertoolWarning)
            return Rows.empty(3)
        starts = np.array([t for t, _ in rows])
        times = np.stack([starts, np.append(starts[1:], starts[-1] + 0.04)], 1)
        values = np.array([v for _, v in rows], np.float32)
        return Rows(*(np.repeat(a, self.config.repeat, axis=0) for a in (values, times)))


class Moody(Colour):
    def extract(self, clip):
        rows = super().extract(clip)
        times = rows.times
        match clip.text:
            case "exit":
                os._exit(7)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "leave":
                sys.exit("I had enough")
            case "raise":
                raise ValueError("what\\nis\\x00this \\udce9")
            case "no rows":
                return None
            case "wide":
                return Rows(np.zeros((len(times), 4), np.float32), times)
            case "timeless":
                return Rows(rows.values, times[:-1])
            case "nan":
                rows.values[1, 1] = np.nan
            case "huge":
                return Rows(rows.values.astype(float) + 1e300, times)
            case "list":
                return Rows(rows.values.tolist(), times)
            case "refuse":
                raise MertoolError("The clip is dull.", "all of it", "Film another.")
        return rows


class Unfit(Colour):
    def __init__(self, config, device):
        import a_package_nobody_has


class Unready(Colour):
    def __init__(self, config, device):
        raise MertoolError("The model is not there.", "models/face", "pip install faces")
'''

CHOICE = {"text": "letters", "audio": "loudness", "vision": "colour"}
OPTIONS = [f"--{key}={value}" for key, value in CHOICE.items()]


def install(folder: Path) -> Path:
    """Make an installed package of the toys in a folder, for sys.path or PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toys_module.py").write_text(CODE)
    info = folder / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mertool]\ntoys = toys_module\n")
    return folder


@contextmanager
def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the toys in this process; yields the file that lists the clips `colour` saw."""
    log = folder / "seen.txt"
    monkeypatch.syspath_prepend(install(folder / "toys"))
    monkeypatch.setenv("TOYS_LOG", str(log))
    monkeypatch.setattr("mertool.extract.worker._BUILT", {})
    registry.cache_clear()
    yield log
    registry.cache_clear()
    sys.modules.pop("toys_module", None)


def make_clips(folder: Path, texts: Iterable[str]) -> Path:
    """A folder of short videos, each of its own sound and length, with a manifest.

    Ids run against the order of the file names, so that manifest order differs from path order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["clip_id,path,text,split,score"]
    texts = list(texts)
    for i, text in enumerate(texts):
        name = f"{len(texts) - i:03d}.mp4"
        talking(folder / name, 0.4 + 0.08 * (i % 3), hz=300 + 50 * i)
        lines.append(f"clip{i},{name},{text},{('train', 'valid', 'test')[i % 3]},{i / 10}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset and attribute of a feature file but for when and how it was made."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key, value in item.attrs.items():
            if key not in ("created", "command"):
                found[f"{name}@{key}"] = np.asarray(value)
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
    return found


def assert_same(one: Path, two: Path) -> None:
    """Two feature files hold the same, dataset by dataset and bit by bit."""
    a, b = contents(one), contents(two)
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        if a[name].dtype.kind == "O":
            assert a[name].tolist() == b[name].tolist(), name
        else:
            assert a[name].tobytes() == b[name].tobytes(), name


def environment(plugin: Path, log: Path) -> dict[str, str]:
    """The environment of a process that has the toys installed."""
    return {**os.environ, "PYTHONPATH": str(plugin), "TOYS_LOG": str(log)}


def start(args: Iterable[object], env: dict[str, str], **options: object) -> subprocess.Popen[str]:
    """Start `mertool ARGS` in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mertool", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
        **options,
    )
