"""The five methods on real features, beside concat, late and plain linear models: one table a set.

mmmo     audio and vision, word-aligned steps, the file's split; sentiment from 1 to 5
mosi     text, audio and vision, one vector each, the original split; sentiment from -3 to 3. Of its
         training recordings mertool holds some out as valid
meld     text and audio, one vector each, the seven emotions; five folds of whole dialogues
ravdess  speech alone, pooled to 20 segments, eight emotions; the data's split by actor

Every fusion keeps its default settings, trains at most 30 epochs and stops after 5 without a better
validation loss, with five seeds; where those would take more than 20 CPU minutes (judged by the
first), with three, and the table says so. Fusions are not trained on single streams here. Beside
each stands its difference from concat, with a paired t-test over seeds and a paired bootstrap over
clips, both after Holm.

The plain models learn from the same clips: ridge or logistic regression on the streams' means (and
standard deviations, where there are several steps), standardised on train, with the penalty that is
best on valid; for ravdess they see mertool's features. Figures as stated by those who made the data
are quoted: their splits or features can be others (meld: folds of single clips; mosi: the whole
training half; mmmo: train and valid; ravdess: eGeMAPS and an SVM).

mosi and meld have one vector a stream: attention over a single step is the identity, so nothing is
said there about how a method attends over time.

Last, each method is trained on 64 clips of mmmo and scored on the same clips, to see that it can
learn them by heart.

Target: every method reaches less than a third of the constant predictor's error on its 64 clips. To
be better than concat or a linear model is no target: the differences are printed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

import mertool
from mertool.cli.common import number, spread, table
from mertool.metrics import printed, scores
from mertool.store import FeatureFile
from mertool.types import SPLITS, Label

METHODS = ("mcr", "fdmer", "norm_tr", "tmt", "tdmer")
SYSTEMS = ("concat", "late", *METHODS)
PROTOCOL = ("train.epochs=30", "train.patience=5")
SLOW, SEEDS, FEWER = 20 * 60, 5, 3  # CPU seconds of a row, seeds, seeds of a row above that
MMMO, MOSI, MELD = "mmmo/mmmo.npz", "mosi/mosi_utterance.npz", "meld/meld_val.npz"
SETS: dict[str, dict[str, Any]] = {
    "mmmo": {
        "source": MMMO, "train": ["--modalities", "audio,vision"],
        "metrics": ["mae", "pearson"], "stated": {"ridge": [1.133, 0.353], "mean": [1.355, None]},
    },
    "mosi": {
        "source": MOSI, "train": ["--label", "label", "--splits", "original"],
        "metrics": ["mae", "pearson", "acc2_has0"],
        "stated": {"ridge": [0.948, 0.625, 0.763], "mean": [1.335, None, 0.621]},
    },
    "meld": {
        "source": MELD, "train": ["--label", "emotion", "--folds", "5"],
        "metrics": ["accuracy", "weighted_f1"],
        "stated": {"text alone, logistic": [0.641, None], "audio alone, logistic": [0.496, None],
                   "majority": [0.423, None]},
    },
    "ravdess": {
        "source": "ravdess_speech", "train": ["--label", "emotion", "--modalities", "audio"],
        "metrics": ["accuracy", "unweighted_recall"],
        "stated": {"eGeMAPS and SVM, from": [0.42, 0.41], "to": [0.46, 0.43]},
    },
}  # fmt: skip
PENALTIES = tuple(float(p) for p in 10.0 ** np.arange(-1, 6))
CLIPS, EPOCHS = 64, 200  # of the clips learnt by heart


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path,
        help="folder with mmmo/, mosi/, meld/ and ravdess_speech/  [default: the shared data]",
    )  # fmt: skip
    common.sets_option(parser, SETS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"[default: {SEEDS}]")
    parser.add_argument(
        "--work", metavar="DIR", type=Path,
        help="keep features and runs there, and go on with those that are there",
    )  # fmt: skip
    args = parser.parse_args()
    root = common.folder(args.data, "")
    for needed in {MMMO, *(SETS[name]["source"] for name in args.sets)}:
        common.source(root, needed)
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {"settings": PROTOCOL, "seeds": args.seeds, "sets": {}}
        for name in args.sets:
            result["sets"][name] = measure(name, prepare(name, root, work), work, args.seeds)
        result["by_heart"] = {plugin: learn(plugin, prepare("mmmo", root, work))
                              for plugin in METHODS}  # fmt: skip
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def prepare(name: str, root: Path, work: Path) -> Path:
    """The feature file of a set."""
    source, features = root / SETS[name]["source"], work / f"{name}.h5"
    if features.is_file():
        return features
    common.say(f"{name}: read")
    if source.is_file():
        common.mertool("data", "import", "npz", source, "-o", features)
        return features
    raw = work / f"{name}-unaligned.h5"
    common.mertool(
        "extract", source, "-o", raw, "-j", 2, "--text", "none", "--vision", "none", "--resume"
    )
    common.mertool("align", raw, "-o", features, "--to", "segments:20", "-j", 2)
    return features


def measure(name: str, features: Path, work: Path, seeds: int) -> dict[str, Any]:
    """Every system on one set, and the plain models on the same clips."""
    about, runs = SETS[name], {plugin: work / f"{name}-{plugin}" for plugin in SYSTEMS}
    result: dict[str, Any] = {"metrics": about["metrics"], "stated": about["stated"], "rows": {}}
    for plugin, run in runs.items():
        common.say(f"{name}: {plugin}")
        command = ["train", "--plugin", plugin, features, "-o", run, "--resume", "--no-singles"]
        command += [*about["train"], *(p for s in PROTOCOL for p in ("--set", s))]
        enough = seeds
        if len({p.name for p in run.rglob("seed-*")}) < seeds:
            cpu = common.mertool(*command, "--seeds", 1).cpu
            # Of a first seed that an earlier call trained, the time of its epochs.
            one = max(cpu, sum(common.seconds(p) for p in run.rglob("seed-1111")))
            enough = seeds if one * seeds <= SLOW else min(seeds, FEWER)
        ran = common.mertool(*command, "--seeds", enough)
        scored = common.mertool("evaluate", run).report
        epochs = [best["epoch"] for best in ran.report["models"].values()]
        result["rows"][plugin] = {
            **{k: scored[k] for k in ("mean", "std", "n_seeds")},
            "parameters": ran.report["parameters"], "best_epoch": float(np.mean(epochs)),
            "train_seconds": common.seconds(run),
        }  # fmt: skip
        result |= {"clips": {**ran.report["clips"], "test": scored["clips"]},
                   "constant": scored["baseline"], "notes": scored["notes"]}  # fmt: skip
    compared = common.mertool("compare", *runs.values()).report
    for one in compared["differences"]:
        one |= {k: Path(one[k]).name.removeprefix(f"{name}-") for k in ("system", "reference")}
        result["rows"][one["system"]].setdefault("against_concat", {})[one["metric"]] = one
    common.say(f"{name}: plain models")
    with mertool.open(features) as file:
        result["plain"] = plain(file, runs["concat"])
    return result


def plain(file: FeatureFile, run: Path) -> dict[str, dict[str, Any]]:
    """{streams: scores on test} of linear models on what a run learnt from; all folds pooled."""
    from mertool.train.folder import read_config, read_splits

    used, divided, found = read_config(run)["run"], read_splits(run), {}
    label, streams = file.labels[used["label"]], used["modalities"]
    y = file.label(label.name)
    for names in [[m] for m in streams] + ([streams] if len(streams) > 1 else []):
        x = np.hstack([pooled(file, m) for m in names])
        fitted = [linear(label, x, y, [places.get(i, "") for i in file.ids])
                  for places in divided.values()]  # fmt: skip
        pred, known = (np.concatenate([f[k] for f in fitted]) for k in (0, 1))
        made = scores(label, known, pred).values
        found[" + ".join(names)] = {"mean": made, "penalty": [f[2] for f in fitted]}
    return found


def linear(
    label: Label, x: np.ndarray, y: np.ndarray, split: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit on train, choose the penalty on valid.

    Args:
        label: What is predicted: a number or a class.
        x: (N, D).
        y: (N,).
        split: (N,).

    Returns:
        What it says of the test clips (M, K), their labels in the shape of `scores`, the penalty.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    train, valid, test = (np.array(split) == s for s in SPLITS)
    x, best, chosen = StandardScaler().fit(x[train]).transform(x), np.inf, None
    for penalty in PENALTIES:
        if label.task == "regression":
            model = Ridge(penalty).fit(x[train], y[train])
            error = np.abs(model.predict(x[valid]) - y[valid]).mean()
        else:
            model = LogisticRegression(C=1 / penalty, max_iter=2000).fit(x[train], y[train])
            error = 1 - model.score(x[valid], y[valid])
        if error < best:
            best, chosen = error, (model, penalty)
    said = chosen[0].predict(x[test])
    if label.task == "regression":
        return said[:, None], y[test][:, None], chosen[1]
    return np.eye(len(label.classes))[said], y[test], chosen[1]


def pooled(file: FeatureFile, stream: str) -> np.ndarray:
    """(N, D) mean of a stream's rows, or with their standard deviation (N, 2 D) if several."""
    values, offsets = file.values(stream)
    rows = [values[a:b].astype(np.float64) for a, b in zip(offsets, offsets[1:], strict=False)]
    parts = [np.array([r.mean(axis=0) for r in rows])]
    if max(len(r) for r in rows) > 1:
        parts.append(np.array([r.std(axis=0) for r in rows]))
    return np.hstack(parts)


