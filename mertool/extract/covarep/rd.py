"""Rd, the shape of the glottal pulse, by mean squared phase.

G. Degottex, A. Roebel, X. Rodet, "Phase minimization for glottal model estimation", IEEE TASLP
19(5), 2011: at the right Rd, what the Liljencrants-Fant (LF) model leaves of a frame's phases is
minimum phase. The model: G. Fant, J. Liljencrants, Q. Lin, "A four-parameter model of glottal
flow", STL-QPSR 26(4), 1985, its parameters from Rd: G. Fant, "The LF-model revisited", STL-QPSR
36(2-3), 1995.

The model enters the mean squared phase through seven numbers that depend on Rd and on the number
of harmonics only: they are read from tables, and thousands of frames are searched at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mertool.extract.covarep.harmonics import Harmonics
from mertool.extract.covarep.minimise import minimise

RANGE = (0.3, 2.5)  # of Rd
TOLERANCE = 0.01  # of Rd
EVALUATIONS = 32  # at most, per frame
ORDER = 8  # harmonics whose phases count
POINTS = 6  # nodes of an interpolation
NODES, FEW_NODES = 1024, 512  # of a table, and of one for more than MANY harmonics
MANY = 1024
FEWEST = 5  # harmonics that fill nine points of a spectrum with their mirror images
CELLS = 1 << 15  # model values computed at a time
BATCH = 1024  # frames searched at a time


def lf_spectrum(rd: np.ndarray, harmonic: np.ndarray) -> np.ndarray:
    """Spectrum of a pulse of the LF model of the glottal flow derivative.

    Fant et al. (1985), in the closed form of B. Doval, C. d'Alessandro, "Spectral correlates of
    glottal waveform models", ICASSP 1997.

    Args:
        rd: (R,) shape parameters, about 0.3 (tense) to 2.5 (lax).
        harmonic: (H,) frequencies as multiples of F0, above 0.

    Returns:
        (R, H) complex; time runs from the pulse's beginning in periods, excitation amplitude 1.
    """
    rd = np.asarray(rd, dtype=np.float64)[:, None]
    ta = (4.8 * rd - 1) / 100
    rk = (22.4 + 11.8 * rd) / 100
    tp = 2 * (0.11 * rd / (0.5 + 1.2 * rk) - ta) / rk
    te = tp * (1 + rk)
    closed = 1 - te
    w = np.pi / tp
    sine, cosine = np.sin(w * te), np.cos(w * te)

    # The return phase's decay: the non-zero root of 1 - exp(-e * closed) = e * ta. The function is
    # concave, so Newton's steps from above fall onto the larger root.
    e = 1 / ta
    for _ in range(20):
        decay = np.exp(-e * closed)
        e = e - (1 - decay - e * ta) / (closed * decay - ta)
    decay = np.exp(-e * closed)
    area = (1 - decay) / (e * e * ta) - closed * decay / (e * ta)  # of the return phase

    # The growth of the open phase, such that flow ends where it began.
    low, high = np.zeros_like(rd), np.full_like(rd, 1e3)
    for _ in range(64):
        a = (low + high) / 2
        net = (a * a + w * w) * sine * area + w * np.exp(-a * te) + a * sine - w * cosine
        low, high = np.where(net > 0, a, low), np.where(net > 0, high, a)
    a = (low + high) / 2

    z = 2j * np.pi * np.asarray(harmonic, dtype=np.float64)
    shift = np.exp(-z * te)
    az = a - z
    opening = w + np.exp(a * te) * shift * (az * sine - w * cosine)
    opening /= -np.exp(a * te) * sine * (az * az + w * w)
    # exp(-z * closed) = exp(-z) / shift
    closing = e * (1 - e * ta) * (1 - np.exp(-z) * shift.conj()) - e * ta * z
    closing *= shift / (e * ta * z * (e + z))
    return opening + closing


def rd_msp(block: Harmonics, fs: float, mode: str = "compat") -> tuple[np.ndarray, np.ndarray]:
    """Rd of every frame, with a confidence.

    The LF model is divided out of the harmonics, and what remains by its own minimum phase: Rd is
    where the differences of the phases left at neighbouring harmonics have the smallest mean
    square, as a bounded search finds it: a local minimum.

    Args:
        block: Frames.
        fs: Hz.
        mode: "published" as in the paper; "compat" as the original does since its version 1.4.2:
            it conjugates the harmonics by mistake, and so takes the model's phases with the wrong
            sign.

    Returns:
        (F,) Rd in [0.3, 2.5]; (F,) confidence, 1 where all phases fit, 0 at worst. Where a harmonic
        is zero or a frame has fewer than five, Rd means nothing and the confidence is NaN.
    """
    search = RdSearch(fs, mode)
    search.add(block)
    return search.finish()


class RdSearch:
    """`rd_msp` of many blocks: seven numbers are kept of each frame, and searched with at the end.

    Args:
        fs: Hz.
        mode: As for `rd_msp`.
    """

    def __init__(self, fs: float, mode: str = "compat") -> None:
        self._fs, self._conjugate = fs, mode == "compat"
        self._count = [np.empty(0, np.int64)]
        self._observed = [np.empty((0, ORDER - 1))]

    def add(self, block: Harmonics) -> None:
        """Take the next frames."""
        # Harmonics lie at multiples of their median distance: the last one may lie above fs / 2.
        inside = np.floor(self._fs / 2 / block.spacing).astype(np.int64)
        count = np.minimum(block.count, inside)
        if not len(count):
            return
        kinds, kind = np.unique(np.maximum(count, FEWEST), return_inverse=True)
        matrices = np.zeros((len(kinds), kinds[-1] - 1, ORDER - 1))  # of fewer harmonics: zeros
        for matrix, k in zip(matrices, kinds.tolist(), strict=True):
            matrix[: k - 1] = _minimum_phase(k)
        amplitude = block.amplitude[:, 1 : kinds[-1]]
        within = np.arange(1, amplitude.shape[1] + 1) < count[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            log_magnitude = np.log(np.where(within, amplitude, 1.0))
            minimum = np.einsum("fk,fkd->fd", log_magnitude, matrices[kind, : within.shape[1]])
            observed = _differences(block.phase[:, 1:], kinds[kind]) - minimum
        observed[~np.isfinite(observed) | (count < FEWEST)[:, None]] = np.nan
        self._count.append(kinds[kind])
        self._observed.append(observed)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """(F,) Rd and (F,) confidence of all frames, as `rd_msp` returns them."""
        count, observed = np.concatenate(self._count), np.concatenate(self._observed)
        rd, error = np.empty(len(count)), np.empty(len(count))
        for nodes, of in ((NODES, count <= MANY), (FEW_NODES, count > MANY)):
            rows = np.flatnonzero(of)
            for a in range(0, len(rows), BATCH):
                batch = rows[a : a + BATCH]
                rd[batch], error[batch] = self._search(observed[batch], count[batch], nodes)
        return rd, 1 - np.sqrt(error) / np.pi

    def _search(
        self, observed: np.ndarray, count: np.ndarray, nodes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rd and mean square of frames whose model is read at so many nodes, (F,) each."""
        kinds, kind = np.unique(count, return_inverse=True)
        tables = np.stack([_table(k, nodes, self._conjugate) for k in kinds.tolist()])

        def mean_square(rd: np.ndarray, frame: np.ndarray) -> np.ndarray:
            d = observed[frame] - _read(tables, kind[frame], rd)
            d -= 2 * np.pi * np.rint(d / (2 * np.pi))
            return np.einsum("fi,fi->f", d, d) / (ORDER - 1)

        return minimise(mean_square, len(count), *RANGE, TOLERANCE, EVALUATIONS)


