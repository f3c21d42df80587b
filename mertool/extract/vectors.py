"""Word vectors from a text file, converted once and then memory-mapped."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import multimode
from typing import IO, Any

import numpy as np

from mertool.errors import DataError, OutputError

_BLOCK = 4096  # lines whose numbers are read together
_LOOK = 100  # lines that tell how many numbers a word has
_END = b" \t\r\n"


class Vectors:
    """Word vectors of a text file: a word and its D numbers per line, as GloVe's releases have.

    Reading such a file takes minutes and its words gigabytes as Python objects. So the first use
    converts it into a folder of the user's cache, where later ones, in any number of processes,
    map into memory what they look up. Changed, moved or touched, a file is converted again.

    Args:
        file: The file. A first line of two whole numbers, as word2vec writes, is no word. Words may
            hold spaces: the last D fields are the numbers.

    Attributes:
        width: D.
        sha256: Of the file.

    Raises:
        DataError: There is no such file, or a line is wrong.
        OutputError: The cache cannot be written.
    """

    def __init__(self, file: Path) -> None:
        try:
            file = file.expanduser().resolve(strict=True)
            stat = file.stat()
        except OSError as error:
            raise _unreadable(file, error) from error
        name = f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}".encode("utf-8", "surrogateescape")
        folder = cache() / "vectors" / hashlib.sha256(name).hexdigest()[:24]
        if not folder.is_dir():
            _convert(file, folder)
        try:
            self.sha256 = (folder / "sha256").read_text()
            self._order, self._bounds, self._words = (
                np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
                for key in ("order", "bounds", "words")
            )
            values = np.memmap(folder / "values.f4", np.float32, "r")
            self._values = values.reshape(len(self._order), -1)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                "The converted word vectors are damaged.",
                f"{folder}: {error}",
                "Remove that folder; it is made again.",
            ) from error
        self.width = self._values.shape[1]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, word: str) -> np.ndarray | None:
        """(D,) float32 vector of a word spelt exactly so (of two, the first); None without one."""
        wanted = word.encode("utf-8", "replace")
        place = bisect_left(range(len(self)), wanted, key=self._word)
        if place == len(self) or self._word(place) != wanted:
            return None
        return np.array(self._values[self._order[place]])

    def _word(self, place: int) -> bytes:
        """The word at a place of the sorted list."""
        return self._words[self._bounds[place] : self._bounds[place + 1]].tobytes()


def cache() -> Path:
    """The folder of mertool among the user's caches."""
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or home) / "mertool"


def _convert(file: Path, folder: Path) -> None:
    """Make the folder, whole or not at all; of several processes, one does it."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{folder.name}.lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
            unfinished.mkdir()
            try:
                _write(file, unfinished)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"The word vectors cannot be converted: {error.strerror or error}.",
            str(folder),
            "Free some space, or name another cache folder: XDG_CACHE_HOME=DIR",
        ) from error


def _write(file: Path, folder: Path) -> None:
    words: list[bytes] = []
    digest = hashlib.sha256()
    try:
        text = open(file, "rb")  # noqa: SIM115
    except OSError as error:
        raise _unreadable(file, error) from error
    with text, open(folder / "values.f4", "wb") as out:
        width, due = _layout(text, file)
        lines = _lines(text, digest)
        if due is not None:
            next(lines)
        while block := list(islice(lines, _BLOCK)):
            rows = [line.rstrip(_END).rsplit(b" ", width) for _, line in block]
            values = _numbers(rows, width)
            if values is None:
                bad = next(i for i, row in enumerate(rows) if _numbers([row], width) is None)
                raise _wrong(file, *block[bad], width)
            words += [row[0] for row in rows]
            out.write(values.tobytes())
    if not words or due not in (None, len(words)):
        raise DataError(
            "The file of word vectors is not whole.",
            f"{file}: {len(words)} words" + ("" if due is None else f", its first line says {due}"),
            "Download or unpack it again.",
        )
    order = sorted(range(len(words)), key=words.__getitem__)  # of two equal words, the first first
    np.save(folder / "order.npy", np.array(order, np.int64))
    lengths = [len(words[i]) for i in order]
    np.save(folder / "bounds.npy", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    np.save(folder / "words.npy", np.frombuffer(b"".join(words[i] for i in order), np.uint8))
    (folder / "sha256").write_text(digest.hexdigest())


def _layout(text: IO[bytes], file: Path) -> tuple[int, int | None]:
    """Numbers per word; number of words, if the first line tells it."""
    head = [line.rstrip(_END) for line in islice(text, _LOOK) if line.strip(_END)]
    text.seek(0)
    first = head[0].split(b" ") if head else []
    if len(first) == 2 and all(part.isdigit() for part in first):
        width, due = int(first[1]), int(first[0])
    else:
        # A word with spaces has fields too many: they are few, and the fewer fields are right.
        width, due = min(multimode(line.count(b" ") for line in head), default=0), None
    if not 1 <= width <= 100_000:
        raise _wrong(file, 1, head[0] if head else b"", 1)
    return width, due


def _lines(text: IO[bytes], digest: Any) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; all go into the digest."""
    for number, line in enumerate(text, 1):
        digest.update(line)
        if line.strip(_END):
            yield number, line


def _numbers(rows: list[list[bytes]], width: int) -> np.ndarray | None:
    """(rows, D) float32 of what follows the words; None where that is not D finite numbers."""
    try:
        with np.errstate(over="ignore"):
            values = np.array([row[1:] for row in rows], np.float32)
    except ValueError:
        return None
    return values if values.shape == (len(rows), width) and np.isfinite(values).all() else None


def _wrong(file: Path, number: int, line: bytes, width: int) -> DataError:
    shown = line[:40].decode("utf-8", "replace").strip()
    return DataError(
        f"The file of word vectors has a line that is no word with {width} finite numbers.",
        f"{file}, line {number}: {shown!r} ...",
        "Mend it, or unpack it again: as text, a word and its numbers per line, as GloVe's are.",
    )


def _unreadable(file: Path, error: OSError) -> DataError:
    return DataError(
        "The file of word vectors cannot be read.",
        f"{file}: {error.strerror}",
        "Name it by --set text.vectors=FILE",
    )
