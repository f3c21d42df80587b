"""MDQ and peakSlope against the reference, and against the equations as plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import FILES, STAGED, intermediates, read

from mertool.errors import DataError
from mertool.extract.covarep import wavelets
from mertool.extract.covarep.residual import lp_residual
from mertool.extract.covarep.signals import interpolate
from mertool.extract.covarep.wavelets import mdq, peak_slope, wavelet

FS = 16000


def column(at: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.nan_to_num(interpolate(at, values, rows))


@pytest.mark.parametrize("name", STAGED)
def test_raw_values_are_the_references(shared: Path, name: str) -> None:
    x, _ = read(shared, name)
    kept = intermediates(shared, name)
    centre, slope = peak_slope(x, FS)
    np.testing.assert_allclose(slope, kept["peakslope_raw"][:, 1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(centre + 1, kept["peakslope_raw"][:, 0] * FS, atol=1e-6)
    quotient = mdq(kept["lp_residual18"], FS, kept["gci_final0"])
    np.testing.assert_allclose(quotient, kept["MDQ_raw"][:, 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FILES)
def test_columns_are_the_references(shared: Path, name: str) -> None:
    x, kept = read(shared, name)
    rows = kept["sample_pos"] - 1
    slope = column(*peak_slope(x, FS), rows)
    np.testing.assert_allclose(slope, kept["features"][:, 7], rtol=0, atol=1e-6)

    residual, gci = lp_residual(x, FS), kept["gci"]
    quotient = column(gci - 1, mdq(residual, FS, gci), rows)
    wrong = np.abs(quotient - kept["features"][:, 6]) > 1e-6
    # The reference was made by a program that spreads NaN less far than the original: rows that
    # stand on a closure within the wavelets' reach of NaN are set aside.
    gaps = np.flatnonzero(np.isnan(residual))
    if not len(gaps):
        assert not wrong.any()
        return
    radius = np.round(0.2 * np.diff(gci, prepend=2 * gci[0] - gci[1])) + wavelets.REACH
    doubtful = np.searchsorted(gaps, gci - radius) < np.searchsorted(gaps, gci + radius + 1)
    touched = np.nan_to_num(interpolate(gci - 1, doubtful.astype(float), rows)) > 0
    assert name == "edge_zeros_slt" and (~touched & (quotient > 0)).sum() > 100
    assert not wrong[~touched].any()


def convolved(x: np.ndarray, scale: int) -> np.ndarray:
    t, s = np.arange(-1000, 1001) / FS, 2.0**scale
    tau, f0 = 1 / FS, FS / 2
    pulse = -np.cos(2 * np.pi * f0 * t / s) * np.exp(-((t / s) ** 2) / (2 * tau**2))
    return np.convolve(np.pad(x, 1000), pulse, "valid")


def naive_mdq(residual: np.ndarray, gci: np.ndarray) -> np.ndarray:
    out = []
    bands = [convolved(residual, scale) for scale in range(2, 7)]
    for n, g in enumerate(gci):
        period = g - gci[n - 1] if n else gci[1] - gci[0]
        radius = int(0.2 * period + 0.5)
        if g + 1 - period <= 0 or g + 1 + period > len(residual):
            out.append(0.0)
            continue
        distances = []
        for band in bands:
            window = band[g - radius : g + radius + 1]
            first = 1 if np.isnan(window).all() else np.nanargmax(window) + 1
            distances.append(abs(radius - first))
        out.append(np.mean(distances) / period)
    return np.array(out)


def naive_slope(x: np.ndarray) -> np.ndarray:
    bands = [np.abs(convolved(x, scale)) for scale in range(6, -1, -1)]
    out = []
    for start in range(0, len(x) - 639, 160):
        peaks = [band[start : start + 640].max() for band in bands]
        line = np.polyfit(np.arange(7), np.log10(peaks), 1)[0] if min(peaks) > 0 else 0.0
        out.append(line)
    return np.array(out)


def pulses(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pulses at irregular periods, like a residual, and where they are."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.integers(60, 180, count))
    x = 0.05 * rng.standard_normal(at[-1] + 40)
    x[at] += 1
    return x, at


def test_mdq_follows_its_definition() -> None:
    residual, gci = pulses(200)
    np.testing.assert_allclose(mdq(residual, FS, gci), naive_mdq(residual, gci), atol=1e-12)
    residual[5000:5040] = np.nan
    residual[-700:] = np.nan
    quotient = mdq(residual, FS, gci)
    np.testing.assert_allclose(quotient, naive_mdq(residual, gci), atol=1e-12)
    assert quotient[0] > 0 and quotient[-1] == 0  # the last has no whole period after it


def test_mdq_of_windows_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    residual, gci = pulses(300, seed=1)
    gci = np.delete(gci, slice(60, 160))  # one period of 100 pulses
    whole = mdq(residual, FS, gci)
    monkeypatch.setattr(wavelets, "FFT", 2500)  # 500 samples at a time, the long window 5000
    np.testing.assert_array_equal(mdq(residual, FS, gci), whole)
    np.testing.assert_allclose(whole, naive_mdq(residual, gci), atol=1e-12)


def test_mdq_by_hand() -> None:
    """Pulses that all wavelets find: each is the off-by-one's one sample from the closure."""
    residual = np.zeros(16000)
    gci = np.arange(2000, 14000, 1000)
    residual[gci] = -1  # the wavelets are negative in their middle
    np.testing.assert_allclose(mdq(residual, FS, gci), 1 / 1000)
    residual = np.roll(residual, 3)
    np.testing.assert_allclose(mdq(residual, FS, gci), 4 / 1000)


