"""A package of somebody else: built, installed, used, checked and broken; mertool goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from media_samples import talking

import mertool

OWNER = "somebodys-fusion 1.2.3 (somebody)"
QUICK = ("--seeds", "1", "--device", "cpu", "--no-singles", "--set", "train.epochs=1")

PACKAGE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "somebodys-fusion"
version = "1.2.3"
dependencies = ["mertool"]

[project.entry-points.mertool]
somebody = "somebody.registers"

[tool.setuptools]
packages = ["somebody"]
""",
    "somebody/__init__.py": "",
    "somebody/registers.py": """
from mertool import hookimpl


@hookimpl
def register_fusions(register):
    register("peaks", "somebody.model:Peaks", summary="highest value of every column",
             task_loss="mse")


@hookimpl
def register_extractors(register):
    register("levels", "somebody.sound:Levels", modality="audio", summary="level, dB")


@hookimpl
def register_readers(register):
    register("lines", "somebody.lines:Lines", summary="a JSON object per line")
""",
    "somebody/model.py": """
from dataclasses import dataclass

import torch
from torch import nn

from mertool import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class Config:
    width: int = 16


class Peaks(nn.Module):
    Config = Config

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__()
        self.streams = sorted(spec.streams)
        total = sum(spec.streams[m][0] for m in self.streams)
        self.layers = nn.Sequential(
            nn.Linear(total, config.width), nn.Tanh(), nn.Linear(config.width, spec.n_out)
        )

    def forward(self, batch: Batch) -> FusionOutput:
        highest = []
        for m in self.streams:
            real = batch.mask[m].unsqueeze(-1)
            peak = batch.x[m].masked_fill(~real, -1e4).amax(1)
            highest.append(peak.masked_fill(~real.any(1), 0.0))
        return FusionOutput(self.layers(torch.cat(highest, 1)))
""",
    "somebody/sound.py": """
import warnings
from dataclasses import dataclass

import numpy as np

from mertool import Clip, MertoolWarning, Rows


class Levels:
    @dataclass(frozen=True)
    class Config:
        hop_ms: int = 100

    columns = ["level_db"]
    info = {"model": "level", "licence": "MIT"}

    def __init__(self, config: Config, device: str) -> None:
        self.hop = 16 * config.hop_ms

    def extract(self, clip: Clip) -> Rows:
        sound = clip.audio(16000)
        count = len(sound) // self.hop
        if not count:
            warnings.warn("no sound", MertoolWarning, stacklevel=2)
            return Rows.empty(1)
        power = (sound[: count * self.hop].reshape(count, -1) ** 2).mean(1, keepdims=True)
        edges = np.arange(count + 1) * self.hop / 16000
        level = (10 * np.log10(power + 1e-10)).astype(np.float32)
        return Rows(level, np.stack([edges[:-1], edges[1:]], 1))
""",
    "somebody/lines.py": """
import json
from dataclasses import dataclass

import numpy as np

from mertool import Clip, Rows


class Lines:
    @dataclass(frozen=True)
    class Config:
        stream: str = "vision"

    def __init__(self, config: Config) -> None:
        self.stream = config.stream
        self.columns = {}

    def clips(self, source):
        for line in open(source, encoding="utf-8"):
            told = json.loads(line)
            values = np.array(told["rows"], np.float32)
            rows = Rows(values, np.zeros((len(values), 2)))
            yield Clip(told["id"], split=told["split"], labels={"score": told["score"]},
                       streams={self.stream: rows})
""",
}

Mertool = Callable[..., subprocess.CompletedProcess[str]]


