"""Creaky voice: the 36 inputs of COVAREP's detector, and the detector, for weights of the user's.

T. Drugman, J. Kane and C. Gobl, "Data-driven detection and analysis of the patterns of creaky
voice", Computer Speech & Language 28(5), 2014; J. Kane, T. Drugman and C. Gobl, "Improved automatic
detection of creak", Computer Speech & Language 27(4), 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mertool.errors import DataError
from mertool.extract.covarep.creak_measures import (
    harmonic_balance,
    log_energy,
    power_deviation,
    residual_peaks,
    resonance,
    spread,
    zero_crossings,
)
from mertool.extract.covarep.ishi import frame_count, ishi_tracks
from mertool.extract.covarep.pitch import Pitch, pitch_srh
from mertool.extract.covarep.signals import blocks, check_signal, half_up

INPUTS = (
    "H2H1", "res_p", "ZCR", "IFP", "IPS", "PwP_fall", "PwP_rise", "F0", "F0mean", "enerN",
    "pow_std", "creakF0",
)  # fmt: skip
HIDDEN = 32
CREAK_F0 = 20, 500  # Hz, the range of F0 here
SHAPES = {
    "W1": [(HIDDEN, 36)], "b1": [(HIDDEN,), (HIDDEN, 1)], "W2": [(1, HIDDEN), (HIDDEN,)],
    "b2": [(), (1,), (1, 1)], "min": [(36,), (36, 1), (1, 36)], "max": [(36,), (36, 1), (1, 36)],
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """The detector: 36 inputs, 32 hidden units, one output.

    Attributes:
        hidden: (32, 36), "W1" of the file.
        hidden_bias: (32,), "b1".
        output: (32,), "W2".
        output_bias: "b2".
        low: (36,) input that becomes -1, "min".
        high: (36,) input that becomes 1, "max".
    """

    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: float
    low: np.ndarray
    high: np.ndarray


def read_weights(path: str | Path) -> Weights:
    """Read the detector from a .npz file with W1, b1, W2, b2, min and max.

    Args:
        path: What numpy.savez wrote; arrays of Python objects are refused.

    Returns:
        The weights, as float64.

    Raises:
        DataError: The file cannot be read, or an array is missing, has another shape, or is not of
            finite numbers.
    """
    from mertool.readers.arrays import read_arrays

    path = Path(path)
    arrays = read_arrays(path)
    fix = "Save W1 (32, 36), b1 (32,), W2 (1, 32), b2, min (36,) and max (36,) by numpy.savez."
    missing = [name for name in SHAPES if name not in arrays]
    if missing:
        raise DataError(f"The creak detector lacks {', '.join(missing)}.", str(path), fix)
    for name, shapes in SHAPES.items():
        value = arrays[name]
        where = f"{path}, {name} of shape {value.shape} and type {value.dtype}"
        if value.shape not in shapes or value.dtype.kind not in "fiu":
            raise DataError(f'"{name}" of the creak detector is of another form.', where, fix)
        if not np.isfinite(value).all():
            raise DataError(f'"{name}" of the creak detector holds no finite numbers.', where, fix)
    flat = {name: arrays[name].astype(np.float64).ravel() for name in SHAPES}
    return Weights(
        flat["W1"].reshape(HIDDEN, 36),
        flat["b1"],
        flat["W2"],
        float(flat["b2"][0]),
        flat["min"],
        flat["max"],
    )


def creak_posterior(inputs: np.ndarray, weights: Weights) -> np.ndarray:
    """Probability of creak. Drugman, Kane & Gobl 2014.

    Args:
        inputs: (K, 36), by `creak_inputs`.
        weights: The detector.

    Returns:
        (K,) in [0, 1]; NaN for rows of nothing but NaN, or where infinite inputs cancel out.
    """
    width = weights.high - weights.low
    scale = np.divide(2, width, out=np.zeros_like(width), where=width != 0)
    out = np.empty(len(inputs))
    with np.errstate(invalid="ignore", over="ignore"):
        for a, b in blocks(len(inputs), 4096):
            part = inputs[a:b]
            scaled = (np.where(np.isnan(part), weights.low, part) - weights.low) * scale - 1
            hidden = np.tanh(scaled @ weights.hidden.T + weights.hidden_bias)
            out[a:b] = 1 / (1 + np.exp(-(hidden @ weights.output + weights.output_bias)))
            out[a:b][np.isnan(part).all(axis=1)] = np.nan
    return out


def creak_inputs(
    x: np.ndarray, fs: float, residual: np.ndarray, pitch: Pitch | None = None
) -> np.ndarray:
    """The detector's inputs: 12 measures, their changes, and the changes of these.

    Kane, Drugman & Gobl 2013; the four of the very-short-term power are Ishi et al.'s.

    Args:
        x: (S,) signal.
        fs: Sampling rate, Hz.
        residual: (S,) its LP residual of order round(fs / 1000) + 2; NaN counts as 0.
        pitch: pitch_srh(x, fs, *CREAK_F0). Ten minutes take 80 MB less where it is found before the
            residual is.

    Returns:
        (K, 36), K = S // round(0.01 fs), row k at sample (k + 1) round(0.01 fs) - 1, the measures
        as in `INPUTS`; in digital silence some are NaN or infinite. All NaN where the original
        gives up: without a voiced frame between 20 and 500 Hz, or with fewer than two frames.

    Raises:
        DataError: x is no signal, the rate is out of range, or the residual is of another length.
    """
    x = check_signal(x, fs)
    if residual.shape != x.shape:
        raise DataError(
            "The residual belongs to another signal.",
            f"residual {residual.shape}, signal {x.shape}",
            "Give lp_residual(x, fs).",
        )
    hop = int(half_up(0.01 * fs))
    rows = len(x) // hop
    out = np.full((rows, 36), np.nan)
    if pitch is None:
        pitch = pitch_srh(x, fs, *CREAK_F0)
    known = pitch.f0[pitch.voiced & (pitch.f0 > 20) & (pitch.f0 < 500)]
    if not len(known) or frame_count(len(x) - 1, int(half_up(0.05 * fs)), hop) < 2:
        return out
    mean = float(np.median(known))
    at = hop * np.arange(1, rows + 1) - 1

    def signal_piece(start: int, stop: int) -> np.ndarray:
        return x[start:stop].astype(np.float64)

    with np.errstate(divide="ignore", invalid="ignore"):
        broad = resonance(residual, fs, mean, 0.8)
        sharp = resonance(residual, fs, mean, 0.97)
        energy = log_energy(signal_piece, fs, len(x))
        balance, creak_f0 = harmonic_balance(broad, sharp, fs, len(x))
        out[:, 0] = spread(balance, len(x), at)
        out[:, 1] = residual_peaks(broad, fs, len(x), mean, energy, at)
        out[:, 2] = zero_crossings(signal_piece, fs, len(x), at)
        out[:, 3:7] = ishi_tracks(x, fs, rows)
        out[:, 7] = np.interp(
            np.linspace(0, len(pitch.f0) - 1, rows), np.arange(len(pitch.f0)), pitch.f0
        )
        out[:, 8] = mean
        out[:, 9] = spread(energy - energy.max(), len(x), at)
        out[:, 10] = spread(power_deviation(signal_piece, fs, len(x)), len(x), at)
        out[:, 11] = spread(creak_f0, len(x), at)
        for first in (12, 24):
            out[0, first : first + 12] = 0
            out[1:, first : first + 12] = np.diff(out[:, first - 12 : first], axis=0)
    return out
