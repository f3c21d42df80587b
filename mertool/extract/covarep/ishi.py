"""Measures of creak in the very-short-term power: periodicity, similarity and power of its peaks.

C. T. Ishi, K.-I. Sakakibara, H. Ishiguro and N. Hagita, "A method for automatic detection of vocal
fry", IEEE TASLP 16(1), 2008.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mertool.extract.covarep.signals import half_up, zero_phase

Piece = Callable[[int, int], np.ndarray]  # samples [start, stop) of a signal, as float64
SPAN = 1 << 15  # samples of frames worked on together
PASS, STOP = (100, 1500), (50, 3000)  # Hz, the band that is kept
SETTLED = 0.5  # s, after which the band-pass has forgotten its start (by 1e-28)
LOWEST = np.finfo(float).tiny  # power that stands for none at all


def frames(piece: Piece, length: int, hop: int, count: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Frames of a signal, some at a time: which they are, and (f, length) read-only samples."""
    batch = max(1, SPAN // hop)
    for a in range(0, count, batch):
        b = min(a + batch, count)
        part = piece(a * hop, (b - 1) * hop + length)
        yield slice(a, b), np.lib.stride_tricks.sliding_window_view(part, length)[::hop]


def frame_count(samples: int, length: int, hop: int) -> int:
    """How many whole frames there are."""
    return max(0, (samples - length) // hop + 1)


def autocorrelations(block: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelation of frames (f, L) at lags 0 to `lags`, by FFT: (f, lags + 1)."""
    from scipy.fft import next_fast_len

    size = next_fast_len(block.shape[1] + lags, real=True)
    spectrum = np.fft.rfft(block, size)
    return np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[:, : lags + 1]


def ishi_tracks(x: np.ndarray, fs: float, rows: int) -> np.ndarray:
    """The four tracks at `rows` instants spread evenly over the signal.

    Args:
        x: (S,) signal, S > 0.
        fs: Sampling rate, Hz.
        rows: K.

    Returns:
        (K, 4): intra-frame periodicity (IFP), inter-pulse similarity (IPS), both 0 to 1, and the
        power of the peaks over what follows and over what precedes them (PwP_fall, PwP_rise), dB.
    """
    at = half_up(np.linspace(1, len(x), rows)) - 1
    band = _band_pass(x, fs)
    out = np.zeros((rows, 4))
    out[:, 0] = _periodicity(band, fs, len(x), at)
    short, hop = int(half_up(0.004 * fs)), int(half_up(0.002 * fs))
    contour = power_contour(band, len(x), short, hop)
    peaks = _prominent_peaks(contour)
    if len(peaks) > 2:
        centre = half_up(hop * peaks + (short + 1) / 2) - 1
        near = np.stack([contour[np.clip(peaks + k, 0, len(contour) - 1)] for k in range(-5, 6)])
        similarity = _similarity(band, fs, len(x), centre)
        fall, rise = contour[peaks] - near[6:].min(axis=0), contour[peaks] - near[:5].min(axis=0)
        out[:, 1:] = _next_peak(np.stack([similarity, fall, rise], axis=1), centre, fs, at)
    return out


def power_contour(piece: Piece, samples: int, length: int, hop: int) -> np.ndarray:
    """Very-short-term power of every frame, 20 log10 of the mean square as in the original."""
    contour = np.empty(frame_count(samples, length, hop))
    for part, block in frames(piece, length, hop, len(contour)):
        contour[part] = np.einsum("fl,fl->f", block, block) / length
    return 20 * np.log10(np.maximum(contour, LOWEST))


def _design(fs: float) -> np.ndarray:
    """Second-order sections of the Butterworth band-pass: 3 dB in PASS, 40 dB at STOP.

    The order and edges are those at which the stop band is met exactly; scipy's buttord meets the
    pass band. As second-order sections: in one polynomial, the filter is all but unstable.
    """
    from scipy import signal

    low, high = np.tan(np.pi * np.array(PASS) / fs)
    stop = np.tan(np.pi * np.array(STOP) / fs)
    ratio = np.min(np.abs((stop**2 - low * high) / (stop * (high - low))))
    attenuation = 10 ** (40 / 10) - 1
    order = int(np.ceil(np.log(attenuation / (10 ** (3 / 10) - 1)) / (2 * np.log(ratio))))
    half = ratio / attenuation ** (1 / (2 * order)) * (high - low) / 2
    edges = np.sqrt(half**2 + low * high) + half * np.array([-1, 1])
    return signal.butter(order, 2 / np.pi * np.arctan(edges), "bandpass", output="sos")


def _band_pass(x: np.ndarray, fs: float) -> Piece:
    """The signal in the band, filtered forwards and backwards; any stretch on demand."""
    sos = _design(fs)
    lead = int(SETTLED * fs)

    def piece(start: int, stop: int) -> np.ndarray:
        a, b = max(0, start - lead), min(len(x), stop + lead)
        # The odd extension is that of the filter as one polynomial, of 2 * sections + 1 numbers.
        return zero_phase(x[a:b], sos, 6 * len(sos))[start - a : stop - a]

    return piece


def _periodicity(band: Piece, fs: float, samples: int, at: np.ndarray) -> np.ndarray:
    """Intra-frame periodicity: how well all multiples of the best lag correlate, up to 15 ms."""
    length, hop = int(half_up(0.032 * fs)), int(half_up(0.01 * fs))
    lags, blind = int(half_up(0.015 * fs)), int(half_up(0.001 * fs))
    value = np.zeros(frame_count(samples, length, hop))
    if not len(value):
        return np.zeros(len(at))
    # The original divides by the length minus the lag counted from 1.
    unbias = length / (length - np.arange(1, lags + 2))
    for part, block in frames(band, length, hop, len(value)):
        r = autocorrelations(block, lags)
        r *= unbias / np.maximum(r[:, :1], LOWEST)
        r[:, :blind] = 0
        best, lowest = r.argmax(axis=1) + 1, r.max(axis=1)
        (some,) = np.nonzero(best > blind)
        for multiple in range(2, lags // (blind + 1) + 1):
            some = some[best[some] * multiple <= lags]
            around = best[some, None] * multiple - 1 + np.arange(-blind, blind + 1)
            near = r[some[:, None], np.minimum(around, lags)].max(axis=1)
            lowest[some] = np.minimum(lowest[some], near)
        value[part] = lowest
    unsteady = (value[1:-2] < 0.5) | (value[2:-1] < 0.5)
    value[:-3][unsteady] = 0
    centre = half_up(hop * np.arange(len(value)) + (length + 1) / 2) - 1
    return np.interp(at, centre, np.clip(value, 0, 1), left=0, right=0)


def _prominent_peaks(contour: np.ndarray) -> np.ndarray:
    """Peaks 2 dB above the contour 3 frames away on either side, and within 30 dB of the highest.

    A plateau counts as its middle.
    """
    (change,) = np.nonzero(contour[1:] != contour[:-1])
    level = contour[np.append(change, len(contour) - 1)] if len(contour) else contour
    (top,) = np.nonzero((level[1:-1] > level[:-2]) & (level[1:-1] > level[2:]))
    peaks = (change[top] + 1 + change[top + 1]) // 2
    peaks = peaks[(peaks >= 3) & (peaks < len(contour) - 3)]
    sides = np.maximum(contour[peaks - 3], contour[peaks + 3])
    peaks = peaks[contour[peaks] - sides >= 2]
    return peaks[contour[peaks] >= contour[peaks].max() - 30] if len(peaks) else peaks


def _similarity(band: Piece, fs: float, samples: int, centre: np.ndarray) -> np.ndarray:
    """Inter-pulse similarity: the cross-correlation of the waves around a peak and the last one."""
    from scipy.fft import next_fast_len

    radius, furthest = int(half_up(0.0075 * fs)), int(half_up(0.1 * fs))
    lags, size = 2 * radius, next_fast_len(4 * radius + 1, real=True)
    out = np.zeros(len(centre))
    last = centre[:-1]
    used = (np.diff(centre) <= furthest) & (last >= radius) & (centre[1:] + radius < samples)
    (used,) = np.nonzero(used)
    for low in range(0, samples, SPAN):
        here = used[np.searchsorted(last[used], low) : np.searchsorted(last[used], low + SPAN)]
        if not len(here):
            continue
        start = last[here[0]] - radius
        wave = band(start, centre[here[-1] + 1] + radius + 1)
        around = np.lib.stride_tricks.sliding_window_view(wave, 2 * radius + 1)
        a, b = around[centre[here + 1] - radius - start], around[last[here] - radius - start]
        cross = np.fft.irfft(np.fft.rfft(a, size) * np.fft.rfft(b, size).conj(), size)
        energy = np.einsum("pl,pl->p", a, a) * np.einsum("pl,pl->p", b, b)
        highest = np.maximum(cross[:, : lags + 1].max(axis=1), cross[:, -lags:].max(axis=1))
        out[here + 1] = highest / np.sqrt(np.maximum(energy, LOWEST))
    return out


def _next_peak(values: np.ndarray, centre: np.ndarray, fs: float, at: np.ndarray) -> np.ndarray:
    """At every instant the values (P, D) of the next peak, 0 where it is 35 ms or more away.

    To the original, a peak in the past lies before the first sample: so the first peak stands in
    for a later one that is further away than the signal's start.
    """
    following = np.searchsorted(centre, at)
    known = np.append(centre, np.iinfo(np.int64).max)
    distance = known[following] - at
    since_start = at + 1
    past = (following > 0) & (since_start <= distance)
    index = np.where(past, 0, np.minimum(following, len(centre) - 1))
    near = np.where(past, since_start, distance) < half_up(0.035 * fs)
    return np.where(near[:, None], values[index], 0)
