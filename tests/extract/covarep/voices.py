"""Synthetic sounds: voices whose parameters are known, and anything that may stand in a file."""

from __future__ import annotations

import numpy as np
from scipy import signal

from mertool.extract.covarep.pitch import Pitch
from mertool.extract.covarep.rd import lf_spectrum

FORMANTS = np.array([700, 1200, 2600, 3500])  # Hz
BANDWIDTHS = np.array([80, 90, 120, 150])  # Hz
KINDS = ("silence", "constant", "noise", "pulses", "step", "sine", "square", "ramp", "voice")


def vowel(
    f0: float, rd: float = 1.0, seconds: float = 1.0, fs: int = 16000
) -> tuple[np.ndarray, np.ndarray]:
    """A steady vowel, LF pulses through formants: a sum of harmonics, so without aliasing.

    Returns:
        (S,) samples, peak 0.5; (H,) complex amplitudes of its harmonics, all below fs / 2.
    """
    h = np.arange(1, int(np.ceil(fs / 2 / f0)))
    poles = np.exp((-np.pi * BANDWIDTHS + 2j * np.pi * FORMANTS) / fs)
    _, tract = signal.freqz(1, np.poly(np.r_[poles, poles.conj()]), 2 * np.pi * f0 * h / fs)
    line = lf_spectrum(np.array([rd]), h)[0] * tract
    t = np.arange(round(seconds * fs)) / fs
    x = sum((a * np.exp(2j * np.pi * f0 * n * t)).real for n, a in zip(h, line, strict=True))
    peak = np.abs(x).max()
    return 0.5 * x / peak, 0.5 * line / peak


def talk(seconds: float = 1.0, fs: int = 16000) -> np.ndarray:
    """(S,) samples: a vowel of 140 Hz, then noise."""
    x, _ = vowel(140, 1.0, 0.7 * seconds, fs)
    rng = np.random.default_rng(0)
    x = np.concatenate([x, np.zeros(round(seconds * fs) - len(x))])
    return x + 2e-3 * rng.standard_normal(len(x))


def pulses(fs: float, f0: float = 120.0, seconds: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Pulses through two resonances, with some noise, (S,), and the samples they stand at."""
    rng = np.random.default_rng(1)
    at = (np.arange(0.01, seconds - 0.01, 1 / f0) * fs).astype(int)
    x = 0.001 * rng.standard_normal(int(seconds * fs))
    x[at] += 1
    for formant in (500, 1500):
        pole = np.exp((-80 + 2j * formant) * np.pi / fs)
        x = signal.lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], x)
    return x / np.abs(x).max(), at


def track(centre: np.ndarray, f0: np.ndarray) -> Pitch:
    """A pitch track that is voiced throughout."""
    return Pitch(
        centre=np.asarray(centre, dtype=np.int64),
        f0=np.asarray(f0, dtype=np.float64),
        strength=np.ones(len(f0)),
        voiced=np.ones(len(f0), dtype=bool),
    )


def piece(kind: str, count: int, seed: int) -> np.ndarray:
    """(count,) samples of one of `KINDS`, at most about 1; `seed` sets what it leaves open."""
    rng = np.random.default_rng(seed)
    n = np.arange(count)
    period = rng.integers(2, 700)
    if kind == "constant":
        return np.full(count, rng.choice([-1.0, 1.0]))
    if kind == "noise":
        return rng.uniform(-1, 1, count)
    if kind == "pulses":
        return np.where(n % period == 0, rng.choice([-1.0, 1.0]), 0.0)
    if kind == "step":
        return np.where(n < rng.integers(0, count + 1), -1.0, 1.0)
    if kind == "sine":
        return np.sin(2 * np.pi * n / (period / 7))
    if kind == "square":  # a tone clipped hard
        return np.sign(np.sin(2 * np.pi * n / period))
    if kind == "ramp":
        return n / max(count, 1)
    if kind == "voice":
        pulses = np.where(n % min(period, 200) == 0, 1.0, 0.0)
        return signal.lfilter([0.1], [1, -1.8, 0.9], pulses) + 1e-3 * rng.standard_normal(count)
    return np.zeros(count)
