"""The units of MCR: CMU, SCU and the parts of SUM. Equation numbers are those of the paper.

Shapes: B clips, T_t steps of the target, T_s of a source, T_ds of all its sources together,
d width, H heads. Masks are bool, True = a real step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mertool.nn import Attention, masked_softmax, zero_padding

from .layers import FeedForward, attend, feed_forward


class CMU(nn.Module):
    """Cross-mutual attention reinforcement unit of one target (section 3.3.1, eq. 2-5).

    Every source attends to the target with one head. With two sources (or more, which is our
    generalisation) each adaptation also receives those of the other sources, resized to its own
    steps by a 1-D convolution and weighted with how reliable each step is.

    Args:
        d: Width.
        lengths: T_s of each source.
        mutual: False = plain crossmodal attention ("w/o Mutual Attention").
        dropout: Ours.
    """

    def __init__(self, d: int, lengths: Sequence[int], mutual: bool, dropout: float) -> None:
        super().__init__()
        self.lengths = list(lengths)
        sources = range(len(lengths))
        self.norm_t = nn.LayerNorm(d)
        self.norm_s = nn.ModuleList(nn.LayerNorm(d) for _ in sources)
        self.query = nn.Linear(d, d, bias=False)
        self.key = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in sources)
        self.value = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in sources)
        # A convolution with kernel 1 over the target's steps and the source's steps as channels
        # is this linear map of the columns of E; "i_j" turns source i's columns into source j's.
        pairs = [(i, j) for i in sources for j in sources if mutual and i != j]
        self.exchange = nn.ModuleDict(
            {f"{i}_{j}": nn.Linear(lengths[i], lengths[j]) for i, j in pairs}
        )
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(d, dropout)

    def forward(
        self, Z_t: Tensor, Z_s: Sequence[Tensor], mask_s: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Reinforce the target with each source.

        Args:
            Z_t: (B, T_t, d).
            Z_s: (B, T_s, d) of each source.
            mask_s: (B, T_s) of each source.

        Returns:
            Z_ta (B, T_t, d); the attention (B, T_t, T_s) to each source; alpha summed over each
            source's steps (B, sources), None without mutual attention.
        """
        target = self.norm_t(Z_t)
        normed = [norm(Z) for norm, Z in zip(self.norm_s, Z_s, strict=True)]
        Q = self.query(target) / math.sqrt(target.shape[-1])
        E = [Q @ key(Z).transpose(1, 2) for key, Z in zip(self.key, normed, strict=True)]
        alpha = None
        if self.exchange:
            weights = self.reliability(Z_s, mask_s)
            E = self.mutual(E, weights, mask_s)
            alpha = torch.stack([a.sum(dim=1) for a in weights], dim=1)
        Z_ta, attention = target, []  # the skip connection is LN(Z_t), not Z_t
        for scores, value, Z, mask in zip(E, self.value, normed, mask_s, strict=True):
            Y, attended = attend(scores, value(Z), mask)  # eq. 4, 5
            Z_ta = Z_ta + self.dropout(Y)
            attention.append(attended)
        return self.feed_forward(Z_ta), attention, alpha

    def reliability(self, Z_s: Sequence[Tensor], mask_s: Sequence[Tensor]) -> list[Tensor]:
        """Selective attention weights alpha_s (B, T_s) of each source (eq. 3).

        They read the raw features: after layer normalisation every step's sum would be the same
        and alpha uniform.
        """
        total = torch.cat([Z.sum(dim=-1) for Z in Z_s], dim=1)
        alpha = masked_softmax(total, torch.cat(list(mask_s), dim=1))  # eq. 3
        return list(alpha.split(self.lengths, dim=1))

    def mutual(
        self, E: Sequence[Tensor], alpha: Sequence[Tensor], mask_s: Sequence[Tensor]
    ) -> list[Tensor]:
        """E_j + alpha_j * E-hat: the scores inside the softmax of eq. 4 and 5, (B, T_t, T_s)."""
        # Columns of padded steps would carry their content through the convolution.
        E_real = [e.masked_fill(~m.unsqueeze(1), 0.0) for e, m in zip(E, mask_s, strict=True)]
        scores = []
        for j, (E_j, alpha_j) in enumerate(zip(E, alpha, strict=True)):
            E_hat = sum(self.exchange[f"{i}_{j}"](E_real[i]) for i in range(len(E)) if i != j)
            scores.append(E_j + alpha_j.unsqueeze(1) * E_hat)  # one weight per source COLUMN
        return scores


