"""Faces followed from frame to frame, and the choice of the one whose rows are kept."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mertool.extract.face.voice import agreement, energy, excess
from mertool.types import Clip

COLUMNS = ("faces", "track", "valid")
KEEP = ("speaker", "largest")
MISSING = ("zero", "interpolate")

# Least overlap of a face with where it was last seen, area in common over area covered. A face
# may so move by half its width between two frames, while heads that stand side by side hardly
# overlap. The value and the assignment are those of SORT (Bewley et al. 2016), without its model
# of motion.
_OVERLAP = 0.3
# Seconds that a track outlives its face: detectors miss a face for some frames in a turn of the
# head or behind a hand. Later, another face may well be at its place.
_ALIVE = 1.0
# Weight of a mouth that opens with each syllable against one that moves while the voice is loud.
_SYNC = 4.0


@dataclass
class Face:
    """A face seen in one frame.

    Attributes:
        box: (4,) left, top, right, bottom, pixels.
        values: (D,) float32, finite: the extractor's own columns.
        mouth: Opening of the lips over the size of the face. An extractor measures it of every
            face, or leaves it 0 throughout.
    """

    box: np.ndarray
    values: np.ndarray
    mouth: float = 0.0


@dataclass(frozen=True)
class Choice:
    """Which tracks are kept.

    Attributes:
        kept: Their numbers, best first.
        reason: Why the first was preferred; "" where no two faces were seen at the same time, so
            that all tracks are kept.
    """

    kept: tuple[int, ...]
    reason: str = ""


class _Last(NamedTuple):
    """Where a track's face was last seen."""

    box: np.ndarray
    time: float
    frame: int


