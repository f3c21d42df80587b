"""H1-H2, the difference of the first two harmonics of the glottal flow's derivative.

H. M. Hanson, "Glottal characteristics of female speakers: acoustic correlates", JASA 101(1),
1997.

The original takes a spectrum with a bin every hertz, thins out the peaks of all of it, and reads
the two that lie nearest to F0 and 2 F0. Here only the bins of the first harmonics are computed;
what the others could change is followed through the thinning, and where it could change the
result, the whole spectrum is computed.
"""

from __future__ import annotations

import numpy as np

from mertool.extract.covarep.signals import cosines, half_up

HARMONICS = 4.5  # multiples of F0 up to which the spectrum is computed at first
FEWEST = 5  # peaks of the two-sided spectrum; with fewer the original gives 0


def fourier(length: int, bins: int, points: int) -> np.ndarray:
    """The first rows and columns of the discrete Fourier transform of `points`, (length, bins).

    By doubling, which takes a tenth of the time of as many exponentials.
    """
    out = np.ones((length, bins), np.complex128)
    done = 1
    while done < length:
        step = min(done, length - done)
        row = np.exp(-2j * np.pi / points * (done * np.arange(bins) % points))
        np.multiply(out[:step], row, out=out[done : done + step])
        done += step
    return out


def h1h2(derivative: np.ndarray, gci: np.ndarray, period: np.ndarray, fs: float) -> np.ndarray:
    """H1-H2 of three periods around each GCI (Hanson 1997).

    Args:
        derivative: (S,) derivative of the glottal flow.
        gci: (F,) samples; frames end where the signal does.
        period: (F,) in samples, below fs/15.
        fs: Sampling rate in Hz.

    Returns:
        (F,) in dB; 0 where the spectrum has fewer than five peaks.
    """
    reach = half_up(1.5 * period)
    f0 = fs / period
    out = np.full(len(gci), np.nan)
    inside = np.flatnonzero((gci >= reach) & (gci + reach < len(derivative)))
    if len(inside):
        power = low_spectrum(derivative, gci[inside], reach[inside], f0.max(), fs)
        out[inside] = from_low(power, f0[inside])
    for row in np.flatnonzero(np.isnan(out)):
        start = max(gci[row] - reach[row], 0)
        out[row] = from_all(derivative[start : gci[row] + reach[row] + 1], f0[row], fs)
    return out


def low_spectrum(
    derivative: np.ndarray, gci: np.ndarray, reach: np.ndarray, f0: float, fs: float
) -> np.ndarray:
    """Power spectra of Hamming-windowed frames from `gci` - `reach` to `gci` + `reach`.

    The even and the odd part of a frame have a real and an imaginary spectrum: half the products.

    Returns:
        (F, B) at 0, 1, .. Hz up to `HARMONICS` times `f0`.
    """
    n = np.arange(reach.max() + 1)
    window = 0.54 + 0.46 * cosines(np.pi / reach, len(n))
    window[n > reach[:, None]] = 0
    window[:, 0] *= 0.5  # the centre stands in both halves
    after = derivative[np.minimum(gci[:, None] + n, len(derivative) - 1)]
    before = derivative[np.maximum(gci[:, None] - n, 0)]
    basis = fourier(len(n), int(HARMONICS * f0) + 1, int(fs))
    even = ((after + before) * window) @ basis.real.copy()
    odd = ((after - before) * window) @ basis.imag.copy()
    even *= even
    odd *= odd
    even += odd
    return even


def from_low(power: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """H1-H2 from the beginnings of spectra.

    Args:
        power: (F, B) at 0, 1, .. Hz.
        f0: (F,) Hz.

    Returns:
        (F,) in dB, NaN where bins that are not given could change it.
    """
    rise = np.diff(power, axis=1)
    peak = np.zeros(power.shape, bool)
    peak[:, 1:-1] = (rise[:, :-1] > 0) & (rise[:, 1:] < 0)
    peak[:, -1] = True  # stands for the unknown peaks from there on
    row, at = np.nonzero(peak)
    unknown = at == power.shape[1] - 1
    height = power[row, at]
    while True:
        close = (row[1:] == row[:-1]) & (at[1:] - at[:-1] <= f0[row[1:]] / 2)
        known = close & ~unknown[1:]
        lower = height[:-1] < height[1:]
        dead = np.zeros(len(row), bool)
        dead[:-1] |= known & lower
        dead[1:] |= known & ~lower
        # A peak that an unknown one may or may not take away belongs to the unknown.
        doubt = close & unknown[1:] & ~dead[:-1]
        unknown[:-1] |= doubt
        dead[1:] |= doubt
        if not dead.any():
            break
        row, at, height, unknown = (v[~dead] for v in (row, at, height, unknown))
    count = np.bincount(row)
    column = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    table = np.full((len(power), count.max()), np.inf)
    table[row, column] = np.where(unknown, np.inf, at)
    # As many peaks lie in the mirrored half, and with plateaus the rules differ.
    sure = (2 * (count - 1) >= FEWEST) & (rise != 0).all(axis=1)
    level = np.empty((len(power), 2))
    for h in (1, 2):
        # The original takes the bin's number from 1 for its frequency: a hertz too high.
        away = np.abs(table + 1 - h * f0[:, None])
        nearest = np.argmin(away, axis=1)[:, None]
        sure &= np.take_along_axis(away, nearest, 1)[:, 0] < at[unknown] + 1 - h * f0
        where = np.take_along_axis(table, nearest, 1)
        where[~np.isfinite(where)] = 0
        level[:, h - 1] = np.take_along_axis(power, where.astype(np.int64), 1)[:, 0]
    return np.where(sure, 10 * np.log10(level[:, 0] / level[:, 1]), np.nan)


def from_all(frame: np.ndarray, f0: float, fs: float) -> float:
    """H1-H2 of one frame from its whole two-sided spectrum, as the original has it.

    Args:
        frame: (L,) samples, not windowed.
        f0: Hz.
        fs: Sampling rate in Hz.
    """
    points = int(fs)
    half = np.fft.rfft(frame * np.hamming(len(frame)), points)
    level = 20 * np.log10(np.abs(half))
    level = np.concatenate([level, level[1 : (points + 1) // 2][::-1]])
    at = peaks(level, f0 / 2)
    if len(at) < FEWEST:
        return 0.0
    one, two = (at[np.argmin(np.abs(at + 1 - h * f0))] for h in (1, 2))
    return float(level[one] - level[two])


def peaks(x: np.ndarray, width: float) -> np.ndarray:
    """Local maxima, the centre of a plateau, thinned until none lie within `width`.

    In every round each pair of neighbours at most `width` apart loses its lower one, the second of
    equals.

    Args:
        x: (S,) values.
        width: Samples.

    Returns:
        (P,) indices.
    """
    turn = np.flatnonzero(~(x[1:] == x[:-1]))  # the last sample of every run of equal ones
    rise = x[turn + 1] > x[turn]
    fall = x[turn + 1] < x[turn]
    top = np.flatnonzero(rise[:-1] & fall[1:])
    at = (turn[top] + 1 + turn[top + 1]) / 2
    height = x[turn[top + 1]]
    while True:
        close = np.diff(at) <= width
        lower = height[:-1] < height[1:]
        dead = np.zeros(len(at), bool)
        dead[:-1] |= close & lower
        dead[1:] |= close & ~lower
        if not dead.any():
            return at.astype(np.int64)
        at, height = at[~dead], height[~dead]
