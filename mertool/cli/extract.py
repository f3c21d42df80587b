"""`mertool extract`."""

from __future__ import annotations

from typing import Any

import click

from mertool.cli import common


def _needed(context: click.Context, _: click.Parameter, sources: tuple[str, ...]) -> Any:
    """Sources may be left out where `--into`, read before them, names a file with clips."""
    if not (sources or context.params.get("into")):
        raise click.UsageError("SOURCE is missing: media files, a folder or a manifest.")
    return sources


@common.command("""
mertool extract videos/ -o feats.h5
mertool extract videos/ -o feats.h5 -j 4 --resume
mertool extract speech/ -o audio.h5 --vision none
mertool extract videos/ -o feats.h5 --text bert --set text.model=./my-bert
mertool extract interviews/ -o feats.h5 --segment sentences
mertool extract talk.mp4 -o feats.h5 --transcript asr --set asr.engine=whisper --segment 10
mertool extract videos/ --into feats.h5 --text bert
mertool extract --into feats.h5 --text glove --set text.vectors=glove.6B.300d.txt
""")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]", callback=_needed)
@click.option("-o", "--output", help="The feature file to write.")
@click.option(
    "--into", metavar="FILE", is_eager=True, help="Add or replace streams of this feature file."
)
@click.option("--manifest", help="CSV with clip_id, path and more; see docs/manifest.md.")
@click.option("--profile", default="offline", show_default=True, help="Named set of extractors.")
@click.option("--text", metavar="NAME", help='Extractor of the text stream, or "none".')
@click.option("--audio", metavar="NAME", help='Extractor of the audio stream, or "none".')
@click.option("--vision", metavar="NAME", help='Extractor of the vision stream, or "none".')
@click.option(
    "--transcript", type=click.Choice(["sidecar", "asr", "none"]), default="sidecar",
    show_default=True,
    help="Where a clip's words come from: the manifest or a file beside it; with asr, what has "
    "neither is recognised.",
)  # fmt: skip
@click.option(
    "--segment", metavar="HOW", default="",
    help="Cut recordings into utterances: sentences, cues, or pieces of at most so many seconds.",
)  # fmt: skip
@common.set_option
@common.jobs_option
@click.option("--resume", is_flag=True, help="Go on where a run stopped; try failures again.")
@common.overwrite_option
@common.json_option
def extract(
    sources: tuple[str, ...],
    output: str | None,
    into: str | None,
    jobs: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Turn raw clips into features, in one file.

    SOURCE is a media file, a folder (its manifest.csv is used by itself) or a manifest; with --into
    and none, the clips are those of the file.
    The names of extractors are listed by: mertool plugins ls
    """
    from mertool.extract import add_streams, run

    if bool(output) == bool(into):
        raise click.UsageError("Give either -o FILE or --into FILE.")
    options |= {
        "jobs": jobs, "progress": common.show_progress(), "command": common.command_line(),
    }  # fmt: skip
    if into:
        if options.pop("overwrite"):
            raise click.UsageError("--into replaces the streams it makes; leave --overwrite out.")
        options.pop("profile")
        report = add_streams(sources, into, **options)
    else:
        report = run(sources, output, **options)
    common.notes(report.notes)
    if report.ignored:
        common.say(f"Note: {report.ignored} media files are not in the manifest and are ignored")
    common.failures(report.failures)
    traces = vars(report).pop("traces")
    if common.STATE.debug:
        for name, trace in traces.items():
            click.echo(f"\n{name}:\n{trace}", err=True)
    if as_json:
        common.print_json(report)
    else:
        done = report.clips + len(report.failures) - report.resumed
        rate = done / report.seconds if report.seconds else 0.0
        click.echo(
            f"{report.out}: {report.clips} clips, {len(report.failures)} failed"
            + (f", {report.resumed} from before" if report.resumed else "")
            + f" ({report.seconds:.1f} s, {rate:.2f} clips/s)"
        )
    return report.exit_code
