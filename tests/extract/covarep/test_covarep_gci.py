"""Glottal closure instants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import FILES, RATE, STAGED, intermediates, read
from scipy import signal
from voices import pulses

from mertool.extract.covarep import gci as module
from mertool.extract.covarep.gci import gci_sedreams, larynx_intervals, mean_based_signal
from mertool.extract.covarep.pitch import Pitch, pitch_srh
from mertool.extract.covarep.residual import lp_residual
from mertool.extract.covarep.signals import blocks


@pytest.mark.parametrize(("fs", "f0"), [(8000, 200.0), (16000, 120.0), (48000, 90.0)])
def test_mean_based_signal_is_that_of_scipy(
    monkeypatch: pytest.MonkeyPatch, fs: int, f0: float
) -> None:
    x, _ = pulses(fs)
    half = int(np.floor(1.7 * np.floor(fs / f0 + 0.5) / 2 + 0.5))
    mean = np.convolve(x, np.blackman(2 * half + 1) / (2 * half + 1), "same")
    mean[:half] = mean[-half:] = 0
    sections = signal.ellip(5, 3, 60, 50 / (fs / 2), "high", output="sos")
    expected = signal.sosfiltfilt(sections, mean, padlen=15)
    expected /= np.abs(expected).max()
    np.testing.assert_allclose(mean_based_signal(x, fs, f0), expected, atol=1e-8)
    monkeypatch.setattr(module, "blocks", lambda count: blocks(count, 777))
    np.testing.assert_allclose(mean_based_signal(x, fs, f0), expected, atol=1e-8)


def test_intervals_are_those_of_a_loop_over_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def peaks(m: np.ndarray) -> list[int]:
        found = []
        for i in range(1, len(m) - 1):
            after = next((v for v in m[i:] if v != m[i]), np.inf)  # beyond a plateau
            if m[i - 1] < m[i] > after:
                found.append(i)
        return found

    rng = np.random.default_rng(3)
    monkeypatch.setattr(module, "blocks", lambda count: blocks(count, 4))
    for _ in range(60):
        m = rng.integers(0, 3, rng.integers(0, 30)).astype(float)
        high, low = peaks(m), peaks(-m)
        high = [i for i in high if low and i > low[0]]
        low = [i for i in low if high and i < high[-1]]
        minima, maxima = larynx_intervals(m)
        assert (minima.tolist(), maxima.tolist()) == (low, high), m


def test_instants_are_those_of_a_loop_over_intervals() -> None:
    x, _ = pulses(16000)
    pitch = pitch_srh(x, 16000)
    residual = np.nan_to_num(lp_residual(x, 16000))
    low, high = larynx_intervals(mean_based_signal(x, 16000, 120))
    places = []
    for n in np.flatnonzero(residual > 0.4):
        j = int(np.argmin(np.abs(n - low)))
        places.append((n - low[j]) / (high[j] - low[j]))
    found = set()
    for a, b in zip(low, high, strict=True):
        edge = np.array([-0.35, 0.35]) + np.median(places)
        first, last = a + (np.sign(edge) * np.floor(np.abs(edge * (b - a)) + 0.5)).astype(int)
        first, last = max(first, 0), min(last, len(x) - 1)
        found.add(int(first + np.argmax(residual[first : last + 1])))
    found = np.array(sorted(found - {0}))
    np.testing.assert_array_equal(gci_sedreams(x, 16000, 120), found)
    voiced = np.interp(found - 1, pitch.centre, pitch.voiced, left=0, right=0) >= 0.5
    assert 0 < voiced.sum() < len(voiced)
    np.testing.assert_array_equal(gci_sedreams(x, 16000, 120, pitch), found[voiced])


@pytest.mark.parametrize("fs", [8000, 16000, 48000])
def test_instants_are_where_the_pulses_are(fs: int) -> None:
    x, at = pulses(fs)
    found = gci_sedreams(x, fs, 120)
    inner = at[4:-4]
    distance = np.abs(inner[:, None] - found).min(axis=1)
    assert distance.max() <= 2e-4 * fs
    between = found[(found >= inner[0]) & (found <= inner[-1])]
    assert len(between) == len(inner)  # and nowhere else


def test_a_residual_at_hand_is_used() -> None:
    x, _ = pulses(16000)
    residual = lp_residual(x, 16000)
    expected = gci_sedreams(x, 16000, 120)
    np.testing.assert_array_equal(gci_sedreams(x, 16000, 120, residual=residual), expected)
    swings = larynx_intervals(mean_based_signal(x, 16000, 120))
    other = gci_sedreams(x, 16000, 200, residual=residual, intervals=swings)
    np.testing.assert_array_equal(other, expected)  # of the swings at hand, not of 200 Hz
    residual[expected[5]] = np.nan  # counts as 0
    assert expected[5] not in gci_sedreams(x, 16000, 120, residual=residual)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fs", [8000, 16000, 48000])
def test_odd_signals(fs: int) -> None:
    none = np.zeros(0)
    nowhere = Pitch(none.astype(int), none, none, none.astype(bool))
    square = np.sign(np.sin(np.arange(fs) / 20))
    for x in (none, np.ones(1), np.zeros(fs), np.ones(fs), square):
        for f0 in (100.0, np.nan):
            assert np.isfinite(mean_based_signal(x, fs, f0)).all()
            found = gci_sedreams(x, fs, f0)
            assert (np.diff(found) > 0).all() and found.dtype == np.int64
            assert not len(gci_sedreams(x, fs, f0, nowhere))
            assert f0 > 0 or not len(found)


@pytest.mark.parametrize("name", FILES)
def test_instants_of_the_reference(shared: Path, name: str) -> None:
    x, arrays = read(shared, name)
    pitch = pitch_srh(x, RATE)
    found = gci_sedreams(x, RATE, pitch.median, pitch)
    np.testing.assert_array_equal(found, arrays["gci"].ravel())


@pytest.mark.parametrize("name", STAGED)
def test_mean_based_signal_of_the_reference(shared: Path, name: str) -> None:
    x, _ = read(shared, name)
    kept = intermediates(shared, name)
    f0, mean = float(kept["F0med"]), kept["mean_based_signal"]
    np.testing.assert_allclose(mean_based_signal(x, RATE, f0), mean.ravel(), atol=1e-6)
    expected = np.unique(np.rint(kept["gci_sedreams_all_s"].ravel() * RATE))
    np.testing.assert_array_equal(gci_sedreams(x, RATE, f0), expected)
