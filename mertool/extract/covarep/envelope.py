"""Spectral envelope and its mel-cepstrum (MCEP).

A. Roebel, X. Rodet, "Efficient spectral envelope estimation and its application to pitch shifting
and envelope preservation", DAFx 2005 (true envelope); F. Villavicencio, A. Roebel, X. Rodet,
"Improving LPC spectral envelope extraction of voiced speech by true-envelope estimation",
ICASSP 2006 (its order).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mertool.errors import DataError
from mertool.extract.covarep.signals import half_up

if TYPE_CHECKING:
    from mertool.extract.covarep.harmonics import Harmonics

ITERATIONS = 200
TOLERANCE = np.log(10) / 10  # natural log of amplitude: 2 dB
ORDER_FACTOR = 1.2  # of the optimal order, for the Hamming window of the cepstrum
COEFFICIENTS = 25  # of MCEP
BATCH = 24  # frames iterated on together: their spectra and the cosines stay in the cache
PRODUCT = 400  # up to this order a product with cosines is quicker than a Fourier transform


def true_envelope(magnitude: np.ndarray, order: np.ndarray) -> np.ndarray:
    """True envelope of every frame: a cepstrally smooth curve through the spectrum's peaks.

    The log spectrum is smoothed by a windowed cepstrum, bins below the smooth curve are lifted to
    it, and so on until no bin exceeds the curve by more than 2 dB. As in the original a first, less
    smooth run of half the order gives the spectrum of the second at both ends of the axis.

    Args:
        magnitude: (F, L/2 + 1) from 0 Hz to fs / 2, L a multiple of 4.
        order: (F,) cepstral order, fs / (2 F0) for harmonics F0 apart.

    Returns:
        (F, L/2 + 1) amplitudes. NaN where a frame has a bin of zero or of no finite number.

    Raises:
        DataError: The number of bins is not L/2 + 1.
    """
    magnitude = np.asarray(magnitude, dtype=np.float64)
    bins = magnitude.shape[1]
    if bins < 5 or bins % 2 == 0:
        raise DataError(
            f"A spectrum of {bins} bins is not half of one whose length is a multiple of 4.",
            f"shape {magnitude.shape}",
            "Give the L/2 + 1 bins of a Fourier transform of L points, such as 2049.",
        )
    highest = bins - 2
    order = np.minimum(np.asarray(order), highest)
    order = np.minimum(half_up(ORDER_FACTOR * order), highest)
    coarse = np.minimum(half_up(ORDER_FACTOR * half_up(order / 2)), highest)
    ends = half_up(0.5 * (bins - 1) / np.maximum(order, 1))

    out = np.full(magnitude.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(magnitude)
    usable = np.flatnonzero(np.isfinite(log.sum(axis=1)))
    # Frames of about the same order share a batch, whose products take its largest order.
    usable = usable[np.argsort(order[usable], kind="stable")]
    for start in range(0, len(usable), BATCH):
        rows = usable[start : start + BATCH]
        halves = _fold(log[rows])
        smooth = _smooth(halves, coarse[rows])
        k = np.arange(halves.shape[2])
        near = ends[rows, None]
        halves[0] = np.where(k < near, smooth[0], halves[0])
        # One bin less at this end, as in the original.
        halves[1] = np.where(k < near - 1, smooth[1], halves[1])
        smooth = _smooth(halves, order[rows])
        out[rows] = np.exp(_unfold(smooth))
    return out


def mel_cepstrum(envelope: np.ndarray, fs: float, order: int) -> np.ndarray:
    """Cepstrum of an envelope on a mel axis.

    mel(f) = 1000 / ln(1 + 1000 / 700) * ln(1 + f / 700) (D. O'Shaughnessy, "Speech communication",
    1987). The amplitudes are interpolated linearly, then their logarithm is transformed.

    Args:
        envelope: (F, L/2 + 1) amplitudes from 0 Hz to fs / 2.
        fs: Hz.
        order: Highest coefficient.

    Returns:
        (F, order + 1) natural-log cepstrum [c_0, 2 c_1, ..], i.e. the amplitude at the mel position
        w in [0, pi] is exp(sum_k out_k cos(k w)).
    """
    lower, weight, cosines = _mel_axis(envelope.shape[1], float(fs), order)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.take(envelope, lower, axis=1)
        warped = np.take(envelope, lower + 1, axis=1)
        warped -= low
        warped *= weight
        warped += low
        return np.log(warped, out=warped) @ cosines


def mcep(block: Harmonics, fs: float) -> np.ndarray:
    """MCEP_0 .. MCEP_24: the mel-cepstrum of the true envelope of every frame's spectrum.

    Args:
        block: Analysed frames.
        fs: Hz.

    Returns:
        (F, 25); NaN for a frame of digital silence.
    """
    envelope = true_envelope(block.spectrum, half_up(0.5 * fs / block.f0))
    return mel_cepstrum(envelope, fs, COEFFICIENTS - 1)


def _smooth(halves: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The iterations of the true envelope.

    Args:
        halves: (2, B, L/4 + 1) log spectra as `_fold` gives them.
        order: (B,) cepstral order.

    Returns:
        (2, B, L/4 + 1) log envelopes.
    """
    out = np.empty_like(halves)
    target, lifted = halves.copy(), halves.copy()
    k = _even_then_odd(order.max() + 1)
    inside = (k <= order[:, None]).astype(np.float64)
    window = (0.54 + 0.46 * np.cos(np.pi * k / np.maximum(order[:, None], 1))) * inside
    cepstrum = np.zeros(window.shape)
    frame = np.arange(len(order))
    for iteration in range(1, ITERATIONS + 1):
        n = len(frame)
        now, c = lifted[:, :n], cepstrum[:n]
        coefficients, outside = _cepstrum(now, inside[:n])
        within = np.sqrt(np.einsum("fk,fk->f", coefficients, coefficients))
        # The original's longer step: the more lies outside the window, the farther.
        step = 1 + np.divide(outside, within, out=np.zeros(n), where=within > 0)
        coefficients -= c
        coefficients *= window[:n]
        coefficients *= step[:, None]
        c += coefficients
        smooth = _spectrum(c, halves.shape[2])
        excess = np.subtract(target[:, :n], smooth).max(axis=2).max(axis=0)
        done = (excess <= TOLERANCE) | (iteration == ITERATIONS)
        if done.any():
            out[:, frame[done]] = smooth[:, done]
            if done.all():
                break
        np.maximum(now, smooth, out=now)
        if done.any():
            # The last of those that go on take the places of those that are done.
            left = np.flatnonzero(~done)
            place = np.flatnonzero(done[: len(left)])
            mover = left[len(left) - len(place) :]
            lifted[:, place], target[:, place] = lifted[:, mover], target[:, mover]
            for array in (cepstrum, window, inside, frame):
                array[place] = array[mover]
            frame = frame[: len(left)]
    return out


