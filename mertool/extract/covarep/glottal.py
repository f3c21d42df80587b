"""Glottal flow, and the four parameters of its pulses: NAQ, QOQ, H1-H2, PSP.

The sources of the parameters stand at their functions; the flow is that of `iaif`.
"""

from __future__ import annotations

import math

import numpy as np

from mertool.errors import DataError
from mertool.extract.covarep.h1h2 import fourier, h1h2
from mertool.extract.covarep.iaif import Flow, groups, periods
from mertool.extract.covarep.signals import blocks, check_signal, half_up

PITCHES = (20, 500)  # Hz, between which a period counts as one
SPECTRUM = 2048  # points of the spectrum of one pulse
PSP_BINS = 128  # of them computed at first; the parabola mostly fits fewer
BLOCK = 1 << 18  # samples whose flow is held: enough frames for full batches of equal length
FIT_ERROR = 0.01  # normalised error at which the parabola ends


def check_gci(gci: np.ndarray, count: int) -> np.ndarray:
    """Glottal closure instants as a (G,) array of integers.

    Raises:
        DataError: They are no rising samples of a signal of `count`.
    """
    gci = np.asarray(gci)
    good = gci.ndim == 1 and (gci.size == 0 or gci.dtype.kind in "iu")
    gci = gci.astype(np.int64) if good else np.zeros(0, np.int64)
    if not good or (len(gci) and (gci[0] < 0 or gci[-1] >= count)) or (np.diff(gci) <= 0).any():
        raise DataError(
            "Glottal closure instants are rising sample numbers within the signal.",
            f"a signal of {count} samples",
            "Give the output of gci_sedreams for the same signal.",
        )
    return gci


