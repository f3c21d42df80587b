"""`mertool compare`."""

from __future__ import annotations

import math
from typing import Any

import click

from mertool.cli import common


@common.command("""
mertool compare runs/concat runs/mcr
mertool compare runs/concat runs/mcr other.csv --metric mae --metric pearson
mertool compare runs/concat runs/mcr --split valid --json
""")
@click.argument("systems", nargs=-1, required=True, metavar="RUN|CSV...")
@click.option("--split", default="test", show_default=True, help="Which predictions of the runs.")
@common.convention_option
@common.scale_option
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME",
    help="Only this score; may be given several times.",
)  # fmt: skip
@common.json_option
def compare(systems: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Test which of several systems is better.

    A system is a run, or a CSV file with predictions; the first is the reference. Nothing is
    predicted anew: mertool evaluate has kept what is read.
    """
    from mertool.compare import run

    report = run(systems, **options)
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json(report)
    else:
        click.echo(summary(report))


def summary(report: Any) -> str:
    """Two text tables: the scores, and the differences from the first system."""
    lines = [f"{report.label.name} on {report.split}, {report.clips} clips: mean +- sd over seeds"]
    body = [
        [row.name, row.kind, str(len(row.seeds) or "-"), *(_cell(row, m) for m in report.metrics)]
        for row in report.rows
    ]
    header = ["system", "kind", "seeds", *report.metrics.values()]
    lines.append(common.table(header, body, left=2))
    if report.lower_is_better:
        lines.append(f"lower is better: {', '.join(report.lower_is_better)}")
    first = report.differences[0].reference
    lines.append(f"\ndifference from {first}, p of t-test over seeds and bootstrap over clips")
    body = [
        [
            one.system,
            report.metrics[one.metric],
            f"{one.difference:+.4f}" if math.isfinite(one.difference) else "-",
            _p(one.t_p),
            _p(one.t_holm),
            f"{one.low:+.4f} to {one.high:+.4f}" if math.isfinite(one.low) else "-",
            _p(one.bootstrap_p),
            _p(one.bootstrap_holm),
        ]
        for one in report.differences
    ]
    header = ["system", "metric", "difference", "t-test", "Holm", "95% interval", "bootstrap",
              "Holm"]  # fmt: skip
    lines.append(common.table(header, body, left=2))
    reasons: dict[str, list[str]] = {}
    for one in report.differences:
        if one.t_reason:
            names = reasons.setdefault(f"no t-test of {one.system}: {one.t_reason}", [])
            names.append(one.metric)
    lines += [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()]
    return "\n".join(lines)


def _cell(row: Any, metric: str) -> str:
    mean, sd = row.mean.get(metric), row.sd.get(metric, math.nan)
    return common.number(mean) + (f" +- {sd:.4f}" if math.isfinite(sd) else "")


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else common.number(value)
