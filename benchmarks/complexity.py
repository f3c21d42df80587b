"""What every fusion costs: parameters, multiply-accumulates by two rules, latency, peak memory.

One batch of clips of full length goes through the fusions with their default settings;
mertool/testing/complexity.py says what is counted. Multiply-accumulates are of the whole batch:

    modules   calls of modules alone, as the thop package counts; no products of attention
    all       all matrix products and convolutions, fused attention and LSTMs included
    counter   what torch's flop counter reports of that, halved

There are six tables: the widths of three kinds of MOSI and MOSEI files, each with its streams
unaligned and aligned to words. The first two hold every fusion, the others the five methods.

Two are measured once more as published figures have them, on the CPU. MulT: 4 layers, 10 heads,
width 50, kernels of 5, 64 clips of 20 steps. TMT: the sizes of its paper with one linear layer
behind them, 16 clips of 20 steps, and of 50. Beside them stand the same counts worked out by hand.
TMT's paper prints 1.2 G multiply-accumulates and 1.31 M parameters: the former is reached, the
latter is about half of what its sizes come to.

Target: MulT's parameters and counts are those worked out by hand; its parameters are 2,571,551,
and modules and counter are within 2% of the published 1.91 G and 2.4 G. TMT has 2,625,281
parameters at 50 steps and 2,602,241 at 20, and its counts are those by hand, 1.21 G. No fusion
fails, or needs more memory than there is.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import common

from mertool.cli.common import table
from mertool.errors import one_line

# The profiler behind the peak memory announces itself on stderr; read when torch starts.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

METHODS = ("mcr", "fdmer", "norm_tr", "tmt", "tdmer")
# Columns of text, audio and vision: MOSI as the files of MulT and MMSA have it, MOSEI as the papers
# and the same files, MOSI as the SDK and MISA have it; and steps, unaligned and aligned to words.
WIDTHS = ((768, 5, 20), (768, 74, 35), (768, 74, 47))
STEPS = ((50, 375, 500), (50, 50, 50))
MULT = {
    "batch": 64,
    "streams": {"text": (768, 20), "audio": (5, 20), "vision": (20, 20)},
    "settings": [
        "fusion.layers=4", "fusion.heads=10", "fusion.d_model=50", "fusion.kernel_text=5",
        "fusion.kernel_audio=5", "fusion.kernel_vision=5",
    ],
}  # fmt: skip
STATED = {"parameters": 2_571_551, "macs_modules": 1.91e9, "macs_counter": 2.4e9}
MARGIN = 0.02
TMT = {
    "batch": 16,
    "widths": {"text": 768, "audio": 5, "vision": 20},
    "settings": [
        "fusion.d_model=256", "fusion.d_ff=256", "fusion.layers=2", "fusion.cross_layers=2",
        "fusion.common_tokens=6", "fusion.private_tokens=2", "fusion.d_head=0",
    ],
}  # fmt: skip
TMT_PARAMETERS = {"20": 2_602_241, "50": 2_625_281}  # by steps
TMT_STATED = {"parameters": 1.31e6, "macs_all": 1.2e9}


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--data", metavar="DIR", help="not used: this benchmark needs no data")
    parser.add_argument(
        "--plugin", metavar="NAME", action="append",
        help="a fusion, in every table; may be given several times  [default: the five methods, "
        "and every fusion at MOSI's widths]",
    )  # fmt: skip
    parser.add_argument(
        "--streams", metavar="NAME=DxT,...", action="append", type=shapes,
        help="columns and steps of each stream, text=768x50,audio=5x375; several times for several "
        "tables  [default: MOSI's and MOSEI's]",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, default=16, help="clips  [default: 16]")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto  [default: cpu]")
    args = parser.parse_args()

    import torch

    from mertool import device
    from mertool.registry import registry

    for name in args.plugin or []:
        registry().get("fusion", name)  # an unknown one is refused before anything is measured
    every = args.plugin or registry().names("fusion")
    tables = [(streams, every) for streams in args.streams or ()] or [
        (
            dict(zip(MULT["streams"], zip(columns, steps, strict=True), strict=True)),
            every if columns == WIDTHS[0] else args.plugin or METHODS,
        )
        for columns in WIDTHS
        for steps in STEPS
    ]
    where = device.pick(args.device)
    if where.type == "cpu":
        limit_memory()
    result: dict[str, Any] = {
        "batch": args.batch,
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "tables": [
            {
                "streams": streams,
                "fusions": {
                    name: measure(name, streams, batch=args.batch, device=args.device)
                    for name in plugins
                },
            }
            for streams, plugins in tables
        ],
        "mult": {
            **MULT, "measured": measure("mult", **MULT), "by_hand": by_hand(), "stated": STATED,
            "counter_sees_fused_attention": counter_sees_fused_attention(),
        },
        "tmt": {
            **TMT, "stated": TMT_STATED,
            "measured": {
                T: measure(
                    "tmt", {m: (D, int(T)) for m, D in TMT["widths"].items()},
                    batch=TMT["batch"], settings=TMT["settings"],
                )
                for T in TMT_PARAMETERS
            },
            "by_hand": {T: tmt_by_hand(int(T)) for T in TMT_PARAMETERS},
        },
    }  # fmt: skip
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def shapes(text: str) -> dict[str, tuple[int, int]]:
    """{stream: (D, T)} of "text=768x50,audio=5x375"."""
    found: dict[str, tuple[int, int]] = {}
    for part in text.split(","):
        name, equals, shape = part.strip().partition("=")
        D, _, T = shape.partition("x")
        if not (name and equals and D.isdecimal() and T.isdecimal() and int(D) and int(T)):
            raise argparse.ArgumentTypeError(f'"{part}": streams are written text=768x50,audio=...')
        if name in found:
            raise argparse.ArgumentTypeError(f'the stream "{name}" is given twice')
        found[name] = int(D), int(T)
    return found


def positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'"{text}" is no number of clips')
    return int(text)


def limit_memory() -> None:
    """Let allocations beyond the free memory fail, where Linux would kill this process instead."""
    try:
        import resource

        facts = Path("/proc/meminfo").read_text(encoding="ascii")
    except (ImportError, OSError):
        return
    free = next(int(x.split()[1]) for x in facts.splitlines() if x.startswith("MemAvailable"))
    resource.setrlimit(resource.RLIMIT_DATA, (free * 1024, resource.RLIM_INFINITY))


def measure(name: str, streams: dict[str, tuple[int, int]], **more: Any) -> dict[str, Any]:
    """The complexity of one fusion, or {"error": why it cannot be measured}."""
    from mertool.testing.complexity import complexity

    common.say(f"{name}: {written(streams)}")
    try:
        return asdict(complexity(name, streams, **more))
    except Exception as error:  # of one fusion; the others go on
        return {"error": told(error)}


def told(error: Exception) -> str:
    """Why a fusion cannot be measured; torch has no exception of its own for a CPU's memory."""
    reason = one_line(error)
    signs = ("allocate memory", "out of memory", "bad_alloc", "MemoryError")
    if any(sign in reason for sign in signs):
        return f"does not fit into the free memory ({reason.rpartition('] ')[2]})"
    return reason


