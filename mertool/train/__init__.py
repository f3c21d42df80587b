"""Training: `mertool.train(features, plugin=...)`.

loop.py trains one seed, checkpoint.py saves it, folder.py knows the run folder.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mertool import data as datasets
from mertool.config import read_toml, resolve, to_dict
from mertool.device import pick
from mertool.errors import DataError, OutputError, PluginError, UsageError
from mertool.files import cannot_write, to_json, write_text
from mertool.metrics import baseline_of
from mertool.registry import registry
from mertool.stage import callable_stage
from mertool.store import FeatureFile
from mertool.train import folder as folders
from mertool.train.checkpoint import Trained, save
from mertool.train.loop import TrainConfig, Trainer, seed_everything

SEEDS = (1111, 1112, 1113, 1114, 1115)


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
        settings: "train.lr=1e-3", "fusion.d=40", "data.max_length=500".
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
    chosen = dict(base.pop("run", {}))
    arguments = {
        "plugin": plugin, "features": features, "label": label, "modalities": modalities,
        "seeds": seeds, "splits": splits,
    }  # fmt: skip
    chosen.update({k: v for k, v in arguments.items() if v is not None})
    for needed, hint in (("plugin", "--plugin NAME"), ("features", "mertool train FILE.h5")):
        if needed not in chosen:
            raise UsageError(f"Training needs {needed}.", "", f"Give {hint}.")
    entry = registry().get("fusion", chosen["plugin"])
    fusion = registry().load("fusion", chosen["plugin"])
    configs = resolve(
        {"fusion": fusion.Config, "train": TrainConfig, "data": datasets.DataConfig},
        settings,
        base,
    )
    seed_list = parse_seeds(chosen.get("seeds", 5))
    where = pick(device)
    features = Path(chosen["features"])
    with FeatureFile(features) as file:
        target = datasets.pick_label(file, chosen.get("label"))
        streams = datasets.pick_streams(file, chosen.get("modalities"))
        split_name = chosen.get("splits", "default")
        assigned, note = datasets.assign_splits(file, split_name)
        parts = {}
        for name in ("train", "valid"):
            wanted = datasets.of_split(assigned, name, file.path)
            parts[name] = datasets.Dataset(file, target, streams, wanted, configs["data"])
        report = TrainReport(str(out or Path("runs") / chosen["plugin"]))
        report.plugin, report.label, report.streams = chosen["plugin"], target.name, streams
        report.notes = [note] if note else []
        _check(parts, configs["data"], report, file)
        spec = datasets.make_spec(file, target, parts["train"])
        made = {
            m: {"columns": list(file.streams[m].columns), "attrs": _plain(file.streams[m].attrs)}
            for m in streams
        }
        alignment = {}
        if file.alignment != "none":
            how = made[streams[0]]["attrs"]
            alignment = {"to": file.alignment, **{k: how.get(k, "") for k in ("aligner", "pool")}}
    normaliser = datasets.Normaliser.fit(parts["train"])
    baseline = baseline_of(target, parts["train"].y)
    for part in parts.values():
        part.normalise(normaliser)
    target_folder = _open_run(Path(report.run), resume, overwrite)
    resolved = {
        "run": {
            "plugin": chosen["plugin"], "features": str(features), "label": target.name,
            "modalities": streams, "seeds": seed_list, "splits": split_name,
        },
        **{name: to_dict(value) for name, value in configs.items()},
    }  # fmt: skip
    _record(target_folder, resolved, features, command, resume)
    for part in parts.values():
        part.to(where)
    facts = {"task_loss": "mse", "fixed_length": False, **entry.facts}
    trained = Trained(
        plugin=chosen["plugin"], config=configs["fusion"], spec=spec, label=target,
        normaliser=normaliser, seed=0, facts=facts, streams=made,
        data=dataclasses.asdict(configs["data"]), alignment=alignment, baseline=baseline,
    )  # fmt: skip
    with tqdm(
        total=len(seed_list) * configs["train"].epochs,
        unit="epoch", desc="train", disable=None if progress else True,
    ) as bar:  # fmt: skip
        for n, seed in enumerate(seed_list):
            folder = target_folder / f"seed-{seed}"
            best = _finished(folder) if resume else None
            if best is not None:
                report.resumed.append(seed)
            else:
                best = _train_seed(
                    fusion, trained, configs["train"], parts, where, seed, folder, bar
                )
            report.parameters = best["parameters"]
            report.seeds[seed] = best
            bar.n = (n + 1) * configs["train"].epochs
            bar.refresh()
    report.seconds = time.monotonic() - started
    env = json.loads((target_folder / "env.json").read_text(encoding="utf-8"))
    env["train_seconds"] = round(report.seconds, 2)
    write_text(target_folder / "env.json", to_json(env))
    return report


def _train_seed(
    fusion: Any,
    trained: Trained,
    config: TrainConfig,
    parts: dict[str, datasets.Dataset],
    device: Any,
    seed: int,
    folder: Path,
    bar: tqdm,
) -> dict[str, Any]:
    """Train one seed and write its folder; the checkpoint comes last and marks it finished."""
    seed_everything(seed)
    try:
        model = fusion(trained.config, trained.spec).to(device)
    except (ValueError, TypeError) as error:
        raise PluginError(
            f'The fusion "{trained.plugin}" cannot be built for this data: {error}',
            f"streams {trained.spec.streams}, task {trained.spec.task}",
            "Change its settings with --set fusion.KEY=VALUE, or choose other streams.",
        ) from error
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


def _check(
    parts: dict[str, datasets.Dataset],
    config: datasets.DataConfig,
    report: TrainReport,
    file: FeatureFile,
) -> None:
    """Count what is used, and say what is left out or cut."""
    for name, part in parts.items():
        report.clips[name] = len(part)
        if part.unlabelled:
            report.notes.append(f"{part.unlabelled} {name} clips have no label and are left out")
        if not len(part):
            raise DataError(
                f"No labelled clip is in the {name} split.", str(file.path), "Label some clips."
            )
    for stream in report.streams:
        cropped = sum(part.cropped[stream] for part in parts.values())
        if cropped:
            report.notes.append(
                f"{cropped} clips have more than {config.max_length} {stream} rows and are cut: "
                "align --to segments:N keeps all of a clip, --set data.max_length=N cuts later"
            )


def _open_run(folder: Path, resume: bool, overwrite: bool) -> Path:
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


def _record(
    folder: Path, resolved: dict[str, Any], features: Path, command: str, resume: bool
) -> None:
    """Write config.toml and env.json; a resumed run must have the same settings and data."""
    env = folders.environment(features, command)
    if resume and (folder / "config.toml").is_file():
        before, now = folders.read_config(folder), json.loads(json.dumps(resolved))
        for side in (before, now):
            side["run"].pop("seeds"), side["run"].pop("features")
        old = json.loads((folder / "env.json").read_text(encoding="utf-8"))
        if before != now or old["data"]["sha256"] != env["data"]["sha256"]:
            raise OutputError(
                "The run was made with other settings or other data.",
                str(folder),
                "Repeat its command (env.json has it), or choose another -o.",
            )
    folders.write_config(folder, resolved)
    write_text(folder / "env.json", to_json(env))


def _plain(attrs: dict[str, Any]) -> dict[str, Any]:
    """HDF5 attributes as JSON values."""
    return {k: v.item() if isinstance(v, np.generic) else str(v) for k, v in attrs.items()}


callable_stage(__name__)
