"""Are TMT's common and private tokens orthogonal after training?

TMT (Yin et al. 2024) trains L_dis (eq. 5) so that its common tokens H_c are orthogonal to the
private tokens H_m of each stream, and L_orth (eq. 4) so that those of two streams are. On the test
clips of

    factors    generated, three streams: a factor that all of them tell, one that each alone tells,
               and a label that is the sum of all four
    mmmo       ICT-MMMO, audio and vision, 20 steps

stands the mean |cos| between every common and every private token of a clip, and between private
tokens of different streams, before and after training, for the same initial weights. After training
means at the epoch with the best validation loss, which mertool keeps; "epochs" names it. Random
directions have sqrt(2 / (pi d)), 0.050 at d = 256. Beside it "moving" is the same of what changes
from clip to clip alone, tokens less their mean over clips: most of a token is the same in every
clip, and what tells clips apart could be parallel where whole tokens are orthogonal. Variants:

    full             the method, with MOSI's alpha and beta
    without L_dis    fusion.dis_loss=false
    no losses        fusion.alpha=0 fusion.beta=0 (Fig. 7)
    beta 1           fusion.beta=1, a hundred times the paper's: what the losses can do

Target: with the full method the mean |cos| of common and private tokens is after training below 0.1
on both sets, and below that without L_dis by more than two standard errors of their difference over
seeds. What "moving" and the last two variants tell is no target.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool.cli.common import number, table
from mertool.store import FeatureFile, Stream, Writer
from mertool.types import Clip, Label, Rows

SOURCE = "mmmo/mmmo.npz"
VARIANTS = {
    "full": (),
    "without L_dis": ("fusion.dis_loss=false",),
    "no losses": ("fusion.alpha=0", "fusion.beta=0"),
    "beta 1": ("fusion.beta=1",),
}
TRAINING = ("train.batch_size=16", "train.lr=1e-3", "train.epochs=10")  # batch, rate: the paper's
KINDS = ("common-private", "private-private")
STREAMS = ("audio", "text", "vision")
WIDTH, STEPS, LARGEST = 8, 5, 0.1


def write(path: Path, clips: int = 300, seed: int = 0) -> None:
    """Write the set `factors`; its only label is "score".

    A clip has a standard normal factor c and one, p_m, for each stream. Every step of stream m is
    c a_m + p_m b_m, with fixed unit vectors a_m and b_m, plus normal noise of 0.3; the label is
    (c + p_audio + p_text + p_vision) / 2. 60% of the clips are train, 20% valid, 20% test.
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
    directions = rng.normal(size=(len(STREAMS), 2, WIDTH))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    edges = np.linspace(0, 1, STEPS + 1)
    cells = np.stack([edges[:-1], edges[1:]], 1)
    label = Label("score", "regression", (), (-4.0, 4.0))
    with Writer(path, streams, [label], {"alignment": "none"}) as writer:
        for i in range(clips):
            c, *private = rng.normal(size=1 + len(STREAMS))
            rows = {}
            for m, p, (a, b) in zip(STREAMS, private, directions, strict=True):
                values = c * a + p * b + 0.3 * rng.normal(size=(STEPS, WIDTH))
                rows[m] = Rows(values.astype(np.float32), cells)
            split = ("train", "train", "train", "valid", "test")[i % 5]
            score = (c + sum(private)) / 2
            writer.add(Clip(f"clip{i}", split=split, labels={"score": score}, end=1.0), rows)


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="folder with mmmo/  [default: the shared data]"
    )
    parser.add_argument("--seeds", type=int, default=3, help="[default: 3]")
    common.settings_option(parser)
    args = parser.parse_args()
    source = common.source(args.data, SOURCE)
    result: dict[str, Any] = {
        "settings": [*TRAINING, *args.settings], "seeds": args.seeds, "random": {}, "sets": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        root = Path(temporary)
        write(root / "factors.h5")
        common.mertool("data", "import", "npz", source, "-o", root / "mmmo.h5")
        for name, streams in (("factors", STREAMS), ("mmmo", ("audio", "vision"))):
            result["sets"][name] = {
                variant: measure(root / f"{name}.h5", variant, streams, args, result)
                for variant in VARIANTS
            }
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def measure(
    features: Path,
    variant: str,
    streams: tuple[str, ...],
    args: argparse.Namespace,
    result: dict[str, Any],
) -> dict[str, Any]:
    """Train one variant; |cos| of its tokens on test, of every seed, before and after."""
    import torch

    from mertool.evaluate.opening import open_data
    from mertool.splits import of_split
    from mertool.train.checkpoint import load
    from mertool.train.folder import models
    from mertool.train.loop import seed_everything

    common.say(f"{features.stem}: {variant}")
    run = features.with_suffix("") / variant.replace(" ", "-")
    run.parent.mkdir(exist_ok=True)
    settings = [p for s in (*TRAINING, *VARIANTS[variant], *args.settings) for p in ("--set", s)]
    trained = common.mertool(
        "train", "--plugin", "tmt", features, "-o", run, "--modalities", ",".join(streams),
        "--no-singles", "--seeds", args.seeds, *settings,
    )  # fmt: skip
    found: dict[str, Any] = {
        "train_seconds": trained.wall,
        "epoch": [best["epoch"] for best in trained.report["models"].values()],
        "mae": [], "mean": [],
        "before": {kind: [] for kind in KINDS}, "after": {kind: [] for kind in KINDS},
        "moving": {kind: [] for kind in KINDS},
    }  # fmt: skip
    cpu = torch.device("cpu")
    with FeatureFile(features) as file:
        for each in models(run):
            made = load(each.path, cpu)
            wanted = of_split(file.split("default"), "test", features)
            clips = open_data(file, made, wanted, labelled=True, split="test")
            batch = clips.batch(torch.arange(len(clips)), cpu)
            batch.y = None
            seed_everything(made.seed)  # as training begins
            fresh = type(made.model)(made.config, made.spec).eval()
            result["random"][str(made.config.d_model)] = by_chance(made.config.d_model)
            with torch.no_grad():
                for when, model in (("before", fresh), ("after", made.model.eval())):
                    H = model.encoder(*model.project(batch))
                    c, s = H.c.double().numpy(), H.s.double().numpy()
                    for kind, value in cosines(c, s, len(streams)).items():
                        found[when][kind].append(value)
                c, s = c - c.mean(0), s - s.mean(0)
                for kind, value in cosines(c, s, len(streams)).items():
                    found["moving"][kind].append(value)
                error = (made.model(batch).pred - clips.y).abs().mean()
            found["mae"].append(float(error))
            found["mean"].append(float((made.baseline[0] - clips.y).abs().mean()))
    return found


def by_chance(d: int) -> float:
    """Mean |cos| of random directions; d large."""
    return math.sqrt(2 / (math.pi * d))


def cosines(c: np.ndarray, s: np.ndarray, streams: int) -> dict[str, float]:
    """Mean |cos| of common tokens (B, n, d) with private ones (B, n_s, d), and of the latter.

    Those of one stream are not compared with each other; clips have all streams.
    """
    c, s = (z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12) for z in (c, s))
    owner = np.arange(s.shape[1]) // (s.shape[1] // streams)
    between = owner[:, None] != owner
    return {
        "common-private": float(np.abs(c @ s.transpose(0, 2, 1)).mean()),
        "private-private": float(np.abs(s @ s.transpose(0, 2, 1))[:, between].mean()),
    }


