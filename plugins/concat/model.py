"""The smallest useful fusion. Read it from top to bottom, then write your own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mertool.nn import masked_mean  # over the real steps; zeros where a clip has none
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class ConcatConfig:
    """Settings, `--set fusion.KEY=VALUE`: plain values, each with a default, checked here.

    Attributes:
        d_model: Width of the hidden layer.
        dropout: Share of hidden units set to zero in training.

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.d_model < 1:
            raise ValueError(f"d_model = {self.d_model}: must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class Concat(nn.Module):
    """Mean over time of every stream, concatenated, then Linear, ReLU, dropout, Linear."""

    Config = ConcatConfig  # the host builds it from the user's settings

    def __init__(self, config: ConcatConfig, spec: DataSpec) -> None:
        super().__init__()
        # Only the streams of `spec` exist for this model: one, two, or any number, of any name.
        # Sorted, so that their order in the file does not matter.
        self.streams = sorted(spec.streams)
        self.hidden = nn.Linear(sum(D for D, _ in spec.streams.values()), config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.d_model, spec.n_out)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict from `batch.x` and `batch.mask`; `batch.y` may not change the prediction."""
        pooled = {m: masked_mean(batch.x[m], batch.mask[m]) for m in self.streams}
        hidden = torch.relu(self.hidden(torch.cat(list(pooled.values()), dim=1)))
        pred = self.out(self.dropout(hidden))  # (B, K): a score, or logits; never a softmax
        # What figures are drawn from costs memory, so it is returned only on request.
        features = {**pooled, "fused": hidden} if batch.record else {}
        # The host adds the task loss; a method with extra loss terms returns them in `losses`.
        return FusionOutput(pred, losses={}, features=features)
