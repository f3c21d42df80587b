"""The noise-aware learning scheme of NORM-TR (section 3.5): erased windows and two discriminators.

Shapes: B clips, M streams, T steps, d = N/2 width of NRGF and MF. Masks are (B, M, T) bool, True =
a real step. Windows are drawn by tensor operations alone, anew in every training step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.nn import mean_where, reverse_gradient, zero_padding


def mlp(d_in: int, d: int) -> nn.Sequential:
    """Two fully-connected layers, each followed by Leaky ReLU (3.3.1): d_in -> d -> d."""
    return nn.Sequential(
        nn.Linear(d_in, d), nn.LeakyReLU(0.01), nn.Linear(d, d), nn.LeakyReLU(0.01)
    )


def window(mask: Tensor) -> Tensor:
    """A random time window in each stream of each clip (3.5.1).

    Its length is 0 to half of the real steps, its place anywhere among them, each with equal
    probability.

    Args:
        mask: (B, M, T).

    Returns:
        (B, M, T) bool, True = inside the window.
    """
    n = mask.sum(dim=-1, keepdim=True)
    length = (torch.rand(n.shape, device=n.device) * (n // 2 + 1)).long()
    start = (torch.rand(n.shape, device=n.device) * (n - length + 1)).long()
    place = mask.cumsum(dim=-1) - 1
    return mask & (place >= start) & (place < start + length)


def type_1(mask: Tensor) -> Tensor:
    """Type-1 noise: what is erased, a window of its own in every stream; (B, M, T) bool."""
    return window(mask)


def type_2(mask: Tensor) -> Tensor:
    """Type-2 noise: what is erased, a window in one random stream of the clip; (B, M, T) bool."""
    absent = ~mask.any(dim=-1)
    draw = torch.rand(absent.shape, device=mask.device).masked_fill(absent, -1.0)
    one = draw.argmax(dim=1, keepdim=True) == torch.arange(mask.shape[1], device=mask.device)
    return window(mask) & one.unsqueeze(-1)


class Discriminators(nn.Module):
    """F_D1 and F_D2 with their losses; for training only.

    Args:
        streams: M.
        steps: T.
        d: Width of NRGF and MF.
    """

    def __init__(self, streams: int, steps: int, d: int) -> None:
        super().__init__()
        # With one stream there is nothing for D1 to tell apart.
        several = streams > 1
        self.D1 = nn.Linear(steps * d, streams) if several else None
        # "3 extra MLPs" under eq. 6, one per stream, each step alone.
        self.explain = nn.ModuleList(mlp(d, d) for _ in range(streams if several else 0))
        self.D2 = nn.Linear(streams * steps * d, streams)

    def adv_1(self, F_NR: Tensor, F_M: Tensor | None, mask: Tensor) -> Tensor:
        """L_adv-1 (eq. 6): from which stream is this?

        D1 and the extra MLPs minimise it, the NRGF extractor, behind the reversed gradient,
        maximises it. F_M teaches D1 alone: no gradient goes back through it.

        Args:
            F_NR: (B, M, T, d), zero at padded steps.
            F_M: The same, or None without MF.
            mask: (B, M, T).

        Returns:
            Scalar: mean cross-entropy over the streams that are there, of NRGF and of MF; ln M at
            chance.
        """
        assert self.D1 is not None
        M = mask.shape[1]
        turned = reverse_gradient(F_NR)
        explained = torch.stack([f(turned[:, k]) for k, f in enumerate(self.explain)], dim=1)
        inputs = [zero_padding(explained, mask)]
        if F_M is not None:
            inputs.append(F_M.detach())
        y_M = torch.arange(M, device=mask.device).expand(len(mask), M)
        losses = [
            F.cross_entropy(self.D1(x.flatten(2)).transpose(1, 2), y_M, reduction="none")
            for x in inputs
        ]
        return mean_where(torch.stack(losses).mean(dim=0), mask.any(dim=-1))

    def adv_2(self, F_NR: Tensor, erased: Tensor, mask: Tensor) -> Tensor:
        """L_adv-2 (eq. 7): which stream holds noise, if any?

        Args:
            F_NR: (B, M, T, d), zero at padded steps.
            erased: (B, M, T) bool, the noise.
            mask: (B, M, T).

        Returns:
            Scalar: mean binary cross-entropy over the streams that are there; ln 2 at chance.
        """
        y_N = erased.any(dim=-1).to(F_NR.dtype)
        logits = self.D2(reverse_gradient(F_NR).flatten(1))
        loss = F.binary_cross_entropy_with_logits(logits, y_N, reduction="none")
        return mean_where(loss, mask.any(dim=-1))