def glottal_flow(x: np.ndarray, fs: float, gci: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Glottal flow and its derivative, GCI-synchronous IAIF overlap-added (Alku 1992).

    Args:
        x: (S,) samples, polarity positive.
        fs: Sampling rate in Hz.
        gci: (G,) glottal closure instants, rising samples.

    Returns:
        Flow and derivative, (S,) each: 0 where no frame lies, NaN where one has no energy.

    Raises:
        DataError: No signal, or GCIs outside of it.
    """
    x = check_signal(x, fs)
    flow = Flow(x, fs, check_gci(gci, len(x)))
    out = np.zeros(len(x)), np.zeros(len(x))
    for a, b in blocks(len(x), BLOCK):
        for whole, part in zip(out, flow.part(a, b), strict=True):
            whole[a:b] = part
    return out


def glottal_parameters(x: np.ndarray, fs: float, gci: np.ndarray) -> np.ndarray:
    """NAQ, QOQ, H1-H2 and PSP of every glottal pulse.

    Args:
        x: (S,) samples, polarity positive.
        fs: Sampling rate in Hz.
        gci: (G,) glottal closure instants, rising samples; pulse n ends at GCI n.

    Returns:
        (G, 4): NAQ, QOQ, H1-H2 in dB, PSP. 0 where the period is not one of 20 to 500 Hz and,
        PSP, at the first GCI; NaN where the flow has no energy (H1-H2: 0), and for a lone GCI,
        which has no period.

    Raises:
        DataError: No signal, or GCIs outside of it.
    """
    x = check_signal(x, fs)
    gci = check_gci(gci, len(x))
    period = periods(gci)
    out = np.zeros((len(gci), 4))
    if len(gci) < 2:
        return out * np.nan
    flow = Flow(x, fs, gci)
    voiced = (period * PITCHES[0] < fs) & (period * PITCHES[1] > fs)
    margin = math.ceil(1.6 * fs / PITCHES[0])  # the frame of H1-H2 reaches 1.5 periods
    for a, b in blocks(len(x), BLOCK):
        here = np.flatnonzero((gci >= a) & (gci < b) & voiced)
        if not len(here):
            continue
        low = max(gci[here[0]] - margin, 0)
        high = min(gci[here[-1]] + margin + 1, len(x))
        parts = flow.part(low, high)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if here[0] == 0:
                out[0, :2] = first_quotients(low, *parts, gci[0], period[0], fs)
            for group in groups(period[here], ratio=1.15):
                n = here[group]
                out[n, 2] = h1h2(parts[1], gci[n] - low, period[n], fs)
                n = n[n > 0]  # the first GCI's segment is the whole signal before it
                if len(n):
                    out[n, :2] = quotients(*parts, gci[n] - low, period[n], fs)
                    out[n, 3] = psp(parts[0], gci[n] - low, period[n])
    return out


def span(stop: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Samples of the pulses ending at `stop`, (F, T + 1); shorter ones repeat their last."""
    return np.minimum((stop - period)[:, None] + np.arange(period.max() + 1), stop[:, None])


def half_height(
    pulse: np.ndarray, begin: int, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height of pulses, and where they fall to half of it on either side of the top.

    Args:
        pulse: (F, W) samples `begin` and on of the pulses.
        begin: As said.
        last: (F,) the last sample of each pulse.

    Returns:
        Height, left and right sample, (F,) each; left is `begin` - 1 where the pulse is still above
        half its height at `begin`.
    """
    n = begin + np.arange(pulse.shape[1])
    height = np.fmax.reduce(pulse, axis=1)
    top = begin + np.argmax(pulse == height[:, None], axis=1)[:, None]
    below = ~(pulse > 0.5 * height[:, None])
    # The original looks no further than the third sample from the left and from the right.
    left = (below | (n <= 2)) & (n <= top)
    right = (below | (n >= last[:, None] - 2)) & (n >= top)
    found = n[-1] - np.argmax(left[:, ::-1], axis=1)
    return height, np.where(left.any(axis=1), found, begin - 1), begin + np.argmax(right, axis=1)


def steepest(derivative: np.ndarray, begin: np.ndarray, end: np.ndarray, fs: float) -> np.ndarray:
    """Largest magnitude of the derivative from `begin` to 0.5 ms behind `end`, (F,)."""
    reach = int(half_up(0.5e-3 * fs))
    end = end + np.where(end + reach < len(derivative), reach, 0)
    return np.fmax.reduce(np.abs(derivative[span(end, end - begin)]), axis=1)


def quotients(
    flow: np.ndarray, derivative: np.ndarray, gci: np.ndarray, period: np.ndarray, fs: float
) -> np.ndarray:
    """Normalised amplitude quotient and quasi-open quotient of pulses.

    P. Alku, T. Bäckström, E. Vilkman, "Normalized amplitude quotient for parametrization of the
    glottal flow", JASA 112(2), 2002; T. Hacki, "Klassifizierung von Glottisdysfunktionen mit Hilfe
    der Elektroglottographie", Folia Phoniatrica 41, 1989.

    Args:
        flow: (S,) glottal flow.
        derivative: (S,) its derivative.
        gci: (F,) samples at which the pulses end.
        period: (F,) in samples, back to where they begin.
        fs: Sampling rate in Hz.

    Returns:
        (F, 2) NAQ and QOQ.
    """
    pulse = flow[span(gci, period)]
    n = np.arange(pulse.shape[1])
    pulse = pulse - pulse[:, :1] - ((pulse[:, -1] - pulse[:, 0]) / period)[:, None] * n
    pulse[n > period[:, None]] = -np.inf
    pulse[np.arange(len(pulse)), period] = 0  # not +-1e-17: the top of a pulse below its line
    height, left, right = half_height(pulse, 0, period)
    naq = height / (steepest(derivative, gci - period, gci, fs) * period)
    return np.stack([naq, (right - left) / period], axis=1)


def first_quotients(
    low: int, flow: np.ndarray, derivative: np.ndarray, gci: int, period: int, fs: float
) -> tuple[float, float]:
    """NAQ and QOQ of the first GCI, whose pulse begins with the signal.

    The flow is 0 up to the first frame, so that the pulse is a straight line there: it is not held,
    as it may be minutes long.

    Args:
        low: The sample at which the flow and its derivative begin.
        flow: Glottal flow.
        derivative: Its derivative.
        gci: The first GCI, a sample of the signal.
        period: Of the second GCI.
        fs: Sampling rate in Hz.
    """
    begin = max(gci - period - 2, 0)  # the last sample before the first frame
    seen = flow[begin - low : gci + 1 - low]
    first = 0.0 if begin else seen[0]
    slope = (seen[-1] - first) / gci
    pulse = seen - first - slope * np.arange(begin, gci + 1)
    pulse[-1] = 0  # as in `quotients`
    height, left, right = (float(v[0]) for v in half_height(pulse[None], begin, np.array([gci])))
    if not height > 0:
        return (0.0, 0.0) if height <= 0 else (np.nan, np.nan)
    if left < begin:
        left = max(math.floor(0.5 * height / -slope), 2)
    ends = np.array([begin - low]), np.array([gci - low])
    return height / (steepest(derivative, *ends, fs)[0] * period), (right - left) / period


def psp(flow: np.ndarray, gci: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Parabolic spectral parameter of pulses, relative to that of a rectangle of one period.

    P. Alku, H. Strik, E. Vilkman, "Parabolic spectral parameter: a new method for quantification of
    the glottal flow", Speech Communication 22(1), 1997.

    Args:
        flow: (S,) glottal flow.
        gci: (F,) samples at which the pulses end.
        period: (F,) in samples, back to where they begin.

    Returns:
        (F,), NaN where the flow is constant.
    """
    pulse = flow[span(gci, period)]
    pulse = pulse - np.fmin.reduce(pulse, axis=1)[:, None]
    pulse /= np.fmax.reduce(pulse, axis=1)[:, None]
    pulse[np.arange(pulse.shape[1]) > period[:, None]] = 0
    pulse = pulse[:, :SPECTRUM]
    basis = fourier(pulse.shape[1], PSP_BINS, SPECTRUM)
    power = (pulse @ basis.real.copy()) ** 2 + (pulse @ basis.imag.copy()) ** 2
    a, ended = parabola(power)
    if not ended.all():
        spectrum = np.fft.rfft(pulse[~ended], SPECTRUM, axis=1)[:, : SPECTRUM // 2]
        a[~ended], _ = parabola(spectrum.real**2 + spectrum.imag**2)
    kinds, kind = np.unique(period, return_inverse=True)
    return a / rectangle(kinds)[kind]


def rectangle(period: np.ndarray) -> np.ndarray:
    """The curvature `parabola` of rectangles of `period` samples and area 1, (F,)."""
    out = np.empty(len(period))
    left = np.ones(len(period), bool)
    for bins in (PSP_BINS, SPECTRUM // 2):
        k = np.pi / SPECTRUM * np.arange(1, bins)
        short = np.minimum(period[left], SPECTRUM)[:, None]
        gain = np.sin(k * short) / (np.sin(k) * period[left, None])
        gain = np.concatenate([short / period[left, None], gain], axis=1)
        out[left], ended = parabola(gain**2)
        left[left] = ~ended
        if not left.any():
            break
    return out


def parabola(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Curvature of the parabola that fits a spectrum in dB from bin 0 on, as far as it fits.

    Args:
        power: (F, K) power spectra.

    Returns:
        (F,) a of a k^2 + b over the fewest bins, three at least, at which the squared
        error reaches `FIT_ERROR` of the spectrum's; and (F,) whether any number of bins does: else
        it is over all.
    """
    level = 10 * np.log10(power)
    n = np.arange(1, power.shape[1] + 1)
    square = np.arange(power.shape[1]) ** 2.0
    squares, fourths = np.cumsum(square), np.cumsum(square**2)
    x = level - level[:, :1]  # the curvature stays, and loses fewer digits
    sums = np.cumsum(x, axis=1)
    products = np.cumsum(x * square, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = (n * products - sums * squares) / (n * fourths - squares**2)
        b = (sums - a * squares) / n
        error = np.cumsum(x * x, axis=1) - a * products - b * sums
        over = error / np.cumsum(level * level, axis=1) >= FIT_ERROR
    over[:, :2] = False
    ended = over.any(axis=1)
    at = np.where(ended, np.argmax(over, axis=1), power.shape[1] - 1)
    return a[np.arange(len(a)), at], ended
