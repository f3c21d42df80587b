"""Robustness: what is left of concat and mcr when steps of real clips are lost, as AUILC.

ICT-MMMO (mmmo/mmmo.npz) is imported, both fusions are trained on audio and vision with default
settings (its text is there for valid and test alone, so nothing can be learnt from it), and scored
on the test clips with 0, 0.1, ... 1 of their steps lost: erased or replaced by noise, each step on
its own or one window of them; in all streams, then in each. AUILC (NORM-TR, eq. 10) is the area
under a metric's curve. Beside it stand those of the constant predictor (the training mean, which
loses nothing) and of the fusion trained on each stream alone. For mae less is better.

The scores of undamaged clips stand beside the ridge regression and the mean predictor that come
with the data.

Target: the area of a constant is that constant, that of 1 - r is 1/2 and that of r^2 is 0.335 on
the 11 shares; at share 0 every curve is at the scores of a plain evaluation. To be better than the
ridge is no target: the difference is printed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool.cli.common import number, spread, table
from mertool.metrics import printed

PLUGINS = ("concat", "mcr")
SOURCE = "mmmo/mmmo.npz"
STREAMS = ("audio", "vision")
DAMAGES = [(noise, unit) for noise in ("erase", "gauss") for unit in ("steps", "window")]
RATES = "0:1:0.1"
STATED = {"ridge": {"mae": 1.133, "pearson": 0.353}, "mean predictor": {"mae": 1.355}}


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="folder with mmmo/  [default: the shared data]"
    )
    parser.add_argument("--seeds", type=int, default=5, help="[default: 5]")
    common.settings_option(parser)
    args = parser.parse_args()
    source = common.source(args.data, SOURCE)
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        features = Path(temporary) / "mmmo.h5"
        imported = common.mertool("data", "import", "npz", source, "-o", features).report
        result: dict[str, Any] = {
            "settings": args.settings, "clips": imported["splits"]["default"],
            "notes": imported["notes"], "stated": STATED, "arithmetic": arithmetic(), "fusions": {},
        }  # fmt: skip
        for plugin in PLUGINS:
            run = Path(temporary) / plugin
            result["fusions"][plugin] = measure(plugin, features, run, args)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def arithmetic() -> dict[str, dict[str, float]]:
    """Areas that are known beforehand: {curve: {"auilc", "expected"}}.

    Trapezoids of width h are too large by h^2 / 6 under r^2 from 0 to 1: 1/3 + 0.01 / 6 = 0.335.
    """
    from mertool.evaluate.robust import auilc

    rates = np.arange(11) / 10
    known = {
        "0.731 everywhere": (np.full(11, 0.731), 0.731),
        "1 - r": (1 - rates, 0.5),
        "r^2": (rates**2, 0.335),
    }
    return {k: {"auilc": auilc(rates, v), "expected": e} for k, (v, e) in known.items()}


def measure(plugin: str, features: Path, run: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train one fusion, score the test clips as they are, then damaged in every way."""
    common.say(f"{plugin}: train")
    settings = [part for setting in args.settings for part in ("--set", setting)]
    trained = common.mertool(
        "train", "--plugin", plugin, features, "-o", run, "--modalities", ",".join(STREAMS),
        "--seeds", args.seeds, *settings,
    )  # fmt: skip
    common.say(f"{plugin}: evaluate")
    plain = common.mertool("evaluate", run).report
    damaged = {}
    for noise, unit in DAMAGES:
        common.say(f"{plugin}: evaluate with {noise}, {unit}")
        ran = common.mertool("evaluate", run, "--mask", RATES, "--noise", noise, "--unit", unit)
        damaged[f"{noise} {unit}"] = {**ran.report["robustness"], "seconds": ran.wall}
    return {
        "parameters": trained.report["parameters"],
        "train_seconds": trained.wall,
        "mean": plain["mean"],
        "std": plain["std"],
        "interval": plain["interval"],
        "singles": plain["singles"],
        "constant": plain["baseline"],
        "clips": plain["clips"],
        "damaged": damaged,
    }


def constant(rates: list[float], value: float | None) -> float:
    """Area of the constant predictor, whose missing correlation counts as 0 as in the curves."""
    from mertool.evaluate.robust import auilc

    known = value is not None and math.isfinite(value)
    return auilc(rates, [value if known else 0.0] * len(rates))


