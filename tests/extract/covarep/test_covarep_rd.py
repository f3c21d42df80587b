"""Rd against the original's values, the LF pulse in time, and a loop over the definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import NAMES, QUICK, RATE, pitch_of, read
from scipy import integrate, optimize
from voices import track, vowel

from mertool.extract.covarep import rd as module
from mertool.extract.covarep.harmonics import Harmonics, harmonics
from mertool.extract.covarep.minimise import minimise
from mertool.extract.covarep.rd import RdSearch, lf_spectrum, rd_msp

BOTH = ("bdl_0011", "covarep_a0007", "sb_spk1_snt1")  # those with the published Rd as well


def block_of(amplitude: np.ndarray, phase: np.ndarray, count: np.ndarray, fs: float) -> Harmonics:
    """A block of frames whose last harmonic lies just below fs / 2."""
    count = np.asarray(count, dtype=np.int64)
    above = np.arange(amplitude.shape[1]) > count[:, None]
    f0 = fs / 2 / (count + 0.3)
    return Harmonics(
        frame=np.arange(len(count)),
        centre=np.arange(len(count)),
        f0=f0,
        spacing=f0,
        count=count,
        amplitude=np.where(above, 0.0, amplitude),
        phase=np.where(above, 0.0, phase),
        spectrum=np.empty((len(count), 0)),
    )


def noise(counts: list[int], fs: float = 16000, seed: int = 0) -> Harmonics:
    """Harmonics with phases near those of a pulse, and any amplitudes."""
    rng = np.random.default_rng(seed)
    shape = len(counts), max(counts) + 1
    pulse = np.angle(lf_spectrum(rng.uniform(0.3, 2.5, shape[0]), np.arange(1, shape[1])))
    phase = np.hstack([np.zeros((shape[0], 1)), pulse]) + 0.5 * rng.standard_normal(shape)
    return block_of(np.exp(rng.standard_normal(shape) - 3), phase, np.array(counts), fs)


def definition(block: Harmonics, i: int, mode: str, rd: float) -> float:
    """The mean squared phase of a frame, by Fourier transforms."""
    k = int(block.count[i])
    observed = block.amplitude[i, : k + 1] * np.exp(1j * block.phase[i, : k + 1])
    model = np.append(1, lf_spectrum(np.array([rd]), np.arange(1, k + 1))[0])
    rest = observed / (model if mode == "published" else model.conj())
    rest[k], rest[0] = abs(rest[k - 1]), abs(rest[1])
    rest = np.append(rest, rest[k - 1 : 0 : -1].conj())
    cepstrum = np.fft.ifft(np.log(np.abs(rest))).real
    cepstrum[1:k] *= 2
    cepstrum[k + 1 :] = 0
    phase = np.angle(rest / np.exp(np.fft.fft(cepstrum)))[:9]
    d = np.diff(phase) - phase[1]
    return float(np.mean(np.angle(np.exp(1j * d[1:])) ** 2))


def test_is_the_definition() -> None:
    counts = [5, 6, 7, 8, 9, 12, 40, 40, 41, 80, 160, *range(20, 50, 3)]
    block = noise(counts)
    for mode in ("compat", "published"):
        rd, confidence = rd_msp(block, 16000, mode)
        wanted = np.empty((len(counts), 2))
        for i in range(len(counts)):
            wanted[i], error, *_ = optimize.fminbound(
                lambda r: definition(block, i, mode, r),  # noqa: B023
                0.3, 2.5, xtol=0.01, maxfun=32, full_output=True,
            )  # fmt: skip
            wanted[i, 1] = 1 - np.sqrt(error) / np.pi
        # A search may end one step (of a third of the tolerance) elsewhere for rounding alone.
        assert np.quantile(np.abs(rd - wanted[:, 0]), 0.95) < 1e-6
        np.testing.assert_allclose(rd, wanted[:, 0], atol=0.01)
        np.testing.assert_allclose(confidence, wanted[:, 1], atol=1e-3)
        assert np.ptp(rd) > 1


def test_searches_as_scipy_does() -> None:
    factor = np.random.default_rng(3).standard_normal((8, 300)) * 3

    def value(x: np.ndarray, i: np.ndarray) -> np.ndarray:
        out = np.zeros(len(x))
        for f in factor:  # products and sums only, so that one function alone gets the same bits
            out = out * x + f[i]
        return np.abs(out)

    for evaluations in (2, 3, 5, 9, 32, 200):
        x, f = minimise(value, 300, -1.5, 2.0, 1e-4, evaluations)
        for i in range(300):
            wanted = optimize.fminbound(
                lambda at: value(np.array([at]), np.array([i]))[0],  # noqa: B023
                -1.5, 2.0, xtol=1e-4, maxfun=evaluations, full_output=True, disp=0,
            )  # fmt: skip
            # Not to the last bit: scipy takes 2.2e-16 for the machine epsilon.
            np.testing.assert_allclose((x[i], f[i]), wanted[:2], rtol=0, atol=1e-8)
    flat = minimise(lambda x, i: np.full(len(x), np.nan), 2, 0.3, 2.5, 0.01, 32)
    assert np.isnan(flat[1]).all()


@pytest.mark.parametrize(("harmonics_", "bound"), [(8, 1e-11), (40, 1e-9), (160, 1e-6)])
def test_tables_are_the_model(harmonics_: int, bound: float) -> None:
    rd = np.linspace(*module.RANGE, 301)
    g = lf_spectrum(rd, np.arange(1, harmonics_ + 1))
    phase = np.unwrap(np.angle(g[:, :8]), axis=0)
    log_magnitude = np.log(np.abs(g))[:, :-1]
    for conjugate in (False, True):
        wanted = module._differences(phase * (-1) ** conjugate, harmonics_)
        wanted = wanted - log_magnitude @ module._minimum_phase(harmonics_)
        table = module._table(harmonics_, module.NODES, conjugate)
        got = module._read(table[None], np.zeros(len(rd), dtype=np.int64), rd)
        assert np.abs(np.exp(1j * got) - np.exp(1j * wanted)).max() < bound


def test_tables_of_thousands_of_harmonics() -> None:
    rd = np.linspace(*module.RANGE, 41)
    g = lf_spectrum(rd, np.arange(1, 8001))
    phase = np.unwrap(np.angle(g[:, :8]), axis=0)
    wanted = module._differences(phase, 8000)
    wanted = wanted - np.log(np.abs(g))[:, :-1] @ module._minimum_phase(8000)
    table = module._table(8000, module.FEW_NODES, False)
    got = module._read(table[None], np.zeros(len(rd), dtype=np.int64), rd)
    assert np.abs(np.exp(1j * got) - np.exp(1j * wanted)).max() < 1e-4


@pytest.mark.parametrize("rd", [0.3, 0.8, 1.4, 2.0, 2.5])
def test_model_is_the_spectrum_of_the_pulse(rd: float) -> None:
    ta = (4.8 * rd - 1) / 100
    rk = (22.4 + 11.8 * rd) / 100
    rg = rk / 4 / (0.11 * rd / (0.5 + 1.2 * rk) - ta)
    tp = 1 / (2 * rg)
    te = tp * (1 + rk)
    w = np.pi / tp
    e = optimize.brentq(lambda e: (1 - np.exp(-e * (1 - te))) / e - ta, 0.5 / ta, 1.01 / ta)

    def returning(t: np.ndarray) -> np.ndarray:
        return -(np.exp(-e * (t - te)) - np.exp(-e * (1 - te))) / (e * ta)

    opening, closing = np.linspace(0, te, 40001), np.linspace(te, 1, 40001)

    def growing(a: float) -> np.ndarray:
        return -np.exp(a * (opening - te)) * np.sin(w * opening) / np.sin(w * te)

    lost = integrate.simpson(returning(closing), x=closing)
    a = optimize.brentq(lambda a: integrate.simpson(growing(a), x=opening) + lost, 0, 30)
    h = np.array([0.01, 0.5, 1, 2, 3.3, 8, 20])
    got = lf_spectrum(np.array([rd]), h)[0]
    for harmonic, value in zip(h, got, strict=True):
        z = 2j * np.pi * harmonic
        wanted = integrate.simpson(growing(a) * np.exp(-z * opening), x=opening)
        wanted += integrate.simpson(returning(closing) * np.exp(-z * closing), x=closing)
        np.testing.assert_allclose(value, wanted, atol=1e-9)


@pytest.mark.parametrize("rd", [0.5, 1.0, 1.7])
def test_finds_the_rd_of_a_vowel(rd: float) -> None:
    fs, f0 = 16000, 110
    x, _ = vowel(f0, rd, 1.0, fs)
    centre = np.arange(2000, 14000, 333)
    (block,) = harmonics(x, fs, track(centre, np.full(len(centre), float(f0))))
    got, confidence = rd_msp(block, fs, "published")
    # Not exactly: a minimum phase known at the harmonics only is aliased in the cepstrum.
    assert np.abs(got - rd).max() < 0.05
    assert confidence.min() > 0.9
    assert rd_msp(block, fs, "compat")[1].max() < confidence.min()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, marks=() if name in QUICK else pytest.mark.slow)
        for mode, names in (("compat", NAMES), ("published", BOTH))
        for name in names
    ],
)
def test_agrees_with_the_original(shared: Path, name: str, mode: str) -> None:
    x, values = read(shared, name)
    blocks = list(harmonics(x, RATE, pitch_of(values)))
    rd, confidence = np.hstack([rd_msp(block, RATE, mode) for block in blocks])
    published = mode == "published"
    wanted = values["rd_track_v141" if published else "rd_track"]
    assert len(rd) == len(wanted)
    assert np.median(np.abs(rd - wanted[:, 1])) < 1e-8
    assert np.quantile(np.abs(rd - wanted[:, 1]), 0.99) < 5e-3
    assert np.quantile(np.abs(confidence - wanted[:, 2]), 0.99) < 1e-4

    centre = np.concatenate([block.centre for block in blocks])
    rows = values["sample_pos"] - 1
    columns = [values["features"][:, 8], values["features"][:, 9]]
    if published:
        columns = [values["Rd_v141"], values["Rd_conf_v141"]]
    for got, column in zip((rd, confidence), columns, strict=True):
        got = np.interp(rows, centre, got, left=0, right=0)
        assert np.quantile(np.abs(got - column), 0.99) < 5e-3


@pytest.mark.filterwarnings("error")
def test_odd_frames() -> None:
    # Nothing, too few harmonics, silence, harmonics that are all equal, and 8 to 48 kHz.
    rd, confidence = rd_msp(noise([40, 41, 4, 3]), 16000)
    assert np.isfinite(confidence).tolist() == [True, True, False, False]
    empty = block_of(np.empty((0, 1)), np.empty((0, 1)), np.empty(0), 16000)
    assert [len(a) for a in rd_msp(empty, 16000)] == [0, 0]
    silent = block_of(np.zeros((3, 50)), np.zeros((3, 50)), np.array([40, 8, 49]), 16000)
    assert np.isnan(rd_msp(silent, 16000)[1]).all()
    equal = block_of(np.ones((2, 50)), np.zeros((2, 50)), np.array([8, 49]), 16000)
    assert np.isfinite(rd_msp(equal, 16000)).all()
    for fs, counts in ((8000, [7, 8, 79]), (48000, [48, 479, 480])):
        rd, confidence = rd_msp(noise(counts, fs), fs)
        assert ((rd > 0.3) & (rd < 2.5) & (confidence >= 0) & (confidence <= 1)).all()


def test_frames_do_not_matter_to_each_other() -> None:
    counts = [16, 40, 41, 160, 40, 77]
    block = noise(counts, seed=5)
    together = np.stack(rd_msp(block, 16000))
    for i in range(len(counts)):
        one = {name: getattr(block, name)[i : i + 1] for name in Harmonics.__dataclass_fields__}
        np.testing.assert_allclose(np.stack(rd_msp(Harmonics(**one), 16000))[:, 0], together[:, i])


def test_blocks_searched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [noise([16, 40, 3, 160], 1), noise([2000, 1500], 2), noise([40, 77, 8], 3)]
    wanted = np.hstack([rd_msp(block, 16000, "published") for block in blocks])
    for size in (module.BATCH, 2):
        monkeypatch.setattr(module, "BATCH", size)
        search = RdSearch(16000, "published")
        for block in blocks:
            search.add(block)
        np.testing.assert_allclose(np.stack(search.finish()), wanted)
    assert [len(a) for a in RdSearch(16000).finish()] == [0, 0]
