"""Errors that a user can act on: what is wrong, which file or value, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MertoolError(Exception):
    """An expected failure, shown as three lines and no traceback.

    Args:
        what: What is wrong, one sentence.
        where: The file, clip, key or value it concerns.
        fix: What the user can do, best a command.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        return "\n  ".join(line for line in (self.what, self.where, self.fix) if line)


class UsageError(MertoolError):
    """The command was called wrongly: an unknown name, option or setting."""

    exit_code = 2


class MediaError(MertoolError):
    """A media file cannot be read."""


class DataError(MertoolError):
    """A manifest or a feature file is not as it should be."""


class OutputError(MertoolError):
    """The output cannot be written: it exists, the folder is closed, the disk is full."""


class PluginError(MertoolError):
    """A plugin is broken, clashes with another, or breaks the contract."""


class MertoolWarning(UserWarning):
    """Something a user should know about one clip; the pipeline collects and prints these."""


def one_line(error: BaseException) -> str:
    """What an error says, as HDF5 can store it: no line breaks, no NUL, valid UTF-8."""
    text = str(error) if isinstance(error, MertoolError) else f"{type(error).__name__}: {error}"
    return readable(" ".join(text.replace("\0", "").split()))


def readable(text: str) -> str:
    """Escape what is left of a file name that is not valid UTF-8, so that it can be written."""
    return text.encode("utf-8", "backslashreplace").decode()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the known name closest to `name`, and list them (the first twenty).

    >>> did_you_mean("mrc", ["mcr", "tmt"])
    'Did you mean "mcr"? Known: mcr, tmt'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f'Did you mean "{close[0]}"? ' if close else ""
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"{hint}Known: {', '.join(known[:20]) or 'none'}{more}"
