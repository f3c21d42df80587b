"""The way from a clip's frames to the rows of its face, the same for every face extractor."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mertool.errors import MertoolWarning
from mertool.extract.face.tracks import COLUMNS, KEEP, MISSING, Face, Tracks
from mertool.types import Clip, Rows

__all__ = ["COLUMNS", "Face", "FaceSettings", "See", "batches", "face_rows", "track_rows"]

# Images (H, W, 3) uint8 RGB and their times in seconds -> the faces of each.
See = Callable[[list[np.ndarray], list[float]], list[list[Face]]]


@dataclass(frozen=True)
class FaceSettings:
    """Settings of every face extractor.

    Attributes:
        fps: Frames per second to look at; 0 = every frame.
        keep: Of several faces: "speaker" = the one whose mouth moves with the voice, or "largest".
        missing: Frames without the kept face: "zero", or "interpolate" (linear in time); valid = 0
            either way.
        max_faces: Faces looked for in a frame.
    """

    fps: float = 0.0
    keep: str = "speaker"
    missing: str = "zero"
    max_faces: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.fps < float("inf"):
            raise ValueError(f"fps={self.fps} must be 0 (every frame) or above")
        if self.keep not in KEEP:
            raise ValueError(f'keep="{self.keep}" must be one of {", ".join(KEEP)}')
        if self.missing not in MISSING:
            raise ValueError(f'missing="{self.missing}" must be one of {", ".join(MISSING)}')
        if not 1 <= self.max_faces <= 100:
            raise ValueError(f"max_faces={self.max_faces} must lie between 1 and 100")


def batches(clip: Clip, fps: float, size: int) -> Iterator[tuple[list[float], list[np.ndarray]]]:
    """Frames of a clip, several at a time.

    Args:
        clip: The clip.
        fps: Frames per second to look at; 0 = every frame.
        size: Most frames at a time.

    Yields:
        (their times in seconds, (H, W, 3) uint8 RGB images); nothing without video.

    Raises:
        MediaError: The file cannot be decoded.
    """
    times: list[float] = []
    images: list[np.ndarray] = []
    for time, image in clip.frames(fps or None):
        times.append(time)
        images.append(image)
        if len(times) == size:
            yield times, images
            times, images = [], []
    if times:
        yield times, images


def face_rows(
    clip: Clip, see: See, width: int, settings: FaceSettings, name: str, size: int = 1
) -> Rows:
    """Follow the faces of a clip and give the rows of the kept one.

    Args:
        clip: The clip.
        see: Finds the faces in images; called with the clip's frames in order.
        width: D, number of values of a `Face`.
        settings: What is looked at and kept.
        name: The extractor's name, for notes.
        size: Most images that `see` takes at once.

    Returns:
        As `track_rows`.

    Raises:
        MediaError: The file cannot be decoded.
    """
    tracks = Tracks(width)
    for times, images in batches(clip, settings.fps, size):
        for time, faces in zip(times, see(images, times), strict=True):
            tracks.add(time, faces)
    return track_rows(clip, tracks, settings, name)


def track_rows(clip: Clip, tracks: Tracks, settings: FaceSettings, name: str) -> Rows:
    """The rows of the kept face, once all frames were added; what was chosen is warned of.

    Args:
        clip: The clip, for its end and its sound.
        tracks: The faces of all its frames.
        settings: What is kept, and what stands where it is missing.
        name: The extractor's name, for notes.

    Returns:
        Rows of D + 3 columns, the last as in COLUMNS: number of faces seen in the frame; number of
        the track that the row is of, from 1 in order of first appearance, 0 = none; valid = 1
        where the row was measured. One row per frame; none, with a warning, for a clip without
        video or without a face in any frame.

    Raises:
        MediaError: The sound cannot be decoded.
    """
    total, several = len(tracks.times), int((tracks.counts > 1).sum())
    if not tracks.number:
        _note(f"{'no face found' if total else 'no video'}, no {name} rows")
        return Rows.empty(tracks.width + len(COLUMNS))
    choice = tracks.choose(clip, settings.keep)
    if several:
        others = len(choice.kept) - 1
        _note(
            f"{several} of {total} frames show more than one face, {tracks.number} tracks in all; "
            f"kept: track {choice.kept[0]}, {choice.reason}"
            + (f", and {others} more at other times" if others else "")
        )
    values = tracks.rows(choice.kept, settings.missing)
    lost = int((values[:, -1] == 0).sum())
    if lost:
        what = {"zero": "zeros", "interpolate": "interpolated"}[settings.missing]
        face = "the kept face" if several else "a face"
        _note(f"{lost} of {total} frames ({lost / total:.1%}) are without {face}: {what}")
    return Rows(values, _cells(tracks.times, clip))


def _note(text: str) -> None:
    warnings.warn(text, MertoolWarning, stacklevel=3)


def _cells(times: np.ndarray, clip: Clip) -> np.ndarray:
    """(T, 2) cells of frames: each to the next, the last as long as is usual, within the clip."""
    from mertool.media import cells

    end = None
    if len(times) > 1:
        end = times[-1] + np.median(np.diff(times))
        if clip.end is not None:
            end = min(end, clip.end - clip.start)
    return cells(times, end)
