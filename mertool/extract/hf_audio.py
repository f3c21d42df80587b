"""Frame states of a Hugging Face speech encoder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np

from mertool.errors import MertoolWarning, UsageError
from mertool.extract.pretrained import find_model, licence_of, load_speech_encoder
from mertool.extract.windows import take, windows
from mertool.types import Clip, Rows

Piece = tuple[int, int, int]  # (clip, first row, row after the last)


class HFAudio:
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

    batch = 8

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
        from mertool.device import pick

        self.config = config
        folder = find_model(config.model, "audio")
        self._prepare, model = load_speech_encoder(folder)
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
        self._device = pick(device)
        self._model = model.to(self._device)
        if self._device.type == "cpu":
            self.batch = 1  # together is no faster there, and takes more memory
        # Masked padding changes nothing only where the convolutions do not normalise over time,
        # and where a single one without bias before it tells positions.
        self._pads = (
            facts.model_type in ("hubert", "wav2vec2", "wavlm")
            and facts.feat_extract_norm == "layer"
            and not getattr(facts, "conv_pos_batch_norm", False)
        )
        self._rate = int(self._prepare.sampling_rate)
        strides = list(facts.conv_stride)
        self._hop = prod(strides)
        # Each convolution widens what a frame sees by its kernel, in steps of those before it.
        widths = ((k - 1) * prod(strides[:i]) for i, k in enumerate(facts.conv_kernel))
        self._field = 1 + sum(widths)
        self._size = max(1, self._rows(round(config.window_s * self._rate)))
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
        counts = [self._rows(len(sound)) for sound in sounds]
        values = [np.empty((count, len(self.columns)), np.float32) for count in counts]
        context = [np.full(count, -1) for count in counts]
        pieces = [
            (i, start, stop)
            for i, count in enumerate(counts)
            for start, stop in (windows(count, self._size) if count else [])
        ]
        for group in self._groups(pieces, sounds):
            found = self._states([self._samples(piece, sounds) for piece in group])
            for (i, start, stop), states in zip(group, found, strict=True):
                take(values[i], context[i], start, stop, states)
        return [
            Rows(value, self._times(len(value), len(sound)))
            for value, sound in zip(values, sounds, strict=True)
        ]

    def _sound(self, clip: Clip) -> np.ndarray:
        """(S,) samples as the model wants them; none where they are too few."""
        sound = clip.audio(self._rate, self.config.channel)
        if not self._rows(len(sound)):
            least = 1000 * self._field / self._rate
            short = f"the sound is shorter than {least:g} ms" if len(sound) else "no sound"
            warnings.warn(f"{short}, no hf rows", MertoolWarning, stacklevel=2)
            return sound[:0]
        return self._prepare(sound, sampling_rate=self._rate)["input_values"][0]

    def _rows(self, samples: int) -> int:
        return max(0, (samples - self._field) // self._hop + 1)

    def _times(self, count: int, samples: int) -> np.ndarray:
        """(T, 2) seconds."""
        centre = np.arange(count) * self._hop + self._field / 2
        edges = np.stack([centre - self._hop / 2, centre + self._hop / 2], axis=1)
        return np.clip(edges, 0, samples) / self._rate

    def _samples(self, piece: Piece, sounds: list[np.ndarray]) -> np.ndarray:
        """What the convolutions see for these rows; at the clip's end, all that is left."""
        i, start, stop = piece
        last = stop == self._rows(len(sounds[i]))
        end = len(sounds[i]) if last else (stop - 1) * self._hop + self._field
        return sounds[i][start * self._hop : end]

    def _groups(self, pieces: list[Piece], sounds: list[np.ndarray]) -> Iterator[list[Piece]]:
        """Pieces that go together: of equal length, or of similar length where padding is safe."""

        def length(piece: Piece) -> int:
            return len(self._samples(piece, sounds))

        pieces = sorted(pieces, key=length)
        runs = [pieces] if self._pads else [list(run) for _, run in groupby(pieces, key=length)]
        for run in runs:
            for first in range(0, len(run), self.batch):
                yield run[first : first + self.batch]

    def _states(self, pieces: list[np.ndarray]) -> Iterator[np.ndarray]:
        """(T or more, D) of each piece."""
        import torch

        lengths = [len(piece) for piece in pieces]
        x = np.zeros((len(pieces), max(lengths)), np.float32)
        for row, piece in zip(x, pieces, strict=True):
            row[: len(piece)] = piece
        mask = None
        if len(set(lengths)) > 1:
            mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
            mask = torch.from_numpy(mask.astype(np.int64)).to(self._device)
        with torch.inference_mode():
            output = self._model(
                input_values=torch.from_numpy(x).to(self._device),
                attention_mask=mask,
                output_hidden_states=not self._is_last,
            )
        states = output.last_hidden_state if self._is_last else output.hidden_states[self._layer]
        yield from states.float().cpu().numpy()