def misses(result: dict[str, Any]) -> list[str]:
    found = [
        f"area of {curve}: {a['auilc']:.12g}, not {a['expected']:g}"
        for curve, a in result["arithmetic"].items()
        if not abs(a["auilc"] - a["expected"]) <= 1e-12
    ]
    for plugin, f in result["fusions"].items():
        for how, made in f["damaged"].items():
            found += [
                f"{plugin}, {how}, {which}: {metric} {curve[metric][0]} at share 0, "
                f"{f['mean'][metric]} of undamaged clips"
                for which, curve in made["curves"].items()
                for metric in f["mean"]
                if not same(curve[metric][0], f["mean"][metric])
            ]
    return found


def same(at_zero: float | None, plain: float | None) -> bool:
    """Whether two scores are the same, but for float32's rounding.

    Where a seed has no correlation the plain mean is not defined, and a curve counts that seed as
    0: there is nothing to compare.
    """
    return plain is None or (at_zero is not None and abs(at_zero - plain) <= 1e-6)


def lines(result: dict[str, Any]) -> list[str]:
    clips = ", ".join(f"{n} {split}" for split, n in result["clips"].items())
    text = [f"mmmo, {' and '.join(STREAMS)}: {clips}"]
    for plugin, f in result["fusions"].items():
        names = {metric: printed(metric, "mertool") for metric in f["mean"]}
        rows = [
            [shown, spread(f, m), number(f["constant"].get(m)),
             *(spread(f["singles"][s], m) for s in f["singles"]),
             *(number(stated.get(m)) for stated in result["stated"].values())]
            for m, shown in names.items()
        ]  # fmt: skip
        header = ["undamaged test clips", plugin, "training mean",
                  *(f"{s} alone" for s in f["singles"]),
                  *(f"{name}, as stated" for name in result["stated"])]  # fmt: skip
        others = {f"the {name}": stated for name, stated in result["stated"].items()}
        others |= {f"{s} alone": f["singles"][s]["mean"] for s in f["singles"]}
        text += ["", table(header, rows)]
        text += [f"{plugin} against {k}: {against(f['mean'], v)}" for k, v in others.items()]
        for how, made in f["damaged"].items():
            rows = [
                [shown, *(spread(area, m) for area in made["auilc"].values()),
                 number(constant(made["rates"], f["constant"].get(m))),
                 *(spread(area, m) for area in made["singles"].values())]
                for m, shown in names.items()
            ]  # fmt: skip
            header = [f"{plugin}, {how}: AUILC", *(f"{which} damaged" for which in made["auilc"])]
            header += ["training mean", *(f"{s} alone, damaged" for s in made["singles"])]
            area = made["auilc"]["all streams"]["mean"]
            flat = {"mae": constant(made["rates"], f["constant"]["mae"])}
            text += ["", table(header, rows)]
            text.append(f"{plugin}, {how}: AUILC against the training mean: {against(area, flat)}")
    areas = ", ".join(f"{curve} {a['auilc']:.6g}" for curve, a in result["arithmetic"].items())
    return [*text, "", f"known areas: {areas}", *(f"Note: {n}" for n in result["notes"]), ""]


def against(mean: dict[str, float | None], others: dict[str, float | None]) -> str:
    """How far error and correlation are from those of something else."""
    told = []
    for metric in ("mae", "pearson"):
        ours, theirs = mean.get(metric), others.get(metric)
        if ours is not None and theirs is not None:
            better = (ours < theirs) == (metric == "mae")
            gap = f"{'ahead' if better else 'behind'} by {abs(ours - theirs):.4f}"
            told.append(f"{gap} in {printed(metric, 'mertool')}")
    return ", ".join(told)


def key_figure(result: dict[str, Any]) -> str:
    """AUILC of the error, all streams damaged, for each fusion and damage."""
    parts = []
    for plugin, f in result["fusions"].items():
        areas = [
            f"{how} {made['auilc']['all streams']['mean']['mae']:.4f}"
            for how, made in f["damaged"].items()
        ]
        parts.append(f"{plugin} {', '.join(areas)} (undamaged {f['mean']['mae']:.4f})")
    mean = next(iter(result["fusions"].values()))["constant"]["mae"]
    return f"AUILC of {printed('mae', 'mertool')}: {'; '.join(parts)}; training mean {mean:.4f}"


if __name__ == "__main__":
    common.main(main)
