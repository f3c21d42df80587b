"""Evaluation: `mertool.evaluate(run)` opens a split, scores every seed and keeps the record."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mertool import data as datasets
from mertool.device import pick
from mertool.errors import DataError, did_you_mean
from mertool.files import sha256, to_json, write_text
from mertool.metrics import baseline_prediction, scores
from mertool.stage import callable_stage
from mertool.store import FeatureFile
from mertool.train import folder as folders
from mertool.train.checkpoint import Trained, load
from mertool.train.loop import predict_all
from mertool.types import Label


@dataclass
class EvaluateReport:
    """Scores of a run on one split.

    Attributes:
        run: The run.
        split: Which clips.
        label: What is predicted.
        clips: How many clips were scored.
        seeds: {seed: {metric: value}}.
        mean: {metric: mean over seeds}.
        std: {metric: sample standard deviation over seeds}; None with one seed.
        baseline: {metric: value} of the constant predictor learnt from the training labels.
        confusion: Sum of the seeds' confusion matrices, rows = true; [] for multilabel.
        classes: Names of its rows.
        notes: What a user should know.
    """

    run: str
    split: str
    label: Label
    clips: int = 0
    seeds: dict[int, dict[str, float]] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    std: dict[str, float | None] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain values: what metrics.json and --json hold."""
        return {
            "label": self.label.name, "task": self.label.task, "clips": self.clips,
            "n_seeds": len(self.seeds), "mean": self.mean, "std": self.std,
            "seeds": {str(k): v for k, v in self.seeds.items()}, "baseline": self.baseline,
            "confusion": self.confusion, "classes": self.classes, "notes": self.notes,
        }  # fmt: skip


def run(
    run: str | Path,
    features: str | Path | None = None,
    *,
    split: str = "test",
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
        device: "auto", "cpu" or "cuda".
        command: Recorded with the opening.

    Returns:
        The scores.

    Raises:
        DataError: No such run, or the features do not fit the model.
        UsageError: Unknown split or device.
        OutputError: The scores cannot be written.
    """
    run = Path(run)
    paths = folders.models(run)
    config = {} if run.is_file() else folders.read_config(run)
    if features is None:
        if not config:
            raise DataError(
                "A lone model needs a feature file.", str(run), "mertool evaluate MODEL FEATURES.h5"
            )
        features = config["run"]["features"]
    features = Path(features)
    where = pick(device)
    every = [load(path, where) for path in paths]
    first = every[0]
    report = EvaluateReport(str(run), split, first.label)
    with FeatureFile(features) as file:
        assigned, note = datasets.assign_splits(
            file, config.get("run", {}).get("splits", "default")
        )
        wanted = datasets.of_split(assigned, split, features)
        # The seeds of a run were trained on the same rows, and so share streams and normaliser.
        part = open_data(file, first, wanted, labelled=True)
    if not len(part):
        raise DataError(
            f"No labelled clip is in the {split} split.",
            str(features),
            "Choose another with --split; mertool data info shows what there is.",
        )
    digest = sha256(features)
    report.clips, y = len(part), part.y.numpy()
    report.notes = [note] if note else []
    report.notes += _other_data(run, config, features, digest)
    if part.unlabelled:
        report.notes.append(f"{part.unlabelled} clips have no label and are not scored")
    if part.blank.any():
        report.notes.append(
            f"{part.blank.sum()} clips have no row in any stream and are scored too"
        )
    part.to(where)
    matrices = []
    for path, trained in zip(paths, every, strict=True):
        pred = predict_all(trained.model, part, trained.facts, trained.spec, where)
        result = scores(first.label, y, pred)
        matrices.append(np.array(result.pop("confusion", [])))
        report.seeds[trained.seed] = result
        if not run.is_file():
            folders.write_predictions(
                path.parent / f"predictions-{split}.csv", first.label, part.ids, y, pred.numpy()
            )
    constant = baseline_prediction(first.label, first.baseline, len(y))
    report.baseline = scores(first.label, y, constant)
    report.baseline.pop("confusion", None)
    report.confusion = np.sum(matrices, axis=0).tolist() if matrices[0].size else []
    if report.confusion:
        report.classes = list(first.label.classes) or _rounded(first.label)
    for name in report.seeds[first.seed]:
        values = np.array([s[name] for s in report.seeds.values()])
        report.mean[name] = float(values.mean())
        report.std[name] = float(values.std(ddof=1)) if len(values) > 1 else None
    if not run.is_file():
        _keep(run, report, features, digest, command)
    return report


def open_data(
    file: FeatureFile, trained: Trained, wanted: np.ndarray, labelled: bool
) -> datasets.Dataset:
    """Read clips for a trained model and normalise them as it was trained.

    Raises:
        DataError: A stream or the label is missing, or was made in another way.
    """
    if file.alignment != trained.spec.alignment:
        raise DataError(
            f'The features have alignment "{file.alignment}", '
            f'the model was trained with "{trained.spec.alignment}".',
            str(file.path),
            "Align them in the same way: mertool align",
        )
    for name, made in trained.streams.items():
        if name not in file.streams:
            raise DataError(
                f'The model needs the stream "{name}".',
                str(file.path),
                did_you_mean(name, file.streams),
            )
        if list(file.streams[name].columns) != made["columns"]:
            raise DataError(
                f'The columns of "{name}" are not those the model was trained with.',
                f"{file.path}: {file.streams[name].attrs.get('extractor')}, "
                f"the model's: {made['attrs'].get('extractor')}",
                "Extract with the same extractor and settings.",
            )
    label = None
    if labelled:
        label = datasets.pick_label(file, trained.label.name)
        if (label.task, label.classes) != (trained.label.task, trained.label.classes):
            raise DataError(
                f'The label "{label.name}" has other classes than the model was trained with.',
                f"{file.path}: {', '.join(label.classes) or label.task}",
                f"The model's: {', '.join(trained.label.classes) or trained.label.task}",
            )
        # The model's range decides how values are rounded to classes.
        label = trained.label
    config = datasets.DataConfig(**trained.data)
    part = datasets.Dataset(file, label, list(trained.spec.streams), wanted, config)
    part.normalise(trained.normaliser)
    return part


def _rounded(label: Label) -> list[str]:
    low, high = np.round(label.range)
    return [f"{v:g}" for v in np.arange(low, high + 1)]


def _other_data(run: Path, config: dict[str, Any], features: Path, digest: str) -> list[str]:
    if not config:
        return []
    env = json.loads((run / "env.json").read_text(encoding="utf-8"))
    if env["data"]["sha256"] == digest:
        return []
    return [f"{features} is not the file the run was trained on, or has changed since"]


def _keep(run: Path, report: EvaluateReport, features: Path, digest: str, command: str) -> None:
    """Add the scores and the opening to metrics.json."""
    path = run / "metrics.json"
    kept: dict[str, Any] = {"splits": {}, "openings": []}
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
    kept["splits"][report.split] = report.record()
    kept["openings"].append(
        {
            "split": report.split,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "features": str(features.absolute()),
            "sha256": digest,
            "command": command,
            "torch": torch.__version__,
        }
    )
    write_text(path, to_json(kept))


callable_stage(__name__)
