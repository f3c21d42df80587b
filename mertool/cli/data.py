"""`mertool data`: look at feature files, check, divide, select and merge them."""

from __future__ import annotations

from typing import Any

import click

from mertool.cli import common


@click.group()
def data() -> None:
    """Look at, check, divide, import, export and join feature files."""


@common.command("""
mertool data info feats.h5
mertool data info feats.h5 --json
""")
@click.argument("features")
@common.json_option
def info(features: str, as_json: bool) -> None:
    """Show the clips, splits, streams, labels and failures."""
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
    if content["transcript"]:
        facts = (f"{k} {v}" for k, v in content["transcript"].items() if v != "")
        click.echo("transcript: " + ", ".join(facts))
    click.echo(f"made {content['created']} by mertool {content['mertool']}: {content['command']}")
    rows = [
        [name, s["extractor"], s["columns"], s["rows"], s["median_rows"], s["longest"],
         s["empty_clips"]]
        for name, s in content["streams"].items()
    ]  # fmt: skip
    header = ["stream", "extractor", "columns", "rows", "median/clip", "longest", "empty clips"]
    click.echo("\n" + common.table(header, rows))
    _show_labels(content["labels"])
    if content["failures"]:
        rows = [[f["id"], f["stage"], f["error"]] for f in content["failures"]]
        click.echo("\n" + common.table(["failed clip", "stage", "error"], rows, left=3))