def written(streams: dict[str, tuple[int, int]]) -> str:
    return ",".join(f"{name}={D}x{T}" for name, (D, T) in streams.items())


def counter_sees_fused_attention() -> bool:
    """Whether this torch has a formula for the fused attention of a CPU."""
    import torch
    from torch.utils.flop_counter import flop_registry

    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu in flop_registry


def by_hand() -> dict[str, int]:
    """The counts of `MULT` from MulT's equations and the two rules, without running anything."""
    d, layers, kernel, B = 50, 4, 5, MULT["batch"]
    columns, (T, *_) = zip(*MULT["streams"].values(), strict=True)
    T = T - kernel + 1  # the input convolution has no padding
    rows = B * T
    fused = 6 * d  # three targets, each with two sources
    # (width, layers of that width): six crossmodal Transformers, three of self-attention.
    stacks = [(d, 6 * layers), (2 * d, 3 * layers)]
    # The head with the residual block before it, the convolutions, and in each layer the output
    # projection (w * w) and the feed-forward layer (w * 4w, 4w * w).
    calls = B * (2 * fused * fused + fused) + rows * d * kernel * sum(columns)
    calls += sum(n * rows * 9 * w * w for w, n in stacks)
    # Layer normalisations, 4 per element: in a crossmodal layer of target, source and of the
    # feed-forward's input, in a self-attention layer two; one behind each of the nine Transformers.
    norms = 4 * rows * (d * (3 * 6 * layers + 6) + 2 * d * (2 * 3 * layers + 3))
    # Query, key and value come from one matrix that no module call shows.
    projections = sum(n * rows * 3 * w * w for w, n in stacks)
    attention = sum(n * rows * 2 * T * w for w, n in stacks)  # scores, weighted sum
    return {
        "macs_modules": calls + norms,
        # Public code normalises a crossmodal layer's keys and values, which are equal, one by one.
        "macs_modules_public": calls + norms + 4 * rows * d * 6 * layers,
        "macs_without_norms": calls,
        "macs_all": calls + projections + attention,
        "macs_all_without_attention": calls + projections,
    }


