"""The creak detector's inputs against the reference and plain loops, and the detector itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import STAGED, intermediates, read
from scipy import signal

from mertool.errors import DataError
from mertool.extract.covarep import creak_measures, ishi
from mertool.extract.covarep.creak import (
    INPUTS,
    Weights,
    creak_inputs,
    creak_posterior,
    read_weights,
)
from mertool.extract.covarep.pitch import pitch_srh
from mertool.extract.covarep.residual import lp_residual

FS = 16000
BAND = ("IFP", "IPS", "PwP_fall", "PwP_rise")  # measures of the ill-conditioned band-pass


@pytest.mark.parametrize("name", STAGED)
def test_inputs_are_the_references(shared: Path, name: str) -> None:
    x, _ = read(shared, name)
    kept = intermediates(shared, name)
    expected = kept["creak_inputs"]
    inputs = creak_inputs(x, FS, kept["lp_residual18"])
    assert inputs.shape == expected.shape
    for i in range(36):
        if INPUTS[i % 12] in BAND:
            continue
        np.testing.assert_allclose(inputs[:, i], expected[:, i], rtol=0, atol=1e-6)
    for i in (INPUTS.index(name) for name in BAND):
        assert np.corrcoef(inputs[:, i], expected[:, i])[0, 1] >= 0.995
        assert np.median(np.abs(inputs[:, i] - expected[:, i])) < 0.02


def voice(seconds: float, fs: int = FS, seed: int = 0) -> np.ndarray:
    """A pulse train of 60 to 140 Hz through two resonances, with noise and pauses."""
    rng = np.random.default_rng(seed)
    count = int(seconds * fs)
    t = np.arange(count) / fs
    phase = np.cumsum(100 + 40 * np.sin(2 * np.pi * 0.7 * t)) / fs
    x = np.diff(np.floor(phase), prepend=0)
    for f, r in ((500, 0.97), (1500, 0.95)):
        x = signal.lfilter([1], [1, -2 * r * np.cos(2 * np.pi * f / fs), r * r], x)
    x = 0.1 * x * (np.sin(2 * np.pi * 0.9 * t) > -0.7) + 1e-3 * rng.standard_normal(count)
    return x


def round_up(value: float) -> int:
    return int(np.floor(value + 0.5))


def naive_ishi(x: np.ndarray, rows: int) -> np.ndarray:
    """The four tracks, one sample and one peak at a time, positions counted from 1."""
    samples = len(x)
    sos = signal.butter(7, [0.01158262029, 0.2014149027], "bandpass", output="sos")
    y = np.concatenate([[np.nan], signal.sosfiltfilt(sos, x, padlen=42)])
    tracks = np.zeros((samples + 1, 4))

    ifp, centre = [], []
    for start in range(1, samples - 511 + 1, 160):
        frame = y[start : start + 512]
        c = np.array([frame[: 512 - k] @ frame[k:] for k in range(241)]) / (frame @ frame)
        c[:16] = 0
        c *= 512 / (512 - np.arange(1, 242))
        first, value, m = int(np.argmax(c)) + 1, c.max(), 2
        while first * m < 241:
            value = min(value, c[max(0, first * m - 16 - 1) : first * m + 16].max())
            m += 1
        ifp.append(value)
        centre.append(round_up((start + start + 511) / 2))
    final = list(ifp)
    for n in range(len(ifp) - 3):
        if ifp[n + 1] < 0.5 or ifp[n + 2] < 0.5:
            final[n] = 0
    final = np.clip(final, 0, 1)
    tracks[1:, 0] = np.interp(np.arange(1, samples + 1), centre, final, left=0, right=0)

    starts = range(1, samples - 63 + 1, 32)
    power = [20 * np.log10(np.mean(y[s : s + 64] ** 2)) for s in starts]
    peaks = []
    for n in range(3, len(power) - 3):
        if power[n] > power[n - 1] and power[n] > power[n + 1]:
            if power[n] - power[n - 3] >= 2 and power[n] - power[n + 3] >= 2:
                peaks.append(n)
    top = max(power[n] for n in peaks)
    peaks = [n for n in peaks if power[n] >= top - 30]
    time = [round_up(32 * n + 32.5) for n in peaks]
    values = np.zeros((len(peaks), 3))
    for k, n in enumerate(peaks):
        values[k, 1] = max(power[n] - p for p in power[n + 1 : n + 6])
        values[k, 2] = max(power[n] - p for p in power[max(0, n - 5) : n])
        if k and time[k] - time[k - 1] <= 1600 and time[k - 1] > 120 and time[k] + 120 <= samples:
            a, b = (y[t - 120 : t + 121] for t in (time[k], time[k - 1]))
            values[k, 0] = np.correlate(a, b, "full").max() / np.sqrt((a @ a) * (b @ b))
    for n in range(1, samples + 1):
        away = [t - n if t >= n else n for t in time]
        k = int(np.argmin(away))
        if away[k] < 560:
            tracks[n, 1:] = values[k]
    return tracks[[round_up(p) for p in np.linspace(1, samples, rows)]]


def test_ishi_tracks_follow_their_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    x = voice(1.6)
    tracks = ishi.ishi_tracks(x, FS, 160)
    expected = naive_ishi(x, 160)
    assert (expected > 0).mean(axis=0).min() > 0.1
    np.testing.assert_allclose(tracks, expected, rtol=0, atol=1e-7)
    monkeypatch.setattr(ishi, "SPAN", 3000)
    np.testing.assert_allclose(ishi.ishi_tracks(x, FS, 160), expected, rtol=0, atol=1e-7)


def test_the_first_peak_stands_in_for_a_later_one() -> None:
    """Values hold for 35 ms before their peak; the quirk: peaks of the past lie at the start."""
    values, centre = np.array([[1.0], [2.0], [3.0]]), np.array([99, 999, 2999])
    at = np.array([0, 99, 100, 499, 500, 600, 999, 1000, 2430, 2439, 2440, 2999, 3000])
    found = ishi._next_peak(values, centre, FS, at)[:, 0]
    np.testing.assert_array_equal(found, [1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 3, 3, 0])


def naive_measures(
    x: np.ndarray, residual: np.ndarray, f0: float, rows: int
) -> dict[str, np.ndarray]:
    """Energy, pow_std, res_p and creakF0, one frame at a time, positions counted from 1."""
    samples = len(x)
    at = 160 * np.arange(1, rows + 1)
    window = np.hanning(514)[1:-1]
    energy = np.full((samples - 511) // 80 + 1, -np.inf)
    for n, start in enumerate(range(0, samples - 512, 80)):
        energy[n] = np.log(np.mean((x[start : start + 512] * window) ** 2))
    nodes = np.linspace(1, samples, len(energy))
    out = {"enerN": np.interp(at, nodes, energy - energy.max())}
    contour = np.interp(np.arange(1, samples + 1), nodes, energy)

    def resonate(rho: float) -> np.ndarray:
        y = np.zeros(samples + 2)
        a, b = 2 * rho * np.cos(2 * np.pi * f0 / FS), rho**2
        for n in range(samples):
            y[n] = residual[n] + a * y[n - 1] - b * y[n - 2]
        return y[:samples]

    broad = resonate(0.8)
    length = 2 * round_up(FS / (90 if f0 > 100 else 65 if f0 >= 85 else 55))
    half, value, time = length // 2, [], []
    for start in range(1, samples - length + 2, 320):
        frame = broad[start - 1 : start - 1 + length]
        time.append(round_up((2 * start + length - 1) / 2))
        value.append(0.0)
        i = int(np.argmax(np.abs(frame))) + 1
        if start + i - half < 1 or start + i + half > samples:
            continue
        wave = broad[start + i - half - 1 : start + i + half].copy()
        if wave[np.argmax(np.abs(wave))] < 0:
            wave = -wave
        wave /= wave.max()
        place = int(np.argmax(wave)) + 1 + start
        wave[round_up(0.3 * length) - 1 : round_up(0.7 * length)] = 0
        if contour[place - 1] >= contour[max(0, place - 6401) : place + 6400].max() - 4:
            value[-1] = 1 - max(wave.max(), 0)
    smooth = [np.median(np.pad(value, 2)[n : n + 5]) for n in range(len(value))]
    out["res_p"] = np.interp(at, time, smooth, left=0, right=0)

    f = []
    wide = np.hanning(802)[1:-1]
    for start in range(0, samples - 800, 160):
        frame = broad[start : start + 800] * wide
        c = np.array([frame[: 800 - k] @ frame[k:] * 799 / (800 - k) for k in range(1, 800)])
        k = 0
        while k < 799 and c[k] > 0:
            c[k] = 0
            k += 1
        f.append(float(round_up(FS / (int(np.argmax(c)) + 1))))
    f = [float(np.median(np.pad(f, 3)[n : n + 7])) for n in range(len(f))]
    f = [np.mean(f[n - r : n + r + 1]) for n in range(len(f)) for r in [min(4, n, len(f) - 1 - n)]]
    out["creakF0"] = np.interp(at, np.linspace(1, samples, len(f)), f)
    return out


SOUNDS = [(1.3, 0), pytest.param(2.0, 1, marks=pytest.mark.slow), (1.512, 2)]


@pytest.mark.parametrize(("seconds", "seed"), SOUNDS)
def test_measures_follow_their_definition(
    monkeypatch: pytest.MonkeyPatch, seconds: float, seed: int
) -> None:
    x = voice(seconds, seed=seed)
    residual = lp_residual(x, FS)
    monkeypatch.setattr(ishi, "SPAN", 5000)
    inputs = creak_inputs(x, FS, residual)
    expected = naive_measures(x, np.nan_to_num(residual), inputs[0, 8], len(inputs))
    for name, values in expected.items():
        got = inputs[:, INPUTS.index(name)]
        if seconds == 1.512 and name == "enerN":  # log(0) where the original has one frame too many
            assert np.isneginf(got[-1])
        np.testing.assert_allclose(got, values, rtol=0, atol=1e-8, err_msg=name)
    changes = np.diff(inputs[:, :12], axis=0, prepend=inputs[:1, :12])
    np.testing.assert_array_equal(inputs[:, 12:24], changes)
    np.testing.assert_array_equal(inputs[1:, 24:], np.diff(inputs[:, 12:24], axis=0))
    assert not inputs[0, 24:].any()


def test_harmonic_balance_reads_the_spectrum_one_bin_low() -> None:
    """H2H1 of two cosines, against the whole spectrum of 1 Hz per bin."""
    t = np.arange(4000) / FS
    x = np.cos(2 * np.pi * 100 * t) + 0.5 * np.cos(2 * np.pi * 200 * t)
    level, f0 = creak_measures.harmonic_balance(
        lambda a, b: x[a:b], lambda a, b: x[a:b], FS, len(x)
    )
    frame = x[1600:2400] * np.hanning(802)[1:-1] ** 2
    r = [frame[: 800 - k] @ frame[k:] for k in range(1, 800)]
    spectrum = 20 * np.log10(np.abs(np.fft.rfft(r, FS)))
    f = int(f0[10])
    assert f in (100, 101) and np.all(f0[4:-4] == f)
    # The frame repeats every 10 ms, and so does what is averaged over 9 frames.
    np.testing.assert_allclose(level[10], spectrum[2 * f - 1] - spectrum[f - 1], atol=1e-9)


def test_pitch_found_before_gives_the_same() -> None:
    x = voice(1.5)
    residual = lp_residual(x, FS)
    pitch = pitch_srh(x, FS, 20, 500)
    given = creak_inputs(x, FS, residual, pitch)
    np.testing.assert_array_equal(given, creak_inputs(x, FS, residual))
    assert np.isfinite(given).all()


@pytest.mark.parametrize("fs", [8000, 16000, 44100, 48000])
@pytest.mark.filterwarnings("error")
def test_odd_signals(fs: int) -> None:
    t = np.arange(fs) / fs
    signals = {
        "empty": np.zeros(0),
        "one sample": np.ones(1),
        "silence": np.zeros(fs),
        "constant": np.full(fs, 0.5),
        "clipped": np.sign(np.sin(2 * np.pi * 130 * t)).astype(np.float32),
        "short": np.sign(np.sin(2 * np.pi * 130 * t[: int(0.13 * fs)])),
        "ends": voice(1, fs) * (t < 0.6),
    }
    weights = some_weights()
    for name, x in signals.items():
        inputs = creak_inputs(x, fs, lp_residual(x, fs))
        assert inputs.shape == (len(x) // round_up(0.01 * fs), 36), name
        posterior = creak_posterior(inputs, weights)
        assert not ((posterior < 0) | (posterior > 1)).any(), name
        if name in ("silence", "one sample"):
            assert np.isnan(inputs).all() and np.isnan(posterior).all()
        if name == "clipped":
            assert np.isfinite(inputs).all() and np.isfinite(posterior).all()


def test_the_residual_must_be_the_signals() -> None:
    with pytest.raises(DataError, match="another signal"):
        creak_inputs(np.zeros(1000), FS, np.zeros(999))


def some_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    low = rng.standard_normal(36)
    return {
        "W1": rng.standard_normal((32, 36)),
        "b1": rng.standard_normal(32),
        "W2": rng.standard_normal((1, 32)),
        "b2": np.array(rng.standard_normal()),
        "min": low,
        "max": low + rng.uniform(1, 5, 36),
    }


def some_weights(seed: int = 0) -> Weights:
    kept = some_arrays(seed)
    return Weights(
        kept["W1"], kept["b1"], kept["W2"][0], float(kept["b2"]), kept["min"], kept["max"]
    )


def test_posterior_follows_its_definition() -> None:
    kept, weights = some_arrays(), some_weights()
    inputs = np.random.default_rng(1).standard_normal((5000, 36)) * 3
    inputs[7, 3] = np.nan
    posterior = creak_posterior(inputs, weights)
    for row in (0, 7, 4095, 4096, 4999):
        u = np.array([
            -1 if np.isnan(v) else -1 + 2 * (v - low) / (high - low)
            for v, low, high in zip(inputs[row], kept["min"], kept["max"], strict=True)
        ])  # fmt: skip
        h = np.tanh(kept["W1"] @ u + kept["b1"])
        expected = 1 / (1 + np.exp(-(kept["W2"][0] @ h + kept["b2"])))
        np.testing.assert_allclose(posterior[row], expected, rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_an_input_without_range_counts_as_its_least() -> None:
    kept = some_weights()
    high = kept.high.copy()
    high[20] = kept.low[20]
    flat = Weights(kept.hidden, kept.hidden_bias, kept.output, kept.output_bias, kept.low, high)
    inputs = np.random.default_rng(2).standard_normal((50, 36))
    at_least = inputs.copy()
    at_least[:, 20] = kept.low[20]
    posterior = creak_posterior(inputs, flat)
    assert np.isfinite(posterior).all()
    np.testing.assert_allclose(posterior, creak_posterior(at_least, kept), rtol=1e-12)


def test_infinite_inputs_saturate() -> None:
    weights = some_weights()
    inputs = np.tile(weights.low, (2, 1))
    inputs[0, 9], inputs[1, 9] = -np.inf, -1e12
    posterior = creak_posterior(inputs, weights)
    np.testing.assert_allclose(posterior[0], posterior[1])


def test_weights_are_read(tmp_path: Path) -> None:
    arrays, path = some_arrays(), tmp_path / "creak.npz"
    inputs = np.random.default_rng(3).standard_normal((20, 36))
    expected = creak_posterior(inputs, some_weights())
    for changed in (
        {},
        {"W2": arrays["W2"][0], "b1": arrays["b1"][:, None], "b2": arrays["b2"].reshape(1, 1)},
        {"min": arrays["min"][None], "max": arrays["max"][:, None], "extra": np.zeros(3)},
    ):
        np.savez(path, **{**arrays, **changed})
        np.testing.assert_array_equal(creak_posterior(inputs, read_weights(str(path))), expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("W1", None, "lacks W1"),
        ("W1", np.zeros((36, 32)), '"W1"'),
        ("b1", np.zeros(31), '"b1"'),
        ("W2", np.zeros((32, 1)), '"W2"'),
        ("b2", np.zeros(2), '"b2"'),
        ("min", np.full(36, np.nan), '"min" .* no finite'),
        ("max", np.full(36, np.inf), '"max" .* no finite'),
        ("b1", np.zeros(32, complex), '"b1"'),
        ("b1", np.array(["0"] * 32), '"b1"'),
        ("b1", np.array([None] * 32), "Python objects"),
    ],
)
def test_wrong_weights_are_refused(
    tmp_path: Path, name: str, value: np.ndarray | None, message: str
) -> None:
    arrays = some_arrays()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    path = tmp_path / "creak.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as error:
        read_weights(path)
    assert len(str(error.value).splitlines()) == 3 and str(path) in str(error.value)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no weights")
    np.savez(tmp_path / "cut.npz", **some_arrays())
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("one.npy", "text.npz", "cut.npz", "absent.npz"):
        with pytest.raises(DataError) as error:
            read_weights(tmp_path / name)
        assert len(str(error.value).splitlines()) == 3