@common.command("""
mertool data import npz mosi_utterance.npz -o mosi.h5
mertool data import words mosi_words.json -o words.h5 --overwrite
""")
@click.argument("format")
@click.argument("source")
@click.option("-o", "--output", required=True, help="The feature file to write.")
@common.set_option
@common.overwrite_option
@common.json_option
def import_(
    format: str,  # noqa: A002  (what users call it)
    source: str,
    output: str,
    settings: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn the features of others into a feature file.

    FORMAT is a reader (npz, words or that of a plugin; mertool plugins ls lists them), SOURCE what
    it reads. Settings begin with reader: --set reader.alignment=none. See docs/import.md.
    """
    from mertool.readers import run

    report = run(
        format, source, output, settings, overwrite, common.command_line(),
        progress=common.show_progress(),
    )  # fmt: skip
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json(report)
        return
    click.echo(f"{report.out}: {report.clips} clips, alignment {report.alignment}")
    places = ("train", "valid", "test", "(none)")
    rows: list[list[Any]] = [
        [name, *(counts.get(p, 0) for p in places)] for name, counts in report.splits.items()
    ]
    click.echo("\n" + common.table(["split", *places], rows))
    if report.streams:
        rows = [
            [name, s["columns"], s["rows"], s["median_rows"], s["longest"], s["empty_clips"]]
            for name, s in report.streams.items()
        ]
        header = ["stream", "columns", "rows", "median/clip", "longest", "empty clips"]
        click.echo("\n" + common.table(header, rows))
    _show_labels(report.labels)


def _show_labels(labels: dict[str, dict[str, Any]]) -> None:
    """A table of `FeatureFile.info`'s labels, where there are any."""
    rows = [
        [name, label["task"], ", ".join(label["classes"])
         or "{:g} to {:g}".format(*label["range"]), label["missing"]]
        for name, label in labels.items()
    ]  # fmt: skip
    if rows:
        click.echo("\n" + common.table(["label", "task", "values", "missing"], rows))


@common.command("""
mertool data export words aligned.h5 -o words
mertool data export words aligned.h5 -o grids --as textgrid
""")
@click.argument("format")
@click.argument("features", metavar="FILE")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write into.")
@click.option(
    "--as", "kind", type=click.Choice(["whisperx", "textgrid"]), default="whisperx",
    show_default=True, help="What the files are.",
)  # fmt: skip
@common.overwrite_option
@common.json_option
def export(
    format: str,  # noqa: A002  (what users call it)
    features: str,
    output: str,
    kind: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write what is in a feature file for other programs.

    FORMAT is words: the words with their times, a transcript for each medium, in whisperX's JSON
    or a TextGrid for Praat. See docs/words.md.
    """
    from mertool.errors import UsageError, did_you_mean
    from mertool.transcripts.export import export

    if format != "words":
        raise UsageError(
            f'There is no format "{format}" to export.',
            did_you_mean(format, ["words"]),
            "See: mertool data export --help",
        )
    report = export(features, output, kind, overwrite)
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json(report)
        return
    words, placed = (sum(file[key] for file in report.files) for key in ("words", "placed"))
    click.echo(
        f"{report.out}: {len(report.files)} files, {words} words; words placed, not aligned: "
        f"{placed}; recordings skipped: {len(report.skipped)}"
    )


@common.command("""
mertool data check feats.h5
mertool data check feats.h5 --json
""")
@click.argument("features", metavar="FILE")
@common.json_option
def check(features: str, as_json: bool) -> int:
    """Look for mistakes in a feature file before a long run.

    Exit code 1 where there is a problem: values that are not finite, a speaker, a recording or a
    clip in two splits, an empty part. Notes are worth knowing and change nothing.
    """
    from mertool.check import check

    report = check(features)
    if as_json:
        common.print_json({**vars(report), "problems": report.problems})
        return report.exit_code
    notes = len(report.findings) - report.problems
    click.echo(f"{report.path}: {report.clips} clips; problems: {report.problems}, notes: {notes}")
    if report.findings:
        rows = [
            [f.level, f.where or "the file", f.count, f.what, ", ".join(f.examples)]
            for f in report.findings
        ]
        header = ["level", "where", "count", "what", "for example"]
        click.echo("\n" + common.table(header, rows, left=5))
    return report.exit_code


@common.command("""
mertool data split feats.h5 --by speaker --folds 5
mertool data split feats.h5 --by speaker --name mine --seed 1
mertool data split feats.h5 --protocol ravdess/emobox6
""")
@click.argument("features", metavar="FILE")
@click.option("--by", type=click.Choice(["speaker", "clip"]), help="What is never torn apart.")
@click.option("--folds", type=click.IntRange(1), metavar="K", help="Number of folds.  [default: 1]")
@click.option("--seed", type=int, help="Another seed, other folds.  [default: 0]")
@click.option("--protocol", metavar="NAME", help="A known division: mertool data protocols")
@click.option("--name", help="Name of a single split.")
@common.overwrite_option
@common.json_option
def split(
    features: str,
    by: str | None,
    folds: int | None,
    seed: int | None,
    protocol: str | None,
    name: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Divide a feature file's clips into train, valid and test.

    The splits are put into the file: `fold-0`, `fold-1`, ... of --folds; one alone is called
    `default`, or `official` for a protocol, unless --name says otherwise.
    """
    from mertool.splits.divide import divide
    from mertool.types import SPLITS

    report = divide(
        features, by=by, folds=folds, seed=seed, protocol=protocol, name=name, overwrite=overwrite
    )
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        made = {"splits": report.splits, "notes": report.notes}
        common.print_json({"file": report.file, **report.attrs, **made})
        return
    header = ["split", *(title for part in SPLITS for title in (part, "speakers")), "sha256"]
    rows = [
        [row["name"], *(row[p][what] for p in SPLITS for what in ("clips", "speakers")),
         row["sha256"]]
        for row in report.splits
    ]  # fmt: skip
    click.echo(common.table(header, rows))


@common.command("""
mertool data protocols
mertool data protocols --json
""")
@common.json_option
def protocols(as_json: bool) -> None:
    """List the known divisions of public data sets."""
    from mertool.splits.protocols import PROTOCOLS, RULES

    if as_json:
        common.print_json(
            {
                name: {
                    "dataset": p.dataset, "summary": p.summary, "source": p.source,
                    "rule": RULES[p.rule], "splits": p.splits, "unit": p.unit,
                    "members": p.members, "counts": p.counts, "sha256": p.sha256,
                }
                for name, p in PROTOCOLS.items()
            }
        )  # fmt: skip
        return
    rows = [
        [name, p.splits[0] if len(p.splits) == 1 else f"{len(p.splits)} folds",
         p.size, p.sha256[:16], p.summary]
        for name, p in PROTOCOLS.items()
    ]  # fmt: skip
    header = ["protocol", "splits", "members", "sha256 begins", "what"]
    click.echo(common.table(header, rows, left=5))


@common.command("""
mertool data select feats.h5 -o test.h5 --split test
mertool data select feats.h5 -o fold.h5 --split fold-0:train --streams text,audio
mertool data select feats.h5 -o some.h5 --ids ids.txt
""")
@click.argument("features", metavar="FILE")
@click.option("-o", "--output", required=True, help="The feature file to write.")
@click.option("--ids", metavar="FILE", help="Clips to keep, one id per line; - = standard input.")
@click.option("--split", metavar="[NAME:]PART", help="Keep one part: test, fold-0:train.")
@click.option("--speaker", metavar="A,B", help="Keep the clips of these speakers.")
@click.option("--streams", metavar="A,B", help="Streams to keep: text,audio.")
@common.overwrite_option
@common.json_option
def select(
    features: str,
    output: str,
    ids: str | None,
    split: str | None,
    speaker: str | None,
    streams: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write some of a feature file's clips or streams into another.

    A clip is kept where all that is given of --ids, --split and --speaker holds.
    """
    from mertool.store import rewrite

    report = rewrite.select(
        features,
        output,
        ids=None if ids is None else rewrite.read_ids(ids),
        split=split,
        speakers=None if speaker is None else common.names(speaker),
        streams=None if streams is None else common.names(streams),
        overwrite=overwrite,
        progress=common.show_progress(),
        command=common.command_line(),
    )
    _show_rewritten(report, as_json)


@common.command("""
mertool data merge session1.h5 session2.h5 -o corpus.h5
""")
@click.argument("features", metavar="FILE...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, help="The feature file to write.")
@common.overwrite_option
@common.json_option
def merge(features: tuple[str, ...], output: str, overwrite: bool, as_json: bool) -> None:
    """Write the clips of several feature files into one.

    Their ids must differ; streams of one name must come from one extractor with one config.
    """
    from mertool.store import rewrite

    report = rewrite.merge(
        features, output, overwrite=overwrite, progress=common.show_progress(),
        command=common.command_line(),
    )  # fmt: skip
    _show_rewritten(report, as_json)


def _show_rewritten(report: Any, as_json: bool) -> None:
    for note in report.notes:
        common.say(f"Note: {note}")
    if as_json:
        common.print_json(report)
        return
    click.echo(
        f"{report.out}: {report.clips} of {report.found} clips, "
        f"streams {', '.join(report.streams) or 'none'}"
    )


data.add_command(info)
data.add_command(import_, "import")
data.add_command(export)
data.add_command(check)
data.add_command(split)
data.add_command(protocols)
data.add_command(select)
data.add_command(merge)
