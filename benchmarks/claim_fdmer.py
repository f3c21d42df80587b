"""Does FDMER's discriminator fail on common and succeed on private features? What do they hold?

FDMER (Yang et al. 2022) makes of each stream m a common vector C_m, from which its discriminator
shall not tell the stream (Fig. 4a: probabilities near 1/3), and a private vector P_m, from which it
shall. The data are generated with known factors: each clip has shared ones, which all three streams
mix, and private ones for each stream, which it alone mixes; the label is half of each kind. On test
clips, for each variant:

    D            the true stream's probability in the model's own discriminator, and its accuracy
    probe        accuracy of a new linear classifier of the stream, learnt on the training clips'
                 vectors: a discriminator that nobody was trained against
    R2           of a ridge regression from the vector to the shared factors, to the stream's own
                 private ones and, of each kind, to what the label needs; learnt on training clips.
                 Z_m is the vector before the two encoders, "input" the mean of the rows
    share        of the vector's variance that goes linearly with the shared factors, and with the
                 stream's own private ones. R2 does not see it: a factor may be told exactly by
                 a direction in which the vectors hardly differ

    full         the method
    joint        adversarial_reach=all: the adversarial losses teach the Transformers, too
    no losses    beta=0 gamma=0 (Fig. 2): D itself learns nothing, only the probe tells

Target: with the full method D's mean probability of the true stream lies within 0.1 of 1/3 on
common and above 0.9 on private vectors, and the shared factors' R2 from common vectors exceeds the
private factors' R2 from them. All else is shown and no target.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool.cli.common import table
from mertool.store import FeatureFile, Stream, Writer
from mertool.types import Clip, Label, Rows

WIDTHS = {"audio": 12, "text": 16, "vision": 10}
SHARED, PRIVATE, STEPS = 4, 4, 5  # factors of all streams, factors of each, rows of a clip
VARIANTS = {
    "full": (),
    "joint": ("fusion.adversarial_reach=all",),
    "no losses": ("fusion.beta=0", "fusion.gamma=0"),
}
SETTINGS = (
    *(f"fusion.layers_{m}=1" for m in WIDTHS), "train.epochs=30", "train.patience=0",
)  # fmt: skip
VECTORS = ("input", "Z", "C", "P")
NEAR, SURE = 0.1, 0.9


def write(path: Path, clips: int = 1000, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Write the file; its only label is "score".

    All factors are standard normal and the same at every step of a clip. A row of stream m is
    A_m [shared; private_m] plus standard normal noise of 0.5; A_m has random normal entries, scaled
    so that the mixture has unit variance. The label is (w s + mean over m of w_m p_m) / sqrt(2)
    with unit vectors w, scaled to unit variance. 60% of the clips are train, 10% valid, 30% test.

    Returns:
        {clip id: {"shared": (SHARED,), stream: (PRIVATE,), "label shared": (1,),
        "label STREAM": (1,)}}.
    """
    rng = np.random.default_rng(seed)
    streams = {
        m: Stream(
            tuple(f"{m[0]}{i}" for i in range(D)),
            {"extractor": "synthetic", "config": "{}"},
            False,
        )
        for m, D in WIDTHS.items()
    }
    mix = {
        m: rng.normal(size=(D, SHARED + PRIVATE)) / np.sqrt(SHARED + PRIVATE)
        for m, D in WIDTHS.items()
    }
    needs = {name: rng.normal(size=SHARED if name == "shared" else PRIVATE)
             for name in ("shared", *WIDTHS)}  # fmt: skip
    needs = {name: w / np.linalg.norm(w) for name, w in needs.items()}
    edges = np.linspace(0, 1, STEPS + 1)
    cells = np.stack([edges[:-1], edges[1:]], 1)
    factors: dict[str, dict[str, np.ndarray]] = {}
    splits = ("train",) * 6 + ("valid",) + ("test",) * 3
    with Writer(path, streams, [Label("score", "regression", (), (-4.0, 4.0))], {}) as writer:
        for i in range(clips):
            held = {name: rng.normal(size=len(w)) for name, w in needs.items()}
            told = {f"label {name}": held[name] @ needs[name][:, None] for name in needs}
            factors[f"clip{i}"] = held | told
            rows = {}
            for m, A in mix.items():
                values = A @ np.concatenate([held["shared"], held[m]])
                values = values + 0.5 * rng.normal(size=(STEPS, WIDTHS[m]))
                rows[m] = Rows(values.astype(np.float32), cells)
            own = sum(told[f"label {m}"][0] for m in WIDTHS) / np.sqrt(len(WIDTHS))
            score = float((told["label shared"][0] + own) / np.sqrt(2))
            writer.add(Clip(f"clip{i}", split=splits[i % 10], labels={"score": score}, end=1), rows)
    return factors


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", type=Path, help="not used: data are generated")
    parser.add_argument("--seeds", type=int, default=2, help="[default: 2]")
    parser.add_argument("--clips", type=int, default=1000, help="[default: 1000]")
    common.settings_option(parser)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "settings": [*SETTINGS, *args.settings], "seeds": args.seeds, "clips": args.clips,
        "variants": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        features = Path(temporary) / "x.h5"
        factors = write(features, args.clips)
        for variant in VARIANTS:
            result["variants"][variant] = measure(features, variant, factors, args)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def measure(
    features: Path,
    variant: str,
    factors: dict[str, dict[str, np.ndarray]],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Train one variant and judge its vectors, {figure: [of each seed]}."""
    from mertool.train.folder import models

    common.say(variant)
    run = features.with_name(variant.replace(" ", "-"))
    settings = [p for s in (*SETTINGS, *VARIANTS[variant], *args.settings) for p in ("--set", s)]
    trained = common.mertool(
        "train", "--plugin", "fdmer", features, "-o", run, "--no-singles", "--seeds", args.seeds,
        *settings,
    )  # fmt: skip
    made: dict[str, Any] = {"train_seconds": trained.wall, "figures": {}}
    for each in models(run):
        parts = {split: vectors(features, each.path, split) for split in ("train", "test")}
        for name, value in judge(parts, factors).items():
            made["figures"].setdefault(name, []).append(value)
    return made


def vectors(features: Path, model: Path, split: str) -> dict[str, Any]:
    """What a model makes of the clips of a split.

    Returns:
        "ids", "y" and "pred" (N,), "C", "P" and others {stream: (N, d)}, "D.C" and "D.P"
        {stream: (N, streams)}.
    """
    import torch

    from mertool.evaluate.opening import open_data
    from mertool.splits import of_split
    from mertool.train.checkpoint import load

    cpu = torch.device("cpu")
    made = load(model, cpu)
    with FeatureFile(features) as file:
        wanted = of_split(file.split("default"), split, features)
        clips = open_data(file, made, wanted, labelled=True, split=split)
    batch = clips.batch(torch.arange(len(clips)), cpu, record=True)
    y, batch.y = batch.y, None
    with torch.no_grad():
        out = made.model.eval()(batch)
    found: dict[str, Any] = {
        "ids": clips.ids, "y": y[:, 0].numpy(), "pred": out.pred[:, 0].numpy(),
        "input": {m: batch.x[m].mean(dim=1).numpy() for m in WIDTHS},
    }  # fmt: skip
    for name in ("Z", "C", "P"):
        found[name] = {m: out.features[f"{name}_{m}"].numpy() for m in WIDTHS}
    for name in ("D.C", "D.P"):
        found[name] = {m: out.weights[f"{name}_{m}"].numpy() for m in WIDTHS}
    return found


def judge(
    parts: dict[str, dict[str, Any]], factors: dict[str, dict[str, np.ndarray]]
) -> dict[str, float]:
    """The figures of one model; see the top of this file."""
    train, test = parts["train"], parts["test"]
    figures = {"mae": float(np.abs(test["pred"] - test["y"]).mean()),
               "mean's mae": float(np.abs(test["y"] - train["y"].mean()).mean())}  # fmt: skip
    for name in ("C", "P"):
        D = [test[f"D.{name}"][m] for m in sorted(WIDTHS)]  # its columns are sorted streams
        figures[f"D {name}"] = float(np.mean([p[:, k].mean() for k, p in enumerate(D)]))
        right = [(p.argmax(axis=1) == k).mean() for k, p in enumerate(D)]
        figures[f"D accuracy {name}"] = float(np.mean(right))
        figures[f"probe {name}"] = probe(train[name], test[name])
    for name in VECTORS:
        for kind in ("", "label "):
            for what in ("shared", "private"):
                scores = [
                    recovered(
                        (train[name][m], targets(train["ids"], factors, kind, what, m)),
                        (test[name][m], targets(test["ids"], factors, kind, what, m)),
                    )
                    for m in WIDTHS
                ]
                figures[f"R2 {name} {kind}{what}"] = float(np.mean(scores))
        for what in ("shared", "private"):
            parts_of = [share(test, factors, name, what, m) for m in WIDTHS]
            figures[f"share {name} {what}"] = float(np.mean(parts_of))
    return figures


def targets(
    ids: list[str], factors: dict[str, dict[str, np.ndarray]], kind: str, what: str, stream: str
) -> np.ndarray:
    """(N, factors): the shared factors, or a stream's private ones; those of the label or all."""
    name = kind + ("shared" if what == "shared" else stream)
    return np.stack([factors[clip][name] for clip in ids])


def probe(train: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> float:
    """Accuracy on test of a linear classifier of the stream."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = np.concatenate(list(train.values())), np.repeat(list(train), len(train["text"]))
    made = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(X, y)
    return float(
        made.score(np.concatenate(list(test.values())), np.repeat(list(test), len(test["text"])))
    )


def recovered(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean R^2 on test of ridge regressions; their strength is chosen on the training clips."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
    return float(made.fit(*train).score(*test))


def share(
    part: dict[str, Any], factors: dict[str, dict[str, np.ndarray]], name: str, what: str, m: str
) -> float:
    """Share of the variance of a stream's vectors that goes linearly with one kind of factor."""
    both = {w: targets(part["ids"], factors, "", w, m) for w in ("shared", "private")}
    F, V = np.concatenate(list(both.values()), axis=1), part[name][m].astype(float)
    F, V = F - F.mean(axis=0), V - V.mean(axis=0)
    B = np.linalg.lstsq(F, V, rcond=None)[0]
    mine = slice(0, SHARED) if what == "shared" else slice(SHARED, None)
    return float(np.square(F[:, mine] @ B[mine]).sum() / np.square(V).sum())


def mean(result: dict[str, Any], variant: str, figure: str) -> float:
    """Of a figure, over seeds."""
    return float(np.mean(result["variants"][variant]["figures"][figure]))


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    chance = 1 / len(WIDTHS)
    C, P = (mean(result, "full", f"D {name}") for name in "CP")
    if not abs(C - chance) <= NEAR:
        found.append(f"D gives the true stream {C:.3f} on common vectors, not {chance:.3f}")
    if not P > SURE:
        found.append(f"D gives the true stream {P:.3f} on private vectors, not above {SURE:g}")
    shared, private = (mean(result, "full", f"R2 C {what}") for what in ("shared", "private"))
    if not shared > private:
        found.append(
            f"common vectors tell {shared:.3f} of the shared factors, {private:.3f} of the private"
        )
    return found


def lines(result: dict[str, Any]) -> list[str]:
    columns = [f"{kind} {name}" for name in "CP" for kind in ("D", "D accuracy", "probe")]
    rows = [
        [variant, *(pm(made["figures"][c]) for c in (*columns, "mae", "mean's mae")),
         f"{made['train_seconds']:.0f}"]
        for variant, made in result["variants"].items()
    ]  # fmt: skip
    text = [table(["which stream? (test)", *columns, "mae", "mean's mae", "train s"], rows), ""]
    kinds = ("shared", "private", "label shared", "label private")
    shares = [f"share {kind}" for kind in kinds[:2]]
    rows = [
        [
            variant,
            name,
            *(pm(made["figures"][f"R2 {name} {kind}"]) for kind in kinds),
            *(pm(made["figures"][f"share {name} {kind}"]) for kind in kinds[:2]),
        ]
        for variant, made in result["variants"].items()
        for name in VECTORS
    ]
    return [*text, table(["R2 on test", "from", *kinds, *shares], rows), ""]


def pm(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def key_figure(result: dict[str, Any]) -> str:
    D = ", ".join(f"{mean(result, 'full', f'D {n}'):.3f} on {w}" for n, w in NAMES.items())
    probes = ", ".join(f"{mean(result, 'full', f'probe {n}'):.3f} on {w}" for n, w in NAMES.items())
    R2 = "; ".join(
        f"{w} tell {mean(result, 'full', f'R2 {n} shared'):.3f} of the shared and "
        f"{mean(result, 'full', f'R2 {n} private'):.3f} of the private factors, which make "
        f"{mean(result, 'full', f'share {n} shared'):.3f} and "
        f"{mean(result, 'full', f'share {n} private'):.3f} of their variance"
        for n, w in NAMES.items()
    )
    return f"D gives the true stream {D} vectors (new probe right: {probes}); {R2}"


NAMES = {"C": "common", "P": "private"}

if __name__ == "__main__":
    common.main(main)
