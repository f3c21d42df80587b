from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import FILES, STAGED, intermediates, pitch_of, read

from mertool.errors import DataError
from mertool.extract.covarep import envelope
from mertool.extract.covarep.envelope import mcep, mel_cepstrum, true_envelope
from mertool.extract.covarep.harmonics import Harmonics, harmonics
from mertool.extract.covarep.signals import half_up, interpolate

RNG = np.random.default_rng(0)


def slow_envelope(magnitude: np.ndarray, order: int, first: bool = True) -> np.ndarray:
    """One frame's true envelope as the equations have it, by Fourier transforms."""
    half = len(magnitude) - 1
    order = min(int(1.2 * min(order, half - 1) + 0.5), half - 1)
    window = np.hamming(2 * order + 1)[order:]
    log = np.log(magnitude)
    if first:
        smooth = np.log(slow_envelope(magnitude, int(order / 2 + 0.5), first=False))
        ends = int(half / order / 2 + 0.5)
        log[:ends] = smooth[:ends]
        log[half - ends + 2 :] = smooth[half - ends + 2 :]
    lifted, cepstrum = log.copy(), np.zeros(order + 1)
    for _ in range(200):
        full = np.fft.irfft(lifted)
        now = np.append(full[0], 2 * full[1 : order + 1])
        outside = np.sqrt(np.sum((2 * full[order + 1 : half]) ** 2))
        within = np.sqrt(np.sum(now**2))
        cepstrum += (within + outside) / within * window * (now - cepstrum)
        smooth = np.fft.rfft(cepstrum, 2 * half).real
        lifted = np.maximum(lifted, smooth)
        if np.max(log - smooth) <= np.log(10 ** (2 / 20)):
            break
    return np.exp(smooth)


def spectra(frames: int, bins: int) -> np.ndarray:
    """Magnitudes with formants, harmonics and noise."""
    i = np.arange(bins)
    formants = RNG.normal(size=(frames, 6)) @ np.cos(np.pi * np.outer(np.arange(6), i) / bins)
    ripple = 2 * np.cos(2 * np.pi * i / RNG.uniform(bins / 30, bins / 8, (frames, 1)))
    return np.exp(formants + ripple + 0.5 * RNG.normal(size=(frames, bins)))


def block(spectrum: np.ndarray, f0: np.ndarray) -> Harmonics:
    empty = np.zeros((len(f0), 2))
    return Harmonics(f0, f0, f0, f0, f0, empty, empty, spectrum)