def _cepstrum(halves: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cepstrum of log spectra.

    Args:
        halves: (2, B, L/4 + 1).
        inside: (B, C) 1 for the coefficients up to the frame's order, in the order of
            `_even_then_odd`, else 0.

    Returns:
        (B, C) one-sided coefficients [c_0, 2 c_2, .., 2 c_1, 2 c_3, ..], 0 where not `inside`; (B,)
        root of the sum of squares of all others but that at L/2.
    """
    half, count = halves.shape[2] - 1, inside.shape[1]
    dft, split = 4 * half, (count + 1) // 2
    if count > PRODUCT:
        from scipy import fft

        everything = fft.dct(_unfold(halves), type=1, axis=1)[:, :-1] * (2 / dft)
        everything[:, 0] /= 2
        k = _even_then_odd(count)
        coefficients = everything[:, k] * inside
        everything[:, k] *= 1 - inside
        return coefficients, np.sqrt((everything**2).sum(axis=1))
    even, odd, alternating = _cosines(half)
    total, difference = halves[0] + halves[1], halves[0] - halves[1]
    # 0 Hz and fs / 2 count once where all else counts twice, and fs / 4 stands in both halves.
    energy = np.einsum("sfi,sfi->f", halves, halves)
    energy -= np.einsum("sfi,sfi->f", halves[:, :, ::half], halves[:, :, ::half]) / 2
    total[:, ::half] /= 2
    difference[:, 0] /= 2
    coefficients = np.empty(inside.shape)
    coefficients[:, :split] = total @ even[:split].T
    coefficients[:, split:] = difference @ odd[: count - split].T
    coefficients *= inside
    coefficients *= 4 / dft
    coefficients[:, 0] /= 2
    # By Parseval: all energy, less that of the coefficients at hand and of that at L/2.
    last = total @ alternating * (2 / dft)
    known = np.einsum("fk,fk->f", coefficients, coefficients) + coefficients[:, 0] ** 2
    return coefficients, np.sqrt(np.maximum(4 * energy / dft - 2 * last**2 - known, 0))


def _spectrum(cepstrum: np.ndarray, width: int) -> np.ndarray:
    """Log spectra (2, B, width) of one-sided cepstra (B, C) in the order of `_even_then_odd`."""
    count = cepstrum.shape[1]
    split = (count + 1) // 2
    if count > PRODUCT:
        from scipy import fft

        padded = np.zeros((len(cepstrum), 2 * width - 1))
        padded[:, _even_then_odd(count)] = cepstrum / 2
        padded[:, 0] *= 2
        return _fold(fft.dct(padded, type=1, axis=1))
    even, odd, _ = _cosines(width - 1)
    symmetric = cepstrum[:, :split] @ even[:split]
    antisymmetric = cepstrum[:, split:] @ odd[: count - split]
    out = np.empty((2, len(cepstrum), width))
    np.add(symmetric, antisymmetric, out=out[0])
    np.subtract(symmetric, antisymmetric, out=out[1])
    return out


def _even_then_odd(count: int) -> np.ndarray:
    """Indices of `count` cepstral coefficients, as the two products with cosines want them."""
    return np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)])


def _fold(spectrum: np.ndarray) -> np.ndarray:
    """(2, B, L/4 + 1): the bins of (B, L/2 + 1) from 0 Hz upwards, and from fs / 2 downwards.

    A cosine of even order is the same on both halves and one of odd order differs by its sign only,
    so that a product with cosines need only run over one half.
    """
    middle = spectrum.shape[1] // 2
    return np.stack([spectrum[:, : middle + 1], spectrum[:, : middle - 1 : -1]])


def _unfold(halves: np.ndarray) -> np.ndarray:
    """The inverse of `_fold`."""
    return np.concatenate([halves[0], halves[1][:, -2::-1]], axis=1)


@lru_cache(maxsize=2)
def _cosines(half: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """cos(k pi i / (2 half)) of i = 0..half, for even and odd k up to `PRODUCT`, and k = 2 half."""
    turn = np.arange(PRODUCT + 1)[:, None] * np.arange(half + 1) % (4 * half)
    cosines = np.cos(turn * (np.pi / (2 * half)))
    return cosines[::2].copy(), cosines[1::2].copy(), (-1.0) ** np.arange(half + 1)


@lru_cache(maxsize=4)
def _mel_axis(bins: int, fs: float, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Between which bins the points of the mel axis lie, and the cosines of its cepstrum.

    Returns:
        (B,) lower bin of each point, (B,) weight of the next bin, (B, order + 1) cosines.
    """
    top = fs / 2
    # ln(1 + f/700) up to a factor; bin i of the linear axis lies at position `mel` of the new one.
    mel = top * np.log1p(np.linspace(0, top, bins) / 700) / np.log1p(top / 700)
    at = np.linspace(0, top, bins)
    lower = np.clip(np.searchsorted(mel, at, side="right") - 1, 0, bins - 2)
    weight = np.clip((at - mel[lower]) / (mel[lower + 1] - mel[lower]), 0, 1)
    turn = np.arange(bins)[:, None] * np.arange(order + 1) % (2 * (bins - 1))
    cosines = np.cos(turn * (np.pi / (bins - 1))) * (2 / (bins - 1))
    cosines[[0, -1]] /= 2
    cosines[:, 0] /= 2
    return lower, weight, cosines
