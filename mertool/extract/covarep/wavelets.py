"""Wavelet measures of the voice source: maxima dispersion quotient and peak slope.

J. Kane and C. Gobl, "Wavelet maxima dispersion for breathy to tense voice discrimination", IEEE
TASLP 21(6), 2013; J. Kane and C. Gobl, "Identifying regions of non-modal phonation using features
of the wavelet transform", Interspeech 2011.
"""

from __future__ import annotations

import numpy as np

from mertool.extract.covarep.signals import check_signal, half_up

REACH = 1000  # samples: the wavelets are cut off at either side of their centre
FFT = 16384  # points of a block; with the reach on either side, 14384 samples come out of it
MDQ_SCALES = range(2, 7)
SLOPE_SCALES = range(7)
# Below this share of a block's largest sample, the rounding of an FFT shows in a maximum.
FAINT = 1e-6


def wavelet(scale: int) -> np.ndarray:
    """The cosine-modulated Gaussian pulse of a scale, (2 * REACH + 1,), its centre in the middle.

    Its frequency is fs / 2 ** (scale + 1) at any sampling rate: 8 kHz at scale 0, 125 Hz at scale
    6 for 16 kHz. The Gaussian's standard deviation is 2 ** scale samples. C. d'Alessandro and
    N. Sturmel, "Glottal closure instant and voice source analysis using time-scale lines of
    maximum amplitude", Sadhana 36(5), 2011.
    """
    t = np.arange(-REACH, REACH + 1) / 2.0**scale
    return -np.cos(np.pi * t) * np.exp(-(t**2) / 2)


def mdq(residual: np.ndarray, fs: float, gci: np.ndarray) -> np.ndarray:
    """Maxima dispersion quotient at every glottal closure instant.

    How far from a closure the wavelets of five octaves have their maxima, relative to the period:
    small for a tense voice, large for a breathy one. Kane & Gobl 2013.

    Args:
        residual: (S,) LP residual; NaN where there is no signal. Its scale is of no consequence.
        fs: Sampling rate, Hz.
        gci: (G,) closure instants, increasing sample indices.

    Returns:
        (G,) in periods; 0 where the signal does not reach one period to both sides.

    Raises:
        DataError: The residual has not one dimension, or the rate is out of range.
    """
    check_signal(residual[:0], fs)  # shape and rate: NaN is allowed here
    gci = np.asarray(gci, dtype=np.int64)
    quotient = np.zeros(len(gci))
    if len(gci) < 2:
        return quotient
    period = np.diff(gci, prepend=2 * gci[0] - gci[1])
    (used,) = np.nonzero((gci + 1 - period > 0) & (gci + 1 + period <= len(residual)))
    radius = half_up(0.2 * period[used])
    first = gci[used] - radius
    peaks = _peak_positions(residual, first, gci[used] + radius + 1)
    # The original counts from 1 and so takes the sample before the closure for the centre.
    distance = np.abs(radius - (peaks - first + 1))
    quotient[used] = distance.mean(axis=0) / period[used]
    return quotient


