from __future__ import annotations

import builtins
import math
import sys
import warnings

import numpy as np
import pytest
from sound_clip import SoundClip

from mertool.errors import MertoolError, MertoolWarning
from mertool.extract.egemaps import EGeMAPS
from mertool.testing import check_extractor, failed

RATE = 16000


@pytest.fixture(scope="module")
def egemaps() -> EGeMAPS:
    pytest.importorskip("opensmile", reason="needs the extra: opensmile")
    return EGeMAPS(EGeMAPS.Config())


def extract(egemaps: EGeMAPS, sound: np.ndarray) -> dict[str, np.ndarray]:
    rows = egemaps.extract(SoundClip(sound))
    assert rows.values.shape == (len(rows), 25) and rows.values.dtype == np.float32
    assert np.isfinite(rows.values).all()
    assert rows.times.shape == (len(rows), 2) and rows.times.dtype == np.float64
    return dict(zip(egemaps.columns, rows.values.T, strict=True)) | {"times": rows.times}


def voice(f0: float, seconds: float = 1.0) -> np.ndarray:
    """Harmonics that fall off as 1 / k."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, int(7000 / f0)))
    return 0.3 * tone


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE))


def test_columns_and_info(egemaps: EGeMAPS) -> None:
    assert len(set(egemaps.columns)) == 25
    assert {"Loudness_sma3", "F0semitoneFrom27.5Hz_sma3nz", "mfcc4_sma3"} <= set(egemaps.columns)
    assert "non-commercial" in str(egemaps.info["licence"])
    assert str(egemaps.info["revision"]).startswith("opensmile ")
    assert egemaps.info["rate"] == pytest.approx(100)


@pytest.mark.parametrize("f0", [110.0, 220.0])
def test_pitch_is_in_semitones(egemaps: EGeMAPS, f0: float) -> None:
    got = extract(egemaps, voice(f0))["F0semitoneFrom27.5Hz_sma3nz"]
    np.testing.assert_allclose(got[5:-5], 12 * math.log2(f0 / 27.5), atol=0.1)


def test_cells(egemaps: EGeMAPS) -> None:
    times = extract(egemaps, noise(1.0))["times"]
    assert len(times) == 96  # the last windows of 60 ms that fit in
    np.testing.assert_allclose(times.mean(axis=1), 0.01 * np.arange(1, 97), atol=1e-9)
    np.testing.assert_allclose(times[1:, 0], times[:-1, 1], atol=1e-9)


def test_rows_lie_at_their_event(egemaps: EGeMAPS) -> None:
    """Loudness where the sound is; the pitch, of 60 ms, two rows early, as the page says."""
    sound = voice(150)
    sound[: 3 * RATE // 10] = 0
    sound[7 * RATE // 10 :] = 0  # what is left has its middle at 0.5 s
    got = extract(egemaps, sound)
    centre = got["times"].mean(axis=1)
    loud = got["Loudness_sma3"] > got["Loudness_sma3"].max() / 20
    assert centre[loud].mean() == pytest.approx(0.5, abs=0.008)
    voiced = got["F0semitoneFrom27.5Hz_sma3nz"] > 0
    assert centre[voiced].mean() == pytest.approx(0.48, abs=0.008)


def test_same_sound_same_bytes(egemaps: EGeMAPS) -> None:
    first = extract(egemaps, noise(0.5))
    extract(egemaps, voice(200, 0.3))
    for other in (egemaps, EGeMAPS(EGeMAPS.Config())):
        again = extract(other, noise(0.5))
        assert all(again[name].tobytes() == first[name].tobytes() for name in first)


@pytest.mark.parametrize("sound", [np.zeros(RATE), np.full(RATE, 0.5), np.eye(1, RATE, 99)[0]])
def test_silence_and_clicks_are_finite(egemaps: EGeMAPS, sound: np.ndarray) -> None:
    assert len(extract(egemaps, sound)["times"]) == 96


def test_sound_beyond_16_bits_does_not_wrap(egemaps: EGeMAPS) -> None:
    """1.0 is no 16-bit sample; taken for -1.0, a loud voice would crackle."""
    sound = voice(150)
    sound *= 0.999 / np.abs(sound).max()
    inside = extract(egemaps, sound)
    beyond = extract(egemaps, 1.002 * sound)
    for name in ("Loudness_sma3", "slope500-1500_sma3", "HNRdBACF_sma3nz"):
        np.testing.assert_allclose(beyond[name][5:-5], inside[name][5:-5], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("samples", "why"), [(0, "no sound"), (1, "60 ms"), (959, "60 ms")])
def test_too_little_sound(egemaps: EGeMAPS, samples: int, why: str) -> None:
    with pytest.warns(MertoolWarning, match=why):
        rows = egemaps.extract(SoundClip(noise(1)[:samples]))
    assert rows.values.shape == (0, 25) and rows.times.shape == (0, 2)


def test_sixty_ms_are_enough(egemaps: EGeMAPS) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(extract(egemaps, noise(0.06))["times"]) == 2


def test_nothing_is_printed(egemaps: EGeMAPS, capfd: pytest.CaptureFixture[str]) -> None:
    extract(EGeMAPS(EGeMAPS.Config()), noise(0.2))
    assert capfd.readouterr() == ("", "")


def test_channel(egemaps: EGeMAPS) -> None:
    clip = SoundClip(noise(0.1))
    EGeMAPS(EGeMAPS.Config(channel="first")).extract(clip)
    assert clip.channel == "first"
    with pytest.raises(ValueError, match="channel"):
        EGeMAPS.Config(channel="left")


def test_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(MertoolError, match="cannot be used") as caught:
        EGeMAPS(EGeMAPS.Config())
    assert 'pip install "mertool[opensmile]"' in caught.value.fix
    assert len(str(caught.value).splitlines()) == 3


def test_importing_the_module_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *arguments: object, **options: object) -> object:
        assert name.partition(".")[0] not in ("opensmile", "pandas", "torch")
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "mertool.extract.egemaps")
    monkeypatch.setattr(builtins, "__import__", guarded)
    import mertool.extract.egemaps  # noqa: F401


def test_every_check_passes(egemaps: EGeMAPS) -> None:
    assert failed(check_extractor("egemaps")) == []
