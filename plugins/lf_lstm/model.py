"""LF-LSTM: each stream has its own LSTM; their last states are concatenated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mertool.nn import MaskedLSTM
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class LFLSTMConfig:
    """Settings of LF-LSTM; all defaults are ours.

    Attributes:
        d_h: Width of each stream's LSTM and of the hidden layer.
        layers: LSTMs on top of each other.
        dropout: On the hidden layer.

    Raises:
        ValueError: A value is out of range.
    """

    d_h: int = 64
    layers: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_h", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class LFLSTM(nn.Module):
    """h_m = LSTM_m(x_m); [h_1; h_2; ...] goes through Linear, ReLU, dropout, Linear."""

    Config = LFLSTMConfig

    def __init__(self, config: LFLSTMConfig, spec: DataSpec) -> None:
        super().__init__()
        d = config.d_h
        self.streams = sorted(spec.streams)
        self.lstms = nn.ModuleList(
            MaskedLSTM(spec.streams[m][0], d, layers=config.layers) for m in self.streams
        )
        self.head = nn.Sequential(
            nn.Linear(len(self.streams) * d, d),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(d, spec.n_out),
        )

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `features` has each stream's last state (B, d_h) and all of them as `fused`."""
        last = {
            m: lstm(batch.x[m], batch.mask[m])[1]  # zeros for a clip without the stream
            for m, lstm in zip(self.streams, self.lstms, strict=True)
        }
        h = torch.cat(list(last.values()), dim=1)
        features = {**last, "fused": h} if batch.record else {}
        return FusionOutput(self.head(h), features=features)
