"""Opens the clips that a run is scored on, and lets its models predict them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from mertool import data as datasets
from mertool import splits as divisions
from mertool.errors import DataError, did_you_mean
from mertool.metrics import baseline_prediction
from mertool.store import FeatureFile
from mertool.train.checkpoint import Trained, load
from mertool.train.folder import Model
from mertool.train.loop import predict_all
from mertool.types import Label

# Given a fold's clips and the seed of the model that will see them: the clips it is to see.
Change = Callable[[datasets.Dataset, int], datasets.Dataset]


@dataclass
class Pooled:
    """Predictions for the clips of a split, those of all folds one after the other.

    Attributes:
        label: What is predicted.
        ids: (N,) clip ids.
        units: (N,) whom each clip is of: speaker, else recording, else the clip itself.
        folds: (N,) fold of each clip; "" without cross-validation.
        y: (N, 1), (N,) or (N, K) true values.
        baseline: (N, K) predictions of the constant predictor of each clip's fold.
        pred: {stream alone ("" = the fusion): {condition ("" = clips as they are):
            {seed: (N, K) raw predictions}}}.
        notes: What a user should know.
    """

    label: Label
    ids: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    folds: list[str] = field(default_factory=list)
    y: np.ndarray = field(default_factory=lambda: np.zeros(0))
    baseline: np.ndarray = field(default_factory=lambda: np.zeros(0))
    pred: dict[str, dict[str, dict[int, np.ndarray]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def pool(
    file: FeatureFile,
    models: list[Model],
    parts: Mapping[str, list[str]],
    split: str,
    device: torch.device,
    conditions: Mapping[str, Mapping[str, Change]],
) -> Pooled:
    """Open one split and predict it with every model.

    Args:
        file: The feature file.
        models: Models of one run.
        parts: {fold: (N,) split of each clip}.
        split: "train", "valid", "test" or "all".
        device: Where the models run.
        conditions: {stream alone ("" = the fusion): {name: change of the clips}}; each is
            predicted beside the clips as they are.

    Raises:
        DataError: No labelled clip is in the split, or the features do not fit the models.
    """
    units = dict(zip(file.ids, divisions.units_of(file)[0], strict=True))
    result: Pooled | None = None
    targets, constants = [], []
    for fold, only in dict.fromkeys((m.fold, m.only) for m in models):
        group = [m for m in models if (m.fold, m.only) == (fold, only)]
        trained = load(group[0].path, device)
        wanted = divisions.of_split(parts[fold], split, file.path)
        part = open_data(file, trained, wanted, labelled=True, split=split)
        if not len(part):
            raise DataError(
                f"No labelled clip is in the {split} split.",
                str(file.path),
                "Choose another with --split; mertool data info shows what there is.",
            )
        y = part.y.numpy()
        if result is None:
            result = Pooled(trained.label)
        if not only:
            result.ids += part.ids
            result.units += [units[name] for name in part.ids]
            result.folds += [fold] * len(part)
            targets.append(y)
            constants.append(baseline_prediction(trained.label, trained.baseline, len(y)))
            result.notes += _blank_notes(part, fold)
        part.to(device)
        kept = result.pred.setdefault(only, {})
        for model in group:
            if model is not group[0]:  # the seeds share streams and normaliser
                trained = load(model.path, device)
            for name, change in {"": None, **conditions.get(only, {})}.items():
                seen = part if change is None else change(part, trained.seed)
                pred = predict_all(trained.model, seen, trained.facts, trained.spec, device)
                seeds = kept.setdefault(name, {})
                before = [seeds[trained.seed]] if trained.seed in seeds else []
                seeds[trained.seed] = np.concatenate([*before, pred.numpy()])
    result.y, result.baseline = np.concatenate(targets), np.concatenate(constants)
    _refuse_gaps(result, file)
    return result


def _refuse_gaps(pooled: Pooled, file: FeatureFile) -> None:
    """Refuse a run whose training stopped between folds; leave out such a single stream."""
    for only, made in list(pooled.pred.items()):
        short = [s for s, pred in made[""].items() if len(pred) != len(pooled.ids)]
        if short and only:
            del pooled.pred[only]
            pooled.notes.append(f"{only} alone was not trained in every fold and is left out")
        elif short:
            raise DataError(
                f"Seed {short[0]} was not trained in every fold.",
                str(file.path),
                "Go on with its training: add --resume to its command.",
            )


def _blank_notes(part: datasets.Dataset, fold: str) -> list[str]:
    notes = []
    if part.unlabelled:
        notes.append(f"{part.unlabelled} clips have no label and are not scored")
    if part.blank.any():
        notes.append(f"{part.blank.sum()} clips have no row in any stream and are scored too")
    return [f"{fold}: {note}" if fold else note for note in notes]


def open_data(
    file: FeatureFile,
    trained: Trained,
    wanted: np.ndarray,
    labelled: bool,
    split: str = "",
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
    part = datasets.Dataset(file, label, list(trained.spec.streams), wanted, config, split)
    part.normalise(trained.normaliser)
    return part
