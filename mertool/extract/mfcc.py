"""Mel-frequency cepstral coefficients, energy and pitch of speech."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from mertool.errors import MertoolWarning
from mertool.types import Clip, Rows

RATE = 16000  # Hz
WINDOW = 400  # samples, 25 ms
FFT = 512
MELS = 26
CEPSTRA = 13
PREEMPHASIS = 0.97
# Energies below this are taken for it. One step of 16-bit sound is 1e-9 in power, so that only
# digital silence and sound of a few steps reach it.
FLOOR = 1e-10
# Pitch: Boersma's settings but for the octave cost, which makes the shortest of equally good
# periods win: his 0.01 is less than what the half-sample grid takes off the peaks of a pulse train.
VOICING_THRESHOLD = 0.45
SILENCE_THRESHOLD = 0.03
OCTAVE_COST = 0.03
CHUNK = 512  # frames at a time: bounds the memory, whatever the clip's length


class Mfcc:
    """13 MFCC with deltas and delta-deltas, log energy, F0 and voicing: 42 columns.

    Row i is measured around the centre of its cell [i * hop, (i + 1) * hop); sound before the
    clip's start and after its end counts as zeros. There is a row for every cell whose centre lies
    within the sound, and always one.

    MFCC: pre-emphasis 0.97, Hamming window of 25 ms, power spectrum, 26 triangular mel filters from
    0 to 8000 Hz, natural logarithm, orthonormal DCT-II, coefficients 0 to 12 (Davis and Mermelstein
    1980). Deltas: regression over two frames on either side, the ends repeated (Young et al., The
    HTK Book, "Delta, Acceleration and Third Differential Coefficients"). Log energy: natural
    logarithm of the mean square of the 25 ms. F0 in Hz, 0 where unvoiced: see `pitch`.

    Args:
        config: Settings.
        device: Ignored; this runs on the CPU.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `mfcc`.

        Attributes:
            channel: "mean" of the channels, or "first".
            hop_ms: Distance of two rows, milliseconds.
            f0_min: Lowest pitch looked for, Hz; sets the pitch window, three of its periods.
            f0_max: Highest pitch looked for, Hz.
        """

        channel: str = "mean"
        hop_ms: float = 10.0
        f0_min: float = 60.0
        f0_max: float = 400.0

        def __post_init__(self) -> None:
            if self.channel not in ("mean", "first"):
                raise ValueError(f'channel={self.channel!r} must be "mean" or "first"')
            if not 1 <= self.hop_ms <= 100:
                raise ValueError(f"hop_ms={self.hop_ms} must lie between 1 and 100")
            if not 20 <= self.f0_min:
                raise ValueError(f"f0_min={self.f0_min} must be at least 20")
            if not self.f0_min < self.f0_max <= 2000:
                raise ValueError(f"f0_max={self.f0_max} must lie between f0_min and 2000")

    def __init__(self, config: Config, device: str = "cpu") -> None:
        from transformers.audio_utils import mel_filter_bank

        self.config = config
        names = [f"mfcc_{i:02d}" for i in range(CEPSTRA)]
        deltas = [f"{prefix}_{name}" for prefix in ("delta", "delta2") for name in names]
        self.columns = names + deltas + ["log_energy", "f0", "voiced"]
        self.info: dict[str, str | float] = {
            "model": "MFCC, log energy and autocorrelation pitch",
            "revision": "",
            "licence": "MIT",
            "rate": 1000 / config.hop_ms,
            "version": "1",
        }
        # (FFT / 2 + 1, MELS), triangles of height 1.
        self._mel = mel_filter_bank(FFT // 2 + 1, MELS, 0.0, RATE / 2, RATE, mel_scale="htk")

    def extract(self, clip: Clip) -> Rows:
        """Measure one clip.

        Args:
            clip: A clip with sound.

        Returns:
            Rows of D = 42; none, with a warning, for a clip without sound.
        """
        sound = clip.audio(RATE, self.config.channel)
        if not len(sound):
            warnings.warn("no sound, no mfcc rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns))
        hop = RATE * self.config.hop_ms / 1000
        count = max(1, int(np.ceil(len(sound) / hop - 0.5)))
        values = np.empty((count, len(self.columns)), np.float32)
        peak = float(max(sound.max(), -sound.min()))
        pitch_window = round(3 * RATE / self.config.f0_min)
        for first in range(0, count, CHUNK):
            rows = slice(first, min(first + CHUNK, count))
            centres = np.floor((np.arange(rows.start, rows.stop) + 0.5) * hop).astype(int)
            centres = np.minimum(centres, len(sound))  # sound shorter than half a hop
            frames = cut(sound, centres, WINDOW)
            values[rows, :CEPSTRA] = cepstra(frames, self._mel)
            values[rows, -3] = np.log(np.maximum((frames**2).mean(axis=1), FLOOR))
            frames = cut(sound, centres, pitch_window)
            values[rows, -2] = pitch(frames, self.config.f0_min, self.config.f0_max, peak)
        values[:, CEPSTRA : 2 * CEPSTRA] = delta(values[:, :CEPSTRA])
        values[:, 2 * CEPSTRA : 3 * CEPSTRA] = delta(values[:, CEPSTRA : 2 * CEPSTRA])
        values[:, -1] = values[:, -2] > 0
        edges = np.minimum(np.arange(count + 1) * hop, len(sound)) / RATE
        return Rows(values, np.stack([edges[:-1], edges[1:]], axis=1))


def cut(sound: np.ndarray, centres: np.ndarray, length: int) -> np.ndarray:
    """Frames around sample positions, zeros beyond the ends.

    Args:
        sound: (S,) samples.
        centres: (T,) ascending sample positions.
        length: Samples of a frame.

    Returns:
        (T, length) float64; frame i starts at centres[i] - length // 2.
    """
    begin = int(centres[0]) - length // 2
    end = int(centres[-1]) - length // 2 + length
    stretch = np.zeros(end - begin)
    left, right = max(begin, 0), min(end, len(sound))
    stretch[left - begin : right - begin] = sound[left:right]
    windows = np.lib.stride_tricks.sliding_window_view(stretch, length)
    return windows[centres - centres[0]]


def cepstra(frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients.

    Args:
        frames: (T, WINDOW) samples.
        mel: (FFT / 2 + 1, MELS) filter bank.

    Returns:
        (T, CEPSTRA).
    """
    from scipy import fft

    # The sample before a frame's first is taken to equal it, as in HTK.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    emphasised = (frames - PREEMPHASIS * before) * np.hamming(WINDOW)
    power = np.abs(fft.rfft(emphasised, FFT, axis=1)) ** 2
    return fft.dct(np.log(np.maximum(power @ mel, FLOOR)), norm="ortho", axis=1)[:, :CEPSTRA]


