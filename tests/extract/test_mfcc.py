from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from mertool.errors import MertoolWarning
from mertool.extract import mfcc
from mertool.extract.mfcc import Mfcc
from mertool.types import Clip

RATE = 16000


class SoundClip(Clip):
    """A clip whose sound is given."""

    def __init__(self, sound: np.ndarray) -> None:
        super().__init__(id="clip")
        self.sound = np.asarray(sound, np.float32)
        self.channel = ""

    def audio(self, rate: int = RATE, channel: str = "mean") -> np.ndarray:
        assert rate == RATE
        self.channel = channel
        return self.sound


def extract(sound: np.ndarray, **settings: float) -> dict[str, np.ndarray]:
    extractor = Mfcc(Mfcc.Config(**settings))
    rows = extractor.extract(SoundClip(sound))
    assert rows.values.shape == (len(rows), len(extractor.columns))
    assert rows.values.dtype == np.float32
    assert np.isfinite(rows.values).all()
    return dict(zip(extractor.columns, rows.values.T, strict=True)) | {"times": rows.times}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))


def reference_frame(sound: np.ndarray, centre: int) -> list[float]:
    """13 MFCC of the 400 samples around `centre`, by the formulas, one number at a time."""
    start = centre - 200
    x = [sound[n] if 0 <= n < len(sound) else 0.0 for n in range(start, start + 400)]
    y = [x[n] - 0.97 * (x[n - 1] if n else x[0]) for n in range(400)]
    y = [v * (0.54 - 0.46 * math.cos(2 * math.pi * n / 399)) for n, v in enumerate(y)]
    power = []
    for k in range(257):
        angles = [2 * math.pi * k * n / 512 for n in range(400)]
        re = sum(v * math.cos(a) for v, a in zip(y, angles, strict=True))
        im = sum(v * math.sin(a) for v, a in zip(y, angles, strict=True))
        power.append(re * re + im * im)
    top = 1127 * math.log(1 + 8000 / 700)
    edges = [700 * (math.exp(top * i / 27 / 1127) - 1) for i in range(28)]
    log_mel = []
    for m in range(26):
        low, middle, high = edges[m : m + 3]
        total = 0.0
        for k, p in enumerate(power):
            f = k * RATE / 512
            total += p * max(0.0, min((f - low) / (middle - low), (high - f) / (high - middle)))
        log_mel.append(math.log(max(total, 1e-10)))
    return [
        math.sqrt((1 if i == 0 else 2) / 26)
        * sum(v * math.cos(math.pi * i * (m + 0.5) / 26) for m, v in enumerate(log_mel))
        for i in range(13)
    ]


def test_mfcc_by_brute_force() -> None:
    sound = np.float32(noise(0.2) + 0.2 * np.sin(np.arange(3200) * 0.2))
    got = extract(sound)
    for row in (0, 7, 19):  # the first and last reach beyond the sound
        expected = reference_frame(sound, row * 160 + 80)
        np.testing.assert_allclose(
            [got[f"mfcc_{i:02d}"][row] for i in range(13)], expected, rtol=1e-4, atol=1e-4
        )


def test_deltas_by_brute_force() -> None:
    got = extract(noise(0.15))
    rows = len(got["f0"])
    for source, target in (("mfcc_03", "delta_mfcc_03"), ("delta_mfcc_03", "delta2_mfcc_03")):
        c = [float(v) for v in got[source]]
        for t in range(rows):
            at = [c[min(max(t + k, 0), rows - 1)] for k in range(-2, 3)]
            slope = sum(k * v for k, v in zip(range(-2, 3), at, strict=True)) / 10
            assert got[target][t] == pytest.approx(slope, abs=1e-4)


def test_log_energy() -> None:
    got = extract(np.full(1600, 0.5))
    np.testing.assert_allclose(got["log_energy"][2:-2], math.log(0.25), rtol=1e-6)


@pytest.mark.parametrize("f0", [100.0, 123.4, 158.0, 220.0, 287.3, 350.0])
@pytest.mark.parametrize("decay", [0, 1])
def test_pitch_of_harmonic_tones(f0: float, decay: int) -> None:
    """A pulse train (all harmonics equal) and a sawtooth (falling off as 1 / k)."""
    t = np.arange(RATE) / RATE
    tone = sum(np.cos(2 * np.pi * f0 * k * t) / k**decay for k in range(1, int(7900 / f0) + 1))
    got = extract(0.3 * tone / np.abs(tone).max())
    inner = slice(3, -3)
    assert (got["voiced"][inner] == 1).all()
    np.testing.assert_allclose(got["f0"][inner], f0, rtol=0.01)


