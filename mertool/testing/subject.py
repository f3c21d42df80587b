"""A fusion under test: built for toy data, run as training runs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mertool.errors import PluginError
from mertool.testing import toy
from mertool.testing.common import Plugin
from mertool.testing.results import need
from mertool.train.loop import checked, seed_everything, task_loss
from mertool.types import TASKS, Batch, DataSpec, FusionOutput


class Subject:
    """A fusion and the data that its checks use.

    Attributes:
        entry: What is registered.
        section: "fusion".
        config: Its settings.
        cls: Its class.
        fixed: Its fact fixed_length.
        home: (task, alignment) of most checks: the first that it can be built for, so that a
            fusion which refuses some data fails the checks of those data alone.
    """

    def __init__(self, plugin: Plugin) -> None:
        self.entry, self.section = plugin.entry, plugin.section
        self.cls, self.config = plugin.cls, plugin.config
        self.fixed = bool(self.entry.facts.get("fixed_length"))
        self.home = (TASKS[0], "none")
        for alignment in ("none", "word"):
            for task in TASKS:
                if self._can(task, alignment):
                    self.home = (task, alignment)
                    return

    def _can(self, task: str, alignment: str) -> bool:
        try:
            task_loss(task, self.loss)
            self.build(toy.spec(task, alignment))
        except Exception:  # foreign code; the check of that task or alignment says it
            return False
        return True

    @property
    def loss(self) -> str:
        """Its fact task_loss."""
        return self.entry.facts.get("task_loss", "mse")

    def spec(
        self, streams: Iterable[str] = toy.STREAMS, task: str = "", alignment: str = "", **more: int
    ) -> DataSpec:
        """Toy data, of the home task and alignment where nothing else is said."""
        return toy.spec(task or self.home[0], alignment or self.home[1], streams, **more)

    def batch(self, spec: DataSpec, B: int = 4, seed: int = 0, **more: int) -> Batch:
        """A batch padded as the fusion asks for."""
        return toy.batch(spec, B, seed, fixed=self.fixed, **more)

    def build(self, spec: DataSpec, seed: int = 0) -> nn.Module:
        """The fusion, initialised from a seed."""
        seed_everything(seed)
        return self.cls(self.config, spec)

    def run(self, model: nn.Module, batch: Batch, spec: DataSpec) -> FusionOutput:
        """Predict, in evaluation mode."""
        model.eval()
        with torch.no_grad():
            return sound(model(batch), batch, spec)

    def pred(self, model: nn.Module, batch: Batch, spec: DataSpec) -> Tensor:
        """(B, K), as `predict` gets them: without labels."""
        return self.run(model, Batch(batch.x, batch.mask, None, batch.ids, batch.record), spec).pred

    def terms(self, output: FusionOutput, batch: Batch, spec: DataSpec) -> Tensor:
        """The loss: the task's and the fusion's own."""
        try:
            loss = task_loss(spec.task, self.loss)
        except PluginError:  # that is for the check "losses" to say
            loss = task_loss(spec.task, "l1")
        terms = [] if loss is None else [loss(output.pred, batch.y)]
        terms += [term.float().mean() for term in output.losses.values()]
        return torch.stack(terms).sum() if terms else output.pred.sum() * 0.0

    def step(self, model: nn.Module, batch: Batch, spec: DataSpec) -> Tensor:
        """One forward and backward pass in training mode: finite loss, finite gradients."""
        model.train()
        model.zero_grad(set_to_none=True)
        total = self.terms(sound(model(batch), batch, spec), batch, spec)
        need(torch.isfinite(total), f"the loss is {float(total)} in training")
        if total.requires_grad:
            total.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                need(torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite")
        return total.detach()

    def train(
        self, model: nn.Module, batch: Batch, spec: DataSpec, steps: int, lr: float = 1e-3
    ) -> None:
        """Some steps of Adam on one batch, gradients clipped as in training."""
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        for _ in range(steps):
            self.step(model, batch, spec)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    def try_out(self, spec: DataSpec, batch: Batch) -> None:
        """Build, train a step and predict."""
        model = self.build(spec)
        self.step(model, batch, spec)
        self.pred(model, batch, spec)


def sound(output: Any, batch: Batch, spec: DataSpec) -> FusionOutput:
    """See that an output is one: (B, K) floating-point numbers, all finite."""
    need(isinstance(output, FusionOutput), f"forward gives a {type(output).__name__}")
    checked(output, batch, spec)
    need(output.pred.is_floating_point(), f"pred is of type {output.pred.dtype}")
    need(torch.isfinite(output.pred).all(), "pred is not finite")
    return output


def same(one: Tensor, other: Tensor, what: str, tolerance: float = 1e-4) -> None:
    """Fail unless two predictions are the same up to rounding."""
    scale = max(1.0, float(other.abs().max()))
    gap = float((one - other).abs().max()) / scale
    need(gap <= tolerance, f"{what} changes pred by {gap:.2g}")
