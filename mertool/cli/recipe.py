"""`mertool recipe`: reproductions of published results, to look at, copy, check and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mertool.cli import common
from mertool.cli.plugins import WORDS
from mertool.errors import MertoolError, OutputError, UsageError, did_you_mean


@click.group()
def recipe() -> None:
    """Reproduce published results."""


@common.command("""
mertool recipe ls
mertool recipe ls --json
""")
@common.json_option
def ls(as_json: bool) -> None:
    """List the recipes."""
    from mertool.recipe.read import find, names

    rows: list[dict[str, Any]] = []
    for name in names():
        try:
            found = find(name)
        except MertoolError as error:
            rows.append({"name": name, "error": " ".join(str(error).split())})
            continue
        rows.append(
            {
                "name": name, "dataset": found.about["dataset"], "plugin": found.plugin,
                "ablations": len(found.ablations), "summary": found.about["summary"],
                "paper": found.about["paper"], "path": str(found.path),
            }
        )  # fmt: skip
    if as_json:
        common.print_json({"recipes": rows})
        return
    header = ["recipe", "data set", "fusion", "ablations", "what"]
    body = [
        [r["name"], r["dataset"], r["plugin"], str(r["ablations"]), r["summary"]]
        if "error" not in r
        else [r["name"], "-", "-", "-", f"broken: {r['error']}"]
        for r in rows
    ]
    click.echo(common.table(header, body, left=len(header)))


@common.command("""
mertool recipe show mosi_mcr
mertool recipe show mosi_mcr --json
""")
@click.argument("name")
@common.json_option
def show(name: str, as_json: bool) -> None:
    """Print a recipe."""
    import tomllib

    from mertool.recipe.read import find

    found = find(name)
    text = found.path.read_text(encoding="utf-8")
    if as_json:
        common.print_json({"name": found.name, "path": str(found.path), **tomllib.loads(text)})
    else:
        click.echo(text, nl=False)


@common.command("""
mertool recipe cp mosi_mcr
mertool recipe cp mosi_mcr my_recipe
""")
@click.argument("name")
@click.argument("folder", required=False)
@common.overwrite_option
@common.json_option
def cp(name: str, folder: str | None, overwrite: bool, as_json: bool) -> None:
    """Copy a recipe, to change it.

    Into FOLDER, or a folder of its name, here.
    """
    from mertool.files import cannot_write, write_text
    from mertool.recipe.read import FILE, place

    source = place(name)
    out = Path(folder or source.resolve().parent.name)
    texts = {
        file: (source.parent / file).read_text(encoding="utf-8")
        for file in (FILE, "README.md")
        if (source.parent / file).is_file()
    }
    existing = [out / file for file in texts if (out / file).exists()]
    if out.is_file() or (existing and not overwrite):
        raise OutputError(
            "The output exists already.", str(existing[0] if existing else out),
            f"Choose another folder: mertool recipe cp {name} FOLDER; or add --overwrite.",
        )  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    for file, text in texts.items():
        write_text(out / file, text)
    if as_json:
        common.print_json({"files": [str(out / file) for file in texts]})
    else:
        click.echo("\n".join(str(out / file) for file in texts))
    common.say(f"Next: mertool recipe run {out / FILE} --smoke")


@common.command("""
mertool recipe check mosi_mcr
mertool recipe check --all
mertool recipe check my_recipe/recipe.toml
""")
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "everything", is_flag=True, help="Check every recipe.")
@common.json_option
def check(names: tuple[str, ...], everything: bool, as_json: bool) -> int:
    """Check recipes: their settings, shapes, scores and ablations.

    The exit code is 1 where one fails. Nothing is trained; `run --smoke` does that.
    """
    from mertool.recipe.read import names as registered
    from mertool.testing import check_recipe

    if bool(names) == everything:
        raise click.UsageError("Name recipes, or give --all.")
    found = {}
    for name in registered() if everything else dict.fromkeys(names):
        if common.show_progress():
            common.say(f"Checking recipe {name}")
        found[name] = check_recipe(name)
    count = sum(r.status == "failed" for results in found.values() for r in results)
    if as_json:
        rows = [{"kind": "recipe", "name": n, "results": r} for n, r in found.items()]
        common.print_json({"recipes": rows, "failed": count})
        return int(count > 0)
    listed = list(dict.fromkeys(r.check for results in found.values() for r in results))
    body = [
        [
            name,
            *({r.check: WORDS.get(r.status, r.status) for r in results}.get(c, "") for c in listed),
        ]
        for name, results in found.items()
    ]
    click.echo(common.table(["recipe", *listed], body, left=len(listed) + 1))
    for name, results in found.items():
        for r in results:
            if r.reason:
                click.echo(f"{name}: {r.check} {r.status}: {r.reason}")
    many = "recipe" if len(found) == 1 else "recipes"
    click.echo(f"{len(found)} {many} checked, {count or 'no'} check{'s' * (count != 1)} failed")
    return int(count > 0)


@common.command("""
mertool recipe run mosi_mcr data=mosi.h5
mertool recipe run mosi_mcr data=mosi.h5 --ablations -o runs/mosi
mertool recipe run mosi_mcr data=mosi.h5 train.epochs=30 fusion.layers=4 --seeds 3
mertool recipe run mosi_mcr data=mmmo.h5 run.label=score run.modalities=audio,vision
mertool recipe run mosi_mcr --smoke --ablations
""")
@click.argument("name")
@click.argument("values", nargs=-1, metavar="data=FILE.h5 [SECTION.KEY=VALUE]...")
@click.option("-o", "--output", help="Output folder.  [default: runs/NAME]")
@click.option("--smoke", is_flag=True, help="On generated data of the exact shapes, made small.")
@click.option("--ablations", is_flag=True, help="Also train every row of the ablation tables.")
@click.option("--seeds", help="How many, or a list: 1111,1112.  [default: the recipe's]")
@common.device_option
@click.option("--resume", is_flag=True, help="Keep what is finished, go on with the rest.")
@common.overwrite_option
@common.json_option
def run(
    name: str, values: tuple[str, ...], output: str | None, as_json: bool, **options: Any
) -> int:
    """Train, score, and compare with the paper.

    The paper's scores are printed beside ours. NAME is a recipe, or a recipe.toml. The exit code
    is 3 where an ablation failed.
    """
    from mertool.recipe import run as start

    data, settings = _split(values)
    report = start(
        name, data, output, settings=settings, progress=common.show_progress(),
        command=common.command_line(), **options,
    )  # fmt: skip
    for table in report.tables:
        for note in table["notes"]:
            common.say(f"Note: {note}")
        for part in table["ablations"]:
            if part["status"] == "failed":
                click.echo(f"Failed: {part['row']}: {part['reason']}", err=True)
    if as_json:
        common.print_json(report)
    else:
        click.echo("\n\n".join(summary(table) for table in report.tables))
        click.echo(f"{report.out}  ({report.seconds:.1f} s)")
    return 3 if report.failed else 0


def _split(values: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """The feature file and the settings among NAME=VALUE arguments."""
    data, settings = None, []
    for value in values:
        key, equals, rest = value.partition("=")
        if equals and key == "data":
            data = rest
        elif equals and "." in key:
            settings.append(value)
        else:
            hint = did_you_mean(key, ["data"]) if equals else f"Did you mean data={value}?"
            raise UsageError(
                "Files and settings are written NAME=VALUE.", value,
                f"{hint}; settings: train.epochs=30",
            )  # fmt: skip
    return data, settings


def summary(table: dict[str, Any]) -> str:
    """The tables of a run as text."""
    from mertool.recipe.table import ablation_cells, headline, main_cells

    beside = 1 + bool(table["variants"])
    lines = [*headline(table), common.table(*main_cells(table), left=beside)]
    if table["ablations"]:
        if table["ablations_void"] and table["variants"]:
            lines.append(f"the paper's ablations are not comparable: {table['ablations_void']}")
        lines += ["", common.table(*ablation_cells(table), left=2)]
        lines += [
            f"{part['row']}: {part['status']}: {part['reason']}"
            for part in table["ablations"]
            if part["reason"]
        ]
    return "\n".join(lines)


for made in (ls, show, cp, check, run):
    recipe.add_command(made)
