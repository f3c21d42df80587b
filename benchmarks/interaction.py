"""Does a fusion use two modalities together? Every fusion on data whose label is their product.

The data are generated (mertool.testing.interaction): text and audio each carry a hidden sign, the
label is the product of the two, vision is noise. No stream alone says anything of the label, and no
sum of one function per stream does. Every fusion is trained with its default settings and the same
training settings, and so is the same fusion on each stream alone.

Target: each fusion's mean absolute error on test is below half of that of each of its streams
alone and of the constant predictor. `late` averages single-modality models and cannot, by design:
it is shown and has no target.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common

from mertool.cli.common import number, spread, table
from mertool.registry import registry
from mertool.testing import interaction

ADDITIVE = ("late",)


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", type=Path, help="not used: data are generated")
    parser.add_argument(
        "--plugin", dest="plugins", metavar="NAME", action="append", help="[default: every fusion]"
    )
    parser.add_argument("--seeds", type=int, default=2, help="[default: 2]")
    parser.add_argument("--unaligned", action="store_true", help="streams of different lengths")
    common.settings_option(parser)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "aligned": not args.unaligned, "seeds": args.seeds, "settings": args.settings, "fusions": {}
    }  # fmt: skip
    settings = [part for setting in args.settings for part in ("--set", setting)]
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        features = interaction.write(Path(temporary) / "x.h5", aligned=not args.unaligned)
        for name in args.plugins or registry().names("fusion"):
            common.say(name)
            run = Path(temporary) / name
            trained = common.mertool(
                "train", "--plugin", name, features, "-o", run, "--seeds", args.seeds, *settings
            )
            scored = common.mertool("evaluate", run).report
            result["fusions"][name] = {
                "parameters": trained.report["parameters"],
                "train_seconds": trained.wall,
                **{key: scored[key] for key in ("mean", "std", "baseline", "singles")},
            }
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def rivals(made: dict[str, Any]) -> dict[str, float]:
    """Mean absolute error of what a fusion must beat."""
    alone = {f"{stream} alone": each["mean"]["mae"] for stream, each in made["singles"].items()}
    return {**alone, "training mean": made["baseline"]["mae"]}


def misses(result: dict[str, Any]) -> list[str]:
    return [
        f"{name}: mae {made['mean']['mae']:.4f}, {rival} {error:.4f}"
        for name, made in result["fusions"].items()
        if name not in ADDITIVE
        for rival, error in rivals(made).items()
        if made["mean"]["mae"] >= 0.5 * error
    ]


def lines(result: dict[str, Any]) -> list[str]:
    made = result["fusions"]
    names = list(rivals(next(iter(made.values()))))
    rows = [
        [name, f"{each['parameters']:,}", spread(each, "mae"), spread(each, "acc2"),
         *(number(rivals(each).get(rival)) for rival in names), f"{each['train_seconds']:.0f}"]
        for name, each in made.items()
    ]  # fmt: skip
    errors = [f"mae (mertool), {rival}" for rival in names]
    header = ["fusion", "parameters", "mae (mertool)", "acc2 (mertool)", *errors, "train s"]
    return [table(header, rows), ""]


def key_figure(result: dict[str, Any]) -> str:
    judged = [name for name in result["fusions"] if name not in ADDITIVE]
    missed = {line.split(":")[0] for line in misses(result)}
    found = f"{len(judged) - len(missed)} of {len(judged)}"
    return f"fusions with less than half the error of every stream alone: {found}"


if __name__ == "__main__":
    common.main(main)
