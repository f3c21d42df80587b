"""Pitch and voicing by the summation of residual harmonics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import FILES, RATE, pitch_of, read
from scipy import signal

from mertool.errors import UsageError
from mertool.extract.covarep import pitch as module
from mertool.extract.covarep.pitch import Pitch, pitch_srh, voicing_at
from mertool.extract.covarep.residual import lp_residual
from mertool.extract.covarep.signals import interpolate


def glide(fs: float, seconds: float = 0.6, noise: float = 0.05) -> np.ndarray:
    """A pulse train from 110 to 150 Hz through a resonance, between two stretches of noise."""
    rng = np.random.default_rng(2)
    count = int(seconds * fs)
    f0 = np.linspace(110, 150, count)
    x = np.diff(np.floor(np.cumsum(f0) / fs), prepend=0)
    x[: count // 4] = x[-count // 4 :] = 0
    x += noise * np.sqrt(8000 / fs) * rng.standard_normal(count)
    pole = np.exp((-100 + 2j * 600) * np.pi / fs)
    x = signal.lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], x)
    return x / np.abs(x).max()


def naive(x: np.ndarray, fs: int) -> tuple[np.ndarray, np.ndarray]:
    """Both passes over all frames, by the long transform: F0 and strength."""

    def away(value: float) -> int:
        return int(np.floor(value + 0.5))

    residual = lp_residual(x, fs, away(0.75 * fs / 1000))
    half = away((away(0.1 * fs) - 2) / 2)
    spectra = []
    centre = half + 1  # from 1
    while centre <= len(x) - half:
        frame = residual[centre - half - 1 : centre + half - 1] * np.blackman(2 * half)
        spectrum = np.abs(np.fft.fft(frame - frame.mean(), fs))[: fs // 2]
        spectra.append(spectrum / np.sqrt(np.sum(spectrum**2)))
        centre += away(0.01 * fs)
    low, high = 50, 500
    for _ in range(2):
        f0, strength = [], []
        for spectrum in spectra:
            score = np.zeros(high + 1)  # of 0 .. high Hz
            for f in range(low, high + 1):
                score[f] = sum(spectrum[h * f - 1] for h in range(1, 6))
                score[f] -= sum(spectrum[away((h + 0.5) * f) - 1] for h in range(1, 5))
            best = 1 + int(np.argmax(score[1:]))
            f0.append(best)
            strength.append(score[best])
        sure = [f for f, s in zip(f0, strength, strict=True) if s > 0.1]
        if sure:
            low = max(low, away(0.5 * np.median(sure)))
            high = min(high, away(2 * np.median(sure)))
    return np.array(f0), np.array(strength)


@pytest.mark.parametrize("fs", [8000, 11025, 12002, 16000])
def test_pitch_is_that_of_a_loop_over_all_frames(fs: int) -> None:
    x = glide(fs, seconds=0.4)
    f0, strength = naive(x, fs)
    pitch = pitch_srh(x, fs)
    np.testing.assert_array_equal(pitch.f0, f0)
    # An odd rate has no bin at half of it, which the norm leaves out.
    np.testing.assert_allclose(pitch.strength, strength, rtol=1e-3 if fs % 2 else 1e-10)
    assert pitch.f0.max() < 500  # the second pass had something to do


@pytest.mark.parametrize("fs", [8000, 16000, 48000])
def test_pitch_follows_a_glide(fs: int) -> None:
    pitch = pitch_srh(glide(fs, seconds=2), fs)
    time = pitch.centre / fs
    inside = (time > 0.6) & (time < 1.4)
    assert pitch.voiced[inside].all()
    assert pitch.voiced[(time < 0.4) | (time > 1.6)].mean() < 0.1
    np.testing.assert_allclose(pitch.f0[inside], 110 + 20 * time[inside], atol=4)
    assert abs(pitch.median - 130) < 4
    np.testing.assert_allclose(np.diff(time), 0.01, atol=1 / fs)


def test_pitch_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = glide(16000)
    expected = pitch_srh(x, 16000)
    monkeypatch.setattr(module, "BATCH", 3)
    pitch = pitch_srh(x, 16000)
    np.testing.assert_array_equal(pitch.f0, expected.f0)
    np.testing.assert_allclose(pitch.strength, expected.strength, atol=1e-13)


@pytest.mark.parametrize("rate", [8000, 8001, 9001, 11025, 16000])
@pytest.mark.parametrize("part", [0.01, 0.3, 1.0])
def test_amplitudes_are_those_of_the_long_transform(rate: int, part: float) -> None:
    frames = np.random.default_rng(rate).standard_normal((3, rate // 10 - 2))
    bins = int(part * (rate // 2))
    wanted = np.abs(np.fft.rfft(frames, rate))[:, :bins]
    got = module._amplitudes(frames, rate, bins)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * wanted.max())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fs", [8000, 16000, 48000])
def test_odd_signals(fs: int) -> None:
    square = np.sign(np.sin(np.arange(fs) / 20))
    for x in (np.zeros(0), np.ones(1), np.zeros(fs), np.ones(fs), square):
        pitch = pitch_srh(x, fs)
        expected = len(range(799, len(x) * 16000 // fs - 799, 160)) if fs >= 16000 else None
        assert expected in (None, len(pitch.f0))
        assert np.isfinite(pitch.f0).all() and np.isfinite(pitch.strength).all()
        assert voicing_at(pitch, np.arange(5)).tolist() == [0] * 5
    silent = pitch_srh(np.zeros(fs), fs)
    assert (silent.f0 == 1).all() and not silent.voiced.any() and np.isnan(silent.median)


def test_a_range_that_cannot_be_searched_is_refused() -> None:
    for low, high in ((0, 500), (300, 300), (50, 900)):
        with pytest.raises(UsageError, match="No F0 between"):
            pitch_srh(np.zeros(8000), 8000, low, high)


def test_median_and_voicing_by_hand() -> None:
    pitch = Pitch(
        np.array([10, 20, 30, 40]),
        np.array([100.0, 50.0, 120.0, 400.0]),
        np.array([0.2, 0.2, 0.2, 0.0]),
        np.array([True, True, True, False]),
    )
    assert pitch.median == 110  # 50 Hz lies on the border, 400 Hz is unvoiced
    at = voicing_at(pitch, np.array([9, 10, 25, 35, 38, 40, 41]))
    np.testing.assert_allclose(at, [0, 1, 1, 0.5, 0.2, 0, 0])


@pytest.mark.parametrize("name", FILES)
def test_pitch_of_the_reference(shared: Path, name: str) -> None:
    x, arrays = read(shared, name)
    pitch, expected = pitch_srh(x, RATE), pitch_of(arrays)
    np.testing.assert_array_equal(pitch.centre, expected.centre)
    np.testing.assert_array_equal(pitch.f0, expected.f0)
    np.testing.assert_array_equal(pitch.voiced, expected.voiced)
    np.testing.assert_allclose(pitch.strength, expected.strength, atol=1e-9)
    assert pitch.median == arrays["F0med"]
    rows = arrays["sample_pos"].ravel() - 1
    f0 = np.nan_to_num(interpolate(pitch.centre, pitch.f0, rows))
    np.testing.assert_allclose(f0, arrays["features"][:, 0], atol=1e-9)
    np.testing.assert_array_equal(voicing_at(pitch, rows) >= 0.5, arrays["features"][:, 1])
