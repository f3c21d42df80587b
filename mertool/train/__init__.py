"""Training: `mertool.train(features, plugin=...)`.

settle.py decides the settings, prepare.py reads the data, loop.py trains one model, checkpoint.py
saves it, folder.py knows the run folder.
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

from mertool.config import read_toml, to_dict
from mertool.device import pick
from mertool.errors import MertoolError, PluginError
from mertool.files import cannot_write, to_json, write_text
from mertool.metrics import baseline_prediction, scores
from mertool.stage import callable_stage
from mertool.stats import spread
from mertool.train import folder as folders
from mertool.train.checkpoint import Trained, save
from mertool.train.loop import TrainConfig, Trainer, seed_everything
from mertool.train.prepare import Prepared, prepare
from mertool.train.prepare import plan as make_plan
from mertool.train.settle import SEEDS, RunConfig, parse_seeds, settle

__all__ = ["SEEDS", "RunConfig", "TrainReport", "parse_seeds", "run"]


@dataclass
class TrainReport:
    """What a training gave.

    Attributes:
        run: The run folder.
        plugin: The fusion.
        label: What it predicts.
        streams: The streams it uses.
        clips: {split: number of clips used}; of the first fold, in a cross-validation.
        folds: Number of folds; 0 = none.
        parameters: Number of trained weights.
        models: {folder within the run: best epoch's line of the log}: "seed-1111", in a
            cross-validation "fold-0/seed-1111", and "only-STREAM/seed-1111" for the fusion on one
            stream alone.
        valid: {"" = the fusion, or the stream it has alone: {"mean", "std"}} of the scores on
            valid over seeds (and folds).
        baseline: {metric: score on valid} of the constant predictor, mean over folds.
        resumed: Models that were trained before.
        notes: What a user should know.
        seconds: Wall time.
    """

    run: str
    plugin: str = ""
    label: str = ""
    streams: list[str] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)
    folds: int = 0
    parameters: int = 0
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    valid: dict[str, dict[str, Any]] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def seeds(self) -> dict[int, dict[str, Any]]:
        """{seed: best epoch's line} of the fusion itself, without cross-validation."""
        return {
            int(name.removeprefix("seed-")): best
            for name, best in self.models.items()
            if name.startswith("seed-")
        }


def run(
    features: str | Path | None = None,
    out: str | Path | None = None,
    *,
    plugin: str | None = None,
    label: str | None = None,
    modalities: Sequence[str] | None = None,
    seeds: str | int | Sequence[int] | None = None,
    splits: str | None = None,
    folds: int | None = None,
    singles: bool | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> TrainReport:
    """Train a fusion on a feature file, once per seed (and fold).

    The test split is never read here: `mertool.evaluate` alone opens it. Where there are several
    streams, the fusion is trained on each alone as well: what fusing gains is seen beside them.

    Args:
        features: The feature file; may come from `config`.
        out: Run folder; None = runs/PLUGIN.
        plugin: The fusion's name.
        label: Label to predict; None = the only one.
        modalities: Streams to use; None = all that are not empty.
        seeds: "5", "1111,1112", or a list; None = 5.
        splits: Name of the split in the file; None = "default".
        folds: Cross-validation over fold-0 ... fold-(K-1) of the file, or, where it has none, over
            K groups of its speakers.
        singles: Also train on each stream alone; None = yes.
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
        "folds": folds, "singles": singles,
    }  # fmt: skip
    entry, fusion, configs = settle(base, arguments, settings)
    chosen = configs.pop("run")
    where = pick(device)
    features = Path(chosen.features).absolute()  # so that evaluate finds it from any folder
    plan = make_plan(
        features, chosen.label or None, chosen.modalities or None, chosen.splits, chosen.folds
    )
    report = TrainReport(
        str(out or Path("runs") / chosen.plugin), chosen.plugin, streams=plan.streams,
        folds=chosen.folds, notes=list(plan.notes),
    )  # fmt: skip

    def ready(fold: str, streams: Sequence[str]) -> tuple[Prepared, Trained]:
        data = prepare(features, chosen.label or None, streams, plan.parts[fold], configs["data"])
        return data, Trained(
            plugin=chosen.plugin, config=configs["fusion"], spec=data.spec, label=data.label,
            normaliser=data.normaliser, seed=0,
            facts={"task_loss": "mse", "fixed_length": False, **entry.facts},
            streams=data.streams, data=to_dict(configs["data"]), alignment=data.alignment,
            baseline=data.baseline,
        )  # fmt: skip

    start = next(iter(plan.parts))
    first, trained = ready(start, plan.streams)
    opened = {(start, ""): (first, trained)}
    _build(fusion, trained)  # what cannot be built must fail before anything is written
    report.label = first.label.name
    report.clips = {k: len(v) for k, v in first.parts.items()}
    folder = folders.open_run(Path(report.run), resume, overwrite)
    used = {"features": str(features), "label": report.label, "modalities": report.streams}
    resolved = {
        "run": {**to_dict(chosen), **used},
        **{name: to_dict(value) for name, value in configs.items()},
    }
    env = folders.record(folder, resolved, features, command, resume, plan)
    alone = report.streams if chosen.singles and len(report.streams) > 1 else []
    # The fusion itself comes first: an interrupted run has what matters most.
    groups = [(fold, only) for only in ("", *alone) for fold in plan.parts]
    epochs = configs["train"].epochs
    each: dict[str, list[dict[str, float]]] = {}  # scores on valid of every model
    constant: list[dict[str, float]] = []
    with tqdm(
        total=len(groups) * len(chosen.seeds) * epochs,
        unit="epoch", desc="train", disable=None if progress else True,
    ) as bar:  # fmt: skip
        for fold, only in groups:
            data, trained = opened.pop((fold, only), None) or ready(
                fold, [only] if only else plan.streams
            )
            if not only:  # alone, a stream has the same clips
                report.notes += [f"{fold}: {note}" if fold else note for note in data.notes]
                constant.append(_constant(data))
            if only and not _can_stand_alone(fusion, trained, only, report):
                continue
            for part in data.parts.values():
                part.to(where)
            for seed in chosen.seeds:
                place = folders.place(folder, fold, only, seed)
                name = place.relative_to(folder).as_posix()
                best = _finished(place) if resume else None
                if best is not None:
                    report.resumed.append(name)
                else:
                    best = _train_seed(
                        fusion, trained, configs["train"], data, where, seed, place, bar
                    )
                if not only:
                    report.parameters = best["parameters"]
                report.models[name] = best
                each.setdefault(only, []).append(best["valid"])
                bar.n = len(report.models) * epochs  # an early stop leaves some epochs out
                bar.refresh()
    report.valid = {
        only: dict(zip(("mean", "std"), spread(valid), strict=True)) for only, valid in each.items()
    }
    report.baseline = spread(constant)[0]
    report.seconds = time.monotonic() - started
    write_text(folder / "env.json", to_json({**env, "train_seconds": round(report.seconds, 2)}))
    return report


def _constant(data: Prepared) -> dict[str, float]:
    """Scores of the constant predictor on valid."""
    y = data.parts["valid"].y.numpy()
    return scores(data.label, y, baseline_prediction(data.label, data.baseline, len(y))).values


def _can_stand_alone(fusion: Any, trained: Trained, only: str, report: TrainReport) -> bool:
    """Whether the fusion, with its settings, can be built on one stream; a note where not."""
    try:
        _build(fusion, trained)
    except MertoolError as error:
        report.notes.append(f"the fusion cannot be trained on {only} alone: {error.what}")
        return False
    return True


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
        folder.mkdir(parents=True, exist_ok=True)
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
