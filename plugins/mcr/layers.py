"""Transformer parts of MCR, and the two operations that keep padding out of it.

Shapes: B clips, T steps (T_t of the target, T_s of the source), d width, H heads. Masks are
(B, T) bool, True = a real step. [25] of the paper is the Transformer of Vaswani et al.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mertool.nn import Attention, lowered, zero_padding


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


class EncoderLayer(nn.Module):
    """One layer of the final Transformer encoder (section 3.2), pre-LN as the units are."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.attention = Attention(d, heads, bias=False)  # no projection has a bias, as printed
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(d, dropout)

    def forward(self, z: Tensor, mask: Tensor, record: bool) -> tuple[Tensor, Tensor | None]:
        """(B, T, d), (B, T) -> (B, T, d) and the attention (B, H, T, T), None unless recorded."""
        x = self.norm(z)
        y, attention = self.attention(x, x, mask, record)
        return self.feed_forward(z + self.dropout(y)), attention
