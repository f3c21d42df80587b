"""Parts of TDMER: cross-modal learning, attention between private features, weighted fusion.

Shapes: B clips, M streams, E = M (M - 1) directed edges, T steps, d width, K logits, H heads.
`present` (B, M) says which clip has which stream.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import Attention, masked_mean, masked_softmax, mean_where, zero_padding

# --- losses -------------------------------------------------------------------------------------


def similarity(a: Tensor, b: Tensor, how: str) -> Tensor:
    """Cosine of vectors (..., d) as eq. 5, 6 and 9 lessen it, (...); 0 for a vector of zeros.

    The printed cosine is least where vectors are opposite, which is as redundant as parallel.

    Args:
        a: (..., d).
        b: (..., d).
        how: "hinge" max(0, cos), least where they are orthogonal or beyond; "signed" cos;
            "squared" cos^2.
    """
    cosine = (F.normalize(a, dim=-1, eps=1e-6) * F.normalize(b, dim=-1, eps=1e-6)).sum(dim=-1)
    return {"hinge": cosine.relu, "signed": cosine.clone, "squared": cosine.square}[how]()


# --- cross-modal learning -----------------------------------------------------------------------


def differences(logits: Tensor, edges: list[tuple[int, int]]) -> Tensor:
    """Psi of each edge p -> q: L1 distance of q's logits to p's, (B, M, K) -> (B, E).

    No gradient reaches p, from which q learns; otherwise p -> q and q -> p would ask for the same.
    """
    return torch.stack(
        [(logits[:, q] - logits[:, p].detach()).abs().sum(dim=-1) for p, q in edges], dim=1
    )


class CrossModalLearning(nn.Module):
    """Eq. 7, 8: how much each stream q learns from each other p, by their logits.

    Args:
        M: Number of streams, at least 2.
        d: Width of the features.
        K: Number of logits.
        per: "clip" or "target": what the softmax runs over.

    Attributes:
        edges: (p, q), p -> q, sources in order, then targets in order.
    """

    def __init__(self, M: int, d: int, K: int, per: str) -> None:
        super().__init__()
        self.edges = [(p, q) for p in range(M) for q in range(M) if p != q]
        self.groups = [[q] for q in range(M)] if per == "target" else [list(range(M))]
        self.F_1 = nn.Linear(d, K)
        # The softmax would cancel a bias.
        self.F_2 = nn.Linear(2 * (K + d), 1, bias=False)

    def forward(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weigh all edges.

        Args:
            h: (B, M, d), one feature per stream.
            present: (B, M).

        Returns:
            omega (B, E), 0 at edges of an absent stream; ||omega * psi||, a scalar, the mean over
            the clips with an edge; the logits (B, M, K).
        """
        logits = self.F_1(h)
        node = torch.cat([logits, h], dim=-1)  # [F_1(h_p), h_p]
        scores = torch.cat(
            [self.F_2(torch.cat([node[:, p], node[:, q]], dim=-1)) for p, q in self.edges], dim=1
        )
        keep = torch.stack([present[:, p] & present[:, q] for p, q in self.edges], dim=1)
        omega = torch.zeros_like(scores)
        for group in self.groups:
            own = keep & keep.new_tensor([q in group for _, q in self.edges])
            omega = omega + masked_softmax(scores, own)  # eq. 7
        psi = differences(logits, self.edges)
        return omega, mean_where((omega * psi).sum(dim=1), keep.any(dim=1)), logits  # eq. 8


class Enhancement(nn.Module):
    """Cross-modal attention between private features: P_t^e = P_t + mean of what t attends to.

    Args:
        M: Number of streams.
        d: Width.
        heads: H.
        dropout: Of attention weights.
    """

    def __init__(self, M: int, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.edges = [(s, t) for t in range(M) for s in range(M) if s != t]
        self.attention = nn.ModuleList(
            Attention(d, heads, dropout=dropout, bias=False) for _ in self.edges
        )

    def forward(
        self, P: list[Tensor], mask: list[Tensor], record: bool
    ) -> tuple[list[Tensor], dict[tuple[int, int], Tensor]]:
        """Enhance every stream by all others.

        Args:
            P: (B, T, d) of each stream.
            mask: (B, T) of each stream.
            record: Whether the weights are wanted.

        Returns:
            P^e (B, T, d) of each stream, and {(s, t): weights (B, H, T_t, T_s)}. Sources that a
            clip lacks are no part of the mean.
        """
        P = [zero_padding(z, m) for z, m in zip(P, mask, strict=True)]
        heard = [torch.zeros_like(z) for z in P]
        sources = [torch.zeros_like(m[:, :1], dtype=torch.long) for m in mask]
        weights = {}
        for (s, t), attention in zip(self.edges, self.attention, strict=True):
            # Without biases, what comes of an absent source is zero.
            attended, seen = attention(P[t], P[s], mask[s], record)
            heard[t] = heard[t] + attended
            sources[t] = sources[t] + mask[s].any(dim=1, keepdim=True)
            if seen is not None:
                weights[s, t] = seen
        enhanced = [
            z + y / n.clamp(min=1).unsqueeze(2) for z, y, n in zip(P, heard, sources, strict=True)
        ]
        return enhanced, weights


# --- fusion -------------------------------------------------------------------------------------


def mlp(d: int, out: int, dropout: float) -> nn.Sequential:
    """One hidden layer of the same width."""
    return nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d, out))


class TaskContribution(nn.Module):
    """What each feature says of the label, and how far that can be trusted.

    Args:
        n: Number of features.
        d: Width.
        K: Number of logits.
        dropout: In MLP^p.
    """

    def __init__(self, n: int, d: int, K: int, dropout: float) -> None:
        super().__init__()
        self.classify = nn.ModuleList(nn.Linear(d, K) for _ in range(n))
        self.MLP_p = nn.ModuleList(mlp(d, 1, dropout) for _ in range(n))

    def forward(self, features: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, d), (B, n) -> omega (B, n) in (0, 1), 0 where absent, and logits (B, n, K)."""
        each = features.unbind(dim=1)
        logits = torch.stack([c(z) for c, z in zip(self.classify, each, strict=True)], dim=1)
        omega = torch.cat([p(z) for p, z in zip(self.MLP_p, each, strict=True)], dim=1).sigmoid()
        return omega.masked_fill(~keep, 0.0), logits


def pooled(z: list[Tensor], mask: list[Tensor]) -> Tensor:
    """Means over real steps, (B, T, d) of each stream -> (B, M, d); zeros where absent."""
    return torch.stack([masked_mean(*pair) for pair in zip(z, mask, strict=True)], dim=1)
