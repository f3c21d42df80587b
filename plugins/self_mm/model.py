"""Self-MM (Yu et al., AAAI 2021).

Shapes: B clips, T steps, D features, d widths, K outputs, S streams. Symbols are the paper's:
F_s vector of a stream, F*_m and F*_s last hidden vectors of the multimodal and the unimodal tasks,
y_m label, y_s generated unimodal label.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mertool_plugins.self_mm.labels import LabelMemory
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import MaskedLSTM
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class SelfMMConfig:
    """Settings of Self-MM; the widths are ours, the paper prints none.

    Attributes:
        d_lstm: Width of F_s, the last state of each stream's LSTM.
        d_fusion: Width of F*_m.
        d_unimodal: Width of F*_s.
        shared_weight: Weight of each unimodal task where it has no label of its own, that is, for
            classification and multilabel. Regression weighs each clip as the paper does.
        dropout: Of the vectors that the tasks read.

    Raises:
        ValueError: A value is out of range.
    """

    d_lstm: int = 64
    d_fusion: int = 128
    d_unimodal: int = 64
    shared_weight: float = 0.3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_lstm", "d_fusion", "d_unimodal"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not self.shared_weight >= 0.0:
            raise ValueError(f"shared_weight = {self.shared_weight}: must not be negative")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class Task(nn.Module):
    """One task: F* = ReLU(W_1 F + b_1), prediction W_2 F* + b_2.

    Args:
        D: Width of F.
        d: Width of F*.
        n_out: K.
        dropout: Of F.
    """

    def __init__(self, D: int, d: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(D, d)
        self.second = nn.Linear(d, n_out)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> F* (B, d), prediction (B, K)."""
        hidden = torch.relu(self.first(self.dropout(x)))
        return hidden, self.second(hidden)


class SelfMM(nn.Module):
    """A multimodal task and one task per stream on shared encoders.

    In training the unimodal tasks are learnt towards labels that `LabelMemory` generates; for
    prediction they are not needed. The host adds the multimodal task's loss.
    """

    Config = SelfMMConfig

    def __init__(self, config: SelfMMConfig, spec: DataSpec) -> None:
        super().__init__()
        self.task = spec.task
        self.shared_weight = config.shared_weight
        # Lists in the order of the names: the order in a file does not matter, and a name may hold
        # characters that a module's name may not.
        self.streams = sorted(spec.streams)
        S = len(self.streams)
        self.lstm = nn.ModuleList(
            MaskedLSTM(spec.streams[m][0], config.d_lstm) for m in self.streams
        )
        self.fused = Task(S * config.d_lstm, config.d_fusion, spec.n_out, config.dropout)
        self.unimodal = nn.ModuleList(
            Task(config.d_lstm, config.d_unimodal, spec.n_out, config.dropout) for _ in self.streams
        )
        low, high = spec.range
        # Polarity is the sign where the scale has both, else the side of the middle.
        neutral = 0.0 if low <= 0.0 <= high else (low + high) / 2
        self.memory = LabelMemory(S, neutral, (low, high) if low < high else None)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `batch.y` is read in training only, for the unimodal tasks.

        Returns:
            `pred` (B, K); in training with labels, losses "unimodal_s" of each stream; when
            `batch.record`, features "F_s" of each stream and "fused" (F*_m).
        """
        F_s = [
            lstm(batch.x[m], batch.mask[m])[1]
            for m, lstm in zip(self.streams, self.lstm, strict=True)
        ]
        hidden, pred = self.fused(torch.cat(F_s, dim=1))
        losses: dict[str, Tensor] = {}
        if self.training and batch.y is not None:
            outputs = [task(z) for task, z in zip(self.unimodal, F_s, strict=True)]
            losses = self.losses(batch, hidden, outputs)
        features: dict[str, Tensor] = {}
        if batch.record:
            features = {f"F_{m}": z.detach() for m, z in zip(self.streams, F_s, strict=True)}
            features["fused"] = hidden.detach()
        return FusionOutput(pred, losses, features=features)

    def losses(
        self, batch: Batch, hidden: Tensor, outputs: list[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """Loss of each unimodal task, mean over the clips; absent streams add nothing.

        Args:
            batch: With labels.
            hidden: F*_m.
            outputs: F*_s and prediction of each stream.

        Raises:
            ValueError: A regression batch without the clips' ids, by which labels are kept.
        """
        present = torch.stack([batch.mask[m].any(dim=1) for m in self.streams], dim=1)
        if self.task == "regression":
            if len(batch.ids) != len(batch.y):
                raise ValueError("Self-MM keeps labels by clip: training needs batch.ids")
            rows = self.memory.rows(batch.ids, batch.y[:, 0], present)
            y_s = self.memory.read(rows)
            # W_s: clips whose own label differs from the common one teach the most.
            weight = torch.tanh((y_s - batch.y).abs()) * present
            terms = [
                (weight[:, k] * (pred[:, 0] - y_s[:, k]).abs()).mean()
                for k, (_, pred) in enumerate(outputs)
            ]
            self.memory.update(rows, [hidden] + [F_star for F_star, _ in outputs])
        else:
            terms = [
                self.shared_weight * (shared_loss(pred, batch.y, self.task) * present[:, k]).mean()
                for k, (_, pred) in enumerate(outputs)
            ]
        return {f"unimodal_{m}": term for m, term in zip(self.streams, terms, strict=True)}


def shared_loss(pred: Tensor, y: Tensor, task: str) -> Tensor:
    """Loss of each clip towards the common label, (B,)."""
    if task == "classification":
        return F.cross_entropy(pred, y, reduction="none")
    return F.binary_cross_entropy_with_logits(pred, y, reduction="none").mean(dim=1)
