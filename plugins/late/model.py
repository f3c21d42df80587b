"""Late fusion: single-modality models, each trained by itself, whose predictions are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import MaskedLSTM
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class LateConfig:
    """Settings of late fusion.

    Attributes:
        d_h: Width of each stream's LSTM and of its hidden layer.
        layers: LSTMs on top of each other.
        dropout: On the hidden layers.

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


class Late(nn.Module):
    """pred = mean over the clip's streams of f_m(x_m); the loss is the sum of each f_m's own.

    f_m is what LF-LSTM is on one stream: an LSTM, then Linear, ReLU, dropout, Linear.
    """

    Config = LateConfig

    def __init__(self, config: LateConfig, spec: DataSpec) -> None:
        super().__init__()
        d = config.d_h
        self.streams, self.task = sorted(spec.streams), spec.task
        self.lstms = nn.ModuleList(
            MaskedLSTM(spec.streams[m][0], d, layers=config.layers) for m in self.streams
        )
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(d, d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, spec.n_out)
            )
            for _ in self.streams
        )

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `features` has each stream's last state, `losses` each stream's task loss."""
        last, preds, present, losses = {}, [], [], {}
        for m, lstm, head in zip(self.streams, self.lstms, self.heads, strict=True):
            _, last[m] = lstm(batch.x[m], batch.mask[m])
            preds.append(head(last[m]))
            present.append(batch.mask[m].any(dim=1))
            if batch.y is not None:
                # The loss of the mean would tie the models to each other.
                losses[f"task.{m}"] = self.loss(preds[-1], batch.y, present[-1])
        has = torch.stack(present, dim=1).unsqueeze(2)  # (B, streams, 1)
        total = torch.stack(preds, dim=1).masked_fill(~has, 0.0).sum(dim=1)
        pred = total / has.sum(dim=1).clamp(min=1)
        return FusionOutput(pred, losses, features=last if batch.record else {})

    def loss(self, pred: Tensor, y: Tensor, keep: Tensor) -> Tensor:
        """Mean task loss of the clips to keep (B,) that have the stream; 0 where none has."""
        if self.task == "classification":
            each = F.cross_entropy(pred, y, reduction="none")
        elif self.task == "multilabel":
            each = F.binary_cross_entropy_with_logits(pred, y, reduction="none").mean(dim=1)
        else:
            each = F.l1_loss(pred, y, reduction="none").mean(dim=1)
        return each.masked_fill(~keep, 0.0).sum() / keep.sum().clamp(min=1)
