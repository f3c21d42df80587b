"""LMF: Low-rank Multimodal Fusion (Liu et al., ACL 2018); section numbers are the paper's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mertool.nn import LowRankFusion, MaskedLSTM, masked_mean
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
