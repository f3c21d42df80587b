"""Our sixteen recipes: they keep the format, their pages say what they say, smoke runs run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mertool.evaluate  # so that conftest.py lowers its draws
import mertool.recipe
from mertool.recipe.parse import SECTIONS
from mertool.recipe.settle import settle, texts
from mertool.testing import check_recipe, failed

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    *(f"{data}_mcr" for data in ("mosi", "mosei", "iemocap")),
    *(f"{data}_fdmer" for data in ("mosi", "mosei", "ur_funny")),
    *(f"{data}_norm_tr" for data in ("mosi", "mosei", "iemocap", "rml")),
    "mosei_norm_tr_multilabel",
    *(f"{data}_tmt" for data in ("mosi", "mosei", "sims")),
    *(f"{data}_tdmer" for data in ("mosi", "mosei")),
}
every_recipe = pytest.mark.parametrize("name", sorted(RECIPES))
# One of folds and classes, one with two labels made of another; all others are slow.
QUICK = ("mosi_tdmer",)


def text_of(name: str, file: str = "recipe.toml") -> str:
    return (ROOT / "recipes" / name / file).read_text(encoding="utf-8")


def test_every_data_set_of_every_paper_has_its_recipe():
    folders = {path.parent.name for path in (ROOT / "recipes").glob("*/recipe.toml")}
    assert folders == RECIPES
    assert set(mertool.recipe.names()) >= RECIPES
    assert all((ROOT / "recipes" / name / "README.md").is_file() for name in RECIPES)


@every_recipe
def test_every_check_passes(name):
    from mertool.testing import recipe as kit

    checks = {n: c for n, c in kit.CHECKS.items() if n != "import"}  # one process each: below
    found = kit.run_checks(checks, kit.Subject(name, None), {})
    assert not failed(found), failed(found)


def test_the_command_checks_them_too():
    assert {r.status for r in check_recipe("mosei_tdmer")} == {"passed"}


@every_recipe
def test_every_setting_says_whose_it_is(name):
    """Behind each value stands the place in the paper, or that it is ours."""
    section, count = "", 0
    for line in text_of(name).splitlines():
        if line.startswith("["):
            section = line.strip("[]").partition(".")[0]
            assert section in SECTIONS
        elif " = " in line and section not in ("recipe", "expected", "ablations"):
            assert re.search(r"  # (paper|ours)\b", line), line
            count += 1
    assert count > 15
    head = text_of(name).partition("[recipe]")[0]
    assert all(f"mertool recipe {command} {name}" in head for command in ("show", "run"))
    assert head.startswith("# ") and "--smoke" in head


def rows(page: str, head: str) -> list[list[str]]:
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {head} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip(" `") for cell in line.strip("|").split(" | ")])
    return found


@every_recipe
def test_its_page_quotes_what_it_expects(name):
    """And has no score of ours, as nobody has run it on the real data."""
    page, recipe = text_of(name, "README.md"), tomllib.loads(text_of(name))
    want = [
        [metric, variant, block["source"], str(value), "not yet run on the real data"]
        for variant, block in recipe["expected"].items()
        for metric, value in block.items()
        if metric not in ("source", "when")
    ]
    assert rows(page, "metric") == want
    if "ablations" in recipe:
        listed = [row[:3] for row in rows(page, "ablation")]
        assert listed == [[n, a["row"], a["source"]] for n, a in recipe["ablations"].items()]
    assert f"../../plugins/{recipe['run']['plugin']}/README.md" in page


def test_sizes_of_the_ablation_tables():
    """Rows of the papers' tables that are of each data set; drawn rows are added."""
    count = {n: len(mertool.recipe.find(n).ablations) for n in RECIPES}
    assert count["mosi_mcr"] == 14 + 4 and count["iemocap_mcr"] == 0  # Table 5; Fig. 7
    assert count["mosi_fdmer"] == count["ur_funny_fdmer"] == 15  # Table 4
    # Tables 6 (5), 7 (3), 8 (3), 9 (1), 10 (6), 12 (4 beside the row that is Table 6's too).
    assert count["mosi_norm_tr"] == count["mosei_norm_tr"] == 22
    # Tables 5 (2), 6 (2), 7 (3), 8 (3), 10 (3), 11 (2), 12 (2), 13 (3), 14 (3).
    assert count["mosi_tmt"] == count["mosei_tmt"] == count["sims_tmt"] == 23
    assert count["mosi_tdmer"] == count["mosei_tdmer"] == 4 + 5  # Tables III or IV, and V


