"""How loud the voice is over time, to tell whose mouth moves with it."""

from __future__ import annotations

import numpy as np

from mertool.types import Clip

STEP = 0.01  # seconds: a syllable takes some 0.2 s
# Hz. Below 2 kHz lie the pitch and the strong formants of a voice; hiss lies above. An hour of
# sound takes 58 MB at this rate.
_RATE = 4000
# Seconds. Lips move some 0.1 s before the sound they shape (0.1 to 0.3 s in Chandrasekaran et al.
# 2009), and picture and sound of a file may be a few frames apart: so each movement is compared
# with the sound from so much before it to so much after it.
_AROUND = 0.1
# dB below the loudest. In levels, a laugh or a slammed door does not outweigh all the rest; but
# differences below the voice's range must not count.
_RANGE = 60.0


# Seconds: within each syllable lips open and close with the sound. Slower changes, such as pauses,
# are the same for all who talk at the same time.
_SYLLABLE = 0.12
# Seconds that the sound is taken later than the picture, and half the window of its level.
_LATER, _HALF = 0.04, 0.06


def energy(clip: Clip) -> tuple[float, np.ndarray]:
    """The energy of a clip's sound.

    Returns:
        (STEP, (n,) float64): value i is the root mean square, about its mean (so that neither a
        constant offset nor a slow rumble counts), of the sound from i to i + 1 steps after the
        clip's start. Empty without sound.

    Raises:
        MediaError: The sound cannot be decoded.
    """
    size = round(_RATE * STEP)
    sound = clip.audio(_RATE)
    blocks = sound[: len(sound) // size * size].reshape(-1, size)
    power = np.einsum("ij,ij->i", blocks, blocks, dtype=np.float64) / size
    return STEP, np.sqrt(np.maximum(power - blocks.mean(axis=1, dtype=np.float64) ** 2, 0))


def excess(step: float, rms: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How much louder than on the whole it is around given stretches of time.

    Args:
        step: Seconds per value of `rms`.
        rms: (n,) as from `energy`; after its end it is silent.
        start: (M,) starts of the stretches, seconds.
        end: (M,) their ends, each after its start.

    Returns:
        (M,) dB: the mean level from 0.1 s before each stretch to 0.1 s after it, less its mean
        from the first start to the last end. 0 throughout where the sound is even or silent.
    """
    if not len(start) or not rms.any():
        return np.zeros(len(start))
    # Windows are cut where the clip begins and where both picture and sound have ended.
    last = max(len(rms) * step, end.max())
    level = _mean(step, rms, np.maximum(start - _AROUND, 0), np.minimum(end + _AROUND, last))
    whole = _mean(step, rms, start.min(), end.max())
    return np.round(level - whole, 6)  # an even sound gives no rounding errors, but 0


def agreement(step: float, rms: np.ndarray, times: np.ndarray, mouth: np.ndarray) -> float:
    """How well a mouth opens and closes with the syllables of a voice.

    Args:
        step: Seconds per value of `rms`.
        rms: (n,) as from `energy`.
        times: (M,) increasing times of frames, seconds.
        mouth: (M,) opening of the mouth in them.

    Returns:
        Sum of products of opening and level (dB), each less its mean over the frames within 0.12 s
        (within a frame and a half, if that is more); 0 for a single frame or in silence.
    """
    if len(times) < 2 or not rms.any():
        return 0.0
    around = times + _LATER
    level = np.round(_mean(step, rms, np.maximum(around - _HALF, 0), around + _HALF), 6)
    reach = max(_SYLLABLE, 1.5 * float(np.median(np.diff(times)))) + 1e-6
    a = np.searchsorted(times, times - reach)
    b = np.searchsorted(times, times + reach, side="right")

    def swift(x: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(x)])
        return np.round(x - (total[b] - total[a]) / (b - a), 9)  # what is even gives 0

    return float(swift(mouth) @ swift(level))


def _mean(step: float, rms: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean level between times `a` and `b`: dB, 0 = the voice's range below the loudest."""
    above = _RANGE + 20 * np.log10(np.maximum(rms / rms.max(), 10 ** (-_RANGE / 20)))
    # The mean over a stretch is the difference of two sums up to its ends.
    total = np.concatenate([[0.0], np.cumsum(above) * step])
    edges = np.arange(len(total)) * step
    return (np.interp(b, edges, total) - np.interp(a, edges, total)) / (b - a)
