"""Odd videos of faces, made from two real clips, and what `mertool extract` gives for them."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np

import mertool
from mertool import media
from mertool.cli.common import table
from mertool.types import Clip

RATE = 16000  # Hz
WIDE = (2160, 3840)  # height, width of the 4k video
DAMAGED = "corrupt_middle"
IN_SIGHT = 0.9  # share of the frames in which a face in sight must be found
BLOCK = 24  # pixels; a face cut up into these is none
HOLE = 6000  # bytes


class Odd(NamedTuple):
    """An odd video.

    Attributes:
        name: Its file is NAME.mp4.
        frames: Frames written.
        faces: Faces in a frame.
        seen: Smallest share of frames in which the face must be found.
    """

    name: str
    frames: int
    faces: int
    seen: float


def measure(one: Clip, other: Clip) -> list[dict[str, Any]]:
    """Extract a folder of odd videos, made of two clips with a face each.

    Returns:
        One entry per video: name, frames, faces and seen as in `Odd`; failure ("" = none), notes;
        and where it did not fail rows, valid (share), found (faces per frame), tracks (kept).
    """
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        folder, out = Path(temporary) / "odd", Path(temporary) / "odd.h5"
        folder.mkdir()
        videos = write_all(folder, one, other)
        report = common.mertool(
            "extract", folder, "-o", out,
            "--text", "none", "--audio", "none", "--vision", "facemesh",
        ).report  # fmt: skip
        with mertool.open(out) as file:
            columns = list(file.streams["vision"].columns)
            rows = {clip.id: clip.streams["vision"].values for clip in file}
    told = {name: error.replace(f"{folder}{os.sep}", "") for name, _, error in report["failures"]}
    result = []
    for video in videos:
        notes = [note for name, note in report["notes"] if name == video.name]
        entry = {**video._asdict(), "failure": told.get(video.name, ""), "notes": notes}
        if video.name in rows:
            values = dict(zip(columns, rows[video.name].T, strict=True))
            n = len(values["valid"])
            entry |= {
                "rows": n,
                "valid": float(values["valid"].mean()) if n else 0.0,
                "found": float(values["faces"].mean()) if n else 0.0,
                "tracks": len({*values["track"]} - {0}),
            }
        result.append(entry)
    return result


def misses(result: list[dict[str, Any]]) -> list[str]:
    return [f"{video['name']}: {miss}" for video in result for miss in wrong(video)]


def wrong(video: dict[str, Any]) -> list[str]:
    """What is not as it should be with a video."""
    if video["name"] == DAMAGED:
        return [] if video["failure"] else ["is damaged and did not fail"]
    if video["failure"]:
        return [f"failed: {video['failure']}"]
    if not video["faces"]:
        return [f"{video['rows']} rows, but no face"] if video["rows"] else []
    found = []
    if video["rows"] != video["frames"] and (video["seen"] or video["rows"]):
        found.append(f"{video['rows']} rows of {video['frames']} frames")
    if video["valid"] < video["seen"]:
        found.append(f"a face in {video['valid']:.0%} of the frames, at least {video['seen']:.0%}")
    if video["seen"] >= IN_SIGHT and abs(video["found"] - video["faces"]) > 0.1 * video["faces"]:
        found.append(f"{video['found']:.2f} faces per frame, not {video['faces']}")
    return found


def lines(result: list[dict[str, Any]]) -> list[str]:
    rows = []
    for v in result:
        figures = ["-"] * 4
        if not v["failure"]:
            figures = [str(v["rows"]), f"{v['valid']:.2f}", f"{v['found']:.2f}", str(v["tracks"])]
        rows.append([v["name"], str(v["frames"]), *figures])
    told = [table(["odd video", "frames", "rows", "valid", "faces", "tracks"], rows)]
    for v in result:
        told += [f"{v['name']}: {note}" for note in v["notes"]]
        told += [f"{v['name']} FAILED: {v['failure']}"] if v["failure"] else []
    return told


def key(result: list[dict[str, Any]]) -> str:
    good = sum(not wrong(video) for video in result)
    return f"{good} of {len(result)} odd videos as they should be"


def write_all(folder: Path, one: Clip, other: Clip) -> list[Odd]:
    """Write every odd video into a folder.

    Raises:
        BenchmarkError: A clip has no picture.
    """
    images, second = pictures(one), pictures(other)
    fps, sound = media.probe(one.media).fps, one.audio(RATE)

    def make(
        name: str,
        shown: Sequence[np.ndarray],
        faces: int,
        seen: float,
        change: Callable[[Path], None] | None = None,
        pixels: str = "yuv420p",
    ) -> Odd:
        path = folder / f"{name}.mp4"
        write(path, shown, fps, sound[: round(len(shown) / fps * RATE)], pixels)
        if change:
            change(path)
        return Odd(name, len(shown), faces, seen)

    pairs = [
        np.hstack([image, fitted(beside, image.shape[:2])])
        for image, beside in zip(images, second, strict=False)
    ]
    turned = [np.rot90(image) for image in images]
    return [
        make("plain", images, 1, IN_SIGHT),
        make("two_faces", pairs, 2, IN_SIGHT),
        make("no_face", [cut_up(image) for image in images], 0, 0),
        make("face_leaves", list(leaving(images)), 1, 0.3),
        make("rotated", turned, 1, IN_SIGHT, change=upright),
        make("turned", turned, 1, 0),  # nothing says that it lies on its side
        make("greyscale", images, 1, IN_SIGHT, pixels="gray"),
        make("4k", [fitted(image, WIDE) for image in images[: round(fps)]], 1, IN_SIGHT),
        make("one_frame", images[:1], 1, IN_SIGHT),
        make(DAMAGED, images, 1, 0, change=hole),
    ]


def pictures(clip: Clip) -> list[np.ndarray]:
    """All frames of a clip, (H, W, 3) uint8 RGB.

    Raises:
        BenchmarkError: It has none.
    """
    images = [image for _, image in clip.frames()]
    if not images:
        raise common.BenchmarkError(f"The clip {clip.id} has no picture. Give another --data.")
    return images


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture scaled into (height, width), in its middle, on its own mean colour."""
    import av

    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    h, w = round(height * scale), round(width * scale)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = image.mean(axis=(0, 1))
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    canvas[top : top + h, left : left + w] = frame.reformat(w, h).to_ndarray()
    return canvas