class Tracks:
    """The faces of one clip, followed by the overlap of their boxes.

    Each face goes to the track that it overlaps with where that was last seen, such that the sum
    of overlaps is largest; one that overlaps with none by 0.3 begins a track. A track ends when
    its face was unseen for 1 s, but not before the next frame, at however low a rate. Faces that
    pass before each other may change tracks; a cut to a face at the same place goes on as the
    same track.

    Values are held in plain arrays: 4 bytes per face and column.

    Args:
        width: D, number of values per face.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.number = 0  # tracks so far
        self._live: dict[int, _Last] = {}
        self._named: dict[int, int] = {}
        # Per frame.
        self._times, self._counts = array("d"), array("i")
        # Per face.
        self._frame, self._track = array("i"), array("i")
        self._area, self._mouth, self._values = array("d"), array("d"), array("f")

    @property
    def times(self) -> np.ndarray:
        """(T,) times of the frames, seconds."""
        return np.array(self._times)

    @property
    def counts(self) -> np.ndarray:
        """(T,) number of faces in each frame."""
        return np.array(self._counts, np.int64)

    def add(self, time: float, faces: list[Face], ids: list[int] | None = None) -> None:
        """Add the next frame.

        Args:
            time: Its time in seconds, after that of the frame before.
            faces: The faces seen in it.
            ids: Which face is which, where that is known: equal numbers, equal track. Nothing is
                then followed by overlap.

        Raises:
            ValueError: A face has another number of values, a box or mouth that is not finite, or
                the id of another.
        """
        frame = len(self._times)
        if ids is None:
            tracks = self._follow(time, frame, [np.asarray(face.box, float) for face in faces])
        else:
            if len(set(ids)) < len(ids) or len(ids) != len(faces):
                raise ValueError(f"ids={ids} must be one per face, all different")
            tracks = [self._named.get(name) or self._new(name) for name in ids]
        for face, track in zip(faces, tracks, strict=True):
            values = np.asarray(face.values, np.float32)
            if values.shape != (self.width,):
                raise ValueError(f"a face has values {values.shape}, not ({self.width},)")
            left, top, right, bottom = face.box
            if not np.isfinite([*face.box, face.mouth]).all():
                raise ValueError(f"a face has box={face.box}, mouth={face.mouth}: not finite")
            self._values.frombytes(values.tobytes())
            self._area.append(max(right - left, 0) * max(bottom - top, 0))
            self._mouth.append(face.mouth)
            self._frame.append(frame)
            self._track.append(track)
        self._times.append(time)
        self._counts.append(len(faces))

    def _new(self, name: int | None = None) -> int:
        self.number += 1
        if name is not None:
            self._named[name] = self.number
        return self.number

    def _follow(self, time: float, frame: int, boxes: list[np.ndarray]) -> list[int]:
        """The track of each box."""
        from scipy.optimize import linear_sum_assignment

        self._live = {
            track: last
            for track, last in self._live.items()
            if last.frame == frame - 1 or time - last.time <= _ALIVE
        }
        if not boxes:
            return []
        tracks = [0] * len(boxes)
        if self._live:
            live = list(self._live)
            common = overlaps(np.stack(boxes), np.stack([self._live[t].box for t in live]))
            # What is too little counts nothing, so that it cannot outweigh a true match.
            common[common < _OVERLAP] = 0
            for box, place in zip(*linear_sum_assignment(common, maximize=True), strict=True):
                if common[box, place]:
                    tracks[box] = live[place]
        for i, box in enumerate(boxes):
            tracks[i] = tracks[i] or self._new()
            self._live[tracks[i]] = _Last(box, time, frame)
        return tracks

    def choose(self, clip: Clip, keep: str) -> Choice:
        """Choose the tracks whose rows are kept.

        The best track, and then, best first, each that has no frame in common with those already
        kept: so a face that leaves and comes back goes on, and so does one in the next shot, but
        a face seen beside the kept one never takes its place.

        Best for "largest" is the largest sum of box areas. Best for "speaker" is the largest total
        of two. The sum, over every two frames of the track that follow each other, of |change of
        the mouth's opening| times the level of the sound around them (dB) less its mean over the
        clip, which tells who talks from who is still; and 4 times `voice.agreement`, which tells
        apart two who talk at the same time. Where no total is above 0, and among equals, the
        largest is best.

        Args:
            clip: For its sound, which is read only where a frame shows more than one face.
            keep: "speaker" or "largest".

        Returns:
            The kept tracks and the reason.

        Raises:
            MediaError: The sound cannot be decoded.
        """
        if not any(count > 1 for count in self._counts):
            return Choice(tuple(range(1, self.number + 1)))
        track = np.array(self._track)
        size = np.bincount(track, np.array(self._area), self.number + 1)
        score, reason = np.zeros(self.number + 1), "the largest"
        if keep == "speaker":
            score, missing = self._speaking(clip)
            reason = f"{reason} ({missing})" if missing else "whose mouth moves with the voice"
        # By track, and within each by frame: faces are added frame by frame.
        order = np.argsort(track, kind="stable")
        ends = np.cumsum(np.bincount(track, minlength=self.number + 1))
        frames = np.array(self._frame)[order]
        taken, kept = np.zeros(len(self._times), bool), []
        for number in sorted(range(1, self.number + 1), key=lambda n: (-score[n], -size[n], n)):
            own = frames[ends[number - 1] : ends[number]]
            if not taken[own].any():
                taken[own] = True
                kept.append(number)
        return Choice(tuple(kept), reason)

    def _speaking(self, clip: Clip) -> tuple[np.ndarray, str]:
        """(number of tracks + 1,) scores, at least 0, and what keeps them all 0, or ""."""
        none = np.zeros(self.number + 1)
        if not any(self._mouth):
            return none, "mouths are not measured"
        step, rms = energy(clip)
        if not rms.any():
            return none, "there is no sound"
        track, frame = np.array(self._track), np.array(self._frame)
        order = np.argsort(track, kind="stable")
        a, b = order[:-1], order[1:]
        follow = (track[a] == track[b]) & (frame[a] + 1 == frame[b])
        a, b = a[follow], b[follow]
        mouth, times = np.array(self._mouth), np.array(self._times)
        loud = excess(step, rms, times[frame[a]], times[frame[b]])
        score = np.bincount(track[a], loud * np.abs(mouth[b] - mouth[a]), self.number + 1)
        ends = np.cumsum(np.bincount(track, minlength=self.number + 1))
        for number in range(1, self.number + 1):
            own = order[ends[number - 1] : ends[number]]
            for run in np.split(own, np.flatnonzero(np.diff(frame[own]) > 1) + 1):
                score[number] += _SYNC * agreement(step, rms, times[frame[run]], mouth[run])
        score = np.maximum(score, 0)
        return score, "" if score.any() else "no mouth moves with the sound"

    def rows(self, kept: tuple[int, ...], missing: str) -> np.ndarray:
        """The rows of the kept tracks, no two of which may share a frame.

        Args:
            kept: Numbers of tracks.
            missing: Frames without a kept face: "zero" or "interpolate", linear in time between
                the rows before and after; at either end, the nearest row.

        Returns:
            (T, D + 3) float32: the values, number of faces in the frame, track (0 = none), and
            valid (1 = measured).
        """
        table = np.zeros((len(self._times), self.width + len(COLUMNS)), np.float32)
        table[:, -3] = self._counts
        frame, track = np.array(self._frame, np.int64), np.array(self._track, np.int64)
        own = np.flatnonzero(np.isin(track, kept))
        if not len(own):
            return table
        values = np.frombuffer(self._values, np.float32).reshape(len(track), self.width)
        for part in np.array_split(own, len(own) // 4096 + 1):  # a third copy of all is spared
            table[frame[part], : self.width] = values[part]
        table[frame[own], -2] = track[own]
        table[frame[own], -1] = 1
        if missing == "interpolate":
            seen = table[:, -1] == 1
            for column in table.T[: self.width] if not seen.all() else ():
                column[~seen] = np.interp(self.times[~seen], self.times[seen], column[seen])
        return table


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area in common over area covered, of (n, 4) and (m, 4) boxes.

    Returns:
        (n, m) from 0 to 1; 0 for boxes without area.
    """
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    area_a, area_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=-1) for x in (a, b))
    covered = area_a[:, None] + area_b - common
    return np.divide(common, covered, out=np.zeros_like(common), where=covered > 0)
