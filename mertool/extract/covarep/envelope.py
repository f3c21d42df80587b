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
BATCH = 64  # frames iterated on together
ROWS = 12  # frames in a product with cosines: few, so that each takes hardly more than its order
PRODUCT = 400  # up to this order a product with cosines is quicker than a Fourier transform

Parts = list[tuple[slice, slice]]  # frames, and the columns of coefficients that they need


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
    # Frames of about the same order share a product, which takes its largest order; see `_smooth`.
    usable = usable[np.argsort(-order[usable], kind="stable")]
    for start in range(0, len(usable), BATCH):
        rows = usable[start : start + BATCH]
        halves = _fold(log[rows])
        smooth = _smooth(halves, coarse[rows])
        k = np.arange(halves.shape[2])
        near = ends[rows, None]
        np.copyto(halves[0], smooth[0], where=k < near)
        # One bin less at this end, as in the original.
        np.copyto(halves[1], smooth[1], where=k < near - 1)
        out[rows] = np.exp(_unfold(_smooth(halves, order[rows])))
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
        low = np.take(envelope, lower, axis=1, mode="clip")  # quicker than with a check
        warped = np.take(envelope, lower + 1, axis=1, mode="clip")
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


def _smooth(target: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The iterations of the true envelope.

    Args:
        target: (2, B, L/4 + 1) log spectra as `_fold` gives them.
        order: (B,) cepstral order. Quickest if sorted from high to low: frames that are done leave
            their places to the last ones, which then add no columns to their new neighbours' part.

    Returns:
        (2, B, L/4 + 1) log envelopes, folded likewise.
    """
    half, highest = target.shape[2] - 1, order.max()
    k = _indices(half, highest if highest <= PRODUCT else 2 * half - 1)[:, None]
    order = order[:, None].copy()
    inside = (k <= order).astype(np.float64)
    window = (0.54 + 0.46 * np.cos(np.pi * k / np.maximum(order, 1))) * inside
    inside[0, :, 0] = 1  # the coefficient at L/2 counts neither as inside nor as outside
    bound = target - TOLERANCE * _edges(half)
    out, lifted, frame = np.empty_like(target), target.copy(), np.arange(len(order))
    cepstra = np.zeros(window.shape)
    # These are written over in every iteration: new arrays would cost more than the sums.
    spare, curves, below = np.empty_like(target), np.empty_like(target), np.empty(target.shape, "?")
    news = np.zeros(window.shape)
    for iteration in range(1, ITERATIONS + 1):
        n = len(frame)
        now, curve, cepstrum, new = lifted[:, :n], curves[:, :n], cepstra[:, :n], news[:, :n]
        parts = [
            (slice(a, min(a + ROWS, n)), slice(order[a : min(a + ROWS, n)].max() // 2 + 2))
            for a in range(0, n, ROWS)
        ]
        outside = _cepstrum(now, inside[:, :n], parts, spare[:, :n], new)
        within = np.einsum("pfk,pfk->f", new, new) - new[0, :, 0] ** 2 - new[0, :, 1] ** 2 / 2
        # The original's longer step: the more lies outside the window, the farther.
        step = 1 + np.sqrt(np.divide(outside, within, out=np.zeros(n), where=within > 0))
        new -= cepstrum
        new *= window[:, :n]
        new *= step[:, None]
        cepstrum += new
        _spectrum(cepstrum, parts, spare[:, :n], curve)
        done = ~np.greater(bound[:, :n], curve, out=below[:, :n]).any(axis=2).any(axis=0)
        done |= iteration == ITERATIONS
        np.maximum(now, curve, out=now)
        if done.any():
            out[:, frame[done]] = curve[:, done]
            left = np.flatnonzero(~done)
            if not len(left):
                break
            place = np.flatnonzero(done[: len(left)])
            mover = left[len(left) - len(place) :]
            for array in (lifted, bound, cepstra, window, inside):
                array[:, place] = array[:, mover]
            order[place], frame[place] = order[mover], frame[mover]
            frame = frame[: len(left)]
    return out


def _cepstrum(
    halves: np.ndarray, inside: np.ndarray, parts: Parts, spare: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """Cepstra of folded log spectra, up to a factor that `_spectrum` makes good.

    Args:
        halves: (2, B, L/4 + 1).
        inside: (2, B, C) 1 for the coefficients to be kept, else 0.
        parts: What to compute; nothing else is `inside`.
        spare: As `halves`; written over.
        out: (2, B, C) the coefficients of `_indices`; 0 where not `inside`.

    Returns:
        (B,) sum of squares of all coefficients that are not `inside`.
    """
    total = np.add(halves[0], halves[1], out=spare[0])
    difference = np.subtract(halves[0], halves[1], out=spare[1])
    if out.shape[2] > PRODUCT // 2 + 2:
        from scipy import fft

        out[0] = np.roll(fft.dct(total, type=1, norm="ortho"), 1, axis=1)
        out[1, :, 1:] = fft.dct(difference[:, :-1], type=3, norm="ortho")
        out *= np.sqrt(0.5)
        rest = out * (1 - inside)
        out *= inside
        return np.einsum("pfk,pfk->f", rest, rest)
    cosines = _cosines(halves.shape[2] - 1).transpose(0, 2, 1)
    for rows, columns in parts:
        np.matmul(spare[:, rows], cosines[:, :, columns], out=out[:, rows, columns])
    out *= inside
    # By Parseval: all energy (a product is quicker than einsum), less that of the coefficients.
    energy = (halves[:, :, None] @ halves[:, :, :, None]).sum(axis=(0, 2, 3))
    return np.maximum(energy - np.einsum("pfk,pfk->f", out, out), 0)


def _spectrum(cepstrum: np.ndarray, parts: Parts, spare: np.ndarray, out: np.ndarray) -> None:
    """Folded log spectra (2, B, L/4 + 1) of cepstra (2, B, C), both as in `_cepstrum`."""
    if cepstrum.shape[2] > PRODUCT // 2 + 2:
        from scipy import fft

        spare[0] = fft.dct(np.roll(cepstrum[0], -1, axis=1), type=1, norm="ortho")
        spare[1, :, :-1] = fft.dct(cepstrum[1, :, 1:], type=2, norm="ortho")
        spare[1, :, -1] = 0
        spare *= np.sqrt(0.5)
    else:
        cosines = _cosines(out.shape[2] - 1)
        for rows, columns in parts:
            np.matmul(cepstrum[:, rows, columns], cosines[:, columns], out=spare[:, rows])
    np.add(spare[0], spare[1], out=out[0])
    np.subtract(spare[0], spare[1], out=out[1])


def _indices(half: int, highest: int) -> np.ndarray:
    """(2, C) indices of cepstral coefficients: 2 half, 0, 2, .., and a filler, 1, 3, .."""
    k = np.arange(2 * (highest // 2 + 2)).reshape(-1, 2).T - 2
    k[:, 0] = 2 * half
    return k


def _fold(spectrum: np.ndarray) -> np.ndarray:
    """(2, B, L/4 + 1): the bins of (B, L/2 + 1) from 0 Hz upwards, and from fs / 2 downwards.

    A cosine of even order is the same on both halves and one of odd order differs by its sign only,
    so that a product with cosines need only run over one half. See `_edges` for the factor.
    """
    half = spectrum.shape[1] // 2
    return np.stack([spectrum[:, : half + 1], spectrum[:, : half - 1 : -1]]) * _edges(half)


def _unfold(halves: np.ndarray) -> np.ndarray:
    """The inverse of `_fold`."""
    halves = halves / _edges(halves.shape[2] - 1)
    return np.concatenate([halves[0], halves[1][:, -2::-1]], axis=1)


def _edges(half: int) -> np.ndarray:
    """(half + 1,) factor of a folded spectrum's bins.

    0 Hz and fs / 2 count once where all else counts twice, and fs / 4 stands in both halves. With
    this factor the transform is orthonormal: its inverse has the same cosines, and sums of squares
    are those of the coefficients.
    """
    factor = np.ones(half + 1)
    factor[[0, -1]] = np.sqrt(0.5)
    return factor


@lru_cache(maxsize=2)
def _cosines(half: int) -> np.ndarray:
    """(2, C, half + 1) orthonormal cosines of `_indices` over half the bins; the filler's are 0."""
    turn = _indices(half, PRODUCT)[:, :, None] * np.arange(half + 1) % (4 * half)
    cosines = np.cos(turn * (np.pi / (2 * half))) * _edges(half) / np.sqrt(half)
    cosines[0, :2] *= np.sqrt(0.5)
    cosines[1, 0] = 0
    return cosines


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
