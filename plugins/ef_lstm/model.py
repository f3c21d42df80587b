"""EF-LSTM: the streams are concatenated at every step and read by one LSTM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mertool.nn import MaskedLSTM, common_steps
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class EFLSTMConfig:
    """Settings of EF-LSTM; all defaults are ours.

    Attributes:
        d_h: Width of the LSTM and of the hidden layer after it.
        layers: LSTMs on top of each other.
        steps: T to which unaligned streams are resampled; aligned ones keep their steps.
        dropout: On the hidden layer.

    Raises:
        ValueError: A value is out of range.
    """

    d_h: int = 128
    layers: int = 1
    steps: int = 50
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_h", "layers", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class EFLSTM(nn.Module):
    """One LSTM over [x_1; x_2; ...] at every step; its last state predicts."""

    Config = EFLSTMConfig

    def __init__(self, config: EFLSTMConfig, spec: DataSpec) -> None:
        super().__init__()
        self.streams = sorted(spec.streams)
        # One stream, or aligned ones, already have common steps.
        shared = spec.alignment != "none" or len(self.streams) == 1
        self.steps = None if shared else config.steps
        d = config.d_h
        D = sum(D for D, _ in spec.streams.values())
        self.lstm = MaskedLSTM(D, d, layers=config.layers)
        self.head = nn.Sequential(
            nn.Linear(d, d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, spec.n_out)
        )

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `features` has the last state as `fused` (B, d_h)."""
        xs, masks = common_steps(
            [batch.x[m] for m in self.streams], [batch.mask[m] for m in self.streams], self.steps
        )
        # A step is real where any stream has it; the others are zero there.
        real = torch.stack(masks).any(dim=0)
        _, h = self.lstm(torch.cat(xs, dim=2), real)
        return FusionOutput(self.head(h), features={"fused": h} if batch.record else {})
