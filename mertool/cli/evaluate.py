"""`mertool evaluate`."""

from __future__ import annotations

from typing import Any

import click

from mertool.cli import common


@common.command("""
mertool evaluate runs/mcr
mertool evaluate runs/mcr --split valid --json
mertool evaluate runs/mcr other.h5 --split all
mertool evaluate runs/mcr/seed-1111/model.safetensors feats.h5
""")
@click.argument("run")
@click.argument("features", required=False)
@click.option("--split", default="test", show_default=True, help="train, valid, test or all.")
@common.device_option
@common.json_option
def evaluate(run: str, features: str | None, as_json: bool, **options: Any) -> None:
    """Score a run on one split: mean and deviation over seeds.

    Every opening of a split is recorded in the run's metrics.json.
    """
    from mertool.evaluate import run as score

    report = score(run, features, command=common.command_line(), **options)
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json({"run": report.run, "split": report.split, **report.record()})
        return
    click.echo(summary(report))


def summary(report: Any) -> str:
    """The scores as a text table, with the confusion matrix below."""
    lines = [f"{report.run}: {report.label.name} on {report.split}, {report.clips} clips"]
    rows = []
    for name, mean in report.mean.items():
        rows.append(
            [
                name,
                common.number(mean),
                common.number(report.std[name]),
                str(len(report.seeds)),
                common.number(report.baseline.get(name)),
            ]
        )
    constant = "training mean" if report.label.task == "regression" else "majority"
    lines.append(common.table(["metric", "mean", "sd", "seeds", constant], rows))
    if report.confusion:
        lines.append("\nconfusion, summed over seeds (row = true, column = predicted)")
        body = [
            [name, *map(str, row)]
            for name, row in zip(report.classes, report.confusion, strict=True)
        ]
        lines.append(common.table(["", *report.classes], body))
    return "\n".join(lines)
