"""Cross-Modal Attention Fusion (section 3.4) and what Table 4 puts in its place."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import masked_softmax, zero_padding

from .config import FDMERConfig


class SourceNorm(nn.Module):
    """Layer normalisation of F_so over those of its representations that a clip has.

    Args:
        N: Number of representations.
        d_k: Width of each.
    """

    def __init__(self, N: int, d_k: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(N, d_k))
        self.bias = nn.Parameter(torch.zeros(N, d_k))

    def forward(self, F_so: Tensor, present: Tensor) -> Tensor:
        """(B, N, d_k), (B, N) -> (B, N, d_k), zero where a clip lacks a representation."""
        n = (present.sum(dim=1) * F_so.shape[2]).clamp(min=1)[:, None, None]
        mean = zero_padding(F_so, present).sum(dim=(1, 2), keepdim=True) / n
        x = zero_padding(F_so - mean, present)
        variance = x.square().sum(dim=(1, 2), keepdim=True) / n
        return zero_padding(x * torch.rsqrt(variance + 1e-5) * self.weight + self.bias, present)


class CMAF(nn.Module):
    """Cross-modal interaction (phase 1) and adaptive attention (phase 2).

    Args:
        N: Number of representations.
        config: Settings.
    """

    def __init__(self, N: int, config: FDMERConfig) -> None:
        super().__init__()
        d = config.d_k
        self.phase_1, self.by_token = config.phase_1, config.attention == "token"
        # Of a single representation the weight is 1.
        self.phase_2 = config.phase_2 and N > 1
        if self.phase_1:
            self.norm_ta = nn.ModuleList(nn.LayerNorm(d) for _ in range(N))
            self.norm_so = SourceNorm(N, d)
            self.W_G = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in range(N))
            self.W_Q = nn.Linear(N * d, N * d, bias=False)
            self.W_U = nn.Linear(N * d, N * d, bias=False)
            self.norm_Y = nn.LayerNorm(d)
            self.f = nn.Sequential(
                nn.Linear(d, 4 * d),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(4 * d, d),
                nn.Dropout(config.dropout),
            )
        if self.phase_2:
            self.W_ta = nn.ModuleList(nn.Linear(d, d) for _ in range(N))
            self.q = nn.Linear(d, 1, bias=False)

    def forward(
        self, F_ta: Tensor, present: Tensor, record: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Fuse the representations that each clip has.

        Args:
            F_ta: (B, N, d_k), the targets and, together, the source F_so.
            present: (B, N) bool.
            record: Whether the map of "token" attention is wanted.

        Returns:
            Y_fin (B, d_k), zero for a clip without any representation; psi (B, N) or, without
            phase 2, None; the map (B, 1, N, N) or None.
        """
        Y, weights = F_ta, None
        if self.phase_1:
            Y, weights = self.interact(F_ta, present, record)
        Y, psi = zero_padding(Y, present), None
        if self.phase_2:
            mu = self.q(torch.tanh(each(self.W_ta, Y))).squeeze(-1)  # eq. 15
            psi = masked_softmax(mu, present)  # eq. 16
            Y = psi.unsqueeze(-1) * Y
        return Y.sum(dim=1), psi, weights  # eq. 17

    def interact(
        self, F_ta: Tensor, present: Tensor, record: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Phase 1: reinforce each target from the source, (B, N, d_k) -> (B, N, d_k)."""
        N = F_ta.shape[1]
        targets = each(self.norm_ta, F_ta)
        G = each(self.W_G, targets)
        F_so = self.norm_so(F_ta, present).flatten(1)
        Q, U = (W(F_so).unflatten(1, (N, -1)) for W in (self.W_Q, self.W_U))
        attend = attend_tokens if self.by_token else attend_features
        F_so_ta, weights = attend(G, Q, U, present, record)  # eq. 12
        Y = targets + F_so_ta  # eq. 13
        return self.f(self.norm_Y(Y)) + Y, weights  # eq. 14


def attend_features(
    G: Tensor, Q: Tensor, U: Tensor, present: Tensor, record: bool = False
) -> tuple[Tensor, None]:
    """Eq. 12 as printed: every feature of a target attends to all N d_k features of the source.

    Args:
        G: (B, N, d_k) of the targets.
        Q: (B, N, d_k) of the source, its keys.
        U: (B, N, d_k) of the source, its values.
        present: (B, N) bool; the source of a clip consists of what it has.
        record: Not used: B x N x d_k x N d_k weights are nothing to look at.

    Returns:
        (B, N, d_k), and None. Undefined, but finite, where a clip has nothing.
    """
    B, N, d = G.shape
    # Eq. 12 is attention of N d_k queries to N d_k keys, each of one feature. The fused kernels
    # never store the weights (268 MB for 64 clips); those of a GPU want keys of 8 features.
    extra = 7 if G.is_cuda else 0
    g, q, u = (F.pad(z.reshape(B, 1, N * d, 1), (0, extra)) for z in (G, Q, U))
    seen = present | ~present.any(dim=1, keepdim=True)
    seen = seen.repeat_interleave(d, dim=1, output_size=N * d)[:, None, None, :]
    out = F.scaled_dot_product_attention(g, q, u, attn_mask=seen, scale=1.0)
    return out[:, 0, :, 0].unflatten(1, (N, d)), None


def attend_tokens(
    G: Tensor, Q: Tensor, U: Tensor, present: Tensor, record: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The same with N keys of d_k features; arguments as `attend_features`.

    Returns:
        (B, N, d_k), and the weights (B, 1, N, N) where they are to be recorded.
    """
    scores = G @ Q.transpose(1, 2) / math.sqrt(G.shape[2])
    weights = masked_softmax(scores, present.unsqueeze(1))
    return weights @ U, weights.unsqueeze(1) if record else None


def each(modules: nn.ModuleList, F_ta: Tensor) -> Tensor:
    """A module per representation: (B, N, d_k) -> (B, N, d_k)."""
    pairs = zip(modules, F_ta.unbind(dim=1), strict=True)
    return torch.stack([module(z) for module, z in pairs], dim=1)


class Concatenation(nn.Module):
    """Table 4 "w/o CMAF": (B, N, d_k) -> (B, N d_k), zero where something is absent."""

    def forward(
        self, F_ta: Tensor, present: Tensor, record: bool = False
    ) -> tuple[Tensor, None, None]:
        """Arguments and results as in `CMAF.forward`."""
        return zero_padding(F_ta, present).flatten(1), None, None


class Addition(nn.Module):
    """Table 4 "Addition": (B, N, d_k) -> (B, d_k)."""

    def forward(
        self, F_ta: Tensor, present: Tensor, record: bool = False
    ) -> tuple[Tensor, None, None]:
        """Arguments and results as in `CMAF.forward`."""
        return zero_padding(F_ta, present).sum(dim=1), None, None


class Multiplication(nn.Module):
    """Table 4 "Multiplication": element-wise product of what a clip has.

    Args:
        N: Number of representations.
        d_k: Width of each.
    """

    def __init__(self, N: int, d_k: int) -> None:
        super().__init__()
        # Without it, the product of N small numbers has no gradient to speak of.
        self.norm_ta = nn.ModuleList(nn.LayerNorm(d_k) for _ in range(N))

    def forward(
        self, F_ta: Tensor, present: Tensor, record: bool = False
    ) -> tuple[Tensor, None, None]:
        """Arguments and results as in `CMAF.forward`."""
        factors = each(self.norm_ta, F_ta).masked_fill(~present.unsqueeze(-1), 1.0)
        return factors.prod(dim=1), None, None


def fusion_of(N: int, config: FDMERConfig) -> nn.Module:
    """The fusion of N representations that the settings ask for."""
    if config.fusion == "cmaf":
        return CMAF(N, config)
    if config.fusion == "multiplication":
        return Multiplication(N, config.d_k)
    return Concatenation() if config.fusion == "concatenation" else Addition()
