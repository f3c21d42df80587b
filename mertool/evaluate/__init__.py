"""Evaluation: `mertool.evaluate(run)` opens a split, scores every seed and keeps the record.

opening.py opens the clips and lets the models predict, robust.py damages clips.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mertool import stats
from mertool.device import pick
from mertool.errors import DataError, UsageError
from mertool.evaluate import robust
from mertool.evaluate.opening import Pooled, open_data, pool
from mertool.files import sha256, to_json, write_text
from mertool.metrics import Scores, scale_of, scores
from mertool.splits.parts import doubts
from mertool.splits.parts import parts as parts_of
from mertool.stage import callable_stage
from mertool.store import FeatureFile
from mertool.train import folder as folders
from mertool.types import Label

__all__ = ["EvaluateReport", "open_data", "run"]

DRAWS = 1000  # of the bootstrap


@dataclass
class EvaluateReport:
    """Scores of a run on one split.

    Attributes:
        run: The run.
        split: Which clips.
        label: What is predicted.
        convention: Whose definitions the scores follow.
        scale: What a regression label's values were taken to mean; "" for other labels.
        clips: How many clips were scored, all folds together.
        seeds: {seed: {metric: value}}; in a cross-validation over the pooled predictions.
        mean: {metric: mean over seeds}.
        std: {metric: sample standard deviation over seeds}; None with one seed.
        interval: {metric: (low, high)}, 95% bootstrap interval of the mean over seeds.
        unit: What the bootstrap draws: "speakers", "recordings" or "clips".
        units: How many there are.
        folds: {fold: {"clips", "mean", "std", "baseline", "singles"}} in a cross-validation.
        baseline: {metric: value} of the constant predictor learnt from the training labels.
        singles: {stream: {"mean", "std"}} of the fusion trained on that stream alone.
        robustness: See `robust.summary`; None where it was not asked for.
        reasons: {metric: why it is NaN}.
        confusion: Sum of the seeds' confusion matrices, rows = true; [] for multilabel.
        classes: Names of its rows.
        notes: What a user should know.
    """

    run: str
    split: str
    label: Label
    convention: str = "mertool"
    scale: str = ""
    clips: int = 0
    seeds: dict[int, dict[str, float]] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    std: dict[str, float | None] = field(default_factory=dict)
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    unit: str = "clips"
    units: int = 0
    folds: dict[str, dict[str, Any]] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    singles: dict[str, dict[str, Any]] = field(default_factory=dict)
    robustness: dict[str, Any] | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain values: what metrics.json and --json hold."""
        plain = {k: v for k, v in vars(self).items() if k not in ("run", "split", "label")}
        return {
            "label": self.label.name, "task": self.label.task, "n_seeds": len(self.seeds), **plain
        }  # fmt: skip


def run(
    run: str | Path,
    features: str | Path | None = None,
    *,
    split: str = "test",
    convention: str = "mertool",
    scale: str = "",
    mask: str | None = None,
    noise: str = "erase",
    unit: str = "steps",
    streams: Sequence[str] = (),
    device: str = "auto",
    command: str = "",
) -> EvaluateReport:
    """Score every seed of a run on one split.

    Writes the predictions into each seed's folder and the scores into metrics.json, which also
    lists every opening of a split. A lone model.safetensors is scored and nothing is written.

    Args:
        run: Run folder, or a model.safetensors.
        features: Feature file; None = the one it was trained on.
        split: "train", "valid", "test" or "all".
        convention: Whose definitions the scores follow; see `mertool.metrics.CONVENTIONS`.
        scale: What a regression label's values mean: "mosi", "sims", "other"; "" = by its range.
        mask: Also score clips with a share of their steps lost: "START:END:STEP" of the shares.
        noise: What lost steps become: "erase" or "gauss".
        unit: What is lost: "steps" or a "window".
        streams: Streams that lose steps; empty = all together, then each alone.
        device: "auto", "cpu" or "cuda".
        command: Recorded with the opening.

    Returns:
        The scores.

    Raises:
        DataError: No such run, the features do not fit the model, or the convention's project
            cannot score these clips.
        UsageError: Unknown split, convention, device or masking.
        OutputError: The scores cannot be written.
    """
    run = Path(run)
    models = folders.models(run)
    config = {} if run.is_file() else folders.read_config(run)
    if features is None:
        if not config:
            raise DataError(
                "A lone model needs a feature file.", str(run), "mertool evaluate MODEL FEATURES.h5"
            )
        features = config["run"]["features"]
    features, where = Path(features), pick(device)
    asked = config.get("run", {})
    if split == "all" and asked.get("folds"):
        raise UsageError(
            "The folds of a cross-validation cannot be pooled over all clips.",
            str(run),
            "Choose --split test, or evaluate one model.safetensors.",
        )
    changes, masking, used = {}, None, asked.get("modalities") or list(streams)
    if mask is not None:
        if not config:
            raise UsageError("--mask needs a run folder.", str(run), "Give the run, not a model.")
        masking = robust.parse(mask, noise, unit, streams, used)
        changes = robust.conditions(masking, used)
    with FeatureFile(features) as file:
        parts, notes = parts_of(file, asked.get("splits", "default"), asked.get("folds", 0))
        pooled = pool(file, models, parts, split, where, changes)
        notes += _doubts(file, run, parts, split, pooled)
    digest = sha256(features)
    if not run.is_file():
        # Before anything is scored: whatever comes of it, the split has been seen.
        _record_opening(run, split, features, digest, command)
    label = pooled.label
    if label.task == "regression":
        scale = scale or scale_of(label)
    report = EvaluateReport(str(run), split, label, convention, scale, len(pooled.ids))
    report.notes = notes + _other_data(run, config, features, digest) + pooled.notes
    if not run.is_file():
        _write_predictions(run, pooled, split)
    _score(report, pooled, scale)
    if masking:
        report.robustness = robust.summary(pooled, masking, used, convention, scale)
    if not run.is_file():
        _keep(run, report)
    return report


