"""The original's outputs for some files, which every stage is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from mertool.extract.covarep.pitch import Pitch

RATE = 16000  # Hz
STAGED = ("bdl_0011", "sb_spk1_snt1")  # those with intermediates
NAMES = (*STAGED, "edge_zeros_slt", "covarep_a0007", "espeak_f", "pysptk_a0007", "slt_a0009",
         "vctk_p225_003")  # fmt: skip
# Three for a stage by default, one of them with digital silence: the test of the whole chain
# compares all columns of all files.
QUICK = NAMES[:3]
FILES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[3:])]


def sound(shared: Path, name: str) -> np.ndarray:
    """(S,) float32 samples of a file, as recorded."""
    fs, samples = wavfile.read(shared / "covarep" / "reference" / f"{name}.wav")
    assert fs == RATE and samples.dtype == np.int16
    return samples / np.float32(32768)


def read(shared: Path, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(S,) float32 samples of a file, of positive polarity, and the original's outputs for it."""
    arrays = _arrays(shared / "covarep" / "reference" / f"{name}.npz")
    return sound(shared, name) * np.float32(arrays["polarity"]), arrays


def intermediates(shared: Path, name: str) -> dict[str, np.ndarray]:
    """What the original's stages hand on, of one of `STAGED`."""
    return _arrays(shared / "covarep" / "reference" / "intermediates" / f"{name}.npz")


def pitch_of(arrays: dict[str, np.ndarray]) -> Pitch:
    """The original's pitch track, whose positions are counted from 1."""
    centre = arrays["srh_pos"].ravel().astype(np.int64) - 1
    f0, strength, voiced = (arrays[f"srh_{key}"].ravel() for key in ("f0", "val", "vuv"))
    return Pitch(centre, f0, strength, voiced > 0)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