def cut_up(image: np.ndarray) -> np.ndarray:
    """The picture's blocks in another order, the same for every frame: its colours, no face."""
    rows, columns = (n // BLOCK for n in image.shape[:2])
    inner = image[: rows * BLOCK, : columns * BLOCK]
    blocks = inner.reshape(rows, BLOCK, columns, BLOCK, 3).swapaxes(1, 2)
    order = np.random.default_rng(0).permutation(rows * columns)
    blocks = blocks.reshape(rows * columns, BLOCK, BLOCK, 3)[order].reshape(blocks.shape)
    mixed = image.copy()
    mixed[: rows * BLOCK, : columns * BLOCK] = blocks.swapaxes(1, 2).reshape(inner.shape)
    return mixed


def leaving(images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The picture moves out to the right, stays away, and comes back: a third of the time each."""
    n = len(images)
    for i, image in enumerate(images):
        away = np.interp(i / max(n - 1, 1), [0, 0.2, 0.35, 0.65, 0.8, 1], [0, 0, 1, 1, 0, 0])
        shift = round(away * image.shape[1])
        shown = np.empty_like(image)
        shown[:] = image.mean(axis=(0, 1))
        shown[:, shift:] = image[:, : image.shape[1] - shift]
        yield shown


def write(
    path: Path, images: Sequence[np.ndarray], fps: float, sound: np.ndarray, pixels: str = "yuv420p"
) -> None:
    """Write an MP4 of H.264 and, where there is any, mono sound.

    Args:
        path: File to write.
        images: (H, W, 3) uint8 RGB, all of one size.
        fps: Frames per second.
        sound: (S,) float32 at `RATE`.
        pixels: FFmpeg's name of the pixel format stored.
    """
    import av

    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        video.height, video.width = (n // 2 * 2 for n in images[0].shape[:2])
        video.pix_fmt = pixels
        audio: Any = container.add_stream("aac", rate=RATE, layout="mono") if len(sound) else None
        for i, image in enumerate(images):
            even = np.ascontiguousarray(image[: video.height, : video.width])
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio:
            piece = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = RATE, 0, Fraction(1, RATE)
            size = audio.codec_context.frame_size
            cutter = av.AudioResampler(audio.format, "mono", RATE, size)
            for part in cutter.resample(piece) + cutter.resample(None):
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))


def upright(path: Path) -> None:
    """Have players turn the picture clockwise by a quarter, as a phone held upright asks them to.

    Sets the matrix of the track header box `tkhd` (ISO/IEC 14496-12, 8.3.2), which maps a stored
    point (x, y), y downwards, to (a x + c y, b x + d y).
    """
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # of a version 0 box; the picture is the first track
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def hole(path: Path) -> None:
    """Overwrite the middle of the file with zeros, as a bad sector does."""
    data = bytearray(path.read_bytes())
    start = (len(data) - HOLE) // 2
    data[start : start + HOLE] = bytes(HOLE)
    path.write_bytes(data)
