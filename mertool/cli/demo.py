"""`mertool demo`."""

from __future__ import annotations

import click

from mertool.cli import common


@common.command("""
mertool demo
mertool demo -o /tmp/tour --overwrite
""")
@click.option("-o", "--output", default="mertool-demo", show_default=True, help="Folder to write.")
@common.overwrite_option
@common.json_option
def demo(output: str, overwrite: bool, as_json: bool) -> None:
    """Run the whole chain on packaged clips.

    Extract, align, train (mcr) and evaluate on 24 synthetic talking-face clips: offline, on the
    CPU, in under two minutes.
    """
    from mertool.cli.evaluate import summary
    from mertool.demo import run

    report = run(output, overwrite=overwrite, say=common.say, progress=common.show_progress())
    if as_json:
        common.print_json(
            {"files": report.files, "seconds": report.seconds, "test": report.scores.record()}
        )
        return
    click.echo(summary(report.scores))
    click.echo(f"\nWritten in {report.seconds:.0f} s:")
    for what, path in report.files.items():
        click.echo(f"  {path}  ({what})")
