"""A file under HDF5 that fails without taking the process down."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


class Disk(io.FileIO):
    """A file that remembers its first failed write instead of raising.

    HDF5 cannot close a file it failed to write and takes the process down with it. So it is told
    that all went well, what it writes from then on is kept in memory for it to read back, and the
    Writer, which throws the file away, raises the error itself.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []

    def write(self, data: Any) -> int:
        """Write all of `data`, or keep it."""
        rest = memoryview(data).cast("B")
        size, start = len(rest), self.tell()
        try:
            while self.error is None and len(rest):
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._kept.append((start + size - len(rest), bytes(rest)))
            self.seek(start + size)
        return size

    def readinto(self, buffer: Any) -> int:
        """Read what was written, kept or not."""
        view = memoryview(buffer).cast("B")
        start = self.tell()
        count = super().readinto(view) or 0
        for place, data in self._kept:
            low, high = max(place, start), min(place + len(data), start + len(view))
            if low < high:
                view[low - start : high - start] = data[low - place : high - place]
                count = max(count, high - start)
        return count

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or remember why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size or 0
