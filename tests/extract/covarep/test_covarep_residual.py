"""The linear-prediction residual and the polarity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import NAMES, RATE, STAGED, intermediates, read, sound
from scipy import linalg, signal, stats
from voices import pulses

from mertool.errors import DataError
from mertool.extract.covarep import residual as module
from mertool.extract.covarep.residual import lp_residual, polarity

ODD = {
    "empty": np.zeros(0),
    "one sample": np.ones(1),
    "too short": np.ones(300),
    "silence": np.zeros(8000),
    "constant": np.full(8000, 0.5),
    "falls silent": np.r_[np.sin(np.arange(4000) / 9.0), np.zeros(80000)],
    "clipped": np.sign(np.sin(np.arange(8000) / 20)),
}


def naive(x: np.ndarray, fs: float, order: int, predictor: np.ndarray) -> np.ndarray:
    """Frame by frame, with 1-based positions and the normal equations solved directly."""
    length, hop = round(0.025 * fs), round(0.005 * fs)
    window = signal.windows.hann(length + 3)[1:-1]
    out = np.zeros(len(x))
    start = 1
    while start + length < len(x):
        span = slice(start - 1, start + length)
        frame, model = x[span] * window, predictor[span] * window
        r = np.array([model[: len(model) - k] @ model[k:] for k in range(order + 1)])
        a = np.concatenate([[1], -linalg.solve_toeplitz(r[:-1], r[1:])])
        error = signal.lfilter(a, 1, frame)
        out[span] += error * np.sqrt(np.sum(frame**2) / np.sum(error**2))
        start += hop
    return out / np.abs(out).max()


@pytest.mark.parametrize(("fs", "order"), [(8000, None), (11025, 7), (16000, 12), (16000, None)])
def test_residual_is_that_of_a_loop_over_frames(fs: int, order: int | None) -> None:
    x = pulses(fs)[0]
    expected = naive(x, fs, order or round(fs / 1000) + 2, x)
    np.testing.assert_allclose(lp_residual(x, fs, order), expected, atol=1e-8)


def test_residual_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pulses(16000)[0]
    expected = lp_residual(x, 16000)
    for size in (1, 7):
        monkeypatch.setattr(module, "BATCH", size)
        np.testing.assert_allclose(lp_residual(x, 16000), expected, atol=1e-12)


def test_frames_of_zeros_are_nan_over_their_span() -> None:
    x = pulses(16000)[0]
    x[4000:6000] = 0
    # The first such frame starts at 4000, the last at 5520: 80 samples on, it reaches past 6000.
    missing = np.flatnonzero(np.isnan(lp_residual(x, 16000)))
    np.testing.assert_array_equal(missing, np.arange(4000, 5521 + 400))


def test_residual_of_float32_and_of_any_scale() -> None:
    x = pulses(16000)[0].astype(np.float32)
    expected = lp_residual(x.astype(np.float64), 16000)
    np.testing.assert_array_equal(lp_residual(x, 16000), expected)
    np.testing.assert_allclose(lp_residual(x * np.float32(2**14), 16000), expected, atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fs", [8000, 16000, 48000])
@pytest.mark.parametrize("name", ODD)
def test_odd_signals(name: str, fs: int) -> None:
    assert lp_residual(ODD[name], fs).shape == ODD[name].shape
    assert polarity(ODD[name], fs) in (1, -1)
    if name in ("empty", "one sample", "too short", "silence"):  # nothing to tell from
        assert polarity(ODD[name], fs) == 1


def test_what_is_no_signal_is_refused() -> None:
    with pytest.raises(DataError, match="no finite"):
        lp_residual(np.array([0.0, np.nan]), 16000)
    with pytest.raises(DataError, match="one dimension"):
        polarity(np.zeros((2, 5)), 16000)


@pytest.mark.parametrize("fs", [8000, 16000, 44100])
def test_polarity_is_the_sign_of_the_excitation(fs: int) -> None:
    x = pulses(fs)[0]
    # The pulses excite the resonances upwards; the same sign for their negative.
    assert polarity(x, fs) == -polarity(-x, fs)
    high = _high_passed(x, fs)
    order = round(fs / 1000) + 2
    expected = np.sign(stats.skew(naive(x, fs, order, x)) - stats.skew(naive(x, fs, order, high)))
    assert polarity(x, fs) == expected


def _high_passed(x: np.ndarray, fs: float) -> np.ndarray:
    order, _ = signal.ellipord(480 / (fs / 2), 500 / (fs / 2), 3, 60)
    sections = signal.ellip(order, 3, 60, 480 / (fs / 2), "high", output="sos")
    return signal.sosfiltfilt(sections, x, padlen=3 * order)


@pytest.mark.parametrize("name", NAMES)
def test_polarity_of_the_reference(shared: Path, name: str) -> None:
    _, arrays = read(shared, name)
    assert polarity(sound(shared, name), RATE) == int(arrays["polarity"])


@pytest.mark.parametrize("name", STAGED)
def test_residual_of_the_reference(shared: Path, name: str) -> None:
    x, _ = read(shared, name)
    expected = intermediates(shared, name)["lp_residual18"].ravel()
    np.testing.assert_allclose(lp_residual(x, RATE), expected, atol=1e-9)
