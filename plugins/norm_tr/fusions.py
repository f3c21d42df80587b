"""The fusion Transformer of NORM-TR, and what Table 12 and section 4.7.4 put in its place.

Each takes queries and sources (B, M, T, d) of M streams and the mask (B, M, T) of their real steps
and gives one vector per clip (B, width) and, when asked for, attention. Padded steps and absent
streams are no keys and no part of any mean.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

from mertool.nn import (
    Attention,
    EncoderLayer,
    LearntPositions,
    LowRankFusion,
    MaskedLSTM,
    masked_mean,
    tensor_fusion,
)

from .config import NORMTRConfig

Maps = dict[str, Tensor]


class DecoderLayer(nn.Module):
    """Cross-attention and a feed-forward layer, pre-LN; with self-attention before it as an option.

    Args:
        d: Width.
        heads: H.
        dropout: Of attention, hidden units and both branches.
        self_attention: Whether the queries first attend to each other.
    """

    def __init__(self, d: int, heads: int, dropout: float, self_attention: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d) if self_attention else None
        self.own = Attention(d, heads, dropout=dropout) if self_attention else None
        self.dropout = nn.Dropout(dropout)
        self.cross = EncoderLayer(d, heads, 4 * d, dropout, norm="pre", cross=True)

    def forward(
        self, q: Tensor, mask: Tensor, source: Tensor, source_mask: Tensor, record: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(B, Tq, d), (B, Tq), (B, Tk, d), (B, Tk) -> (B, Tq, d) and attention (B, H, Tq, Tk)."""
        if self.own is not None:
            x = self.norm(q)
            q = q + self.dropout(self.own(x, x, mask, False)[0])
        return self.cross(q, mask, source, source_mask, record)


class FusionTransformer(nn.Module):
    """Trans(q, k/v) of eq. 5, 8 heads, learnt positions, then the average pooling of 3.4.2.

    The source is the same in every layer: it is never updated.

    Args:
        config: Settings.
        queries: Steps of all queries together.
        sources: Steps of all sources together.
    """

    def __init__(self, config: NORMTRConfig, queries: int, sources: int) -> None:
        super().__init__()
        d = config.d_model // 2
        self.width = d
        self.positions_q = LearntPositions(queries, d)
        self.positions_k = LearntPositions(sources, d)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(d, config.heads, config.dropout, config.self_attention)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(d)

    def forward(self, q: Tensor, kv: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Maps]:
        """(B, M, T, d) twice and (B, M, T) -> (B, d), attention "fusion.i" (B, H, MT, MT)."""
        steps = mask.flatten(1)
        return self.run(q.flatten(1, 2), steps, kv.flatten(1, 2), steps, "fusion", record)

    def run(
        self, q: Tensor, mask: Tensor, kv: Tensor, source_mask: Tensor, name: str, record: bool
    ) -> tuple[Tensor, Maps]:
        """(B, Tq, d), (B, Tq), (B, Tk, d), (B, Tk) -> (B, d) and {"name.i": (B, H, Tq, Tk)}."""
        z = self.dropout(self.positions_q(q))
        source = self.dropout(self.positions_k(kv))
        maps = {}
        for i, layer in enumerate(self.layers):
            z, weights = layer(z, mask, source, source_mask, record)
            if weights is not None:
                maps[f"{name}.{i + 1}"] = weights
        return masked_mean(self.norm(z), mask), maps


class Pairs(nn.Module):
    """Fusion "mult" (4.7.4): a Transformer for each ordered pair of streams, outputs concatenated.

    The queries of one stream attend to the sources of another; a single stream to its own.
    """

    def __init__(self, config: NORMTRConfig, names: list[str], steps: int) -> None:
        super().__init__()
        self.names = names
        self.pairs = list(permutations(range(len(names)), 2)) or [(0, 0)]
        self.transformers = nn.ModuleList(
            FusionTransformer(config, steps, steps) for _ in self.pairs
        )
        self.width = len(self.pairs) * config.d_model // 2

    def forward(self, q: Tensor, kv: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Maps]:
        """(B, M, T, d) twice and (B, M, T) -> (B, pairs * d), attention "s-to-t.i"."""
        pooled, maps = [], {}
        for (t, s), transformer in zip(self.pairs, self.transformers, strict=True):
            name = f"{self.names[s]}-to-{self.names[t]}"
            z, seen = transformer.run(q[:, t], mask[:, t], kv[:, s], mask[:, s], name, record)
            pooled.append(z)
            maps |= seen
        return torch.cat(pooled, dim=1), maps


