from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from face_clips import FrameClip
from hypothesis import given, settings
from hypothesis import strategies as st

from mertool.extract.face.tracks import Choice, Face, Tracks, overlaps

RATE = 4000
NOBODY = FrameClip([])  # without sound


def square(x: float, y: float = 0.0, size: float = 100.0) -> np.ndarray:
    return np.array([x, y, x + size, y + size])


def face(box: np.ndarray, value: float = 1.0, mouth: float = 0.0) -> Face:
    return Face(box, np.array([value], np.float32), mouth)


def follow(frames: list[list[np.ndarray]], fps: float = 25.0) -> list[list[int]]:
    """The track of each box of each frame."""
    tracks = Tracks(1)
    for i, boxes in enumerate(frames):
        tracks.add(i / fps, [face(box) for box in boxes])
    ends = np.cumsum([len(boxes) for boxes in frames])
    return [list(part) for part in np.split(np.array(tracks._track), ends[:-1])]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes, with whole numbers as corners, by counting pixels."""
    grid = np.zeros((2, 60, 60), bool)
    for layer, (left, top, right, bottom) in zip(grid, (a, b), strict=True):
        layer[int(top) : int(bottom), int(left) : int(right)] = True
    either = (grid[0] | grid[1]).sum()
    return (grid[0] & grid[1]).sum() / either if either else 0.0


box = st.tuples(*[st.integers(0, 29)] * 2, *[st.integers(0, 30)] * 2).map(
    lambda v: np.array([v[0], v[1], v[0] + v[2], v[1] + v[3]], float)
)


@settings(deadline=None)
@given(st.lists(box, min_size=1, max_size=4), st.lists(box, min_size=1, max_size=4))
def test_overlaps(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    np.testing.assert_allclose(
        overlaps(np.stack(a), np.stack(b)), [[overlap(x, y) for y in b] for x in a]
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(box, max_size=3), min_size=2, max_size=3))
def test_every_assignment_is_the_best(frames: list[list[np.ndarray]]) -> None:
    """By trying all, against the boxes that each track was last seen at."""
    last: dict[int, np.ndarray] = {}
    for boxes, numbers in zip(frames, follow(frames), strict=True):
        assert len(set(numbers)) == len(numbers)

        common = {(n, i): overlap(last[n], b) for n in last for i, b in enumerate(boxes)}
        common = {pair: value for pair, value in common.items() if value >= 0.3}

        def worth(numbers: tuple[int, ...], common: dict = common) -> float:
            return sum(common.get((number, i), 0.0) for i, number in enumerate(numbers))

        new = [-1 - i for i in range(len(boxes))]  # each box may begin a track
        best = max(map(worth, permutations([*last, *new], len(boxes))), default=0.0)
        assert worth(tuple(numbers)) == pytest.approx(best)
        for number, here in zip(numbers, boxes, strict=True):
            assert number not in last or overlap(last[number], here) >= 0.3
            last[number] = here


def test_numbers_in_order_of_appearance() -> None:
    frames = [[], [square(0)], [square(300), square(2)], [square(600), square(303), square(4)]]
    assert follow(frames) == [[], [1], [2, 1], [3, 2, 1]]


@pytest.mark.parametrize(("moved", "same"), [(53, True), (55, False)])
def test_a_face_may_move_by_half_its_width(moved: float, same: bool) -> None:
    """Overlap (100 - d) / (100 + d) = 0.3 at d = 53.8."""
    assert follow([[square(0)], [square(moved)]]) == [[1], [1 if same else 2]]


@pytest.mark.parametrize(
    ("fps", "gap", "same"),
    [(25, 24, True), (25, 25, False), (2, 1, True), (2, 2, False), (0.2, 0, True), (0.2, 1, False)],
)
def test_a_face_that_leaves_and_returns(fps: float, gap: int, same: bool) -> None:
    """In place within 1 s it is the same track; at a low rate, from one frame to the next."""
    numbers = follow([[square(0)], *[[]] * gap, [square(10)]], fps)
    assert numbers[-1] == [1 if same else 2]


def test_two_that_approach_and_part() -> None:
    """Up to an overlap of 0.6, and each nearer to its own last place than to the other's."""
    left = [*np.linspace(0, 100, 26), *np.linspace(100, 0, 26)]
    frames = [[square(x, 10), square(225 - x)][:: (-1) ** i] for i, x in enumerate(left)]
    assert overlaps(*(np.stack([b]) for b in frames[25]))[0, 0] > 0.5
    assert follow(frames) == [[1, 2], [2, 1]] * 26


