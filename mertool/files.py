"""Small files: written whole or not at all, JSON that every reader takes."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mertool.errors import OutputError


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error for a failed write, with the system's own reason."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(
        f"The output cannot be written: {reason}.",
        str(path),
        "Free some space or choose another place with -o; finished work is kept for --resume.",
    )


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields:
        What to write to; it becomes `path` when all has gone well.

    Raises:
        OutputError: The disk is full or closed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all.

    Raises:
        OutputError: The disk is full or closed.
    """
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON text of plain values and reports; NaN and infinity, which JSON has not, become null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """CSV text of dictionaries; a column that a row lacks is empty there."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["id"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
