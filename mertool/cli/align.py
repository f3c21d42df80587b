"""`mertool align`."""

from __future__ import annotations

from typing import Any

import click

from mertool.cli import common


@common.command("""
mertool align feats.h5 -o aligned.h5
mertool align feats.h5 -o aligned.h5 --pool max --media /data/videos
mertool align feats.h5 -o seg20.h5 --to segments:20
mertool align feats.h5 -o aligned.h5 --aligner ctc --set align.model=DIR
""")
@click.argument("features")
@click.option("-o", "--output", required=True, help="The aligned feature file to write.")
@click.option("--to", default="word", show_default=True, help="word, or segments:N.")
@click.option(
    "--aligner",
    show_default="pocketsphinx, for words without times only",
    help="Place all words anew with this aligner.",
)
@click.option("--pool", default="mean", show_default=True, help="mean, max or last.")
@click.option("--media", help="Folder of the media, if it has moved since extraction.")
@common.set_option
@common.jobs_option
@common.overwrite_option
@common.json_option
def align(features: str, output: str, jobs: int, as_json: bool, **options: Any) -> int:
    """One row per spoken word, or per segment, in every stream."""
    from mertool.align import run

    report = run(
        features, output, jobs=jobs, progress=common.show_progress(),
        command=common.command_line(), **options,
    )  # fmt: skip
    common.notes(report.warnings)
    common.failures(report.failures)
    if as_json:
        common.print_json(report)
    else:
        click.echo(
            f"{report.out}: {report.clips} clips, {report.words} words, "
            f"{report.unaligned_words} of them placed by even spacing, "
            f"{len(report.failures)} failed"
        )
    return report.exit_code
