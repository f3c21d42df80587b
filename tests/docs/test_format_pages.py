"""What the pages say of files: manifests, feature files, run folders, and what training imports."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tomllib

import h5py
import numpy as np
import pages
import pytest
import synthetic

import mertool
from mertool import manifest
from mertool.media import SUFFIXES
from mertool.splits.divide import divide


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A feature file that `extract` wrote from sound and text."""
    import soundfile

    folder = tmp_path_factory.mktemp("spoken")
    time = np.arange(8000) / 16000
    soundfile.write(folder / "a.wav", 0.1 * np.sin(2 * np.pi * 150 * time), 16000)
    mertool.extract(folder, folder / "feats.h5", text="none", vision="none")
    return folder / "feats.h5"


# --- manifest.md ---


def test_the_manifest_on_the_page(tmp_path):
    text = pages.read("manifest")
    (csv,) = pages.blocks(text, "csv")
    (tmp_path / "manifest.csv").write_text(csv)
    found = manifest.read([tmp_path])
    assert [c.id for c in found.clips] == ["a1", "a2", "b1"]
    assert {x.name: x.task for x in found.labels} == {
        "sentiment": "regression", "emotion": "classification", "traits": "multilabel"
    }  # fmt: skip
    assert found.labels[1].classes == ("angry", "happy")
    assert found.clips[1].text == "well, it was fine" and found.clips[1].start == 4.2
    assert found.clips[2].split == "test" and "traits" not in found.clips[2].labels


def test_every_manifest_column_is_there():
    rows = {pages.codes(r[0])[0]: r for r in pages.table(pages.read("manifest"), "column | needed")
            if pages.codes(r[0])}  # fmt: skip
    assert set(rows) == set(manifest._KNOWN)
    assert set(pages.codes(rows["split"][2])) == {name for name in manifest._SPLITS if name}


def test_suffixes():
    paragraph = re.search(r"known by their suffix:\s+`([^`]+)`", pages.read("manifest"))
    assert set(paragraph[1].split()) == SUFFIXES


@pytest.mark.parametrize("row", pages.table(pages.read("manifest"), "message"), ids=lambda r: r[0])
def test_messages_are_those_of_the_code(row):
    """Up to the first "..." of each message, a string of manifest.py begins like this."""
    source = inspect.getsource(manifest)
    for message in pages.codes(row[0]):
        start = message.split("...")[0].replace("start is", "{name} is")
        start = start.replace("no clip_id.", "no {name}.").replace("no path.", "no {name}.")
        assert start.rstrip('" ') in source, message


# --- feature-file.md ---


def generic(name: str) -> str:
    name = re.sub(r"^(clips/labels|splits)/.*", r"\1/NAME", name)
    return re.sub(r"^streams/\w+/(?!word|span)", "streams/M/", name)


def kind(data: h5py.Dataset) -> str:
    return "utf-8" if h5py.check_string_dtype(data.dtype) else str(data.dtype)


