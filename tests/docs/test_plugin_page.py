"""docs/plugins.md works as it stands; docs/plugin-reference.md leaves out nothing."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import inspect
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pages
import pytest

import mertool
from mertool import hookspecs
from mertool.cli import common, main
from mertool.demo import CLIPS
from mertool.registry import HOOKS, registry
from mertool.testing import check_aligner, check_reader, failed
from mertool.testing.results import checks_of, describe

TUTORIAL, REFERENCE = pages.read("plugins"), pages.read("plugin-reference")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution on sys.path, as pip would install it."""
    monkeypatch.delenv("MERTOOL_PLUGINS", raising=False)
    site = tmp_path / "site"
    site.mkdir()
    before = set(sys.modules)

    def put(dist: str, entry: dict[str, str], folder: Path = site) -> None:
        info = site / f"{dist.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 0.1.0\n")
        lines = "".join(f"{k} = {v}\n" for k, v in entry.items())
        (info / "entry_points.txt").write_text(f"[mertool]\n{lines}")
        for path in (folder, site):
            monkeypatch.syspath_prepend(path)
        registry.cache_clear()
        assert not registry().broken

    yield put
    registry.cache_clear()
    forget(set(sys.modules) - before, tmp_path)


def forget(names: set[str], folder: Path) -> None:
    """Forget imported modules whose files are in a folder: they may have changed."""
    for name in names:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# --- the tutorial ----------------------------------------------------------------------------
