"""The extractors `covarep` and `covarep5`: COVAREP's features of a clip's sound."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mertool.errors import MertoolWarning
from mertool.extract.covarep.features import COLUMNS, MODES, RATE, covarep, row_times
from mertool.files import sha256
from mertool.types import Clip, Rows

FIVE = (1, 3, 6, 25, 60)  # VUV, QOQ, MDQ, MCEP_14, HMPDM_24


class Covarep:
    """COVAREP's 74 features, 100 rows per second.

    Row k is measured at sample 79 + 160 k of the 16 kHz sound; its cell is that +- 5 ms.

    Args:
        config: Settings.
        device: Ignored; this runs on the CPU.

    Raises:
        DataError: The creak detector's weights cannot be read.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `covarep` and `covarep5`.

        Attributes:
            channel: "mean" of the channels, or "first", as the original.
            mode: "compat" = as the original; "published" = Rd with the phase's published sign.
            creak_weights: A .npz file with the creak detector's W1, b1, W2, b2, min and max;
                without it the column creak is 0.
        """

        channel: str = "mean"
        mode: str = "compat"
        creak_weights: str = ""

        def __post_init__(self) -> None:
            if self.channel not in ("mean", "first"):
                raise ValueError(f'channel={self.channel!r} must be "mean" or "first"')
            if self.mode not in MODES:
                raise ValueError(f'mode={self.mode!r} must be "compat" or "published"')

    _kept: tuple[int, ...] = tuple(range(len(COLUMNS)))

    def __init__(self, config: Config, device: str = "cpu") -> None:
        from mertool.extract.covarep.creak import read_weights

        self.config = config
        self.columns = [COLUMNS[i] for i in self._kept]
        self._weights = None
        creak = "0: no weights were given (audio.creak_weights)"
        if config.creak_weights:
            path = Path(config.creak_weights).expanduser()
            self._weights = read_weights(path)
            creak = f"by weights with sha256 {sha256(path)}"
        self.info: dict[str, str | float] = {
            "model": f"COVAREP's features, {config.mode} mode",
            "revision": "",
            "licence": "MIT",
            "rate": 100.0,
            "version": "1",
            "creak": creak,
        }

    def extract(self, clip: Clip) -> Rows:
        """Measure one clip.

        Args:
            clip: A clip with sound.

        Returns:
            Rows of D = 74 (5 for `covarep5`); none, with a warning, for a clip without sound.
        """
        sound = clip.audio(RATE, self.config.channel)
        if not len(sound):
            warnings.warn("no sound, no covarep rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns))
        times = row_times(len(sound))
        values = covarep(sound, RATE, self.config.mode, self._weights, overwrite_x=True)
        values = values.astype(np.float32)
        if not values[:, 1].any():
            warnings.warn(
                "nothing voiced was found: its columns of the voice source are zeros",
                MertoolWarning,
                stacklevel=2,
            )
        return Rows(values[:, self._kept], times)


class Covarep5(Covarep):
    """The five of COVAREP's columns that MOSI's released features hold.

    VUV, QOQ, MDQ, MCEP_14 and HMPDM_24: columns 1, 3, 6, 25 and 60.
    """

    _kept = FIVE
