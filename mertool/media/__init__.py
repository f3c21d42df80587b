"""Reading video and sound: frames with their real times, mono sound, what a file holds.

One clock serves both: its zero is the earliest start of the file's picture and sound (0 if that is
negative), and all times are seconds from a clip's `start` on that clock. So sound that begins late
is preceded by zeros, and a picture that begins late has a first frame later than 0. All is
streamed: memory does not grow with the length of a file.

source.py reads files through FFmpeg (PyAV), sound.py decodes sound; here is what others use.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mertool.errors import MediaError, UsageError
from mertool.media.sound import decode_sound, open_sound, read_sound
from mertool.media.source import checked, decode, open_source, turns

SUFFIXES = frozenset(
    ".mp4 .mkv .avi .mov .flv .mpg .mpeg .webm .m4v .wmv .3gp .ts .mts .m2ts .ogv .vob "
    ".wav .flac .mp3 .ogg .oga .opus .m4a .aac .aif .aiff .au .wma".split()
)


@dataclass(frozen=True)
class MediaInfo:
    """What a media file holds.

    Attributes:
        duration: Length in seconds.
        has_video: It has a picture (cover art does not count).
        has_audio: It has sound.
        width: Width of the upright picture, after rotation; 0 without picture.
        height: Height of the upright picture; 0 without picture.
        fps: Mean frame rate; 0 without picture.
        rotation: Degrees that stored frames are turned counter-clockwise to stand upright.
        sample_rate: Of the sound as stored, Hz; 0 without sound.
        channels: Channels of the sound as stored.
        audio_tracks: Number of sound tracks; one of them is used.
    """

    duration: float
    has_video: bool
    has_audio: bool
    width: int = 0
    height: int = 0
    fps: float = 0.0
    rotation: int = 0
    sample_rate: int = 0
    channels: int = 0
    audio_tracks: int = 0


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Find out what a media file holds; of its picture, only the first frame is decoded.

    Raises:
        MediaError: The file is missing, a folder, empty, no media file, or cannot be decoded.
    """
    file = checked(path)
    if sound := open_sound(file):
        with sound:
            rate = sound.samplerate
            return MediaInfo(
                sound.frames / rate, False, True, 0, 0, 0.0, 0, rate, sound.channels, 1
            )
    with open_source(file) as source:
        width, height, fps, rotation, rate, channels = 0, 0, 0.0, 0, 0, 0
        if source.video:
            fps = float(source.video.average_rate or source.video.guessed_rate or 0)
            for _, frame in source.decode(source.video):
                rotation, width, height = round(frame.rotation), frame.width, frame.height
                if turns(frame) % 2:
                    width, height = height, width
                break
        if source.audio:
            rate = source.audio.codec_context.sample_rate
            channels = source.audio.codec_context.layout.nb_channels
        size = (width, height, fps, rotation, rate, channels, source.audio_tracks)
        return MediaInfo(source.duration(), width > 0, bool(source.audio), *size)


def frames(
    path: str | os.PathLike[str],
    start: float = 0.0,
    end: float | None = None,
    fps: float | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode the picture, one frame at a time.

    Args:
        path: Media file.
        start: Start of the clip in the file, seconds.
        end: End of the clip, exclusive, seconds; None = the file's end.
        fps: Emit the first frame at or after each multiple of 1 / fps; None = every frame.

    Yields:
        (real time of the frame in seconds from `start`, (H, W, 3) uint8 upright RGB), times
        increasing. Nothing without a picture.

    Raises:
        MediaError: The file cannot be read, is damaged, or ends before `start`.
    """
    file = checked(path, start, end)
    if fps is not None and not fps > 0:
        raise UsageError("The frame rate must be above 0.", f"fps={fps}", "Leave it out for all.")
    tick = 0  # number of the next multiple of 1 / fps
    for time, frame in decode(file, "video", start, end):
        time -= start
        if time < -1e-6:
            continue
        if end is not None and time >= end - start - 1e-6:
            return
        if fps is not None:
            if time < tick / fps - 1e-3:  # Matroska and FLV round times to a millisecond
                continue
            tick = math.floor((time + 1e-3) * fps) + 1
        image = np.rot90(frame.to_ndarray(format="rgb24"), turns(frame))
        yield max(time, 0.0), np.ascontiguousarray(image)


def cells(times: np.ndarray, end: float | None = None) -> np.ndarray:
    """Turn frame times into cells: each frame stands until the next one.

    Args:
        times: (T,) increasing frame times, seconds.
        end: Where the last cell ends; None = after the interval before it, or 0.04 s if T = 1.

    Returns:
        (T, 2) float64, start and end of each cell.
    """
    times = np.asarray(times, np.float64)
    if not len(times):
        return np.zeros((0, 2))
    if end is None or end <= times[-1]:
        end = times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0.04)
    return np.column_stack([times, np.append(times[1:], end)])


def audio(
    path: str | os.PathLike[str],
    rate: int = 16000,
    start: float = 0.0,
    end: float | None = None,
    channel: str = "mean",
) -> np.ndarray:
    """Read the sound of a clip whole; arguments and errors as in `audio_blocks`.

    Returns:
        (S,) float32; sample i is at i / rate seconds from `start`. Empty without sound.
    """
    sound, size = np.empty(60 * rate, np.float32), 0
    for block in audio_blocks(path, rate, start, end, channel):
        while size + len(block) > len(sound):
            # In place: the system moves pages, so the samples are not held twice.
            sound.resize(2 * len(sound), refcheck=False)
        sound[size : size + len(block)] = block
        size += len(block)
    sound.resize(size, refcheck=False)
    return sound


def audio_blocks(
    path: str | os.PathLike[str],
    rate: int = 16000,
    start: float = 0.0,
    end: float | None = None,
    channel: str = "mean",
) -> Iterator[np.ndarray]:
    """Read the sound of a clip block by block, in constant memory.

    Integers are scaled to [-1, 1) (16 bits: by 1 / 32768); lossy codecs may exceed that a little
    and are not clipped. Gaps are zeros. Where the sound ends before `end`, so do the blocks.

    Args:
        path: Media file.
        rate: Sampling rate wanted, Hz.
        start: Start of the clip in the file, seconds.
        end: End of the clip, exclusive, seconds; None = the file's end.
        channel: "mean" of the channels, or "first".

    Yields:
        (n,) float32, n varies. Nothing without sound.

    Raises:
        MediaError: The file cannot be read, is damaged, ends before `start`, or holds samples
            that are no numbers.
    """
    file = checked(path, start, end)
    if channel not in ("mean", "first"):
        raise UsageError("Unknown audio channel.", f'channel="{channel}"', 'Use "mean" or "first".')
    sound = open_sound(file)
    resampler = None
    for source_rate, block in (
        read_sound(sound, file, start, end) if sound else decode_sound(file, start, end)
    ):
        if not len(block):
            continue
        # Resampling is linear: averaging before it is the same and cheaper.
        mono = block.mean(axis=1) if channel == "mean" else np.ascontiguousarray(block[:, 0])
        if not np.isfinite(mono).all():
            what = "The sound holds samples that are not finite numbers."
            raise MediaError(what, str(file), "Export it again, as 16-bit WAV or FLAC.")
        if source_rate == rate:
            yield mono
            continue
        import av

        resampler = resampler or av.AudioResampler(format="flt", layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(mono[None], format="flt", layout="mono")
        frame.sample_rate = source_rate
        yield from (out.to_ndarray()[0] for out in resampler.resample(frame))
    if resampler:  # what its filter still holds
        yield from (out.to_ndarray()[0] for out in resampler.resample(None))