def peak_slope(x: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Slope of the wavelets' maxima over the octaves, in frames of 40 ms every 10 ms.

    Kane & Gobl 2011.

    Args:
        x: (S,) signal.
        fs: Sampling rate, Hz.

    Returns:
        The frames' centres, (F,) sample indices, and their slopes, (F,) log10 of amplitude per
        octave, from low to high; 0 in digital silence.

    Raises:
        DataError: x is no signal, or the rate is out of range.
    """
    x = check_signal(x, fs)
    length, hop = int(half_up(0.04 * fs)), int(half_up(0.01 * fs))
    count = max(0, (len(x) - length) // hop + 1)
    start = hop * np.arange(count)
    wavelets = np.stack([wavelet(scale) for scale in SLOPE_SCALES])
    gains = _gains(wavelets)
    maxima = np.empty((len(wavelets), count))
    batch = (FFT - 2 * REACH - length) // hop + 1
    for a in range(0, count, batch):
        frames = slice(a, min(a + batch, count))
        part = stretch(x, start[a] - REACH, FFT)
        loudest = np.abs(part).max()
        if loudest == 0:
            maxima[:, frames] = 0
            continue
        bands = np.abs(_filter(part, gains))
        view = np.lib.stride_tricks.sliding_window_view(bands, length, axis=1)[:, ::hop]
        maxima[:, frames] = view[:, : frames.stop - a].max(axis=2)
        # In or beside digital silence, what counts is far below the rounding of the FFT.
        for band, frame in np.argwhere(maxima[:, frames] < FAINT * loudest):
            near = part[frame * hop : frame * hop + length + 2 * REACH]
            maxima[band, a + frame] = _direct_maximum(near, wavelets[band])
    with np.errstate(divide="ignore", invalid="ignore"):
        # From the lowest band (scale 6) to the highest: the weights of a least-squares line.
        weights = np.arange(len(wavelets))[::-1] - (len(wavelets) - 1) / 2
        slope = weights @ np.log10(maxima) / np.sum(weights**2)
    slope[(maxima == 0).any(axis=0)] = 0
    # The original places a frame one sample before its centre.
    return half_up(start + (length + 1) / 2) - 2, slope


def _peak_positions(residual: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Where each wavelet's output is largest within the windows [first, stop) of the residual.

    A long window, after a long unvoiced stretch, may span blocks: each block adds its part of it.

    Returns:
        (scales, windows); the first of equals; `first` where all is NaN.
    """
    gains = _gains(np.stack([wavelet(scale) for scale in MDQ_SCALES]))
    best = np.full((len(gains), len(first)), -np.inf)
    position = np.tile(first, (len(gains), 1))
    # Bounds that grow with the window's number, to find the windows that may touch a block.
    latest, earliest = np.maximum.accumulate(stop), np.minimum.accumulate(first[::-1])[::-1]
    step = FFT - 2 * REACH
    for a in range(0, len(residual), step):
        low, high = np.searchsorted(latest, a, "right"), np.searchsorted(earliest, a + step)
        left, right = np.maximum(first[low:high], a), np.minimum(stop[low:high], a + step)
        touched = low + np.flatnonzero(left < right)
        if not len(touched):
            continue
        left, size = left[touched - low], (right - left)[touched - low]
        part = stretch(residual, a - REACH, FFT)
        gaps = np.isnan(part)
        bands = _filter(np.where(gaps, 0, part), gains)
        # Convolution spreads a NaN over the wavelet's reach, but would lose all of the FFT's block.
        count = np.concatenate([[0], np.cumsum(gaps)])
        bands[:, count[2 * REACH + 1 :] > count[: -2 * REACH - 1]] = -np.inf
        offset = np.cumsum(size) - size
        samples = np.arange(size.sum()) + np.repeat(left - a - offset, size)
        for band, values in enumerate(bands[:, samples]):
            peak = np.maximum.reduceat(values, offset)
            hits = np.flatnonzero(values == np.repeat(peak, size))
            at = samples[hits[np.searchsorted(hits, offset)]] + a
            higher = peak > best[band, touched]
            best[band, touched[higher]] = peak[higher]
            position[band, touched[higher]] = at[higher]
    return position


def _gains(wavelets: np.ndarray) -> np.ndarray:
    """Transfer functions, real, of even wavelets (W, 2 * REACH + 1): (W, FFT / 2 + 1)."""
    centred = np.zeros((len(wavelets), FFT))
    centred[:, : REACH + 1] = wavelets[:, REACH:]
    centred[:, -REACH:] = wavelets[:, :REACH]
    return np.fft.rfft(centred).real


def _filter(part: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Outputs of wavelets where all their samples lie in `part` (FFT,): (W, FFT - 2 * REACH)."""
    return np.fft.irfft(np.fft.rfft(part) * gains, FFT)[:, REACH:-REACH]


def _direct_maximum(near: np.ndarray, pulse: np.ndarray) -> float:
    """Largest magnitude of a wavelet's output over a frame, from (L + 2 * REACH,) samples."""
    if not near.any():
        return 0.0
    (taps,) = np.nonzero(pulse)  # the Gaussian is 0 beyond 38 standard deviations
    near = near[taps[0] : len(near) - taps[0]]
    return float(np.abs(np.convolve(near, pulse[taps[0] : taps[-1] + 1], "valid")).max())


def stretch(x: np.ndarray, start: int, size: int) -> np.ndarray:
    """Samples `start` to `start + size` of x as (size,) float64, zeros beyond its ends."""
    out = np.zeros(size)
    low, high = max(start, 0), min(start + size, len(x))
    out[low - start : high - start] = x[low:high]
    return out
