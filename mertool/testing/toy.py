"""Small made-up data in the shapes that training gives: specs and padded batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mertool.types import Batch, DataSpec

# {stream: (D, longest clip)}: all different, so that a mixed-up axis does not go unseen.
STREAMS = {"text": (6, 7), "audio": (4, 9), "vision": (5, 8)}
CLASSES = {
    "regression": (),
    "classification": ("angry", "happy", "neutral", "sad"),
    "multilabel": ("fear", "joy", "shame"),
}
RANGE = (-3.0, 3.0)


def spec(
    task: str = "regression",
    alignment: str = "none",
    streams: Iterable[str] = STREAMS,
    length: int = 0,
) -> DataSpec:
    """A data spec.

    Args:
        task: "regression", "classification" or "multilabel".
        alignment: "none", or "word": then all streams have the same number of steps.
        streams: Names; of other names than text, audio and vision D is 3.
        length: Steps of every stream; 0 = 7, 9 and 8.
    """
    sizes = {name: STREAMS.get(name, (3, 6)) for name in streams}
    if alignment != "none" and not length:
        length = 8
    return DataSpec(
        streams={name: (D, length or T) for name, (D, T) in sizes.items()},
        task=task,
        n_out=len(CLASSES[task]) or 1,
        classes=CLASSES[task],
        range=RANGE if task == "regression" else (0.0, 0.0),
        alignment=alignment,
    )


def batch(
    spec: DataSpec,
    B: int = 4,
    seed: int = 0,
    *,
    fixed: bool = False,
    spare: int = 0,
    steps: int = 0,
) -> Batch:
    """B clips of random lengths with labels that every stream tells.

    The first clip is the longest. Aligned streams have the same steps.

    Args:
        spec: Their streams and labels.
        B: Number of clips.
        seed: Of the random numbers.
        fixed: Pad to the lengths of the spec; otherwise to the longest clip.
        spare: Steps by which the longest clip is shorter than the spec says (it keeps one).
        steps: Steps of the longest clip, whatever the spec says; 0 = as there.
    """
    draw = torch.Generator().manual_seed(seed)
    y, signal = _labels(spec, B, draw)
    x, mask = {}, {}
    share = torch.rand(B, generator=draw)  # of the longest clip
    share[0] = 1.0
    for name, (D, T) in spec.streams.items():
        if spec.alignment == "none":
            share = torch.cat([share[:1], torch.rand(B - 1, generator=draw)])
        longest = steps or max(1, T - spare)
        lengths = (share * longest).ceil().clamp(1, longest)
        width = T if fixed else longest
        mask[name] = torch.arange(width) < lengths[:, None]
        told = signal @ torch.randn(signal.shape[1], D, generator=draw)  # (B, D)
        x[name] = torch.randn(B, width, D, generator=draw) + told[:, None]
        x[name] = x[name] * mask[name][..., None]
    return Batch(x, mask, y, tuple(f"clip{i}" for i in range(B)))


def _labels(spec: DataSpec, B: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Labels as training gives them, and as (B, K) numbers that the rows are made to tell."""
    if spec.task == "regression":
        low, high = spec.range
        y = torch.linspace(low, high, B + 2)[1:-1][torch.randperm(B, generator=draw), None]
        return y, y
    if spec.task == "classification":
        y = (torch.arange(B) + int(torch.randint(spec.n_out, (), generator=draw))) % spec.n_out
        return y, torch.nn.functional.one_hot(y, spec.n_out).float()
    y = torch.randint(2, (B, spec.n_out), generator=draw).float()
    return y, y


def without(batch: Batch, absent: Sequence[tuple[int, str]]) -> Batch:
    """The batch with streams taken from clips, [(clip, stream)]: zeros and an all-False mask."""
    x = {name: values.clone() for name, values in batch.x.items()}
    mask = {name: real.clone() for name, real in batch.mask.items()}
    for i, name in absent:
        x[name][i], mask[name][i] = 0.0, False
    return Batch(x, mask, batch.y, batch.ids, batch.record)


def dirty(batch: Batch, seed: int = 0) -> Batch:
    """The batch with random numbers in all padded places."""
    draw = torch.Generator().manual_seed(seed)
    x = {}
    for name, values in batch.x.items():
        noise = 10 * torch.randn(values.shape, generator=draw)
        x[name] = torch.where(batch.mask[name][..., None], values, noise)
    return Batch(x, batch.mask, batch.y, batch.ids, batch.record)


def longer(batch: Batch, steps: int) -> Batch:
    """The batch with more padding behind every stream."""
    pad = torch.nn.functional.pad
    return Batch(
        {name: pad(values, (0, 0, 0, steps)) for name, values in batch.x.items()},
        {name: pad(real, (0, steps)) for name, real in batch.mask.items()},
        batch.y,
        batch.ids,
        batch.record,
    )


def pick(batch: Batch, clips: Sequence[int]) -> Batch:
    """Some clips of a batch, in the order given, padded as before."""
    return Batch(
        {name: values[clips] for name, values in batch.x.items()},
        {name: real[clips] for name, real in batch.mask.items()},
        None if batch.y is None else batch.y[clips],
        tuple(batch.ids[i] for i in clips),
        batch.record,
    )