def tmt_by_hand(T: int) -> dict[str, int]:
    """Parameters, and multiply-accumulates of `TMT["batch"]` clips of T steps, from its equations.

    Two encoder layers over all steps and 12 tokens; two stacks of two layers between 6 tokens and
    6 others; the fused tokens are averaged and give one number.
    """
    d, tokens, columns = 256, 12, sum(TMT["widths"].values())
    rows, half = 3 * T + tokens, tokens // 2
    weights = 6 * d * d  # of a layer: four projections, and an MLP as wide as its input
    encoder = weights + 6 * d + 4 * d  # biases, two layer normalisations
    parameters = columns * d + 3 * d + rows * d + tokens * d + d + 1
    parameters += 2 * encoder + 4 * (encoder + 2 * d)  # a cross layer also normalises its source
    linear = T * columns * d + 2 * rows * weights + 4 * half * weights + d
    products = 2 * 2 * rows * rows * d + 4 * 2 * half * half * d  # scores, weighted sums
    return {
        "parameters": parameters,
        "macs_all": TMT["batch"] * (linear + products),
        "macs_without_attention": TMT["batch"] * linear,
    }


def misses(result: dict[str, Any]) -> list[str]:
    rows = [(name, m) for t in result["tables"] for name, m in t["fusions"].items()]
    mult, hand = result["mult"]["measured"], result["mult"]["by_hand"]
    rows += [("mult", mult), *(("tmt", m) for m in result["tmt"]["measured"].values())]
    found = [f"{name}: {m['error']}" for name, m in rows if "error" in m]
    found += tmt_misses(result["tmt"])
    if "error" in mult:
        return found
    if mult["parameters"] != STATED["parameters"]:
        found.append(f"mult has {mult['parameters']:,} parameters, not {STATED['parameters']:,}")
    fused = result["mult"]["counter_sees_fused_attention"]
    for key, other in (
        ("macs_modules", "macs_modules"),
        ("macs_all", "macs_all"),
        ("macs_counter", "macs_all" if fused else "macs_all_without_attention"),
    ):
        if mult[key] != hand[other]:
            found.append(f"mult: {key} {mult[key]:,}, by hand {hand[other]:,}")
    for key in ("macs_modules", "macs_counter"):
        if abs(mult[key] / STATED[key] - 1) > MARGIN:
            found.append(f"mult: {key} {giga(mult[key])}, published {STATED[key] / 1e9:g} G")
    return found


