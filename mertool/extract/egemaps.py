"""eGeMAPS: low-level descriptors of the voice, measured by openSMILE."""

from __future__ import annotations

import importlib.metadata
import warnings
from dataclasses import dataclass

import numpy as np

from mertool.errors import MertoolError, MertoolWarning
from mertool.types import Clip, Rows

RATE = 16000  # Hz
HOP = 0.01  # seconds
WINDOW = 0.02  # seconds; the stretch that openSMILE's own times give each row
# The pitch is measured on 60 ms, and where that does not fit in, openSMILE gives no row at all.
SHORTEST = 0.06  # seconds
TOP = 32767 / 32768  # openSMILE works on 16-bit sound, in which a sample of 1 would become -1


class EGeMAPS:
    """The 25 low-level descriptors of eGeMAPSv02 per 10 ms, by openSMILE, under its own names.

    F. Eyben et al., "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for voice research and
    affective computing", IEEE Transactions on Affective Computing 7(2), 2016; F. Eyben et al.,
    "openSMILE: the Munich versatile and fast open-source audio feature extractor", ACM Multimedia
    2010. A wrapper: nothing is computed here. openSMILE's licence allows research and other
    non-commercial use only, of the features as well.

    Args:
        config: Settings.
        device: Ignored; this runs on the CPU.

    Raises:
        MertoolError: openSMILE is not installed.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `egemaps`.

        Attributes:
            channel: "mean" of the channels, or "first".
        """

        channel: str = "mean"

        def __post_init__(self) -> None:
            if self.channel not in ("mean", "first"):
                raise ValueError(f'channel={self.channel!r} must be "mean" or "first"')

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        try:
            import opensmile
        except Exception as error:  # its library may not load either
            raise MertoolError(
                "openSMILE cannot be used.",
                f"{type(error).__name__}: {error}".splitlines()[0],
                'pip install "mertool[opensmile]", or choose another extractor: --audio covarep',
            ) from error
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        self.columns = [str(name) for name in self._smile.column_names]
        self.info: dict[str, str | float] = {
            "model": "eGeMAPSv02 low-level descriptors",
            "revision": f"opensmile {importlib.metadata.version('opensmile')}",
            "licence": "audEERING Research License (research and non-commercial use only)",
            "rate": 1 / HOP,
            "version": "1",
        }

    def extract(self, clip: Clip) -> Rows:
        """Measure one clip.

        Args:
            clip: A clip with sound.

        Returns:
            Rows of D = 25; none, with a warning, for a clip without sound or of less than 60 ms.
        """
        sound = clip.audio(RATE, self.config.channel)
        if len(sound) < SHORTEST * RATE:
            short = "the sound is shorter than 60 ms" if len(sound) else "no sound"
            warnings.warn(f"{short}, no egemaps rows", MertoolWarning, stacklevel=2)
            return Rows.empty(len(self.columns))
        measured = self._smile.process_signal(np.clip(sound, -1, TOP), RATE)
        start = measured.index.get_level_values("start").total_seconds().to_numpy()
        centre = start + WINDOW / 2
        times = np.stack([centre - HOP / 2, centre + HOP / 2], axis=1)
        values = measured.to_numpy(np.float32)
        return Rows(values, np.minimum(times, len(sound) / RATE))
