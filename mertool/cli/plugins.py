"""`mertool plugins`: what is installed, whether it keeps the contract, how to begin one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mertool.cli import common

if TYPE_CHECKING:
    from mertool.testing.results import Result


@click.group()
def plugins() -> None:
    """See what plugins are installed, check them, begin one."""


@common.command("""
mertool plugins ls
mertool plugins ls --json
MERTOOL_PLUGINS= mertool plugins ls       (no third-party plugins)
""")
@common.json_option
def ls(as_json: bool) -> None:
    """List what plugins register, and which plugins are broken."""
    from mertool.registry import registry

    found = registry()
    rows = []
    for (kind, name), entries in sorted(found.entries.items()):
        clash = "refused: registered twice" if len(entries) > 1 else "ok"
        rows += [
            {
                "kind": kind, "name": name, "status": clash, "owner": e.owner,
                "target": e.target, "facts": e.facts,
            }
            for e in entries
        ]  # fmt: skip
    broken = [{"owner": b.owner, "error": b.error} for b in found.broken]
    if as_json:
        common.print_json({"plugins": rows, "broken": broken, "skipped": found.skipped})
        return
    click.echo(
        common.table(
            ["kind", "name", "status", "from", "what"],
            [
                [r["kind"], r["name"], r["status"], r["owner"], r["facts"].get("summary", "")]
                for r in rows
            ],
            left=5,
        )
    )
    for plugin in broken:
        click.echo(f"broken: {plugin['owner']}: {plugin['error']}")
    for owner in found.skipped:
        click.echo(f"left out by MERTOOL_PLUGINS: {owner}")


@common.command("""
mertool plugins check mcr
mertool plugins check concat mcr
mertool plugins check --all
mertool plugins check npz --source features.npz
""")
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "everything", is_flag=True, help="Check every fusion.")
@click.option("--source", metavar="PATH", help="What a reader is to read.")
@common.set_option
@common.json_option
def check(
    names: tuple[str, ...],
    everything: bool,
    source: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check plugins against the contract.

    The exit code is 1 where one fails. What a plugin waives is shown with its reason.
    """
    from mertool.registry import registry

    if bool(names) == everything:
        raise click.UsageError("Name plugins, or give --all for every fusion.")
    if everything:
        wanted = [("fusion", name) for name in registry().names("fusion")]
    else:
        wanted = [pair for name in dict.fromkeys(names) for pair in _kinds(name)]
    found = {}
    for kind, name in wanted:
        if common.show_progress():
            common.say(f"Checking {kind} {name}")
        found[kind, name] = _check(kind, name, settings, source)
    count = sum(r.status == "failed" for results in found.values() for r in results)
    if as_json:
        rows = [{"kind": k, "name": n, "results": results} for (k, n), results in found.items()]
        common.print_json({"plugins": rows, "failed": count})
        return int(count > 0)
    for kind in dict.fromkeys(kind for kind, _ in found):
        _show(kind, {name: results for (k, name), results in found.items() if k == kind})
    many = "plugin" if len(found) == 1 else "plugins"
    click.echo(f"{len(found)} {many} checked, {count or 'no'} check{'s' * (count != 1)} failed")
    return int(count > 0)


def _kinds(name: str) -> list[tuple[str, str]]:
    """(kind, name) of everything of a name; of an unknown one, to be refused as a fusion."""
    from mertool.registry import registry

    return [key for key in sorted(registry().entries) if key[1] == name] or [("fusion", name)]


def _check(kind: str, name: str, settings: tuple[str, ...], source: str | None) -> list[Result]:
    from mertool import testing

    if kind == "recipe":
        return testing.check_recipe(name)
    if kind == "reader":
        return testing.check_reader(name, source, settings)
    return getattr(testing, f"check_{kind}")(name, settings)


WORDS = {"passed": "ok", "failed": "FAILED", "not run": "-"}


def _show(kind: str, found: dict[str, list[Result]]) -> None:
    """One table of the checks of all plugins of a kind, and every reason below it."""
    from mertool.testing.results import checks_of, describe

    checks = checks_of(kind)
    status: dict[str, dict[str, str]] = {name: {} for name in found}
    for name, results in found.items():
        for r in results:
            status[name][r.check] = WORDS.get(r.status, r.status)
    listed = dict.fromkeys(c for results in found.values() for c in (r.check for r in results))
    rows: list[list[Any]] = [
        [name, *(status[n].get(name, "") for n in found),
         describe(checks[name]) if name in checks else ""]
        for name in listed
    ]  # fmt: skip
    header = [kind, *found, "what is checked"]
    if len(found) > 3:  # the line would be too long; with fewer plugins it is told
        header, rows = header[:-1], [row[:-1] for row in rows]
    click.echo(common.table(header, rows, left=len(header)))
    said: dict[str, list[str]] = {}
    for name, results in found.items():
        lines: dict[str, list[str]] = {}
        for r in results:
            if r.reason and r.status != "stacked":
                lines.setdefault(f"{r.status}: {r.reason}", []).append(r.check)
        for line, same in lines.items():
            said.setdefault(f"{', '.join(same)} {line}", []).append(name)
    for line, same in said.items():
        click.echo(f"{', '.join(same)}: {line}")
    click.echo()


@common.command("""
mertool plugins new my_fusion
mertool plugins new my_features --kind extractor
""")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(["fusion", "extractor"]), default="fusion", show_default=True,
    help="What it is.",
)  # fmt: skip
@common.json_option
def new(name: str, kind: str, as_json: bool) -> None:
    """Write a new package: a small plugin with its test.

    It is the folder NAME, here, and passes its checks as written.
    """
    from mertool.testing.new import write

    files = [str(path) for path in write(name, kind)]
    if as_json:
        common.print_json({"files": files})
    else:
        click.echo("\n".join(files))
    common.say(f"Next: pip install -e {name} && mertool plugins check {name}")


for made in (ls, check, new):
    plugins.add_command(made)
