"""Token disentanglement regularisation of TMT (3.2.2).

Shapes: B clips, n tokens, d width, M streams. `keep` (B,) bool names the clips that have what is
compared, masks (B, n) the tokens that are there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mertool.nn import masked_mean, mmd, orthogonality, zero_padding

KERNELS, FACTOR = 5, 2.0  # Gaussian kernels of eq. 3 and the ratio of their bandwidths


def similarity(
    U: Tensor, H: Tensor, keep: Tensor, form: str, bandwidth: float
) -> tuple[Tensor, Tensor]:
    """MMD(U_m, H_m) of one stream (eq. 2, 3), squared: the norm has no gradient at 0.

    Args:
        U: (B, d), mean of each clip's projected rows.
        H: (B, d), mean of its private tokens.
        keep: (B,).
        form: "batch" = the clips' U against the clips' H; "clip" = U against H of each clip, each
            a sample of one vector, then the mean over clips.
        bandwidth: For "clip", 2 sigma^2 of the middle kernel. One of its own for each pair would
            make the loss a constant.

    Returns:
        Scalar, and whether any clips could be compared ("batch": two); 0 where not.
    """
    n = keep.sum()
    if form == "batch":
        return mmd(U, H, KERNELS, FACTOR, keep=keep), n > 1
    distance = zero_padding(U - H, keep).square().sum(dim=1)
    widths = [bandwidth * FACTOR ** (i - KERNELS // 2) for i in range(KERNELS)]
    # k(u, u) + k(h, h) - 2 k(u, h) with k(u, u) = 1; 0 where u = h, as in the rows not kept.
    each = sum(-2 * torch.expm1(-distance / width) for width in widths)
    return each.sum() / n.clamp(min=1), n > 0


def cosines(A: Tensor, B: Tensor) -> Tensor:
    """Products of unit tokens, (B, n, d), (B, m, d) -> (B, n, m)."""
    A, B = (F.normalize(z, dim=-1, eps=1e-6) for z in (A, B))
    return A @ B.transpose(1, 2)


def separation(
    A: Tensor, mask_a: Tensor, B: Tensor, mask_b: Tensor, form: str
) -> tuple[Tensor, Tensor]:
    """||A B^T||^2 of two kinds of token: one term of eq. 4 or 5.

    Args:
        A: (B, n, d).
        mask_a: (B, n).
        B: (B, m, d).
        mask_b: (B, m).
        form: "tokens" = mean square of all cosines between tokens of one clip, then over clips;
            "batch" = MISA's, between the columns of the token means over the batch.

    Returns:
        Scalar, and whether any clips could be compared ("batch": two); 0 where not.
    """
    keep = mask_a.any(dim=1) & mask_b.any(dim=1)
    n = keep.sum()
    if form == "batch":
        return orthogonality(masked_mean(A, mask_a), masked_mean(B, mask_b), keep), n > 1
    real = mask_a.unsqueeze(2) & mask_b.unsqueeze(1)
    squares = (cosines(A, B).square() * real).sum(dim=(1, 2)) / real.sum(dim=(1, 2)).clamp(min=1)
    return squares.sum() / n.clamp(min=1), n > 0


def summed(terms: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum over streams or pairs of eq. 2, 4, 5.

    Args:
        terms: (scalar, whether it could be computed). One that could not counts as the mean of
            the others, so that the loss does not shrink where clips lack a stream.
    """
    values, there = (torch.stack(parts) for parts in zip(*terms, strict=True))
    return values.sum() * len(terms) / there.sum().clamp(min=1)
