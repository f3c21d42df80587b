"""Parts of TMT: the token separation encoder, the Token mutual Transformer, and their ablations.

Shapes: B clips, T steps, n common and n_s private tokens in all, d width, H heads, M streams.
Masks are bool, True = there: a clip that lacks a stream lacks its private tokens, too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import EncoderLayer, MaskedLSTM, masked_mean, tensor_fusion

from .config import TMTConfig


class Tokens(NamedTuple):
    """Disentangled tokens.

    Attributes:
        c: H_c (B, n, d).
        mask_c: (B, n).
        s: H_s = con(H_a, H_v, H_t) (B, n_s, d).
        mask_s: (B, n_s).
    """

    c: Tensor
    mask_c: Tensor
    s: Tensor
    mask_s: Tensor

    def of(self, m: int, streams: int) -> tuple[Tensor, Tensor]:
        """H_m (B, n_s / M, d) of stream number m, and its mask (B, n_s / M)."""
        return self.s.chunk(streams, dim=1)[m], self.mask_s.chunk(streams, dim=1)[m]


def layer(c: TMTConfig, cross: bool = False) -> EncoderLayer:
    """One Transformer layer of Fig. 3; a cross layer normalises its source on its own."""
    return EncoderLayer(c.d_model, c.heads, c.d_ff, c.dropout, "pre", cross, F.gelu)


class TokenSeparation(nn.Module):
    """Token separation encoder (3.2.1, eq. 1).

    Args:
        config: Settings.
        lengths: T of each stream.
    """

    def __init__(self, config: TMTConfig, lengths: list[int]) -> None:
        super().__init__()
        d = config.d_model
        self.counts = config.common_tokens, config.private_tokens
        # H_c0 (n, d) and, one after the other, all H_m0 (n_s, d)
        self.common = nn.Parameter(torch.randn(config.common_tokens, d))
        self.private = nn.Parameter(torch.randn(config.private_tokens * len(lengths), d))
        # Over tokens and steps, (sum of T + 12, d) in all; a table each, so that the position of
        # a step does not depend on how far other streams are padded.
        n = len(self.common) + len(self.private)
        self.positions = nn.ParameterList(torch.randn(T, d) * 0.02 for T in (n, *lengths))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(layer(config) for _ in range(config.layers))

    def forward(self, U: list[Tensor], masks: list[Tensor]) -> Tokens:
        """H_c, H_a, H_v, H_t = T(q/k/v = con(H_c0, H_a0, H_v0, H_t0, U_0)).

        Args:
            U: MLP(U_m) (B, T, d) of each stream.
            masks: (B, T) of each stream.
        """
        B, (n, each) = len(U[0]), self.counts
        H_0 = torch.cat([self.common, self.private]).expand(B, -1, -1)
        parts = [placed(x, table) for x, table in zip([H_0, *U], self.positions, strict=True)]
        present = torch.stack([mask.any(dim=1) for mask in masks], dim=1)  # (B, M)
        mask_c = torch.ones_like(present[:, :1]).expand(-1, n)
        mask_s = present.repeat_interleave(each, dim=1)
        mask = torch.cat([mask_c, mask_s, *masks], dim=1)
        z = self.dropout(torch.cat(parts, dim=1))  # (B, 12 + sum of T, d)
        for one in self.layers:
            z, _ = one(z, mask, record=False)
        return Tokens(z[:, :n], mask_c, z[:, n : n + mask_s.shape[1]], mask_s)


def placed(x: Tensor, table: Tensor) -> Tensor:
    """Add a learnt position to each step of (B, T, d); steps past the table get its last row."""
    missing = x.shape[1] - len(table)
    if missing > 0:
        table = torch.cat([table, table[-1:].expand(missing, -1)])
    return x + table[: x.shape[1]]


class Perceptrons(nn.Module):
    """Without token disentanglement (4.5.2): MISA's shared and private perceptrons.

    One token per stream of either kind, from the mean of its projected rows.
    """

    def __init__(self, config: TMTConfig, streams: int) -> None:
        super().__init__()
        d = config.d_model
        self.common = nn.Linear(d, d)
        self.private = nn.ModuleList(nn.Linear(d, d) for _ in range(streams))

    def forward(self, U: list[Tensor], masks: list[Tensor]) -> Tokens:
        """As `TokenSeparation.forward`; n = n_s = M."""
        u = torch.stack([masked_mean(x, mask) for x, mask in zip(U, masks, strict=True)], dim=1)
        present = torch.stack([mask.any(dim=1) for mask in masks], dim=1)
        own = torch.stack([f(u[:, k]) for k, f in enumerate(self.private)], dim=1)
        return Tokens(self.common(u).sigmoid(), present, own.sigmoid(), present)


class CrossEncoder(nn.Module):
    """Cross-modal encoder (3.3, Fig. 3b): queries are updated from tokens that never change."""

    def __init__(self, config: TMTConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(config, cross=True) for _ in range(config.cross_layers))

    def forward(
        self, q: Tensor, mask_q: Tensor, kv: Tensor, mask_kv: Tensor, record: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """(B, n_q, d), (B, n_q), (B, n_kv, d), (B, n_kv) -> (B, n_q, d), and each layer's map.

        A map is (B, H, n_q, n_kv), zero for tokens that are not there; none unless recorded.
        """
        maps = []
        for one in self.layers:
            q, weights = one(q, mask_q, kv, mask_kv, record)
            if weights is not None:
                maps.append(weights.detach() * mask_q[:, None, :, None])
        return q, maps


class Mutual(nn.Module):
    """Token mutual Transformer (3.3, eq. 6 and 7), and what becomes of H_f1 and H_f2 (4.5.8)."""

    def __init__(self, config: TMTConfig) -> None:
        super().__init__()
        self.c_to_s = CrossEncoder(config)
        self.s_to_c = CrossEncoder(config)
        self.integration = config.integration
        self.own = layer(config) if config.integration == "attention" else None
        self.width = config.d_model * (2 if config.integration == "concat" else 1)

    def forward(self, H: Tokens, record: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens -> Y_o (B, width) and, when recorded, maps (B, H, n_s, n) and (B, H, n, n_s)."""
        H_f1, maps_1 = self.c_to_s(H.s, H.mask_s, H.c, H.mask_c, record)  # eq. 6
        H_f2, maps_2 = self.s_to_c(H.c, H.mask_c, H.s, H.mask_s, record)  # eq. 7
        maps = {f"c-to-s.{i + 1}": one for i, one in enumerate(maps_1)}
        maps |= {f"s-to-c.{i + 1}": one for i, one in enumerate(maps_2)}
        if self.own is not None:
            mask = torch.cat([H.mask_s, H.mask_c], dim=1)
            joint, _ = self.own(torch.cat([H_f1, H_f2], dim=1), mask, record=False)
            return masked_mean(joint, mask), maps
        # The mean over tokens first: with as many of either kind it is the mean of the sum, and
        # the sum is also defined where a stream is missing.
        means = [masked_mean(H_f1, H.mask_s), masked_mean(H_f2, H.mask_c)]
        return (torch.cat(means, dim=1) if self.integration == "concat" else sum(means)), maps


class Plain(nn.Module):
    """The other fusions: mean (w/o Token mutual Transformer, 4.5.2), LSTM, GRU, TFN (4.5.7)."""

    def __init__(self, config: TMTConfig) -> None:
        super().__init__()
        self.kind, self.width = config.fusion, config.d_model
        d = config.d_model
        cells = {"lstm": nn.LSTM, "gru": nn.GRU}
        self.rnn = MaskedLSTM(d, d, cell=cells[self.kind]) if self.kind in cells else None
        # The tensor of H_c and H_s, not of all streams: (d + 1)^4 numbers would not fit.
        self.project = nn.Linear((d + 1) ** 2, d) if self.kind == "tfn" else None

    def forward(self, H: Tokens, record: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens -> Y_o (B, d); there are no maps."""
        if self.project is not None:
            pair = [masked_mean(H.c, H.mask_c), masked_mean(H.s, H.mask_s)]
            return self.project(tensor_fusion(pair)), {}
        rows = torch.cat([H.c, H.s], dim=1)
        mask = torch.cat([H.mask_c, H.mask_s], dim=1)
        return (masked_mean(rows, mask) if self.rnn is None else self.rnn(rows, mask)[1]), {}