def test_two_that_pass_each_other_at_different_heights() -> None:
    frames = [[square(x, 0), square(500 - x, 60)] for x in np.linspace(0, 500, 60)]
    assert follow(frames) == [[1, 2]] * 60


def test_the_sum_of_overlaps_decides() -> None:
    """Greedily, the second face would take the first's track, and the first begin a new one."""
    before = [square(0), square(50)]
    after = [square(-40), square(20)]
    assert follow([before, after]) == [[1, 2], [1, 2]]
    common = overlaps(np.stack(after), np.stack(before))
    assert common.argmax() == 2  # of the second with the first's place


def test_boxes_without_area() -> None:
    assert follow([[np.zeros(4)], [np.zeros(4)], [np.array([5.0, 5, 3, 3])]]) == [[1], [2], [3]]


def test_given_ids() -> None:
    tracks = Tracks(1)
    tracks.add(0.0, [face(square(0), 1), face(square(300), 2)], [7, 0])
    tracks.add(1.0, [])
    tracks.add(9.0, [face(square(300), 3)], [7])
    tracks.add(9.1, [face(square(0), 4), face(square(1), 5)], [3, 7])
    np.testing.assert_array_equal(
        tracks.rows((1,), "zero")[:, [0, 2]], [[1, 1], [0, 0], [3, 1], [5, 1]]
    )
    np.testing.assert_array_equal(
        tracks.rows((2, 3), "zero")[:, [0, 2]], [[2, 2], [0, 0], [0, 0], [4, 3]]
    )


@pytest.mark.parametrize(
    ("faces", "ids"),
    [
        ([Face(square(0), np.zeros(2, np.float32))], None),
        ([Face(square(0), np.zeros((1, 1), np.float32))], None),
        ([face(square(0)), face(square(300))], [1, 1]),
        ([face(square(0))], [1, 2]),
        ([face(np.array([0, 0, np.nan, 1]))], None),
        ([face(square(0), mouth=float("inf"))], None),
    ],
)
def test_impossible_faces(faces: list[Face], ids: list[int] | None) -> None:
    with pytest.raises(ValueError, match="values|ids|not finite"):
        Tracks(1).add(0.0, faces, ids)


# The choice. Voice: noise in bursts of 0.4 s, with pauses of 0.4 s.
SECONDS = 6.0
TIMES = np.arange(round(25 * SECONDS)) / 25


def speaks(time: np.ndarray) -> np.ndarray:
    return np.asarray(time) % 0.8 < 0.4


def voice() -> np.ndarray:
    time = np.arange(round(RATE * SECONDS)) / RATE
    noise = np.random.default_rng(0).normal(size=len(time))
    return np.where(speaks(time), 0.1, 0.003) * noise


def moving(when: np.ndarray, height: float = 0.08) -> np.ndarray:
    """Opening of a mouth that moves while `when`; its detector jitters a little all the time."""
    jitter = np.random.default_rng(1).normal(size=len(when)) * 0.002
    return np.where(when, height * np.abs(np.sin(np.arange(len(when)) * 0.9)), 0) + 0.01 + jitter


MOUTHS = {
    "talks": moving(speaks(TIMES - 0.04)),
    "still": moving(np.zeros(len(TIMES), bool)),
    "chews": moving(~speaks(TIMES), 0.2),
    "chews on": moving(np.ones(len(TIMES), bool), 0.2),
}


def pair(first: str, second: str, sizes: tuple[float, float] = (100, 100)) -> Tracks:
    tracks = Tracks(1)
    for i, time in enumerate(TIMES):
        pairs = zip((first, second), (0, 300), sizes, strict=True)
        tracks.add(time, [face(square(x, 0, size), size, MOUTHS[m][i]) for m, x, size in pairs])
    return tracks


