"""Comparison: `mertool.compare([a, b])` scores systems on the same clips and tests differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mertool import stats
from mertool.compare import joining
from mertool.compare.systems import System, read
from mertool.errors import DataError, UsageError, did_you_mean
from mertool.metrics import LOWER_IS_BETTER, printed, scale_of, scores
from mertool.stage import callable_stage
from mertool.types import Label


@dataclass
class Row:
    """Scores of one system.

    Attributes:
        name: The system.
        kind: "system", or what stands beside the systems: "single modality", "constant".
        seeds: {seed, or "" where none is named: {metric: value}}; {} for a constant.
        mean: {metric: mean over seeds}.
        sd: {metric: sample standard deviation over seeds}; NaN with one seed.
    """

    name: str
    kind: str = "system"
    seeds: dict[int | str, dict[str, float]] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    sd: dict[str, float] = field(default_factory=dict)


@dataclass
class Difference:
    """One system against the reference, in one metric.

    Attributes:
        system: The system.
        reference: The first system.
        metric: The metric.
        difference: Mean of the system less that of the reference.
        t_pairs: Number of seeds that both have.
        t_p: Of the paired t-test over these seeds.
        t_holm: The same, corrected for the number of systems compared.
        t_reason: Why there is no t_p.
        low: Lower end of the 95% bootstrap interval of the difference.
        high: Upper end.
        bootstrap_p: Of the paired bootstrap over clips.
        bootstrap_holm: The same, corrected.
    """

    system: str
    reference: str
    metric: str
    difference: float
    t_pairs: int
    t_p: float
    t_holm: float
    t_reason: str
    low: float
    high: float
    bootstrap_p: float
    bootstrap_holm: float


@dataclass
class CompareReport:
    """A comparison.

    Attributes:
        split: Which clips of the runs.
        label: What is predicted.
        convention: Whose definitions the scores follow.
        scale: What a regression label's values were taken to mean; "" for other labels.
        clips: Number of clips.
        times: Number of bootstrap samples.
        metrics: {metric: its name with the convention}.
        lower_is_better: Those of the metrics where it is.
        rows: The systems in the order given, then single modalities and constants.
        differences: Of each system but the first, for each metric.
        notes: What a user should know.
    """

    split: str
    label: Label
    convention: str
    scale: str
    clips: int
    times: int
    metrics: dict[str, str] = field(default_factory=dict)
    lower_is_better: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(
    systems: Sequence[str | Path],
    *,
    split: str = "test",
    convention: str = "mertool",
    scale: str = "",
    metrics: Sequence[str] | None = None,
    times: int = 1000,
) -> CompareReport:
    """Compare systems on the same clips; the first is the reference.

    Reads predictions that are kept in runs or CSV files, and opens no split itself.

    Args:
        systems: Two or more run folders or CSV files with the columns id and pred or NAME_pred.
        split: Which predictions of a run: "train", "valid", "test" or "all".
        convention: Whose definitions of the scores; see `mertool.metrics`.
        scale: Of a regression label; see `mertool.metrics`.
        metrics: Names of scores; None = all that the task has.
        times: Number of bootstrap samples.

    Returns:
        Scores, differences, tests and notes.

    Raises:
        UsageError: Fewer than two systems, or an unknown name.
        DataError: Predictions are missing or wrong, or belong to different data.
    """
    if isinstance(systems, str | Path) or len(systems) < 2:
        raise UsageError(
            "One system alone cannot be compared.", str(systems), "mertool compare A B"
        )
    loaded = [read(path, split) for path in systems]
    label, notes = joining.agree(loaded)
    if label.task == "regression":
        scale = scale or scale_of(label)
    ids, y, more = joining.truths(loaded, label)
    report = CompareReport(split, label, convention, scale, len(ids), times, notes=notes + more)

    def evaluate(pred: np.ndarray, index: np.ndarray) -> dict[str, float]:
        return scores(label, y[index], pred[index], convention, scale).values

    every = np.arange(len(ids))
    predicted = [_joined(system, label, ids, report) for system in loaded]
    known = evaluate(next(iter(predicted[0].values())), every)
    for name in metrics or ():
        if name not in known:
            raise UsageError(f'There is no score "{name}".', convention, did_you_mean(name, known))
    chosen = list(dict.fromkeys(metrics or known))
    report.metrics = {name: printed(name, convention) for name in chosen}
    report.lower_is_better = [name for name in chosen if name in LOWER_IS_BETTER]

    def scored(name: str, kind: str, seeds: dict[int | str, np.ndarray]) -> Row:
        row = Row(name, kind)
        for seed, pred in seeds.items():
            result = scores(label, y, pred, convention, scale)
            row.seeds[seed] = {m: result.values[m] for m in chosen}
            report.notes += [
                f"{name}: no {m}: {why}" for m, why in result.reasons.items() if m in chosen
            ]
        row.mean, deviation = stats.spread(list(row.seeds.values()))
        row.sd = {m: float("nan") if sd is None else sd for m, sd in deviation.items()}
        return row

    report.rows = [
        scored(system.name, "system", seeds)
        for system, seeds in zip(loaded, predicted, strict=True)
    ]

    def of_sample(index: np.ndarray) -> dict[str, float]:
        """Mean over seeds of every system on one and the same sample: a paired bootstrap."""
        drawn = {}
        for i, seeds in enumerate(predicted):
            try:
                each = [evaluate(pred, index) for pred in seeds.values()]
            except DataError:  # a sample that the convention's project cannot score
                each = [dict.fromkeys(chosen, float("nan"))]
            drawn |= {f"{i} {m}": float(np.mean([e[m] for e in each])) for m in chosen}
        return drawn

    draws = stats.bootstrap(of_sample, ids, times)
    for metric in chosen:
        report.differences += _differences(report.rows, metric, draws)
    for system in loaded:
        for only in system.singles.values():
            seeds = _joined(only, label, ids, report)
            try:
                report.rows.append(scored(only.name, "single modality", seeds))
            except DataError as error:  # what the convention's project cannot score
                report.notes.append(f"{only.name} has no score: {error.what}")
    report.rows += _constants(loaded, report)
    report.notes = list(dict.fromkeys([*report.notes, *_warnings(loaded, report)]))
    return report


def _joined(
    system: System, label: Label, ids: Sequence[str], report: CompareReport
) -> dict[int | str, np.ndarray]:
    seeds, notes = joining.predictions(system, label, ids)
    report.notes += notes
    return seeds


def _differences(rows: list[Row], metric: str, draws: dict[str, np.ndarray]) -> list[Difference]:
    """Each row against the first, in one metric; p corrected over them."""
    first, found = rows[0], []
    for i, other in enumerate(rows[1:], 1):
        # Seeds of files that name none have nothing in common.
        both = [s for s in first.seeds if s != "" and s in other.seeds]
        a, b = (np.array([row.seeds[s][metric] for s in both]) for row in (other, first))
        _, p, reason = stats.paired_t(a, b)
        gap = draws[f"{i} {metric}"] - draws[f"0 {metric}"]
        found.append(
            Difference(
                other.name, first.name, metric, other.mean[metric] - first.mean[metric],
                len(both), p, p, reason, *stats.interval(gap),
                stats.bootstrap_p(gap), 0.0,
            )
        )  # fmt: skip
    for one, t, b in zip(
        found,
        stats.holm([d.t_p for d in found]),
        stats.holm([d.bootstrap_p for d in found]),
        strict=True,
    ):
        one.t_holm, one.bootstrap_holm = t, b
    return found


def _constants(systems: Sequence[System], report: CompareReport) -> list[Row]:
    """The constant predictors that the runs have recorded; equal ones once."""
    title = "training mean" if report.label.task == "regression" else "majority"
    rows: list[Row] = []
    for system in systems:
        if not system.run:
            continue
        kept = _kept(system, report)
        # A record made on other clips or with another scale is of something else.
        same_scale = kept.get("scale", report.scale) == report.scale
        if kept.get("clips") != report.clips or not same_scale:
            how = f"--split {report.split} --convention {report.convention}"
            how += f" --scale {report.scale}" if report.scale else ""
            report.notes.append(
                f"{system.name}: no constant predictor is recorded for these clips and scores: "
                f"mertool evaluate {system.name} {how}"
            )
            continue
        values = {m: v for m, v in kept.get("baseline", {}).items() if m in report.metrics}
        values = {m: float("nan") if v is None else v for m, v in values.items()}
        # Without values, the run's own note says why its constant predictor has no score.
        if values and not any(_same(values, row.mean) for row in rows):
            rows.append(Row(f"{title} of {system.name}", "constant", mean=values))
    if len(rows) == 1:
        rows[0].name = title
    return rows


def _kept(system: System, report: CompareReport) -> dict[str, Any]:
    """What the run has recorded for the split and the convention."""
    return system.record.get(report.convention, {})


def _same(a: dict[str, float], b: dict[str, float]) -> bool:
    return a.keys() == b.keys() and np.allclose(list(a.values()), list(b.values()), equal_nan=True)


def _warnings(systems: Sequence[System], report: CompareReport) -> list[str]:
    """What weakens the comparison."""
    found = []
    for system in systems:
        if len(system.seeds) < 2:
            found.append(f"{system.name}: one seed, so no deviation and no t-test")
        if not system.run:
            found.append(f"{system.name}: a CSV: its constant predictor and single modalities "
                         "are not known")  # fmt: skip
        elif not system.singles:
            found.append(f"{system.name}: no single modality was trained beside it")
        kept = _kept(system, report)
        found += [f"{system.name}: {note}" for note in kept.get("notes", [])]
    found.append(
        "The bootstrap treats clips as independent; where speakers or recordings give several, "
        "its intervals are too narrow"
    )
    return found


callable_stage(__name__)
