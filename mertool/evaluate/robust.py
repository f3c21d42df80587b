"""Robustness: what a run's scores become when steps or whole streams are lost (NORM-TR, 4.5, 4.7).

Clips are changed after normalisation, so an erased step (zeros) is the mean of the training rows,
and noise is drawn at the training rows' own scale. An erased step stays a real step (its mask stays
True): the fusion is not told. Which steps are lost depends on clip, stream and seed alone, and a
step lost at one rate is lost at all higher ones.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mertool import stats
from mertool.data import Dataset
from mertool.errors import UsageError, did_you_mean
from mertool.evaluate.opening import Change, Pooled
from mertool.metrics import scores

NOISES = ("erase", "gauss")
UNITS = ("steps", "window")
ALL = "all streams"


@dataclass(frozen=True)
class Masking:
    """How clips are damaged.

    Attributes:
        rates: Shares of steps lost, rising.
        noise: "erase" (zeros, the training mean) or "gauss" (standard normal noise).
        unit: "steps" (each on its own) or "window" (one stretch).
        streams: Streams damaged together; empty = first all together, then each alone.
    """

    rates: tuple[float, ...]
    noise: str = "erase"
    unit: str = "steps"
    streams: tuple[str, ...] = ()


def parse(
    rates: str, noise: str, unit: str, streams: Sequence[str], known: Sequence[str]
) -> Masking:
    """Settle what the user asked for.

    Args:
        rates: "START:END:STEP", such as "0:1:0.1"; END is included.
        noise: One of NOISES.
        unit: One of UNITS.
        streams: Streams to damage; empty = all together, then each alone.
        known: The run's streams.

    Raises:
        UsageError: Anything of this is wrong.
    """
    for value, allowed, name in ((noise, NOISES, "--noise"), (unit, UNITS, "--unit")):
        if value not in allowed:
            raise UsageError(
                f'There is no {name[2:]} "{value}".', name, did_you_mean(value, allowed)
            )
    for name in streams:
        if name not in known:
            raise UsageError(
                f'The run has no stream "{name}".', "--streams", did_you_mean(name, known)
            )
    try:
        start, end, step = (float(part) for part in rates.split(":"))
        if not (0 <= start < end <= 1 and 0 < step <= end - start):
            raise ValueError
    except ValueError:
        raise UsageError(
            f'"{rates}" is no range of rates.', "--mask", "Write START:END:STEP, as 0:1:0.1"
        ) from None
    count = int(np.floor((end - start) / step + 1e-9)) + 1
    values = tuple(round(start + i * step, 10) for i in range(count))
    return Masking(values, noise, unit, tuple(dict.fromkeys(streams)))


def conditions(masking: Masking, streams: Sequence[str]) -> dict[str, dict[str, Change]]:
    """Every change of the clips that a masking asks for.

    Args:
        masking: What is asked for.
        streams: The run's streams.

    Returns:
        For the fusion (""): {name: change}: "WHICH@RATE" for the curves, and "STREAM missing, FILL"
        for each stream lost as a whole: filled with zeros, with noise, or absent (no real step, as
        the fusion is told). For each stream alone the curve of its one stream.
    """

    def curve(which: str, names: Sequence[str]) -> dict[str, Change]:
        return {
            f"{which}@{rate:g}": _damage(names, rate, masking.noise, masking.unit)
            for rate in masking.rates
        }

    fusion: dict[str, Change] = {}
    for which, names in curves(masking, streams).items():
        fusion |= curve(which, names)
    for name in streams:
        for noise, fill in (("erase", "zeros"), ("gauss", "noise")):
            fusion[f"{name} missing, {fill}"] = _damage([name], 1.0, noise, "steps")
        if len(streams) > 1:
            fusion[f"{name} missing, absent"] = _absent(name)
    alone = {} if masking.streams else {name: curve(ALL, [name]) for name in streams}
    return {"": fusion, **alone}


def curves(masking: Masking, streams: Sequence[str]) -> dict[str, list[str]]:
    """{name of a curve: the streams it damages}."""
    if masking.streams:
        return {", ".join(masking.streams): list(masking.streams)}
    found = {ALL: list(streams)}
    return found | ({name: [name] for name in streams} if len(streams) > 1 else {})


def _damage(names: Sequence[str], rate: float, noise: str, unit: str) -> Change:
    def change(data: Dataset, seed: int) -> Dataset:
        damaged = copy.copy(data)
        damaged.values = dict(data.values)
        for name in names:
            damaged.values[name] = damage(data, name, rate, noise, unit, seed)
        return damaged

    return change


def damage(
    data: Dataset, stream: str, rate: float, noise: str, unit: str, seed: int
) -> torch.Tensor:
    """(sum T, D) rows of a stream with a share of each clip's steps lost.

    Args:
        data: Normalised clips.
        stream: Which stream.
        rate: Share of steps. unit "steps": each step is lost with this probability. "window": one
            stretch of round(rate * T) steps, from a uniformly drawn start.
        noise: "erase" or "gauss".
        unit: "steps" or "window".
        seed: Fixes which steps, together with the clip's id and the stream's name.
    """
    values = data.values[stream]
    offsets = data.offsets[stream].cpu().numpy()
    lost = np.zeros(len(values), bool)
    filling = torch.zeros_like(values)
    for i, name in enumerate(data.ids):
        low, high = offsets[i : i + 2]
        draw = _generator(seed, stream, name)
        steps = high - low
        if unit == "steps":
            lost[low:high] = draw.random(steps) < rate
        else:
            width = int(np.floor(rate * steps + 0.5))
            first = low + int(draw.random() * (steps - width + 1))
            lost[first : first + width] = True
        if noise == "gauss":
            sample = draw.standard_normal((steps, values.shape[1]), np.float32)
            filling[low:high] = torch.from_numpy(sample)
    where = torch.from_numpy(lost).to(values.device)[:, None]
    return torch.where(where, filling, values)


def _generator(seed: int, stream: str, clip: str) -> np.random.Generator:
    """A generator for each clip, so that their order and who else is there change nothing."""
    digest = hashlib.sha256(f"{seed}\t{stream}\t{clip}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8]))


def _absent(name: str) -> Change:
    def change(data: Dataset, seed: int) -> Dataset:
        lacking = copy.copy(data)
        lacking.values = {**data.values, name: data.values[name][:0]}
        lacking.offsets = {**data.offsets, name: torch.zeros_like(data.offsets[name])}
        return lacking

    return change


def summary(
    pooled: Pooled, masking: Masking, streams: Sequence[str], convention: str, scale: str
) -> dict[str, Any]:
    """Scores of damaged clips.

    Returns:
        "rates", "noise", "unit"; "curves": {which streams: {metric: means over seeds, one per
        rate}}; "auilc": {which: {"mean", "std"}} (eq. 10, of each seed's curve); "singles":
        {stream: {"mean", "std"}}, that area for the fusion trained on the stream alone; "missing":
        {stream: {"zeros" | "noise" | "absent": {"mean", "std"}}}.
    """

    def each(condition: str, only: str = "") -> list[dict[str, float]]:
        return [
            without_nan(scores(pooled.label, pooled.y, pred, convention, scale).values, pred)
            for pred in pooled.pred[only][condition].values()
        ]

    def area(which: str, only: str = "") -> tuple[list[list[dict[str, float]]], dict[str, Any]]:
        points = [each(f"{which}@{rate:g}", only) for rate in masking.rates]  # by rate, by seed
        areas = [
            {
                name: auilc(masking.rates, [seeds[s][name] for seeds in points])
                for name in points[0][0]
            }
            for s in range(len(points[0]))
        ]
        return points, dict(zip(("mean", "std"), stats.spread(areas), strict=True))

    result: dict[str, Any] = {
        "rates": list(masking.rates), "noise": masking.noise, "unit": masking.unit,
        "curves": {}, "auilc": {}, "singles": {}, "missing": {},
    }  # fmt: skip
    for which in curves(masking, streams):
        points, result["auilc"][which] = area(which)
        result["curves"][which] = {
            name: [stats.spread(seeds)[0][name] for seeds in points] for name in points[0][0]
        }
    for only, made in pooled.pred.items():
        if only and len(made) > 1:  # not only the clips as they are
            result["singles"][only] = area(ALL, only)[1]
    for condition in pooled.pred[""]:
        stream, missing, fill = condition.partition(" missing, ")
        if missing:
            made = dict(zip(("mean", "std"), stats.spread(each(condition)), strict=True))
            result["missing"].setdefault(stream, {})[fill] = made
    return result


def auilc(rates: Sequence[float], values: Sequence[float]) -> float:
    """Area under a metric's curve over mask rates (NORM-TR, eq. 10: trapezoids).

    Over rates from 0 to 1 it is the metric's mean over rates: that of a constant is the constant.
    """
    r, x = np.asarray(rates, float), np.asarray(values, float)
    return float(((x[1:] + x[:-1]) / 2 * np.diff(r)).sum())


def without_nan(values: Mapping[str, float], pred: np.ndarray) -> dict[str, float]:
    """A metric's values for a curve: the correlation of constant predictions counts as 0.

    Where everything is erased a fusion may say the same for every clip; then there is no
    correlation, and leaving the point out of the area would flatter the method. What differs by
    rounding alone is constant too.
    """
    constant = np.ptp(pred, axis=0).max(initial=0) <= 1e-5 * max(1.0, np.abs(pred).max(initial=0))
    return {
        name: 0.0 if name in ("pearson", "ccc") and constant else value
        for name, value in values.items()
    }
