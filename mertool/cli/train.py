"""`mertool train`."""

from __future__ import annotations

from typing import Any

import click

from mertool.cli import common


@common.command("""
mertool train --plugin mcr feats.h5
mertool train --plugin concat feats.h5 -o runs/audio --modalities audio --seeds 3
mertool train --plugin mcr feats.h5 -o runs/mcr-cv --folds 5
mertool train --plugin mcr feats.h5 --set train.lr=2e-3 --set fusion.layers=4
mertool train --config runs/mcr/config.toml -o runs/again
""")
@click.argument("features", required=False)
@click.option("--plugin", help="The fusion; mertool plugins ls names them.")
@click.option("-o", "--output", help="Run folder.  [default: runs/PLUGIN]")
@click.option("--label", help="Label to predict, where the file has several.")
@click.option("--modalities", help="Streams to use: text,audio.  [default: all]")
@click.option("--seeds", help="How many, or a list: 1111,1112.  [default: 5]")
@click.option("--splits", help="Name of the split in the file.  [default: default]")
@click.option(
    "--folds", type=click.IntRange(2), metavar="K",
    help="Cross-validation over the file's K folds, or over K groups of speakers.",
)  # fmt: skip
@click.option(
    "--singles/--no-singles",
    default=None,
    help="Also train on each stream alone, to compare.  [default: singles]",
)
@click.option("--config", help="TOML file of settings, such as a run's config.toml.")
@common.set_option
@common.device_option
@click.option("--resume", is_flag=True, help="Keep finished seeds, train the rest.")
@common.overwrite_option
@common.json_option
def train(
    features: str | None,
    output: str | None,
    modalities: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a fusion on a feature file, once per seed.

    The model is chosen on the valid split; the test split is opened by evaluate alone.
    """
    from mertool.train import run

    report = run(
        features, output, modalities=common.names(modalities) or None,
        progress=common.show_progress(), command=common.command_line(), **options,
    )  # fmt: skip
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json(report)
        return
    click.echo(summary(report))
    click.echo(f"{report.run}  (scores on test: mertool evaluate {report.run})")


def summary(report: Any) -> str:
    """Every model's best epoch and its scores on the valid split."""
    from mertool.metrics import printed

    head = (
        f"{report.plugin} on {report.label} from {', '.join(report.streams)}: "
        f"{report.clips['train']} train and {report.clips['valid']} valid clips"
        + (f" in the first of {report.folds} folds" if report.folds else "")
        + f", {report.parameters:,} parameters ({report.seconds:.1f} s)"
    )
    models = [
        [model, str(best["epoch"]), common.number(best["valid_loss"])]
        for model, best in report.models.items()
    ]
    alone = [f"{name} alone" for name in report.valid if name]
    fusion = report.valid[""]
    metrics = [
        [printed(name, "mertool"), common.number(fusion["mean"][name]),
         common.number(fusion["std"][name]), common.number(report.baseline.get(name)),
         *(common.number(made["mean"][name]) for only, made in report.valid.items() if only)]
        for name in fusion["mean"]
    ]  # fmt: skip
    over = "seeds and folds" if report.folds else "seeds"
    header = ["on valid", f"mean over {over}", "sd", "mean or majority", *alone]
    return "\n".join(
        [head, common.table(["model", "best epoch", "valid loss"], models), "",
         common.table(header, metrics)]
    )  # fmt: skip
