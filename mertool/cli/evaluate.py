"""`mertool evaluate`."""

from __future__ import annotations

from typing import Any

import click

from mertool.cli import common


@common.command("""
mertool evaluate runs/mcr
mertool evaluate runs/mcr --split valid --json
mertool evaluate runs/mcr --convention mmsa
mertool evaluate runs/mcr --mask 0:1:0.1 --noise gauss
mertool evaluate runs/mcr other.h5 --split all
mertool evaluate runs/mcr/seed-1111/model.safetensors feats.h5
""")
@click.argument("run")
@click.argument("features", required=False)
@click.option("--split", default="test", show_default=True, help="train, valid, test or all.")
@common.convention_option
@common.scale_option
@click.option(
    "--mask", metavar="START:END:STEP",
    help="Also score clips with these shares of their steps lost: 0:1:0.1",
)  # fmt: skip
@click.option(
    "--noise", default="erase", show_default=True, help="What lost steps become: erase or gauss."
)
@click.option(
    "--unit", default="steps", show_default=True, help="What is lost: steps, or one window."
)
@click.option("--streams", help="Streams that lose steps.  [default: all together, then each]")
@common.device_option
@common.json_option
def evaluate(
    run: str, features: str | None, streams: str | None, as_json: bool, **options: Any
) -> None:
    """Score a run on one split: mean and deviation over seeds.

    Beside the fusion stand the constant predictor and the fusion on each stream alone. Every
    opening of a split is recorded in the run's metrics.json.
    """
    from mertool.evaluate import run as score

    report = score(
        run, features, streams=common.names(streams), command=common.command_line(), **options
    )
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json({"run": report.run, "split": report.split, **report.record()})
        return
    click.echo(summary(report))


def summary(report: Any) -> str:
    """The scores as text tables: all folds, each fold, damaged clips, the confusion matrix."""
    from mertool.metrics import printed

    seeds = len(report.seeds)
    lines = [
        f"{report.run}: {report.label.name} on {report.split}, {report.clips} clips"
        + (f" of {len(report.folds)} folds, pooled" if report.folds else "")
        + f", {seeds} seed{'s' if seeds > 1 else ''}"
    ]
    constant = _constant(report)
    rows = []
    for name, mean in report.mean.items():
        interval = " to ".join(map(common.number, report.interval.get(name, ()))) or "-"
        alone = [common.number(each["mean"][name]) for each in report.singles.values()]
        rows.append(
            [printed(name, report.convention), common.number(mean),
             common.number(report.std[name]), interval,
             common.number(report.baseline.get(name)), *alone]
        )  # fmt: skip
    header = ["metric", "mean", "sd", "95% interval", constant]
    lines.append(common.table([*header, *(f"{name} alone" for name in report.singles)], rows))
    if not report.interval:
        lines.append(f"no interval: all clips are of one {report.unit[:-1]}")
    else:
        lines.append(
            f"interval: of the mean over seeds, bootstrap over {report.units} {report.unit}"
        )
    lines += [f"{printed(k, report.convention)}: {why}" for k, why in report.reasons.items()]
    if report.folds:
        lines.append("\n" + _folds(report, constant))
    if report.robustness:
        lines += _robustness(report)
    if report.confusion:
        lines.append("\nconfusion, summed over seeds (row = true, column = predicted)")
        body = [
            [name, *map(str, row)]
            for name, row in zip(report.classes, report.confusion, strict=True)
        ]
        lines.append(common.table(["", *report.classes], body))
    return "\n".join(lines)


def _folds(report: Any, constant: str) -> str:
    """Each fold's scores: of the fusion, the constant predictor, each stream alone."""
    from mertool.metrics import printed

    folds = report.folds.values()
    body = []
    for name in report.mean:
        shown = printed(name, report.convention)
        body.append([shown, "fusion", *(common.spread(made, name) for made in folds)])
        said = (common.number(made["baseline"].get(name)) for made in folds)
        body.append([shown, constant, *said])
        for only in report.singles:
            alone = (common.spread(made["singles"][only], name) for made in folds)
            body.append([shown, f"{only} alone", *alone])
    header = ["metric", "of", *(f"{k}, {made['clips']} clips" for k, made in report.folds.items())]
    return common.table(header, body, left=2)


def _constant(report: Any) -> str:
    return "training mean" if report.label.task == "regression" else "majority"


def _robustness(report: Any) -> list[str]:
    from mertool.evaluate.robust import ALL
    from mertool.metrics import printed

    made = report.robustness
    metrics = {name: printed(name, report.convention) for name in report.mean}
    rates = [f"{rate:g}" for rate in made["rates"]]
    what = "steps" if made["unit"] == "steps" else "a window of steps"
    filling = "zeros = the training mean" if made["noise"] == "erase" else "Gaussian noise"
    lines = []
    for which, curve in made["curves"].items():
        lines.append(f"\nshare of {what} of {which} lost, filled with {filling}")
        alone = made["singles"] if which == ALL else {}
        body = [
            [shown, *map(common.number, curve[name]),
             common.spread(made["auilc"][which], name), common.number(report.baseline.get(name)),
             *(common.number(each["mean"][name]) for each in alone.values())]
            for name, shown in metrics.items()
        ]  # fmt: skip
        names = [_constant(report), *(f"{name} alone" for name in alone)]
        header = ["metric", *rates, "AUILC", *(f"AUILC of {name}" for name in names)]
        lines.append(common.table(header, body))
    fills = [(stream, fill) for stream, each in made["missing"].items() for fill in each]
    body = [
        [shown, *(common.number(made["missing"][s][f]["mean"][name]) for s, f in fills),
         common.number(report.baseline.get(name)),
         *(common.number(each["mean"][name]) for each in report.singles.values())]
        for name, shown in metrics.items()
    ]  # fmt: skip
    lines.append(
        "\na whole stream missing: zeros or noise in its place, or none (the fusion knows)"
    )
    header = ["metric", *(f"no {s}, {f}" for s, f in fills), _constant(report)]
    lines.append(common.table([*header, *(f"{name} alone" for name in report.singles)], body))
    if (rates[0], rates[-1]) != ("0", "1"):
        lines.append("AUILC is the area over these shares only, and no mean of the curve")
    return lines
