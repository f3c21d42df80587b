"""`mertool data`: look at feature files."""

from __future__ import annotations

import click

from mertool.cli import common


@click.group()
def data() -> None:
    """Look at feature files."""


@common.command("""
mertool data info feats.h5
mertool data info feats.h5 --json
""")
@click.argument("features")
@common.json_option
def info(features: str, as_json: bool) -> None:
    """Show a feature file's clips, splits, streams, labels and failures."""
    import mertool

    with mertool.open(features) as file:
        content = file.info()
    if as_json:
        common.print_json(content)
        return
    click.echo(
        f"{content['file']}: {content['clips']} clips, {len(content['failures'])} failed, "
        f"alignment {content['alignment']}, {content['speakers']} speakers"
    )
    click.echo("splits: " + ", ".join(f"{k} {v}" for k, v in content["splits"].items()))
    click.echo(f"made {content['created']} by mertool {content['mertool']}: {content['command']}")
    rows = [
        [name, s["extractor"], s["columns"], s["rows"], s["median_rows"], s["longest"],
         s["empty_clips"]]
        for name, s in content["streams"].items()
    ]  # fmt: skip
    header = ["stream", "extractor", "columns", "rows", "median/clip", "longest", "empty clips"]
    click.echo("\n" + common.table(header, rows))
    if content["labels"]:
        rows = [
            [name, label["task"], ", ".join(label["classes"])
             or "{:g} to {:g}".format(*label["range"]), label["missing"]]
            for name, label in content["labels"].items()
        ]  # fmt: skip
        click.echo("\n" + common.table(["label", "task", "values", "missing"], rows))
    if content["failures"]:
        rows = [[f["id"], f["stage"], f["error"]] for f in content["failures"]]
        click.echo("\n" + common.table(["failed clip", "stage", "error"], rows, left=3))


data.add_command(info)