def _differences(phase: np.ndarray, harmonics: np.ndarray | int) -> np.ndarray:
    """(P[i+1] - P[i]) - (P[1] - P[0]), i = 1 to 7, of the phases P of harmonics 0 to 8.

    Args:
        phase: (F, >= min(8, K)) rad, of harmonics 1, 2, ...
        harmonics: K, or (F,) that of each frame. The spectrum of 2 K points is real at 0 and at K,
            and mirrored at K.

    Returns:
        (F, 7) rad, not wrapped.
    """
    i, k = np.arange(1, ORDER + 1), np.atleast_1d(harmonics)[:, None]
    sign = np.sign(k - i)
    at = np.where(sign > 0, i, 2 * k - i) - 1
    p = sign * phase[np.arange(len(phase))[:, None], np.minimum(at, phase.shape[1] - 1)]
    return p[:, 1:] - p[:, :-1] - p[:, :1]


@lru_cache(maxsize=512)
def _minimum_phase(harmonics: int) -> np.ndarray:
    """(K - 1, 7) matrix from log magnitudes to the `_differences` of their minimum phase.

    With the cepstrum c of the log magnitude L, the minimum phase is
    -2 sum_m c[m] sin(pi m i / K), m = 1 to K - 1; summing over m first leaves, for each L[k],
    cotangents of pi j / (2 K) at the odd ones among j = i + k and i - k.
    """
    i = np.arange(ORDER + 1)
    j = i + np.arange(harmonics + 1)[:, None] * np.array([1, -1])[:, None, None]
    odd = j % 2 == 1
    cotangent = np.where(odd, 1 / np.tan(np.pi * np.where(odd, j, 1) / (2 * harmonics)), 0.0)
    matrix = -cotangent.sum(axis=0) / harmonics
    matrix[[0, -1]] /= 2
    # Magnitudes 0 and K count as their neighbours'.
    matrix[1] += matrix[0]
    matrix[-2] += matrix[-1]
    matrix = matrix[1:-1]
    return matrix[:, 2:] - matrix[:, 1:-1] - matrix[:, 1:2]


