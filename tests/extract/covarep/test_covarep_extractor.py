"""The extractors `covarep` and `covarep5`, through a clip."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import voices
from sound_clip import SoundClip

from mertool.errors import DataError, MertoolWarning
from mertool.extract.covarep.extractor import Covarep, Covarep5
from mertool.extract.covarep.features import COLUMNS, covarep, row_times
from mertool.types import Rows


def talk() -> np.ndarray:
    return np.float32(voices.talk())


def noise() -> np.ndarray:
    return np.float32(0.1 * np.random.default_rng(1).standard_normal(16000))


def extract(kind: type[Covarep], sound: np.ndarray, **settings: str) -> Rows:
    extractor = kind(kind.Config(**settings))
    # The mean is that with a channel of silence.
    rows = extractor.extract(SoundClip(np.stack([sound, np.zeros_like(sound)], axis=1)))
    assert rows.values.shape == (len(rows), len(extractor.columns))
    assert rows.values.dtype == np.float32
    assert np.isfinite(rows.values).all()
    assert rows.times.shape == (len(rows), 2)
    return rows


def save(path: Path, **other: np.ndarray) -> Path:
    rng = np.random.default_rng(1)
    arrays = {
        "W1": rng.normal(size=(32, 36)), "b1": rng.normal(size=32),
        "W2": 0.3 * rng.normal(size=(1, 32)), "b2": np.array([0.1]),
        "min": np.full(36, -1.5), "max": np.full(36, 2.0),
    }  # fmt: skip
    np.savez(path, **{k: v for k, v in (arrays | other).items() if v is not None})
    return path


def test_columns_and_info() -> None:
    extractor = Covarep(Covarep.Config())
    assert extractor.columns == list(COLUMNS) and len(set(COLUMNS)) == 74
    assert extractor.columns[:11] == [
        "F0", "VUV", "NAQ", "QOQ", "H1H2", "PSP", "MDQ", "peakSlope", "Rd", "Rd_conf", "creak",
    ]  # fmt: skip
    assert extractor.columns[11::25] == ["MCEP_0", "HMPDM_0", "HMPDD_0"]
    assert extractor.columns[-1] == "HMPDD_12"
    assert extractor.info["rate"] == 100
    assert "no weights" in extractor.info["creak"]
    assert "compat" in extractor.info["model"]
    assert "published" in Covarep(Covarep.Config(mode="published")).info["model"]


def test_five_columns_of_the_74() -> None:
    assert Covarep5(Covarep5.Config()).columns == ["VUV", "QOQ", "MDQ", "MCEP_14", "HMPDM_24"]
    five, all_ = extract(Covarep5, talk()), extract(Covarep, talk())
    np.testing.assert_array_equal(five.values, all_.values[:, [1, 3, 6, 25, 60]])
    np.testing.assert_array_equal(five.times, all_.times)
    assert five.values.any(axis=0).all()


@pytest.mark.parametrize("mode", ["compat", "published"])
def test_rows_are_those_of_the_function(mode: str) -> None:
    x = talk()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = extract(Covarep, x, channel="first", mode=mode)
    np.testing.assert_array_equal(rows.values, covarep(x, mode=mode).astype(np.float32))
    np.testing.assert_array_equal(rows.times, row_times(len(x)))


def test_channel() -> None:
    first, mean = (extract(Covarep, talk(), channel=c).values for c in ("first", "mean"))
    # Half the level: MCEP_0 is the logarithm of it, F0 and VUV do not change.
    np.testing.assert_array_equal(first[:, :2], mean[:, :2])
    np.testing.assert_allclose(first[:, 11] - mean[:, 11], np.log(2), atol=0.05)
    np.testing.assert_array_equal(extract(Covarep, talk()).values, mean)  # the default


@pytest.mark.parametrize("settings", [{"channel": "left"}, {"mode": "x"}, {"mode": ""}])
@pytest.mark.parametrize("kind", [Covarep, Covarep5])
def test_impossible_settings(kind: type[Covarep], settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        kind.Config(**settings)


def test_creak_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "creak.npz")
    extractor = Covarep(Covarep.Config(creak_weights=str(path)))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in extractor.info["creak"]
    with_weights = extract(Covarep, talk(), creak_weights=str(path)).values
    without = extract(Covarep, talk()).values
    assert not without[:, 10].any()
    assert (with_weights[1:, 10] > 0).all() and with_weights[1:, 10].std() > 0.01
    np.testing.assert_array_equal(np.delete(with_weights, 10, 1), np.delete(without, 10, 1))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"W1": np.zeros((36, 32))}, "W1"),
        ({"b1": np.zeros(31)}, "b1"),
        ({"max": np.full(36, np.nan)}, "max"),
        ({"min": np.array(["low"] * 36)}, "min"),
        ({"W2": None}, "W2"),
    ],
)
def test_wrong_creak_weights(tmp_path: Path, other: dict[str, np.ndarray], named: str) -> None:
    path = save(tmp_path / "creak.npz", **other)
    with pytest.raises(DataError) as caught:
        Covarep(Covarep.Config(creak_weights=str(path)))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and named in lines[0] and str(path) in lines[1]


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "array"])
def test_creak_weights_that_are_no_archive(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "creak.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("W1")
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros((32, 36)))
    with pytest.raises(DataError) as caught:
        Covarep(Covarep.Config(creak_weights=str(path)))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and str(path) in lines[1]


@pytest.mark.parametrize(("kind", "count"), [(Covarep, 74), (Covarep5, 5)])
def test_no_sound(kind: type[Covarep], count: int) -> None:
    with pytest.warns(MertoolWarning, match="no sound"):
        rows = extract(kind, np.zeros(0))
    assert rows.values.shape == (0, count) and rows.times.shape == (0, 2)


@pytest.mark.parametrize("kind", [Covarep, Covarep5])
@pytest.mark.parametrize("sound", [np.zeros(8000), np.ones(1), noise()], ids=["0", "1", "noise"])
def test_nothing_voiced(kind: type[Covarep], sound: np.ndarray) -> None:
    with pytest.warns(MertoolWarning, match="nothing voiced"):
        rows = extract(kind, sound)
    assert len(rows) == len(row_times(len(sound)))
    assert not rows.values[:, : 1 if kind is Covarep5 else 0].any()


def test_loudest_float32() -> None:
    x = talk() * np.float32(3e38)
    assert np.isfinite(x).all() and np.abs(x).max() > 1e38
    extract(Covarep, x, channel="first")


def test_same_sound_same_bytes() -> None:
    first, second = (extract(Covarep, talk()).values.tobytes() for _ in range(2))
    assert first == second
