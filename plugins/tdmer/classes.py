"""What TDMER's classifiers tell apart: bins of a score, classes, or each label's yes and no.

Shapes: B clips, K logits. "Index" is the paper's I*: the true bin or class (B,), or, for a
multilabel task, the labels themselves (B, K), 0 or 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.types import DataSpec

WHOLE = (5, 11)  # so many whole numbers are a rating scale; of others, so many bins are made:
EVEN = 7


class Classes(nn.Module):
    """The label as classes, for all three tasks.

    A regression label is cut into bins around evenly spaced scores; the prediction is the expected
    score.

    Args:
        spec: Task, and the range of a regression label.
        bins: Number of bins over that range; 0 = by the range (see `scores_of`).

    Attributes:
        K: Number of logits.
        scores: (K,) the bins' scores; of no length for other tasks.
    """

    def __init__(self, spec: DataSpec, bins: int = 0) -> None:
        super().__init__()
        self.task = spec.task
        scores = scores_of(*spec.range, bins) if spec.task == "regression" else ()
        self.K = len(scores) or spec.n_out
        self.register_buffer("scores", torch.tensor(scores), persistent=False)
        if scores:
            self.step = (scores[-1] - scores[0]) / (len(scores) - 1)
            self.low = scores[0] * (len(scores) - 1) / (scores[-1] - scores[0])  # in steps

    def index(self, y: Tensor) -> Tensor:
        """I*, the bin nearest to each score (B, 1) -> (B,); labels of other tasks are it.

        Halves go to the even number of steps from zero, as rounded scores are in Acc-7: of whole
        numbers, 0.5 to 0, 1.5 and 2.5 to 2.
        """
        if self.task != "regression":
            return y
        whole = self.low // 1
        bins = (y[:, 0] / self.step - (self.low - whole)).round() - whole
        return bins.clamp(0, self.K - 1).long()

    def z(self, logits: Tensor) -> Tensor:
        """Probabilities (..., K): of the classes together, in a multilabel task of each alone."""
        return logits.sigmoid() if self.task == "multilabel" else logits.softmax(dim=-1)

    def tcp(self, logits: Tensor, index: Tensor) -> Tensor:
        """TCP, the true class's probability, (B, K) -> (B,); multilabel: mean over the labels."""
        z = self.z(logits)
        if self.task == "multilabel":
            return (index * z + (1 - index) * (1 - z)).mean(dim=-1)
        return z.gather(-1, index.unsqueeze(-1)).squeeze(-1)

    def nll(self, logits: Tensor, index: Tensor) -> Tensor:
        """-log z(I*) of each clip, (B, K) -> (B,); multilabel: mean over the labels."""
        if self.task == "multilabel":
            loss = F.binary_cross_entropy_with_logits
            return loss(logits, index, reduction="none").mean(dim=-1)
        return F.cross_entropy(logits, index, reduction="none")

    def pred(self, logits: Tensor) -> Tensor:
        """Expected score (B, 1) of a regression label, else the logits (B, K)."""
        if self.task != "regression":
            return logits
        return (self.z(logits) * self.scores).sum(dim=-1, keepdim=True)


def scores_of(low: float, high: float, bins: int = 0) -> tuple[float, ...]:
    """The scores that bins of a regression label stand for.

    Args:
        low: Smallest label; where it is no smaller than the largest, the range is not known and
            taken as the value +- 3.
        high: Largest label.
        bins: Number of scores, evenly spaced from low to high; 0 = the whole numbers from low to
            high (both rounded) where they are 5 to 11 of them, as on a rating scale, else 7 evenly
            spaced.

    Returns:
        -3, -2, ..., 3 for the range -3 to 3; 1, ..., 5 for 1 to 5; -1, -2/3, ..., 1 for -1 to 1.
    """
    if not low < high:
        low, high = low - 3.0, low + 3.0
    if not bins:
        first, last = round(low), round(high)
        if WHOLE[0] <= last - first + 1 <= WHOLE[1]:
            return tuple(float(score) for score in range(first, last + 1))
        bins = EVEN
    return tuple(low + (high - low) * k / (bins - 1) for k in range(bins))
