"""Word times of another program: from a transcript file for each medium or clip."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mertool.errors import DataError, MertoolWarning
from mertool.transcripts import clamped, files
from mertool.transcripts.spelling import timed
from mertool.transcripts.times import Oddities, Timed, filled, mended
from mertool.types import Clip, Word
from mertool.words import split_words


class File:
    """Takes the times of a transcript's words from a file: whisperX's JSON, a TextGrid, .align.

    The file is named like the clip, with times from the clip's start, or like its medium, with
    times in the recording. Words are compared without case, accents and punctuation; those that
    the file lacks stand between their neighbours, score -1.

    Args:
        config: Where the files are.
        device: Ignored.
    """

    reads_media = False

    @dataclass(frozen=True)
    class Config:
        """Settings of the aligner.

        Attributes:
            folder: Folder of the transcript files; empty = each beside its medium.
        """

        folder: str = ""

    def __init__(self, config: Config = Config(), device: str = "cpu") -> None:
        self._folder = config.folder
        if config.folder and not Path(config.folder).is_dir():
            raise DataError(
                "The folder of the transcript files is missing.",
                f"align.folder={config.folder}",
                "Name a folder that exists, or none: then they stand beside the media.",
            )

    def align(self, clip: Clip) -> list[Word]:
        """Look up where each word of the transcript is said.

        Args:
            clip: A clip with a transcript.

        Returns:
            W words, one for each of `split_words(clip.text)`, in order, not overlapping, within
            the clip. Score of the file, 1 where it has none; -1 where it lacks the word.

        Warns:
            MertoolWarning: The file lacks words, or has odd times.

        Raises:
            DataError: There is no file, it has no times of words, or none of the clip's words.
        """
        texts = [clip.text[a:b] for a, b in split_words(clip.text)]
        if not texts:
            return []
        path, own = self._find(clip)
        transcript = files.read(path)
        for note in transcript.notes:
            _warn(note)
        if transcript.words is None:
            raise DataError(
                "The transcript file has no times of words.",
                str(path),
                "Give whisperX's JSON, a TextGrid or .align, or choose another --aligner.",
            )
        part = replace(clip, start=0.0, end=None) if own else clip
        part, _ = files.give(replace(part, text="", words=None), transcript)
        odd = Oddities()
        found = timed(texts, [Timed(w.text, w.start, w.end, w.score) for w in part.words or ()])
        words = mended(found, odd)
        if not any(words):
            raise DataError(
                f"The transcript file has none of the clip's {len(texts)} words.",
                f"{path}: {part.text[:60] or 'nothing is said in the time of the clip'}",
                "Is it the file of this clip, with times from the start of the recording?",
            )
        last = max(word.end for word in words if word is not None)
        end = last if clip.end is None else clip.end - clip.start
        words = [word and clamped(word, 0.0, end) for word in words]
        placed = filled(words, texts, 0.0, end)
        lacking = sum(word is None for word in words)
        if lacking:
            _warn(f"{path.name} lacks {lacking} of {len(texts)} words: placed, score -1")
        return placed

    def _find(self, clip: Clip) -> tuple[Path, bool]:
        """The clip's file, and whether it is of the clip alone, with times from its start."""
        folder = Path(self._folder) if self._folder else clip.media.parent
        medium = PurePosixPath(clip.path)
        stem = medium.with_suffix("") if medium.name else medium
        names = [PurePosixPath(clip.id), stem, PurePosixPath(stem.name)]
        for name in names if self._folder else (names[0], names[2]):
            if not name.name or name.is_absolute() or ".." in name.parts:
                continue
            # A suffix to be replaced: what follows a dot in an id is none.
            path = files.beside(folder / name.with_name(f"{name.name}.media"))
            if path is not None:
                return path, name == names[0] and name not in names[1:]
        raise DataError(
            "There is no transcript file for the clip.",
            f"{folder / names[2]}.* or {folder / names[0]}.*",
            f"Known suffixes: {' '.join(files.SUFFIXES)}. Say where they are: "
            "--set align.folder=DIR",
        )


def _warn(message: str) -> None:
    warnings.warn(message, MertoolWarning, stacklevel=3)
