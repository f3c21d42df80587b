"""Files read through FFmpeg: their streams, one clock for both, and what breaks in them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mertool.errors import MediaError, MertoolWarning

# Containers (FFmpeg's names) whose header says how long they are; elsewhere FFmpeg guesses.
_DECLARING = frozenset("mov matroska flv asf wav w64 flac".split())
# Containers that store time stamps or an index, so that seeking keeps the clock.
_SEEKABLE = _DECLARING | {"avi", "mpeg", "mpegts", "ogg"}
CONVERT = "See whether a player opens it; convert it with ffmpeg to MP4 (H.264, AAC) or WAV."
_RECOPY = "Copy or download the file again, or leave it out."
_MEND = "Correct start and end in the manifest."


def checked(path: str | os.PathLike[str], start: float = 0.0, end: float | None = None) -> Path:
    """Refuse what FFmpeg would refuse with an obscure reason, or not at all."""
    file = Path(path)
    if start < 0 or (end is not None and end <= start):
        raise MediaError(f"A clip cannot go from {start} s to {end} s.", str(file), _MEND)
    if not file.exists():
        raise MediaError("There is no such media file.", str(file), "Check the path.")
    if file.is_dir():
        raise MediaError("This is a folder, not a media file.", str(file), "Name a file in it.")
    size = file.stat().st_size
    if not size:
        raise MediaError(f"{file.name} is empty (0 bytes).", str(file), _RECOPY)
    try:
        with file.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        what = f"{file.name} cannot be opened: {error.strerror}."
        raise MediaError(what, str(file), "Check the permissions of the file.") from error
    # Readers silently shorten a RIFF or AIFF file that ends before the length it declares. Values
    # near the field's limit come from programs that did not know the length when they wrote it.
    if head[:4] in (b"RIFF", b"FORM"):
        declared = int.from_bytes(head[4:], "little" if head[:4] == b"RIFF" else "big")
        if size < 0.9 * declared and declared < 0x7FFFF000:
            raise damaged(file, f"{size} of {declared + 8} bytes are there")
    return file


def damaged(file: Path, detail: str) -> MediaError:
    """The error for a file that breaks in the middle."""
    return MediaError(f"{file.name} is damaged or truncated: {detail}.", str(file), _RECOPY)


def too_late(file: Path, start: float, end: float) -> MediaError:
    """The error for a clip that starts behind the end of its file."""
    what = f"The clip starts at {start:g} s, but {file.name} ends at {end:g} s."
    return MediaError(what, str(file), _MEND)


def turns(frame: Any) -> int:
    """Quarter turns, counter-clockwise, that make a decoded frame upright."""
    return round(frame.rotation / 90) % 4


def decode(file: Path, kind: str, start: float, end: float | None) -> Iterator[tuple[float, Any]]:
    """Yield (time on the file's clock, frame) of its video or audio, from `start` or before."""
    # An index may point behind the time asked for; then go back further, at last to the beginning.
    for margin in [m for m in (0.5, 10.0) if m < start] + [math.inf]:
        with open_source(file) as source:
            stream = source.video if kind == "video" else source.audio
            if stream is None:
                return
            if margin < math.inf and not source.seek(start - margin):
                continue
            found = source.decode(stream, end)
            first = next(found, None)
            if margin < math.inf and (first is None or first[0] > start):
                continue
            if kind == "audio" and source.audio_tracks > 1:
                warnings.warn(source.which_track(), MertoolWarning, stacklevel=2)
            if first is not None:
                yield first
                yield from found
            if start > 0 and source.reached() <= start:
                raise too_late(file, start, source.reached())
            return


@contextmanager
def open_source(file: Path) -> Iterator[Source]:
    """Open a file with FFmpeg and choose its streams."""
    import av

    try:
        # An absolute path, or FFmpeg takes "a:b.mp4" for a protocol; and files only, so that a
        # playlist in disguise reaches no network.
        container = av.open(
            os.path.abspath(file),
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file"},
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        what = f"{file.name} is not a video or sound file that can be read"
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{what} ({reason}).", str(file), CONVERT) from error
    with container:
        yield Source(file, container)


class Source:
    """An open media file with its chosen streams: the container's default ones.

    Attributes:
        video: The picture's stream, or None.
        audio: The sound's stream, or None.
        audio_tracks: Number of sound streams.
        origin: The clock's zero in the file's own time, seconds.
    """

    def __init__(self, file: Path, container: Any) -> None:
        from av.stream import Disposition

        self.file, self.container, self.sought = file, container, False
        self.formats = set(container.format.name.split(","))
        self.ends: dict[int, float] = {}  # stream index: end of its packets, in the file's time
        still = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [s for s in container.streams if s.type in ("video", "audio") and s.codec_context]
        pictures = [s for s in streams if s.type == "video" and not s.disposition & still]
        self.sounds = [s for s in streams if s.type == "audio"]
        # FFmpeg also shows text files (as "tty") and images as video.
        image = any(f in ("tty", "image2") or f.endswith("_pipe") for f in self.formats)
        if image or not (pictures or self.sounds):
            what = f"{file.name} holds neither video nor sound that can be decoded."
            raise MediaError(what, str(file), CONVERT)
        self.video = _best(container.streams.best("video"), pictures)
        self.audio = _best(container.streams.best("audio"), self.sounds)
        self.audio_tracks = len(self.sounds)
        self.chosen = [s for s in (self.video, self.audio) if s]
        starts = [float((s.start_time or 0) * s.time_base) for s in self.chosen]
        self.origin = max(0.0, min(starts))

    def which_track(self) -> str:
        """A sentence saying which of several sound tracks is used."""
        tags = [self.audio.metadata.get(key, "") for key in ("language", "title")]
        name = ", ".join(tag for tag in tags if tag not in ("", "und"))
        used = f"track {self.sounds.index(self.audio) + 1}" + (f" ({name})" if name else "")
        return f"{self.file.name} has {self.audio_tracks} sound tracks; {used} is used"

    def reached(self) -> float:
        """End of the packets read so far on the file's clock, seconds."""
        return max(self.ends.values(), default=self.origin) - self.origin

    def duration(self) -> float:
        """Length in seconds; where no header gives it, the packets are read to the end."""
        if self.container.duration and self.formats & _DECLARING:
            # Matroska declares the end on the file's own clock.
            return self.container.duration / 1e6 - self.origin * ("matroska" in self.formats)
        for _ in self.packets():
            pass
        return self.reached()

    def seek(self, time: float) -> bool:
        """Go to a key frame near or before `time`; False where the file cannot."""
        import av

        try:
            if self.formats & _SEEKABLE:
                self.container.seek(int((time + self.origin) * 1e6))
                self.sought = True
        except av.error.FFmpegError:  # an FLV without index
            pass
        return self.sought

    def packets(self) -> Iterator[Any]:
        """Packets of the chosen streams to the end of the file, then the flushing ones."""
        import av

        try:
            for packet in self.container.demux(self.chosen):
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    index = packet.stream.index
                    self.ends[index] = max(end, self.ends.get(index, end))
                yield packet
        except av.error.FFmpegError as error:
            raise damaged(self.file, f"it breaks after {self.reached():.2f} s") from error

    def decode(self, stream: Any, end: float | None = None) -> Iterator[tuple[float, Any]]:
        """Yield (time on the file's clock, frame) from where the file stands.

        Raises:
            MediaError: The stream breaks, or ends clearly before its header and `end` say.
        """
        import av

        video = stream.type == "video"
        last = following = None  # time of the last frame; where the next one is expected
        first_dts = delay = None
        frame_step = 1 / float(stream.average_rate or 25) if video else 0.0
        broken = False
        for packet in self.packets():
            if packet.stream.index != stream.index:
                continue
            first_dts = packet.dts if first_dts is None else first_dts
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                # Before the first frame this is how a cut recording starts, after the last one how
                # it ends (and the length then tells whether much is missing).
                broken = last is not None
                continue
            if decoded and broken and packet.size:  # size 0: flushing at the end of the file
                raise damaged(self.file, f"its {stream.type} breaks after {last:.2f} s")
            for frame in decoded:
                stamp = frame.pts
                if video and "avi" in self.formats:
                    # AVI has no presentation times and FFmpeg's guesses disorder B-frames. Frames
                    # come out in order, late by the decoder's delay.
                    delay = (frame.dts or 0) - (first_dts or 0) if delay is None else delay
                    stamp = None if frame.dts is None else frame.dts - delay
                time = following or 0.0
                if stamp is not None:
                    time = float(stamp * frame.time_base) - self.origin
                if video and last is not None and time <= last:
                    continue
                step = frame_step if video else frame.samples / frame.sample_rate
                last, following = time, time + step
                shown = following + self.origin
                self.ends[stream.index] = max(shown, self.ends.get(stream.index, shown))
                yield time, frame
        if last is None and stream.index in self.ends and not self.sought:
            raise damaged(self.file, f"its {stream.type} cannot be decoded")
        declared, reached = 0.0, self.ends.get(stream.index, 0.0)
        if self.formats & _DECLARING and stream.duration is not None:
            declared = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        elif self.formats & _DECLARING and self.container.duration:
            declared, reached = self.container.duration / 1e6, max(self.ends.values(), default=0.0)
        wanted = min(declared, math.inf if end is None else end + self.origin)
        if wanted - reached > max(0.5, 0.1 * declared):
            detail = f"its {stream.type} ends at {reached:.2f} of {declared:.2f} s"
            raise damaged(self.file, detail)


def _best(stream: Any, allowed: list[Any]) -> Any:
    return stream if stream in allowed else next(iter(allowed), None)
