"""Parts of FDMER: encoder of a stream, perceptron, modality discriminator, losses of eq. 4 to 7."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import (
    EncoderLayer,
    angular_margin,
    hsic,
    masked_mean,
    sinusoidal,
    zero_padding,
)

from .config import FDMERConfig

NARROWEST = 4  # layer normalisation over one or two columns leaves nothing of them


class StreamEncoder(nn.Module):
    """Transformer of one stream, mean over time, fully connected layer (section 3.2).

    Args:
        D: Columns of the stream.
        layers: n_m.
        config: Settings.
    """

    def __init__(self, D: int, layers: int, config: FDMERConfig) -> None:
        super().__init__()
        self.width = width = config.d_model or max(D, NARROWEST)
        heads = max(h for h in range(1, config.heads + 1) if width % h == 0)
        self.project = nn.Identity() if width == D else nn.Linear(D, width)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = nn.ModuleList(
            EncoderLayer(width, heads, 4 * width, config.dropout, norm="post")
            for _ in range(layers)
        )
        self.out = nn.Linear(width, config.d_k)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X_m (B, T, D), (B, T) -> the refined Z_m (B, d_k)."""
        Z = self.project(zero_padding(x, mask))
        Z = self.dropout(Z + sinusoidal(Z.shape[1], self.width).to(Z))
        for layer in self.transformer:
            Z, _ = layer(Z, mask, record=False)  # eq. 1
        return self.out(masked_mean(Z, mask))


def perceptron(d: int) -> nn.Sequential:
    """Common or private encoder: two layers with GELU, (B, ..., d) -> (B, ..., d)."""
    return nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, d))


class Discriminator(nn.Module):
    """Modality discriminator D (eq. 8) and its losses (eq. 9 to 11).

    Args:
        M: Number of modalities.
        config: Settings.
    """

    def __init__(self, M: int, config: FDMERConfig) -> None:
        super().__init__()
        self.angular = config.adversarial == "angular"
        self.scale, self.margin = config.scale, config.margin
        self.F = nn.Linear(config.d_k, config.d_discriminator)
        self.W = nn.Parameter(torch.empty(M, config.d_discriminator))  # W_D, transposed
        nn.init.xavier_uniform_(self.W)

    def forward(self, h: Tensor) -> Tensor:
        """Logits of eq. 8 without margin, h (..., d_k) -> (..., M)."""
        h_hat, W = self.F(h), self.W
        if not self.angular:
            return h_hat @ W.T
        return self.scale * F.normalize(h_hat, dim=-1, eps=1e-6) @ F.normalize(W, dim=1).T

    def loss(self, h: Tensor, present: Tensor) -> Tensor:
        """Eq. 10 or 11: the sum over modalities of the mean over clips.

        Args:
            h: (B, M, d_k), C_m (behind a gradient reversal) or P_m.
            present: (B, M) bool; clips without a modality are no part of its mean.

        Returns:
            Scalar.
        """
        total = h.new_zeros(())
        for k, keep in enumerate(present.unbind(dim=1)):
            y = torch.full(keep.shape, k, device=h.device)
            if self.angular:
                h_hat = self.F(h[:, k])
                loss = angular_margin(h_hat, self.W, y, self.scale, self.margin, keep)  # eq. 9
            else:
                loss = F.cross_entropy(self(h[:, k]), y, reduction="none")
                loss = (loss * keep).sum() / keep.sum().clamp(min=1)
            total = total + loss
        return total


def similarity(C: Tensor, keep: Tensor, centre: bool = False) -> Tensor:
    """S_m = C^nor C^nor^T (eq. 4, both factors normalised), zero where a clip is not kept.

    Args:
        C: (B, d_k).
        keep: (B,) bool.
        centre: Whether the kept clips' mean is subtracted first.

    Returns:
        (B, B).
    """
    if centre:
        C = C - zero_padding(C, keep).sum(dim=0) / keep.sum().clamp(min=1)
    C = zero_padding(F.normalize(C, dim=1, eps=1e-6), keep)
    return C @ C.T


def consistency(
    C: Tensor, present: Tensor, reduction: str = "mean", centre: bool = False
) -> Tensor:
    """L_con (eq. 5): the mean over pairs of modalities of how far their similarities differ.

    Args:
        C: (B, M, d_k).
        present: (B, M) bool.
        reduction: Squared differences as the "mean" or the "sum" over pairs of clips.
        centre: See `similarity`.

    Returns:
        Scalar.
    """

    def loss(a: Tensor, b: Tensor, both: Tensor) -> Tensor:
        squared = (similarity(a, both, centre) - similarity(b, both, centre)).square().sum()
        return squared if reduction == "sum" else squared / both.sum().clamp(min=1).square()

    return mean_over_pairs(C, present, loss)


def disparity(P: Tensor, present: Tensor) -> Tensor:
    """L_dis (eq. 6, 7): the mean over pairs of modalities of HSIC(P_m1, P_m2).

    Args:
        P: (B, M, d_k).
        present: (B, M) bool.

    Returns:
        Scalar.
    """
    return mean_over_pairs(P, present, hsic)


def mean_over_pairs(
    h: Tensor, present: Tensor, loss: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Mean of a loss between two modalities over the pairs that two clips or more have.

    Args:
        h: (B, M, d_k).
        present: (B, M) bool.
        loss: Of two (B, d_k) and of keep (B,) bool, the clips that have both.

    Returns:
        Scalar; 0 where there is no such pair.
    """
    total, pairs = h.new_zeros(()), h.new_zeros(())
    for i, j in combinations(range(h.shape[1]), 2):
        both = present[:, i] & present[:, j]
        counts = (both.sum() > 1).to(h.dtype)
        total = total + counts * loss(h[:, i], h[:, j], both)
        pairs = pairs + counts
    return total / pairs.clamp(min=1)
