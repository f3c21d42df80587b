from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import NAMES, QUICK, RATE, pitch_of, read
from scipy import signal

from mertool.extract.covarep import phase
from mertool.extract.covarep.envelope import mel_cepstrum
from mertool.extract.covarep.framefilters import median_of_9, widen, zero_phase
from mertool.extract.covarep.harmonics import Harmonics, harmonic_frames, harmonics
from mertool.extract.covarep.phase import PhaseDistortion, phase_rows

# fmt: off
LAST = [0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 21, 27, 35, 45, 57, 71, 88, 109, 134, 165, 206, 263, 357,
        511]  # of each group of bins
# fmt: on


def wrap(angle: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * angle))


def voice(frames: int, fs: float = 16000, seed: int = 0, low: bool = False) -> Harmonics:
    """Frames of a voice whose phases wander; with `low` some of F0 = 1 Hz."""
    rng = np.random.default_rng(seed)
    f0 = np.round(150 + 60 * np.sin(np.arange(frames) / 20) + rng.uniform(-5, 5, frames))
    if low:
        f0[frames // 2 : frames // 2 + 3] = 1
    count = np.floor((fs / 2 - f0 / 2) / f0 + 0.5).astype(int)
    spacing = f0 * (1 + rng.uniform(-0.01, 0.01, frames))
    h = np.arange(count.max() + 1)
    valid = h <= count[:, None]
    amplitude = np.exp(rng.normal(size=valid.shape)) * valid
    slow = np.cumsum(0.2 * rng.normal(size=valid.shape), axis=0) + 0.01 * h**1.3
    angle = wrap(slow + h * rng.uniform(-3, 3, (frames, 1))) * valid
    number = np.arange(frames)
    spectrum = np.zeros((frames, 2))
    return Harmonics(number, 800 + 160 * number, f0, spacing, count, amplitude, angle, spectrum)


def part(block: Harmonics, a: int, b: int) -> Harmonics:
    rows = {name: value[a:b] for name, value in vars(block).items()}
    most = rows["count"].max() + 1
    rows |= {name: rows[name][:, :most] for name in ("amplitude", "phase")}
    return Harmonics(**rows)


def analyse(block: Harmonics, fs: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    distortion = PhaseDistortion(fs, len(block.f0))
    for a in range(0, len(block.f0), size):
        distortion.add(part(block, a, a + size))
    return distortion.finish()


def splitmix(frame: int, entry: int) -> float:
    """SplitMix64 in Python's integers, as a phase."""
    mask = (1 << 64) - 1
    z = ((frame << 16) + entry + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return 2 * np.pi * ((z ^ z >> 31) >> 11) / 2**53


def slow_distortion(block: Harmonics, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """The equations, one frame and one filter after the other."""
    bins = fs * np.arange(513) / 1024
    most = block.count.max()
    matrix = []
    for n, (f, spacing, count) in enumerate(zip(block.f0, block.spacing, block.count, strict=True)):
        nodes, values = spacing * np.arange(1, count + 1), block.amplitude[n, 1 : count + 1]
        log = np.interp(bins, nodes, np.log(values))
        cepstrum = np.fft.irfft(log)
        cepstrum[1:512] *= 2
        cepstrum[513:] = 0
        tract = np.fft.fft(cepstrum)[:513].imag
        angle = block.phase[n, : count + 1]
        angle = wrap(angle - np.interp(spacing * np.arange(count + 1), bins, tract, 0, 0))
        angle[0] = 0
        q = angle - np.arange(count + 1) * angle[1]
        distortion = np.full(most + 1, np.nan)
        distortion[:count] = wrap(np.diff(np.unwrap(q)))
        for entry in range(count + 1, most + 2):
            distortion[entry - 1] = splitmix(n, entry)
        at = np.concatenate([[0, 0.95 * f], f * np.arange(1, most + 2)])
        matrix.append(np.interp(bins, at, np.unwrap(np.concatenate([[0, 0], distortion]))))
    matrix = np.array(matrix)

    def both(window: np.ndarray, x: np.ndarray) -> np.ndarray:
        return signal.filtfilt(window, 1, x, axis=0, padlen=3 * (len(window) - 1))

    def directions(x: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(x), np.sin(x)])

    c, s = (both(np.ones(25) / 25, x) for x in directions(matrix))
    mean = np.exp(1j * np.arctan2(s, c))
    first = np.append(0, np.array(LAST[:-1]) + 1)
    groups = [np.angle(mean[:, a : b + 1].mean(axis=1)) for a, b in zip(first, LAST, strict=True)]
    c, s = (both(signal.windows.hann(9) / 4, signal.medfilt(x, (9, 1))) for x in directions(matrix))
    nothing = np.hypot(c, s) < 1e-12
    c[nothing], s[nothing] = 1, 0
    rest = matrix - np.arctan2(s, c)
    c, s = (both(np.ones(9) / 9, x) for x in directions(rest))
    length = np.hypot(c, s)
    length[length**2 > 1 - 1e-12] = 1
    deviation = np.sqrt(-2 * np.log(length))
    deviation[:, 0] = deviation[:, 1]
    deviation[deviation == 0] = 0.001
    return np.stack(groups, axis=1), mel_cepstrum(deviation, fs, 12)


@pytest.mark.parametrize(
    ("frames", "fs", "low"),
    [
        (73, 16000, False),
        (130, 16000, False),
        (90, 8000, False),
        (90, 48000, False),
        (80, 16000, True),
    ],
)
def test_as_the_equations_say(frames: int, fs: int, low: bool) -> None:
    block = voice(frames, fs, low=low)
    mean, deviation = analyse(block, fs, 48)
    slow_mean, slow_deviation = slow_distortion(block, fs)
    np.testing.assert_allclose(wrap(mean - slow_mean), 0, atol=1e-9)
    np.testing.assert_allclose(deviation, slow_deviation, atol=1e-6)
    assert np.ptp(mean[:, 12:], axis=0).min() > 0.1  # something was compared


def test_blocks_do_not_matter() -> None:
    block = voice(200)
    expected = analyse(block, 16000, 48)
    for size in (1, 7, 200):
        for found, value in zip(analyse(block, 16000, size), expected, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-10)


@pytest.mark.parametrize("frames", [0, 1, 72])
def test_short_files_are_zero(frames: int) -> None:
    distortion = PhaseDistortion(16000, frames)
    if frames:
        distortion.add(voice(frames))
    mean, deviation = distortion.finish()
    assert mean.shape == (frames, 25)
    assert deviation.shape == (frames, 13)
    assert not mean.any()
    assert not deviation.any()


@pytest.mark.filterwarnings("error")
def test_a_silent_frame_spoils_only_what_looks_at_it() -> None:
    block = voice(200)
    clean_mean, clean_deviation = analyse(block, 16000, 48)
    block.amplitude[100] = 0
    mean, deviation = analyse(block, 16000, 48)
    for found, clean, reach in ((mean, clean_mean, 24), (deviation, clean_deviation, 18)):
        spoilt = np.abs(np.arange(200) - 100) <= reach
        assert np.isnan(found[spoilt]).all()
        np.testing.assert_allclose(found[~spoilt], clean[~spoilt], atol=1e-10)


@pytest.mark.filterwarnings("error")
def test_silence_is_nan() -> None:
    block = voice(80)
    block.amplitude[:] = 0
    block.phase[:] = 0
    mean, deviation = analyse(block, 16000, 48)
    assert np.isnan(mean).all()
    assert np.isnan(deviation).all()


def test_a_steady_voice_has_no_deviation() -> None:
    block = voice(90)
    same = Harmonics(**{name: np.repeat(v[:1], 90, axis=0) for name, v in vars(block).items()})
    mean, deviation = analyse(same, 16000, 48)
    rows = slice(30, 60)
    below = 22  # groups of bins below the last harmonic, beyond which phases are random
    np.testing.assert_allclose(mean[rows, :below] - mean[45, :below], 0, atol=1e-12)
    # Bins without deviation have a floor of 0.001 rad: c_0 would be its logarithm for all of them.
    assert np.log(0.001) < deviation[rows, 0].max() < np.log(0.001) + 0.5


def test_random_phases_are_those_of_splitmix() -> None:
    frame, entry = np.array([0, 1, 7, 59999]), np.array([1, 160, 8001, 3])
    expected = [splitmix(*pair) for pair in zip(frame.tolist(), entry.tolist(), strict=True)]
    np.testing.assert_array_equal(2 * np.pi * phase._uniform(frame, entry), expected)
    many = phase._uniform(np.arange(20000), np.full(20000, 81))
    assert abs(many.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(many[1:], many[:-1])[0, 1]) < 0.03


@pytest.mark.parametrize("window", [np.full(25, 1 / 25), np.array([0.1, 0.5, 0.3])])
def test_filters_in_pieces_as_filtfilt(window: np.ndarray) -> None:
    count, reach = 150, len(window) - 1
    x = np.random.default_rng(1).normal(size=(count, 3))
    expected = signal.filtfilt(window, 1, x, axis=0)
    for a in range(0, count, 37):
        rows = (a, min(a + 37, count))
        span = widen(rows, reach, count)
        found = zero_phase(window, x[slice(*span)], rows, span)
        np.testing.assert_allclose(found, expected[slice(*rows)], atol=1e-13)


def test_medians_in_pieces_as_medfilt() -> None:
    x = np.random.default_rng(2).integers(-9, 9, size=(60, 40)) / 4
    expected = signal.medfilt(x, (9, 1))
    for a in range(0, 60, 11):
        rows = (a, min(a + 11, 60))
        span = widen(rows, 6, 60)
        np.testing.assert_array_equal(
            median_of_9(x[slice(*span)], rows, span), expected[slice(*rows)]
        )


def test_rows_by_hand() -> None:
    centre = np.array([799, 959, 1279])
    mean, deviation = np.zeros((3, 25)), np.zeros((3, 13))
    mean[:, 0], mean[:, 1] = [3.0, -3.0, -1.0], [0.5, 1.0, np.nan]
    deviation[:, 12] = [1, 2, 6]
    # The frames' times lie one sample later than their centres.
    rows = phase_rows(centre, mean, deviation, np.array([799, 800, 880, 1120, 1280, 1281]))
    across = wrap(np.array(3 + (2 * np.pi - 6) / 2))
    np.testing.assert_allclose(rows[:, 0], [0, 3, across, -2, -1, 0], atol=1e-12)
    np.testing.assert_allclose(rows[:3, 1], [0, 0.5, 0.75], atol=1e-12)
    assert np.isnan(rows[3, 1])
    np.testing.assert_allclose(rows[:, 37], [0, 1, 1.5, 4, 6, 0], atol=1e-12)
    assert not phase_rows(centre[:1], mean[:1], deviation[:1], np.array([799, 800])).any()
    assert phase_rows(centre, mean, deviation, np.zeros(0)).shape == (0, 38)


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(NAMES, marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_columns_as_the_original(shared: Path, names: tuple[str, ...]) -> None:
    near = []
    for name in names:
        x, arrays = read(shared, name)
        pitch = pitch_of(arrays)
        kept = harmonic_frames(RATE, len(x), pitch)[0]
        distortion = PhaseDistortion(RATE, len(kept))
        for block in harmonics(x, RATE, pitch):
            distortion.add(block)
        found = phase_rows(pitch.centre[kept], *distortion.finish(), arrays["sample_pos"] - 1)
        expected, spread = arrays["features"][:, 36:], arrays["seed_std"][:, 60:]
        np.testing.assert_allclose(
            wrap(found[:, :24] - expected[:, :24]), 0, atol=1e-6, err_msg=name
        )
        rest = found[:, 24:] - expected[:, 24:]
        rest[:, 0] = wrap(rest[:, 0])
        near.append(np.abs(rest) <= 5 * spread + 0.01)
    # The original's random phases and, in the first and last rows, logarithms of rounding errors.
    assert np.concatenate(near).mean(axis=0).min() >= 0.95
