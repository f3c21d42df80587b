"""Random clips for tests of fusions."""

from __future__ import annotations

import torch
from torch import Tensor

from mertool.types import Batch, DataSpec

K = {"regression": 1, "classification": 4, "multilabel": 3}


def labels_of(task: str, B: int) -> Tensor:
    """Labels that differ from clip to clip, of K outputs."""
    return {
        "regression": torch.linspace(-2, 2.5, B)[:, None],
        "classification": torch.arange(B) % K["classification"],
        "multilabel": (torch.arange(B)[:, None] >> torch.arange(K["multilabel"]) & 1).float(),
    }[task]


def batch_of(spec: DataSpec, B: int = 4, seed: int = 0, record: bool = False) -> Batch:
    """Clips of random lengths, the first one of full length; labels of the task."""
    draw = torch.Generator().manual_seed(seed)
    x, mask = {}, {}
    for m, (D, T) in spec.streams.items():
        lengths = torch.randint(1, T + 1, (B,), generator=draw)
        lengths[0] = T
        mask[m] = torch.arange(T) < lengths[:, None]
        x[m] = torch.randn(B, T, D, generator=draw) * mask[m][..., None]
    ids = tuple(f"clip{i}" for i in range(B))
    return Batch(x, mask, labels_of(spec.task, B), ids, record)