def test_what_the_papers_do_not_print_is_not_expected():
    for name in RECIPES:
        said = {m for e in mertool.recipe.find(name).expected for m in e.values}
        assert "acc5" not in said and "ccc" not in said
        if "tdmer" in name:
            assert "pearson" not in said
        if name == "sims_tmt":
            assert not {m for m in said if m.endswith(("mae", "pearson"))}


@pytest.mark.parametrize("convention", ["mertool", "tmt"])
def test_f1_support_is_held_against_the_convention(tmp_path, convention):
    """sims_tmt's F1 is weighted by predicted support: another convention is another number."""
    text = text_of("sims_tmt").replace('convention = "tmt"', f'convention = "{convention}"')
    (tmp_path / "recipe.toml").write_text(text)
    found = [r.check for r in failed(check_recipe(str(tmp_path / "recipe.toml")))]
    assert ("support" in found) == (convention == "mertool")


def test_settings_survive_the_way_to_training():
    """What `mertool.train` is handed resolves to the recipe's own values."""
    from mertool.config import resolve

    for name in RECIPES:
        recipe = mertool.recipe.find(name)
        settled = settle(recipe)
        sections = {n: type(c) for n, c in settled.configs.items()}
        assert resolve(sections, settled.settings) == settled.configs
        for ablation in recipe.ablations:
            changed = settle(recipe, texts(ablation.settings))
            assert changed != settled, ablation.name
            assert changed.labels == settled.labels and changed.evaluate == settled.evaluate


def smoke(name: str, folder: Path) -> None:
    recipe = mertool.recipe.find(name)
    report = mertool.recipe.run(name, out=folder, smoke=True, device="cpu")
    assert [t["shape"] for t in report.tables] == [s.name for s in recipe.shapes]
    for table, shape in zip(report.tables, recipe.shapes, strict=True):
        assert table["smoke"] and "generated data" in table["void"]
        assert table["streams"] == {
            n: list(size) for n, size in shape.streams.items() if n in recipe.streams
        }
        assert table["alignment"] == shape.alignment
        said = [r for r in table["rows"] if r["paper"] is not None]
        assert said and all(r["n"] == 1 and r["mean"] is not None for r in said)
        kept = json.loads((folder / shape.name / "table.json").read_text())
        assert kept == table


@pytest.mark.parametrize("name", QUICK)
def test_smoke_runs(name, tmp_path):
    smoke(name, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECIPES - set(QUICK)))
def test_smoke_runs_of_all_others(name, tmp_path):
    smoke(name, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mosi_mcr", "rml_norm_tr", "sims_tmt"])
def test_smoke_runs_with_ablations(name, tmp_path):
    report = mertool.recipe.run(name, out=tmp_path / "out", smoke=True, ablations=True)
    done = report.tables[0]["ablations"]
    assert len(done) == len(mertool.recipe.find(name).ablations)
    assert {(a["status"], a["reason"]) for a in done} == {("done", "")}


def test_listing_recipes_imports_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from mertool.cli.recipe import ls;"
        "assert 'mosi_mcr' in CliRunner().invoke(ls).output;"
        "print([m for m in ('torch', 'av', 'mediapipe', 'h5py', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("paper", "names"),
    [
        ("mcr", ["mosi_mcr", "mosei_mcr"]),
        ("fdmer", ["mosi_fdmer", "mosei_fdmer", "ur_funny_fdmer"]),
        ("norm_tr", ["mosi_norm_tr", "mosei_norm_tr"]),
        ("tmt", ["mosi_tmt", "mosei_tmt", "sims_tmt"]),
        ("tdmer", ["mosi_tdmer"]),
        ("tdmer", ["mosei_tdmer"]),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_figures_of_the_ablations_stand_in_the_paper(shared, paper, names):
    """A row's figures for all data sets stand in one line of the paper's text, in its order."""
    text = (shared / "papers" / f"{paper}.txt").read_text(encoding="utf-8")
    lines = [[float(x) for x in re.findall(r"\d+\.\d+|\d+", line)] for line in text.splitlines()]
    recipes = [tomllib.loads(text_of(name))["ablations"] for name in names]
    checked = 0
    for name in recipes[0]:
        row = [v for recipe in recipes for v in recipe.get(name, {}).get("paper", {}).values()]
        if row:
            n = len(row)
            assert any(row == line[i : i + n] for line in lines for i in range(len(line))), name
            checked += 1
    assert checked >= 9