def gap(made: dict[str, Any]) -> tuple[float, float]:
    """By how much |cos| is larger without L_dis: mean over seeds, and its standard error."""
    less, full = (np.array(made[v]["after"]["common-private"]) for v in ("without L_dis", "full"))
    error = (less - full).std(ddof=1) / math.sqrt(len(full)) if len(full) > 1 else math.inf
    return float((less - full).mean()), float(error)


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    for name, made in result["sets"].items():
        after = float(np.mean(made["full"]["after"]["common-private"]))
        if not after < LARGEST:
            found.append(f"{name}: mean |cos| {after:.4f} after training, not below {LARGEST:g}")
        more, error = gap(made)
        if not more > 2 * error:
            found.append(
                f"{name}: without L_dis the mean |cos| is larger by {more:.4f}, "
                f"standard error {error:.4f}"
            )
    return found


def lines(result: dict[str, Any]) -> list[str]:
    text = []
    for name, made in result["sets"].items():
        rows = [
            [variant, *(pm(each[when][kind]) for kind in KINDS
                        for when in ("before", "after", "moving")),
             pm(each["mae"]), number(float(np.mean(each["mean"]))),
             ", ".join(map(str, each["epoch"])), f"{each['train_seconds']:.0f}"]
            for variant, each in made.items()
        ]  # fmt: skip
        header = [f"{name}: |cos| on test"]
        header += [f"{kind}, {when}" for kind in KINDS for when in ("before", "after", "moving")]
        text += [table([*header, "mae", "training mean's", "epochs", "train s"], rows), ""]
    chance = ", ".join(f"{value:.4f} at d = {d}" for d, value in result["random"].items())
    return [*text, f"random directions: {chance}", ""]


def pm(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    spread = f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def key_figure(result: dict[str, Any]) -> str:
    parts = []
    for name, made in result["sets"].items():
        full, less = (made[v] for v in ("full", "without L_dis"))
        before, after, other = (
            float(np.mean(each[when]["common-private"]))
            for each, when in ((full, "before"), (full, "after"), (less, "after"))
        )
        parts.append(f"{name} {before:.3f} before, {after:.3f} after, {other:.3f} without L_dis")
    return f"mean |cos| of common and private tokens: {'; '.join(parts)}"


if __name__ == "__main__":
    common.main(main)