class AttentionLayer(nn.Module):
    """Weights gamma of the two branches of an SCU (eq. 9, 10): one scalar per branch and clip.

    Eq. 9 has no nonlinearity, so U^T (W z + b) = w^T z + c with w = W^T U and c = U^T b.

    Args:
        size: T_t * d.
        kind: "vector" learns w and c, the same functions with size + 1 weights per branch;
            "literal" learns U, W and b as printed, size^2 weights per branch.
    """

    def __init__(self, size: int, kind: str) -> None:
        super().__init__()
        width = size if kind == "literal" else 1
        self.branch = nn.ModuleList(nn.Linear(size, width) for _ in range(2))
        self.U = nn.Linear(size, 1, bias=False) if kind == "literal" else nn.Identity()

    def forward(self, Z_cross: Tensor, Z_self: Tensor) -> Tensor:
        """Two (B, T_t, d), zero at padded steps -> gamma (B, 2)."""
        beta = [
            self.U(branch(Z.flatten(1)))  # eq. 9
            for branch, Z in zip(self.branch, (Z_cross, Z_self), strict=True)
        ]
        return torch.softmax(torch.cat(beta, dim=1), dim=1)  # eq. 10


class SCU(nn.Module):
    """Self-cross attention reinforcement unit of one target (section 3.3.2, eq. 6-11).

    Args:
        d: Width.
        heads: Heads of both attentions.
        length: T_t.
        attention_layer: "vector", "literal", or "none" = the two branches are added.
        dropout: Ours.
    """

    def __init__(
        self, d: int, heads: int, length: int, attention_layer: str, dropout: float
    ) -> None:
        super().__init__()
        self.norm_t = nn.LayerNorm(d)
        self.norm_ds = nn.LayerNorm(d)
        # No projection has a bias, as printed; a key bias could not change a softmax anyway.
        self.cross_attention = Attention(d, heads, bias=False)
        self.self_attention = Attention(d, heads, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.attention_layer = None
        if attention_layer != "none":
            self.attention_layer = AttentionLayer(length * d, attention_layer)
        self.feed_forward = FeedForward(d, dropout)

    def forward(
        self, Z_t: Tensor, Z_ds: Tensor, mask_t: Tensor, mask_ds: Tensor, record: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Reinforce the target with its concatenated sources and with itself.

        Args:
            Z_t: (B, T_t, d).
            Z_ds: (B, T_ds, d).
            mask_t: (B, T_t).
            mask_ds: (B, T_ds).
            record: Whether the attentions are wanted.

        Returns:
            Z_tb (B, T_t, d); the attentions (B, H, T_t, T_ds) and (B, H, T_t, T_t), None unless
            recorded; gamma (B, 2) of the cross and the self branch, None without an attention
            layer.
        """
        target = self.norm_t(Z_t)
        Z_cross, to_sources = self.cross_attention(
            target, self.norm_ds(Z_ds), mask_ds, record
        )  # eq. 7
        Z_self, to_itself = self.self_attention(target, target, mask_t, record)  # eq. 8
        # Padded steps must not reach the flattened sum of eq. 9.
        Z_cross = zero_padding(self.dropout(Z_cross), mask_t)
        Z_self = zero_padding(self.dropout(Z_self), mask_t)
        gamma = None
        Z_tb = Z_cross + Z_self
        if self.attention_layer is not None:
            gamma = self.attention_layer(Z_cross, Z_self)
            cross, own = gamma[:, 0, None, None], gamma[:, 1, None, None]
            Z_tb = cross * Z_cross + own * Z_self  # eq. 11, no skip connection
        return self.feed_forward(Z_tb), to_sources, to_itself, gamma


class SelectiveMemory(nn.Module):
    """Update of one source copy from the same modality's target (section 3.4, eq. 13, 14).

    Args:
        d: Width.
        length: T_s = T_t.
        smm: False = element-wise sum of both inputs ("SUM w/o SMM").
    """

    def __init__(self, d: int, length: int, smm: bool) -> None:
        super().__init__()
        self.feed_forward = feed_forward(d)
        self.smm = smm
        if smm:
            self.W_s = nn.Linear(d, d, bias=False)
            self.W_t = nn.Linear(d, d, bias=False)
            # The two biases of eq. 13 are only ever added: one parameter.
            self.b = nn.Parameter(torch.zeros(length, d))

    def forward(self, Z_t: Tensor, Z_s: Tensor) -> Tensor:
        """Target (B, T_s, d) and source (B, T_s, d) -> new source (B, T_s, d)."""
        Z_hat = self.feed_forward(Z_s)
        if not self.smm:
            return Z_hat + Z_t
        mu = torch.sigmoid(self.W_s(Z_hat) + self.W_t(Z_t) + self.b)  # eq. 13
        return (1 - mu) * torch.tanh(Z_t) + mu * Z_hat  # eq. 14


class SourceGate(nn.Module):
    """Gate of the concatenated sources of one target (section 3.4, eq. 15, 16)."""

    def __init__(self, d: int, length: int) -> None:
        super().__init__()
        self.W = nn.Linear(d, d, bias=False)
        self.b = nn.Parameter(torch.zeros(length, d))

    def forward(self, Z: Tensor) -> Tensor:
        """[Z_s1, Z_s2] (B, T_ds, d) -> Z_ds (B, T_ds, d), within (-1, 1)."""
        phi = torch.sigmoid(self.W(Z) + self.b)  # eq. 15
        return phi * torch.tanh(Z)  # eq. 16
