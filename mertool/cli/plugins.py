"""`mertool plugins`: what is installed."""

from __future__ import annotations

import click

from mertool.cli import common


@click.group()
def plugins() -> None:
    """See which extractors, aligners and fusions are installed."""


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


plugins.add_command(ls)
