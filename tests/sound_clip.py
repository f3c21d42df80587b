"""A clip that needs no file, for tests of what reads its sound."""

from __future__ import annotations

import numpy as np

from mertool.types import Clip

RATE = 16000  # Hz


class SoundClip(Clip):
    """A clip whose sound is given: (S,), or (S, C) with C channels.

    `channel` is the one last asked for.
    """

    def __init__(self, sound: np.ndarray) -> None:
        super().__init__(id="clip")
        self.sound = np.asarray(sound, np.float32)
        self.channel = ""

    def audio(self, rate: int = RATE, channel: str = "mean") -> np.ndarray:
        assert rate == RATE
        self.channel = channel
        if self.sound.ndim == 1:
            return self.sound.copy()  # a new array each time: an extractor may overwrite it
        return self.sound.mean(axis=1) if channel == "mean" else self.sound[:, 0].copy()
