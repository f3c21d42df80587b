"""The standard Transformer that NORM-TR calls its baseline (section 4.7.1, last row of Table 6).

Shapes: B clips, T steps of a stream, D features, d width (N in the paper), H heads, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mertool.nn import EncoderLayer, LearntPositions, masked_mean, zero_padding
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class TransformerConfig:
    """Settings; d_model, heads and layers are NORM-TR's for MOSI.

    Attributes:
        d_model: N, the width that every stream is projected to.
        heads: Attention heads; must divide d_model.
        layers: Encoder layers: 2 for MOSI and RML, 4 for MOSEI and IEMOCAP.
        dropout: Dropout of the embeddings and inside the layers (ours: the paper names none).

    Raises:
        ValueError: A value is out of range.
    """

    d_model: int = 256
    heads: int = 8
    layers: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("d_model", "heads", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.d_model % self.heads:
            raise ValueError(
                f"heads = {self.heads}: must divide d_model = {self.d_model} without remainder"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class Transformer(nn.Module):
    """U' of eq. 2 without noise, concatenated over time, encoded, averaged, one linear layer."""

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig, spec: DataSpec) -> None:
        super().__init__()
        d = config.d_model
        # In lists and in the order of the names: the order in a file does not matter, and a name
        # may hold characters that a module's name may not.
        self.streams = sorted(spec.streams)
        self.project = nn.ModuleList(nn.Linear(spec.streams[m][0], d) for m in self.streams)
        self.positions = nn.ModuleList(LearntPositions(spec.streams[m][1], d) for m in self.streams)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(d, config.heads, 4 * d, config.dropout, norm="pre")
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, spec.n_out)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `batch.y` is not read.

        Args:
            batch: B clips, every stream with the length of the data spec, or less.

        Returns:
            `pred` (B, K) and, when `batch.record`: features "U_m" (B, d), the mean of each
            projected stream, and "fused" (B, d); attention "encoder.i" (B, H, sum T, sum T).

        Raises:
            ValueError: A stream is longer than the model was built for.
        """
        tokens, masks = [], []
        features: dict[str, Tensor] = {}
        attention: dict[str, Tensor] = {}
        for m, project, positions in zip(self.streams, self.project, self.positions, strict=True):
            mask = batch.mask[m]
            U = project(zero_padding(batch.x[m], mask))  # g of eq. 2
            tokens.append(positions(U))
            masks.append(mask)
            if batch.record:
                features[f"U_{m}"] = masked_mean(U, mask).detach()
        mask = torch.cat(masks, dim=1)
        z = self.dropout(torch.cat(tokens, dim=1))
        for i, layer in enumerate(self.layers):
            z, weights = layer(z, mask, record=batch.record)
            if weights is not None:
                attention[f"encoder.{i + 1}"] = weights.detach()
        pooled = masked_mean(self.norm(z), mask)  # the average pooling of 3.4.2
        if batch.record:
            features["fused"] = pooled.detach()
        return FusionOutput(self.head(pooled), features=features, attention=attention)
