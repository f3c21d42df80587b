"""Runs a recipe: trains and scores the full model and its ablations, and writes the table."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertool import evaluate as evaluation
from mertool import train as training
from mertool.errors import OutputError, UsageError, one_line
from mertool.files import cannot_write, to_json, write_text
from mertool.recipe import generated
from mertool.recipe.labels import complete
from mertool.recipe.match import Match, absent, departures, key_of, match, other_variant
from mertool.recipe.parts import Ablation, Recipe
from mertool.recipe.read import FILE, find
from mertool.recipe.settle import Settled, settle, texts
from mertool.recipe.table import AUILC, Score, main_rows, markdown, row, scores


@dataclass
class Report:
    """What a recipe's run gave.

    Attributes:
        recipe: Its name.
        out: Output folder.
        tables: What each table.json holds: one, or of a smoke run one for each shape.
        seconds: Wall time.
    """

    recipe: str
    out: str
    tables: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The ablations that failed."""
        return [a for t in self.tables for a in t["ablations"] if a["status"] == "failed"]


@dataclass(frozen=True)
class Job:
    """One run of a recipe on one feature file.

    Attributes:
        recipe: The recipe.
        out: Output folder.
        layers: Settings of the smoke run, and the user's.
        changed: Names of the settings that the user changed.
        smoke: Whether the data are generated.
        ablations: Whether the ablations run too.
        how: device, resume, progress and command for the stages.
    """

    recipe: Recipe
    out: Path
    layers: tuple[Sequence[str], ...]
    changed: tuple[str, ...]
    smoke: bool
    ablations: bool
    how: dict[str, Any]


