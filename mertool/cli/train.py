"""`mertool train`."""

from __future__ import annotations

from typing import Any

import click

from mertool.cli import common


@common.command("""
mertool train --plugin mcr feats.h5
mertool train --plugin concat feats.h5 -o runs/audio --modalities audio --seeds 3
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

    names = [m.strip() for m in modalities.split(",") if m.strip()] if modalities else None
    report = run(
        features, output, modalities=names, progress=common.show_progress(),
        command=common.command_line(), **options,
    )  # fmt: skip
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json(report)
        return
    click.echo(
        f"{report.plugin} on {report.label} from {', '.join(report.streams)}: "
        f"{report.clips['train']} train and {report.clips['valid']} valid clips, "
        f"{report.parameters:,} parameters ({report.seconds:.1f} s)"
    )
    rows = []
    for seed, best in report.seeds.items():
        valid = [common.number(v) for v in best["valid"].values()]
        rows.append([str(seed), str(best["epoch"]), common.number(best["valid_loss"]), *valid])
    names = list(next(iter(report.seeds.values()))["valid"])
    click.echo(common.table(["seed", "best epoch", "valid loss", *names], rows))
    click.echo(f"{report.run}  (scores on test: mertool evaluate {report.run})")