def test_layout(tmp_path):
    """Every dataset of a file is on the page with its type, and the other way round."""
    listed = {}
    for row in pages.table(pages.read("feature-file"), "dataset"):
        listed[pages.codes(row[0])[0]] = row
    found: dict[str, set[str]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.setdefault(generic(name), set()).add(kind(item))

    with h5py.File(synthetic.write(tmp_path / "x.h5")) as file:
        file.visititems(visit)
    assert set(found) == set(listed)
    for name, kinds in found.items():
        assert kinds == set(re.split(r", | or ", listed[name][2])), name


def test_attributes(tmp_path, spoken):
    rows = {
        r[0]: pages.codes(r[1]) for r in pages.table(pages.read("feature-file"), "attributes of")
    }
    mertool.align(spoken, tmp_path / "y.h5", to="segments:2", progress=False)
    with h5py.File(spoken) as before, h5py.File(tmp_path / "y.h5") as after:
        assert set(before.attrs) == set(rows["the file"])
        plain = set(before["streams/audio"].attrs)
        own = set(rows["`streams/M` of `covarep`"]) - {"covarep"}
        assert plain == set(rows["`streams/M`"]) | own
        more = set(after["streams/audio"].attrs) - plain
        assert more == set(rows["`streams/M`, aligned"]) - plain
    with h5py.File(synthetic.write(tmp_path / "x.h5")) as file:
        for data in file["clips/labels"].values():
            assert set(data.attrs) == set(rows["`clips/labels/NAME`"])


def test_attributes_of_splits(tmp_path):
    rows = {r[0]: r[1] for r in pages.table(pages.read("feature-file"), "attributes of")}
    path, found = synthetic.write(tmp_path / "x.h5"), set()
    divide(path, by="speaker", name="mine")
    divide(path, protocol="meld/official")
    with mertool.open(path) as file:
        assert file.split_attrs("default") == {}
        for name in ("mine", "official"):
            found |= set(file.split_attrs(name))
    assert found == set(pages.codes(rows["`splits/NAME`"]))


def test_reading_code_runs(tmp_path, monkeypatch, capsys):
    synthetic.write(tmp_path / "feats.h5")
    monkeypatch.chdir(tmp_path)
    ours, plain = pages.blocks(pages.read("feature-file"), "python")
    assert len([x for x in plain.splitlines() if x.strip()]) <= 6
    exec(compile(plain, "plain", "exec"), {})
    with mertool.open("feats.h5") as file:
        rows = next(iter(file)).streams["audio"]
    assert f"clip0 {rows.values.shape}" in capsys.readouterr().out
    exec(compile(ours, "ours", "exec"), {})
    assert f"{rows.values.shape}" in capsys.readouterr().out


# --- runs.md ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{label: run folder}, trained for one epoch and evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    features = synthetic.write(folder / "x.h5")
    found = {}
    for label in ("score", "emotion", "traits"):
        found[label] = folder / label
        mertool.train(
            features, folder / label, plugin="concat", label=label, seeds=2, device="cpu",
            settings=("train.epochs=1",),
        )  # fmt: skip
        mertool.evaluate(folder / label, device="cpu")
    return found


def test_run_folder(runs):
    listed = set(pages.names(pages.table(pages.read("runs"), "file")))
    each = [n.removeprefix("seed-S/") for n in listed if n.startswith("seed-S/")]
    listed.remove("only-STREAM/seed-S/...")
    listed |= {f"only-STREAM/seed-S/{name}" for name in each}
    files = {p.relative_to(runs["score"]).as_posix() for p in runs["score"].rglob("*.*")}
    files = {re.sub("only-(text|audio)", "only-STREAM", f) for f in files}
    files = {re.sub(r"seed-\d+", "seed-S", f) for f in files}
    assert {re.sub("-(valid|test)", "-SPLIT", f) for f in files} == listed
    config = tomllib.loads((runs["score"] / "config.toml").read_text())
    rows = pages.table(pages.read("runs"), "section")
    assert set(config) == {n for r in rows for n in pages.codes(r[0])}
    assert set(config["run"]) == set(pages.codes(rows[0][1]))


def test_env_log_and_metrics(runs):
    text = pages.read("runs")
    env, log = re.findall(r"^\| key \| what \|\n(?:\|.*\n)+", text, re.MULTILINE)
    run = runs["score"]
    known = json.loads((run / "env.json").read_text())
    assert set(known) == set(pages.names(pages.table(env, "key")))
    line = json.loads((run / "seed-1111" / "log.jsonl").read_text().splitlines()[0])
    assert set(line) == set(pages.names(pages.table(log, "key")))
    metrics = json.loads((run / "metrics.json").read_text())
    listed = re.search(r"adds to `metrics.json`:(.*?)\.$", text, re.DOTALL | re.MULTILINE)
    assert list(metrics["splits"]["test"]["mertool"]) == pages.codes(listed[1])


def test_scores_and_prediction_columns(runs):
    text = pages.read("metrics")
    listed = {
        name: [re.sub("NAME", "high", n) for row in table for n in pages.codes(row[0])]
        for name, table in (
            ("regression", pages.table(text, "name | scale")),
            *zip(("classification", "multilabel"), pages.tables(text, "name | what"), strict=True),
        )
    }
    heads = {r[0]: r[1] for r in pages.table(pages.read("runs"), "label | columns")}
    for label, task in zip(runs, ("regression", "classification", "multilabel"), strict=True):
        metrics = json.loads((runs[label] / "metrics.json").read_text())
        printed = metrics["splits"]["test"]["mertool"]["mean"]
        assert {n for n in printed if not n.endswith(":low")} <= set(listed[task])
        head = (runs[label] / "seed-1111/predictions-test.csv").read_text().splitlines()[0]
        assert head.split(",")[:3] == ["id", label, f"{label}_pred"]
        assert ("NAME=CLASS" in heads[task] or "the same" in heads[task]) == ("=" in head)


def test_curves_are_as_the_page_says(runs):
    mertool.evaluate(runs["score"], device="cpu", split="valid", mask="0:1:0.5")
    kept = json.loads((runs["score"] / "metrics.json").read_text())
    (made,) = kept["robustness"]["valid"]["mertool"].values()
    assert set(made) == set(pages.names(pages.table(pages.read("robustness"), "key")))
    fills = pages.table(pages.read("robustness"), "in its place")
    assert set(made["missing"]["text"]) == {row[0] for row in fills}


# --- install.md ---


@pytest.mark.slow
def test_training_imports_what_the_page_says(tmp_path):
    sentence = re.search(r"What training imports: ([^.]+)\.", pages.read("install"))
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]
    needed = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]
    modules = {name: name.replace("-", "_") for name in needed} | {"scikit-learn": "sklearn"}
    features = synthetic.write(tmp_path / "x.h5", labels=synthetic.LABELS[:1])
    code = f"""
import sys
from mertool.cli import cli
run = {str(tmp_path / "r")!r}
for line in (["train", "--plugin", "mcr", {str(features)!r}, "-o", run, "--seeds", "1", "--set",
              "train.epochs=1", "--set", "fusion.layers=1", "--device", "cpu", "-q"],
             ["evaluate", run, "--device", "cpu"], ["data", "info", {str(features)!r}]):
    cli.main(line, standalone_mode=False)
print(*[name for name, module in {modules!r}.items() if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == pages.codes(sentence[1])