@lru_cache(maxsize=512)
def _table(harmonics: int, nodes: int, conjugate: bool) -> np.ndarray:
    """What the LF model puts into the mean square, at Rd equally spaced in log(Rd).

    That is the `_differences` of its phases less those of the minimum phase of its magnitudes.

    Args:
        harmonics: K.
        nodes: Within the range of Rd; as many more as `_read` needs lie outside.
        conjugate: Of the conjugate spectrum.

    Returns:
        (nodes + POINTS, 7) rad, without jumps.
    """
    if harmonics <= MANY:  # shared by the tables of all K up to the next power of two
        parts = [_shared_model(1 << (harmonics - 1).bit_length(), nodes)]
    else:
        parts = _model(harmonics, nodes)
    minimum, phase = [], []
    for log_magnitude, angle in parts:
        minimum.append(log_magnitude[:, : harmonics - 1] @ _minimum_phase(harmonics))
        phase.append(angle)
    phases = np.unwrap(np.concatenate(phase), axis=0) * (-1 if conjugate else 1)
    return _differences(phases, harmonics) - np.concatenate(minimum)


def _model(harmonics: int, nodes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The LF model at the nodes of a table, some nodes at a time.

    Yields:
        (N, K) log magnitudes of harmonics 1 to K, (N, 8) phases in rad of harmonics 1 to 8.
    """
    log_low, log_high = np.log(RANGE)
    at = np.arange(nodes + POINTS) - POINTS // 2
    rd = np.exp(log_low + (log_high - log_low) / (nodes - 1) * at)
    size = max(1, CELLS // harmonics)
    for a in range(0, len(rd), size):
        g = lf_spectrum(rd[a : a + size], np.arange(1, harmonics + 1))
        yield np.log(np.abs(g)), np.angle(g[:, :ORDER])


@lru_cache(maxsize=8)
def _shared_model(harmonics: int, nodes: int) -> list[np.ndarray]:
    """All that `_model` yields, in two arrays."""
    return [np.concatenate(parts) for parts in zip(*_model(harmonics, nodes), strict=True)]


def _read(tables: np.ndarray, table: np.ndarray, rd: np.ndarray) -> np.ndarray:
    """Interpolate tables: the polynomial through the three nodes on either side.

    Args:
        tables: (U, N, 7) of `_table`.
        table: (F,) which one.
        rd: (F,).

    Returns:
        (F, 7).
    """
    count = tables.shape[1]
    at = np.log(rd / RANGE[0]) * ((count - POINTS - 1) / np.log(RANGE[1] / RANGE[0]))
    lower = np.floor(at)
    powers = np.vander(at - lower - 0.5, POINTS, increasing=True)
    first = table * count + lower.astype(np.int64) + 1
    nodes = sliding_window_view(tables.reshape(-1), POINTS * (ORDER - 1))[first * (ORDER - 1)]
    return np.einsum("fn,fnd->fd", powers @ _LAGRANGE, nodes.reshape(-1, POINTS, ORDER - 1))


# Weights of the nodes -2.5, -1.5 .. 2.5 as polynomials of the place between them.
_LAGRANGE = np.linalg.inv(np.vander(np.arange(POINTS) - (POINTS - 1) / 2, increasing=True))
