"""What a recogniser and the voice detector found in a recording, kept for a resumed run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mertool import media
from mertool.config import to_dict
from mertool.errors import DataError
from mertool.extract.worker import stamp_of
from mertool.files import to_json, whole, write_text
from mertool.processes import one_thread
from mertool.transcripts import Transcript, asr, files, recognise, write
from mertool.transcripts.voice import RATE, Activity, activity
from mertool.types import Clip


class Kept:
    """Results for one clip; a file's name is a hash of all that decides its content.

    Args:
        folder: Where they are.
        clip: The clip.
    """

    def __init__(self, folder: Path, clip: Clip) -> None:
        self._folder, self._clip = folder, clip

    def _path(self, kind: str, suffix: str, *what: Any) -> Path:
        clip = self._clip
        facts = [clip.path, clip.source, clip.start, clip.end, clip.language, stamp_of(clip), what]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{kind}-{digest[:24]}{suffix}"

    def _transcript_path(self, config: asr.Config) -> Path:
        return self._path("asr", ".json", to_dict(config))

    def has_transcript(self, config: asr.Config) -> bool:
        """Whether the clip has been recognised."""
        return self._transcript_path(config).exists()

    def transcript(self, config: asr.Config) -> tuple[Transcript, dict[str, Any]]:
        """What is said in the clip, and by what it was recognised.

        Raises:
            MediaError: The sound cannot be decoded.
            MertoolError: The recogniser cannot be had.
            OutputError: The disk is full or closed.
        """
        path = self._transcript_path(config)
        # Read back even if just made: what it says must not depend on whether a run was resumed.
        with suppress(DataError, ValueError, KeyError, OSError):  # a power cut's: made anew
            return _read(path)
        with_info = recognise.recogniser(config).info
        with one_thread():
            found = recognise.recognise(self._clip, config)
        content = {**write.whisperx(found), "notes": found.notes, "recogniser": with_info}
        write_text(path, to_json(content))
        return _read(path)

    def activity(self) -> Activity:
        """Where somebody speaks in the clip.

        Raises:
            MediaError: The sound cannot be decoded.
            OutputError: The disk is full or closed.
        """
        path, clip = self._path("voice", ".npz"), self._clip
        with suppress(OSError, ValueError, KeyError, EOFError), np.load(path) as file:
            return Activity(list(map(tuple, file["stretches"].tolist())), file["levels"])

        def read() -> Iterator[np.ndarray]:
            return media.audio_blocks(clip.media, RATE, clip.start, clip.end)

        found = activity(read)
        stretches = np.array(found.stretches, np.float64).reshape(-1, 2)
        with whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, stretches=stretches, levels=found.levels)
        return found


def _read(path: Path) -> tuple[Transcript, dict[str, Any]]:
    content = json.loads(path.read_text("utf-8"))
    found = files.read(path) if content["segments"] else Transcript()
    found.language, found.notes = content["language"], content["notes"]
    return found, content["recogniser"]
