"""benchmarks/covarep.py: what agrees passes, what differs is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripts import run

from mertool.extract.covarep import gci, pitch
from mertool.extract.covarep.features import COLUMNS, RATE, covarep, row_centres
from mertool.extract.covarep.residual import polarity


@pytest.fixture(scope="module")
def voice() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A buzz with a gliding pitch as 16-bit sound, and our own output in the reference's form."""
    rng = np.random.default_rng(0)
    f0 = np.linspace(110, 150, 2 * RATE)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    x = sum(np.cos(h * phase) / h for h in range(1, 40)) + rng.normal(0, 0.05, len(phase))
    x = (x / np.abs(x).max() * 0.5).astype(np.float32)
    x = np.round(x * 32768).astype(np.int16) / np.float32(32768)
    sign = polarity(x, RATE)
    track = pitch.pitch_srh(x * sign, RATE)
    features = covarep(x, RATE)
    return x, {
        "features": features,
        "names": np.array(COLUMNS),
        "seed_std": np.zeros(features.shape, np.float32),
        "sample_pos": row_centres(len(x)) + 1,
        "polarity": np.array(float(sign)),
        "srh_f0": track.f0,
        "srh_vuv": track.voiced.astype(float),
        "gci": gci.gci_sedreams(x * sign, RATE, track.median, track),
    }


def write(folder: Path, x: np.ndarray, z: dict[str, np.ndarray], rate: int = RATE) -> Path:
    folder.mkdir()
    soundfile.write(folder / "voice.wav", x, rate, "PCM_16")
    np.savez(folder / "voice.npz", **z)
    return folder


def test_what_agrees_passes(voice, tmp_path):
    folder = write(tmp_path / "reference", *voice)
    done = run("covarep", "--data", folder, "--parts", "agreement", "--check", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["missed"] == [] and "57 of 57" in report["key_figure"]
    assert report["agreement"]["columns"]["NAQ"]["max"] == 0
    assert report["agreement"]["files"]["voice"]["gci_differ"] == 0


def test_what_differs_is_named(voice, tmp_path):
    x, z = voice
    features = z["features"].copy()
    features[100, 2] += 2e-6  # NAQ
    features[:3, 8] += 0.03  # Rd, in more than a hundredth of the rows
    features[0, 40] = np.nan  # set aside
    changed = z | {"features": features, "gci": z["gci"][:-1], "srh_f0": z["srh_f0"] + 1}
    folder = write(tmp_path / "reference", x, changed)
    done = run("covarep", "--data", folder, "--parts", "agreement", "--check")
    assert done.returncode == 1
    missed = [line for line in done.stderr.splitlines() if line.startswith("Target missed")]
    assert [m.split(":")[1].strip() for m in missed] == ["NAQ", "Rd", "voice"]
    assert "56 of 57" in done.stdout.splitlines()[-1]
    assert "HMPDM_4 1" in done.stdout


def test_bad_data(voice, tmp_path):
    x, z = voice
    done = run("covarep", "--data", write(tmp_path / "slow", x, z, 8000))
    assert done.returncode == 2 and "not mono at 16000 Hz" in done.stderr
    done = run("covarep", "--data", tmp_path)
    assert done.returncode == 2 and "has no NAME.wav" in done.stderr
    done = run("covarep", "--data", tmp_path / "slow", "--parts", "beauty")
    assert done.returncode == 2 and "known are agreement" in done.stderr


def test_every_stage_is_timed(script, voice):
    module = script("covarep")
    spent = dict.fromkeys((*module.STAGES, *module.STREAMED), 0.0)
    before = dict(vars(module.features))
    with module.Timed(spent):
        timed = module.features.covarep(voice[0])
    assert all(seconds > 0 for seconds in spent.values())
    np.testing.assert_array_equal(timed, voice[1]["features"])
    assert dict(vars(module.features)) == before


def test_targets_of_speed_and_memory(script):
    module = script("covarep")

    def misses(minute: float, ten: float, memory: float) -> str:
        lengths = {"10": {"total": 0.1}, "60": {"total": minute}, "600": {"total": ten}}
        peaks = {"10": 150.0, "600": memory}
        return " ".join(module.misses({"speed": {"lengths": lengths}, "memory": peaks}))

    assert misses(0.1, 0.11, 299) == ""
    assert "at most 0.15" in misses(0.1, 0.16, 299)
    assert "not linear" in misses(0.1, 0.13, 299)
    assert "151 MB more" in misses(0.1, 0.1, 301)
