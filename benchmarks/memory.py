"""Does the memory of `mertool extract` grow with the length of a clip?

A real clip is repeated into a file of 10 seconds and one of 10 minutes (made in a temporary
folder); each is extracted alone, by the default extractors. Facial landmarks take about a fifth of
the clip's length or more, so allow some minutes.

Target: the peak resident set of the long one is at most 150 MB above that of the short one.
"""

from __future__ import annotations

import itertools
import resource
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import common
import numpy as np

from mertool import manifest, media
from mertool.cli.common import table
from mertool.types import Clip

SHORT = 10.0  # seconds
MOST = 150.0  # MB
RATE = 16000  # Hz


def main() -> int:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="its first clip is repeated  [default: grid]"
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of the long clip  [default: 10]"
    )
    args = parser.parse_args()
    folder = common.folder(args.data, "grid")
    clip = manifest.read([folder]).clips[0]
    result: dict[str, Any] = {"data": folder.name, "clip": clip.id, "files": {}}
    with tempfile.TemporaryDirectory(prefix="mertool-") as temporary:
        for name, seconds in (("short", SHORT), ("long", args.minutes * 60)):
            path = Path(temporary) / f"{name}.mp4"
            common.say(f"write a clip of {seconds:g} s")
            repeat(clip, path, seconds)
            path.with_suffix(".txt").write_text(clip.text, encoding="utf-8")
            common.say("extract it")
            result["files"][name] = measure(path)
    result["above"] = result["files"]["long"]["peak"] - result["files"]["short"]["peak"]
    return common.finish(args, result, misses(result), lines(result), key_figure(result))


def repeat(clip: Clip, target: Path, seconds: float) -> None:
    """Write an MP4 that shows a clip again and again for `seconds`."""
    import av

    rate = Fraction(media.probe(clip.media).fps).limit_denominator(1001)
    frames = [av.VideoFrame.from_ndarray(image, format="rgb24") for _, image in clip.frames()]
    if not frames:
        raise common.BenchmarkError(
            f"The first clip, {clip.id}, has no picture. Give another --data."
        )
    frames = [frame.reformat(format="yuv420p") for frame in frames]
    # Picture and sound repeat together, every len(frames) / rate seconds.
    samples = np.zeros(round(len(frames) / rate * RATE), np.float32)
    sound = clip.audio(RATE)[: len(samples)]
    samples[: len(sound)] = sound
    samples = np.tile(samples, 2 + RATE // len(samples))  # any second of the loop in one piece
    period = round(len(frames) / rate * RATE)
    with av.open(str(target), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=rate, bit_rate=2_000_000)
        video.width, video.height = frames[0].width, frames[0].height
        video.pix_fmt = "yuv420p"
        audio: Any = container.add_stream("aac", rate=RATE, layout="mono")
        cutter = av.AudioResampler(audio.format, "mono", RATE, audio.codec_context.frame_size)
        pictures, shown = itertools.cycle(frames), 0
        # Second by second, or the writer would hold one back to wait for the other.
        for second in range(round(seconds)):
            while shown < (second + 1) * rate:
                frame = next(pictures)
                frame.pts, frame.time_base = shown, 1 / rate
                container.mux(video.encode(frame))
                shown += 1
            start = second * RATE % period
            block = samples[None, start : start + RATE]
            piece = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block), format="fltp", layout="mono"
            )
            piece.sample_rate, piece.pts = RATE, second * RATE
            piece.time_base = Fraction(1, RATE)
            for part in cutter.resample(piece):
                container.mux(audio.encode(part))
        for part in cutter.resample(None):
            container.mux(audio.encode(part))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def measure(path: Path) -> dict[str, Any]:
    """Extract one file; its length, rows of each stream, time and peak memory.

    Raises:
        BenchmarkError: This process has itself grown past the one that it measures. (The system
            also counts what a process held before it became another program.)
    """
    import mertool

    out = path.with_suffix(".h5")
    ran = common.mertool("extract", path, "-o", out)
    if common.megabytes(resource.getrusage(resource.RUSAGE_SELF)) >= ran.peak:
        raise common.BenchmarkError("The clip is too large to be repeated. Give another --data.")
    with mertool.open(out) as file:
        rows = {name: int(file.lengths(name).sum()) for name in file.streams}
        seconds = sum(clip.end - clip.start for clip in file)
    return {"seconds": seconds, "rows": rows, "wall": ran.wall, "peak": ran.peak}


def misses(result: dict[str, Any]) -> list[str]:
    found = []
    if result["above"] > MOST:
        found.append(f"{result['above']:.0f} MB above the short clip, at most {MOST:.0f}")
    short, long = result["files"]["short"], result["files"]["long"]
    for stream in ("audio", "vision"):
        # Memory that a lost face or a cut sound saves is no merit.
        due = 0.9 * short["rows"][stream] / short["seconds"] * long["seconds"]
        if not long["rows"][stream] or long["rows"][stream] < due:
            found.append(f"the long clip has {long['rows'][stream]} {stream} rows, about {due:.0f}")
    return found


def lines(result: dict[str, Any]) -> list[str]:
    rows = [
        [name, f"{f['seconds']:.0f}", *f["rows"].values(), f"{f['wall']:.1f}", f"{f['peak']:.0f}"]
        for name, f in result["files"].items()
    ]
    streams = [f"{name} rows" for name in result["files"]["short"]["rows"]]
    return [table(["clip", "seconds", *streams, "wall s", "peak MB"], rows), ""]


def key_figure(result: dict[str, Any]) -> str:
    short, long = (result["files"][name]["peak"] for name in ("short", "long"))
    minutes = round(result["files"]["long"]["seconds"] / 60, 1)
    return f"{minutes:g} minutes: {result['above']:+.0f} MB, {long / short:.2f} times 10 seconds"


if __name__ == "__main__":
    common.main(main)
