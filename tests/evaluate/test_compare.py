from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import synthetic
from safetensors.numpy import save_file
from scipy.stats import ttest_rel
from sklearn import metrics as sk

import mertool
from mertool.cli import main
from mertool.errors import DataError, UsageError
from mertool.files import to_json
from mertool.train.folder import write_predictions
from mertool.types import Label

SCORE = Label("score", "regression", (), (-3.0, 3.0))
MOOD = Label("mood", "classification", ("negative", "neutral", "positive"))
TRAITS = Label("traits", "multilabel", ("calm", "warm"))
IDS = [f"c{i}" for i in range(40)]


def truth(label):
    n = len(IDS)
    rng = np.random.default_rng(1)
    if label.task == "regression":
        return np.round(rng.uniform(-3, 3, n), 1)
    if label.task == "classification":
        return rng.integers(0, len(label.classes), n)
    return rng.integers(0, 2, (n, len(label.classes))).astype(float)


def guess(label, y, seed, noise):
    """(N, K) predictions that follow the truth but for noise."""
    rng = np.random.default_rng([seed, int(noise * 100)])
    if label.task == "regression":
        return y[:, None] + noise * rng.normal(size=(len(y), 1))
    hot = np.eye(len(label.classes))[y] if label.task == "classification" else y - 0.5
    return 2 * hot + noise * rng.normal(size=(len(y), len(label.classes)))


def make_run(folder, label=SCORE, noise=0.5, seeds=(1, 2, 3), only=("text",), folds=0, record=None):
    """A run folder as `train` and `evaluate` leave it, with the given predictions."""
    y = truth(label)
    parts = [f"fold-{k}" for k in range(folds)] or [""]
    for k, part in enumerate(parts):
        mine = [i for i in range(len(IDS)) if i % len(parts) == k]
        for name in ("", *(f"only-{m}" for m in only)):
            for seed in seeds:
                place = folder / part / name / f"seed-{seed}"
                place.mkdir(parents=True)
                pred = guess(label, y, seed, noise + (1.5 if name else 0))
                ids = [IDS[i] for i in mine]
                write_predictions(place / "predictions-test.csv", label, ids, y[mine], pred[mine])
                meta = {"label": {**vars(label), "range": list(label.range)}}
                save_file(
                    {"w": np.zeros(1)}, place / "model.safetensors", {"mertool": json.dumps(meta)}
                )
    if record is not None:
        kept = {"splits": {"test": {"mertool": record}}, "openings": []}
        (folder / "metrics.json").write_text(json.dumps(kept))
    return folder


