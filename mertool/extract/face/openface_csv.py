"""OpenFace 2's CSV files: a row per frame and face, read line by line."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from mertool.errors import DataError, MertoolWarning
from mertool.extract.face.tracks import Face

_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
_PRESENCES = (*_INTENSITIES[:-1], 28, 45)
# The values of a face, in the order of the columns.
MEASURED = (
    *(f"AU{n:02d}_r" for n in _INTENSITIES),
    *(f"AU{n:02d}_c" for n in _PRESENCES),
    *(f"pose_{name}" for name in ("Tx", "Ty", "Tz", "Rx", "Ry", "Rz")),
    *("gaze_angle_x", "gaze_angle_y", "confidence"),
)
_TZ, _LIPS, _JAW = (MEASURED.index(name) for name in ("pose_Tz", "AU25_r", "AU26_r"))
_KEYS = ("frame", "timestamp", "success")
# With all of OpenFace's output a line has some 10,000 characters.
_LONGEST = 100_000
# More frames than that in a second of the CSV's time are no video.
_FASTEST = 1000
_RERUN = "Write it again: FeatureExtraction -f FILE -out_dir DIR -aus -pose -gaze"


class _Row(NamedTuple):
    """A line: a face in a frame."""

    number: int  # of the line
    frame: int
    time: float
    cells: list[str]


def faces_of(
    lines: IO[str], file: Path, shift: float, length: float, fps: float
) -> Iterator[tuple[float, list[int], list[Face]]]:
    """Read the faces of a clip's frames.

    A frame that has no line between others that have (FaceLandmarkVidMulti writes none without a
    face) is a frame without a face.

    Args:
        lines: The open file.
        file: Its name, for errors.
        shift: What to add to the file's times, seconds.
        length: Of the clip, seconds; later lines are not read.
        fps: Emit the first frame at or after each multiple of 1 / fps; 0 = every frame.

    Yields:
        (time from the clip's start, ids of the faces, the faces).

    Raises:
        DataError: The file is none of OpenFace 2, or holds no frame.
    """
    table = _Table(lines, file)
    tick, some, unmeasured = 0, False, 0
    for time, rows in table.frames(length - shift):
        some = True
        time += shift
        # Times are rounded to a millisecond. The test is the one of mertool.media.frames.
        if time < -1e-6 or (fps and time < tick / fps - 1e-3):
            continue
        if time >= length - 1e-6:
            break
        tick = math.floor((time + 1e-3) * fps) + 1
        faces = {table.identity(row): table.face(row) for row in rows if table.succeeded(row)}
        seen = {name: face for name, face in faces.items() if face is not None}
        unmeasured += len(faces) - len(seen)
        yield max(time, 0.0), list(seen), list(seen.values())
    if not some:
        raise DataError("The OpenFace output holds no frame.", str(file), _RERUN)
    if unmeasured:
        text = f"faces that hold nan are left out: {unmeasured} in {file.name}"
        warnings.warn(text, MertoolWarning, stacklevel=2)


class _Table:
    """The lines of a file, checked as they are read."""

    def __init__(self, lines: IO[str], file: Path) -> None:
        self._file = file
        self._reader = csv.reader(self._short(lines), quoting=csv.QUOTE_NONE)
        self._header = [name.strip() for name in next(self._reader, [])]
        if not any(self._header):
            raise DataError("The OpenFace output is empty.", f"{file}, line 1", _RERUN)
        place = {name: i for i, name in enumerate(self._header)}
        missing = [name for name in (*_KEYS, *MEASURED) if name not in place]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(
                f"The OpenFace output lacks the column {missing[0]}{more}.",
                f"{file}, line 1",
                f"Only the CSV files of OpenFace 2 are read. {_RERUN}",
            )
        self._frame, self._time, self._success = (place[name] for name in _KEYS)
        self._id = place.get("face_id")
        self._values = [place[name] for name in MEASURED]
        points = [[place.get(f"{axis}_{i}") for i in range(68)] for axis in "xy"]
        self._points = None if None in points[0] + points[1] else points

    def _short(self, lines: IO[str]) -> Iterator[str]:
        number = 0
        while line := lines.readline(_LONGEST):
            number += 1
            if len(line) == _LONGEST and not line.endswith("\n"):
                raise self._bad(number, f"it is longer than {_LONGEST} characters")
            if line.strip():
                yield line.replace("\0", "\N{REPLACEMENT CHARACTER}")
            else:
                yield "\n"  # counts as a line

    def _bad(self, line: int, why: str) -> DataError:
        return DataError(
            "The OpenFace output has a line that cannot be read.",
            f"{self._file}, line {line}: {why}",
            _RERUN,
        )

    def _rows(self) -> Iterator[_Row]:
        for cells in self._reader:
            if not cells:
                continue
            number = self._reader.line_num
            if len(cells) != len(self._header):
                why = f"it has {len(cells)} cells, and the first line {len(self._header)} names"
                raise self._bad(number, why)
            frame = self._whole(number, cells, self._frame)
            time = self._number(number, cells, self._time)
            if not (frame >= 0 and 0 <= time < math.inf):
                raise self._bad(number, f"frame {frame} is at {time} s")
            yield _Row(number, frame, time, cells)

    def frames(self, end: float) -> Iterator[tuple[float, list[_Row]]]:
        """Time and lines of each frame, those without a line too, to the first not before `end`."""
        before: tuple[int, float] | None = None
        for frame, group in groupby(self._rows(), key=lambda row: row.frame):
            rows = list(self._distinct(group))
            number, time = rows[0].number, rows[0].time
            if before is None and frame > 1 and time > 0:
                before = 1, 0.0  # there was no face until here
                yield 0.0, []
            if before is not None:
                steps, step = frame - before[0], time - before[1]
                if steps > 0 and time == 0:
                    raise DataError(
                        "The OpenFace output has no times.",
                        f"{self._file}, line {number}: frame {frame} is at 0 s",
                        "It is of an image sequence: run FeatureExtraction on the video (-f).",
                    )
                if steps <= 0 or step <= 0:
                    why = f"frame {frame} at {time:g} s after frame {before[0]} at {before[1]:g} s"
                    raise self._bad(number, why)
                if steps > _FASTEST * step + 1:
                    raise self._bad(number, f"{steps} frames in {step:g} s")
                for i in range(1, steps):
                    between = before[1] + step * i / steps
                    if between >= end:
                        return
                    yield between, []
            yield time, rows
            if time >= end:
                return
            before = frame, time

    def _distinct(self, group: Iterator[_Row]) -> Iterator[_Row]:
        """The lines of a frame, in which each face has one."""
        seen: set[int] = set()
        for row in group:
            name = self.identity(row)
            if name in seen:
                raise self._bad(row.number, f"frame {row.frame} has the face {name} twice")
            seen.add(name)
            if len(seen) > 1000:
                raise self._bad(row.number, f"frame {row.frame} has more than 1000 faces")
            yield row

    def identity(self, row: _Row) -> int:
        """Which face it is."""
        return 0 if self._id is None else self._whole(row.number, row.cells, self._id)

    def succeeded(self, row: _Row) -> bool:
        """Whether OpenFace trusts the line."""
        return self._number(row.number, row.cells, self._success) == 1

    def face(self, row: _Row) -> Face | None:
        """The face of a line; None where a value is nan, as OpenFace writes it now and then."""
        found = [self._number(row.number, row.cells, i) for i in self._values]
        with np.errstate(over="ignore"):
            values = np.array(found, np.float32)
        if self._points:
            x, y = (
                np.array([self._number(row.number, row.cells, i) for i in axis])
                for axis in self._points
            )
            box = np.array([x.min(), y.min(), x.max(), y.max()])
            # 62 and 66: middle of the inner upper and lower lip.
            mouth = abs(y[66] - y[62]) / max(box[3] - box[1], 1e-6)
        else:
            # Apparent size goes with the inverse of the distance; only ratios matter.
            side = 1e5 / max(found[_TZ], 1.0)
            box = np.array([0, 0, side, side])
            mouth = found[_LIPS] + found[_JAW]
        measured = np.isfinite(values).all() and np.isfinite([*box, mouth]).all()
        return Face(box, values, mouth) if measured else None

    def _whole(self, line: int, cells: list[str], place: int) -> int:
        value = self._number(line, cells, place)
        if not value.is_integer():
            name = self._header[place]
            raise self._bad(line, f'{name} is no whole number: "{cells[place].strip()[:40]}"')
        return int(value)

    def _number(self, line: int, cells: list[str], place: int) -> float:
        cell = cells[place].strip()
        # On Windows nan is written as nan(ind).
        if cell.lower().lstrip("-").startswith("nan"):
            return math.nan
        try:
            return float(cell)
        except ValueError:
            name = self._header[place]
            raise self._bad(line, f'{name} is no number: "{cell[:40]}"') from None
