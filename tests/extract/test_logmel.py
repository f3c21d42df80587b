from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sound_clip import SoundClip

from mertool.errors import MertoolWarning
from mertool.extract import logmel
from mertool.extract.logmel import LogMel
from mertool.testing import check_extractor, failed
from mertool.types import Rows

RATE = 16000


def extract(sound: np.ndarray, **settings: float) -> Rows:
    extractor = LogMel(LogMel.Config(**settings))
    rows = extractor.extract(SoundClip(sound))
    assert rows.values.shape == (len(rows), len(extractor.columns))
    assert rows.values.dtype == np.float32
    assert np.isfinite(rows.values).all()
    assert rows.times.shape == (len(rows), 2)
    return rows


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))


def reference(sound: np.ndarray, centre: int, bands: int, window: int, fft: int) -> np.ndarray:
    """One row by the formulas: each bin of the transform, each triangle, on its own."""
    start = centre - window // 2
    n = np.arange(window)
    x = np.array([sound[start + i] if 0 <= start + i < len(sound) else 0.0 for i in n])
    x *= 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
    bins = np.arange(fft // 2 + 1)
    power = np.array([abs(np.sum(x * np.exp(-2j * np.pi * k * n / fft))) ** 2 for k in bins])
    top = 2595 * math.log10(1 + 8000 / 700)
    edges = [700 * (10 ** (top * i / (bands + 1) / 2595) - 1) for i in range(bands + 2)]
    row = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        total = 0.0
        for k, p in zip(bins, power, strict=True):
            f = k * RATE / fft
            total += p * max(0.0, min((f - low) / (middle - low), (high - f) / (high - middle)))
        row.append(math.log(max(total, 1e-8)))
    return np.array(row)


@pytest.mark.parametrize(
    ("settings", "fft"),
    [
        ({}, 512),
        ({"bands": 40, "hop_ms": 12.5, "window_ms": 32.0}, 512),
        ({"bands": 128}, 1024),
        ({"bands": 3, "window_ms": 5.0625}, 128),
    ],
)
def test_rows_by_brute_force(settings: dict[str, float], fft: int) -> None:
    sound = np.float32(noise(0.2) + 0.2 * np.sin(np.arange(3200) * 0.2))
    rows = extract(sound, **settings)
    hop = round(settings.get("hop_ms", 10) * 16)
    window = round(settings.get("window_ms", 25) * 16)
    assert len(rows) == 3200 // hop
    for row in (0, 7, len(rows) - 1):  # the first and last reach beyond the sound
        centre = row * hop + hop // 2
        expected = reference(sound, centre, rows.values.shape[1], window, fft)
        np.testing.assert_allclose(rows.values[row], expected, atol=2e-4)


@pytest.mark.parametrize("bands", [1, 80, 128, 512])
def test_no_band_is_without_a_bin(bands: int) -> None:
    rows = extract(noise(0.3), bands=bands)
    assert (rows.values > math.log(1e-8) + 1).all()


@pytest.mark.parametrize("hz", [200, 1000, 3000, 7000])
def test_a_tone_is_loudest_in_its_band(hz: float) -> None:
    rows = extract(0.3 * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE), bands=40)
    step = 2595 * math.log10(1 + 8000 / 700) / 41
    band = 2595 * math.log10(1 + hz / 700) / step - 1
    assert (np.abs(rows.values[3:-3].argmax(axis=1) - band) <= 0.75).all()


@pytest.mark.parametrize("hop_ms", [10.0, 7.5])
def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, hop_ms: float) -> None:
    whole = extract(noise(1), hop_ms=hop_ms)
    monkeypatch.setattr(logmel, "CHUNK", 7)
    parts = extract(noise(1), hop_ms=hop_ms)
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-5)
    np.testing.assert_array_equal(parts.times, whole.times)


def test_silence_lies_on_the_floor() -> None:
    rows = extract(np.zeros(RATE))
    assert len(rows) == 100
    np.testing.assert_allclose(rows.values, math.log(1e-8), rtol=1e-6)


def test_one_step_of_16_bits_lies_above_the_floor() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE) / 32768
    assert extract(tone).values.max(axis=1).min() > math.log(1e-8) + 5


@pytest.mark.parametrize(
    ("samples", "rows"), [(1, 1), (80, 1), (160, 1), (240, 1), (241, 2), (3200, 20), (48001, 300)]
)
def test_rows_of_short_sounds(samples: int, rows: int) -> None:
    got = extract(noise(4)[:samples])
    assert len(got) == rows
    assert got.times[-1, 1] <= samples / RATE


def test_sound_shorter_than_half_a_wide_hop_is_measured() -> None:
    rows = extract(noise(0.02), hop_ms=100.0)
    assert len(rows) == 1 and rows.values.max() > -10
    assert rows.times.tolist() == [[0, 0.02]]


def test_cells() -> None:
    times = extract(noise(0.305)).times
    np.testing.assert_allclose(times[:, 0], np.arange(30) * 0.01, atol=1e-12)
    np.testing.assert_allclose(times[:, 1], np.arange(1, 31) * 0.01, atol=1e-12)


def test_rows_lie_at_their_event() -> None:
    sound = np.zeros(RATE)
    sound[RATE // 2 + 80] = 0.9  # a click in the middle of cell 50
    loud = np.flatnonzero(extract(sound).values.max(axis=1) > -15)
    assert loud.mean() == 50


def test_same_sound_same_bytes() -> None:
    assert extract(noise(1)).values.tobytes() == extract(noise(1)).values.tobytes()


def test_no_sound() -> None:
    with pytest.warns(MertoolWarning, match="no sound"):
        rows = LogMel(LogMel.Config()).extract(SoundClip(np.zeros(0)))
    assert rows.values.shape == (0, 80) and rows.times.shape == (0, 2)


def test_columns_info_and_channel() -> None:
    extractor = LogMel(LogMel.Config(channel="first", hop_ms=20, bands=128))
    assert extractor.columns[:2] == ["mel_00", "mel_01"]
    assert len(set(extractor.columns)) == 128
    assert extractor.info["rate"] == 50
    clip = SoundClip(noise(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor.extract(clip)
    assert clip.channel == "first"


@pytest.mark.parametrize(
    "settings",
    [
        {"channel": "left"}, {"hop_ms": 0.0}, {"hop_ms": 7.3}, {"hop_ms": math.nan},
        {"window_ms": 0.5}, {"window_ms": 25.01}, {"bands": 0}, {"bands": 10**6},
    ],
)  # fmt: skip
def test_impossible_settings(settings: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LogMel.Config(**settings)


def test_every_check_passes() -> None:
    assert failed(check_extractor("logmel")) == []