def write(path, rows):
    columns = list(dict.fromkeys(k for row in rows for k in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def simple(path, pred, y=None, **more):
    rows = [{"id": i, "score_pred": p} for i, p in zip("abcd", pred, strict=True)]
    for row, value in zip(rows, y or [], strict=False):
        row["score"] = value
    return write(path, [{**row, **more} for row in rows])


Y = [-2, 0, 1, 3]


@pytest.fixture
def pair(tmp_path):
    """Two CSV files of four clips; the first alone has the truth."""
    return [
        simple(tmp_path / "a.csv", [-1, 0.5, 1, 1], Y),
        simple(tmp_path / "b.csv", [-2, 0, 1.5, 2.5]),
    ]


def test_csv_files_by_hand(pair):
    report = mertool.compare(pair, times=50)
    assert report.label == Label("score", "regression", (), (-2.0, 3.0))
    a, b = report.rows
    assert a.mean["mae"] == pytest.approx((1 + 0.5 + 0 + 2) / 4)
    assert b.mean["mae"] == pytest.approx(1 / 4)
    assert b.mean["pearson"] == pytest.approx(np.corrcoef(Y, [-2, 0, 1.5, 2.5])[0, 1])
    (mae,) = [d for d in report.differences if d.metric == "mae"]
    assert mae.difference == pytest.approx(1 / 4 - 3.5 / 4)
    assert mae.low < mae.difference < mae.high
    assert np.isnan(mae.t_p) and mae.t_pairs == 0 and mae.t_reason == "fewer than two pairs"
    assert report.lower_is_better == ["mae"]
    assert "one seed, so no deviation and no t-test" in " ".join(report.notes)
    assert any("clips as independent" in note for note in report.notes)


def test_order_of_rows_means_nothing(tmp_path):
    make_run(tmp_path / "a"), make_run(tmp_path / "b", noise=1.0)
    one = mertool.compare([tmp_path / "a", tmp_path / "b"], times=50)
    rng = np.random.default_rng(0)
    for path in tmp_path.rglob("*.csv"):
        write(path, list(rng.permutation(read_csv(path))))
    two = mertool.compare([tmp_path / "a", tmp_path / "b"], times=50)
    assert one == two
    assert one.rows[0].mean != one.rows[1].mean


def test_identical_systems(tmp_path):
    make_run(tmp_path / "a")
    report = mertool.compare([tmp_path / "a", tmp_path / "a"], times=99)
    assert report.differences
    for one in report.differences:
        assert one.difference == one.low == one.high == 0
        assert one.bootstrap_p == one.bootstrap_holm == 1
        assert np.isnan(one.t_p) and one.t_reason == "all differences are equal"


def table(text, title):
    """{first cells: {column: cell}} of one printed table; the first line after `title` heads it."""
    lines = text[text.index(title) :].splitlines()[1:]
    header = re.split(r"\s{2,}", lines[0])
    rows = []
    for line in lines[2:]:
        cells = re.split(r"\s{2,}", line)
        if len(cells) != len(header):
            break
        rows.append(cells)
    return header, rows


def test_the_printed_tables_hold_what_the_files_say(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noises = {"a": 0.8, "b": 0.3, "c": 0.75}
    runs = {name: make_run(tmp_path / name, noise=noise) for name, noise in noises.items()}
    with pytest.raises(SystemExit) as done:
        main(["compare", "a", "b", "c", "--metric", "mae", "--metric", "acc7"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    # Independently, from the files:
    mae, acc7 = {}, {}
    for name in [*runs, "a only-text"]:
        folder = tmp_path / name.replace(" ", "/")
        files = [read_csv(folder / f"seed-{s}" / "predictions-test.csv") for s in (1, 2, 3)]
        values = [np.array([[r["score"], r["score_pred"]] for r in f], float).T for f in files]
        mae[name] = [sk.mean_absolute_error(*v) for v in values]
        cut = [np.round(np.clip(v, -3, 3)).astype(int) for v in values]
        acc7[name] = [sk.accuracy_score(*v) for v in cut]
    header, rows = table(out, "score on test, 40 clips")
    assert header == ["system", "kind", "seeds", "mae (mertool)", "acc7 (mertool)"]
    assert [row[:3] for row in rows[:4]] == [
        ["a", "system", "3"], ["b", "system", "3"], ["c", "system", "3"],
        ["a only-text", "single modality", "3"],
    ]  # fmt: skip
    assert len(rows) == 6
    for row in rows[:4]:
        for cell, values in zip(row[3:], (mae[row[0]], acc7[row[0]]), strict=True):
            mean, sd = map(float, cell.split(" +- "))
            assert mean == pytest.approx(np.mean(values), abs=6e-5)
            assert sd == pytest.approx(np.std(values, ddof=1), abs=6e-5)
    header, rows = table(out, "\ndifference from a,"[1:])
    assert header[:2] == ["system", "metric"]
    for metric, values in (("mae (mertool)", mae), ("acc7 (mertool)", acc7)):
        p = {n: ttest_rel(values[n], values["a"]).pvalue for n in "bc"}
        small = min(p, key=p.get)
        large = max(p, key=p.get)
        holm = {small: min(1, 2 * p[small])}
        holm[large] = max(holm[small], p[large])
        for name in "bc":
            (row,) = [r for r in rows if r[:2] == [name, metric]]
            gap = np.mean(values[name]) - np.mean(values["a"])
            assert float(row[2]) == pytest.approx(gap, abs=6e-5)
            assert float(row[3]) == pytest.approx(p[name], abs=6e-5)
            assert float(row[4]) == pytest.approx(holm[name], abs=6e-5)
            low, high = map(float, row[5].split(" to "))
            assert low <= gap <= high


@pytest.mark.slow
def test_interval_and_p_against_another_bootstrap(tmp_path):
    """Of the paired differences of the clips' absolute errors, averaged over seeds."""
    make_run(tmp_path / "a", noise=0.8), make_run(tmp_path / "b", noise=0.6)
    report = mertool.compare([tmp_path / "a", tmp_path / "b"], metrics=["mae"], times=2000)
    y = truth(SCORE)
    error = {
        n: np.mean([np.abs(guess(SCORE, y, s, v)[:, 0] - y) for s in (1, 2, 3)], 0)
        for n, v in (("a", 0.8), ("b", 0.6))
    }
    gap = error["b"] - error["a"]
    rng = np.random.default_rng(99)
    draws = gap[rng.integers(0, 40, (20000, 40))].mean(1)
    (one,) = report.differences
    sd = draws.std()
    # An end of 2000 draws is known within about 0.06 sd; the p within about 0.01.
    assert (one.low, one.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.25 * sd)
    expected = 2 * min((draws <= 0).mean(), (draws >= 0).mean())
    assert 0.001 < expected < 0.9
    assert one.bootstrap_p == pytest.approx(expected, abs=0.05)
    assert one.bootstrap_holm == one.bootstrap_p


def test_seeds_pair_by_their_number(tmp_path):
    rows = {name: [] for name in "ab"}
    for name, seeds in (("a", (1, 2, 3)), ("b", (4, 3, 2))):
        for seed in seeds:
            for i, y in zip("abcd", Y, strict=True):
                pred = y + seed / 10 + (i == "b" and name == "b") * seed
                rows[name].append({"id": i, "seed": seed, "prediction": pred, "truth": y})
    paths = [write(tmp_path / f"{n}.csv", r) for n, r in rows.items()]
    report = mertool.compare(paths, metrics=["mae"], times=20)
    (one,) = report.differences
    a, b = ([s / 10 + w * s / 4 for s in (2, 3)] for w in (0, 1))
    assert one.t_pairs == 2
    assert one.t_p == pytest.approx(ttest_rel(b, a).pvalue)
    # ... while the difference is that of all seeds
    assert one.difference == pytest.approx(0.3 * 1 + 3 / 4 - 0.2)
    assert report.rows[1].sd["mae"] == pytest.approx(np.std([0.7, 1.05, 1.4], ddof=1))


def test_folds_are_pooled_and_companions_listed(tmp_path):
    baseline = {"mae": 1.5, "pearson": None}
    record = {"clips": 40, "baseline": baseline, "notes": ["leak: 3 speakers are in two splits"]}
    make_run(tmp_path / "cv", folds=2, record=record, only=("audio", "text"))
    make_run(tmp_path / "flat", record=record)
    names = [str(tmp_path / n) for n in ("cv", "flat")]
    report = mertool.compare(names, metrics=["mae", "pearson"], times=20)
    assert report.clips == 40
    cv, flat = report.rows[:2]
    assert cv.mean == pytest.approx(flat.mean) and cv.seeds.keys() == {1, 2, 3}
    assert [(r.name, r.kind) for r in report.rows[2:]] == [
        (f"{names[0]} only-audio", "single modality"),
        (f"{names[0]} only-text", "single modality"),
        (f"{names[1]} only-text", "single modality"),
        ("training mean", "constant"),
    ]
    assert report.rows[-1].mean["mae"] == 1.5 and np.isnan(report.rows[-1].mean["pearson"])
    assert f"{names[0]}: leak: 3 speakers are in two splits" in report.notes
    # Runs whose training sets differ have two constants.
    record["baseline"] = {"mae": 1.75}
    (tmp_path / "flat" / "metrics.json").write_text(
        json.dumps({"splits": {"test": {"mertool": record}}})
    )
    report = mertool.compare(names, metrics=["mae"], times=20)
    assert [(r.name, r.mean["mae"]) for r in report.rows if r.kind == "constant"] == [
        (f"training mean of {names[0]}", 1.5), (f"training mean of {names[1]}", 1.75)
    ]  # fmt: skip


def test_a_constant_of_other_clips_is_not_shown(tmp_path):
    make_run(tmp_path / "a", record={"clips": 39, "baseline": {"mae": 1.5}, "notes": []})
    make_run(tmp_path / "b", only=())
    report = mertool.compare([tmp_path / "a", tmp_path / "b"], times=20)
    assert not [r for r in report.rows if r.kind == "constant"]
    assert sum("no constant predictor is recorded" in n for n in report.notes) == 2
    assert f"{tmp_path / 'b'}: no single modality was trained beside it" in report.notes


def test_a_run_needs_its_predictions(tmp_path):
    run = make_run(tmp_path / "a")
    with pytest.raises(DataError) as caught:
        mertool.compare([run, run], split="valid")
    assert caught.value.fix == f"mertool evaluate {run} --split valid"
    (run / "only-text" / "seed-2" / "predictions-test.csv").unlink()
    with pytest.raises(DataError) as caught:
        mertool.compare([run, run])
    assert "only-text" in caught.value.where and "mertool evaluate" in caught.value.fix


def test_clips_are_joined_strictly(pair, tmp_path):
    simple(pair[1], [-2, 0, 1.5, 2.5])
    rows = read_csv(pair[1])
    write(pair[1], rows[:2])
    with pytest.raises(DataError) as caught:
        mertool.compare(pair)
    assert caught.value.what == "2 of 4 clips are not predicted."
    assert caught.value.where == f"{pair[1]}: c, d"
    whole = mertool.compare([pair[0], write(pair[1], rows)], times=30)
    more = mertool.compare(
        [pair[0], write(pair[1], [*rows, {"id": "e", "score_pred": 9}])], times=30
    )
    assert f"{pair[1]}: 1 more clips are left out" in more.notes
    assert to_json([more.rows, more.differences]) == to_json([whole.rows, whole.differences])


def test_truths_must_agree(pair):
    simple(pair[1], [-2, 0, 1.5, 2.5], [-2.0000001, 0.0, 1.0, 3.0])
    mertool.compare(pair, times=5)
    simple(pair[1], [-2, 0, 1.5, 2.5], [-2, 0, 1.2, 3])
    with pytest.raises(DataError, match='clip "c" differs'):
        mertool.compare(pair)
    simple(pair[0], [-1, 0.5, 1, 1]), simple(pair[1], [-2, 0, 1.5, 2.5])
    with pytest.raises(DataError, match="No system has the truth"):
        mertool.compare(pair)


@pytest.mark.parametrize("missing", ["", "NaN"])
def test_a_clip_without_truth_is_left_out(pair, missing):
    simple(pair[0], [-1, 0.5, 1, 1], [-2, 0, missing, 3])
    report = mertool.compare(pair, metrics=["mae"], times=5)
    assert report.clips == 3 and "1 clips have no truth and are left out" in report.notes
    assert report.rows[1].mean["mae"] == pytest.approx(0.5 / 3)


@pytest.mark.parametrize("label", [SCORE, MOOD, TRAITS], ids=lambda x: x.task)
def test_a_csv_scores_as_the_run_it_came_from(tmp_path, label):
    """Every task; pooled in one file with a seed column, without the run's model."""
    run = make_run(tmp_path / "a", label, noise=1.0)
    rows = []
    for seed in (1, 2, 3):
        for row in read_csv(run / f"seed-{seed}" / "predictions-test.csv"):
            rows.append({**row, "seed": seed})
    file = write(tmp_path / "same.csv", rows)
    report = mertool.compare([run, file], times=20)
    assert report.rows[0].seeds == report.rows[1].seeds
    y = truth(label)
    if label is MOOD:
        said = [guess(label, y, s, 1.0).argmax(1) for s in (1, 2, 3)]
        expected = np.mean([sk.f1_score(y, p, average="weighted") for p in said])
        assert report.rows[1].mean["weighted_f1"] == pytest.approx(expected)
    if label is TRAITS:
        said = [guess(label, y, s, 1.0) > 0 for s in (1, 2, 3)]
        expected = np.mean([sk.accuracy_score(y, p) for p in said])
        assert report.rows[1].mean["subset_accuracy"] == pytest.approx(expected)
    alone = mertool.compare([file, file], times=5)
    assert (alone.label.task, alone.label.classes) == (label.task, label.classes)
    assert alone.rows[0].seeds == report.rows[1].seeds


def test_two_way_scores_use_probabilities(tmp_path):
    """Of a clip that is called neutral, negative against positive decides."""
    shares = [(0.3, 0.5, 0.2), (0.2, 0.5, 0.3), (0.1, 0.2, 0.7)]
    names = ("negative", "neutral", "positive")
    said = ("neutral", "neutral", "positive")
    true = ("negative", "positive", "positive")
    plain = [
        {"id": str(i), "pred": s, "truth": t}
        for i, (s, t) in enumerate(zip(said, true, strict=True))
    ]
    full = [
        {**row, **{f"label={n}": p for n, p in zip(names, share, strict=True)}}
        for row, share in zip(plain, shares, strict=True)
    ]
    paths = [write(tmp_path / "plain.csv", plain), write(tmp_path / "full.csv", full)]
    report = mertool.compare(paths, times=5)
    assert report.rows[1].mean["acc2_non0"] == 1.0
    assert report.rows[0].mean["acc2_non0"] < 1.0
    assert any("no probability of each class" in n and "plain.csv" in n for n in report.notes)
    assert not any("no probability" in n and "full.csv" in n for n in report.notes)
    full[0]["label=positive"], full[2]["label=negative"] = 0.9, 0.9  # contradicts its prediction
    report = mertool.compare([paths[0], write(paths[1], full)], times=5)
    assert report.rows[0].mean == report.rows[1].mean
    assert any("probabilities are not used" in n for n in report.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no predictions"),
        ("id,score_pred\n", "holds no predictions"),
        ("name,score_pred\na,1\n", 'column "id" is missing'),
        ("id,other\na,1\nb,1\nc,1\nd,1\n", 'no column "score_pred" or "pred"'),
        ("id,valence_pred\na,1\nb,1\nc,1\nd,1\n", "predict different labels"),
        ("id,score_pred\na,1\na,2\n", "predicted twice"),
        ("id,score_pred,seed\na,1,x\n", "no whole number"),
        ("id,score_pred\na,1,2\n", "as many cells"),
        ("id,score_pred\na,nan\nb,1\nc,1\nd,1\n", 'no value of "score"'),
        ("id,score_pred\na,good\nb,1\nc,1\nd,1\n", 'no value of "score"'),
        ("id,pred\na,1\nb,\nc,1\nd,1\n", 'no value of "score"'),
        ("id,score_pred\na,\udcff\n", "UTF-8"),
    ],
)
def test_wrong_files_are_told(pair, text, says):
    # The truth of the first, whose numbers make the label a regression, stays as it is.
    pair[1].write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        mertool.compare([*pair, pair[0]])
    assert says in caught.value.what + caught.value.where
    assert caught.value.fix and "\n" not in str(caught.value.where)


def test_wrong_calls(pair, tmp_path, capsys):
    with pytest.raises(UsageError, match='Did you mean "mae"'):
        mertool.compare(pair, metrics=["may"])
    with pytest.raises(UsageError, match="convention"):
        mertool.compare(pair, convention="mmsaa")
    with pytest.raises(DataError, match="There is no such run"):
        mertool.compare([pair[0], tmp_path / "none"])
    with pytest.raises(DataError, match="no seed-"):
        mertool.compare([pair[0], tmp_path])
    for wrong in (["compare"], ["compare", str(pair[0])]):
        with pytest.raises(SystemExit) as done:
            main(wrong)
        assert done.value.code == 2
        assert capsys.readouterr().err.startswith("Error: ")
    make_run(tmp_path / "a"), make_run(tmp_path / "b", MOOD)
    for broken in ("[]", "{", '{"splits": []}'):
        (tmp_path / "a" / "metrics.json").write_text(broken)
        with pytest.raises(DataError, match="scores of the run cannot be read"):
            mertool.compare([tmp_path / "a", pair[0]])
    (tmp_path / "a" / "metrics.json").unlink()
    with pytest.raises(DataError, match="different labels"):
        mertool.compare([tmp_path / "a", tmp_path / "b"])


def test_json(pair, capsys):
    with pytest.raises(SystemExit) as done:
        main(
            ["compare", *map(str, pair), "--json", "-q", "--convention", "mmsa", "--scale", "mosi"]
        )
    assert done.value.code == 0
    got = capsys.readouterr()
    result = json.loads(got.out)
    assert got.err == ""
    assert result["metrics"]["mae"] == "mae (mmsa)"
    assert result["rows"][1]["seeds"][""]["mae"] == 0.25
    assert result["differences"][0]["t_p"] is None
    assert result["notes"] and result["clips"] == 4


def test_nothing_heavy_is_imported(tmp_path):
    run = make_run(tmp_path / "a")
    code = (
        "import sys, mertool; mertool.compare([sys.argv[1]] * 2, times=2);"
        "heavy = {'torch', 'transformers', 'h5py', 'av', 'sklearn'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, run], check=True)


@pytest.mark.parametrize(
    ("label", "folds"), [("score", 0), ("emotion", 2), ("traits", 0)], ids=lambda x: str(x)
)
def test_trained_runs_score_as_evaluate_says(tmp_path, label, folds):
    """Evaluate scores what the models say, compare what the files keep of it."""
    features = synthetic.write(tmp_path / "f.h5", clips=40)
    runs = [tmp_path / name for name in ("one", "two")]
    said = []
    for run, rate in zip(runs, (1e-3, 1e-2), strict=True):
        mertool.train(
            features, run, plugin="concat", label=label, seeds=2, folds=folds or None,
            settings=["train.epochs=2", f"train.lr={rate}"],
        )  # fmt: skip
        said.append(mertool.evaluate(run))
    report = mertool.compare(runs, times=5)
    assert report.clips == said[0].clips
    for row, expected in zip(report.rows, said, strict=False):
        assert row.mean == pytest.approx(expected.mean, nan_ok=True)
        assert row.sd == pytest.approx(expected.std, nan_ok=True)
        assert row.seeds.keys() == expected.seeds.keys()
    singles = {row.name: row.mean for row in report.rows if row.kind == "single modality"}
    for run, expected in zip(runs, said, strict=True):
        assert set(expected.singles) == {"text", "audio"}
        for stream, values in expected.singles.items():
            assert singles[f"{run} only-{stream}"] == pytest.approx(values["mean"], nan_ok=True)
    (constant,) = [row for row in report.rows if row.kind == "constant"]
    assert constant.mean == pytest.approx(said[0].baseline, nan_ok=True)
