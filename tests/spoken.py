"""For tests of what listens to voices: sounds with one in known places; how words are said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RATE = 16000


def vowel(seconds: float, f0: float = 120.0) -> np.ndarray:
    """(S,) float32 sung vowel: a harmonic series through three formants, loud as syllables are."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = np.zeros_like(t)
    for k in range(1, int(4000 / f0)):
        gain = sum(np.exp(-(((k * f0 - f) / 120) ** 2)) for f in (700, 1200, 2600)) + 0.02
        wave += gain * np.sin(2 * np.pi * k * f0 * t)
    wave *= 0.6 + 0.4 * np.cos(2 * np.pi * 4 * t)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def scene(*parts: float, noise: float = 1e-3) -> np.ndarray:
    """(S,) float32: a pause, a vowel, a pause, ... of so many seconds each, over faint noise."""
    sounds = [
        vowel(seconds) if i % 2 else np.zeros(round(seconds * RATE), np.float32)
        for i, seconds in enumerate(parts)
    ]
    sound = np.concatenate(sounds)
    rng = np.random.default_rng(0)
    return sound + noise * rng.standard_normal(len(sound)).astype(np.float32)


def dictionary() -> dict[str, list[str]]:
    """{word: phones} of pocketsphinx's dictionary, words of letters alone."""
    import pocketsphinx

    lines = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines()
    pairs = (line.split(maxsplit=1) for line in lines)
    return {word: phones.split() for word, phones in pairs if re.fullmatch("[a-z]{3,}", word)}


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and substitutions from one to the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, last[j] + 1, last[j - 1] + (x != y)))
    return row[-1]
