"""`mertool predict`."""

from __future__ import annotations

import click

from mertool.cli import common


@common.command("""
mertool predict runs/mcr clip.mp4
mertool predict runs/mcr new_videos/ -o scores.csv -j 2
mertool predict runs/mcr talk.mp4 --transcript asr --set asr.engine=whisper
mertool predict runs/mcr/seed-1111/model.safetensors list.csv
""")
@click.argument("run")
@click.argument("sources", nargs=-1, required=True, metavar="CLIP|FOLDER|CSV|FEATURES...")
@click.option("-o", "--output", help="CSV file to write.  [default: stdout]")
@click.option(
    "--transcript", type=click.Choice(["sidecar", "asr", "none"]), default="sidecar",
    show_default=True, help="Where the words of raw media come from; as for extract.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE",
    help="Change a setting of the recogniser (asr) or aligner (align); may be repeated.",
)  # fmt: skip
@common.jobs_option
@common.device_option
@common.overwrite_option
@common.json_option
def predict(
    run: str,
    sources: tuple[str, ...],
    output: str | None,
    transcript: str,
    settings: tuple[str, ...],
    jobs: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Score new clips with a run or with one model.

    The predictions of a run's seeds are averaged. Raw media are extracted and aligned as the
    training data was. A CSV keeps its columns.
    """
    from pathlib import Path

    from mertool.files import to_csv, write_text
    from mertool.predict import run as score
    from mertool.store import check_output

    if output:
        check_output(Path(output), overwrite)
    report = score(
        run, sources, transcript=transcript, settings=settings, jobs=jobs, device=device,
        progress=common.show_progress(),
    )  # fmt: skip
    common.notes(report.notes)
    common.failures(report.failures)
    text = to_csv(report.rows)
    if output:
        write_text(Path(output), text)
    if as_json:
        common.print_json(report)
    elif output:
        click.echo(f"{output}: {len(report.rows)} clips")
    else:
        click.echo(text, nl=False)
    return report.exit_code
