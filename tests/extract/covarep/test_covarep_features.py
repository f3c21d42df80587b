"""The whole chain: against the original's 74 columns, and on odd input."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from references import NAMES, sound
from scipy import signal
from voices import piece, talk, vowel

from mertool.errors import DataError, MertoolError, UsageError
from mertool.extract.covarep import (
    envelope,
    features,
    harmonics,
    ishi,
    phase,
    pitch,
    residual,
    signals,
)
from mertool.extract.covarep.creak import Weights
from mertool.extract.covarep.features import COLUMNS, covarep, row_centres, row_times

RATE = 16000
PHASE = slice(36, 74)


@cache
def rows_of(shared: Path, name: str) -> np.ndarray:
    rows = covarep(sound(shared, name))
    rows.flags.writeable = False
    return rows


def check(rows: np.ndarray, samples: int) -> None:
    assert rows.shape == (len(row_centres(samples)), 74)
    assert np.isfinite(rows).all()


# --- the reference ---------------------------------------------------------------------------
@pytest.fixture
def agreement(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    import agreement

    yield agreement
    for name in {"agreement", "common"} - before:
        sys.modules.pop(name, None)


def test_columns_are_the_originals(shared: Path, agreement: ModuleType) -> None:
    data = agreement.read(shared / "covarep" / "reference")
    assert set(NAMES) <= set(data)
    result = agreement.columns(data)
    aside: dict[str, dict[str, int]] = {}
    for name, file in result["files"].items():
        assert file["polarity"] and file["f0"] and file["voicing"], name
        assert file["voiced_rows_differ"] == file["gci_differ"] == 0, name
        assert file["worst_exact_column"] <= 1e-6, name
        for column, rows in file["aside"].items():
            aside.setdefault(column, {})[name] = rows
    # No more rows are set aside than pulses of no height and digital silence account for.
    assert set(aside) == {"QOQ", "MDQ"}
    assert sum(aside["QOQ"].values()) <= 5
    assert set(aside["MDQ"]) == {"edge_zeros_slt"} and aside["MDQ"]["edge_zeros_slt"] <= 74
    columns = result["columns"]
    within = {name: column["within"] for name, column in columns.items()}
    for i in (*range(8), *range(11, 60)):
        assert within[COLUMNS[i]] == 1, COLUMNS[i]
    for name in ("Rd", "Rd_conf", "Rd (published)", "Rd_conf (published)"):
        assert within[name] >= 0.99, name
    for i in range(60, 74):
        assert within[COLUMNS[i]] >= 0.95, COLUMNS[i]


def test_other_numbers_do_not_agree(
    shared: Path, agreement: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "covarep_a0007"
    folder = shared / "covarep" / "reference"
    data = {name: (sound(shared, name), agreement.load(folder / f"{name}.npz"))}

    def slightly_off(*args: object, **settings: object) -> np.ndarray:
        return covarep(*args, **settings) * (1 + 1e-4)

    monkeypatch.setattr(agreement, "covarep", slightly_off)
    columns = agreement.columns(data)["columns"]
    varies = [0, *range(2, 8), *range(11, 36), *range(42, 60)]
    assert all(columns[COLUMNS[i]]["within"] < 0.9 for i in varies)


# --- rows ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("samples", "last"),
    [(0, []), (1, [79]), (79, [79]), (80, [79]), (239, [79]), (240, [79, 239]), (399, [79, 239]),
     (400, [79, 239, 399]), (16000, [15919])],
)  # fmt: skip
def test_row_k_is_sample_79_and_160_k(samples: int, last: list[int]) -> None:
    centres = row_centres(samples)
    np.testing.assert_array_equal(np.diff(centres), 160)
    assert centres[-len(last) or len(centres) :].tolist() == last
    assert not samples or centres[0] == 79
    times = row_times(samples)
    assert times.shape == (len(centres), 2)
    assert (times >= 0).all() and (times <= samples / RATE).all()
    inside = (centres >= 80) & (centres + 80 <= samples)
    np.testing.assert_allclose(times[inside, 0], centres[inside] / RATE - 0.005)
    np.testing.assert_allclose(times[inside, 1], centres[inside] / RATE + 0.005)
    np.testing.assert_array_equal(times[1:, 0], times[:-1, 1])
    check(covarep(piece("noise", samples, 0)), samples)


def test_rows_lie_at_their_event() -> None:
    # Voiced from 0.5 s to 1.1 s.
    x = 1e-3 * np.random.default_rng(0).standard_normal(24000)
    x[8000:17600] += vowel(150, 1.0, 0.6)[0]
    voiced = np.flatnonzero(covarep(x)[:, 1])
    np.testing.assert_array_equal(np.diff(voiced), 1)
    # A frame of SRH is 100 ms long: half of it at either end may still, or not yet, be voiced.
    assert abs(voiced[0] - 50) <= 5 and abs(voiced[-1] - 110) <= 5


# --- sampling rates --------------------------------------------------------------------------
@pytest.mark.parametrize("fs", [8000, 22050, 44100, 48000])
def test_other_rates(shared: Path, fs: int) -> None:
    x, wanted = sound(shared, "sb_spk1_snt1"), rows_of(shared, "sb_spk1_snt1")
    other = signal.resample_poly(x.astype(np.float64), fs // 50, RATE // 50)
    rows = covarep(other, fs)
    check(rows, -(-len(other) * RATE // fs))
    assert abs(len(rows) - len(wanted)) <= 1
    rows, wanted = rows[: len(wanted)], wanted[: len(rows)]
    # At 8000 Hz the upper half of the spectrum is missing.
    assert (rows[:, 1] == wanted[:, 1]).mean() > (0.9 if fs == 8000 else 0.98)
    both = (rows[:, 1] > 0) & (wanted[:, 1] > 0)
    near = np.abs(rows[both, 0] - wanted[both, 0]) <= 2
    assert near.mean() > (0.95 if fs == 8000 else 0.98)
    if fs > RATE:
        for i in (2, 5, 7, 8, 11, 12, 15):
            assert np.corrcoef(rows[both, i], wanted[both, i])[0, 1] > 0.97, COLUMNS[i]


@pytest.mark.parametrize("fs", [8000, 44100])
def test_resampling_by_hand(fs: int) -> None:
    # A tone stays where it was, and so does the time.
    n = np.arange(fs)
    x = features.resample(np.sin(2 * np.pi * 440 * n / fs), fs)
    assert len(x) == RATE
    wanted = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(x[200:-200], wanted[200:-200], atol=2e-3)


# --- odd input -------------------------------------------------------------------------------
@pytest.mark.parametrize("samples", [1, 100, 5000, 40000])
def test_silence_is_zeros(samples: int) -> None:
    assert not covarep(np.zeros(samples)).any()
    assert covarep(np.zeros(samples)).shape == (len(row_centres(samples)), 74)
    assert not covarep(np.zeros(samples, np.int16), 44100).any()


def test_no_samples() -> None:
    for fs in (8000, RATE, 48000):
        assert covarep(np.zeros(0), fs).shape == (0, 74)


def test_short_clips_have_no_phase_distortion() -> None:
    # The original fails below 73 analysed frames, 0.85 s or so.
    x = talk(1.2)
    short, long = covarep(x[:12800]), covarep(x)
    check(short, 12800)
    assert not short[:, PHASE].any()
    assert short[:, :8].any(axis=0).all() and short[:, 11:36].any(axis=0).all()
    # Up to F0 the distortion is 0: bins up to 94 Hz, of the first six means.
    assert long[:, 42:].any(axis=0).all()


@pytest.mark.parametrize("pole", [0.0, 0.5, -0.8])
def test_noise_is_hardly_voiced(pole: float) -> None:
    x = signal.lfilter([0.1], [1, -pole], np.random.default_rng(1).standard_normal(32000))
    rows = covarep(x)
    check(rows, len(x))
    assert rows[:, 1].mean() < 0.05
    assert rows[:, 11:36].any(axis=0).all()  # these need no voice


def test_nothing_voiced_leaves_the_source_at_zero() -> None:
    x = 0.1 * np.random.default_rng(1).standard_normal(16000)
    rows = covarep(x)
    assert not rows[:, 1].any()
    assert not rows[:, 2:7].any()  # NAQ, QOQ, H1H2, PSP, MDQ: at glottal closures only
    assert rows[:, [0, 7, 8]].any(axis=0).all()


def test_polarity_does_not_matter() -> None:
    x = talk()
    np.testing.assert_array_equal(covarep(-x), covarep(x))


# Nothing takes the mean away, in the original neither. By DC of a tenth of the voice's level, in
# voiced rows: F0 stays, Rd, H1H2, MCEP hardly move; unvoiced rows, where DC may be most of the
# sound, differ in every column.
def test_dc_in_voiced_rows() -> None:
    x = talk()
    level = x.std()
    wanted, rows = covarep(x), covarep(x + 0.1 * level)
    check(rows, len(x))
    assert (rows[:, 1] == wanted[:, 1]).mean() > 0.95
    both = (rows[:, 1] > 0) & (wanted[:, 1] > 0)
    apart = np.abs(rows - wanted)[both]
    assert np.quantile(apart[:, 0], 0.95) <= 1
    for name, bound in (("NAQ", 0.01), ("H1H2", 0.3), ("PSP", 0.02), ("peakSlope", 0.01),
                        ("Rd", 0.01), ("MCEP_1", 0.05)):  # fmt: skip
        assert np.median(apart[:, COLUMNS.index(name)]) < bound, name


@pytest.mark.parametrize("level", [0.5, pytest.param(0.1, marks=pytest.mark.slow), 0.001])
def test_clipping(shared: Path, level: float) -> None:
    x, wanted = sound(shared, "sb_spk1_snt1"), rows_of(shared, "sb_spk1_snt1")
    top = level * np.abs(x).max()
    rows = covarep(np.clip(x, -top, top))
    check(rows, len(x))
    if level == 0.5:
        assert (rows[:, 1] == wanted[:, 1]).mean() > 0.98
        both = (rows[:, 1] > 0) & (wanted[:, 1] > 0)
        assert (np.abs(rows[both, 0] - wanted[both, 0]) <= 2).mean() > 0.95


@pytest.mark.parametrize("kind", ["constant", "step", "square", "pulses", "ramp", "sine"])
def test_signals_that_are_no_speech(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(covarep(piece(kind, 20000, 5)), 20000)


@pytest.mark.parametrize(("dtype", "full"), [("int16", 2**15), ("int32", 2**31)])
def test_integers_are_pcm(dtype: str, full: int) -> None:
    x = np.round(full * talk()).astype(dtype)
    np.testing.assert_array_equal(covarep(x), covarep(x / full))


def test_float32_is_as_good() -> None:
    x = (np.round(32768 * talk()) / 32768).astype(np.float32)
    np.testing.assert_allclose(covarep(x), covarep(x.astype(np.float64)), atol=1e-9)


@pytest.mark.parametrize(
    ("x", "settings", "error"),
    [
        (np.zeros((16000, 2)), {}, DataError),
        (np.zeros((1, 16000)), {}, DataError),
        (np.array(0.5), {}, DataError),
        (np.array([0.0, np.nan]), {}, DataError),
        (np.array([0.0, np.inf], np.float32), {}, DataError),
        (np.array(["speech"]), {}, DataError),
        (np.zeros(100, complex), {}, DataError),
        (np.zeros(100, np.uint8), {}, DataError),
        (np.zeros(100), {"fs": 96000}, DataError),
        (np.zeros(100), {"fs": 7999}, DataError),
        (np.zeros(100), {"fs": float("nan")}, DataError),
        (np.zeros(100), {"mode": "x"}, UsageError),
    ],
)
def test_wrong_arguments_are_refused(
    x: np.ndarray, settings: dict[str, float | str], error: type[MertoolError]
) -> None:
    with pytest.raises(error) as caught:
        covarep(x, **settings)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all(line.strip() for line in lines)
    for value in settings.values():
        assert f"{value}" in lines[0] + lines[1]


@pytest.mark.parametrize("fs", [RATE, 22050])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_callers_array_is_left_alone(fs: int, dtype: str, sign: int) -> None:
    x = (sign * (20000 if dtype == "int16" else 1) * talk(0.25)).astype(dtype)
    for given in (x, x[::2], np.ldexp(x.astype(float), 100)):
        kept = given.copy()
        given.flags.writeable = False
        first = covarep(given, fs)
        np.testing.assert_array_equal(given, kept)
        np.testing.assert_array_equal(covarep(kept, fs, overwrite_x=True), first)


# --- creak -----------------------------------------------------------------------------------
def test_creak_needs_weights() -> None:
    x = talk()
    rng = np.random.default_rng(0)
    weights = Weights(
        rng.normal(size=(32, 36)), rng.normal(size=32), 0.3 * rng.normal(size=32), 0.1,
        rng.uniform(-2, -1, 36), rng.uniform(1, 2, 36),
    )  # fmt: skip
    without, rows = covarep(x), covarep(x, creak=weights)
    assert not without[:, 10].any()
    others = np.delete(np.arange(74), 10)
    np.testing.assert_array_equal(rows[:, others], without[:, others])
    # The detector's rows lie at samples 159, 319, ..: none is before the first of ours.
    assert rows[0, 10] == 0
    inner = rows[1:, 10]
    assert (inner > 0).all() and (inner <= 1).all() and inner.std() > 0.01


# --- blocks ----------------------------------------------------------------------------------
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.concatenate([talk(1.1), np.zeros(4000), talk(0.4)])
    weights = Weights(
        np.ones((32, 36)), np.zeros(32), np.ones(32) / 100, 0.0, -np.ones(36), np.ones(36)
    )
    whole = covarep(x, creak=weights)
    monkeypatch.setattr(signals.blocks, "__defaults__", (3001,))
    for module, name, size in (
        (residual, "BATCH", 7), (pitch, "BATCH", 5), (envelope, "BATCH", 3),
        (harmonics, "FRAMES", 11), (harmonics, "LOW_FRAMES", 3), (phase, "CHUNK", 13),
        (ishi, "SPAN", 3001),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, size)
    parts = covarep(x, creak=weights)
    apart = np.abs(parts - whole)
    apart[:, 36:61] = np.abs(np.angle(np.exp(1j * (parts - whole)[:, 36:61])))
    assert apart[:, :2].max() == 0
    # Rd: where its search ends may turn on the last digits.
    assert apart[:, 8].max() < 0.01
    assert np.delete(apart, 8, axis=1).max() < 1e-6


def test_the_same_in_every_run() -> None:
    assert covarep(talk()).tobytes() == covarep(talk()).tobytes()


def test_published_mode_changes_rd_alone() -> None:
    x = talk()
    compat, published = covarep(x), covarep(x, mode="published")
    others = np.delete(np.arange(74), [8, 9])
    np.testing.assert_array_equal(published[:, others], compat[:, others])
    voiced = compat[:, 1] > 0
    # A vowel of Rd 1: only the published sign finds it.
    assert abs(np.median(published[voiced, 8]) - 1) < 0.1
    assert np.median(published[voiced, 9]) > np.median(compat[voiced, 9])