def learn(plugin: str, features: Path) -> dict[str, float]:
    """Errors of a method on the clips that it learnt: no score, only whether it can learn."""
    import torch

    from mertool.config import settings_of
    from mertool.data import DataConfig, Dataset, Normaliser, make_spec
    from mertool.registry import registry
    from mertool.train.loop import TrainConfig, Trainer, predict_all, seed_everything

    common.say(f"{plugin}: {CLIPS} clips by heart")
    entry, fusion = registry().get("fusion", plugin), registry().load("fusion", plugin)
    with mertool.open(features) as file:
        label, streams = file.labels["label"], ("audio", "vision")
        first = np.flatnonzero(np.array(file.split()) == "train")[:CLIPS]
        wanted = np.isin(np.arange(len(file)), first)
        parts = [Dataset(file, label, streams, wanted, DataConfig(), s) for s in ("train", "valid")]
        normaliser = Normaliser.fit(parts[0])
        for part in parts:
            part.normalise(normaliser)
        spec = make_spec(file, label, parts[0])
    seed_everything(SEEDS)
    model = fusion(settings_of(fusion, plugin)(), spec)
    config = TrainConfig(epochs=EPOCHS, batch_size=16, patience=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, spec, entry.facts, config, *parts, torch.device("cpu"))
        best = trainer.fit(SEEDS, Path(folder) / "log.jsonl")
    pred = predict_all(model, parts[0], entry.facts, spec, torch.device("cpu"))
    y = parts[0].y
    return {
        "mae": float((pred - y).abs().mean()), "constant": float((y - y.mean()).abs().mean()),
        "epoch": best["epoch"],
    }  # fmt: skip