def test_peak_slope_follows_its_definition() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(30000)
    x[8000:13945] = 0  # a frame ends 25 samples before its end
    x[20000:22000] *= 1e-12
    centre, slope = peak_slope(x, FS)
    np.testing.assert_allclose(slope, naive_slope(x), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(centre, 319 + 160 * np.arange(len(slope)))
    silent = (centre - 319 > 8000 + 40) & (centre + 321 < 13945 - 40)
    assert silent.sum() > 20 and not slope[silent].any()
    assert np.abs(slope).max() > 10  # beside the silence, the wavelets' tails


def test_peak_slope_of_a_click_by_hand() -> None:
    """A click makes every wavelet's maximum 1: a flat line."""
    x = np.zeros(3000)
    x[1500] = 0.25
    _, slope = peak_slope(x, FS)
    reached = [m for m in range(len(slope)) if 160 * m <= 1500 < 160 * m + 640]
    np.testing.assert_allclose(slope[reached], 0, atol=1e-12)


def test_peak_slope_is_that_of_any_block_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(3).standard_normal(40000)
    x[10000:11000] = 0
    _, slope = peak_slope(x, FS)
    for level in (1e-9, 1e6):
        np.testing.assert_allclose(peak_slope(level * x, FS)[1], slope, atol=1e-9)
    monkeypatch.setattr(wavelets, "FFT", 4096)
    np.testing.assert_allclose(peak_slope(x, FS)[1], slope, atol=1e-9)


def test_the_wavelet_is_even_and_of_its_octave() -> None:
    for scale in range(7):
        pulse = wavelet(scale)
        np.testing.assert_array_equal(pulse, pulse[::-1])
        assert pulse[wavelets.REACH] == -1
        peak = np.argmax(np.abs(np.fft.rfft(pulse, FS)))
        assert abs(peak - FS / 2 ** (scale + 1)) <= 4


@pytest.mark.parametrize("fs", [8000, 16000, 22050, 48000])
@pytest.mark.filterwarnings("error")
def test_odd_signals_give_finite_tracks(fs: int) -> None:
    signals = {
        "empty": np.zeros(0),
        "one sample": np.ones(1),
        "short": np.ones(int(0.03 * fs)),
        "silence": np.zeros(fs),
        "constant": np.full(fs, 0.5),
        "clipped": np.sign(np.sin(2 * np.pi * 130 * np.arange(fs) / fs)).astype(np.float32),
    }
    for name, x in signals.items():
        centre, slope = peak_slope(x, fs)
        assert len(centre) == len(slope) and np.isfinite(slope).all(), name
        residual = np.where(x == 0, np.nan, x)
        for gci in (np.zeros(0, int), np.array([len(x) // 2]), np.arange(5, len(x), fs // 100)):
            quotient = mdq(residual, fs, gci)
            assert quotient.shape == gci.shape and np.isfinite(quotient).all(), name
    assert not peak_slope(signals["silence"], fs)[1].any()
    assert len(peak_slope(signals["clipped"], fs)[0]) in (96, 97)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(DataError):
        peak_slope(np.zeros((100, 2)), FS)
    with pytest.raises(DataError):
        peak_slope(np.full(100, np.nan), FS)
    with pytest.raises(DataError):
        mdq(np.zeros((100, 2)), FS, np.array([10, 20]))
    with pytest.raises(DataError):
        mdq(np.zeros(100), 100, np.array([10, 20]))