def test_pitch_follows_a_glide() -> None:
    t = np.arange(2 * RATE) / RATE
    f0 = 120 + 40 * t  # Hz
    phase = 2 * np.pi * (120 * t + 20 * t**2)
    got = extract(0.2 * sum(np.sin(k * phase) / k for k in range(1, 20)))
    expected = np.interp(got["times"].mean(axis=1), t, f0)
    np.testing.assert_allclose(got["f0"][3:-3], expected[3:-3], rtol=0.01)


def test_noise_is_unvoiced() -> None:
    got = extract(noise(3))
    assert got["voiced"].mean() < 0.05
    np.testing.assert_array_equal(got["f0"] == 0, got["voiced"] == 0)


def test_soft_tone_beside_a_loud_one_is_unvoiced() -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    got = extract(np.concatenate([0.5 * tone, 0.0005 * tone]))
    assert got["voiced"][5:95].all()
    assert not got["voiced"][105:].any()


def test_pitch_range_is_kept() -> None:
    tone = np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    got = extract(0.3 * tone, f0_max=200)  # two or more periods also repeat
    np.testing.assert_allclose(got["f0"][5:-5], 150, rtol=0.01)


@pytest.mark.parametrize("hop_ms", [10.0, 7.3])
def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, hop_ms: float) -> None:
    t = np.arange(RATE) / RATE
    sound = noise(1) * 0.1 + 0.3 * np.sin(2 * np.pi * 150 * t) * (t > 0.4)
    whole = extract(sound, hop_ms=hop_ms)
    monkeypatch.setattr(mfcc, "CHUNK", 7)
    parts = extract(sound, hop_ms=hop_ms)
    for name, column in whole.items():
        np.testing.assert_allclose(parts[name], column, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_sound_is_finite_and_unvoiced(value: float) -> None:
    got = extract(np.full(RATE, value))
    assert len(got["f0"]) == 100
    assert not got["voiced"].any()


@pytest.mark.parametrize(
    ("samples", "rows"), [(1, 1), (80, 1), (160, 1), (240, 1), (241, 2), (3200, 20), (48001, 300)]
)
def test_rows_of_short_sounds(samples: int, rows: int) -> None:
    got = extract(noise(4)[:samples])
    assert len(got["f0"]) == rows
    assert got["times"][-1, 1] <= samples / RATE


def test_sound_shorter_than_half_a_wide_hop_is_measured() -> None:
    got = extract(noise(0.02), hop_ms=100.0)
    assert got["log_energy"].shape == (1,)
    assert got["log_energy"][0] > -10


def test_cells() -> None:
    times = extract(noise(0.305))["times"]
    np.testing.assert_allclose(times[:, 0], np.arange(30) * 0.01, atol=1e-12)
    np.testing.assert_allclose(times[:, 1], np.arange(1, 31) * 0.01, atol=1e-12)


def test_rows_lie_at_their_event() -> None:
    sound = np.zeros(RATE)
    sound[RATE // 2 + 80] = 0.9  # a click in the middle of cell 50
    got = extract(sound)
    loud = np.flatnonzero(got["log_energy"] > -20)
    assert loud.mean() == 50


def test_no_sound() -> None:
    extractor = Mfcc(Mfcc.Config())
    with pytest.warns(MertoolWarning, match="no sound"):
        rows = extractor.extract(SoundClip(np.zeros(0)))
    assert rows.values.shape == (0, 42)
    assert rows.times.shape == (0, 2)


def test_columns_info_and_channel() -> None:
    extractor = Mfcc(Mfcc.Config(channel="first", hop_ms=20))
    assert len(extractor.columns) == len(set(extractor.columns)) == 42
    assert extractor.info["rate"] == 50
    clip = SoundClip(noise(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor.extract(clip)
    assert clip.channel == "first"


@pytest.mark.parametrize(
    "settings",
    [{"channel": "left"}, {"hop_ms": 0.0}, {"f0_min": 0.0}, {"f0_max": 50.0}, {"f0_max": math.nan}],
)
def test_impossible_settings(settings: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Mfcc.Config(**settings)