def misses(result: dict[str, Any]) -> list[str]:
    return [
        f"{plugin}: mae {made['mae']:.4f} on the {CLIPS} clips it learnt, "
        f"a constant {made['constant']:.4f}"
        for plugin, made in result["by_heart"].items()
        if not made["mae"] < made["constant"] / 3
    ]


def lines(result: dict[str, Any]) -> list[str]:
    text: list[str] = []
    for name, made in result["sets"].items():
        metrics = made["metrics"]
        shown = [printed(m, "mertool") for m in metrics]
        clips = ", ".join(f"{n} {split}" for split, n in made["clips"].items())
        rows = [[plugin, row["n_seeds"], f"{row['parameters']:,}",
                 *(spread(row, m) for m in metrics), gap(row, metrics[0])]
                for plugin, row in made["rows"].items()]  # fmt: skip
        blank = ["-"] * 2
        for streams, row in made["plain"].items():
            told = [number(row["mean"][m]) for m in metrics]
            rows.append([f"linear, {streams}", *blank, *told, ""])
        rows.append(["constant", *blank, *(number(made["constant"][m]) for m in metrics), ""])
        for who, values in made["stated"].items():
            rows.append([f"stated: {who}", *blank, *(number(v) for v in values), ""])
        header = ["test, mean +- sd over seeds", "seeds", "parameters", *shown,
                  f"{shown[0]} less concat's: p of t, of bootstrap (Holm)"]  # fmt: skip
        text += [f"{name}: {clips}", table(header, rows)]
        few = [p for p, row in made["rows"].items() if row["n_seeds"] < result["seeds"]]
        if few:
            why = f"as {result['seeds']} take over 20 CPU minutes"
            text.append(f"{FEWER} seeds only, {why}: {', '.join(few)}")
        if name in ("mosi", "meld"):
            text.append("One step a stream: attention over time is the identity.")
        text += [*(f"Note: {note}" for note in made["notes"]), ""]
    rows = [[plugin, number(m["mae"]), number(m["constant"]), m["epoch"]]
            for plugin, m in result["by_heart"].items()]  # fmt: skip
    header = [f"{CLIPS} clips of mmmo, learnt", "mae on them", "constant", "best epoch"]
    return [*text, table(header, rows), ""]


def gap(row: dict[str, Any], metric: str) -> str:
    """How far a system is from concat; empty for concat itself."""
    one = row.get("against_concat", {}).get(metric)
    if one is None:
        return ""
    p = ", ".join(number(one[k]) for k in ("t_holm", "bootstrap_holm"))
    return f"{one['difference']:+.4f}: {p}"


def key_figure(result: dict[str, Any]) -> str:
    parts = []
    for name, made in result["sets"].items():
        metric = made["metrics"][0]
        each = ", ".join(f"{p} {number(row['mean'][metric])}" for p, row in made["rows"].items())
        parts.append(f"{name} {printed(metric, 'mertool')}: {each}")
    return "; ".join(parts)


if __name__ == "__main__":
    common.main(main)