def _score(report: EvaluateReport, pooled: Pooled, scale: str) -> None:
    """Fill in the scores of the clips as they are."""
    label, convention = pooled.label, report.convention

    def score(y: np.ndarray, pred: np.ndarray) -> Scores:
        return scores(label, y, pred, convention, scale)

    fusion = pooled.pred[""][""]
    results = {seed: score(pooled.y, pred) for seed, pred in fusion.items()}
    first = next(iter(results.values()))
    report.seeds = {seed: result.values for seed, result in results.items()}
    report.mean, report.std = stats.spread(list(report.seeds.values()))
    for result in results.values():
        report.reasons |= result.reasons
    if first.confusion:
        report.confusion = np.sum([r.confusion for r in results.values()], axis=0).tolist()
        report.classes = list(first.classes)

    def beside(mine: np.ndarray) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
        """The constant predictor and each stream alone on some of the clips."""
        constant: dict[str, float] = {}
        try:
            constant = score(pooled.y[mine], pooled.baseline[mine]).values
        except DataError as error:  # a convention may refuse what a constant predictor says
            report.notes.append(f"the constant predictor has no score: {error.what}")
        return constant, {
            only: mean_and_std(made[""], mine) for only, made in pooled.pred.items() if only
        }

    def mean_and_std(seeds: dict[int, np.ndarray], mine: np.ndarray) -> dict[str, Any]:
        each = [score(pooled.y[mine], pred[mine]).values for pred in seeds.values()]
        return dict(zip(("mean", "std"), stats.spread(each), strict=True))

    report.baseline, report.singles = beside(np.ones(len(pooled.ids), bool))
    folds = np.array(pooled.folds)
    for fold in dict.fromkeys(f for f in pooled.folds if f):
        mine = folds == fold
        try:
            made = {"clips": int(mine.sum()), **mean_and_std(fusion, mine)}
            made["baseline"], made["singles"] = beside(mine)
        except DataError as error:
            report.notes.append(f"{fold} has no score of its own: {error.what}")
            continue
        report.folds[fold] = made

    def resampled(chosen: np.ndarray) -> dict[str, float]:
        try:
            each = [score(pooled.y[chosen], pred[chosen]).values for pred in fusion.values()]
        except DataError:  # a draw that the convention's project cannot score
            return dict.fromkeys(report.mean, float("nan"))
        return stats.spread(each)[0]

    report.unit = pooled.units[0].split(" ")[0] + "s"
    report.units = len(set(pooled.units))
    if report.units > 1:
        draws = stats.bootstrap(resampled, pooled.units, DRAWS)
        report.interval = {name: stats.interval(values) for name, values in draws.items()}


def _doubts(
    file: FeatureFile, run: Path, parts: dict[str, list[str]], split: str, pooled: Pooled
) -> list[str]:
    """Whatever makes the scores worth less: leaks, a text that says nothing, clips seen before."""
    notes = doubts(file, parts, pooled.label, np.isin(file.ids, pooled.ids))
    if split == "test" and not run.is_file():
        trained = folders.read_splits(run)
        seen = sum(
            trained.get(fold, {}).get(name) in ("train", "valid")
            for name, fold in zip(pooled.ids, pooled.folds, strict=True)
        )
        if seen:
            notes.append(f"leak: {seen} of the scored clips were in the run's train or valid split")
    return notes


def _write_predictions(run: Path, pooled: Pooled, split: str) -> None:
    folds = np.array(pooled.folds)
    for only, made in pooled.pred.items():
        for seed, pred in made[""].items():
            for fold in dict.fromkeys(pooled.folds):
                mine = np.flatnonzero(folds == fold)
                folders.write_predictions(
                    folders.place(run, fold, only, seed) / f"predictions-{split}.csv",
                    pooled.label, [pooled.ids[i] for i in mine], pooled.y[mine], pred[mine],
                )  # fmt: skip


def _other_data(run: Path, config: dict[str, Any], features: Path, digest: str) -> list[str]:
    if not config:
        return []
    env = json.loads((run / "env.json").read_text(encoding="utf-8"))
    if env["data"]["sha256"] == digest:
        return []
    return [f"{features} is not the file the run was trained on, or has changed since"]


def _record_opening(run: Path, split: str, features: Path, digest: str, command: str) -> None:
    kept = _kept(run)
    kept["openings"].append(
        {
            "split": split,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "features": str(features.absolute()),
            "sha256": digest,
            "command": command,
            "torch": torch.__version__,
        }
    )
    write_text(run / "metrics.json", to_json(kept))


def _keep(run: Path, report: EvaluateReport) -> None:
    """Add the scores to metrics.json; curves of other maskings stay."""
    kept, record = _kept(run), report.record()
    curves = record.pop("robustness")
    kept["splits"].setdefault(report.split, {})[report.convention] = record
    if curves:
        name = " ".join([curves["noise"], curves["unit"], *curves["curves"]])
        each = kept.setdefault("robustness", {}).setdefault(report.split, {})
        each.setdefault(report.convention, {})[name] = curves
    write_text(run / "metrics.json", to_json(kept))


def _kept(run: Path) -> dict[str, Any]:
    path = run / "metrics.json"
    if not path.is_file():
        return {"splits": {}, "openings": []}
    return json.loads(path.read_text(encoding="utf-8"))


callable_stage(__name__)
