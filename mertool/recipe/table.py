"""The paper's scores beside ours, from the metrics.json of the runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mertool.metrics import printed
from mertool.recipe.settle import Settled

AUILC = "auilc:"
# All else is a share, and shown in percent, as the papers print it.
_PLAIN = ("mae", "pearson", "ccc")

Score = dict[str, Any]  # mean, std, n


def scores(run: Path, settled: Settled, masked: bool) -> dict[str, Score] | None:
    """{metric: {"mean", "std", "n"}} of a run, as evaluate printed it; a share as a share.

    Args:
        run: Run folder.
        settled: Its settings.
        masked: Whether the areas under its curves over lost steps are wanted too.

    Returns:
        None where the run has not been scored so, with just these seeds.
    """
    path, how = run / "metrics.json", settled.evaluate
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    made = kept["splits"].get(how.split, {}).get(how.convention)
    if made is None or set(made["seeds"]) != {str(seed) for seed in settled.run.seeds}:
        return None
    found = _pairs(made["mean"], made["std"], made["n_seeds"])
    if masked:
        curves = kept.get("robustness", {}).get(how.split, {}).get(how.convention, {})
        start = f"{how.noise} {how.unit} all streams"
        area = next(
            (c["auilc"]["all streams"] for n, c in curves.items() if n.startswith(start)), None
        )
        if area is None:
            return None
        pairs = _pairs(area["mean"], area["std"], made["n_seeds"])
        found |= {AUILC + name: score for name, score in pairs.items()}
    return found


def _pairs(mean: Mapping[str, Any], std: Mapping[str, Any], n: int) -> dict[str, Score]:
    return {name: {"mean": value, "std": std[name], "n": n} for name, value in mean.items()}


def unit(metric: str) -> str:
    """Percent for a share, nothing for an error or a correlation."""
    name = metric.rpartition("/")[2].removeprefix(AUILC)
    return "" if name.partition(":")[0] in _PLAIN else "%"


def row(metric: str, paper: float | None, source: str, ours: Score | None) -> dict[str, Any]:
    """A row of a table; paper and ours in one unit, shares in percent."""
    factor = 100.0 if unit(metric) else 1.0
    mean, std = (ours or {}).get("mean"), (ours or {}).get("std")
    return {
        "metric": metric, "unit": unit(metric), "paper": paper, "source": source,
        "mean": None if mean is None else factor * mean,
        "std": None if std is None else factor * std,
        "n": (ours or {}).get("n", 0),
    }  # fmt: skip


def main_rows(
    paper: Sequence[tuple[str, float, str]], ours: Mapping[str, Score]
) -> list[dict[str, Any]]:
    """Rows of the full model: first what the paper prints, then the rest of ours.

    Args:
        paper: (metric, value, source) of each score of the paper.
        ours: Our scores.
    """
    rows = [row(m, value, source, ours.get(m)) for m, value, source in paper]
    said = {m for m, *_ in paper}
    return rows + [row(m, None, "", score) for m, score in ours.items() if m not in said]


def number(value: float | None, metric: str) -> str:
    """A score with the digits of the papers: percent with two, errors with three."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if unit(metric) else f"{value:.3f}"


def ours_of(line: Mapping[str, Any]) -> str:
    """Our mean with its deviation over seeds."""
    mean = number(line["mean"], line["metric"])
    return mean if line["std"] is None else f"{mean} +- {number(line['std'], line['metric'])}"


def shown(metric: str, convention: str) -> str:
    """A metric's printed name with its unit."""
    return printed(metric, convention) + (" %" if unit(metric) else "")


def main_cells(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the full model's table; without the paper where it has no such scores."""
    seeds, beside = len(table["seeds"]), bool(table["variants"])
    paper = ["source", "paper (not comparable)" if table["void"] else "paper"] if beside else []
    header = ["metric", *paper, f"ours ({seeds} seed{'s' * (seeds != 1)})"]
    body = [
        [
            shown(r["metric"], table["convention"]),
            *([r["source"] or "-", _printed(r)] if beside else []),
            ours_of(r),
        ]
        for r in table["rows"]
    ]
    return header, body


def _printed(line: Mapping[str, Any]) -> str:
    return "-" if line["paper"] is None else str(line["paper"])


def ablation_cells(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the ablations' table: the full model first.

    On features that the paper has no score for, its scores are left out.
    """
    void = table["void"] or table["ablations_void"]
    paper = ["paper (not comparable)" if void else "paper"] if table["variants"] else []
    header = ["ablation", "source"]
    for line in table["full"]:
        header += [shown(line["metric"], table["convention"]), *paper]
    full = {"row": "full model", "source": "", "status": "done", "rows": table["full"]}
    body = []
    for part in [full, *table["ablations"]]:
        cells = [part["row"], part["source"] or "-"]
        for line in part["rows"]:
            ours = ours_of(line) if part["status"] == "done" else part["status"]
            cells += [ours, *([_printed(line)] if paper else [])]
        body.append(cells)
    return header, body


def headline(table: Mapping[str, Any]) -> list[str]:
    """What stands above the tables."""
    lines = [f"{table['recipe']}: {table['title']}"]
    if table["smoke"]:
        lines.append("smoke run: generated data, no result")
    streams = ", ".join(f"{n} {D} x {T}" for n, (D, T) in table["streams"].items())
    lines.append(
        f"features: {streams}; alignment {table['alignment']}; shape {table['shape'] or 'none'}"
    )
    counts = ", ".join(f"{n} {split}" for split, n in table["clips"].items())
    lines.append(f"clips: {counts}" + (f"; {table['folds']} folds" if table["folds"] else ""))
    if table["void"]:
        lines.append("the comparison with the paper is void: " + "; ".join(table["void"]))
    return lines


def markdown(table: Mapping[str, Any]) -> str:
    """The whole as a page."""
    first, *rest = headline(table)
    parts = [f"# {first}", *rest, _pipes(*main_cells(table))]
    if table["ablations"]:
        if table["ablations_void"] and table["variants"]:
            parts.append(f"The paper's ablations are not comparable: {table['ablations_void']}")
        parts.append(_pipes(*ablation_cells(table)))
    reasons = [
        f"{a['row']}: {a['status']}: {a['reason']}" for a in table["ablations"] if a["reason"]
    ]
    parts += ["\n".join(f"- {line}" for line in [*reasons, *table["notes"]])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _pipes(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |" for cells in lines
    )
