"""Clips that extractors and aligners are tried on: one real, the others odd."""

from __future__ import annotations

import csv
import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np

from mertool.demo import CLIPS
from mertool.extract.worker import measure
from mertool.types import Clip

RATE, FPS, SIZE = 16000, 25, 128  # Hz, frames per second, pixels


def ordinary() -> Clip:
    """The first clip of the demo: a face that speaks a sentence, with its transcript."""
    with open(CLIPS / "manifest.csv", newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    return _clip(CLIPS / row["path"], row["text"], row["language"])


def part(clip: Clip, start: float, end: float) -> Clip:
    """A stretch of a clip's file, seconds."""
    return measure(dataclasses.replace(clip, id=f"{clip.id}-part", start=start, end=end))


def blank(folder: Path, text: str = "") -> Clip:
    """Half a second of black frames and silence."""
    path = folder / "blank.mp4"
    _write(path, np.zeros(RATE // 2, np.float32), FPS // 2)
    return _clip(path, text)


def mute(folder: Path) -> Clip:
    """Half a second of black frames, without a sound track or a transcript."""
    path = folder / "mute.mp4"
    _write(path, None, FPS // 2)
    return _clip(path)


def blind(folder: Path, rate: int = RATE) -> Clip:
    """A second of sound without a picture, a transcript: harmonics of a gliding voice, 0 to 3 kHz.

    Computed at the rate, not resampled, so that the rates differ in nothing else.
    """
    import soundfile

    time = np.arange(rate) / rate
    phase = 2 * np.pi * (120 * time + 20 * time**2)  # 120 to 160 Hz
    sound = sum(np.sin(k * phase) / k for k in range(1, 19))
    sound *= 0.2 * np.minimum(1, 20 * np.minimum(time, 1 - time))  # no click at either end
    path = folder / f"blind{rate}.wav"
    soundfile.write(path, sound.astype(np.float32), rate, subtype="FLOAT")
    return _clip(path)


def _clip(path: Path, text: str = "", language: str = "en") -> Clip:
    return measure(
        Clip(path.stem, path.name, str(path.parent), text=text, language=language)
    )  # as the pipeline hands it over: with its true end and its words


def _write(path: Path, sound: np.ndarray | None, frames: int) -> None:
    import av

    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", FPS)
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        audio = None if sound is None else file.add_stream("aac", RATE, layout="mono")
        black = np.zeros((SIZE, SIZE, 3), np.uint8)
        for _ in range(frames):
            file.mux(video.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
        file.mux(video.encode())
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            file.mux(audio.encode(frame))
            file.mux(audio.encode())
