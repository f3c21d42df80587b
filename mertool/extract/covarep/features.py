"""The whole chain: 74 columns, 100 rows per second.

G. Degottex, J. Kane, T. Drugman, T. Raitio, S. Scherer, "COVAREP - A collaborative voice analysis
repository for speech technologies", ICASSP 2014. "The original" is that program.
"""

from __future__ import annotations

from math import gcd, log

import numpy as np

from mertool.errors import UsageError
from mertool.extract.covarep.creak import CREAK_F0, Weights, creak_inputs, creak_posterior
from mertool.extract.covarep.envelope import mcep
from mertool.extract.covarep.gci import gci_sedreams, larynx_intervals, mean_based_signal
from mertool.extract.covarep.glottal import glottal_parameters
from mertool.extract.covarep.harmonics import harmonic_frames, harmonics
from mertool.extract.covarep.phase import PhaseDistortion, phase_rows
from mertool.extract.covarep.pitch import Pitch, pitch_srh, voicing_at
from mertool.extract.covarep.rd import RdSearch
from mertool.extract.covarep.residual import lp_residual, polarity
from mertool.extract.covarep.signals import check_signal, half_up, interpolate
from mertool.extract.covarep.wavelets import mdq, peak_slope

RATE = 16000  # Hz, the rate the original was tested at
HOP = 160  # samples between two rows
FIRST = 79  # the first row's sample
MODES = ("compat", "published")
# Beyond these powers of two, squares of samples would leave the range of floating-point numbers.
EXPONENTS = 40

COLUMNS = (
    "F0", "VUV", "NAQ", "QOQ", "H1H2", "PSP", "MDQ", "peakSlope", "Rd", "Rd_conf", "creak",
    *(f"MCEP_{i}" for i in range(25)),
    *(f"HMPDM_{i}" for i in range(25)),
    *(f"HMPDD_{i}" for i in range(13)),
)  # fmt: skip


def row_centres(samples: int) -> np.ndarray:
    """(T,) sample at 16 kHz that each row stands for; one row at least where there is sound."""
    return FIRST + HOP * np.arange(max(bool(samples), (samples - FIRST - 1) // HOP + 1))


def row_times(samples: int) -> np.ndarray:
    """(T, 2) the cell of each row in seconds: its centre +- 5 ms, within the sound."""
    centres = row_centres(samples)[:, None]
    return np.clip(centres + [-HOP // 2, HOP // 2], 0, samples) / RATE


def covarep(
    x: np.ndarray,
    fs: int = RATE,
    mode: str = "compat",
    creak: Weights | None = None,
    overwrite_x: bool = False,
) -> np.ndarray:
    """COVAREP's 74 features of a signal.

    Args:
        x: (S,) samples; full scale is 1, of integers (PCM) that of their kind.
        fs: Sampling rate, Hz, 8000 to 48000; what is not 16000 is resampled to it.
        mode: "compat" = as the original's last version; "published" = Rd and Rd_conf with the sign
            of the phase as published.
        creak: Weights of the creak detector; None leaves that column 0.
        overwrite_x: Allow `x` to be overwritten, which saves memory.

    Returns:
        (T, 74) finite float64, columns as in `COLUMNS`, T and the rows' times as by `row_times` of
        the number of samples at 16 kHz. What the original leaves open, by NaN, or cannot compute
        at all (silence, nothing voiced, fewer than 73 frames, ...) is 0; docs/covarep.md lists it.

    Raises:
        DataError: The signal has no finite samples in one row, or another rate.
        UsageError: No such mode.
    """
    if mode not in MODES:
        known = ", ".join(MODES)
        raise UsageError(f'There is no mode "{mode}".', f"mode={mode}", f"Known: {known}")
    given, x = x, check_signal(x, fs)
    peak = float(max(x.max(), -x.min())) if len(x) else 0.0
    exponent = int(np.frexp(peak)[1])
    if abs(exponent) > EXPONENTS:
        x = np.ldexp(x, -exponent)
    else:
        exponent = 0
    if fs != RATE:
        x = resample(x, fs)
    elif not overwrite_x and np.may_share_memory(given, x):
        x = x.copy()
    centres = row_centres(len(x))
    if not peak:
        return np.zeros((len(centres), len(COLUMNS)))
    if polarity(x, RATE) < 0:
        np.negative(x, out=x)

    pitch = pitch_srh(x, RATE)
    gci, dispersion, posterior = _excitation(x, pitch, creak)
    glottal = glottal_parameters(x, RATE, gci)
    slope = interpolate(*peak_slope(x, RATE), centres)
    shape, cepstra, phases = _harmonic(x, pitch, mode, centres)

    out = np.empty((len(centres), len(COLUMNS)))
    out[:, 0] = interpolate(pitch.centre, pitch.f0, centres)
    out[:, 1] = voicing_at(pitch, centres) >= 0.5
    out[:, 2:6] = interpolate(gci, glottal, centres)
    out[:, 6] = interpolate(gci - 1, dispersion, centres)  # the original is one sample early here
    out[:, 7] = slope
    out[:, 8:10] = shape
    out[:, 10] = interpolate(HOP * np.arange(1, len(posterior) + 1) - 1, posterior, centres)
    out[:, 11:36] = cepstra
    out[:, 11] += exponent * log(2)
    out[:, 36:] = phases
    out[~np.isfinite(out)] = 0
    return out


def resample(x: np.ndarray, fs: int) -> np.ndarray:
    """The signal at 16 kHz, by a polyphase filter with a Kaiser window of beta 5."""
    from scipy import signal

    shared = gcd(RATE, round(fs))
    if not len(x):
        return x
    return signal.resample_poly(x, RATE // shared, round(fs) // shared, window=("kaiser", 5.0))


def _excitation(
    x: np.ndarray, pitch: Pitch, creak: Weights | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What comes of the LP residual, which is freed afterwards: GCIs, MDQ and creak."""
    # These need arrays of the signal's length for themselves: before the residual, which is one.
    low = None if creak is None else pitch_srh(x, RATE, *CREAK_F0)
    intervals = larynx_intervals(mean_based_signal(x, RATE, pitch.median))
    residual = lp_residual(x, RATE)
    gci = gci_sedreams(x, RATE, pitch.median, pitch, residual, intervals)
    posterior = np.zeros(0)
    if creak is not None:
        posterior = creak_posterior(creak_inputs(x, RATE, residual, low), creak)
    return gci, mdq(residual, RATE, gci), posterior


def _harmonic(
    x: np.ndarray, pitch: Pitch, mode: str, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What comes of the harmonic frames, block by block, in rows: Rd, MCEP, phase distortion."""
    frame, _, _ = harmonic_frames(RATE, len(x), pitch)
    at = pitch.centre[frame]
    search, distortion = RdSearch(RATE, mode), PhaseDistortion(RATE, len(frame))
    cepstra = np.empty((len(at), 25))
    done = 0
    for block in harmonics(x, RATE, pitch):
        search.add(block)
        distortion.add(block)
        rows = slice(done, done := done + len(block.frame))
        cepstra[rows] = mcep(block, RATE)
    shape = interpolate(at, np.stack(search.finish(), axis=1), centres)
    # The original spreads the cepstra evenly over the file, whatever their frames' true times.
    spread = half_up(np.linspace(1, len(x), len(cepstra))) - 1
    cepstra = interpolate(spread, cepstra, centres)
    return shape, cepstra, phase_rows(at, *distortion.finish(), centres)
