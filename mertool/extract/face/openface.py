"""Action units, head pose and gaze of OpenFace 2: its CSV files, or its program run here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mertool.config import PROGRAM
from mertool.errors import DataError, MertoolError, MertoolWarning, UsageError
from mertool.extract.face.openface_csv import MEASURED, faces_of
from mertool.extract.face.pipeline import COLUMNS, FaceSettings, track_rows
from mertool.extract.face.tracks import Tracks
from mertool.types import Clip, Rows

BINARY = "FeatureExtraction"


class OpenFace:
    """What OpenFace 2 measures of a face: 47 columns.

    The 17 intensities and 18 presences of action units (the 35 visual features of much work on
    MOSI and MOSEI), head pose, gaze, confidence; then number of faces, track and validity.

    They are read from the CSV beside a clip's media file (its name with the suffix .csv) or in
    `folder`. Where there is none, OpenFace's program FeatureExtraction is run on the media file.

    Args:
        config: Settings.
        device: Ignored; nothing is computed here.

    Raises:
        UsageError: `folder` is no folder, or `binary` no program.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `openface`.

        Attributes:
            folder: A folder of CSV files, laid out as the media files are; "" = beside them.
            binary: OpenFace's program, for clips without a CSV file; "" = that of the environment
                variable MERTOOL_OPENFACE, or FeatureExtraction on the PATH, if it is there.
            fps: Frames per second to take; 0 = every frame.
            keep: Of several faces: "speaker" = the one whose mouth moves with the voice, or
                "largest".
            missing: Frames without the kept face: "zero", or "interpolate" (linear in time);
                valid = 0 either way.
        """

        folder: str = ""
        binary: str = field(default="", metadata=PROGRAM)
        fps: float = 0.0
        keep: str = "speaker"
        missing: str = "zero"

        def __post_init__(self) -> None:
            self.faces()  # refuses what is impossible

        def faces(self) -> FaceSettings:
            """The settings that all face extractors share."""
            return FaceSettings(self.fps, self.keep, self.missing)

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        self._folder = Path(config.folder).expanduser() if config.folder else None
        if self._folder and not self._folder.is_dir():
            raise UsageError(
                "There is no such folder of OpenFace output.",
                f"vision.folder={config.folder}",
                "Name the folder that holds the CSV files.",
            )
        named = config.binary or os.environ.get("MERTOOL_OPENFACE", "")
        self._binary = shutil.which(str(Path(named or BINARY).expanduser()))
        if named and not self._binary:
            raise UsageError(
                "OpenFace's program is not there, or may not be run.",
                f"vision.binary={named}",
                f"Name its {BINARY}, or leave it out to read CSV files.",
            )
        # The media file the program was last run on: clips of one file follow each other.
        self._made: tuple[Path, IO[str]] | None = None
        self.columns = [*MEASURED, *COLUMNS]
        self.info: dict[str, str | float] = {
            "model": "OpenFace 2",
            "revision": "",
            "licence": "OpenFace: academic or non-profit, non-commercial research only",
            "rate": config.fps,
            "version": "1",
        }

    def extract(self, clip: Clip) -> Rows:
        """Read the faces of one clip.

        Args:
            clip: A clip with a CSV file, or with video.

        Returns:
            Rows of D = 47, one per frame; none, with a warning, for a clip without video or
            without a face.

        Raises:
            MertoolError: There is neither CSV nor program, the program fails, or the CSV is none
                of OpenFace 2.
        """
        from mertool import media

        first = next(media.frames(clip.media), None)
        file = self._csv(clip)
        if file is None and first is None:
            warnings.warn("no video, no openface rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns))
        end = media.probe(clip.media).duration if clip.end is None else clip.end
        # OpenFace counts from the picture's first frame, which may come after the first sound.
        shift = (first[0] if first else 0.0) - clip.start
        tracks = Tracks(len(MEASURED))
        name = file or Path(f"{clip.media.stem}.csv")  # for messages
        with nullcontext(self._run(clip)) if file is None else _opened(file) as lines:
            frames = faces_of(lines, name, shift, end - clip.start, self.config.fps)
            for time, ids, faces in frames:
                tracks.add(time, faces, ids)
        if not len(tracks.times):
            text = (
                f"{name.name} has no frame between {clip.start:g} and {end:g} s, no openface rows"
            )
            warnings.warn(text, MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns))
        return track_rows(clip, tracks, self.config.faces(), "openface")

    def _csv(self, clip: Clip) -> Path | None:
        """The clip's CSV file, if it has one."""
        file = self._folder / clip.path if self._folder else clip.media
        file = file.with_suffix(".csv")
        return file if file.is_file() else None

    def _run(self, clip: Clip) -> IO[str]:
        """What OpenFace writes of the clip's whole media file, from the beginning."""
        path = clip.media.resolve()
        if self._binary is None:
            beside = self._folder / clip.path if self._folder else clip.media
            raise MertoolError(
                "There is no OpenFace output for the clip.",
                f"{beside.with_suffix('.csv')}; {BINARY} is not on the PATH",
                f"Run {BINARY} -f FILE -out_dir DIR on it and give --set vision.folder=DIR, name "
                f"the program: --set vision.binary=PATH, or take another extractor: "
                "--vision facemesh",
            )
        if self._made is None or self._made[0] != path:
            with tempfile.TemporaryDirectory(prefix="openface-") as folder:
                # It can be read until it is closed, and leaves nothing behind.
                lines = _opened(_feature_extraction(self._binary, path, Path(folder)))
            if self._made:
                self._made[1].close()
            self._made = path, lines
        self._made[1].seek(0)
        return self._made[1]


def _opened(file: Path) -> IO[str]:
    try:
        return file.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise DataError(
            "The OpenFace output cannot be read.",
            f"{file}: {error.strerror}",
            "Check its permissions.",
        ) from error


def _feature_extraction(binary: str, path: Path, folder: Path) -> Path:
    """Run OpenFace on a media file; the CSV file that it writes into `folder`."""
    command = [binary, "-f", str(path), "-out_dir", str(folder), "-aus", "-pose", "-gaze"]
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
            failed, last = done.returncode != 0, _last_line(said)
        except OSError as error:
            failed, last = True, str(error)
    # It ends without an error where it cannot open a file, too.
    file = next(folder.glob("*.csv"), None)
    if failed or file is None:
        raise MertoolError(
            f"OpenFace's {Path(binary).name} failed.",
            f"{path}: {last}",
            f"Run it yourself to see more: {shlex.join(command[:3])} -aus -pose -gaze",
        )
    return file


def _last_line(said: IO[bytes]) -> str:
    """The last line of a program's output that says something."""
    size = said.seek(0, 2)
    said.seek(max(0, size - 4096))
    lines = said.read().decode("utf-8", "replace").split("\n")
    told = [line.strip() for line in lines if line.strip()]
    return told[-1][:500] if told else "it said nothing"