def run(
    recipe: str | Recipe,
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    settings: Sequence[str] = (),
    smoke: bool = False,
    ablations: bool = False,
    seeds: str | int | Sequence[int] | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> Report:
    """Run a recipe from a feature file to a table of the paper's scores beside ours.

    Args:
        recipe: A registered name, a recipe.toml or its folder; or what `find` gave.
        data: The feature file.
        out: Output folder; None = runs/RECIPE.
        settings: "section.key=value" of sections run, data, fusion, train and evaluate.
        smoke: Run on generated data of each of the recipe's shapes, made small; no `data`.
        ablations: Train and score every ablation too; in a smoke run, on the first shape.
        seeds: "5", "1111,1112", or a list; None = the recipe's.
        device: "auto", "cpu" or "cuda".
        resume: Go on where an earlier call stopped; what is finished is kept.
        overwrite: Replace an earlier output.
        progress: Show progress bars on a terminal's stderr.
        command: Recorded in each run's env.json.

    Returns:
        The tables. An ablation that fails is in them with its reason; the others go on.

    Raises:
        UsageError: No such recipe, label, stream or setting; no data.
        DataError: The recipe or the feature file is not as it should be.
        OutputError: The output exists or cannot be written.
    """
    started = time.monotonic()
    recipe = find(recipe) if isinstance(recipe, str) else recipe
    if smoke and data is not None:
        raise UsageError(
            "A smoke run makes its own data.", f"data={data}", "Leave one of them out."
        )
    if not smoke and data is None:
        raise UsageError(
            "Which feature file?", f"recipe {recipe.name}: {recipe.about['dataset']}",
            f"Give one: mertool recipe run {recipe.name} data=FILE.h5; or try --smoke",
        )  # fmt: skip
    given = list(settings)
    if seeds is not None:
        listed = seeds if isinstance(seeds, str | int) else ",".join(map(str, seeds))
        given.append(f"run.seeds={listed}")
    layers = (texts(recipe.smoke) if smoke else [], given)
    first = settle(recipe, *layers)
    root = _open(Path(out or Path("runs") / recipe.name), recipe, resume, overwrite)
    report = Report(recipe.name, str(root))
    how = {"device": device, "resume": resume, "progress": progress, "command": command}
    names = tuple(s.partition("=")[0].strip() for s in given)
    for i, (place, features) in enumerate(_files(recipe, root, data, first)):
        job = Job(recipe, place, layers, names, smoke, ablations and not (smoke and i), how)
        report.tables.append(_one(job, features))
    report.seconds = time.monotonic() - started
    return report


def _open(folder: Path, recipe: Recipe, resume: bool, overwrite: bool) -> Path:
    """Make the output folder with a copy of the recipe, or refuse."""
    if resume and overwrite:
        raise UsageError("Resume or overwrite?", "--resume --overwrite", "Give one of the two.")
    # A call that was refused for its data leaves these; nothing was trained.
    begun = {FILE, "features.h5"}
    if folder.is_file() or (folder.is_dir() and {p.name for p in folder.iterdir()} - begun):
        # Not a folder that merely holds a recipe: it would be lost by --overwrite.
        ran = (folder / "full").is_dir() or any(folder.glob("*/full"))
        inside = recipe.path.resolve().is_relative_to(folder.resolve())
        if not (folder / FILE).is_file() or not ran or inside:
            raise OutputError(
                "The output is no run of a recipe.", str(folder), "Choose another with -o."
            )
        if overwrite:
            shutil.rmtree(folder)
        elif not resume:
            raise OutputError(
                "The output exists already.", str(folder),
                "Choose another with -o, go on with --resume, or replace it with --overwrite.",
            )  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    write_text(folder / FILE, recipe.path.read_text(encoding="utf-8"))
    return folder


def _files(
    recipe: Recipe, out: Path, data: str | Path | None, settled: Settled
) -> Iterator[tuple[Path, Path]]:
    """(output folder, feature file) of each run; those of a smoke run are written here."""
    if data is not None:
        yield out, Path(data)
        return
    for shape in recipe.shapes:
        place = out / shape.name
        yield place, generated.of_recipe(recipe, shape, place, settled.run.folds)


def _one(job: Job, features: Path) -> dict[str, Any]:
    """Train and score on one feature file; the table is written after each part."""
    recipe = job.recipe
    settled = settle(recipe, *job.layers)
    features, notes = complete(recipe, features, settled.labels, job.out)
    found = match(recipe, features, settled.run.modalities, settled.labels)
    void = [*found.void]
    if job.smoke:
        void.insert(0, "generated data")
    void += departures(recipe, settled, job.changed)
    blocks = [e for e in recipe.expected if e.name in found.variants]
    masked = bool(settled.evaluate.mask)
    ours, about = _train(job, settled, features, job.out / "full", masked, notes)
    if recipe.clips_of_paper not in ({}, about["clips"]) and not job.smoke:
        counts = ", ".join(f"{n} {name}" for name, n in recipe.clips_of_paper.items())
        notes.append(f"the paper's split has other clips: {counts}")
    paper = [(m, v, e.source) for e in blocks for m, v in e.values.items()]
    table = {
        "recipe": recipe.name, "title": recipe.about["title"], "paper": recipe.about["paper"],
        "plugin": settled.run.plugin, "smoke": job.smoke, "void": void, "shape": found.shape,
        "streams": {name: list(size) for name, size in found.streams.items()},
        "alignment": found.alignment, "variants": found.variants,
        "split": settled.evaluate.split, "convention": settled.evaluate.convention,
        "folds": settled.run.folds, "seeds": list(settled.run.seeds),
        "labels": list(settled.labels), "changed": sorted(set(job.changed)),
        "rows": main_rows(paper, ours), "full": [], "ablations": [],
        "ablations_void": other_variant(recipe, found),
        "notes": [*found.notes, *notes], **about,
    }  # fmt: skip
    _write(job.out, table)
    if job.ablations:
        base = {
            m: v for e in recipe.expected for m, v in e.values.items() if _refers(recipe, e.name)
        }
        asked = _asked(recipe, ours)
        table["full"] = [row(m, base.get(m), "", ours.get(m)) for m in asked]
        for ablation in recipe.ablations:
            made, scored = _ablate(job, ablation, found, features, table["notes"])
            made["rows"] = [
                row(m, ablation.values.get(m), ablation.source, scored.get(m)) for m in asked
            ]
            table["ablations"].append(made)
            _write(job.out, table)
    return table


def _write(out: Path, table: Mapping[str, Any]) -> None:
    write_text(out / "table.json", to_json(table))
    write_text(out / "table.md", markdown(table))


def _asked(recipe: Recipe, ours: Mapping[str, Score]) -> list[str]:
    """Scores of the ablations' table: the paper's; on data that lack some, all that there are."""
    paper = list(dict.fromkeys(m for a in recipe.ablations for m in a.values))
    kept = [m for m in paper if m in ours]
    return kept if len(kept) == len(paper) else list(dict.fromkeys([*kept, *ours]))


def _refers(recipe: Recipe, variant: str) -> bool:
    return not recipe.reference or variant in recipe.reference


def _train(
    job: Job, settled: Settled, features: Path, folder: Path, masked: bool, notes: list[str]
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Train and score every label; what is finished is kept.

    Returns:
        {metric: score}, and "clips" {split: number} and "environment" of the table.
    """
    ours: dict[str, Score] = {}
    about: dict[str, Any] = {}
    several = len(settled.labels) > 1
    for label in settled.labels:
        place = folder / label if several else folder
        made = training.run(
            features, place, plugin=settled.run.plugin, label=label,
            modalities=settled.run.modalities, seeds=settled.run.seeds, splits=settled.run.splits,
            folds=settled.run.folds, singles=settled.run.singles, settings=settled.settings,
            **job.how,
        )  # fmt: skip
        found = scores(place, settled, masked)
        if found is None or len(made.resumed) < len(made.models):
            how = settled.evaluate
            scored = evaluation.run(
                place, split=how.split, convention=how.convention, scale=how.scale,
                mask=how.mask if masked else None, noise=how.noise, unit=how.unit,
                device=job.how["device"], command=job.how["command"],
            )  # fmt: skip
            made.notes += scored.notes
            found = scores(place, settled, masked) or {}
        notes += [note for note in made.notes if note not in notes]
        before = key_of(job.recipe, settled.labels, label)
        ours |= {before + name: score for name, score in found.items()}
        kept = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        tested = kept["splits"][settled.evaluate.split][settled.evaluate.convention]["clips"]
        about["clips"] = {**made.clips, settled.evaluate.split: tested}
        about["environment"] = json.loads((place / "env.json").read_text(encoding="utf-8"))
    return ours, about


def _ablate(
    job: Job, ablation: Ablation, found: Match, features: Path, notes: list[str]
) -> tuple[dict[str, Any], dict[str, Score]]:
    """Train and score one ablation, or say why not."""
    made = {
        "name": ablation.name, "row": ablation.row, "source": ablation.source,
        "settings": ablation.settings, "status": "done", "reason": "",
    }  # fmt: skip
    lacking = absent(job.recipe, ablation, found)
    if lacking:
        return {**made, "status": "skipped", "reason": lacking}, {}
    try:
        settled = settle(job.recipe, *job.layers, texts(ablation.settings))
        masked = any(AUILC in m for m in ablation.values) and bool(settled.evaluate.mask)
        place = job.out / "ablations" / ablation.name
        return made, _train(job, settled, features, place, masked, notes)[0]
    except Exception as error:  # foreign code; the other rows are not to be lost
        return {**made, "status": "failed", "reason": one_line(error)}, {}