class Encoder(nn.Module):
    """A plain Transformer encoder with learnt positions, averaged over the real steps.

    Args:
        config: Settings.
        steps: Steps of the whole sequence.
        d: Width: N for the baseline, N/2 for "vit".
    """

    def __init__(self, config: NORMTRConfig, steps: int, d: int) -> None:
        super().__init__()
        self.width = d
        self.positions = LearntPositions(steps, d)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(d, config.heads, 4 * d, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(d)

    def encode(self, z: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Maps]:
        """(B, T, d), (B, T) -> (B, d), attention "encoder.i" (B, H, T, T)."""
        z, maps = self.dropout(self.positions(z)), {}
        for i, layer in enumerate(self.layers):
            z, weights = layer(z, mask, record=record)
            if weights is not None:
                maps[f"encoder.{i + 1}"] = weights
        return masked_mean(self.norm(z), mask), maps


class Standard(Encoder):
    """Fusion "standard": the baseline of Table 6, one encoder over U' of all streams."""

    def forward(self, U_: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Maps]:
        """(B, M, T, N), (B, M, T) -> (B, N)."""
        return self.encode(U_.flatten(1, 2), mask.flatten(1), record)


class ViT(Encoder):
    """Fusion "vit" (4.7.4): one encoder over the sequence of all queries, then all sources."""

    def forward(self, q: Tensor, kv: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Maps]:
        """(B, M, T, d) twice and (B, M, T) -> (B, d)."""
        both = torch.cat([q.flatten(1, 2), kv.flatten(1, 2)], dim=1)
        return self.encode(both, torch.cat([mask.flatten(1)] * 2, dim=1), record)


class Recurrent(nn.Module):
    """Fusions "lstm" and "gru": read [query; source] at every step, keep the last state."""

    def __init__(self, config: NORMTRConfig, cell: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.width = config.d_model // 2
        self.lstm = MaskedLSTM(config.d_model, self.width, cell=cell)

    def forward(self, q: Tensor, kv: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Maps]:
        """(B, M, T, d) twice and (B, M, T) -> (B, d); streams one after the other."""
        both = torch.cat([q, kv], dim=-1).flatten(1, 2)
        return self.lstm(both, mask.flatten(1))[1], {}


class Product(nn.Module):
    """Fusions "concat", "tfn" and "lmf": the mean of all queries with the mean of all sources."""

    def __init__(self, config: NORMTRConfig) -> None:
        super().__init__()
        d = config.d_model // 2
        self.tensor = config.fusion == "tfn"
        self.lmf = LowRankFusion([d, d], config.rank, d) if config.fusion == "lmf" else None
        self.width = {"concat": 2 * d, "tfn": (d + 1) ** 2, "lmf": d}[config.fusion]

    def forward(self, q: Tensor, kv: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Maps]:
        """(B, M, T, d) twice and (B, M, T) -> (B, width)."""
        means = [masked_mean(z.flatten(1, 2), mask.flatten(1)) for z in (q, kv)]
        if self.lmf is not None:
            return self.lmf(means), {}
        return (tensor_fusion(means) if self.tensor else torch.cat(means, dim=1)), {}


def build(config: NORMTRConfig, names: list[str], steps: int) -> nn.Module:
    """The fusion of the settings, for these streams of T = `steps` steps each."""
    total = len(names) * steps
    match config.fusion:
        case "transformer":
            return FusionTransformer(config, total, total)
        case "mult":
            return Pairs(config, names, steps)
        case "vit":
            return ViT(config, 2 * total, config.d_model // 2)
        case "standard":
            return Standard(config, total, config.d_model)
        case "lstm" | "gru":
            return Recurrent(config, nn.LSTM if config.fusion == "lstm" else nn.GRU)
        case _:
            return Product(config)
