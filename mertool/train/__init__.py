"""Training: `mertool.train(features, plugin=...)`.

prepare.py reads the data, loop.py trains one seed, checkpoint.py saves it, folder.py knows the
run folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mertool.config import read_toml, resolve, settings_of, to_dict
from mertool.data import DataConfig
from mertool.device import pick
from mertool.errors import PluginError, UsageError
from mertool.files import cannot_write, to_json, write_text
from mertool.registry import Entry, registry
from mertool.stage import callable_stage
from mertool.train import folder as folders
from mertool.train.checkpoint import Trained, save
from mertool.train.loop import TrainConfig, Trainer, seed_everything
from mertool.train.prepare import Prepared, prepare

SEEDS = (1111, 1112, 1113, 1114, 1115)


@dataclass(frozen=True)
class RunConfig:
    """What is trained on what.

    Attributes:
        plugin: The fusion.
        features: The feature file.
        label: Label to predict; empty = the only one.
        modalities: Streams to use; empty = all that are not empty.
        seeds: One model is trained for each.
        splits: Name of the split in the file.
    """

    plugin: str = ""
    features: str = ""
    label: str = ""
    modalities: tuple[str, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    splits: str = "default"


@dataclass
class TrainReport:
    """What a training gave.

    Attributes:
        run: The run folder.
        plugin: The fusion.
        label: What it predicts.
        streams: The streams it uses.
        clips: {split: number of clips used}.
        parameters: Number of trained weights.
        seeds: {seed: best epoch's line of the log}.
        resumed: Seeds that were trained before.
        notes: What a user should know.
        seconds: Wall time.
    """

    run: str
    plugin: str = ""
    label: str = ""
    streams: list[str] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    seeds: dict[int, dict[str, Any]] = field(default_factory=dict)
    resumed: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def parse_seeds(text: str | int | Sequence[int]) -> list[int]:
    """Seeds from "3" (the first three of 1111, 1112, ...) or "1111,1115".

    Raises:
        UsageError: It is neither.
    """
    if isinstance(text, Sequence) and not isinstance(text, str):
        return list(text)
    parts = [p.strip() for p in str(text).split(",")]
    if not all(p.isdigit() for p in parts) or (len(parts) == 1 and int(parts[0]) < 1):
        raise UsageError(
            f'"{text}" is no number of seeds.', "--seeds", "Write 5, or a list: 1111,1112"
        )
    if len(parts) == 1 and int(parts[0]) < SEEDS[0]:
        return [SEEDS[0] + i for i in range(int(parts[0]))]
    return list(dict.fromkeys(int(p) for p in parts))


def run(
    features: str | Path | None = None,
    out: str | Path | None = None,
    *,
    plugin: str | None = None,
    label: str | None = None,
    modalities: Sequence[str] | None = None,
    seeds: str | int | Sequence[int] | None = None,
    splits: str | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> TrainReport:
    """Train a fusion on a feature file, once per seed.

    The test split is never read here: `mertool.evaluate` alone opens it.

    Args:
        features: The feature file; may come from `config`.
        out: Run folder; None = runs/PLUGIN.
        plugin: The fusion's name.
        label: Label to predict; None = the only one.
        modalities: Streams to use; None = all that are not empty.
        seeds: "5", "1111,1112", or a list; None = 5.
        splits: Name of the split in the file; None = "default".
        config: A TOML file of settings, such as a run's config.toml. Arguments win over it.
        settings: "train.lr=1e-3", "fusion.d_model=40", "data.max_length=500".
        device: "auto", "cpu" or "cuda".
        resume: Keep the seeds that are finished, train the rest.
        overwrite: Replace an existing run.
        progress: Show a progress bar on a terminal's stderr.
        command: Recorded in env.json.

    Returns:
        What was trained.

    Raises:
        UsageError: Unknown plugin, label, stream, setting or device.
        DataError: The feature file cannot serve.
        OutputError: The run exists or cannot be written.
        PluginError: The fusion is broken or breaks the contract.
    """
    started = time.monotonic()
    base = read_toml(config) if config is not None else {}
    arguments = {
        "plugin": plugin, "features": features and str(Path(features)), "label": label,
        "modalities": modalities, "seeds": seeds and parse_seeds(seeds), "splits": splits,
    }  # fmt: skip
    entry, fusion, configs = _settle(base, arguments, settings)
    chosen = configs.pop("run")
    where = pick(device)
    features = Path(chosen.features).absolute()  # so that evaluate finds it from any folder
    ready = prepare(
        features, chosen.label or None, chosen.modalities or None, chosen.splits, configs["data"]
    )
    report = TrainReport(
        str(out or Path("runs") / chosen.plugin), chosen.plugin, ready.label.name,
        list(ready.streams), {k: len(v) for k, v in ready.parts.items()}, notes=ready.notes,
    )  # fmt: skip
    trained = Trained(
        plugin=chosen.plugin, config=configs["fusion"], spec=ready.spec, label=ready.label,
        normaliser=ready.normaliser, seed=0,
        facts={"task_loss": "mse", "fixed_length": False, **entry.facts},
        streams=ready.streams, data=to_dict(configs["data"]), alignment=ready.alignment,
        baseline=ready.baseline,
    )  # fmt: skip
    _build(fusion, trained)  # what cannot be built must fail before anything is written
    folder = folders.open_run(Path(report.run), resume, overwrite)
    used = {"features": str(features), "label": report.label, "modalities": report.streams}
    resolved = {
        "run": {**to_dict(chosen), **used},
        **{name: to_dict(value) for name, value in configs.items()},
    }
    env = folders.record(folder, resolved, features, command, resume)
    for part in ready.parts.values():
        part.to(where)
    epochs = configs["train"].epochs
    with tqdm(
        total=len(chosen.seeds) * epochs,
        unit="epoch", desc="train", disable=None if progress else True,
    ) as bar:  # fmt: skip
        for n, seed in enumerate(chosen.seeds):
            place = folder / f"seed-{seed}"
            best = _finished(place) if resume else None
            if best is not None:
                report.resumed.append(seed)
            else:
                best = _train_seed(
                    fusion, trained, configs["train"], ready, where, seed, place, bar
                )
            report.parameters = best["parameters"]
            report.seeds[seed] = best
            bar.n = (n + 1) * epochs  # an early stop leaves some epochs out
            bar.refresh()
    report.seconds = time.monotonic() - started
    write_text(folder / "env.json", to_json({**env, "train_seconds": round(report.seconds, 2)}))
    return report


def _settle(
    base: dict[str, Any], arguments: dict[str, Any], settings: Sequence[str]
) -> tuple[Entry, Any, dict[str, Any]]:
    """Find the fusion and settle every setting; arguments win over the config file.

    Args:
        base: The config file's sections.
        arguments: Values for its section "run"; None = not given.
        settings: "section.key=value" strings.

    Returns:
        The fusion's entry, its class, and the config object of each section.

    Raises:
        UsageError: No plugin or features, or anything unknown or wrong, all of it at once.
        PluginError: The fusion is broken.
    """
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items() if v}
    chosen = given
    if isinstance(base.get("run", {}), dict):  # anything else is refused below
        chosen = {**base.get("run", {}), **given}
        base = {**base, "run": chosen}
    for needed, hint in (("plugin", "--plugin NAME"), ("features", "mertool train FILE.h5")):
        if not chosen.get(needed):
            raise UsageError(f"Training needs {needed}.", "", f"Give {hint}.")
    entry = registry().get("fusion", str(chosen["plugin"]))
    fusion = registry().load("fusion", entry.name)
    sections = {
        "run": RunConfig,
        "fusion": settings_of(fusion, f'the fusion "{entry.name}"'),
        "train": TrainConfig,
        "data": DataConfig,
    }
    return entry, fusion, resolve(sections, settings, base)


def _build(fusion: Any, trained: Trained) -> torch.nn.Module:
    """The untrained fusion.

    Raises:
        PluginError: It cannot be built for this data.
    """
    try:
        return fusion(trained.config, trained.spec)
    except (ValueError, TypeError) as error:
        raise PluginError(
            f'The fusion "{trained.plugin}" cannot be built for this data: {error}',
            f"streams {trained.spec.streams}, task {trained.spec.task}",
            "Change its settings with --set fusion.KEY=VALUE, or choose other streams.",
        ) from error


def _train_seed(
    fusion: Any,
    trained: Trained,
    config: TrainConfig,
    ready: Prepared,
    device: torch.device,
    seed: int,
    folder: Path,
    bar: tqdm,
) -> dict[str, Any]:
    """Train one seed and write its folder; the checkpoint comes last and marks it finished."""
    parts = ready.parts
    seed_everything(seed)
    model = _build(fusion, trained).to(device)
    trainer = Trainer(
        model, trained.spec, trained.facts, config, parts["train"], parts["valid"], device
    )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error

    def show(line: dict[str, Any]) -> None:
        bar.set_postfix(seed=seed, valid=f"{line['valid_loss']:.4f}", refresh=False)
        bar.update()

    best = trainer.fit(seed, folder / "log.jsonl", show)
    best["parameters"] = sum(p.numel() for p in model.parameters())
    trained.model, trained.seed = model, seed
    _, pred = trainer.evaluate(parts["valid"])
    folders.write_predictions(
        folder / "predictions-valid.csv",
        trained.label,
        parts["valid"].ids,
        parts["valid"].y.cpu().numpy(),
        pred.numpy(),
    )
    write_text(folder / "best.json", to_json(best))
    save(folder / "model.safetensors", trained)
    return best


def _finished(folder: Path) -> dict[str, Any] | None:
    if not (folder / "model.safetensors").is_file():
        return None
    return json.loads((folder / "best.json").read_text(encoding="utf-8"))


callable_stage(__name__)
