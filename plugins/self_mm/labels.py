"""Self-MM's unimodal label generation module (ULGM): what it knows of the training clips.

Shapes: B clips of a batch, N clips seen so far, d_i width of a representation, S streams. Index 0
of the representations is the fused one (m in the paper), then come the streams (s).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-6


class LabelMemory:
    """Representations and unimodal labels of every training clip, found by clip id.

    Plain tensors outside the model's weights: training needs them, prediction does not. Labels
    are kept relative to `neutral`, so that their sign is the polarity that the paper's class
    centres go by.

    Args:
        streams: S.
        neutral: The label of a clip that is neither positive nor negative.
        bounds: Smallest and largest label; generated ones are kept within. None = no bounds.
    """

    def __init__(self, streams: int, neutral: float, bounds: tuple[float, float] | None) -> None:
        self.streams, self.neutral, self.bounds = streams, neutral, bounds
        self.place: dict[str, int] = {}
        self.y = torch.zeros(0)  # (N,), y_m - neutral
        self.visits = torch.zeros(0)  # (N,), epochs in which the clip was seen
        self.labels = torch.zeros(0, streams)  # (N, S), y_s - neutral
        self.present = torch.zeros(0, streams + 1, dtype=torch.bool)  # (N, S + 1)
        self.F: list[Tensor] = []  # S + 1 times (N, d_i), the global representations F^g

    def rows(self, ids: Sequence[str], y: Tensor, present: Tensor) -> Tensor:
        """Places of the clips, (B,) int64; new clips start with y_s = y_m.

        Args:
            ids: B ids.
            y: (B,), y_m.
            present: (B, S) bool, whether a clip has a stream.
        """
        y = y.detach().float() - self.neutral
        present = torch.cat([present.any(dim=1, keepdim=True), present], dim=1)
        new = [b for b, clip in enumerate(ids) if clip not in self.place]
        for clip in ids:
            self.place.setdefault(clip, len(self.place))
        if new:
            pick = torch.tensor(new, device=y.device)
            fresh = y[pick]
            self.y = torch.cat([self.y.to(y), fresh])
            self.visits = torch.cat([self.visits.to(y), torch.zeros_like(fresh)])
            self.labels = torch.cat([self.labels.to(y), fresh[:, None].repeat(1, self.streams)])
            self.present = torch.cat([self.present.to(y.device), present[pick]])
        return torch.tensor([self.place[clip] for clip in ids], device=y.device)

    def read(self, rows: Tensor) -> Tensor:
        """Current unimodal labels in the label's scale, (B, S)."""
        return self.labels[rows] + self.neutral

    @torch.no_grad()
    def update(self, rows: Tensor, F: Sequence[Tensor]) -> None:
        """One visit of a batch, after its loss: new labels, then new representations.

        Args:
            rows: (B,), from `rows`.
            F: S + 1 times (B, d_i), F*_m and F*_s of the batch.
        """
        F = [f.detach().float() for f in F]
        self.F = [
            grown(old, len(self.y), f)
            for old, f in zip(self.F or [f[:0] for f in F], F, strict=True)
        ]
        i = self.visits[rows, None] + 1  # (B, 1), the i of the momentum rule
        made = self.generate(rows, F)
        # In a clip's first epoch there is nothing to compare with: y_s^(1) = y_m.
        blended = (i - 1) / (i + 1) * self.labels[rows] + 2 / (i + 1) * made
        usable = (i > 1) & self.present[rows, 1:]
        self.labels[rows] = torch.where(usable, blended, self.labels[rows])
        self.visits[rows] = self.visits[rows] + 1
        for stored, f in zip(self.F, F, strict=True):
            stored[rows] = f

    def generate(self, rows: Tensor, F: Sequence[Tensor]) -> Tensor:
        """y_s of the batch before the momentum rule, relative to neutral, (B, S).

        The mean of the two relations y_s / y_m = alpha_s / alpha_m and
        y_s - y_m = alpha_s - alpha_m: y_m + (alpha_s - alpha_m) / 2 * (y_m + alpha_m) / alpha_m.
        """
        alpha = torch.stack([self.relative(k, f) for k, f in enumerate(F)], dim=1)  # (B, S + 1)
        of_m, of_s = alpha[:, :1], alpha[:, 1:]
        safe = torch.where(of_m.abs() < EPSILON, EPSILON, of_m)
        y = self.y[rows, None]
        made = y + (of_s - of_m) / 2 * (y + of_m) / safe
        if self.bounds is not None:
            low, high = self.bounds
            made = made.clamp(low - self.neutral, high - self.neutral)
        return made

    def relative(self, k: int, f: Tensor) -> Tensor:
        """Relative distance value alpha = (D^n - D^p) / (D^p + epsilon) of F*, (B, d) -> (B,)."""
        # Only clips whose representation is stored: those visited, and present in stream k.
        known = (self.visits > 0) & self.present[:, k]
        D_p = distance(f, centre(self.F[k], known & (self.y > 0)))
        D_n = distance(f, centre(self.F[k], known & (self.y < 0)))
        return (D_n - D_p) / (D_p + EPSILON)


def grown(old: Tensor, N: int, like: Tensor) -> Tensor:
    """(n, d) -> (N, d) with zeros for the clips not seen yet."""
    return torch.cat([old, like.new_zeros(N - len(old), like.shape[1])])


def centre(F: Tensor, chosen: Tensor) -> Tensor:
    """Class centre C: mean of the chosen rows, (N, d), (N,) -> (d,); zeros where there is none."""
    weight = chosen.to(F)
    return weight @ F / weight.sum().clamp(min=1)


def distance(f: Tensor, C: Tensor) -> Tensor:
    """D: squared distance to a centre over the root of the width, (B, d), (d,) -> (B,)."""
    return (f - C).square().sum(dim=1) / f.shape[1] ** 0.5