@pytest.mark.parametrize("bins", [33, 257, 2049])
def test_as_the_equations_say(bins: int) -> None:
    magnitude = spectra(7, bins)
    order = np.minimum([3, 5, 20, 11, 72, 4, 160], bins // 4)
    expected = [slow_envelope(m, o) for m, o in zip(magnitude, order, strict=True)]
    np.testing.assert_allclose(true_envelope(magnitude, order), expected, rtol=1e-10)


@pytest.mark.parametrize("order", [334, 600, 1705, 8000])
def test_high_orders_as_the_equations_say(order: int) -> None:
    magnitude = spectra(2, 2049)
    expected = [slow_envelope(m, order) for m in magnitude]
    found = true_envelope(magnitude, np.full(2, order))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_product_and_transform_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    magnitude, order = spectra(5, 513), np.array([10, 31, 64, 7, 100])
    expected = true_envelope(magnitude, order)
    monkeypatch.setattr(envelope, "PRODUCT", 1)
    np.testing.assert_allclose(true_envelope(magnitude, order), expected, rtol=1e-10)


def test_frames_do_not_depend_on_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    magnitude, order = spectra(30, 513), RNG.integers(5, 80, 30)
    expected = true_envelope(magnitude, order)
    for batch in (1, 7):
        monkeypatch.setattr(envelope, "BATCH", batch)
        np.testing.assert_allclose(true_envelope(magnitude, order), expected, rtol=1e-10)
    alone = np.concatenate([true_envelope(magnitude[i : i + 1], order[i : i + 1]) for i in (3, 17)])
    np.testing.assert_allclose(alone, expected[[3, 17]], rtol=1e-10)


def test_no_peak_rises_two_decibels_above_the_envelope() -> None:
    magnitude, order = spectra(10, 2049), np.full(10, 60)
    inside = slice(20, 2020)  # away from the ends, which a coarser curve replaces
    excess = 20 * np.log10(magnitude[:, inside] / true_envelope(magnitude, order)[:, inside])
    assert excess.max() <= 2 + 1e-9
    assert excess.max() > 1


def test_flat_spectrum_is_its_own_envelope() -> None:
    found = true_envelope(np.full((2, 257), [[3.0], [1.0]]), np.array([10, 20]))
    np.testing.assert_allclose(found, np.full((2, 257), [[3.0], [1.0]]), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_silent_and_broken_frames_are_nan_and_leave_the_others_alone() -> None:
    magnitude = spectra(5, 257)
    alone = true_envelope(magnitude[[0, 4]], np.array([12, 30]))
    magnitude[1], magnitude[2, 7], magnitude[3, 3] = 0, np.nan, 0
    found = true_envelope(magnitude, np.array([12, 12, 12, 12, 30]))
    np.testing.assert_allclose(found[[0, 4]], alone, rtol=1e-10)
    assert np.isnan(found[1:4]).all()
    assert np.isnan(mel_cepstrum(found, 16000, 24)[1:4]).all()
    assert np.isfinite(mel_cepstrum(found, 16000, 24)[[0, 4]]).all()


def test_no_frames() -> None:
    assert true_envelope(np.zeros((0, 257)), np.zeros(0)).shape == (0, 257)
    assert mcep(block(np.zeros((0, 2049)), np.zeros(0)), 16000).shape == (0, 25)


def test_odd_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="256 bins"):
        true_envelope(np.ones((1, 256)), np.array([10]))


def test_mel_cepstrum_by_hand() -> None:
    flat = mel_cepstrum(np.full((1, 513), np.e**2), 16000, 4)
    np.testing.assert_allclose(flat, [[2, 0, 0, 0, 0]], atol=1e-13)
    # An amplitude that is exp(1 + cos(w) - 0.25 cos(3 w)) at mel position w.
    f = np.linspace(0, 8000, 2049)
    w = np.pi * np.log(1 + f / 700) / np.log(1 + 8000 / 700)
    amplitude = np.exp(1 + np.cos(w) - 0.25 * np.cos(3 * w))
    found = mel_cepstrum(amplitude[None], 16000, 5)
    np.testing.assert_allclose(found, [[1, 1, 0, -0.25, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("fs", [8000, 16000, 48000])
def test_mel_cepstrum_as_the_equations_say(fs: int) -> None:
    amplitude = spectra(3, 129)
    f = np.linspace(0, fs / 2, 129)
    mel = np.log(1 + f / 700)
    warped = np.stack([np.interp(f, fs / 2 * mel / mel[-1], a) for a in amplitude])
    cepstrum = np.fft.irfft(np.log(warped), axis=1)[:, :13]
    cepstrum[:, 1:] *= 2
    np.testing.assert_allclose(mel_cepstrum(amplitude, fs, 12), cepstrum, atol=1e-12)


@pytest.mark.parametrize("fs", [8000, 48000])
def test_other_rates(fs: int) -> None:
    f0 = np.array([50.0, 120.0, 400.0])
    magnitude = spectra(3, 2049)
    expected = [slow_envelope(m, int(fs / f / 2 + 0.5)) for m, f in zip(magnitude, f0, strict=True)]
    expected = mel_cepstrum(np.array(expected), fs, 24)
    np.testing.assert_allclose(mcep(block(magnitude, f0), fs), expected, atol=1e-9)


@pytest.mark.parametrize("name", STAGED)
def test_stages_as_the_original(shared: Path, name: str) -> None:
    stages = intermediates(shared, name)
    at = int(stages["mid_frame_index0"])
    found = true_envelope(np.abs(stages["mid_frame_halfspec"])[None], stages["te_orders"][[at]])
    np.testing.assert_allclose(found[0], stages["mid_frame_true_env_abs"], rtol=1e-10)

    x, arrays = read(shared, name)
    blocks = list(harmonics(x, 16000, pitch_of(arrays)))
    f0 = np.concatenate([b.f0 for b in blocks])
    np.testing.assert_array_equal(half_up(0.5 * 16000 / f0), stages["te_orders"])
    cepstra = np.concatenate([mcep(b, 16000) for b in blocks])
    np.testing.assert_allclose(cepstra, stages["mcep_frames"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", FILES)
def test_columns_as_the_original(shared: Path, name: str) -> None:
    x, arrays = read(shared, name)
    cepstra = np.concatenate([mcep(b, 16000) for b in harmonics(x, 16000, pitch_of(arrays))])
    spread = half_up(np.linspace(1, len(x), len(cepstra)))
    found = interpolate(spread, cepstra, arrays["sample_pos"])
    expected = arrays["features"][:, 11:36]
    known = np.isfinite(expected).all(axis=1)
    np.testing.assert_allclose(found[known], expected[known], atol=1e-6, rtol=0)
