"""A correct toy fusion, and copies of it each with one fault, named after the check to catch it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mertool.types import Batch, DataSpec, FusionOutput


@dataclass(frozen=True)
class Config:
    d_model: int = 16
    names: tuple[str, ...] = ("a", "b")


class Correct(nn.Module):
    """Mean of every stream, concatenated, two layers."""

    Config = Config

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__()
        self.streams = sorted(spec.streams)
        self.hidden = nn.Linear(sum(D for D, _ in spec.streams.values()), config.d_model)
        self.out = nn.Linear(config.d_model, spec.n_out)

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        total = x.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
        return total / mask.sum(1, keepdim=True).clamp(min=1)

    def joined(self, batch: Batch) -> Tensor:
        means = [self.pooled(batch.x[m], batch.mask[m]) for m in self.streams]
        return torch.tanh(self.hidden(torch.cat(means, 1)))

    def forward(self, batch: Batch) -> FusionOutput:
        h = self.joined(batch)
        attention = batch.x[self.streams[0]].new_zeros(len(h), 1, 2, 2)
        if not batch.record:
            return FusionOutput(self.out(h))
        return FusionOutput(self.out(h), {}, {"w": h.softmax(1)}, {"h": h}, {"a": attention})


class Padding(Correct):
    """Divides by all steps and sums them all, padded ones too."""

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.mean(1)


class Labels(Correct):
    """Looks at the labels."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        if batch.y is None:
            return output
        hint = batch.y.float().reshape(len(output.pred), -1).mean(1, keepdim=True)
        return output._replace(pred=output.pred + 0.1 * hint)


class Gradients(Correct):
    """Has a layer that nothing uses."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.unused = nn.Linear(2, 2)


class ZeroGradients(Correct):
    """Has a layer that is used, but of which nothing remains."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.unused = nn.Linear(config.d_model, 1)

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(pred=output.pred + 0.0 * self.unused(self.joined(batch)))


class BatchStatistics(Correct):
    """Centres over the batch when predicting, too."""

    def joined(self, batch: Batch) -> Tensor:
        h = super().joined(batch)
        return h - 0.5 * h.mean(0)


class Order(Correct):
    """Adds to every clip something of the one before it."""

    def joined(self, batch: Batch) -> Tensor:
        h = super().joined(batch)
        return h + 0.2 * h.roll(1, 0)


class Values(Correct):
    """Goes by the values of a tensor."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        if output.pred.abs().max() > 1e6:
            output = output._replace(pred=output.pred.clamp(-1e6, 1e6))
        return output


class Shapes(Correct):
    """Picks the real steps: how many there are depends on values."""

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        rows = [
            one[real].sum(0) / max(1, len(one[real])) for one, real in zip(x, mask, strict=True)
        ]
        return torch.stack(rows)


class Absent(Correct):
    """Divides by the number of steps, which may be zero."""

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1) / mask.sum(1, keepdim=True)


class Single(Correct):
    """Has a loss that needs two clips."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(losses={"spread": 0.01 * self.joined(batch).std(0).mean()})


class SingleStep(Correct):
    """Cannot do without a second step."""

    def pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        assert x.shape[1] > 1, "too short"
        return super().pooled(x, mask)


class Longer(Correct):
    """Has weights for the steps of training only."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.lengths = {m: T for m, (_, T) in spec.streams.items()}

    def joined(self, batch: Batch) -> Tensor:
        assert all(batch.x[m].shape[1] <= self.lengths[m] for m in self.streams), "too long"
        return super().joined(batch)


class Streams(Correct):
    """Takes for granted that there is text."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.width = spec.streams["text"][0]


class Names(Correct):
    """Knows no other names of streams."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        if not {"text", "audio", "vision"} & set(spec.streams):
            raise KeyError("text")


class Tasks(Correct):
    """Always gives one number."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.out = nn.Linear(config.d_model, 1)


class Unaligned(Correct):
    """Needs streams of one length."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        if spec.alignment == "none":
            raise ValueError("needs aligned streams")


class Aligned(Correct):
    """Cannot be built for aligned streams."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        if spec.alignment != "none":
            raise ValueError("needs unaligned streams")


class Seed(Correct):
    """Is initialised from the system's random numbers."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        own = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
        nn.init.normal_(self.out.weight, 0.0, 0.1, generator=own)


class Overfit(Correct):
    """Cannot learn: what comes out is far too small."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(pred=1e-6 * output.pred)


class Checkpoint(Correct):
    """Keeps random numbers that are not saved."""

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("shift", torch.randn(spec.n_out), persistent=False)

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(pred=output.pred + self.shift)


class Record(Correct):
    """Always gives features."""

    def forward(self, batch: Batch) -> FusionOutput:
        return super().forward(batch)._replace(features={"h": self.joined(batch)})


class RecordedShape(Correct):
    """Gives attention without heads."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(attention={m: a[:, 0] for m, a in output.attention.items()})


class Losses(Correct):
    """Takes the name of the host's loss."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(losses={"task": 0.01 * output.pred.square().mean()})


class LossShape(Correct):
    """Gives a loss for every clip."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(losses={"size": 0.01 * output.pred.square().mean(1)})


@dataclass(frozen=True)
class GrowingConfig:
    d_model: int = 16
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "note", self.note + "x")


class Growing(Correct):
    """Settings that are others each time they are read."""

    Config = GrowingConfig


@dataclass
class LooseConfig:
    d_model: int = 16


class Loose(Correct):
    """Settings that can be changed."""

    Config = LooseConfig


class Moody(Correct):
    """Draws random numbers when predicting."""

    def forward(self, batch: Batch) -> FusionOutput:
        output = super().forward(batch)
        return output._replace(pred=output.pred + 1e-6 * torch.randn_like(output.pred))
