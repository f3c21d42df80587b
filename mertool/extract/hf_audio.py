"""Frame states of a Hugging Face speech encoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mertool.errors import MertoolWarning, UsageError
from mertool.extract.speech import SpeechFrames
from mertool.pretrained import find_model, licence_of, load_speech_encoder
from mertool.types import Clip, Rows

if TYPE_CHECKING:
    from torch import Tensor


class HFAudio(SpeechFrames):
    """Hidden states of wav2vec 2.0, HuBERT, WavLM and their kin, named by hub id or local folder.

    A row is a frame of the model's convolutions, 20 ms for all common ones: its cell is one hop
    wide, around the centre of the 25 ms that the convolutions see for it. Sound longer than
    `window_s` is read in windows that overlap by half, and each row is taken from the window in
    which the nearest cut is farthest away. Before that the whole clip is normalised (zero mean,
    unit variance) where the model's preprocessor_config.json asks for it.

    Only safetensors weights are read, and no code of a model is ever run.

    Args:
        config: Settings.
        device: "auto", "cpu" or "cuda".

    Raises:
        MertoolError: The model cannot be had or loaded, or is of another kind.
        UsageError: The model has no such layer, or the machine no such device.

    Attributes:
        batch: Windows that go through the model together, and clips worth having at once.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of `hf`.

        Attributes:
            model: Hugging Face id, or a folder on this machine (which wins).
            layer: Index into the hidden states: 0 = what enters the transformer, -1 = the last.
            window_s: Longest sound that is read at once, seconds.
            channel: "mean" of the channels, or "first".
        """

        model: str = "facebook/wav2vec2-base-960h"
        layer: int = -1
        window_s: float = 20.0
        channel: str = "mean"

        def __post_init__(self) -> None:
            if not self.model.strip():
                raise ValueError('model="" must be a Hugging Face id or a folder')
            if not 1 <= self.window_s <= 600:
                raise ValueError(f"window_s={self.window_s} must lie between 1 and 600")
            if self.channel not in ("mean", "first"):
                raise ValueError(f'channel={self.channel!r} must be "mean" or "first"')

    def __init__(self, config: Config, device: str = "cpu") -> None:
        self.config = config
        folder = find_model(config.model, "audio")
        prepare, model = load_speech_encoder(folder)
        facts = model.config
        layers = facts.num_hidden_layers
        if not -layers - 1 <= config.layer <= layers:
            raise UsageError(
                f"The audio model has no layer {config.layer}.",
                f"{folder}: layers 0 (what enters the transformer) to {layers}",
                "Count from the end with negative numbers: --set audio.layer=-1",
            )
        self._layer = config.layer % (layers + 1)
        self._is_last = self._layer == layers
        # An adapter would shorten the sequence for a decoder that is not here.
        model.adapter = None
        super().__init__(prepare, model, device, config.window_s, facts.hidden_size)
        self.columns = [f"dim{i:03d}" for i in range(facts.hidden_size)]
        self.info: dict[str, str | float] = {
            "model": config.model,
            "revision": folder.name if folder.parent.name == "snapshots" else "",
            "licence": licence_of(folder),
            "rate": self._rate / self._hop,
            "version": "1",
        }

    def extract(self, clip: Clip) -> Rows:
        """Encode one clip.

        Args:
            clip: A clip with sound.

        Returns:
            A row per frame, D = the model's width; none, with a warning, for a clip without sound
            or of less than one frame (25 ms), which would be mostly padding.
        """
        return self.extract_many([clip])[0]

    def extract_many(self, clips: Sequence[Clip]) -> list[Rows]:
        """Encode several clips, windows of all of them together.

        Args:
            clips: Clips with sound.

        Returns:
            For each what `extract` gives, but for the last digits of its values.
        """
        sounds = [self._sound(clip) for clip in clips]
        return [
            Rows(value, self._times(len(value), len(sound)))
            for value, sound in zip(self._frames(sounds), sounds, strict=True)
        ]

    def _sound(self, clip: Clip) -> np.ndarray:
        """(S,) samples as the model wants them; none where they are too few."""
        sound = clip.audio(self._rate, self.config.channel)
        if not self._rows(len(sound)):
            least = 1000 * self._field / self._rate
            short = f"the sound is shorter than {least:g} ms" if len(sound) else "no sound"
            warnings.warn(f"{short}, no hf rows", MertoolWarning, stacklevel=2)
            return sound[:0]
        return self._normalise(sound)

    def _times(self, count: int, samples: int) -> np.ndarray:
        """(T, 2) seconds."""
        centre = np.arange(count) * self._hop + self._field / 2
        edges = np.stack([centre - self._hop / 2, centre + self._hop / 2], axis=1)
        return np.clip(edges, 0, samples) / self._rate

    def _output(self, x: Tensor, mask: Tensor | None) -> Tensor:
        output = self._model(
            input_values=x, attention_mask=mask, output_hidden_states=not self._is_last
        )
        return output.last_hidden_state if self._is_last else output.hidden_states[self._layer]
