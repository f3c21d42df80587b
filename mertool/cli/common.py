"""What the commands share: options, how results and notes are printed."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from mertool.errors import readable
from mertool.files import to_json


@dataclass
class State:
    """What -q, -v and --debug set for this process, and the command that runs."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    command: click.Command | None = None


STATE = State()


def _flag(*names: str, text: str) -> click.Option:
    key = names[-1].lstrip("-")

    def keep(_: click.Context, __: click.Parameter, value: bool) -> None:
        setattr(STATE, key, value)

    return click.Option(names, is_flag=True, expose_value=False, callback=keep, help=text)


def command(examples: str) -> Callable[[Callable], click.Command]:
    """A click command with the options that all have, and examples below its help."""

    def decorate(function: Callable) -> click.Command:
        epilog = "\b\nExamples:\n" + "\n".join(f"  {e}" for e in examples.strip().splitlines())
        made = click.command(epilog=epilog)(function)
        # Behind the command's own options, where a reader of the help looks for these.
        made.params += [
            _flag("-q", "--quiet", text="No progress and no notes."),
            _flag("-v", "--verbose", text="Show every note."),
            _flag("--debug", text="Show the traceback of an error."),
        ]
        return made

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu or cuda."
)
convention_option = click.option(
    "--convention", default="mertool", show_default=True,
    help="Whose definitions of the scores: mertool, mmsa, mult, misa, tmt or almt.",
)  # fmt: skip
scale_option = click.option(
    "--scale",
    default="",
    help="What a regression label means: mosi (-3 to 3), sims (-1 to 1) or other."
    "  [default: by its range]",
)
jobs_option = click.option(
    "-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="Number of processes.",
)  # fmt: skip
set_option = click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE",
    help="Change a setting; may be given several times. See docs/settings.md.",
)  # fmt: skip


def command_line() -> str:
    """The command as typed, to be recorded in outputs."""
    return readable(shlex.join(["mertool", *sys.argv[1:]]))  # file names can be any bytes


def show_progress() -> bool:
    """Whether progress bars are wanted (they appear on terminals only)."""
    return not STATE.quiet


def say(message: str) -> None:
    """A message for the user, on stderr."""
    if not STATE.quiet:
        click.echo(message, err=True)


def print_json(value: Any) -> None:
    """The one JSON document of --json, on stdout."""
    click.echo(to_json(value))


def notes(pairs: Sequence[tuple[str, str]]) -> None:
    """Notes on single clips: the first few of each kind, all with -v."""
    shown: dict[str, int] = {}
    for clip, message in pairs:
        shown[message] = shown.get(message, 0) + 1
        if STATE.verbose or shown[message] <= 3:
            say(f"Note: {clip}: {message}")
    rest = sum(max(0, n - 3) for n in shown.values())
    if rest and not STATE.verbose:
        say(f"Note: {rest} more such notes; -v shows all")


def failures(rows: Sequence[tuple[str, str, str]]) -> None:
    """Clips that failed; shown even with --quiet."""
    for clip, stage, error in rows[:20]:
        click.echo(f"Failed: {clip} ({stage}): {error}", err=True)
    if len(rows) > 20:
        click.echo(f"Failed: {len(rows) - 20} more; mertool data info lists all", err=True)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A plain text table; the first `left` columns are left-aligned, the others right."""
    cells = [list(header), *[[str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        parts = [
            c.ljust(w) if i < left else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def names(text: str | None) -> list[str]:
    """The names in "text, audio"."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def spread(made: dict[str, dict[str, Any]], name: str) -> str:
    """A score's mean with its deviation over seeds."""
    mean, deviation = number(made["mean"][name]), number(made["std"][name])
    return mean if deviation == "-" else f"{mean} +- {deviation}"


def number(value: float | None) -> str:
    """A score with four digits; "-" where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"
