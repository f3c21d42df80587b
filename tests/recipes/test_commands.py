"""recipe ls, show, cp, check."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from recipes.tiny import write

from mertool.cli.recipe import check, cp, ls, show
from mertool.errors import MertoolError


def call(command, *args):
    done = CliRunner().invoke(command, [str(a) for a in args], standalone_mode=False)
    if isinstance(done.exception, MertoolError):
        raise done.exception
    assert done.exception is None, done.exception
    return done.return_value or 0, done.stdout


def test_ls():
    code, out = call(ls)
    assert code == 0 and "mosi_mcr" in out and "sims_tmt" in out
    rows = {r["name"]: r for r in json.loads(call(ls, "--json")[1])["recipes"]}
    assert rows["mosi_mcr"]["plugin"] == "mcr" and rows["mosi_mcr"]["ablations"] == 18
    assert all("error" not in r for r in rows.values())


def test_show():
    text = Path(json.loads(call(show, "mosi_mcr", "--json")[1])["path"]).read_text()
    assert call(show, "mosi_mcr") == (0, text)
    assert tomllib.loads(text)["run"]["plugin"] == "mcr"
    with pytest.raises(MertoolError, match="no recipe named"):
        call(show, "mosi_mrc")


def test_cp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = call(cp, "rml_norm_tr")
    assert code == 0 and "rml_norm_tr/recipe.toml" in out
    assert {p.name for p in Path("rml_norm_tr").iterdir()} == {"recipe.toml", "README.md"}
    assert Path("rml_norm_tr/recipe.toml").read_text() == call(show, "rml_norm_tr")[1]
    with pytest.raises(MertoolError, match="exists already"):
        call(cp, "rml_norm_tr")
    Path("rml_norm_tr/recipe.toml").write_text("mine")
    call(cp, "rml_norm_tr", "--overwrite")
    assert "mine" != Path("rml_norm_tr/recipe.toml").read_text()
    assert json.loads(call(cp, "mosei_tdmer", "deep/er", "--json")[1])["files"][0].startswith(
        "deep/er"
    )
    code, out = call(check, "deep/er/recipe.toml")
    assert code == 0 and "FAILED" not in out  # what is copied is a sound recipe


def test_check(tmp_path):
    sound = write(tmp_path / "sound")
    code, out = call(check, "-q", sound)
    assert code == 0 and "1 recipe checked, no checks failed" in out
    faults = {
        "file": ("[smoke]", "[smokes]"),
        "names": ('plugin = "concat"', 'plugin = "concatt"'),
        "keys": ("d_model = 6", "d_modle = 6"),
        "expected": ("mae = 0.700", "mea = 0.700"),
        "support": ("[labels.score]", '[evaluate]\nf1_support = "pred"\n\n[labels.score]'),
        "ablations": ("fusion.d_model = 4", "fusion.d_model = 6"),
        "shapes": ("text = [6, 7]\naudio = [5, 14]", "audio = [5, 14]"),
    }
    found = {}
    for name, change in faults.items():
        path = write(tmp_path / name, change)
        code, out = call(check, "-q", "--json", path)
        results = json.loads(out)["recipes"][0]["results"]
        assert code == 1
        found[name] = [r["check"] for r in results if r["status"] == "failed"]
    for name, failed in found.items():
        assert name in failed, (name, failed)
    assert found["expected"] == ["expected"] and found["support"] == ["support"]
    assert found["ablations"] == ["ablations"]
    # Settings that are well by themselves, of a fusion that cannot be built with them.
    changes = [
        ('"concat"', '"mcr"'),
        ("d_model = 6", "heads = 8"),
        ("d_model = 4", 'targets = ["eyes"]'),
    ]
    results = json.loads(call(check, "-q", "--json", write(tmp_path / "builds", *changes))[1])
    failed = {r["check"]: r["reason"] for r in results["recipes"][0]["results"] if r["reason"]}
    assert "[ablations.narrow]" in failed["builds"] and set(failed) == {"import", "builds"}
    with pytest.raises(MertoolError, match="no recipe named"):
        call(check, "mosi_mrc")
