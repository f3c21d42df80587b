"""The run folder: where a training leaves everything that a later stage or a reader needs."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mertool.config import read_toml, to_toml
from mertool.errors import DataError, OutputError, UsageError
from mertool.files import cannot_write, sha256, to_csv, to_json, write_text
from mertool.splits import digest
from mertool.train.prepare import Plan
from mertool.types import Label
from mertool.version import __version__

_PACKAGES = ("numpy", "scipy", "torch", "transformers", "h5py", "safetensors", "scikit-learn")


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.toml: everything resolved, enough to repeat the run with --config."""
    write_text(folder / "config.toml", to_toml(config))


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's config.toml.

    Raises:
        DataError: The folder is no run.
    """
    if not (folder / "config.toml").is_file():
        raise DataError(
            "The folder is no run.",
            str(folder),
            "A run is a folder that mertool train wrote; a lone model.safetensors also serves.",
        )
    return read_toml(folder / "config.toml")


def open_run(folder: Path, resume: bool, overwrite: bool) -> Path:
    """Make the run folder, or refuse.

    Raises:
        OutputError: It exists and neither resume nor overwrite is set, it is no run, or it cannot
            be made.
    """
    if resume and overwrite:
        raise UsageError("Resume or overwrite?", "--resume --overwrite", "Give one of the two.")
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        if overwrite:
            if not (folder / "config.toml").is_file():
                raise OutputError(
                    "The output is no run; it is not overwritten.",
                    str(folder),
                    "Choose another -o.",
                )
            shutil.rmtree(folder)
        elif not resume:
            raise OutputError(
                "The run exists already.",
                str(folder),
                "Choose another with -o, go on with --resume, or replace it with --overwrite.",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def record(
    folder: Path,
    resolved: dict[str, Any],
    features: Path,
    command: str,
    resume: bool,
    plan: Plan,
) -> dict[str, Any]:
    """Write config.toml, splits.csv and env.json, and return the last.

    Raises:
        OutputError: A resumed run has other settings or other data, or the disk is full.
    """
    env = environment(features, command)
    env["data"]["splits"] = {f or "split": digest(plan.ids, a) for f, a in plan.parts.items()}
    if resume and (folder / "config.toml").is_file():
        before, now = read_config(folder), json.loads(json.dumps(resolved))
        for side in (before, now):
            side["run"].pop("seeds"), side["run"].pop("features")
        old = json.loads((folder / "env.json").read_text(encoding="utf-8"))
        if before != now or old["data"]["sha256"] != env["data"]["sha256"]:
            raise OutputError(
                "The run was made with other settings or other data.",
                str(folder),
                "Repeat its command (env.json has it), or choose another -o.",
            )
    write_config(folder, resolved)
    write_splits(folder, plan.ids, plan.parts)
    write_text(folder / "env.json", to_json(env))
    return env


@dataclass(frozen=True)
class Model:
    """One trained model of a run.

    Attributes:
        path: Its model.safetensors.
        fold: "fold-0", ...; "" without cross-validation.
        only: The one stream of a single-modality companion; "" = the fusion itself.
        seed: Its seed.
    """

    path: Path
    fold: str = ""
    only: str = ""
    seed: int = 0


_MODEL = re.compile(r"(?:(?P<fold>fold-\d+)/)?(?:only-(?P<only>[^/]+)/)?seed-(?P<seed>\d+)")


def place(folder: Path, fold: str, only: str, seed: int) -> Path:
    """The folder of one model: RUN/[fold-K/][only-STREAM/]seed-S."""
    return folder / fold / (f"only-{only}" if only else "") / f"seed-{seed}"


def models(run: Path) -> list[Model]:
    """The models of a run folder, by fold, stream and seed; or the one file itself.

    Raises:
        DataError: There is none.
    """
    if run.is_file():
        return [Model(run)]
    found = []
    for path in run.rglob("model.safetensors"):
        match = _MODEL.fullmatch(path.parent.relative_to(run).as_posix())
        if match:
            fold, only, seed = match.groups(default="")
            found.append(Model(path, fold, only, int(seed)))
    if not any(not m.only for m in found):
        raise DataError(
            "There is no trained model." if run.exists() else "There is no such run.",
            str(run),
            "Train one: mertool train --plugin NAME FILE -o " + str(run),
        )
    return sorted(found, key=lambda m: (bool(m.only), len(m.fold), m.fold, m.only, m.seed))


def write_splits(folder: Path, ids: Sequence[str], parts: Mapping[str, Sequence[str]]) -> None:
    """Write splits.csv: what each clip of the file is, one column per fold ("split" without)."""
    columns = {fold or "split": assigned for fold, assigned in parts.items()}
    rows = [
        {"id": name, **{c: assigned[i] for c, assigned in columns.items()}}
        for i, name in enumerate(ids)
    ]
    write_text(folder / "splits.csv", to_csv(rows))


def read_splits(folder: Path) -> dict[str, dict[str, str]]:
    """{fold: {clip id: split}} of a run; {} where it has no splits.csv."""
    path = folder / "splits.csv"
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    folds = [c for c in (rows[0] if rows else {}) if c != "id"]
    return {
        "" if fold == "split" else fold: {row["id"]: row[fold] for row in rows} for fold in folds
    }


def environment(data: Path, command: str) -> dict[str, Any]:
    """What a run was made with: versions, hardware, data, command, git."""
    return {
        "mertool": __version__,
        "command": command,
        "data": {"path": str(data.absolute()), "sha256": sha256(data)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"count": os.cpu_count(), "machine": platform.machine()},
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda or "",
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git(),
        "argv": sys.argv,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _git() -> str:
    """Commit of the checkout that mertool runs from, with "-dirty" appended; "" for a wheel."""
    here = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def write_predictions(
    path: Path, label: Label, ids: Sequence[str], y: np.ndarray | None, pred: np.ndarray
) -> None:
    """Write predictions as CSV: id, the truth where it is known, the prediction.

    Args:
        path: The file.
        label: What is predicted.
        ids: (N,) clip ids.
        y: (N, 1), (N,) or (N, K) true values, or None.
        pred: (N, K) raw predictions.
    """
    write_text(path, to_csv(prediction_rows(label, ids, y, pred)))


def prediction_rows(
    label: Label, ids: Sequence[str], y: np.ndarray | None, pred: np.ndarray
) -> list[dict[str, Any]]:
    """One dictionary per clip: id, NAME (the truth), NAME_pred, and probabilities NAME=CLASS."""
    rows = []
    for i, name in enumerate(ids):
        row: dict[str, Any] = {"id": name}
        truth = None if y is None else np.asarray(y)[i]
        if label.task == "regression":
            if truth is not None:
                row[label.name] = _exact(truth.reshape(-1)[0])
            row[f"{label.name}_pred"] = _exact(pred[i, 0])
        elif label.task == "classification":
            probability = np.exp(pred[i] - pred[i].max())
            probability /= probability.sum()
            if truth is not None:
                row[label.name] = label.classes[int(truth)]
            row[f"{label.name}_pred"] = label.classes[int(pred[i].argmax())]
            row |= _probabilities(label, probability)
        else:
            probability = 1 / (1 + np.exp(-pred[i]))
            if truth is not None:
                row[label.name] = "|".join(_members(label, truth > 0.5))
            row[f"{label.name}_pred"] = "|".join(_members(label, pred[i] > 0))
            row |= _probabilities(label, probability)
        rows.append(row)
    return rows


def _exact(value: Any) -> float:
    """As few digits as give the same float32 back, so that scores can be computed again."""
    return float(str(np.float32(value)))


def _members(label: Label, present: np.ndarray) -> list[str]:
    return [c for c, p in zip(label.classes, present, strict=True) if p]


def _probabilities(label: Label, values: np.ndarray) -> dict[str, float]:
    return {
        f"{label.name}={c}": round(float(v), 6) for c, v in zip(label.classes, values, strict=True)
    }
