"""Sound through a speech model of the plain waveform: long ones in windows, several together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mertool.extract.windows import take, windows

if TYPE_CHECKING:
    from torch import Tensor

Piece = tuple[int, int, int]  # (sound, first frame, frame after the last)


class SpeechFrames:
    """Base of what wants something of each frame of wav2vec 2.0, HuBERT, WavLM or their kin.

    Sound longer than `window_s` is read in windows that overlap by half, and each frame is taken
    from the window in which the nearest cut is farthest away.

    Args:
        prepare: The model's feature extractor.
        model: The model.
        device: "auto", "cpu" or "cuda".
        window_s: Longest sound that is read at once, seconds.
        width: What `_output` gives of a frame.

    Attributes:
        batch: Windows that go through the model together, and clips worth having at once.
    """

    batch = 8

    def __init__(self, prepare: Any, model: Any, device: str, window_s: float, width: int) -> None:
        from mertool.device import pick

        facts = model.config
        self._prepare, self._width = prepare, width
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
        self._rate = int(prepare.sampling_rate)
        strides = list(facts.conv_stride)
        self._hop = prod(strides)
        # Each convolution widens what a frame sees by its kernel, in steps of those before it.
        widths = ((k - 1) * prod(strides[:i]) for i, k in enumerate(facts.conv_kernel))
        self._field = 1 + sum(widths)
        self._size = max(1, self._rows(round(window_s * self._rate)))

    def _output(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, width) of (B, S) samples."""
        raise NotImplementedError

    def _rows(self, samples: int) -> int:
        """Frames of so many samples."""
        return max(0, (samples - self._field) // self._hop + 1)

    def _normalise(self, sound: np.ndarray) -> np.ndarray:
        """The whole sound as the model's preprocessor_config.json wants it."""
        return self._prepare(sound, sampling_rate=self._rate)["input_values"][0]

    def _frames(self, sounds: list[np.ndarray]) -> list[np.ndarray]:
        """(T, width) of each sound, the windows of all of them together."""
        counts = [self._rows(len(sound)) for sound in sounds]
        values = [np.empty((count, self._width), np.float32) for count in counts]
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
        return values

    def _samples(self, piece: Piece, sounds: list[np.ndarray]) -> np.ndarray:
        """What the convolutions see for these frames; at the sound's end, all that is left."""
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
        """(T or more, width) of each piece."""
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
            states = self._output(torch.from_numpy(x).to(self._device), mask)
        yield from states.float().cpu().numpy()
