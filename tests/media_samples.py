"""Makers of small media files, whole and odd, for the tests: nothing binary is kept in the tree.

Pictures are 64x48 and carry their frame number, so that a test sees which frame it was given.
`write_media` makes any of them; `ODD` names the ready-made odd ones, each a function of a path.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WIDTH, HEIGHT = 64, 48


class Track(NamedTuple):
    """A sound track: (C, S) float32 samples, Hz, start in seconds, ISO 639-2 language."""

    samples: np.ndarray
    rate: int = 16000
    start: float = 0.0
    language: str = ""


def tone(seconds: float, rate: int = 16000, hz: float = 440.0, channels: int = 1) -> np.ndarray:
    """(channels, S) float32 sine of amplitude 0.5, phase 0 at time 0; the same in every channel."""
    time = np.arange(round(seconds * rate)) / rate
    return np.tile(np.float32(0.5 * np.sin(2 * np.pi * hz * time)), (channels, 1))


def click(at: float, seconds: float, rate: int = 16000) -> np.ndarray:
    """(1, S) float32 silence with 20 ms of a 1 kHz tone that begins at `at` seconds."""
    sound = np.zeros((1, round(seconds * rate)), np.float32)
    begin = round(at * rate)
    sound[0, begin : begin + rate // 50] = 0.8 * np.cos(2000 * np.pi * np.arange(rate // 50) / rate)
    return sound


def onset(sound: np.ndarray, rate: int = 16000) -> float:
    """Seconds at which (S,) samples first exceed 0.2: where a `click` is heard."""
    return float(np.argmax(np.abs(sound) > 0.2)) / rate


def picture(number: int) -> np.ndarray:
    """(48, 64, 3) uint8: `number` (0..255) as 8 black and white bars over red and blue halves."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(8):
        image[: HEIGHT // 2, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    image[HEIGHT // 2 :, : WIDTH // 2] = (255, 0, 0)
    image[HEIGHT // 2 :, WIDTH // 2 :] = (0, 0, 255)
    return image


def number_of(image: np.ndarray) -> int:
    """The frame number in an upright `picture`, after lossy coding."""
    bars = image[HEIGHT // 4, 4::8, 1]
    return sum(1 << bit for bit in range(8) if bars[bit] > 127)


def write_media(
    path: Path,
    times: Sequence[float] = (),
    tracks: Sequence[Track] = (),
    images: Callable[[int], np.ndarray] = picture,
    video: str = "libx264",
    audio: str = "aac",
    ticks: int = 90000,
    codec_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write a video or sound file with PyAV.

    Args:
        path: File to write; its suffix chooses the container.
        times: Seconds at which the frames begin; empty = no picture.
        tracks: Sound tracks.
        images: Picture of frame i; all of one size.
        video: Encoder of the picture.
        audio: Encoder of the sound.
        ticks: Time stamps per second (the MPEG-4 and AVI encoders need the frame rate here).
        codec_options: Options of the picture's encoder.
        options: Options of the container, such as movflags="faststart".
    """
    import av

    path = Path(path)
    with av.open(str(path), "w", options=options) as container:
        sounds = []
        if len(times):
            step = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
            rate = Fraction(1 / step).limit_denominator(1001)
            stream: Any = container.add_stream(video, rate=rate, options=codec_options or {})
            stream.height, stream.width = images(0).shape[:2]
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(video, "yuv420p")
            stream.codec_context.time_base = Fraction(1, ticks)
        for track in tracks:
            layout = "mono" if len(track.samples) == 1 else "stereo"
            sounds.append(container.add_stream(audio, rate=track.rate, layout=layout))
            if track.language:
                sounds[-1].metadata["language"] = track.language
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(images(i), format="rgb24")
            frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
        if len(times):
            container.mux(stream.encode(None))
        for track, sound in zip(tracks, sounds, strict=True):
            layout = "mono" if len(track.samples) == 1 else "stereo"
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(track.samples, np.float32), format="fltp", layout=layout
            )
            frame.sample_rate = track.rate
            frame.pts = round(track.start * track.rate)
            frame.time_base = Fraction(1, track.rate)
            size = sound.codec_context.frame_size or 1024
            cutter = av.AudioResampler(sound.format, layout, track.rate, frame_size=size)
            for piece in cutter.resample(frame) + cutter.resample(None):
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))
    return path


def steady(seconds: float, fps: float = 25.0, start: float = 0.0) -> np.ndarray:
    """Frame times of a constant rate."""
    return start + np.arange(round(seconds * fps)) / fps


# Display times of a phone's variable frame rate, seconds.
UNEVEN = np.array([0.0, 0.03, 0.07, 0.1, 0.22, 0.25, 0.3, 0.41, 0.5, 0.62, 0.65, 0.8, 0.95])


def talking(path: Path, seconds: float = 1.0, hz: float = 440.0, **options: Any) -> Path:
    """A plain video: 25 frames per second and a mono tone at 16 kHz."""
    return write_media(path, steady(seconds), [Track(tone(seconds, hz=hz))], **options)


def set_rotation(path: Path, degrees: int) -> Path:
    """Make players turn an MP4's picture clockwise by 90, 180 or 270 degrees.

    Patches the matrix of the track header box `tkhd` (ISO/IEC 14496-12, 8.3.2), which maps a stored
    point (x, y), y downwards, to (a x + c y, b x + d y).
    """
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # a version 0 box; the picture is the first track
    data[matrix : matrix + 36] = struct.pack(
        ">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    """Keep the first `share` of a file's bytes, as an interrupted download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def noisy(seconds: float, rate: int = 16000) -> np.ndarray:
    """(1, S) float32 noise: fills a file with sound that does not compress away."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (1, round(seconds * rate))).astype("f4")


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str = "PCM_16") -> Path:
    """Write (C, S) samples with libsndfile; the suffix chooses the format."""
    import soundfile

    soundfile.write(path, samples.T, rate, subtype=subtype if path.suffix == ".wav" else None)
    return path


def _bad_samples(path: Path) -> Path:
    sound = tone(0.5)
    sound[0, 1000] = np.nan
    return write_wav(path.with_suffix(".wav"), sound, subtype="FLOAT")


def _text(path: Path) -> Path:
    path.write_text("This is a transcript, not a video.\n" * 50)
    return path


def _bytes(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _no_picture(path: Path) -> Path:
    return write_media(path, (), [Track(tone(1.0))])


# name: maker(path with suffix .mp4) -> the file written. `BROKEN` names those that cannot be read.
ODD: dict[str, Callable[[Path], Path]] = {
    "silent": lambda path: write_media(path, steady(1), [Track(np.zeros((1, 16000), np.float32))]),
    "no_sound": lambda path: write_media(path, steady(1)),
    "no_picture": _no_picture,
    "uneven": lambda path: write_media(path, UNEVEN, [Track(tone(1.0))]),
    # A phone held upright: the sensor's rows run down the picture, and the header says so.
    "rotated": lambda path: set_rotation(talking(path, images=lambda i: np.rot90(picture(i))), 90),
    "two_tracks": lambda path: write_media(
        path, steady(1), [Track(tone(1.0), language="eng"), Track(tone(1.0, hz=880))]
    ),
    "late_sound": lambda path: write_media(path, steady(1), [Track(tone(1.0), start=0.3)]),
    "late_picture": lambda path: write_media(path, steady(1, start=0.4), [Track(tone(1.4))]),
    "telephone": lambda path: write_wav(path.with_suffix(".wav"), tone(1.0, 8000), 8000),
    "bad_samples": _bad_samples,
    "empty": _bytes,
    "text": _text,
    "cut": lambda path: cut(write_media(path, steady(2), [Track(noisy(2))])),
    "cut_faststart": lambda path: cut(
        write_media(path, steady(2), [Track(noisy(2))], movflags="faststart")
    ),
}
BROKEN = ("bad_samples", "empty", "text", "cut", "cut_faststart")
