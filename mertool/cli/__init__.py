"""The command line: finds the command, runs it, turns every failure into three lines."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from typing import Any, NoReturn

import click

from mertool.cli.common import STATE
from mertool.errors import MertoolError, did_you_mean
from mertool.version import __version__

# In the order in which a newcomer needs them. Imported when used, so that help is instant.
COMMANDS = (
    "demo", "extract", "align", "train", "evaluate", "compare", "predict", "recipe", "data",
    "plugins",
)  # fmt: skip

# A group called alone shows its help; click before 8.2 does so without an exception.
_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())


class LazyGroup(click.Group):
    """A group whose commands are modules of `mertool.cli`, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a name."""
        if name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"mertool.cli.{name}"), name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with a suggestion for an unknown name."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(
                f'There is no command "{args[0]}". {did_you_mean(args[0], COMMANDS)}', ctx
            )
        name, STATE.command, rest = super().resolve_command(ctx, args)
        return name, STATE.command, rest


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    click.echo(f"mertool {__version__} (torch {torch}, Python {sys.version.split()[0]})")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Start here:
  mertool demo                                    the whole chain on packaged clips
  mertool extract videos/ -o feats.h5             raw clips to features
  mertool align feats.h5 -o aligned.h5            one row per spoken word
  mertool train --plugin mcr aligned.h5           five seeds into runs/mcr
  mertool evaluate runs/mcr                       scores on the test split
  mertool compare runs/concat runs/mcr            whether the second is better
  mertool predict runs/mcr new_clip.mp4           a score for a new clip
""",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version and exit.",
)  # fmt: skip
def cli() -> None:
    """From raw videos of people speaking to emotion and sentiment scores.

    Each command takes --help, with examples.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 3 some clips failed."""
    logging.basicConfig(level=logging.ERROR)
    STATE.command = None
    try:
        code = cli.main(args, prog_name="mertool", standalone_mode=False)
        code = code if isinstance(code, int) else 0
        sys.stdout.flush()
    except _NO_ARGUMENTS as error:
        click.echo(error.format_message(), err=True)
        code = 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else _command()
        code = _tell(error.format_message(), command, f"See: {command} --help", error, 2)
    except click.ClickException as error:
        code = _tell(error.format_message(), "", "", error, 1)
    except MertoolError as error:
        code = _tell(error.what, error.where, error.fix, error, error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        resumes = STATE.command and any(p.name == "resume" for p in STATE.command.params)
        fix = "Finished work is kept: repeat with --resume to go on." if resumes else "Repeat it."
        code = _tell("Interrupted.", _command(), fix, error, 1)
    except BrokenPipeError:
        # The reader of our output (head, say) has left; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        what = f"The system refused: {error.strerror or error}."
        fix = "Mend that and repeat; --debug shows the traceback."
        code = _tell(what, str(error.filename or _command()), fix, error, 1)
    except Exception as error:
        code = _tell(
            f"Unexpected error, {type(error).__name__}: {' '.join(str(error).split())}",
            "This is a bug in mertool or in a plugin.",
            "Repeat with --debug for the traceback, and please report it.",
            error,
            1,
        )
    sys.exit(code)


def _command() -> str:
    """The command that runs, as typed."""
    return f"mertool {STATE.command.name}" if STATE.command else "mertool"


def _tell(what: str, where: str, fix: str, error: BaseException, code: int) -> int:
    if STATE.debug:
        traceback.print_exception(error)
    for lead, line in (("Error: ", what), ("  ", where), ("  ", fix)):
        if line:
            click.echo(lead + line, err=True)
    return code
