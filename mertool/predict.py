"""Prediction: raw media (or a feature file) in, scores out, by a run or a lone model."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mertool.config import settings_of
from mertool.device import pick
from mertool.errors import DataError
from mertool.evaluate import open_data
from mertool.registry import registry
from mertool.stage import callable_stage
from mertool.store import FeatureFile
from mertool.train.checkpoint import Trained, load
from mertool.train.folder import models, prediction_rows
from mertool.train.loop import predict_all


@dataclass
class PredictReport:
    """Predictions of a run.

    Attributes:
        rows: One dictionary per clip: a CSV source's own columns, then id and the predictions.
        failures: (id, stage, error) of each clip that could not be processed.
        notes: (id, message): what a user should know of single clips.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """3 when some clips failed, else 0."""
        return 3 if self.failures else 0


def run(
    run: str | Path,
    sources: Sequence[str | Path] | str | Path,
    *,
    transcript: str = "sidecar",
    settings: Sequence[str] = (),
    device: str = "auto",
    jobs: int = 1,
    progress: bool = False,
) -> PredictReport:
    """Predict from raw media, features made as they were for training.

    The models of all seeds (and folds) are averaged.

    Args:
        run: Run folder, or a model.safetensors.
        sources: Media files, folders, manifests, or one feature file.
        transcript: Where the words of raw media come from: "sidecar", "asr" or "none", as for
            `mertool.extract`.
        settings: Settings of the recogniser, "asr.engine=whisper" say, and of the aligner
            ("align.key=value"), in place of those that the model was trained with.
        device: "auto", "cpu" or "cuda".
        jobs: Processes for extraction and alignment.
        progress: Show progress bars on a terminal's stderr.

    Returns:
        The predictions, in the order of the clips.

    Raises:
        DataError: No such run, no clips, none that could be scored, or features that do not fit.
        PluginError, UsageError: An extractor the model needs is not installed.
    """
    where = pick(device)
    fusion = [model for model in models(Path(run)) if not model.only]
    trained = [load(model.path, where) for model in fusion]
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    report = PredictReport()
    with tempfile.TemporaryDirectory(prefix="mertool-predict-") as folder:
        words = {"transcript": transcript, "settings": settings}
        features = _features(trained[0], sources, Path(folder), words, jobs, progress, report)
        preds = []
        with FeatureFile(features) as file:
            for fold in dict.fromkeys(model.fold for model in fusion):
                mine = [t for t, model in zip(trained, fusion, strict=True) if model.fold == fold]
                # The seeds of a fold share streams and normaliser.
                data = open_data(file, mine[0], np.ones(len(file), bool), labelled=False)
                preds += [predict_all(t.model, data, t.facts, t.spec, where).numpy() for t in mine]
    blank = dict(zip(data.ids, data.blank, strict=True))
    rows = prediction_rows(trained[0].label, data.ids, None, np.mean(preds, axis=0))
    for name in (name for name, empty in blank.items() if empty):
        report.failures.append((name, "predict", "no stream has a row to judge it by"))
    cells: dict[str, dict[str, str]] = {}
    for source in map(Path, sources):
        if source.suffix.lower() == ".csv":
            from mertool import manifest

            cells |= manifest.cells(source)
    report.rows = [{**cells.get(r["id"], {}), **r} for r in rows if not blank[r["id"]]]
    if not report.rows:
        name, stage, error = report.failures[0]
        raise DataError(
            "None of the clips could be scored.",
            f"The first, {name}, failed at {stage}: {error}",
            "A model trained on aligned words needs transcripts: in a manifest, beside the media, "
            "or by --transcript asr.",
        )
    return report


def _features(
    trained: Trained,
    sources: list[str | Path],
    folder: Path,
    words: dict[str, Any],
    jobs: int,
    progress: bool,
    report: PredictReport,
) -> Path:
    """A feature file for the sources, made the way the model's training data was."""
    if len(sources) == 1 and Path(sources[0]).suffix == ".h5":
        return Path(sources[0])
    # Imported here: feature files can be predicted where the media libraries are absent.
    from mertool import align, extract

    chosen: dict[str, str] = dict.fromkeys(extract.MODALITIES, "none")
    settings = []
    for name, made in trained.streams.items():
        extractor = made["attrs"].get("extractor", "")
        if name not in chosen or not extractor or extractor.startswith("import:"):
            raise DataError(
                f'The model\'s stream "{name}" was not extracted by mertool.',
                "raw media cannot be turned into it",
                "Predict from a feature file instead.",
            )
        chosen[name] = extractor
        settings += _settings("extractor", extractor, name, made["attrs"]["config"])
    features = folder / "features.h5"
    to_align = [s for s in words["settings"] if s.startswith("align.") and trained.alignment]
    to_extract = [s for s in words["settings"] if s not in to_align]
    made = extract.run(
        sources, features, **chosen, transcript=words["transcript"],
        settings=settings + to_extract, jobs=jobs, progress=progress,
    )  # fmt: skip
    report.failures += made.failures
    report.notes += made.notes
    if not trained.alignment:
        return features
    aligned = folder / "aligned.h5"
    given = {k: v for k, v in trained.alignment.items() if v}
    config = given.pop("aligner_config", "")
    name = given.get("aligner", align.DEFAULT)
    settings = _settings("aligner", name, "align", config) if config else []
    settings = [s for s in settings if not s.startswith(tuple(_key(t) for t in to_align))]
    settings += to_align
    made = align.run(features, aligned, **given, settings=settings, jobs=jobs, progress=progress)
    report.failures += [f for f in made.failures if f not in report.failures]
    report.notes += made.warnings
    return aligned


def _key(setting: str) -> str:
    return setting.partition("=")[0] + "="


def _settings(kind: str, name: str, section: str, config: str) -> list[str]:
    """The recorded settings of a plugin, as they are given to a stage."""
    fields = dataclasses.fields(settings_of(registry().load(kind, name), f'the {kind} "{name}"'))
    programs = {f.name for f in fields if f.metadata.get("program")}
    return [
        # A text stands in a setting as it is, anything else as TOML (which JSON's values are).
        f"{section}.{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in json.loads(config).items()
        if key not in programs  # a model may be anybody's: it starts no program of its choice
    ]


callable_stage(__name__)
