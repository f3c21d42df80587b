"""LMF: Low-rank Multimodal Fusion (Liu et al., ACL 2018); section numbers are the paper's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mertool.nn import MaskedLSTM, masked_mean
from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class LMFConfig:
    """Settings of LMF; r and the widths of z are those of section 5.3, the others ours.

    Attributes:
        r: Rank of the fusion weights.
        recurrent: Streams read by an LSTM; the others are averaged over time.
        d_recurrent: Width of z of a recurrent stream.
        d_pooled: Width of z of the other streams.
        d_h: Width of the fused representation h.
        dropout: On z.

    Raises:
        ValueError: A value is out of range.
    """

    r: int = 4
    recurrent: tuple[str, ...] = ("text",)
    d_recurrent: int = 64
    d_pooled: int = 32
    d_h: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("r", "d_recurrent", "d_pooled", "d_h"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout = {self.dropout}: must be in [0, 1)")


class SubEmbedding(nn.Module):
    """Sub-embedding network f_m (section 4.3): a stream (B, T, D) -> z (B, d).

    Language: an LSTM and a linear layer. Voice and face: the mean over time and two layers.
    """

    def __init__(self, D: int, d: int, recurrent: bool, dropout: float) -> None:
        super().__init__()
        self.lstm = MaskedLSTM(D, d) if recurrent else None
        layers = [nn.Linear(d, d)] if recurrent else [nn.Linear(D, d), nn.ReLU(), nn.Linear(d, d)]
        self.f = nn.Sequential(*layers, nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embed; zeros for a clip without the stream."""
        pooled = masked_mean(x, mask) if self.lstm is None else self.lstm(x, mask)[1]
        return self.f(pooled) * mask.any(dim=1, keepdim=True)


class LowRankFusion(nn.Module):
    """h = W Z + b (eq. 2) for W of rank r, without ever building Z or W (section 3.2).

    Z (eq. 1) is the outer product of all [z_m; 1]. W (eq. 4) is the sum over r of outer products of
    one factor w_m per stream, so W Z is the sum over r of the product over streams of
    w_m [z_m; 1] (eq. 8).

    Args:
        widths: d_m of each stream.
        r: Rank.
        d_h: Width of h.
    """

    def __init__(self, widths: list[int], r: int, d_h: int) -> None:
        super().__init__()
        self.w = nn.ParameterList(torch.empty(r, d + 1, d_h) for d in widths)
        self.b = nn.Parameter(torch.zeros(d_h))
        for w in self.w:
            for factor in w:  # each rank's factor is a matrix of its own
                nn.init.xavier_normal_(factor)

    def forward(self, zs: list[Tensor]) -> Tensor:
        """(B, d_m) of each stream -> h (B, d_h)."""
        product: Tensor | float = 1.0  # over streams, for each rank: (B, r, d_h)
        for z, w in zip(zs, self.w, strict=True):
            z_1 = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
            product = product * torch.einsum("bd,rdh->brh", z_1, w)
        return product.sum(dim=1) + self.b  # eq. 8


class LMF(nn.Module):
    """Sub-embedding networks, low-rank fusion, a linear layer."""

    Config = LMFConfig

    def __init__(self, config: LMFConfig, spec: DataSpec) -> None:
        super().__init__()
        c = config
        self.streams = sorted(spec.streams)
        widths = [c.d_recurrent if m in c.recurrent else c.d_pooled for m in self.streams]
        self.embeddings = nn.ModuleList(
            SubEmbedding(spec.streams[m][0], d, m in c.recurrent, c.dropout)
            for m, d in zip(self.streams, widths, strict=True)
        )
        self.fusion = LowRankFusion(widths, c.r, c.d_h)
        self.out = nn.Linear(c.d_h, spec.n_out)

    def forward(self, batch: Batch) -> FusionOutput:
        """Predict; `features` has z of each stream and h as `fused`."""
        z = {
            m: embed(batch.x[m], batch.mask[m])
            for m, embed in zip(self.streams, self.embeddings, strict=True)
        }
        h = self.fusion(list(z.values()))
        features = {**z, "fused": h} if batch.record else {}
        return FusionOutput(self.out(h), features=features)
