"""Decoding sound: sound files with libsndfile, everything else with FFmpeg."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mertool.errors import MediaError
from mertool.media.source import CONVERT, damaged, decode, too_late

if TYPE_CHECKING:
    from soundfile import SoundFile

# libsndfile is exact to the sample where FFmpeg leaves an MP3's or Opus file's encoder delay in.
_SOUNDFILE = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .au".split())
_GAP = 0.05  # seconds that the sound's time stamps may be off before they are believed
_BLOCK = 1 << 16  # samples


def open_sound(file: Path) -> SoundFile | None:
    """Open a sound file with libsndfile; None where FFmpeg must do it."""
    suffix = file.suffix.lower()
    if suffix not in _SOUNDFILE or (suffix == ".mp3" and not _tells_length(file)):
        return None
    import soundfile

    try:
        sound = soundfile.SoundFile(file)
    except soundfile.SoundFileError:
        return None
    if sound.seekable() and sound.frames < 1 << 60:  # that many = the header gives no length
        return sound
    sound.close()
    return None


def _tells_length(file: Path) -> bool:
    """Whether an MP3 has a header frame; without one its length is only guessed."""
    with file.open("rb") as stream:
        tag = stream.read(10)  # ID3v2: its size is in the last four bytes, 7 bits each
        size = sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))
        stream.seek(10 + size if tag[:3] == b"ID3" else 0)
        frame = stream.read(4096)
    return any(name in frame for name in (b"Xing", b"Info", b"VBRI"))


def read_sound(
    sound: SoundFile, file: Path, start: float, end: float | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (sampling rate, (n, channels) float32) from an open sound file, and close it."""
    import soundfile

    with sound:
        rate, length = sound.samplerate, sound.frames
        at, stop = round(start * rate), length if end is None else min(length, round(end * rate))
        if start > 0 and at >= length:
            raise too_late(file, start, length / rate)
        try:
            sound.seek(at)
            while at < stop:
                block = sound.read(min(_BLOCK, stop - at), dtype="float32", always_2d=True)
                if not len(block):
                    break
                at += len(block)
                yield rate, block
        except soundfile.SoundFileError as error:
            raise damaged(file, f"its sound breaks after {at / rate:.2f} s") from error
        if stop - at > max(0.5 * rate, 0.1 * length):
            raise damaged(file, f"its sound ends at {at / rate:.2f} of {length / rate:.2f} s")


def decode_sound(file: Path, start: float, end: float | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (sampling rate, (n, channels) float32) decoded by FFmpeg, its gaps filled."""
    rate, at = 0, 0  # `at`: samples since `start`, negative before it
    for time, frame in decode(file, "audio", start, end):
        block, begin = _samples(frame), round((time - start) * frame.sample_rate)
        first = not rate
        if first:
            rate, at = frame.sample_rate, min(0, begin)
        if frame.sample_rate != rate:
            what = f"The sampling rate changes from {rate} to {frame.sample_rate} Hz."
            raise MediaError(what, str(file), CONVERT)
        stop = math.inf if end is None else round((end - start) * rate)
        if first or abs(begin - at) > _GAP * rate:
            block = block[max(0, at - begin) :]  # an overlap is dropped, a gap is silence
            while at < min(begin, stop):
                size = min(_BLOCK, min(begin, stop) - at)
                yield rate, np.zeros((max(0, at + size) - max(0, at), block.shape[1]), np.float32)
                at += size
        after = at + len(block)
        yield rate, block[max(0, -at) : max(0, min(after, stop) - at)]
        at = after
        if at >= stop:
            return


def _samples(frame: Any) -> np.ndarray:
    """Samples of a decoded frame as (n, channels) float32, integers scaled to [-1, 1)."""
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    scale = 1.0 if data.dtype.kind == "f" else -float(np.iinfo(data.dtype).min)
    return (data / scale).astype(np.float32)
