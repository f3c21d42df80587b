from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from face_clips import FrameClip

from mertool.extract.face.voice import STEP, agreement, energy, excess
from mertool.types import Clip

RATE = 16000


def tone(seconds: float, loud: float = 0.5, pitch: float = 200.0) -> np.ndarray:
    return (loud * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)).astype("f")


def brute_force(rms: np.ndarray, start: np.ndarray, end: np.ndarray) -> list[float]:
    """excess() by adding up levels millisecond by millisecond."""
    level = np.repeat(60 + 20 * np.log10(np.maximum(rms / rms.max(), 1e-3)), 10)
    last = max(len(level), round(1000 * end.max()))
    level = np.pad(level, (0, last - len(level)))

    def mean(a: float, b: float) -> float:
        return level[max(round(1000 * a), 0) : min(round(1000 * b), last)].mean()

    whole = mean(start.min(), end.max())
    return [mean(a - 0.1, b + 0.1) - whole for a, b in zip(start, end, strict=True)]


def test_energy_of_a_tone() -> None:
    step, rms = energy(
        FrameClip([], sound=np.concatenate([tone(1), np.zeros(RATE), tone(0.5, 0.1)]))
    )
    assert step == STEP == 0.01
    assert len(rms) == 250
    # The root mean square of a sine is its peak over the root of 2.
    np.testing.assert_allclose(rms[2:98], 0.5 / np.sqrt(2), rtol=0.02)
    np.testing.assert_allclose(rms[102:198], 0, atol=1e-6)
    np.testing.assert_allclose(rms[202:248], 0.1 / np.sqrt(2), rtol=0.02)


def test_offset_and_rumble_do_not_count() -> None:
    """A slow wave's part in 10 ms is a ramp, whose deviation is its height over the root of 12."""
    _, rms = energy(FrameClip([], sound=tone(1, 0.5, 5.0) + 0.3))
    steepest = 0.5 * 2 * np.pi * 5.0 * 0.01
    assert rms.max() == pytest.approx(steepest / np.sqrt(12), rel=0.03)


def test_without_sound() -> None:
    step, rms = energy(FrameClip([]))
    assert len(rms) == 0
    np.testing.assert_array_equal(excess(step, rms, np.array([0.0]), np.array([1.0])), [0])


@pytest.mark.parametrize("loud", [0.0, 0.3])
def test_even_sound_has_no_excess(loud: float) -> None:
    step, rms = energy(FrameClip([], sound=np.full(3 * RATE, loud, np.float32)))
    assert not rms.any()
    rms = np.full(300, loud)
    start = np.arange(74) * 0.04
    np.testing.assert_array_equal(excess(step, rms, start, start + 0.04), 0)


@pytest.mark.parametrize("seconds", [1.5, 3.0, 4.0], ids=["ends early", "as long", "goes on"])
def test_excess_by_brute_force(seconds: float) -> None:
    rng = np.random.default_rng(0)
    rms = rng.lognormal(size=round(seconds / STEP), sigma=3)
    start = np.sort(rng.choice(2900, 60, replace=False)) / 1000
    end = start + rng.integers(1, 100, 60) / 1000
    expected = brute_force(rms, start, end)
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(excess(STEP, rms, start, end), expected, atol=1e-5)


def test_bursts() -> None:
    """Loud in every second half second: above the mean there, below it elsewhere."""
    sound = np.concatenate([np.concatenate([tone(0.5), tone(0.5, 0.05)])] * 3)
    step, rms = energy(FrameClip([], sound=sound))
    start = np.arange(60) * 0.05
    high = start % 1 < 0.5
    value = excess(step, rms, start, start + 0.05)
    clear = (start % 0.5 > 0.11) & (start % 0.5 < 0.35)  # windows within one half
    np.testing.assert_allclose(value[high & clear], 10, atol=0.5)  # 20 dB apart
    np.testing.assert_allclose(value[~high & clear], -10, atol=0.5)


def test_real_speech(shared: Path) -> None:
    """GRID: a sentence with silence before and after it."""
    clip = Clip("clip", path="grid/bbaf2n.mpg", source=str(shared / "data"))
    step, rms = energy(clip)
    assert 2.8 < len(rms) * step < 3.2
    assert rms[90:150].mean() > 10 * rms[5:30].mean()


@pytest.mark.parametrize("fps", [25, 10, 50])
def test_agreement_is_a_sum_of_swift_changes(fps: int) -> None:
    """Against the definition, frame by frame and millisecond by millisecond."""
    random = np.random.default_rng(fps)
    rms, times = random.random(150), np.arange(round(1.4 * fps)) / fps
    mouth = random.random(len(times))
    above = np.repeat(60 + 20 * np.log10(np.maximum(rms / rms.max(), 1e-3)), 10)
    level = [
        above[max(round(1000 * t) - 20, 0) : round(1000 * t) + 100].mean() for t in times.round(3)
    ]
    near = [np.abs(times - t) <= max(0.12, 1.5 / fps) + 1e-6 for t in times]
    expected = sum(
        (mouth[i] - mouth[n].mean()) * (level[i] - np.array(level)[n].mean())
        for i, n in enumerate(near)
    )
    assert agreement(0.01, rms, times, mouth) == pytest.approx(expected, rel=1e-6)


def test_agreement_of_nothing() -> None:
    times, open_mouth = np.arange(20) / 25, np.full(20, 0.3)
    assert agreement(0.01, np.ones(100), times, np.arange(20.0)) == 0
    assert agreement(0.01, np.zeros(100), times, np.arange(20.0)) == 0
    assert agreement(0.01, np.arange(100.0), times, open_mouth) == 0
    assert agreement(0.01, np.ones(100), times[:1], open_mouth[:1]) == 0


def test_two_who_talk_at_the_same_time(shared: Path) -> None:
    """Every two of five people beside each other, with the voice of one: whose mouth is it?"""
    pytest.importorskip("mediapipe", reason="needs the extra: offline")
    from mertool.extract.face.measures import head_frame
    from mertool.extract.face.mesh import Mesh
    from mertool.extract.face.tracks import Face, Tracks

    mouths, sounds = {}, {}
    for name in ("bbaf2n", "brbk7n", "lrwp9a", "pwij3p", "sbwe5n"):
        clip = Clip(name, path=f"{name}.mpg", source=str(shared / "data" / "grid"))
        mesh = Mesh(1)
        heads = [head_frame(mesh.faces(image, time)[0])[0] for time, image in clip.frames()]
        mesh.close()
        mouths[name] = [float(np.linalg.norm(head[13] - head[14])) for head in heads]
        sounds[name] = clip.audio(4000)
    right = 0
    for speaker, other in permutations(mouths, 2):
        tracks = Tracks(1)
        for i, pair in enumerate(zip(mouths[speaker], mouths[other], strict=True)):
            boxes = np.array([[0, 0, 100, 100], [200, 0, 300, 100]])
            faces = [Face(b, np.zeros(1), m) for b, m in zip(boxes, pair, strict=True)]
            tracks.add(0.04 * i, faces)
        clip = FrameClip([], sound=sounds[speaker], rate=4000)
        right += tracks.choose(clip, "speaker").kept == (1,)
    assert right >= 18  # of 20; who moves the lips more is right 14 times
