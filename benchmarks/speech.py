"""Emotion from real speech: train and test on RAVDESS, other actors in each split.

The clips are extracted, then mcr and concat are trained on the audio stream alone, with default
settings, and scored on the test actors. (The two sentences of RAVDESS are the same for every
emotion: text says nothing of the label, and its stream is not used.)

Target: each fusion's mean test accuracy is above that of always guessing the majority class.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import common

from mertool.cli.common import number, table

PLUGINS = ("mcr", "concat")


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path,
        help="clips with splits and a column emotion  [default: ravdess_speech]",
    )  # fmt: skip
    parser.add_argument("--features", metavar="FILE", type=Path, help="an extraction of them")
    parser.add_argument("--seeds", type=int, default=3, help="[default: 3]")
    parser.add_argument(
        "--set", dest="settings", metavar="SECTION.KEY=VALUE", action="append", default=[],
        help="passed on to mertool train; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--align", metavar="segments:N",
        help="pool every clip to N rows first, which makes mcr far cheaper  [default: unaligned]",
    )  # fmt: skip
    args = parser.parse_args()
    if args.features and not args.features.is_file():
        raise common.BenchmarkError(f"There is no feature file {args.features}. Check --features.")
    folder = None if args.features else common.folder(args.data, "ravdess_speech")
    result: dict[str, Any] = {
        "settings": args.settings,
        "alignment": args.align or "none",
        "extract": None,
        "fusions": {},
    }
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        features = args.features
        if folder:
            features = Path(temporary) / "features.h5"
            common.say(f"{folder.name}: extract")
            ran = common.mertool("extract", folder, "-o", features, "-j", 2, "--vision", "none")
            result["extract"] = {
                "data": folder.name, "clips": ran.report["clips"], "wall": ran.wall,
                "failures": len(ran.report["failures"]),
            }  # fmt: skip
        if args.align:
            common.say(f"align to {args.align}")
            aligned = Path(temporary) / "aligned.h5"
            common.mertool("align", features, "-o", aligned, "--to", args.align, "-j", 2)
            features = aligned
        for plugin in PLUGINS:
            common.say(f"{plugin}: train and evaluate")
            result["fusions"][plugin] = measure(plugin, features, Path(temporary) / plugin, args)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def measure(plugin: str, features: Path, run: Path, args: Any) -> dict[str, Any]:
    """Train one fusion and open the test split."""
    settings = [part for setting in args.settings for part in ("--set", setting)]
    trained = common.mertool(
        "train", "--plugin", plugin, features, "-o", run, "--label", "emotion",
        "--modalities", "audio", "--seeds", args.seeds, *settings,
    )  # fmt: skip
    scored = common.mertool("evaluate", run).report
    return {
        "clips": {**trained.report["clips"], "test": scored["clips"]},
        "parameters": trained.report["parameters"],
        "train_seconds": trained.wall,
        "gpu": json.loads((run / "env.json").read_text(encoding="utf-8"))["gpu"],
        "mean": scored["mean"],
        "sd": scored["std"],
        "seeds": scored["seeds"],
        "majority": scored["baseline"],
    }


def misses(result: dict[str, Any]) -> list[str]:
    return [
        f"{plugin}: accuracy {f['mean']['accuracy']:.4f}, majority {f['majority']['accuracy']:.4f}"
        for plugin, f in result["fusions"].items()
        if f["mean"]["accuracy"] <= f["majority"]["accuracy"]
    ]


def lines(result: dict[str, Any]) -> list[str]:
    rows = []
    for plugin, f in result["fusions"].items():
        seeds = " ".join(number(scores["accuracy"]) for scores in f["seeds"].values())
        accuracy = [f["mean"]["accuracy"], f["sd"]["accuracy"]]
        others = [f["mean"]["unweighted_recall"], f["majority"]["accuracy"]]
        rows.append(
            [plugin, *map(number, accuracy), seeds, *map(number, others),
             f"{f['train_seconds']:.0f}"]
        )  # fmt: skip
    clips = next(iter(result["fusions"].values()))["clips"]
    header = ["fusion", "accuracy", "sd", "of each seed", "unweighted recall", "majority",
              "train s"]  # fmt: skip
    return [
        f"audio alone, alignment {result['alignment']}, clips: "
        + ", ".join(f"{n} {split}" for split, n in clips.items()),
        table(header, rows),
        "",
    ]


def key_figure(result: dict[str, Any]) -> str:
    parts = []
    for plugin, f in result["fusions"].items():
        mean, base = f["mean"]["accuracy"], f["majority"]["accuracy"]
        ratio = f", {mean / base:.2f} times the majority's" if base else ""
        parts.append(f"{plugin} {mean:.4f}{ratio}")
    return "test accuracy: " + "; ".join(parts)


if __name__ == "__main__":
    common.main(main)
