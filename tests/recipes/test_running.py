"""From a feature file to the table: what is trained, kept, compared, skipped and reported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from recipes.tiny import write

import mertool.evaluate  # so that conftest.py lowers its draws
import mertool.recipe
from mertool.cli import main
from mertool.config import read_toml
from mertool.recipe import running
from mertool.testing import interaction


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(tmp_path, monkeypatch, capsys) -> Callable[..., Done]:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*args: object) -> Done:
        argv = [str(a) for a in args]
        monkeypatch.setattr("sys.argv", ["mertool", *argv])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(argv)
        return Done(caught.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return interaction.write(tmp_path_factory.mktemp("data") / "x.h5", clips=80)


@pytest.fixture
def recipe(tmp_path) -> str:
    return write(tmp_path / "tiny")


def by_metric(rows):
    return {r["metric"]: r for r in rows}


def test_a_run_ends_in_a_table_made_of_its_metrics(call, recipe, data):
    code, out, err = call("recipe", "run", recipe, f"data={data}", "-o", "out")
    assert code == 0, err
    table = json.loads(Path("out/table.json").read_text())
    assert (table["shape"], table["variants"], table["void"]) == ("aligned", ["aligned"], [])
    assert (table["seeds"], table["split"]) == ([1111, 1112], "test")
    assert table["clips"] == {"train": 56, "valid": 8, "test": 16}
    assert "clips: 56 train, 8 valid, 16 test" in out
    assert table["environment"]["packages"]["torch"] and table["environment"]["data"]["sha256"]
    kept = json.loads(Path("out/full/metrics.json").read_text())["splits"]["test"]["mertool"]
    rows = by_metric(table["rows"])
    assert list(rows)[:2] == ["acc2", "mae"]  # what the paper prints comes first
    assert set(rows) == set(kept["mean"])
    for name, row in rows.items():
        each = [kept["seeds"][s][name] for s in ("1111", "1112")]
        if None in each:
            assert row["mean"] is None
            continue
        factor = 1 if name in ("mae", "pearson", "ccc") else 100
        assert row["mean"] == pytest.approx(factor * (each[0] + each[1]) / 2)
        gap = abs(each[0] - each[1])
        assert row["std"] == pytest.approx(factor * gap / np.sqrt(2))  # divisor n - 1
    assert (rows["acc2"]["paper"], rows["acc2"]["source"]) == (80.5, "Table 1")
    shown = f"{rows['acc2']['mean']:.2f} +- {rows['acc2']['std']:.2f}"
    line = next(x for x in out.splitlines() if x.startswith("acc2 (mertool) %"))
    assert line.split("  ")[-1].strip() == shown and "80.5" in line
    assert "ours (2 seeds)" in out and "not comparable" not in out
    page = Path("out/table.md").read_text()
    assert f"| acc2 (mertool) % | Table 1 | 80.5 | {shown} |" in page
    assert not list(Path("out/full").glob("only-*"))  # run.singles = false
    assert Path("out/recipe.toml").read_text() == Path(recipe).read_text()


def test_ablations_stand_beside_the_full_model(call, recipe, data):
    code, out, err = call("recipe", "run", recipe, f"data={data}", "--ablations", "--json")
    assert code == 0, err
    (table,) = json.loads(out)["tables"]
    assert table == json.loads(Path("runs/tiny/table.json").read_text())
    full = by_metric(table["full"])
    assert (full["acc2"]["paper"], full["mae"]["paper"]) == (80.5, 0.7)
    assert full["acc2"]["mean"] == by_metric(table["rows"])["acc2"]["mean"]
    made = {a["name"]: a for a in table["ablations"]}
    assert list(made) == ["text_only", "no_vision", "narrow"]
    assert by_metric(made["no_vision"]["rows"])["mae"]["paper"] == 0.9
    # A drawn row has no paper's score; ours stand there all the same.
    drawn = by_metric(made["narrow"]["rows"])
    assert set(drawn) == {"acc2", "mae"}
    assert all(r["paper"] is None and r["mean"] is not None for r in drawn.values())
    for name, streams, d in (("text_only", ["text"], 6), ("narrow", [*interaction.WIDTHS], 4)):
        folder = Path("runs/tiny/ablations") / name
        config = read_toml(folder / "config.toml")
        assert (config["run"]["modalities"], config["fusion"]["d_model"]) == (streams, d)
        kept = json.loads((folder / "metrics.json").read_text())["splits"]["test"]["mertool"]
        ours = by_metric(made[name]["rows"])["acc2"]
        assert ours["mean"] == pytest.approx(100 * kept["mean"]["acc2"])


def test_one_that_fails_does_not_lose_the_others_and_resume_mends_it(call, tmp_path, data):
    broken = ("fusion.d_model = 4", "train.lr = 1e30\ntrain.clip = 0.0\ntrain.epochs = 3")
    recipe = write(tmp_path / "tiny", broken, ('row = "w/o Vision"', 'row = "no eyes"'))
    code, out, err = call("recipe", "run", recipe, f"data={data}", "--ablations", "-o", "out")
    assert code == 3
    assert "Failed: d = 4: " in err and "d = 4: failed: " in out
    table = json.loads(Path("out/table.json").read_text())
    assert [a["status"] for a in table["ablations"]] == ["done", "done", "failed"]
    assert "finite" in table["ablations"][2]["reason"]
    models = {p: p.stat().st_mtime_ns for p in Path("out").rglob("model.safetensors")}
    assert len(models) == 6
    mended = write(tmp_path / "tiny", ('row = "w/o Vision"', 'row = "no eyes"'))
    # What failed was begun with other settings: its folder must go.
    done = call("recipe", "run", mended, f"data={data}", "--ablations", "-o", "out", "--resume")
    assert done.code == 3 and "other settings" in done.err
    shutil.rmtree("out/ablations/narrow")
    done = call("recipe", "run", mended, f"data={data}", "--ablations", "-o", "out", "--resume")
    assert done.code == 0, done.err
    assert all(path.stat().st_mtime_ns == made for path, made in models.items())
    assert len(list(Path("out").rglob("model.safetensors"))) == 8
    # The test split is not opened again for what has its scores.
    kept = json.loads(Path("out/full/metrics.json").read_text())
    assert len(kept["openings"]) == 1


def test_resume_adds_ablations_and_seeds(call, recipe, data):
    first = call("recipe", "run", recipe, f"data={data}", "--seeds", "1", "-o", "out")
    assert first.code == 0 and "ours (1 seed)" in first.out
    again = call(
        "recipe", "run", recipe, f"data={data}", "-o", "out", "--resume", "--ablations", "--json"
    )
    (table,) = json.loads(again.out)["tables"]
    assert {r["n"] for r in table["rows"]} == {2}
    assert len(table["ablations"]) == 3
    assert len(json.loads(Path("out/full/metrics.json").read_text())["openings"]) == 2


def test_an_interrupted_run_has_what_it_finished(recipe, data, tmp_path, monkeypatch):
    real, calls = running.training.run, []

    def stopping(*args, **more):
        calls.append(args[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(running.training, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        mertool.recipe.run(recipe, data, tmp_path / "out", ablations=True)
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [a["name"] for a in table["ablations"]] == ["text_only"] and table["rows"]
    monkeypatch.setattr(running.training, "run", real)
    report = mertool.recipe.run(recipe, data, tmp_path / "out", ablations=True, resume=True)
    assert [a["status"] for a in report.tables[0]["ablations"]] == ["done"] * 3


def test_other_data_void_the_comparison(call, recipe, tmp_path):
    """Unaligned: another variant; other widths, streams, labels or settings: none."""
    loose = interaction.write(tmp_path / "loose.h5", clips=80, aligned=False)
    (table,) = mertool.recipe.run(recipe, loose, tmp_path / "a", ablations=True, seeds=1).tables
    assert table["shape"] == "unaligned" and table["void"] == []
    assert by_metric(table["rows"])["acc2"]["paper"] == 70.0
    assert by_metric(table["rows"])["mae"]["paper"] is None
    assert table["ablations_void"] == "they are of the variant aligned"
    done = call("recipe", "run", recipe, f"data={loose}", "-o", "b", "--seeds", "1", "--ablations")
    assert "ablations are not comparable: they are of the variant aligned" in done.out


@pytest.mark.parametrize(
    ("settings", "void"),
    [
        (["train.epochs=2"], "settings changed: train.epochs"),
        (["run.modalities=audio,vision"], "are not the paper's"),
        (["run.seeds=3"], ""),
        (["run.seeds=1111,1119"], ""),
    ],
)
def test_what_the_user_changes(recipe, data, tmp_path, settings, void):
    (table,) = mertool.recipe.run(
        recipe, data, tmp_path / "out", settings=settings, ablations=True
    ).tables
    assert bool(table["void"]) == bool(void)
    assert void in "; ".join(table["void"])
    made = {a["name"]: (a["status"], a["reason"]) for a in table["ablations"]}
    if "run.modalities=audio,vision" in settings:
        assert made["text_only"] == ("skipped", "it needs text, which is not in use")
        assert made["no_vision"][0] == "skipped" and made["narrow"] == ("done", "")
        assert "streams audio, vision alone" in table["void"]
    else:
        assert set(made.values()) == {("done", "")}
    if settings[0].startswith("run.seeds"):
        assert table["seeds"] == ([1111, 1112, 1113] if "3" == settings[0][-1] else [1111, 1119])


def test_a_label_of_another_kind_voids_the_comparison(tmp_path, data):
    recipe = write(tmp_path / "tiny", ("range = [-1.0, 1.0]", "range = [-3.0, 3.0]"))
    (table,) = mertool.recipe.run(recipe, data, tmp_path / "out", seeds=1).tables
    assert table["void"] == ['the label "score" (regression, -1 to 1) is not that of the paper']
    # Another name alone does not.
    named = write(
        tmp_path / "b", ('label = "score"', 'label = "mood"'), ("[labels.score]", "[labels.mood]")
    )
    (table,) = mertool.recipe.run(
        named, data, tmp_path / "c", seeds=1, settings=["run.label=score"]
    ).tables
    assert table["void"] == [] and table["labels"] == ["score"]


def test_another_split_is_told(tmp_path, data):
    for counts, said in (([56, 8, 16], False), ([57, 8, 16], True)):
        recipe = write(
            tmp_path / "tiny", ('summary = "tiny"', f'summary = "tiny"\nclips = {counts}')
        )
        report = mertool.recipe.run(recipe, data, tmp_path / "out", seeds=1, overwrite=True)
        notes = report.tables[0]["notes"]
        assert ("the paper's split has other clips: 57 train, 8 valid, 16 test" in notes) == said


def test_smoke_is_told_in_the_table(call, recipe):
    code, out, err = call("recipe", "run", recipe, "--smoke", "--ablations", "-o", "out")
    assert code == 0, err
    assert out.count("smoke run: generated data, no result") == 2
    one, other = (
        json.loads(Path(f"out/{s}/table.json").read_text()) for s in ("aligned", "unaligned")
    )
    assert one["streams"]["audio"] == [5, 7] and other["streams"]["audio"] == [5, 14]
    # Ablations run on the first shape.
    assert len(one["ablations"]) == 3 and other["ablations"] == []
    assert "smoke run" in Path("out/aligned/table.md").read_text()


def test_masked_scores(tmp_path, data):
    recipe = write(
        tmp_path / "tiny",
        ("[labels.score]", '[evaluate]\nmask = "0:1:0.5"\n\n[labels.score]'),
        ("acc2 = 80.5", 'acc2 = 80.5\n"auilc:mae" = 0.9'),
        ("paper = { acc2 = 60.0 }", 'paper = { "auilc:mae" = 1.0 }'),
    )
    (table,) = mertool.recipe.run(recipe, data, tmp_path / "out", seeds=1, ablations=True).tables
    row = by_metric(table["rows"])["auilc:mae"]
    kept = json.loads((tmp_path / "out/full/metrics.json").read_text())
    (curves,) = kept["robustness"]["test"]["mertool"].values()
    a, b, c = curves["curves"]["all streams"]["mae"]
    assert row["mean"] == pytest.approx((a + 2 * b + c) / 4)  # trapezoids of width 1/2
    assert row["unit"] == "" and row["paper"] == 0.9
    masked, plain = table["ablations"][0], table["ablations"][1]
    assert by_metric(masked["rows"])["auilc:mae"]["mean"] is not None
    folder = tmp_path / "out/ablations"
    assert "robustness" in json.loads((folder / masked["name"] / "metrics.json").read_text())
    assert "robustness" not in json.loads((folder / plain["name"] / "metrics.json").read_text())


ERRORS = [
    (["mosi_mrc", "--smoke"], 2, ['no recipe named "mosi_mrc"', 'Did you mean "mosi_mcr"?']),
    (["TINY"], 2, ["Which feature file?", "data=FILE.h5", "--smoke"]),
    (["TINY", "data=DATA", "--smoke"], 2, ["makes its own data"]),
    (["TINY", "DATA"], 2, ["NAME=VALUE", "Did you mean data="]),
    (["TINY", "dta=DATA"], 2, ["NAME=VALUE", 'Did you mean "data"?']),
    (["TINY", "data=DATA", "train.epoch=3"], 2, ["train.epoch: no such setting", '"epochs"']),
    (["TINY", "data=DATA", "trian.epochs=3"], 2, ["trian.epochs: no such section", '"train"']),
    (["TINY", "data=DATA", "train.epochs=x"], 2, ["'x' is not a whole number"]),
    (["TINY", "data=DATA", "run.label=mood"], 2, ['no label "mood"', "run.label=NAME"]),
    (["TINY", "data=DATA", "run.modalities=eyes"], 2, ['no stream "eyes"', "run.modalities=A,B"]),
    (["TINY", "data=DATA", "run.features=x.h5"], 2, ["no setting of a recipe", "data=x.h5"]),
    (["TINY", "data=DATA", "run.folds=2", "run.splits=mine"], 2, ["One split or"]),
    (["TINY", "data=DATA", "evaluate.convention=x"], 2, ["convention must be one of"]),
    (["TINY", "data=DATA", "run.plugin=concatt"], 2, ['fusion named "concatt"']),
    (["TINY", "data=gone.h5"], 1, ["no such feature file", "gone.h5"]),
    (["TINY", "data=DATA", "--seeds", "x"], 2, ["no number of seeds"]),
    (["TINY", "data=DATA", "--device", "tpu"], 2, ["tpu"]),
    (["gone/recipe.toml", "data=DATA"], 1, ["no such recipe file", "mertool recipe ls"]),
    (["TINY", "data=DATA", "--resume", "--overwrite"], 2, ["Resume or overwrite?"]),
]


@pytest.mark.parametrize(("args", "code", "parts"), ERRORS, ids=lambda v: str(v)[:40])
def test_errors_are_three_lines(call, recipe, data, args, code, parts):
    given = [a.replace("TINY", recipe).replace("DATA", str(data)) for a in args]
    done = call("recipe", "run", *given, "-o", "out")
    lines = done.err.splitlines()
    assert done.code == code and done.out == "", done
    assert len(lines) == 3 and lines[0].startswith("Error: "), done.err
    for part in parts:
        assert part in done.err
    assert not list(Path("out").glob("full*"))


def test_a_refused_call_does_not_stand_in_the_way(call, recipe, data):
    run = ("recipe", "run", recipe, f"data={data}", "--seeds", "1", "-o", "out")
    assert call(*run, "run.label=mood").code == 2
    done = call(*run)
    assert done.code == 0, done.err


def test_existing_output(call, recipe, data):
    run = ("recipe", "run", recipe, f"data={data}", "--seeds", "1", "-o", "out")
    assert call(*run).code == 0
    refused = call(*run)
    assert refused.code == 1 and "--resume" in refused.err and "--overwrite" in refused.err
    assert call(*run, "--overwrite").code == 0
    Path("other").mkdir()
    Path("other/precious.txt").write_text("mine")
    refused = call(*run[:-1], "other", "--overwrite")
    assert refused.code == 1 and "no run of a recipe" in refused.err
    assert Path("other/precious.txt").read_text() == "mine"
    # A folder that holds a recipe is no output of one, even if it was run from there.
    copy = Path(write(Path("mine")))
    (copy.parent / "full").mkdir()
    for out in ("mine", "."):
        refused = call("recipe", "run", str(copy), f"data={data}", "-o", out, "--overwrite")
        assert refused.code == 1 and "no run of a recipe" in refused.err and copy.is_file()


@pytest.mark.slow
def test_running_needs_no_media_libraries(recipe, data):
    mertool.recipe.names()
    code = (
        "import sys, mertool.evaluate as e, mertool.recipe as r; e.DRAWS = 10;"
        f"r.run({recipe!r}, {str(data)!r}, 'never', settings=['train.epochs=1'], seeds=1);"
        "print([m for m in ('av', 'mediapipe', 'pocketsphinx', 'soundfile') if m in sys.modules])"
    )
    folder = Path(recipe).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
