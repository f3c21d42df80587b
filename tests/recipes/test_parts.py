"""Reading a recipe's file, its labels and shapes, and the table, each by itself."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from recipes.tiny import TINY, write

import mertool.evaluate  # so that conftest.py lowers its draws
import mertool.recipe
from mertool.config import to_dict
from mertool.errors import DataError
from mertool.recipe import generated, table
from mertool.recipe.labels import classes, complete
from mertool.recipe.match import match
from mertool.recipe.parse import SECTIONS
from mertool.recipe.settle import EvaluateConfig, settle
from mertool.store import FeatureFile
from mertool.testing import check_recipe, failed, interaction
from mertool.types import Label


# --- the file --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("[smoke]", "[smokes]", ["[smokes]: no such section", '"smoke"']),
        ('title = "concat on made-up data"', "", ["[recipe] title"]),
        ('summary = "tiny"', 'sumary = "tiny"', ["sumary: no such key", "[recipe] summary"]),
        ('ablated = ["aligned"]', 'ablated = ["aligne"]', ['Did you mean "aligned"']),
        ('ablated = ["aligned"]', "ablated = 3", ["ablated: must be a list"]),
        ('plugin = "concat"', "", ["a recipe names its fusion"]),
        ('plugin = "concat"', 'plugin = "concat"\nfeatures = "/etc/x.h5"', ["names no file"]),
        ('label = "score"', 'label = "mood"', ["there is no [labels.mood]"]),
        ('modalities = ["text", "audio", "vision"]', "modalities = 3", ["modalities: must be"]),
        ('task = "regression"', 'task = "regresion"', ["[labels.score] task: one of"]),
        ('task = "regression"', 'task = "multilabel"', ["[labels.score] classes"]),
        ("range = [-1.0, 1.0]", "range = [1.0]", ["[lowest, highest]"]),
        ("range = [-1.0, 1.0]", "range = 1.0", ["range: must be a list"]),
        ("audio = [5, 14]", "audio = [5]", ["[shapes.unaligned] audio: [width, steps]"]),
        ("audio = [5, 7]", "audio = [5, 8]", ["aligned streams have equal steps"]),
        ('alignment = "none"\n\n', 'alignment = "words"\n\n', ["none, word or segments:N"]),
        ('[shapes.aligned]', '[shapes."../up"]', ["[shapes.../up]: a name has letters"]),
        ('[ablations.narrow]', '[ablations."/tmp/x"]', ["a name has letters"]),
        ('row = "Text only"', "", ["[ablations.text_only] row"]),
        ("fusion.d_model = 4", "", ["[ablations.narrow]: changes nothing"]),
        ("fusion.d_model = 4", "d_model = 4", ["settings are written section.key = value"]),
        ("acc2 = 80.5", 'acc2 = "80.5"', ["[expected.aligned] acc2: must be a number"]),
        ("acc2 = 70.0\n", "", ["[expected.unaligned]: no score"]),
        ("clips = 12", "clips = 0", ["[smoke] clips"]),
        ("[fusion]", "[fusion", ["no valid TOML"]),
        ("[fusion]\nd_model = 6", "", []),
    ],
)  # fmt: skip
def test_a_wrong_file(tmp_path, old, new, parts):
    path = write(tmp_path, (old, new))
    if not parts:
        assert settle(mertool.recipe.find(path)).configs["fusion"].d_model == 64
        return
    with pytest.raises(DataError) as caught:
        mertool.recipe.find(path)
    for part in parts:
        assert part in str(caught.value)


def test_all_mistakes_are_listed_at_once(tmp_path):
    path = write(tmp_path, ("clips = 12", "clips = 0"), ('row = "d = 4"', ""), ("80.5", "true"))
    with pytest.raises(DataError) as caught:
        mertool.recipe.find(path)
    assert len(str(caught.value).splitlines()) == 1 + 4 + 1


def test_a_copy_does_not_hide_the_registered_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mosi_mcr")
    assert mertool.recipe.find("mosi_mcr").plugin == "mcr"
    assert mertool.recipe.find("mosi_mcr/recipe.toml").plugin == "concat"
    assert mertool.recipe.find("./mosi_mcr").plugin == "concat"


# --- labels ----------------------------------------------------------------------------------
def test_classes_of_ch_sims():
    """TMT 4.1: -1 and -0.8; -0.6 to -0.2; 0; 0.2 to 0.6; 0.8 and 1; in three: the sign."""
    targets = {t.label.name: t for t in mertool.recipe.find("sims_tmt").targets}
    grid = np.array([-1, -0.8, -0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8, 1, np.nan])
    five = [0, 0, 1, 1, 1, 2, 3, 3, 3, 4, 4, -1]
    three = [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, -1]
    assert classes(grid, targets["intensity"].edges).tolist() == five
    assert classes(grid, targets["polarity"].edges).tolist() == three
    assert classes(np.float32(grid), targets["polarity"].edges).tolist() == three


def test_a_file_gets_the_labels_it_lacks(tmp_path):
    recipe = mertool.recipe.find("sims_tmt")
    source = interaction.write(tmp_path / "x.h5", clips=40)
    done, notes = complete(recipe, source, ["polarity"], tmp_path)
    assert (done, notes) == (source, [])  # it has no label "sentiment" to make them of
    shape = mertool.recipe.find(write(tmp_path / "tiny")).shapes[0]
    label = Label("sentiment", "regression", (), (-1.0, 1.0))
    path = generated.write(tmp_path / "s.h5", shape, [label], 20, folds=2)
    made, notes = complete(recipe, path, ["polarity", "intensity"], tmp_path)
    assert made == tmp_path / "features.h5" and len(notes) == 2
    with FeatureFile(path) as before, FeatureFile(made) as after:
        assert list(after.labels) == ["sentiment", "polarity", "intensity"]
        assert after.labels["polarity"].classes == ("negative", "neutral", "positive")
        y = before.label("sentiment")
        assert after.label("polarity").tolist() == (1 + (y > 0.1) - (y <= -0.1)).tolist()
        assert before.splits == after.splits and "fold-1" in after.splits
        assert all(before.split(s) == after.split(s) for s in before.splits)
        assert (before.ids, before.alignment) == (after.ids, after.alignment)
        for name in before.streams:
            for one, other in zip(before.values(name), after.values(name), strict=True):
                np.testing.assert_array_equal(one, other)
    stamp = made.stat().st_mtime_ns
    complete(recipe, path, ["polarity", "intensity"], tmp_path)
    assert made.stat().st_mtime_ns == stamp  # the same file is not copied twice
    other = generated.write(tmp_path / "t.h5", shape, [label], 20, seed=1)
    complete(recipe, other, ["polarity", "intensity"], tmp_path)
    assert made.stat().st_mtime_ns != stamp


# --- shapes ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mosi_fdmer", "rml_norm_tr", "sims_tmt"])
def test_generated_files_are_what_the_recipe_knows(tmp_path, name):
    recipe = mertool.recipe.find(name)
    for shape in recipe.shapes:
        place = tmp_path / shape.name
        path = generated.of_recipe(recipe, shape, place, settle(recipe).run.folds)
        labels = [t.label.name for t in recipe.targets]
        path, _ = complete(recipe, path, labels, place)
        found = match(recipe, path, recipe.streams, labels)
        assert (found.shape, found.void) == (shape.name, [])
        assert found.streams == shape.streams
        with FeatureFile(path) as file:
            folds = [n for n in file.splits if n.startswith("fold")]
            assert len(folds) == settle(recipe).run.folds
            for split in folds or ["default"]:
                assigned = np.array(file.split(split))
                assert set(assigned) == {"train", "valid", "test"}
                for label in file.labels.values():
                    y = file.label(label.name)[assigned == "test"]
                    if label.task == "classification":
                        assert set(y) == set(range(len(label.classes)))
                    else:
                        assert y.min() < 0 < y.max()


def test_variants_follow_from_alignment_and_width():
    fdmer = mertool.recipe.find("mosi_fdmer")
    by = {e.name: e for e in fdmer.expected}
    widths = {"audio": 5, "vision": 20}
    assert by["glove"].fits({**widths, "text": 300}, "word")
    assert by["bert"].fits({**widths, "text": 768}, "word")
    assert not by["bert"].fits({**widths, "text": 300}, "word")
    assert not by["bert"].fits({**widths, "text": 768}, "none")
    assert not by["bert"].fits(widths, "word")


# --- the table -------------------------------------------------------------------------------
def hand_made(folder: Path) -> None:
    made = {
        "mean": {"acc7": 0.4315, "mae": 0.8123, "pearson": None},
        "std": {"acc7": 0.0123, "mae": 0.0101, "pearson": None},
        "seeds": {"1111": {}, "1112": {}},
        "n_seeds": 2,
    }
    area = {"mean": {"acc7": 0.3, "mae": 1.1}, "std": {"acc7": 0.01, "mae": 0.02}}
    curves = {"erase steps all streams text": {"auilc": {"all streams": area}}}
    kept = {
        "splits": {"test": {"mertool": made}},
        "robustness": {"test": {"mertool": curves}},
    }
    (folder / "metrics.json").write_text(json.dumps(kept))


def test_scores_from_hand_made_metrics(tmp_path):
    recipe = mertool.recipe.find(write(tmp_path))
    settled = settle(recipe)
    assert table.scores(tmp_path, settled, False) is None  # not yet scored
    hand_made(tmp_path)
    found = table.scores(tmp_path, settled, True)
    assert found["acc7"] == {"mean": 0.4315, "std": 0.0123, "n": 2}
    assert found["auilc:mae"] == {"mean": 1.1, "std": 0.02, "n": 2}
    assert "auilc:mae" not in table.scores(tmp_path, settled, False)
    assert table.scores(tmp_path, settle(recipe, ["run.seeds=3"]), False) is None
    assert table.scores(tmp_path, settle(recipe, ["evaluate.unit=window"]), True) is None
    rows = table.main_rows([("acc7", 43.8, "Table 2"), ("f1_non0", 85.7, "Table 2")], found)
    assert [r["metric"] for r in rows][:3] == ["acc7", "f1_non0", "mae"]
    assert (rows[0]["mean"], rows[0]["std"]) == (pytest.approx(43.15), pytest.approx(1.23))
    assert table.ours_of(rows[0]) == "43.15 +- 1.23"
    assert table.ours_of(rows[1]) == "-" and rows[1]["n"] == 0
    assert table.ours_of(rows[2]) == "0.812 +- 0.010"
    assert table.ours_of(rows[3]) == "-"  # an undefined score


def test_units():
    for name in ("mae", "pearson", "ccc", "auilc:mae", "polarity/mae"):
        assert table.unit(name) == ""
    for name in ("acc7", "auilc:acc7", "accuracy:happy", "intensity/accuracy", "f1_has0"):
        assert table.unit(name) == "%"
    # Of all metrics the errors and correlations alone are no shares.
    from mertool.metrics import scores

    y = np.linspace(-3, 3, 9)
    made = scores(Label("s", "regression", (), (-3.0, 3.0)), y, y[:, None] / 2).values
    assert {n for n in made if not table.unit(n)} == {"mae", "pearson", "ccc"}


def test_the_tiny_recipe_is_sound():
    assert set(tomllib.loads(TINY)) <= {
        "recipe", "run", "fusion", "train", "labels", "shapes", "expected", "ablations", "smoke",
    }  # fmt: skip


# --- the page --------------------------------------------------------------------------------
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_example_on_the_page_is_a_sound_recipe(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "recipe.toml").write_text(example)
    assert not failed(check_recipe(str(tmp_path / "recipe.toml")))


def test_the_page_has_every_part_and_every_setting():
    listed = {n for n in SECTIONS if re.search(rf"^\| .*`\[{n}[.\]].* \|", PAGE, re.MULTILINE)}
    assert listed == set(SECTIONS)
    rows = re.findall(r"^\| (`evaluate\..*?) \| (.*?) \|", PAGE, re.MULTILINE)
    said = {}
    for names, defaults in rows:
        values = re.findall(r"`(\w+)`", defaults) or [""]
        said |= dict(zip(re.findall(r"`evaluate\.(\w+)`", names), values, strict=True))
    assert said == to_dict(EvaluateConfig())
