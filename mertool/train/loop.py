"""One training run: one fusion, one seed, selected on validation loss."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mertool.data import Dataset
from mertool.errors import MertoolError, PluginError, UsageError
from mertool.files import to_json
from mertool.metrics import scores
from mertool.types import Batch, DataSpec, FusionOutput

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class TrainConfig:
    """How a fusion is trained.

    Attributes:
        epochs: Most passes over the training clips.
        batch_size: Clips per step.
        lr: Highest learning rate.
        optimizer: adam or adamw.
        weight_decay: Weight decay of the optimiser.
        schedule: constant, linear or cosine; the last two fall to zero over all epochs.
        warmup: Share of all steps in which the learning rate rises linearly from near zero.
        patience: Epochs without a better validation loss before stopping; 0 = never stop early.
        clip: Largest gradient norm; 0 = no clipping.
        amp: bfloat16 mixed precision on a GPU that has it; no effect on a CPU.
    """

    epochs: int = 50
    batch_size: int = 32
    lr: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    patience: int = 10
    clip: float = 1.0
    amp: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not self.lr > 0:
            raise ValueError("lr must be above 0")
        for name in ("weight_decay", "patience", "clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        if not 0 <= self.warmup < 1:
            raise ValueError("warmup is a share of all steps, from 0 to below 1")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}")


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def task_loss(task: str, fact: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The loss the host adds: the fusion's fact for regression, cross-entropy else.

    Args:
        task: The label's task.
        fact: The fusion's `task_loss` fact: l1, mse, ce, bce or none.

    Returns:
        A function of pred (B, K) and y, or None where the fusion brings its own loss.

    Raises:
        PluginError: The fact is unknown or is no loss for regression.
    """
    if fact == "none":
        return None
    if fact not in ("l1", "mse", "ce", "bce"):
        raise PluginError(
            f'The fusion\'s fact task_loss is "{fact}".', "", "l1, mse, ce, bce, none"
        )
    if task == "classification":
        return F.cross_entropy
    if task == "multilabel":
        return F.binary_cross_entropy_with_logits
    if fact not in ("l1", "mse"):
        raise PluginError(f'"{fact}" is no loss for a regression label.', "", "Fact: l1 or mse.")
    return F.l1_loss if fact == "l1" else F.mse_loss


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Factor on the learning rate at a step, from 0 up to 1."""
    warm = math.ceil(config.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "constant":
        return 1.0
    done = (step - warm) / max(1, steps - warm)
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def checked(output: FusionOutput, batch: Batch, spec: DataSpec) -> FusionOutput:
    """Refuse an output that breaks the contract.

    Raises:
        PluginError: pred has another shape than (B, K).
    """
    expected = (len(batch.ids), spec.n_out)
    if tuple(output.pred.shape) != expected:
        raise PluginError(
            f"The fusion's pred has shape {tuple(output.pred.shape)}, not (B, K) = {expected}.",
            "",
            "The contract is in docs/plugin-reference.md.",
        )
    return output


class Trainer:
    """Trains one model with one seed.

    Args:
        model: The fusion, on its device.
        spec: What it was built for.
        facts: The fusion's facts.
        config: Settings.
        train: Training clips, normalised.
        valid: Validation clips, normalised.
        device: Where to train.

    Raises:
        UsageError: The clips are not of the splits train and valid.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: DataSpec,
        facts: dict[str, Any],
        config: TrainConfig,
        train: Dataset,
        valid: Dataset,
        device: torch.device,
    ) -> None:
        for name, part in (("train", train), ("valid", valid)):
            if part.split != name:
                raise UsageError(
                    f'Clips of the split "{part.split}" were given to the training as {name}.',
                    type(model).__name__,
                    "Learning and selection see train and valid only; evaluate opens test.",
                )
        self.model, self.spec, self.config = model, spec, config
        self.train, self.valid, self.device = train, valid, device
        self.loss = task_loss(spec.task, facts.get("task_loss", "mse"))
        self.lengths = fixed_lengths(spec, facts)
        self.amp = config.amp and device.type == "cuda" and torch.cuda.is_bf16_supported()

    def fit(
        self, seed: int, log: Path, on_epoch: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Train, stop early, and leave the model with its best validation weights.

        Args:
            seed: Fixes the order of the clips (the weights were seeded by whoever built the model).
            log: JSONL file, a line per epoch.
            on_epoch: Called with each line.

        Returns:
            The line of the best epoch.

        Raises:
            MertoolError: The loss is no longer finite.
        """
        config, model = self.config, self.model
        optimizer = OPTIMIZERS[config.optimizer](
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        per_epoch = math.ceil(len(self.train) / config.batch_size)
        steps = per_epoch * config.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(step, steps, config)
        )
        order = torch.Generator().manual_seed(seed)
        best: dict[str, Any] = {"valid_loss": math.inf}
        weights: dict[str, Tensor] = {}
        with open(log, "w", encoding="utf-8") as file:
            for epoch in range(1, config.epochs + 1):
                started = time.monotonic()
                terms = self._epoch(optimizer, schedule, order)
                valid_loss, pred = self.evaluate(self.valid)
                if not math.isfinite(terms["total"]) or not math.isfinite(valid_loss):
                    raise MertoolError(
                        f"The loss is not finite in epoch {epoch} (seed {seed}).",
                        str(log),
                        f"Lower the learning rate: --set train.lr={config.lr / 10:g}",
                    )
                line = {
                    "epoch": epoch,
                    "lr": schedule.get_last_lr()[0],
                    "train": terms,
                    "valid_loss": valid_loss,
                    "valid": scores(self.valid.label, self.valid.y.cpu(), pred).values,
                    "seconds": round(time.monotonic() - started, 3),
                }
                file.write(to_json(line, indent=None) + "\n")
                file.flush()
                if on_epoch:
                    on_epoch(line)
                if valid_loss < best["valid_loss"]:
                    best = line
                    weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
                elif config.patience and epoch - best["epoch"] >= config.patience:
                    break
        model.load_state_dict(weights)
        return best

    def _epoch(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        order: torch.Generator,
    ) -> dict[str, float]:
        """One pass; returns the mean of every loss term over clips."""
        self.model.train()
        # Sums stay on the device: reading them each step would make the GPU wait.
        sums: dict[str, Tensor] = {}
        for indices in torch.randperm(len(self.train), generator=order).split(
            self.config.batch_size
        ):
            batch = self.train.batch(indices, self.device, self.lengths)
            terms = self._terms(batch)[0]
            optimizer.zero_grad(set_to_none=True)
            terms["total"].backward()
            if self.config.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            optimizer.step()
            schedule.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() * len(indices)
        return {name: float(value) / len(self.train) for name, value in sums.items()}

    def _terms(self, batch: Batch) -> tuple[dict[str, Tensor], FusionOutput]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            output = checked(self.model(batch), batch, self.spec)
        pred = output.pred.float()
        terms = {} if self.loss is None else {"task": self.loss(pred, batch.y)}
        terms |= output.losses
        if not terms:
            raise PluginError(
                "The fusion's fact task_loss is none, but its losses are empty.",
                type(self.model).__name__,
                "Put the loss into FusionOutput.losses.",
            )
        terms["total"] = torch.stack([t.float() for t in terms.values()]).sum()
        return terms, output

    @torch.no_grad()
    def evaluate(self, data: Dataset) -> tuple[float, Tensor]:
        """The loss that selects the model, and (N, K) predictions on the CPU.

        The task loss alone selects; where the fusion brings its own, their sum.
        """
        self.model.eval()
        total, preds = 0.0, []
        for indices in torch.arange(len(data)).split(self.config.batch_size):
            batch = data.batch(indices, self.device, self.lengths)
            terms, output = self._terms(batch)
            total += float(terms.get("task", terms["total"])) * len(indices)
            preds.append(output.pred.float().cpu())
        return total / len(data), torch.cat(preds)


def fixed_lengths(spec: DataSpec, facts: dict[str, Any]) -> dict[str, int] | None:
    """{stream: steps} that every batch is cropped or padded to, None = its own longest."""
    if not facts.get("fixed_length"):
        return None
    return {name: length for name, (_, length) in spec.streams.items()}


@torch.no_grad()
def predict_all(
    model: nn.Module, data: Dataset, facts: dict[str, Any], spec: DataSpec, device: torch.device
) -> Tensor:
    """(N, K) raw predictions of a trained fusion, on the CPU."""
    model.eval()
    lengths = fixed_lengths(spec, facts)
    preds = []
    for indices in torch.arange(len(data)).split(64):
        batch = data.batch(indices, device, lengths)
        # y must not reach the model: a prediction may not depend on it.
        batch.y = None
        preds.append(checked(model(batch), batch, spec).pred.float().cpu())
    return torch.cat(preds) if preds else torch.zeros(0, spec.n_out)