@pytest.fixture
def tutorial(monkeypatch) -> ModuleType:
    """benchmarks/tutorial.py, which reads the page and follows it."""
    folder = pages.ROOT / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("the_tutorial", folder / "tutorial.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def few_clips(tmp_path) -> Path:
    """Six clips of the demo, two in each split."""
    folder = tmp_path / "few"
    folder.mkdir()
    with (CLIPS / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:6]
    for i, row in enumerate(rows):
        shutil.copy(CLIPS / row["path"], folder)
        row["split"] = ("train", "valid", "test")[i % 3]
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_the_tutorial(tutorial, install, few_clips, tmp_path, monkeypatch, capsys):
    """Every step in order, in this process; benchmarks/tutorial.py does it as a newcomer would."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(common, "STATE", common.State())
    printed: dict[str, str] = {}
    for step in tutorial.steps(TUTORIAL):
        forget(set(sys.modules), work)
        registry.cache_clear()
        words = shlex.split(step.name, comments=True)
        if step.what != "command":
            assert tutorial.write(step, work) == "", step.name
        elif words[0] == "cp":
            shutil.copytree(few_clips, words[-1])
        elif words[:3] == ["pip", "install", "-e"]:
            project = tomllib.loads((work / words[3] / "pyproject.toml").read_text())["project"]
            install(project["name"], project["entry-points"]["mertool"], work / words[3])
        else:
            assert words[0] == "mertool"
            if words[-2:] == ["-j", "2"]:  # quicker in this process, and without a face
                words[-2:] = ["--vision", "none"]
            monkeypatch.setattr("sys.argv", words)
            with pytest.raises(SystemExit) as caught:
                main(words[1:])
            out, err = capsys.readouterr()
            assert caught.value.code == int(step.fails), f"{step.name}\n{out}\n{err}"
            found = {" ".join(line.split()) for line in out.splitlines()}
            assert {" ".join(line.split()) for line in step.shown} <= found, step.name
            printed[step.name] = out
    assert "mertool compare runs/attend runs/timbre" in printed
    with mertool.open(work / "feats.h5") as file:
        assert file.streams["audio"].columns == ("level_db", "centroid_khz")
    config = tomllib.loads((work / "runs" / "timbre" / "config.toml").read_text())
    assert config["run"]["plugin"] == "attend"


def test_the_features_of_the_tutorial(tutorial, install, tmp_path):
    """A tone has its own frequency as centroid, and the level of its power."""
    import soundfile

    (tmp_path / "timbre" / "mertool_timbre").mkdir(parents=True)
    made = [s for s in tutorial.steps(TUTORIAL) if s.name == "timbre/mertool_timbre/model.py"]
    for step in made:
        (tmp_path / step.name).touch()
        assert tutorial.write(step, tmp_path) == ""
    (tmp_path / "timbre" / "mertool_timbre" / "__init__.py").write_text("")
    install("timbre", {"timbre": "mertool_timbre"}, tmp_path / "timbre")
    from mertool_timbre.model import Config, Timbre

    time = np.arange(16000) / 16000
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 2000 * time), 16000, subtype="FLOAT")
    clip = mertool.Clip("tone", path.name, str(tmp_path), end=1.0)
    rows = Timbre(Config(hop_ms=50)).extract(clip)
    np.testing.assert_allclose(rows.values[:, 0], 10 * np.log10(0.02), atol=1e-2)
    np.testing.assert_allclose(rows.values[:, 1], 2.0, atol=1e-3)
    np.testing.assert_allclose(rows.times[1], [0.05, 0.1])


def test_the_tutorial_says_what_new_has_written(tutorial, tmp_path):
    """The files it lists and those it replaces are there; the facts it drops are defaults."""
    from mertool.testing.new import write

    files = {p.relative_to(tmp_path) for p in write("attend", folder=tmp_path)}
    listed = {Path("attend", n) for n in pages.names(pages.table(TUTORIAL, "file in `attend/`"))}
    assert files == listed
    before = (tmp_path / "attend/mertool_attend/__init__.py").read_text().splitlines()
    after = pages.named_file(TUTORIAL, "attend/mertool_attend/__init__.py").splitlines()[1:]
    gone = [line.strip() for line in before if line not in after]
    assert [line.split("=")[0] for line in gone] == ["summary", "paper", "fixed_length"]
    assert gone[1:] == ['paper="",', "fixed_length=False,"]


# --- the examples of the reference -----------------------------------------------------------
def put_module(install, tmp_path, name: str) -> None:
    (tmp_path / "site" / f"{name}.py").write_text(pages.named_file(REFERENCE, f"{name}.py"))
    install(name, {name: name})


def test_the_aligner(install, tmp_path):
    import soundfile

    put_module(install, tmp_path, "even")
    assert failed(check_aligner("even")) == []
    clips = tmp_path / "clips"
    clips.mkdir()
    soundfile.write(clips / "a.wav", np.repeat([0.1, 0.01], 8000), 16000, subtype="FLOAT")
    (clips / "a.txt").write_text("well, it was fine")
    feats, aligned = tmp_path / "feats.h5", tmp_path / "aligned.h5"
    mertool.extract(clips, feats, text="none", vision="none")
    mertool.align(feats, aligned, aligner="even", progress=False)
    with mertool.open(aligned) as file:
        assert [(w.text, w.start, w.score) for w in file["a"].words] == [
            ("well,", 0.0, -1.0), ("it", 0.25, -1.0), ("was", 0.5, -1.0), ("fine", 0.75, -1.0)
        ]  # fmt: skip


def test_the_reader(install, tmp_path):
    put_module(install, tmp_path, "csvrows")
    source = tmp_path / "e.csv"
    source.write_text("id,split,emotion,f0,energy\na,train,sad,1,2\nb,dev,glad,0,0\n")
    results = check_reader("csvrows", source)
    assert {r.status for r in results} == {"passed"}


# --- the reference is whole ------------------------------------------------------------------
def listed_in(hook: str, title: str) -> list[str]:
    """What the docstring of a hook lists after "Facts:" or "Checks:"."""
    doc = inspect.getdoc(getattr(hookspecs, hook))
    (text,) = re.findall(rf"^{title}: (.*?)\.$", doc, re.MULTILINE | re.DOTALL)
    return re.sub(r"\s*\(.*?\)", "", text).replace("\n", " ").split(", ")


def test_every_hook_is_there_with_its_facts():
    rows = {pages.names([row])[0]: row for row in pages.table(REFERENCE, "hook")}
    assert set(rows) == set(HOOKS.values())
    explained = pages.names(pages.table(REFERENCE, "fact"))
    said = set()
    for hook, row in rows.items():
        arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
        assert f"`{hook}({arguments})`" in row[0]
        assert pages.codes(row[2]) == listed_in(hook, "Facts")
        said |= set(pages.codes(row[2]))
    assert sorted(explained) == sorted(said)


@pytest.mark.parametrize(("kind", "hook"), HOOKS.items())
def test_every_check_is_there(kind, hook):
    checks = checks_of(kind)
    article = "an" if kind[0] in "ae" else "a"
    rows = pages.table(REFERENCE, f"check of {article} {kind}")
    assert {pages.codes(row[0])[0]: row[1] for row in rows} == {
        name: describe(check) for name, check in checks.items()
    }
    assert listed_in(hook, "Checks") == list(checks)


def test_what_a_check_gives_is_there():
    from mertool.testing import results

    known = {results.PASSED, results.FAILED, results.WAIVED, results.NOT_RUN}
    listed = [code for row in pages.table(REFERENCE, "status") for code in pages.codes(row[0])]
    assert set(listed) == known | {"stacked", "side by side"}
    for kind in HOOKS:
        function = getattr(mertool.testing, f"check_{kind}")
        arguments = ", ".join(inspect.signature(function).parameters)
        assert f"check_{kind}({arguments})" in REFERENCE or kind == "fusion"


@pytest.mark.parametrize("name", ["Batch", "DataSpec", "FusionOutput", "Rows", "Word"])
def test_every_field_is_there(name):
    cls = getattr(mertool, name)
    fields = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
    assert pages.names(pages.table(REFERENCE, f"field of `{name}`")) == list(fields)


def test_every_part_of_a_clip_is_there():
    rows = pages.table(REFERENCE, "of `Clip`")
    listed = set(pages.names(rows))
    assert {f.name for f in dataclasses.fields(mertool.Clip)} <= listed
    assert all(hasattr(mertool.Clip("x"), name) for name in listed)
    for row in rows:
        for code in pages.codes(row[0]):
            name, _, arguments = code.rstrip(")").partition("(")
            if arguments:
                parameters = inspect.signature(getattr(mertool.Clip("x"), name)).parameters
                defaults = [f"{p.name}={p.default!r}" for p in parameters.values()]
                assert arguments == ", ".join(defaults).replace("'", '"')