def tmt_misses(tmt: dict[str, Any]) -> list[str]:
    found = []
    for T, m in tmt["measured"].items():
        hand = tmt["by_hand"][T]
        for key, wanted in (
            ("parameters", TMT_PARAMETERS[T]),
            ("parameters", hand["parameters"]),
            ("macs_all", hand["macs_all"]),
        ):
            if "error" not in m and m[key] != wanted:
                found.append(f"tmt, {T} steps: {key} {m[key]:,}, not {wanted:,}")
    return list(dict.fromkeys(found))


HEADER = [
    "fusion", "parameters", "modules M", "all M", "counter M", "predict ms", "train ms",
    "predict MB", "train MB",
]  # fmt: skip


def lines(result: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for made in result["tables"]:
        measured = {n: m for n, m in made["fusions"].items() if "error" not in m}
        found += [
            f"{result['batch']} clips of {written(made['streams'])}, {result['device']}, "
            f"{result['threads']} threads",
            table(HEADER, [row(name, m) for name, m in measured.items()]),
            *(f"{n}: {m['error']}" for n, m in made["fusions"].items() if "error" in m),
            "",
        ]
    mult, hand = result["mult"], result["mult"]["by_hand"]
    found += [
        f"mult, {' '.join(mult['settings'])}: {mult['batch']} clips of {written(mult['streams'])}",
        table(
            ["multiply-accumulates", "by hand"],
            [
                ["module calls without layer normalisations", f"{hand['macs_without_norms']:,}"],
                ["module calls", f"{hand['macs_modules']:,}"],
                ["  as public code calls them", f"{hand['macs_modules_public']:,}"],
                ["all operations", f"{hand['macs_all']:,}"],
                ["  without attention's products", f"{hand['macs_all_without_attention']:,}"],
            ],
        ),
    ]
    return [*found, "", *tmt_lines(result["tmt"])]


def tmt_lines(tmt: dict[str, Any]) -> list[str]:
    rows = [
        [f"{T} steps", f"{hand['parameters']:,}", f"{hand['macs_all']:,}",
         f"{hand['macs_without_attention']:,}",
         *(f"{tmt['measured'][T][k]:,}" if k in tmt["measured"][T] else "-"
           for k in ("parameters", "macs_all"))]
        for T, hand in tmt["by_hand"].items()
    ]  # fmt: skip
    header = [
        f"tmt, {tmt['batch']} clips", "parameters by hand", "all by hand", "without attention",
        "parameters", "all",
    ]  # fmt: skip
    return [
        f"tmt, {' '.join(tmt['settings'])}",
        table(header, rows),
        *(f"tmt, {T} steps: {m['error']}" for T, m in tmt["measured"].items() if "error" in m),
        "its paper prints 1.31 M parameters and 1.2 G multiply-accumulates",
    ]


def row(name: str, m: dict[str, Any]) -> list[str]:
    return [
        name, f"{m['parameters']:,}",
        *(f"{m[k] / 1e6:,.1f}" for k in ("macs_modules", "macs_all", "macs_counter")),
        *(f"{m[k]:,.1f}" for k in ("forward_ms", "training_ms", "forward_mb", "training_mb")),
    ]  # fmt: skip


def giga(macs: int) -> str:
    return f"{macs / 1e9:.3f} G"


def key_figure(result: dict[str, Any]) -> str:
    mult, tmt = result["mult"]["measured"], result["tmt"]["measured"]
    found = f"mult cannot be measured: {mult.get('error')}"
    if "error" not in mult:
        found = (
            f"mult as published has {mult['parameters']:,} parameters and "
            f"{giga(mult['macs_modules'])} multiply-accumulates by module calls, "
            f"{giga(mult['macs_counter'])} by torch's flop counter, {giga(mult['macs_all'])} in all"
        )
    if any("error" in m for m in tmt.values()):
        return f"{found}; tmt cannot be measured"
    return (
        f"{found}; tmt at its paper's sizes has {tmt['50']['parameters']:,} parameters and "
        f"{giga(tmt['20']['macs_all'])} (its paper prints 1.31 M and 1.2 G)"
    )


if __name__ == "__main__":
    common.main(main)
