"""Log-mel filter bank."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from mertool.errors import MertoolWarning
from mertool.types import Clip, Rows

RATE = 16000  # Hz
# Energies below this are taken for it, so that silence is finite: its logarithm is -18.42. Rounding
# to 16 bits leaves 1.2e-8 in each bin of 25 ms; what is weaker is the decoder's, not the voice's.
FLOOR = 1e-8
CHUNK = 512  # rows at a time: bounds the memory, whatever the clip's length


class LogMel:
    """Natural logarithm of the energies of mel bands.

    Row i is measured around the centre of its cell [i * hop, (i + 1) * hop); sound before the
    clip's start and after its end counts as zeros. There is a row for every cell whose centre lies
    within the sound, and always one.

    A row: Hann window, power spectrum, triangular filters of height 1 whose edges are equally
    spaced from 0 to 8000 Hz on the mel scale 2595 log10(1 + f / 700), natural logarithm. The
    spectrum is zero-padded until even the narrowest filter has a bin.

    Args:
        config: Settings.
        device: Ignored; this runs on the CPU.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `logmel`.

        Attributes:
            bands: Number of mel bands, the columns.
            hop_ms: Distance of two rows, milliseconds; a whole number of samples of 16 kHz.
            window_ms: Length of the window, milliseconds; a whole number of samples of 16 kHz.
            channel: "mean" of the channels, or "first".
        """

        bands: int = 80
        hop_ms: float = 10.0
        window_ms: float = 25.0
        channel: str = "mean"

        def __post_init__(self) -> None:
            if not 1 <= self.bands <= 512:
                raise ValueError(f"bands={self.bands} must lie between 1 and 512")
            for name, value in (("hop_ms", self.hop_ms), ("window_ms", self.window_ms)):
                if not 1 <= value <= 1000:
                    raise ValueError(f"{name}={value} must lie between 1 and 1000")
                if not (value * RATE / 1000).is_integer():
                    raise ValueError(f"{name}={value} must be a multiple of 0.0625")
            if self.channel not in ("mean", "first"):
                raise ValueError(f'channel={self.channel!r} must be "mean" or "first"')

    def __init__(self, config: Config, device: str = "cpu") -> None:
        from transformers.audio_utils import mel_filter_bank, mel_to_hertz, window_function

        self.config = config
        self.columns = [f"mel_{i:02d}" for i in range(config.bands)]
        self.info: dict[str, str | float] = {
            "model": "log-mel filter bank",
            "revision": "",
            "licence": "MIT",
            "rate": 1000 / config.hop_ms,
            "version": "1",
        }
        self._hop = round(config.hop_ms * RATE / 1000)
        self._window = window_function(round(config.window_ms * RATE / 1000), "hann")
        # The first filter is the narrowest. Wider than the distance of two bins, it has one inside.
        top = 2595 * math.log10(1 + RATE / 2 / 700)
        width = mel_to_hertz(2 * top / (config.bands + 1))  # Hz
        self._fft = 2 ** math.ceil(math.log2(max(len(self._window), RATE / width + 1)))
        # (FFT / 2 + 1, bands)
        self._mel = mel_filter_bank(
            self._fft // 2 + 1, config.bands, 0.0, RATE / 2, RATE, mel_scale="htk"
        )

    def extract(self, clip: Clip) -> Rows:
        """Measure one clip.

        Args:
            clip: A clip with sound.

        Returns:
            Rows of D = bands; none, with a warning, for a clip without sound.
        """
        from transformers.audio_utils import spectrogram

        sound = clip.audio(RATE, self.config.channel)
        if not len(sound):
            warnings.warn("no sound, no logmel rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns))
        hop, window = self._hop, len(self._window)
        count = max(1, math.ceil(len(sound) / hop - 0.5))
        centre = min(hop // 2, len(sound))  # of the first row; sound may be shorter than half a hop
        values = np.empty((count, len(self.columns)), np.float32)
        for first in range(0, count, CHUNK):
            last = min(first + CHUNK, count) - 1
            begin = first * hop + centre - window // 2
            stretch = _stretch(sound, begin, begin + (last - first) * hop + window)
            values[first : last + 1] = spectrogram(
                stretch,
                self._window,
                frame_length=window,
                hop_length=hop,
                fft_length=self._fft,
                power=2.0,
                center=False,
                mel_filters=self._mel,
                mel_floor=FLOOR,
                log_mel="log",
            ).T
        edges = np.minimum(np.arange(count + 1) * hop, len(sound)) / RATE
        return Rows(values, np.stack([edges[:-1], edges[1:]], axis=1))


def _stretch(sound: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Samples [begin, end) of a sound, zeros beyond its ends."""
    inside = sound[max(begin, 0) : max(end, 0)]
    return np.pad(inside, (max(-begin, 0), end - max(begin, 0) - len(inside)))
