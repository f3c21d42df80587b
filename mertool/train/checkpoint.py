"""A trained model in one safetensors file: weights, normaliser and all that rebuilds it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mertool.config import resolve, settings_of, to_dict
from mertool.data import Normaliser
from mertool.errors import DataError
from mertool.files import whole
from mertool.registry import registry
from mertool.types import DataSpec, Label


@dataclass
class Trained:
    """A trained fusion with everything needed to use it.

    Attributes:
        plugin: The fusion's registered name.
        config: Its config object.
        spec: What it was built for.
        label: What it predicts.
        normaliser: Fitted on its training rows.
        seed: Its seed.
        facts: The fusion's facts at training time.
        streams: {stream: {"columns": [...], "attrs": {...}}}: how its features were made.
        data: Values of `DataConfig`.
        alignment: {"to", "aligner", "aligner_config", "pool"}; empty where the features are
            unaligned. An empty aligner is the default one, for words without times only.
        baseline: What a constant predictor learnt from the training labels would say:
            the mean (regression), the share of each class or label.
        model: The fusion with its weights.
    """

    plugin: str
    config: Any
    spec: DataSpec
    label: Label
    normaliser: Normaliser
    seed: int
    facts: dict[str, Any]
    streams: dict[str, Any]
    data: dict[str, Any]
    alignment: dict[str, str]
    baseline: list[float]
    model: nn.Module | None = field(default=None, repr=False)


def save(path: Path, trained: Trained) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OutputError: The disk is full or closed.
    """
    tensors = {f"model/{k}": v for k, v in trained.model.state_dict().items()}
    for name in trained.spec.streams:
        tensors[f"normaliser/{name}/mean"] = trained.normaliser.mean[name]
        tensors[f"normaliser/{name}/std"] = trained.normaliser.std[name]
    # clone: safetensors refuses tensors that share memory.
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    meta = {
        "format": "mertool-model",
        "plugin": trained.plugin,
        "config": to_dict(trained.config),
        "spec": dataclasses.asdict(trained.spec),
        "label": dataclasses.asdict(trained.label),
        "seed": trained.seed,
        "facts": trained.facts,
        "streams": trained.streams,
        "data": trained.data,
        "alignment": trained.alignment,
        "baseline": trained.baseline,
    }
    with whole(path) as temporary:
        try:
            save_file(tensors, temporary, {"mertool": json.dumps(meta)})
        except SafetensorError as error:
            raise OSError(0, str(error)) from error


def load(path: str | Path, device: torch.device) -> Trained:
    """Rebuild a trained fusion from its file alone.

    Nothing in the file is executed: the fusion is found by its registered name.

    Raises:
        DataError: No such file, or it is no mertool model.
        UsageError: Its fusion is not installed.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["mertool"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        label = meta["label"]
        spec = meta["spec"]
        trained = Trained(
            plugin=meta["plugin"],
            config=None,
            spec=DataSpec(
                **{
                    **spec,
                    "streams": {m: tuple(v) for m, v in spec["streams"].items()},
                    "classes": tuple(spec["classes"]),
                    "range": tuple(spec["range"]),
                }
            ),
            label=Label(
                label["name"], label["task"], tuple(label["classes"]), tuple(label["range"])
            ),
            normaliser=Normaliser(
                {m: tensors.pop(f"normaliser/{m}/mean") for m in spec["streams"]},
                {m: tensors.pop(f"normaliser/{m}/std") for m in spec["streams"]},
            ),
            seed=meta["seed"],
            facts=meta["facts"],
            streams=meta["streams"],
            data=meta["data"],
            alignment=meta["alignment"],
            baseline=meta["baseline"],
        )
    except FileNotFoundError as error:
        raise DataError(
            "There is no such model.", str(path), "Train one: mertool train --plugin NAME FILE"
        ) from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "The file is no model that mertool wrote.", str(path), f"({type(error).__name__})"
        ) from error
    fusion = registry().load("fusion", trained.plugin)
    trained.config = resolve(
        {"fusion": settings_of(fusion, f'the fusion "{trained.plugin}"')},
        base={"fusion": meta["config"]},
    )["fusion"]
    model = fusion(trained.config, trained.spec)
    try:
        model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items()})
    except RuntimeError as error:
        raise DataError(
            f'The weights do not fit the installed "{trained.plugin}".',
            str(path),
            "It was trained with another version of that plugin.",
        ) from error
    trained.model = model.to(device).eval()
    return trained
