"""Do TDMER's fusion weights say how probable each feature makes the true class?

TDMER (Xu et al. 2025) weighs the common feature C and the private feature P of each stream with
omega. It is trained (L_q, eq. 11) to be the true-class probability, TCP, that a classifier of that
feature (L_p, eq. 10) gives, which nobody knows of a new clip. Both are compared on validation
clips, on

    meld        MELD dev, text and audio, 7 emotions: five folds, no dialogue in two splits
    synthetic   generated, three streams, 4 classes: in each clip one stream, drawn at random,
                tells the class and the others are noise; nothing but their values tells which

by rank correlation (Spearman) and Pearson's over the clips of a model; by their calibration error
(clips in ten equal ranges of omega: mean |mean omega - mean TCP|), beside that of a constant, the
mean TCP; and by the mean of omega - TCP. Beside omega stands the largest class probability of the
same classifier, which needs no training of its own. Variants:

    full               the method, with delta (the weight of L_p and L_q) at its default
    delta 1            the same with delta = 1: the paper does not give it
    detached           omega learns from L_q alone, not from the prediction (fusion.detach_omega)
    without L_q        omega learns from the prediction alone
    without L_f        neither omega nor the classifiers learn from the label: TCP is that of
                       classifiers that know nothing
    alone              private features do not attend to each other (fusion.private_cml=false)

In `synthetic` there is also omega of the private feature of the stream that tells the class, less
that of the others, and how often it is the largest of the three (chance: 1/3). Cross-modal
attention carries what one stream tells into the private features of the others: `alone` shows the
same without it.

Target: with the full method the rank correlation is above 0 by more than two standard errors over
models for every feature of both sets, and its mean over features is above that without L_q; on the
synthetic set omega of the stream that tells is above that of the others by as much.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool.cli.common import number, table
from mertool.store import FeatureFile, Stream, Writer
from mertool.types import Clip, Label, Rows

SOURCE = "meld/meld_val.npz"
VARIANTS = {
    "full": (),
    "delta 1": ("fusion.delta=1",),
    "detached": ("fusion.detach_omega=true",),
    "without L_q": ("fusion.q=false",),
    "without L_f": ("fusion.delta=0",),
    "alone": ("fusion.private_cml=false",),
}
STREAMS = ("audio", "text", "vision")
CLASSES = ("a", "b", "c", "d")
WIDTH, STEPS, STRENGTH = 6, 4, 0.8
FOLDS = 5


def write(path: Path, clips: int = 720, seed: int = 0) -> dict[str, str]:
    """Write the synthetic set; its only label is "class".

    Every step of the stream that tells is the class's direction in it (of length `STRENGTH` times
    the square root of the columns) plus standard normal noise; of the others it is noise alone.

    Args:
        path: The file to write.
        clips: N; a multiple of 36 balances classes and streams in both splits.
        seed: Of all that is drawn.

    Returns:
        {clip: the stream that tells}. A third of the clips is valid.
    """
    rng = np.random.default_rng(seed)
    streams = {
        m: Stream(
            tuple(f"{m[0]}{i}" for i in range(WIDTH)),
            {"extractor": "synthetic", "config": "{}"},
            False,
        )
        for m in STREAMS
    }
    directions = rng.normal(size=(len(STREAMS), len(CLASSES), WIDTH))
    directions *= STRENGTH * WIDTH**0.5 / np.linalg.norm(directions, axis=2, keepdims=True)
    edges = np.linspace(0, 1, STEPS + 1)
    cells = np.stack([edges[:-1], edges[1:]], 1)
    label = Label("class", "classification", CLASSES)
    tells = {}
    with Writer(path, streams, [label], {"alignment": "none"}) as writer:
        for i in rng.permutation(clips):
            kind, split = i % 12, "valid" if i // 12 % 3 == 2 else "train"
            which, true = kind % 3, kind // 3
            rows = {}
            for k, m in enumerate(STREAMS):
                values = rng.normal(size=(STEPS, WIDTH)) + (k == which) * directions[k, true]
                rows[m] = Rows(values.astype(np.float32), cells)
            tells[f"clip{i}"] = STREAMS[which]
            labels = {"class": true}
            writer.add(Clip(f"clip{i}", split=split, labels=labels, end=1.0), rows)
    return tells


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="folder with meld/  [default: the shared data]"
    )
    parser.add_argument("--seeds", type=int, default=3, help="[default: 3; of each fold: 1]")
    common.settings_option(parser)
    args = parser.parse_args()
    source = common.source(args.data, SOURCE)
    result: dict[str, Any] = {"seeds": args.seeds, "settings": args.settings, "sets": {}}
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        root = Path(temporary)
        common.mertool("data", "import", "npz", source, "-o", root / "meld.h5")
        common.mertool("data", "split", root / "meld.h5", "--by", "speaker", "--folds", FOLDS)
        tells = write(root / "synthetic.h5")
        for name, options, informs in (
            ("meld", ("--label", "emotion", "--folds", FOLDS, "--seeds", 1), {}),
            ("synthetic", ("--seeds", args.seeds), tells),
        ):
            result["sets"][name] = {
                variant: measure(root / f"{name}.h5", variant, options, informs, args)
                for variant in VARIANTS
            }
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def measure(
    features: Path,
    variant: str,
    options: Sequence[Any],
    tells: Mapping[str, str],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Train one variant and compare omega with TCP on the valid clips of each of its models."""
    import torch

    from mertool.evaluate.opening import open_data
    from mertool.splits import of_split
    from mertool.train.checkpoint import load
    from mertool.train.folder import models

    common.say(f"{features.stem}: {variant}")
    run = features.with_suffix("") / variant.replace(" ", "-")
    run.parent.mkdir(exist_ok=True)
    settings = [p for s in (*VARIANTS[variant], *args.settings) for p in ("--set", s)]
    trained = common.mertool(
        "train", "--plugin", "tdmer", features, "-o", run, "--no-singles", *options, *settings
    )
    made: dict[str, Any] = {
        "train_seconds": trained.wall, "clips": 0, "accuracy": [], "features": {}, "tells": [],
    }  # fmt: skip
    cpu = torch.device("cpu")
    with FeatureFile(features) as file:
        for each in models(run):
            model = load(each.path, cpu)
            wanted = of_split(file.split(each.fold or "default"), "valid", features)
            clips = open_data(file, model, wanted, labelled=True, split="valid")
            batch = clips.batch(torch.arange(len(clips)), cpu, record=True)
            batch.y = None
            with torch.no_grad():
                output = model.model(batch)
            y = clips.y.numpy()
            weights = {k: w.numpy() for k, w in output.weights.items()}
            made["clips"] += len(clips)
            made["accuracy"].append(float((output.pred.argmax(1).numpy() == y).mean()))
            names = ["C", *(f"P_{m}" for m in sorted(model.spec.streams))]
            for k, name in enumerate(names):
                found = compare(weights["omega"][:, k], weights[f"z_{name}"], y)
                kept = made["features"].setdefault(name, {})
                for key, value in found.items():
                    kept.setdefault(key, []).append(value)
            if tells:
                which = [sorted(model.spec.streams).index(tells[i]) for i in clips.ids]
                made["tells"].append(preference(weights["omega"][:, 1:], np.array(which)))
    return made