@pytest.mark.parametrize("other", ["still", "chews", "chews on"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("size", [40.0, 100.0, 200.0])
def test_the_speaker_is_kept(other: str, first: bool, size: float) -> None:
    names = ("talks", other) if first else (other, "talks")
    clip = FrameClip([], sound=voice(), rate=RATE)
    choice = pair(*names, (size, 100) if first else (100, size)).choose(clip, "speaker")
    assert choice == Choice((1 if first else 2,), "whose mouth moves with the voice")
    assert clip.listened == 1


def test_the_largest_is_kept() -> None:
    clip = FrameClip([], sound=voice(), rate=RATE)
    assert pair("talks", "still", (90, 100)).choose(clip, "largest") == Choice((2,), "the largest")
    assert pair("talks", "still", (100, 90)).choose(clip, "largest") == Choice((1,), "the largest")
    assert clip.listened == 0


def test_the_largest_is_measured_over_all_frames() -> None:
    """100 frames of 100 by 100 are more than 10 frames of 200 by 200."""
    tracks = Tracks(1)
    for i in range(100):
        tracks.add(i / 25, [face(square(300, 0, 200))] * (i >= 90) + [face(square(0))])
    assert tracks.choose(NOBODY, "largest").kept == (1,)


@pytest.mark.parametrize(
    ("sound", "names", "reason"),
    [
        (None, ("talks", "still"), "there is no sound"),
        (np.zeros(24000), ("talks", "still"), "there is no sound"),
        (voice(), ("chews", "chews"), "no mouth moves with the sound"),
    ],
)
def test_the_largest_where_nobody_is_heard(
    sound: np.ndarray | None, names: tuple[str, str], reason: str
) -> None:
    clip = FrameClip([], sound=sound, rate=RATE)
    for sizes, kept in (((90, 100), (2,)), ((100, 90), (1,))):
        choice = pair(*names, sizes).choose(clip, "speaker")
        assert choice == Choice(kept, f"the largest ({reason})")


def test_the_largest_where_no_mouth_is_measured() -> None:
    tracks = Tracks(1)
    for time in TIMES:
        tracks.add(time, [face(square(0, 0, 90)), face(square(300))])
    clip = FrameClip([], sound=voice(), rate=RATE)
    choice = tracks.choose(clip, "speaker")
    assert choice == Choice((2,), "the largest (mouths are not measured)")
    assert clip.listened == 0


def test_among_equals_the_first() -> None:
    assert pair("still", "still").choose(NOBODY, "speaker").kept == (1,)


def test_a_jump_over_frames_without_the_face_is_no_movement() -> None:
    """A still face seen only in every second frame, its mouth once here, once there."""
    tracks = Tracks(1)
    for i, time in enumerate(TIMES):
        jumping = face(square(300, 0, 50), mouth=0.5 * speaks(time) * (i // 2 % 2))
        tracks.add(time, [face(square(0), mouth=MOUTHS["talks"][i])] + [jumping] * (i % 2))
    assert tracks.choose(FrameClip([], sound=voice(), rate=RATE), "speaker").kept == (1,)


def test_from_one_track_to_another_is_no_movement() -> None:
    """Beside a still face, each frame shows another, some with an open mouth."""
    tracks = Tracks(1)
    for i, time in enumerate(TIMES):
        other = face(square(300 * (i + 1), 0, 50), mouth=0.5 * speaks(time) * (i % 2))
        tracks.add(time, [face(square(0), mouth=0.1), other])
    choice = tracks.choose(FrameClip([], sound=voice(), rate=RATE), "speaker")
    assert choice == Choice((1,), "the largest (no mouth moves with the sound)")


def test_alone_all_tracks_are_kept_and_nothing_is_heard() -> None:
    """It leaves for 2 s, then a cut to another place."""
    clip = FrameClip([], sound=voice(), rate=RATE)
    tracks = Tracks(1)
    for i in range(200):
        tracks.add(i / 25, [] if 50 <= i < 100 else [face(square(400 * (i >= 150)), mouth=0.1 * i)])
    assert tracks.choose(clip, "speaker") == Choice((1, 2, 3))
    assert clip.listened == 0
    track = tracks.rows((1, 2, 3), "zero")[:, 2]
    np.testing.assert_array_equal(track, np.repeat([1, 0, 2, 3], 50))


def test_a_face_seen_beside_the_kept_one_never_fills_in() -> None:
    """A: frames 0-99 and, after a cut, 150-199 elsewhere. B beside it all the time."""
    tracks = Tracks(1)
    for i in range(200):
        a = [face(square(0, 0, 200), 1)] if i < 100 else [face(square(900, 0, 200), 3)] * (i >= 150)
        tracks.add(i / 25, [*a, face(square(400), 2)])
    choice = tracks.choose(NOBODY, "largest")
    assert choice.kept == (1, 3)
    rows = tracks.rows(choice.kept, "zero")
    np.testing.assert_array_equal(rows[:, 0], np.repeat([1, 1, 0, 3], 50))
    np.testing.assert_array_equal(rows[:, 1], np.repeat([2, 2, 1, 2], 50))
    np.testing.assert_array_equal(rows[:, 2], np.repeat([1, 1, 0, 3], 50))
    np.testing.assert_array_equal(rows[:, 3], np.repeat([1, 1, 0, 1], 50))


def test_speakers_of_two_shots() -> None:
    """First the left one speaks, then, in another shot, the right one; the listeners are larger."""
    tracks = Tracks(1)
    for i, time in enumerate(TIMES):
        second = time >= 3
        talks, still = (face(square(0), 1, MOUTHS[m][i]) for m in ("talks", "still"))
        talks.box = square(1000 if second else 0, 0, 50)
        still.box = square(2000 if second else 300)
        tracks.add(time, [still, talks])
    choice = tracks.choose(FrameClip([], sound=voice(), rate=RATE), "speaker")
    assert sorted(choice.kept) == [2, 4]


# The rows.
def test_interpolation_by_hand() -> None:
    """Linear in time, not in frames; the nearest at either end."""
    tracks = Tracks(2)
    seen = {1: (10.0, -1.0), 4: (20.0, 1.0), 5: (0.0, 5.0)}
    for i, time in enumerate([0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0]):
        faces = [Face(square(0), np.array(seen[i], np.float32))] if i in seen else []
        tracks.add(time, faces, [5] * len(faces))
    values = [(10, -1), (10, -1), (12.5, -0.5), (17.5, 0.5), (20, 1), (0, 5), (0, 5)]
    flags = np.repeat(np.array([0, 1, 0, 0, 1, 1, 0])[:, None], 3, axis=1)
    rows = tracks.rows((1,), "interpolate")
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.hstack([values, flags]))
    np.testing.assert_array_equal(
        tracks.rows((1,), "zero"), np.hstack([np.array(values) * flags[:, :1], flags])
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.01, 3)), min_size=1, max_size=20),
    st.floats(-(2.0**100), 2.0**100, width=32),
)
def test_interpolation_by_brute_force(frames: list[tuple[bool, float]], scale: float) -> None:
    tracks, seen = Tracks(1), []
    times = np.cumsum([step for _, step in frames])
    for i, (here, _) in enumerate(frames):
        value = np.float32(scale) * np.float32(i % 3)
        tracks.add(times[i], [Face(square(0), np.array([value]))] * here, [0] * here)
        if here:
            seen.append((times[i], float(value)))
    for row, time in zip(tracks.rows((1,), "interpolate"), times, strict=True):
        before = [s for s in seen if s[0] <= time]
        after = [s for s in seen if s[0] >= time]
        if before and after:
            (t0, v0), (t1, v1) = before[-1], after[0]
            expected = v0 if t0 == t1 else v0 + (v1 - v0) * (time - t0) / (t1 - t0)
        else:
            expected = (before or [(0, 0)])[-1][1] if not after else after[0][1]
        assert row[0] == pytest.approx(expected, rel=1e-5, abs=abs(scale) * 1e-5)
        assert row[3] == (time in [s[0] for s in seen])


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.lists(st.tuples(box, st.floats(0, 1)), max_size=3), min_size=1, max_size=12),
    keep=st.sampled_from(["speaker", "largest"]),
    missing=st.sampled_from(["zero", "interpolate"]),
    heard=st.booleans(),
)
def test_any_sequence(
    frames: list[list[tuple[np.ndarray, float]]], keep: str, missing: str, heard: bool
) -> None:
    """One row per frame, finite; a row is of a face of its frame; kept tracks share no frame."""
    tracks = Tracks(1)
    for i, faces in enumerate(frames):
        tracks.add(i / 2, [face(b, 100 * i + k + 1, m) for k, (b, m) in enumerate(faces)])
    clip = FrameClip([], sound=voice() if heard else None, rate=RATE)
    choice = tracks.choose(clip, keep)
    rows = tracks.rows(choice.kept, missing)
    assert rows.shape == (len(frames), 4)
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows[:, 1], [len(faces) for faces in frames])
    for i, (value, count, track, valid) in enumerate(rows):
        assert valid == (track > 0)
        assert (1 <= value - 100 * i <= count) if valid else (missing != "zero" or value == 0)
    assert set(rows[:, 2]) - {0.0} == set(choice.kept)
    numbers = follow([[b for b, _ in faces] for faces in frames], 2)
    for here in numbers:
        assert len(set(here) & set(choice.kept)) <= 1
    # No track is left out but for one kept that was seen beside it.
    for number in set(sum(numbers, [])) - set(choice.kept):
        assert any(number in here and set(here) & set(choice.kept) for here in numbers)
