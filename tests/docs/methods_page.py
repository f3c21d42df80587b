"""Writes docs/methods.md from benchmarks/results/: no figure of that page is typed by hand.

python tests/docs/methods_page.py > docs/methods.md
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from mertool.cli import common
from mertool.recipe import table as tables

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
INTRO = """\
# The five methods, measured

<!-- Written by tests/docs/methods_page.py from benchmarks/results/; do not edit. -->

What [`mcr`](../plugins/mcr/README.md), [`fdmer`](../plugins/fdmer/README.md),
[`norm_tr`](../plugins/norm_tr/README.md), [`tmt`](../plugins/tmt/README.md) and
[`tdmer`](../plugins/tdmer/README.md) do on data that were at hand: real features, but none of the
papers' own, so nothing here confirms or refutes a published score; [recipes](recipes.md) are for
that. Each section is what its script printed. A target that was missed is told below its table.
"""
SECTIONS = {
    "board": ("On real features", """\
MMMO, MOSI, MELD and RAVDESS speech, every fusion with its default settings, beside concatenation,
late fusion and linear models. Defaults are those of the papers for MOSI; nothing was tuned to these
sets. MOSI and MELD come as one vector a stream: attention over a single step is the identity, so
these two sets say nothing about how a method attends over time."""),
    "interaction-methods": ("Two modalities together", """\
Generated data whose label is the product of a sign in text and one in audio: no stream alone and no
sum over streams can tell it."""),
    "ablations": ("An ablation table", """\
One recipe with all its ablations on MMMO, audio and vision. The paper's table is of other data; its
figures are not comparable and not shown."""),
    "claim_mcr": ("MCR: does alpha turn to the informative source?", ""),
    "claim_fdmer": ("FDMER: are common and private features what they are called?", ""),
    "claim_norm_tr": ("NORM-TR: does the noise-aware scheme help when input is lost?", ""),
    "claim_tmt": ("TMT: are tokens orthogonal after training?", ""),
    "claim_tdmer": ("TDMER: do the weights follow the true-class probabilities?", ""),
    "complexity": ("Sizes", """\
At the shapes that files of MOSI and MOSEI have, one batch of 16 clips. TMT's paper prints 1.31 M
parameters and 1.2 G multiply-accumulates: the second is reached with 20 steps, the first by no
reading of the paper that was found."""),
}  # fmt: skip


def page() -> str:
    """The whole page."""
    parts = [INTRO]
    for name, (title, about) in SECTIONS.items():
        path = BENCHMARKS / "results" / f"{name}.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        told = ablations(result) if name == "ablations" else benchmark(name, result)
        parts.append("\n".join([f"## {title}\n", *([about, ""] if about else []), *told, ""]))
    return "\n".join(parts)


def benchmark(name: str, result: dict[str, Any]) -> list[str]:
    """What a script prints of a result that it once measured."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        script = importlib.import_module(script_of(name))
    finally:
        sys.path.remove(str(BENCHMARKS))
    made = result["environment"]
    text = "\n".join([*script.lines(result), result["key_figure"]])
    return [
        f"`python benchmarks/{script_of(name)}.py` ([what is measured, and its targets]"
        f"(../benchmarks/{script_of(name)}.py)), {made['date']}, {made['cpus']} CPUs, "
        f"torch {made['packages']['torch']}:",
        f"\n```text\n{text}\n```",
        *([""] if result["missed"] else []),
        *(f"- Target missed: {miss}" for miss in result["missed"]),
    ]


def script_of(name: str) -> str:
    """The script that wrote results/NAME.json; behind a hyphen stands how it was called."""
    return name.partition("-")[0]


def ablations(result: dict[str, Any]) -> list[str]:
    """The tables of a recipe with its ablations, as `mertool recipe run --json` printed them."""
    (made,) = result["tables"]
    parts = [*tables.headline(made), common.table(*tables.main_cells(made)), ""]
    parts.append(common.table(*tables.ablation_cells(made), left=2))
    text = "\n".join(parts)
    return [f"`{made['environment']['command']}`:", f"\n```text\n{text}\n```"]


if __name__ == "__main__":
    sys.stdout.write(page())