def compare(omega: np.ndarray, z: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How omega (N,) relates to the probabilities z (N, K) of the true classes y (N,)."""
    tcp = z[np.arange(len(y)), y]
    return {
        "spearman": spearman(omega, tcp),
        "pearson": correlation(omega, tcp),
        "spearman_of_largest": spearman(z.max(axis=1), tcp),
        "calibration": calibration(omega, tcp),
        "bias": float((omega - tcp).mean()),
        "error": float(np.abs(omega - tcp).mean()),
        "error_of_constant": float(np.abs(tcp - tcp.mean()).mean()),
        "tcp": float(tcp.mean()),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one of them is constant."""
    return 0.0 if min(a.std(), b.std()) < 1e-9 else float(np.corrcoef(a, b)[0, 1])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; 0 where one of them is constant."""
    from scipy.stats import rankdata

    return correlation(rankdata(a), rankdata(b))


def calibration(omega: np.ndarray, tcp: np.ndarray, ranges: int = 10) -> float:
    """Mean over clips of |mean omega - mean TCP| in each clip's tenth of 0 to 1."""
    place = np.minimum((omega * ranges).astype(int), ranges - 1)
    gap = sum(abs((omega - tcp)[place == k].sum()) for k in range(ranges))
    return float(gap / len(omega))


def preference(omega: np.ndarray, which: np.ndarray) -> dict[str, float]:
    """Omega (N, M) of the stream that tells, which (N,), against that of the others."""
    told = np.eye(omega.shape[1], dtype=bool)[which]
    return {
        "gap": float(omega[told].mean() - omega[~told].mean()),
        "largest": float((omega.argmax(axis=1) == which).mean()),
    }


def error(values: Sequence[float]) -> float:
    """Standard error of a mean; infinite for one value."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")


def overall(made: dict[str, Any], key: str = "spearman") -> float:
    """A measure's mean over features and models."""
    return float(np.mean([f[key] for f in made["features"].values()]))


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    for name, variants in result["sets"].items():
        full = variants["full"]
        above = {f: each["spearman"] for f, each in full["features"].items()}
        above = {f"rank correlation of {f}": values for f, values in above.items()}
        if full["tells"]:
            above["omega of the stream that tells"] = [t["gap"] for t in full["tells"]]
        found += [
            f"{name}, {what}: {np.mean(values):+.3f}, standard error {error(values):.3f}"
            for what, values in above.items()
            if not np.mean(values) > 2 * error(values)
        ]
        with_q, without = overall(full), overall(variants["without L_q"])
        if not with_q > without:
            found.append(f"{name}: mean rank correlation {with_q:.3f}, without L_q {without:.3f}")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    keys = ("spearman", "pearson", "spearman_of_largest", "calibration", "error",
            "error_of_constant", "bias", "tcp")  # fmt: skip
    header = ["variant", "feature", "Spearman", "Pearson", "Spearman of largest z", "calibration",
              "mean |omega - TCP|", "of a constant", "mean omega - TCP", "mean TCP"]  # fmt: skip
    text = []
    for name, variants in result["sets"].items():
        first = variants["full"]
        text += [f"{name}: {len(first['accuracy'])} models, {first['clips']} validation clips"]
        rows = []
        for variant, made in variants.items():
            for feature, each in made["features"].items():
                cells = [spread(each["spearman"]), *(number(np.mean(each[k])) for k in keys[1:])]
                rows.append([variant, feature, *cells])
        text += [table(header, rows), ""]
        for variant, made in variants.items():
            told = f"{variant}: accuracy on valid {spread(made['accuracy'])}"
            if made["tells"]:
                gaps, largest = ([t[k] for t in made["tells"]] for k in ("gap", "largest"))
                told += (
                    f"; omega of the stream that tells less that of the others {spread(gaps)}, "
                    f"the largest in {np.mean(largest):.1%}"
                )
            text.append(told)
        text.append("")
    return text


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def key_figure(result: dict[str, Any]) -> str:
    told = [
        f"{name} {overall(v['full']):.3f} (delta 1 {overall(v['delta 1']):.3f}, detached "
        f"{overall(v['detached']):.3f}, without L_q {overall(v['without L_q']):.3f}, largest class "
        f"probability {overall(v['full'], 'spearman_of_largest'):.3f})"
        for name, v in result["sets"].items()
    ]
    return f"rank correlation of omega and TCP, mean over features: {'; '.join(told)}"


if __name__ == "__main__":
    common.main(main)
