"""Harmonic analysis against the original's values and against a loop over its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import NAMES, RATE, STAGED, intermediates, pitch_of, read
from voices import track

from mertool.errors import DataError
from mertool.extract.covarep import harmonics as module
from mertool.extract.covarep.harmonics import DFT, Harmonics, harmonic_frames, harmonics


def joined(blocks: list[Harmonics]) -> dict[str, np.ndarray]:
    """All blocks as one, amplitudes and phases padded to the same width."""
    width = max(block.amplitude.shape[1] for block in blocks)
    out = {}
    for name in Harmonics.__dataclass_fields__:
        arrays = [getattr(block, name) for block in blocks]
        if name in ("amplitude", "phase"):
            arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in arrays]
        out[name] = np.concatenate(arrays)
    return out


def turned(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.exp(1j * a) - np.exp(1j * b)).max())


def naive(x: np.ndarray, fs: float, centre: int, f0: float) -> tuple[float, ...] | None:
    """One frame by the definition: spacing, amplitudes, phases, spectrum; None = left out."""
    half = int(np.floor(3 * fs / f0 / 2 + 0.5))
    start = centre + 1 - half
    if start < 0 or centre + 1 + half >= len(x):
        return None
    window = np.blackman(2 * half + 1)
    s = np.fft.fft(x[start : start + 2 * half + 1] * window / window.sum(), DFT)[: DFT // 2 + 1]
    s = s * np.exp(2j * np.pi * np.arange(DFT // 2 + 1) * (half % DFT) / DFT)
    v = np.log(np.abs(s))
    peaks = []
    for k in range(1, DFT // 2):
        if v[k - 1] < v[k] > v[k + 1]:
            b = (v[k + 1] - v[k - 1]) / 2
            a = v[k] - b - v[k - 1]
            peaks.append((k + 0.5 * b / a, v[k] + 0.25 * b * b / a))
    angle = np.unwrap(np.angle(s))
    step = DFT * f0 / fs
    count = int(np.floor((fs / 2 - f0 / 2) / f0 + 0.5))
    bins, amplitude, phase = [0.0], [abs(s[0])], [np.angle(s[0])]
    for h in range(1, count + 1):
        at, value = h * step, np.abs(s[int(np.floor(h * step + 0.5))])
        near = min(peaks, key=lambda peak: abs(peak[0] - at)) if peaks else (np.inf, 0)  # noqa: B023
        if abs(near[0] - at) < step / 2:
            at, value = near[0], np.exp(near[1])
        bins.append(at)
        amplitude.append(value)
        phase.append(np.interp(at, np.arange(len(angle)), angle))
    return np.median(np.diff(bins)) * fs / DFT, np.array(amplitude), np.array(phase), np.abs(s)


@pytest.mark.parametrize("name", STAGED)
def test_agrees_with_the_originals_frames(shared: Path, name: str) -> None:
    fs = RATE
    x, arrays = read(shared, name)
    pitch, wanted = pitch_of(arrays), intermediates(shared, name)
    frame, f0, count = harmonic_frames(fs, len(x), pitch)
    # Its times are positions counted from 1.
    np.testing.assert_allclose((pitch.centre[frame] + 1) / fs, wanted["frame_t"], atol=1e-12)
    np.testing.assert_array_equal(f0, wanted["frame_f0"])
    np.testing.assert_array_equal(2 * np.floor(1.5 * fs / f0 + 0.5) + 1, wanted["frame_winlen"])

    got = joined(list(harmonics(x, fs, pitch)))
    np.testing.assert_array_equal(got["frame"], frame)
    np.testing.assert_array_equal(got["count"], count)
    i = int(np.flatnonzero(frame == wanted["mid_frame_index0"])[0])
    frequency, amplitude, phase, number, _ = wanted["mid_frame_sins"]
    h = np.arange(len(number))
    assert got["count"][i] == len(h) - 1
    np.testing.assert_allclose(got["spacing"][i] * h, frequency, atol=1e-9)
    np.testing.assert_allclose(got["amplitude"][i, h], amplitude, rtol=1e-9)
    assert turned(got["phase"][i, h], phase) < 1e-9
    spectrum = np.abs(wanted["mid_frame_halfspec"])
    np.testing.assert_allclose(got["spectrum"][i], spectrum, atol=1e-9 * spectrum.max())


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_originals_frames(shared: Path, name: str) -> None:
    x, values = read(shared, name)
    pitch = pitch_of(values)
    frame, f0, count = harmonic_frames(RATE, len(x), pitch)
    times = (pitch.centre[frame] + 1) / RATE
    np.testing.assert_allclose(times, values["rd_track"][:, 0], rtol=0, atol=1e-12)
    assert (count == np.floor((RATE / 2 - f0 / 2) / f0 + 0.5)).all()


@pytest.mark.parametrize(
    ("fs", "seconds", "rate"), [(8000, 0.4, 50), (16000, 3.2, 10), (48000, 0.3, 50)]
)
def test_is_the_definition(fs: int, seconds: float, rate: int) -> None:
    rng = np.random.default_rng(fs)
    x = rng.standard_normal(int(fs * seconds)) * 0.1
    x += np.sin(2 * np.pi * 133 * np.arange(len(x)) / fs)
    centre = np.arange(fs // 20, len(x), fs // rate)
    f0 = rng.choice([50, 93, 133, 160, 347, 500], len(centre)).astype(float)
    f0[3] = 0
    f0[len(f0) // 2] = 1
    pitch = track(centre, f0)
    wanted = [naive(x, fs, c, f or 100) for c, f in zip(centre.tolist(), f0.tolist(), strict=True)]
    got = joined(list(harmonics(x, fs, pitch)))
    kept = [i for i, values in enumerate(wanted) if values is not None]
    assert got["frame"].tolist() == kept
    assert (1 in got["f0"]) == (seconds > 3)
    np.testing.assert_array_equal(got["centre"], centre[kept])
    for row, i in enumerate(kept):
        spacing, amplitude, phase, spectrum = wanted[i]
        h = len(amplitude)
        assert got["count"][row] == h - 1
        np.testing.assert_allclose(got["spacing"][row], spacing, rtol=1e-9)
        np.testing.assert_allclose(got["amplitude"][row, :h], amplitude, rtol=1e-8)
        assert turned(got["phase"][row, :h], phase) < 1e-8
        np.testing.assert_allclose(got["spectrum"][row], spectrum, atol=1e-12)
        assert not got["amplitude"][row, h:].any()
        assert not got["phase"][row, h:].any()


def test_finds_the_sinusoids_of_a_sum() -> None:
    fs, f0 = 16000, 200
    amplitude, phase = np.array([0.5, 0.25, 0.1]), np.array([0.3, -2.0, 1.5])
    h = np.arange(1, 4)
    n = np.arange(fs // 2)[:, None]
    centre = 4000
    x = (amplitude * np.cos(2 * np.pi * f0 * h * (n - centre - 1) / fs + phase)).sum(axis=1)
    (block,) = harmonics(x, fs, track([centre], [197.0]))
    assert block.count[0] == 40
    np.testing.assert_allclose(block.amplitude[0, 1:4], amplitude / 2, rtol=1e-3)
    np.testing.assert_allclose(block.phase[0, 1:4], phase, atol=1e-2)


def test_blocks_do_not_matter_and_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal(4 * 16000).astype(np.float32)
    centre = np.arange(25000, 39000, 1600)
    f0 = np.array([120.0, 121, 1, 1, 1, 300, 1, 50, 51])
    pitch = track(centre, f0)
    monkeypatch.setattr(module, "LOW_FRAMES", 2)
    blocks = list(harmonics(x, 16000, pitch))
    assert [block.f0.tolist() for block in blocks] == [
        [120, 121], [1, 1], [1], [300], [1], [50, 51],
    ]  # fmt: skip
    monkeypatch.setattr(module, "FRAMES", 1)
    monkeypatch.setattr(module, "LOW_FRAMES", 1)
    one, many = joined(list(harmonics(x, 16000, pitch))), joined(blocks)
    for name in one:
        np.testing.assert_allclose(one[name], many[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_peaks_by_hand() -> None:
    e = np.exp
    rows = e([
        [0.0, 1, 0, 2, 2, 2, 1, 3],  # a peak, a plateau (its centre); not the end
        [5.0, 4, 4, 5, 3, 2, 0, 0],  # no plateau in a valley; a peak
        [0.0, 1, 1, 2, 2, 2, 2, 2],  # no plateau that goes on rising or to the end
        [0.0, 3, 2, 0, 0, 0, 0, 0],  # off the bin: b = 1, a = 2
    ])  # fmt: skip
    row, at, height = module._peaks(rows)
    assert row.tolist() == [0, 0, 1, 3]
    np.testing.assert_allclose(at, [1, 4, 3 - 0.5 / 3, 1.25], atol=1e-12)
    np.testing.assert_allclose(np.log(height), [1, 2, 5 + 0.25 / 6, 3.125], atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fs", [8000, 16000, 48000])
def test_odd_signals(fs: int) -> None:
    for x in (np.zeros(0), np.zeros(1), np.ones(5, dtype=np.float32)):
        assert not list(harmonics(x, fs, track([], [])))
        assert not list(harmonics(x, fs, track([0], [100])))
    centre = np.array([1000, 3 * fs // 2, 2 * fs])
    square = np.where(np.arange(4 * fs) // 40 % 2, 1.0, -1.0)
    for x in (np.zeros(4 * fs), np.ones(4 * fs), square, -square * 1e-30):
        got = joined(list(harmonics(x, fs, track(centre, [500, 100, 1]))))
        assert len(got["f0"]) == 3
        assert all(np.isfinite(values).all() for values in got.values())


def test_refuses_what_is_no_signal() -> None:
    with pytest.raises(DataError):
        list(harmonics(np.array([0.0, np.nan]), 16000, track([], [])))


@pytest.mark.filterwarnings("error")
def test_nearest_peaks() -> None:
    rng = np.random.default_rng(4)
    magnitude = rng.random((6, DFT // 2 + 1))  # peaks as close as they can be
    magnitude[2] = np.round(8 * magnitude[2]) + 1  # plateaus
    magnitude[[0, 3, 5]] = 1  # no peaks
    row, peak, _ = module._peaks(magnitude)
    bins = rng.random((6, 3000)) * (DFT // 2)
    near, some = module._nearest(row, peak, bins, np.floor(bins + 0.5).astype(np.int64))
    assert some.tolist() == [False, True, True, False, True, False]
    for f in np.flatnonzero(some):
        of_row = peak[row == f]
        wanted = of_row[np.argmin(np.abs(of_row[:, None] - bins[f]), axis=0)]
        np.testing.assert_array_equal(peak[near[f]], wanted)
