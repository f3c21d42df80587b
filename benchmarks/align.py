"""The words: where the aligner puts them, and what is made of them.

Grid: start and end of each word against reference times (18 clips of the GRID corpus), with plain
pocketsphinx in the same run, in turn; CPU seconds per second of sound of both, medians over the
repeats. The reference is itself a forced alignment, on a grid of 10 ms.

Robust: the same clips with white noise at 20, 10 and 5 dB, with one word of the transcript replaced
by another, with one left out, and with the sentence of another clip before or behind: errors of the
words that are said, and how well a score below 0.5 flags bad words, which are those that are not
said there and those placed more than 100 ms off.

Speech: where voice is found against the references, with noise too; how many words of RAVDESS
sentences score below 0.5, and how many of the other sentence put in their place; wrong phones in
pronunciations of words that the dictionary has; word error rate of the offline recogniser.

Pooling: `mertool align` on random rows at MOSEI's size. MOSI: word-level text features of all
segments of MOSI.

Target: start and end: median 20 ms, 90th percentile 40, worst 200 at most, at no more than three
times plain pocketsphinx's CPU time. Pooling: at most 60 s and 1000 MB, linear in the clips, equal
to brute force on a sample. MOSI: one row for each word. Of robustness and speech nothing is
demanded.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import common

MODULES = {
    "grid": "align_words", "robust": "align_robust", "speech": "align_speech",
    "pooling": "align_pool", "mosi": "align_mosi",
}  # fmt: skip


def main() -> int:
    args = options()
    result: dict[str, Any] = {}
    for part in args.parts:
        common.say(part)
        result[part] = measured(part, args)
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def options() -> argparse.Namespace:
    """The parsed options.

    Raises:
        BenchmarkError: A wrong one.
    """
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path,
        help="clips with .align files beside them, for grid and robust  [default: grid]",
    )  # fmt: skip
    parser.add_argument(
        "--speech", metavar="DIR", type=Path,
        help="spoken sentences with a manifest  [default: ravdess_speech]",
    )  # fmt: skip
    parser.add_argument("--mosi", metavar="DIR", type=Path, help="with mosi_words.json")
    parser.add_argument(
        "--parts", default=",".join(MODULES), metavar="NAME,...", help="[default: %(default)s]"
    )
    parser.add_argument(
        "--clips", type=int, default=0, metavar="N",
        help="so many clips in every part, for a try  [default: all]",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="of grid  [default: %(default)s]")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    if set(args.parts) - set(MODULES):
        raise common.BenchmarkError(
            f"--parts {','.join(args.parts)}: known are {', '.join(MODULES)}."
        )
    if args.repeats < 1 or args.clips < 0:
        raise common.BenchmarkError("--repeats: at least 1; --clips: at least 0.")
    return args


def module(part: str) -> ModuleType:
    """The module that measures a part."""
    return importlib.import_module(MODULES[part])


def measured(part: str, args: argparse.Namespace) -> dict[str, Any]:
    measure = module(part).measure
    if part == "grid":
        return measure(common.folder(args.data, "grid"), args.clips, args.repeats)
    if part == "robust":
        return measure(common.folder(args.data, "grid"), args.clips)
    if part == "speech":
        sentences = common.folder(args.speech, "ravdess_speech")
        return measure(common.folder(args.data, "grid"), sentences, args.clips)
    if part == "mosi":
        return measure(common.folder(args.mosi, "mosi"), args.clips)
    return measure(args.clips) if args.clips else measure()


def misses(result: dict[str, Any]) -> list[str]:
    return [miss for part, made in parts(result) for miss in module(part).misses(made)]


def lines(result: dict[str, Any]) -> list[str]:
    return [line for part, made in parts(result) for line in (*module(part).lines(made), "")]


def key_figure(result: dict[str, Any]) -> str:
    return "; ".join(module(part).key(made) for part, made in parts(result))


def parts(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """The parts that were measured; a written result holds more than these."""
    return [(part, result[part]) for part in MODULES if part in result]


if __name__ == "__main__":
    common.main(main)