def runner(site: Path, folder: Path) -> Mertool:
    """`mertool ARGS` in a process that has what is installed in `site`, in `folder`."""
    paths = [str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    variables.pop("MERTOOL_PLUGINS", None)

    def run(*args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mertool", *map(str, args)]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == code, f"{args}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built and installed by pip, offline, beside and not into this environment."""
    source = tmp_path_factory.mktemp("source")
    for name, text in PACKAGE.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    target = tmp_path_factory.mktemp("site")
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *options, str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.rmtree(source)  # what runs is what was installed
    return target


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Path:
    """A folder with features of its extractor and its reader, and a run of its fusion."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "clips").mkdir()
    lines = ["clip_id,path,text,split,score"]
    told = []
    for i, split in enumerate(["train"] * 4 + ["valid"] * 2 + ["test"] * 2):
        talking(folder / "clips" / f"c{i}.mp4", 0.4, hz=200.0 + 50 * i)
        lines.append(f"c{i},c{i}.mp4,one word,{split},{i / 4 - 1}")
        told.append({"id": f"r{i}", "split": split, "score": i / 4 - 1, "rows": [[i, 1]] * (i + 1)})
    (folder / "clips" / "manifest.csv").write_text("\n".join(lines))
    (folder / "told.jsonl").write_text("\n".join(map(json.dumps, told)))
    run = runner(site, folder)
    streams = ("--text", "none", "--vision", "none", "--audio", "levels")
    run("extract", "clips", "-o", "feats.h5", *streams, "--set", "audio.hop_ms=50")
    run("data", "import", "lines", "told.jsonl", "-o", "told.h5", "--set", "reader.stream=face")
    run("train", "feats.h5", "--plugin", "peaks", *QUICK, "--set", "fusion.width=8")
    run("evaluate", "runs/peaks", "--device", "cpu")
    return folder


def test_it_is_listed_with_its_package_and_version(site, tmp_path):
    run = runner(site, tmp_path)
    found = json.loads(run("plugins", "ls", "--json").stdout)
    ours = {(p["kind"], p["name"]): p for p in found["plugins"] if p["owner"] == OWNER}
    assert set(ours) == {("fusion", "peaks"), ("extractor", "levels"), ("reader", "lines")}
    assert all(p["status"] == "ok" for p in ours.values()) and found["broken"] == []
    assert OWNER in run("plugins", "ls").stdout
    # It is not in the environment that runs this test.
    listed = json.loads(runner(tmp_path, tmp_path)("plugins", "ls", "--json").stdout)
    assert OWNER not in {p["owner"] for p in listed["plugins"]}


def test_it_extracts_reads_trains_and_is_evaluated(work):
    with mertool.open(work / "feats.h5") as file:
        rows = file["c0"].streams["audio"]
        assert file.streams["audio"].attrs["extractor"] == "levels"
        np.testing.assert_allclose(rows.times[1], [0.05, 0.1])
        # A sine of amplitude 0.5, away from both ends of the coded sound.
        np.testing.assert_allclose(rows.values[2:6, 0], 10 * np.log10(0.125), atol=0.5)
    with mertool.open(work / "told.h5") as file:
        assert file["r2"].streams["face"].values.tolist() == [[2, 1]] * 3
        assert file.label("score").tolist() == [i / 4 - 1 for i in range(8)]
    config = (work / "runs" / "peaks" / "config.toml").read_text()
    assert 'plugin = "peaks"' in config and "width = 8" in config
    scores = json.loads((work / "runs" / "peaks" / "metrics.json").read_text())
    assert "mae" in json.dumps(scores)


def test_it_passes_every_check(site, work):
    names = ("peaks", "levels", "lines")
    done = runner(site, work)("plugins", "check", *names, "--source", "told.jsonl", "--json")
    found = json.loads(done.stdout)
    assert [(p["kind"], p["name"]) for p in found["plugins"]] == [
        ("fusion", "peaks"), ("extractor", "levels"), ("reader", "lines")
    ]  # fmt: skip
    assert found["failed"] == 0
    for plugin in found["plugins"]:
        states = {r["status"] for r in plugin["results"] if r["check"] not in ("cuda", "vmap")}
        assert states == {"passed"}


def broken(site: Path, folder: Path, name: str, old: str, new: str) -> Path:
    """A copy of what is installed with one change in a file; old = "" adds it in front."""
    copy = folder / "broken"
    shutil.copytree(site, copy)
    path = copy / "somebody" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else new + text)
    return copy


FAULTS = {
    "syntax": ("", "def register_fusions(register:\n", "SyntaxError"),
    "import": ("", "import no_such_package_at_all\n", "No module named 'no_such_package_at_all'"),
    "target": ("somebody.sound:Levels", "somebody.sound.Levels", 'the target is "module:Class"'),
    "twice": ('"lines", ', '"x", "y:Z"); register("x", ', 'the reader "x" is registered twice'),
    "facts": (', summary="level, dB"', ", **SUMMARY", "name 'SUMMARY' is not defined"),
    "hook": ("register_readers", "register_reader", "unknown hook register_reader"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_one_is_listed_with_the_reason(site, tmp_path, fault):
    *change, reason = FAULTS[fault]
    run = runner(broken(site, tmp_path, "registers.py", *change), tmp_path)
    listed = json.loads(run("plugins", "ls", "--json").stdout)
    (plugin,) = listed["broken"]
    assert plugin["owner"] == OWNER and reason in plugin["error"]
    assert OWNER not in {p["owner"] for p in listed["plugins"]}  # nothing of it is kept
    assert {"mcr", "covarep", "npz"} <= {p["name"] for p in listed["plugins"]}
    assert f"broken: {OWNER}: {plugin['error']}" in run("plugins", "ls").stdout.splitlines()


@pytest.mark.slow
def test_every_other_command_goes_on(site, work, tmp_path):
    """The package cannot be imported any more; what it has made is used all the same."""
    for name in ("clips", "feats.h5", "told.h5", "runs"):
        copy = shutil.copytree if (work / name).is_dir() else shutil.copy
        copy(work / name, tmp_path / name)
    run = runner(broken(site, tmp_path, "registers.py", "", "import no_such_package\n"), tmp_path)
    assert "8 clips" in run("data", "info", "feats.h5").stdout
    run("data", "check", "told.h5")
    run("extract", "clips", "-o", "new.h5", "--text", "none", "--vision", "none")
    run("align", "new.h5", "-o", "aligned.h5")
    run("train", "feats.h5", "--plugin", "concat", *QUICK)
    run("evaluate", "runs/concat", "--device", "cpu")
    assert "runs/peaks" in run("compare", "runs/concat", "runs/peaks").stdout
    # What needs it says so.
    for command in (("evaluate", "runs/peaks"), ("data", "import", "lines", "x", "-o", "y.h5")):
        error = run(*command, code=2).stderr
        assert "; 1 broken" in error and len(error.splitlines()) == 3, command


@pytest.mark.slow
def test_what_is_wrong_behind_the_registration_is_found_by_the_checks(site, work, tmp_path):
    """A class that cannot be imported and a wrong fact: the rest of the package can be used."""
    copy = broken(site, tmp_path, "model.py", "import torch", "import torch, no_such_package")
    registers = copy / "somebody" / "registers.py"
    registers.write_text(registers.read_text().replace('modality="audio"', 'modality="sound"'))
    run = runner(copy, work)
    assert json.loads(run("plugins", "ls", "--json").stdout)["broken"] == []
    names = ("peaks", "levels", "lines")
    done = run("plugins", "check", *names, "--source", "told.jsonl", "--json", code=1)
    failed = {
        (plugin["name"], result["check"]): result["reason"]
        for plugin in json.loads(done.stdout)["plugins"]
        for result in plugin["results"]
        if result["status"] == "failed"
    }
    assert {("peaks", "import"), ("levels", "modality")} <= failed.keys()
    assert not [name for name, _ in failed if name == "lines"]
    assert "no_such_package" in failed["peaks", "import"] and OWNER in failed["peaks", "import"]
    assert '"sound"' in failed["levels", "modality"]
    error = run("extract", "clips", "-o", "x.h5", "--audio", "levels", code=2).stderr
    assert "levels" in error and len(error.splitlines()) == 3
