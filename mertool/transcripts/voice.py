"""Voice activity: where in a recording somebody speaks.

The decisions are those of the WebRTC project's detector, which comes with pocketsphinx: a Gaussian
mixture over the energies of six bands, per 10 ms. It knows absolute levels only, so the sound is
first brought to one level; then it finds the same in a quiet recording as in a loud one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mertool.errors import MertoolError

RATE = 16000  # Hz
FRAMES = 100  # decisions per second
PAUSE = 0.15  # seconds; a shorter gap belongs to the speech around it: a stop consonant, say
BURST = 0.15  # seconds; a shorter stretch is a click, which is heard about 0.07 s longer than it is

# Chosen on the 18 GRID clips with reference word times, clean and with noise at 20, 10 and 5 dB:
# 97 to 98% of the frames are right, against 79% at the detector's own levels.
_MODE = 2  # of 0 (takes much for speech) to 3
_LEVEL = -30.0  # dB re full scale: where the 99th percentile of the frames' levels is brought
_SILENCE = -80.0  # dB; below it there is nothing to be brought up
_LATE = 0.05  # seconds by which the detector notices a start late (median on the same clips)
_HOP = RATE // FRAMES


@dataclass(frozen=True)
class Activity:
    """What is heard in a recording.

    Attributes:
        stretches: (start, end) of each stretch with voice, seconds, in order, not overlapping.
        levels: (T,) float32, level of each 10 ms in dB re full scale.
    """

    stretches: list[tuple[float, float]]
    levels: np.ndarray

    @property
    def duration(self) -> float:
        """Length of the sound in seconds, whole frames."""
        return len(self.levels) / FRAMES

    def pauses(self, start: float, end: float) -> list[tuple[float, float]]:
        """(start, end) of each part of start..end in which nobody speaks."""
        edges = [start, *(t for s in self.stretches for t in s), end]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        gaps = [(max(a, start), min(b, end)) for a, b in gaps]
        return [(a, b) for a, b in gaps if b > a]


def voiced(sound: np.ndarray) -> list[tuple[float, float]]:
    """Find the stretches of a sound in which somebody speaks.

    Args:
        sound: (S,) float32 in [-1, 1) at 16 kHz.

    Returns:
        (start, end) in seconds, in order, not overlapping, within the sound. None where nobody
        speaks. Gaps below 0.15 s do not part stretches, and stretches below 0.15 s are left out.

    Raises:
        MertoolError: pocketsphinx is not installed.
    """
    return activity(lambda: [sound]).stretches


def span(sound: np.ndarray) -> tuple[float, float] | None:
    """From the first voice to the last, seconds; None where nobody speaks. See `voiced`."""
    stretches = voiced(sound)
    return (stretches[0][0], stretches[-1][1]) if stretches else None


def activity(read: Callable[[], Iterable[np.ndarray]]) -> Activity:
    """Find where somebody speaks in a sound of any length, which is read twice, block by block.

    Args:
        read: Gives the sound's blocks from its start, each (n,) float32 at 16 kHz.

    Returns:
        Stretches as in `voiced`, and levels.

    Raises:
        MertoolError: pocketsphinx is not installed.
    """
    try:
        from pocketsphinx import Vad
    except ImportError as error:
        raise MertoolError(
            "Voices cannot be found: pocketsphinx is not installed.",
            f"import pocketsphinx: {error}",
            "pip install pocketsphinx",
        ) from error

    levels = [10 * np.log10((f**2).mean(axis=1) + 1e-12) for f in _framed(read())]
    level = np.concatenate([np.zeros(0, np.float32), *levels]).astype(np.float32)
    if not len(level) or (loud := float(np.percentile(level, 99))) < _SILENCE:
        return Activity([], level)
    gain = 32768 * 10 ** ((_LEVEL - loud) / 20)
    detector = Vad(_MODE, RATE, 1 / FRAMES)
    spoken: list[bool] = []
    for frames in _framed(read()):
        samples = np.clip(np.rint(frames * gain), -32768, 32767).astype(np.int16)
        spoken += [detector.is_speech(frame.tobytes()) for frame in samples]
    return Activity(_stretches(np.array(spoken)), level)


def _framed(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The sound as (n, 160) frames; what is left at its end is dropped."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block]) if len(rest) else block
        whole = len(rest) // _HOP * _HOP
        if whole:
            yield rest[:whole].reshape(-1, _HOP)
        rest = rest[whole:]


def _stretches(spoken: np.ndarray) -> list[tuple[float, float]]:
    """From (T,) decisions to stretches: starts mended, pauses closed, bursts dropped."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], spoken.astype(np.int8), [0]])))
    # A burst counts as long as the detector heard it, so that is asked before starts are mended.
    joined: list[list[int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if joined and start - joined[-1][1] < (PAUSE + _LATE) * FRAMES:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    kept = [(a, b) for a, b in joined if b - a >= BURST * FRAMES]
    return [(max(0.0, a / FRAMES - _LATE), b / FRAMES) for a, b in kept]


def utterances(
    heard: Activity, apart: float, most: float = math.inf, margin: float = 0.2
) -> list[tuple[float, float]]:
    """Put stretches together to pieces that stand alone.

    Args:
        heard: What is heard.
        apart: A pause of so many seconds always parts two pieces.
        most: Longest piece in seconds; a longer one is cut by `cut`.
        margin: Seconds by which a piece reaches into the pauses around it, half of one at most.

    Returns:
        (start, end) of each piece, in order, not overlapping.
    """
    joined: list[tuple[float, float]] = []
    for start, end in heard.stretches:
        if joined and start - joined[-1][1] < apart:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [
        piece
        for a, b in widened(joined, heard.duration, margin)
        for piece in cut(heard, a, b, most)
    ]


def widened(
    spans: Sequence[tuple[float, float]], duration: float, margin: float
) -> list[tuple[float, float]]:
    """Spans that reach `margin` seconds further, but not beyond the middle to the next."""
    result = []
    for i, (start, end) in enumerate(spans):
        low = (spans[i - 1][1] + start) / 2 if i else 0.0
        high = (end + spans[i + 1][0]) / 2 if i + 1 < len(spans) else max(end, duration)
        result.append((max(start - margin, min(low, start)), min(end + margin, max(high, end))))
    return result


def cut(heard: Activity, start: float, end: float, most: float) -> list[tuple[float, float]]:
    """Divide a part of a recording into pieces of at most `most` seconds.

    A cut falls into the middle of the longest pause of the piece's second half; where there is
    none, of the last pause of its first half; and where nobody pauses, into the quietest 0.1 s of
    the second half. Without sound the pieces are of one length.

    Returns:
        (start, end) of each piece; each begins where the one before ends.
    """
    if end - start <= most:
        return [(start, end)]
    if not len(heard.levels):
        edges = np.linspace(start, end, math.ceil((end - start) / most) + 1).tolist()
        return list(zip(edges, edges[1:], strict=False))
    pieces = []
    while end - start > most:
        at = _place(heard, start, start + most)
        pieces.append((start, at))
        start = at
    return [*pieces, (start, end)]


def _place(heard: Activity, low: float, high: float) -> float:
    """Where to cut, a multiple of 10 ms between a quarter of low..high and its end."""
    middle, quarter = (low + high) / 2, low + (high - low) / 4
    late, early = heard.pauses(middle, high), heard.pauses(quarter, middle)
    if late:
        a, b = max(late, key=lambda pause: pause[1] - pause[0])
    elif early:
        a, b = early[-1]
    else:
        first, last = math.ceil(middle * FRAMES), math.floor(high * FRAMES)
        power = 10 ** (heard.levels[first:last].astype(np.float64) / 10)
        width = min(10, len(power))
        smooth = np.convolve(power, np.ones(width), "valid")
        a = b = (first + int(np.argmin(smooth)) + width // 2) / FRAMES
    return min(max(math.ceil((a + b) / 2 * FRAMES) / FRAMES, quarter), high)