def delta(values: np.ndarray) -> np.ndarray:
    """Slope per row: sum_k k (c[t+k] - c[t-k]) / (2 sum_k k^2), k = 1, 2; the ends repeated.

    Args:
        values: (T, D).

    Returns:
        (T, D).
    """
    count = len(values)
    padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    near = padded[3 : 3 + count] - padded[1 : 1 + count]
    far = padded[4 : 4 + count] - padded[:count]
    return (near + 2 * far) / 10


def pitch(frames: np.ndarray, f0_min: float, f0_max: float, peak: float) -> np.ndarray:
    """Fundamental frequency from the normalised autocorrelation.

    P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
    harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17, 1993: the autocorrelation of
    a Hann-windowed frame is divided by that of the window; the highest peak between the longest and
    the shortest period, less a small cost for long periods, gives the pitch if it exceeds the
    strength of the unvoiced candidate. Simpler than his: peaks are interpolated by a parabola on a
    grid of half samples, and each frame decides for itself (no path over frames).

    Args:
        frames: (T, three longest periods) samples at RATE.
        f0_min: Lowest pitch, Hz.
        f0_max: Highest pitch, Hz.
        peak: The largest absolute sample of the clip.

    Returns:
        (T,) Hz, 0 where unvoiced.
    """
    from scipy import fft

    length = frames.shape[1]
    grid = 2 * RATE  # lags per second
    shortest, longest = int(grid / f0_max), int(np.ceil(grid / f0_min))
    size = fft.next_fast_len(length + longest // 2 + 2, real=True)
    window = np.hanning(length + 2)[1:-1]

    def correlate(x: np.ndarray) -> np.ndarray:
        """Autocorrelation at every half sample: a longer inverse transform interpolates."""
        power = np.abs(fft.rfft(x, size, axis=-1)) ** 2
        return fft.irfft(power, 2 * size, axis=-1)[..., : longest + 2]

    frames = frames - frames.mean(axis=1, keepdims=True)
    loudest = np.abs(frames).max(axis=1)
    r = correlate(frames * window)
    r /= np.maximum(r[:, :1], np.finfo(float).tiny)  # tiny: an all-zero frame
    reference = correlate(window)
    r /= reference / reference[0]

    left, middle, right = (r[:, shortest - 1 + k : longest + k] for k in range(3))
    is_peak = (middle > left) & (middle >= right)
    curvature = np.where(is_peak, left - 2 * middle + right, -1.0)
    shift = np.where(is_peak, 0.5 * (left - right) / curvature, 0.0)
    height = middle - 0.25 * (left - right) * shift
    frequency = grid / (np.arange(shortest, longest + 1) + shift)
    allowed = is_peak & (frequency >= f0_min) & (frequency <= f0_max)
    strength = np.where(allowed, height - OCTAVE_COST * np.log2(f0_min / frequency), -np.inf)
    best = strength.argmax(axis=1)[:, None]
    loudness = loudest / max(peak, np.finfo(float).tiny)
    unvoiced = VOICING_THRESHOLD + np.maximum(
        0, 2 - loudness * (1 + VOICING_THRESHOLD) / SILENCE_THRESHOLD
    )
    voiced = np.take_along_axis(strength, best, axis=1)[:, 0] > unvoiced
    return np.where(voiced, np.take_along_axis(frequency, best, axis=1)[:, 0], 0.0)
