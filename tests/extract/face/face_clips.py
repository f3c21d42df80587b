"""Clips with given pictures, sound and faces, for the tests of face extractors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mertool.types import Clip

FPS = 25.0


class FrameClip(Clip):
    """A clip whose frames and sound are given; frames are at FPS unless `times` says otherwise.

    Attributes:
        fps: The rate that frames() was last asked for; -1 = never called.
        listened: How often the sound was read.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        end: float | None = None,
        sound: np.ndarray | None = None,
        rate: int = 16000,
        times: Sequence[float] | None = None,
    ) -> None:
        """Args: images (H, W, 3) uint8; sound (S,) at `rate` Hz, None = the clip has none."""
        super().__init__(id="clip", end=end)
        self.images = images
        self.at = [i / FPS for i in range(len(images))] if times is None else list(times)
        self.sound, self.rate = sound, rate
        self.fps: float | None = -1.0
        self.listened = 0

    def frames(self, fps: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
        self.fps = fps
        return self._frames(fps)

    def _frames(self, fps: float | None) -> Iterator[tuple[float, np.ndarray]]:
        tick = 0  # as mertool.media.frames: the first frame at or after each multiple of 1 / fps
        for time, image in zip(self.at, self.images, strict=True):
            if fps is not None:
                if time < tick / fps - 1e-3:
                    continue
                tick = math.floor((time + 1e-3) * fps) + 1
            yield time, image

    def audio(self, rate: int = 16000, channel: str = "mean") -> np.ndarray:
        self.listened += 1
        if self.sound is None:
            return np.zeros(0, np.float32)
        length = round(len(self.sound) * rate / self.rate)
        points = np.arange(length) * (self.rate / rate)
        return np.interp(points, np.arange(len(self.sound)), self.sound).astype(np.float32)
