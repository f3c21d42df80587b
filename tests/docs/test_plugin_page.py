"""docs/plugins.md: its examples work as they stand, and nothing of the contract is left out."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import tomllib

import numpy as np
import pages
import pytest
import synthetic

import mertool
from mertool import hookspecs
from mertool.registry import HOOKS, registry

PAGE = pages.read("plugins")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution on sys.path, as pip would install it."""
    monkeypatch.delenv("MERTOOL_PLUGINS", raising=False)
    site = tmp_path / "site"
    site.mkdir()
    before = set(sys.modules)

    def put(dist: str, entry: dict[str, str], files: list[str]) -> None:
        for name in files:
            (site / name).parent.mkdir(exist_ok=True)
            (site / name).write_text(pages.named_file(PAGE, name))
        info = site / f"{dist.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 0.1.0\n")
        lines = "".join(f"{k} = {v}\n" for k, v in entry.items())
        (info / "entry_points.txt").write_text(f"[mertool]\n{lines}")
        monkeypatch.syspath_prepend(site)
        registry.cache_clear()
        assert not registry().broken

    yield put
    registry.cache_clear()
    for name in set(sys.modules) - before:
        if str(site) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_the_fusion_trains(install, tmp_path):
    project = tomllib.loads(pages.named_file(PAGE, "pyproject.toml"))
    entries = project["project"]["entry-points"]["mertool"]
    (package,) = project["tool"]["setuptools"]["packages"]
    assert list(entries.values()) == [package]
    files = [f"{package}/__init__.py", f"{package}/model.py"]
    install(project["project"]["name"], entries, files)
    assert registry().get("fusion", "gated").owner == "mertool-gated 0.1.0 (gated)"
    features = synthetic.write(tmp_path / "x.h5")
    for label in ("score", "emotion", "traits"):
        run = tmp_path / label
        report = mertool.train(
            features, run, plugin="gated", label=label, seeds=1, device="cpu",
            settings=("train.epochs=1", "fusion.d_model=16"),
        )  # fmt: skip
        assert report.parameters > 0 and len(report.seeds) == 1
        assert mertool.evaluate(run, device="cpu").clips == 12
    assert "d_model = 16" in (tmp_path / "score" / "config.toml").read_text()


def test_registering_the_fusion_imports_nothing_heavy():
    code = pages.named_file(PAGE, "mertool_gated/__init__.py")
    assert re.findall(r"^(?:from|import) (\S+)", code, re.MULTILINE) == ["mertool"]


def test_the_fusion_ignores_padding_and_absent_streams(install):
    import torch

    package = "mertool_gated"
    install("mertool-gated", {"gated": package}, [f"{package}/__init__.py", f"{package}/model.py"])
    torch.manual_seed(0)
    cls = registry().load("fusion", "gated")
    spec = mertool.DataSpec({"text": (4, 5), "audio": (3, 6)})
    model = cls(cls.Config(), spec).eval()
    x = {"text": torch.randn(2, 5, 4), "audio": torch.randn(2, 6, 3)}
    mask = {m: torch.ones(v.shape[:2], dtype=torch.bool) for m, v in x.items()}
    mask["text"][0, 3:] = False
    mask["audio"][1] = False
    x["audio"][1] = 0
    out = model(mertool.Batch(x, mask, ids=("a", "b"), record=True))
    gate = out.weights["gate"]  # streams in the order of the spec
    assert gate.shape == (2, 2) and torch.allclose(gate.sum(1), torch.ones(2))
    assert gate[1, 1] < 1e-6 < gate[0, 1]
    x["text"][0, 3:] = 9.0
    assert torch.equal(model(mertool.Batch(x, mask, ids=("a", "b"))).pred, out.pred)


def test_the_extractor_and_the_aligner_run(install, tmp_path):
    import soundfile

    install("loudness", {"loudness": "loudness"}, ["loudness.py"])
    install("even", {"even": "even"}, ["even.py"])
    clips = tmp_path / "clips"
    clips.mkdir()
    sound = np.repeat([0.1, 0.01], 8000)
    soundfile.write(clips / "a.wav", sound, 16000, subtype="FLOAT")
    (clips / "a.txt").write_text("well, it was fine")
    feats, aligned = tmp_path / "feats.h5", tmp_path / "aligned.h5"
    report = mertool.extract(
        clips, feats, text="none", vision="none", audio="loudness",
        settings=("audio.hop_ms=50",),
    )  # fmt: skip
    assert report.clips == 1 and not report.failures and not report.notes
    with mertool.open(feats) as file:
        rows = file["a"].streams["audio"]
        np.testing.assert_allclose(rows.values[:, 0], np.repeat([-20.0, -40.0], 10), atol=1e-3)
        np.testing.assert_allclose(rows.times[1], [0.05, 0.1])
        assert file.streams["audio"].attrs["model"] == "RMS level"
        assert file.streams["audio"].attrs["rate"] == 20
    mertool.align(feats, aligned, aligner="even", progress=False)
    with mertool.open(aligned) as file:
        clip = file["a"]
        assert [(w.text, w.start, w.score) for w in clip.words] == [
            ("well,", 0.0, -1.0), ("it", 0.25, -1.0), ("was", 0.5, -1.0), ("fine", 0.75, -1.0)
        ]  # fmt: skip
        expected = [-20.0, -20.0, -40.0, -40.0]
        np.testing.assert_allclose(clip.streams["audio"].values[:, 0], expected, atol=1e-3)


def test_every_hook_is_there_with_its_facts():
    rows = {pages.names([row])[0]: row for row in pages.table(PAGE, "hook")}
    assert set(rows) == set(HOOKS.values())
    explained = set(pages.names(pages.table(PAGE, "fact")))
    for hook, row in rows.items():
        function = getattr(hookspecs, hook)
        arguments = ", ".join(inspect.signature(function).parameters)
        assert f"`{hook}({arguments})`" in row[0]
        facts = re.sub(r"\(.*?\)", "", function.__doc__.partition("Facts: ")[2]).strip(".\n ")
        assert pages.codes(row[2]) == facts.replace(" ,", ",").split(", ")
        assert set(pages.codes(row[2])) <= explained


@pytest.mark.parametrize("name", ["Batch", "DataSpec", "FusionOutput", "Rows", "Word"])
def test_every_field_is_there(name):
    cls = getattr(mertool, name)
    fields = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
    assert pages.names(pages.table(PAGE, f"field of `{name}`")) == list(fields)


def test_every_part_of_a_clip_is_there():
    rows = pages.table(PAGE, "of `Clip`")
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
