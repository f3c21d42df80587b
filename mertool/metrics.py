"""Metrics of predictions, by name and by convention: plain numpy.

A metric is fixed by its name and a convention. The convention "mertool" computes each name as
docs/metrics.md defines it, in float64; the others give the numbers that the code of a published
project gives, with its rounding, its single precision and its oddities. Print names with
`printed`, so that the two are never apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from mertool.errors import DataError, UsageError, did_you_mean
from mertool.types import Label

CONVENTIONS = ("mertool", "mmsa", "mult", "misa", "tmt", "almt")
SCALES = ("mosi", "sims", "other")
LOWER_IS_BETTER = frozenset({"mae"})

NAN = float("nan")
_WA = "weighted_accuracy"
# A regression label on another scale is also read as classes when its rounded values are few.
_MOST_CLASSES = 11
# CH-SIMS: inner edges of the classes (a, b].
_SIMS_EDGES = {2: (0.0,), 3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}
_SIMS_CLASSES = ["[-1, -0.7]", "(-0.7, -0.1]", "(-0.1, 0.1]", "(0.1, 0.7]", "(0.7, 1]"]
_POLARITY = {"negative": 0, "neg": 0, "neutral": 1, "neu": 1, "positive": 2, "pos": 2}
# Values that the projects hold as numpy scalars; the rest are plain floats of scikit-learn. The
# two round a tie such as 0.00625 differently.
_NUMPY_SCALARS = frozenset({"mae", "pearson", "acc2", "acc3", "acc5", "acc7"})

Values = dict[str, float]


@dataclass
class Scores:
    """The metrics of one task under one convention.

    Attributes:
        convention: One of CONVENTIONS.
        values: {metric: value}, in the order of a table.
        reasons: {metric: why it is NaN}, one sentence each.
        confusion: Counts, rows = true classes, columns = predicted; [] where there are none.
        classes: Names of the rows of `confusion`.
    """

    convention: str
    values: Values
    reasons: dict[str, str] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


def scores(label: Label, y: Any, pred: Any, convention: str = "mertool", scale: str = "") -> Scores:
    """Every metric of a task.

    Args:
        label: The label's task, classes and range.
        y: (N,), (N, 1) or (N, K) true values.
        pred: (N, K) raw predictions: values, or logits. For a multilabel task under "mult" also
            (N, 2K): a logit for absent and one for present, label by label.
        convention: One of CONVENTIONS.
        scale: One of SCALES, for regression; "" = `scale_of(label)`.

    Returns:
        The values by name; under "mertool" a value that is not defined is NaN, with a reason.

    Raises:
        UsageError: Unknown convention or scale, or the convention does not cover the task.
        DataError: y and pred differ in shape; or the project's own code fails on these values.
    """
    if convention not in CONVENTIONS:
        raise UsageError(
            f'There is no convention "{convention}".',
            "convention",
            did_you_mean(convention, CONVENTIONS),
        )
    kind = _kind(label, scale)
    compute = _COMPUTE[convention].get(kind)
    if compute is None:
        known = [c for c in CONVENTIONS if kind in _COMPUTE[c]]
        raise UsageError(
            f'The convention "{convention}" has no metrics for this task.',
            f'label "{label.name}": {label.task}, {_KINDS[kind]}',
            f"Conventions that have: {', '.join(known)}",
        )
    ours = convention == "mertool"
    y, pred = _arrays(label, y, pred, ours)
    if not ours and not len(y):
        _refuse(convention, "needs at least one clip", f'label "{label.name}": 0 clips')
    # Of no clips every metric is NaN.
    used = slice(0) if ours and not _usable(label, y, pred) else slice(None)
    with np.errstate(all="ignore"):
        values = compute(convention, label, y[used], pred[used])
        matrix, classes = _matrix(label, kind, y[used], pred[used])
    reasons = {n: _reason(n, label, y, pred) for n, v in values.items() if v != v}
    return Scores(convention, values, reasons, matrix, classes)


def scale_of(label: Label) -> str:
    """The scale of a regression label, from the values it takes.

    Returns:
        "sims" for negative and positive values within [-1, 1], "mosi" within [-3, 3], else
        "other".
    """
    low, high = label.range
    if low < 0 and -1 <= low and high <= 1:
        return "sims"
    return "mosi" if low < 0 and -3 <= low and high <= 3 else "other"


def printed(name: str, convention: str) -> str:
    """A metric's name as it is printed anywhere.

    >>> printed("acc2_has0", "mmsa")
    'acc2_has0 (mmsa)'
    """
    return f"{name} ({convention})"


def pooled(parts: Iterable[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The predictions of the folds of a cross-validation as those of one set.

    A metric of the pooled predictions (RML's Acc-6) weighs every clip alike; the mean of the
    folds' metrics does not.

    Args:
        parts: For each fold y (n, ...) and pred (n, K).

    Returns:
        y (N, ...) and pred (N, K), fold after fold, for `scores`.
    """
    y, pred = zip(*parts, strict=True)
    return np.concatenate([np.asarray(v) for v in y]), np.concatenate([np.asarray(v) for v in pred])


# Building blocks. Each is NaN where it is not defined, and keeps the precision of its arrays.


def mae(y: np.ndarray, pred: np.ndarray) -> float:
    """Mean absolute error of (N,) values."""
    return float(np.abs(pred - y).mean()) if len(y) else NAN


def pearson(y: np.ndarray, pred: np.ndarray) -> float:
    """Pearson correlation of two (N,) arrays; NaN where one is constant, and below two clips."""
    # Rounding of the mean can leave a constant with a tiny variance, and noise for a correlation.
    if len(y) < 2 or _constant(y) or _constant(pred):
        return NAN
    return float(np.corrcoef(pred, y)[0, 1])


def ccc(y: np.ndarray, pred: np.ndarray) -> float:
    """Concordance correlation coefficient of two (N,) arrays, with moments over N.

    2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2): Lin (1989), "A concordance correlation coefficient
    to evaluate reproducibility", Biometrics 45. NaN where both are the same constant.
    """
    if not len(y):
        return NAN
    y_mean, pred_mean = (v[0] if _constant(v) else v.mean() for v in (y, pred))
    a, b = y - y_mean, pred - pred_mean
    spread = (a**2).mean() + (b**2).mean() + (y_mean - pred_mean) ** 2
    return float(2 * (a * b).mean() / spread) if spread > 0 else NAN


def acc2_has0(y: np.ndarray, pred: np.ndarray) -> float:
    """Share of (N,) values on the right side of zero: below, or zero and above."""
    return accuracy(_has0(y, pred))


def f1_has0(y: np.ndarray, pred: np.ndarray, support: str = "true") -> float:
    """Weighted F1 of the two classes of `acc2_has0`."""
    return weighted_f1(_has0(y, pred), support)


def acc2_non0(y: np.ndarray, pred: np.ndarray) -> float:
    """Share of right signs among the (N,) values whose label is not exactly 0.

    A prediction of exactly 0 counts as negative.
    """
    return accuracy(_non0(y, pred))


def f1_non0(y: np.ndarray, pred: np.ndarray, support: str = "true") -> float:
    """Weighted F1 of the two classes of `acc2_non0`."""
    return weighted_f1(_non0(y, pred), support)


def rounded(values: np.ndarray, k: int) -> np.ndarray:
    """(N,) values cut to k whole numbers around 0, ties to the even one: 0.5 to 0, 1.5 to 2."""
    return np.round(values.clip(-(k // 2), k // 2))


def cmu_rounded(values: np.ndarray) -> np.ndarray:
    """(N,) values rounded away from zero and cut to [-3, 3]: the seven classes of CMU-MOSEI.

    -2 up to below -1 is -2, -1 up to below 0 is -1, 0 is 0, above 0 up to 1 is 1 (README of the
    CMU-MultimodalSDK's CMU-MOSEI).
    """
    return np.where(values > 0, np.ceil(values), np.floor(values)).clip(-3, 3)


def acc(y: np.ndarray, pred: np.ndarray, k: int) -> float:
    """Share of (N,) values that are `rounded` to the true one of k classes; k = 3, 5 or 7."""
    return _share(rounded(y, k) == rounded(pred, k))


def acc7_cmu(y: np.ndarray, pred: np.ndarray) -> float:
    """Share of (N,) values whose class by `cmu_rounded` is right."""
    return _share(cmu_rounded(y) == cmu_rounded(pred))


def sims_bins(values: np.ndarray, k: int) -> np.ndarray:
    """(N,) class of each value by CH-SIMS's intervals (a, b]; k = 2, 3 or 5.

    Inner edges: 0; -0.1 and 0.1; -0.7, -0.1, 0.1 and 0.7. Compared in float32, the precision of
    stored labels, so that 0.1 lies on its edge, whatever precision it comes in.
    """
    edges = np.array(_SIMS_EDGES[k], np.float32)
    return np.searchsorted(edges, values.astype(np.float32), side="left")


def confusion(y: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts of (N,) class numbers, rows = true, columns = predicted."""
    pairs = y.astype(int) * classes + said.astype(int)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: np.ndarray) -> float:
    """Share of clips on the diagonal of a confusion matrix: WA, Acc-2 of UR-FUNNY, Acc-6 of RML."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else NAN


def weighted_f1(matrix: np.ndarray, support: str = "true") -> float:
    """Mean F1 of the classes of a confusion matrix, weighted by how often each occurs.

    Args:
        matrix: (K, K) counts, rows = true.
        support: "true" = weighted by true members; "pred" = by predicted ones, which is what
            scikit-learn's f1_score gives when truth and prediction are passed in swapped order.
    """
    hits, true, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    weight = {"true": true, "pred": said}[support]
    total = weight.sum()
    f1 = 2 * hits / np.maximum(true + said, 1)
    return float((f1 * weight).sum() / total) if total else NAN


def unweighted_recall(matrix: np.ndarray) -> float:
    """Mean recall of the classes that have true members (UA, UAR)."""
    true = matrix.sum(1)
    there = true > 0
    return float((np.diag(matrix)[there] / true[there]).mean()) if there.any() else NAN


def weighted_accuracy(present: np.ndarray, said: np.ndarray) -> float:
    """(tp * n / p + tn) / 2n of (N,) booleans, of which p are true and n are not.

    The measure of CMU-MOSEI's emotions: the mean of the recalls of presence and absence (Tong et
    al. 2017, "Combating Human Trafficking with Deep Multimodal Models", ACL). NaN where every
    clip or none is true.
    """
    (tn, fp), (fn, tp) = confusion(present, said, 2).tolist()
    n, p = tn + fp, fn + tp
    return (tp * (n / p) + tn) / (2 * n) if n and p else NAN


# The projects' own functions that `scores` cannot reach apart.


def mult_sentiment(y: Any, pred: Any, exclude_zero: bool = True) -> Values:
    """MulT's sentiment metrics.

    Args:
        y: (N,) or (N, 1) true values from -3 to 3.
        pred: Predictions, likewise.
        exclude_zero: Leave clips out whose label is exactly 0 (acc2_non0, f1_non0); else they
            count as negative (acc2_zero_negative, f1_zero_negative).

    Returns:
        {metric: value}; F1 is weighted by predicted support.

    Raises:
        DataError: No clip is left.
    """
    y, pred = (np.asarray(v, np.float32).reshape(-1) for v in (y, pred))
    keep = (y != 0) if exclude_zero else np.ones(len(y), bool)
    _need_a_sign("mult", keep.any())
    matrix = confusion(y[keep] > 0, pred[keep] > 0, 2)
    suffix = "non0" if exclude_zero else "zero_negative"
    with np.errstate(all="ignore"):
        return {
            "mae": mae(y, pred),
            "pearson": pearson(y, pred),
            f"acc2_{suffix}": accuracy(matrix),
            f"f1_{suffix}": weighted_f1(matrix, "pred"),
            "acc5": acc(y, pred, 5),
            "acc7": acc(y, pred, 7),
        }


def mult_weighted_accuracy(y: Any, pred: Any) -> float:
    """MulT's weighted accuracy: `weighted_accuracy` of "above 0".

    Args:
        y: (N,) true values.
        pred: (N,) predictions.

    Raises:
        DataError: No label is above 0, or all are.
    """
    value = weighted_accuracy(np.asarray(y) > 0, np.asarray(pred) > 0)
    if np.isnan(value):
        _refuse("mult", "needs labels above 0 and others", f"weighted_accuracy: {len(y)} labels")
    return value


# The constant predictor.


def baseline_prediction(label: Label, baseline: list[float], count: int) -> np.ndarray:
    """(N, K) predictions of the constant predictor learnt from the training labels.

    Regression: the training mean. Classification: the majority class. Multilabel: each label's
    majority.
    """
    row = np.asarray(baseline, np.float64)
    if label.task == "multilabel":
        row = row - 0.5
    return np.tile(row, (count, 1))


def baseline_of(label: Label, y: Any) -> list[float]:
    """What `baseline_prediction` needs, from (N, ...) training labels."""
    y = np.asarray(y)
    if label.task == "classification":
        return (np.bincount(y, minlength=len(label.classes)) / len(y)).tolist()
    return y.reshape(len(y), -1).mean(0).tolist()


# What is computed for each kind of task: (convention, label, y, pred) -> {metric: value}.


def _ours_mosi(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    return (
        _errors(y, pred)
        | _signs(y, pred)
        | {f"acc{k}": acc(y, pred, k) for k in (3, 5, 7)}
        | {"acc7_cmu": acc7_cmu(y, pred)}
    )


def _errors(y: np.ndarray, pred: np.ndarray) -> Values:
    return {"mae": mae(y, pred), "pearson": pearson(y, pred), "ccc": ccc(y, pred)}


def _signs(y: np.ndarray, pred: np.ndarray, support: str = "true") -> Values:
    return {
        "acc2_has0": acc2_has0(y, pred),
        "f1_has0": f1_has0(y, pred, support),
        "acc2_non0": acc2_non0(y, pred),
        "f1_non0": f1_non0(y, pred, support),
    }


def _ours_sims(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    return _errors(y, pred) | _sims_classes(y, pred)


def _sims_classes(y: np.ndarray, pred: np.ndarray, support: str = "true") -> Values:
    two, three, five = (confusion(sims_bins(y, k), sims_bins(pred, k), k) for k in (2, 3, 5))
    return {
        "acc2": accuracy(two),
        "f1": weighted_f1(two, support),
        "acc3": accuracy(three),
        "acc5": accuracy(five),
    }


def _ours_other(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    values = _errors(y, pred)
    matrix = _whole_numbers(label, y, pred)
    if matrix is not None:
        values["accuracy_rounded"] = accuracy(matrix)
        values["weighted_f1_rounded"] = weighted_f1(matrix)
    return values


def _whole_numbers(label: Label, y: np.ndarray, pred: np.ndarray) -> np.ndarray | None:
    """Confusion matrix of rounded values; None where the label's range has too many."""
    low, high = np.round(label.range)
    if high - low >= _MOST_CLASSES:
        return None
    true, said = (np.round(v).clip(low, high) - low for v in (y, pred))
    return confusion(true, said, int(high - low) + 1)


def _ours_classes(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    matrix = _classes(label, y, pred)
    return {
        "accuracy": accuracy(matrix),
        "unweighted_recall": unweighted_recall(matrix),
        "weighted_f1": weighted_f1(matrix),
    }


def _classes(label: Label, y: np.ndarray, pred: np.ndarray) -> np.ndarray:
    return confusion(y, pred.argmax(1), len(label.classes))


def _ours_polarity(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    has0, non0 = _two_way(label, y, pred, positive_class=1)
    return _ours_classes(convention, label, y, pred) | _two_way_values(has0, non0)


def _two_way(
    label: Label, y: np.ndarray, pred: np.ndarray, positive_class: int
) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrices of the greater of the negative and the positive logit (tie: negative).

    The first is of all clips, neutral ones counted as negative; the second is without neutral
    clips, with the number of the class that positive labels have there.
    """
    negative, neutral, positive = _polarity(label)
    true, said = y == positive, pred[:, [negative, positive]].argmax(1)
    keep = y != neutral
    non0 = confusion(positive_class * true[keep], said[keep], positive_class + 1)
    return confusion(true, said, 2), non0


def _two_way_values(has0: np.ndarray, non0: np.ndarray, support: str = "true") -> Values:
    return {
        "acc2_has0": accuracy(has0),
        "f1_has0": weighted_f1(has0, support),
        "acc2_non0": accuracy(non0),
        "f1_non0": weighted_f1(non0, support),
    }


def _ours_multilabel(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    present, said = y > 0.5, pred > 0
    found = _each_label(label, present, said)
    for k, name in enumerate(label.classes):
        found[f"{_WA}:{name}"] = weighted_accuracy(present[:, k], said[:, k])
    each = {m: [found[f"{m}:{c}"] for c in label.classes] for m in ("accuracy", "weighted_f1", _WA)}
    values = {metric: float(np.mean(v)) for metric, v in each.items()}
    values["subset_accuracy"] = _share((present == said).all(1))
    for k, name in enumerate(label.classes):
        values |= {f"{metric}:{name}": v[k] for metric, v in each.items()}
    return values


def _each_label(label: Label, present: np.ndarray, said: np.ndarray) -> Values:
    values: Values = {}
    for k, name in enumerate(label.classes):
        matrix = confusion(present[:, k], said[:, k], 2)
        values[f"accuracy:{name}"] = accuracy(matrix)
        values[f"weighted_f1:{name}"] = weighted_f1(matrix)
    return values


def _project_mosi(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    """MMSA, and TMT and ALMT, which took over its code."""
    _need_a_sign(convention, (y != 0).any())
    values = {"mae": mae(y, pred), "pearson": pearson(y, pred)}
    values |= _signs(y, pred, _support(convention))
    values |= {f"acc{k}": acc(y, pred, k) for k in (5, 7)}
    exact = _four_digits(values)
    if convention != "mmsa":  # there the error is rounded in single precision
        exact["mae"] = float(np.round(np.float32(values["mae"]), 4))
    return exact


def _project_sims(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    if np.isnan(y).any() or np.isnan(pred).any():
        _refuse(convention, "has no F1 of what is not a number", f'label "{label.name}"')
    y, pred = y.clip(-1, 1), pred.clip(-1, 1)
    values = {"mae": mae(y, pred), "pearson": pearson(y, pred)}
    values |= _sims_classes(y, pred, _support(convention))
    return _four_digits(values) if convention == "mmsa" else values


def _project_polarity(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    matrix, support = _classes(label, y, pred), _support(convention)
    values = {"accuracy": accuracy(matrix)}
    if convention == "tmt":
        if not matrix.sum(1).all():
            _refuse(convention, "needs clips of all three classes", f'label "{label.name}"')
        values["unweighted_recall"] = unweighted_recall(matrix)
    _need_a_sign(convention, (y != _polarity(label)[1]).any())
    values["weighted_f1"] = weighted_f1(matrix, support)
    # The bug of both projects: without neutral clips a positive label is class 2 and a positive
    # prediction class 1, so that no positive clip is ever right.
    has0, non0 = _two_way(label, y, pred, positive_class=2)
    return _four_digits(values | _two_way_values(has0, non0, support))


def _tmt_classes(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    matrix = _classes(label, y, pred)
    values = {"accuracy": accuracy(matrix), "weighted_f1": weighted_f1(matrix, "pred")}
    # Its five-way head of CH-SIMS is scored by other code, which does not round.
    return values if len(label.classes) == 5 else _four_digits(values)


def _mult_mosi(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    return mult_sentiment(y, pred, True) | mult_sentiment(y, pred, False)


def _mult_multilabel(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    if pred.shape[1] == len(label.classes):
        said = pred > 0
    else:  # pairs of logits; a tie means absent
        said = pred.reshape(len(pred), -1, 2).argmax(2) == 1
    return _each_label(label, y > 0.5, said)


def _misa_mosi(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    _need_a_sign(convention, (y != 0).any())
    values = {"mae": mae(y, pred), "pearson": pearson(y, pred)} | _signs(y, pred)
    for name in ("f1_has0", "f1_non0"):  # read from a report printed with five digits
        values[name] = round(values[name], 5)
    # Computed there, but neither printed nor returned.
    values["f1_non0_pred_support"] = f1_non0(y, pred, "pred")
    return values | {"acc7": acc(y, pred, 7)}


def _misa_classes(convention: str, label: Label, y: np.ndarray, pred: np.ndarray) -> Values:
    return {"accuracy": accuracy(_classes(label, y, pred))}


_KINDS = {
    "mosi": "scale mosi",
    "sims": "scale sims",
    "other": "scale other",
    "polarity": "negative, neutral and positive",
    "classes": "classes other than negative, neutral and positive",
    "multilabel": "several labels at once",
}
_Compute = Callable[[str, Label, np.ndarray, np.ndarray], Values]
_COMPUTE: dict[str, dict[str, _Compute]] = {
    "mertool": {
        "mosi": _ours_mosi,
        "sims": _ours_sims,
        "other": _ours_other,
        "polarity": _ours_polarity,
        "classes": _ours_classes,
        "multilabel": _ours_multilabel,
    },
    "mmsa": {"mosi": _project_mosi, "sims": _project_sims, "polarity": _project_polarity},
    "mult": {"mosi": _mult_mosi, "multilabel": _mult_multilabel},
    "misa": {"mosi": _misa_mosi, "polarity": _misa_classes, "classes": _misa_classes},
    "tmt": {
        "mosi": _project_mosi,
        "sims": _project_sims,
        "polarity": _project_polarity,
        "classes": _tmt_classes,
    },
    "almt": {"mosi": _project_mosi, "sims": _project_sims},
}


def _kind(label: Label, scale: str) -> str:
    """Key of _KINDS."""
    if scale and scale not in SCALES:
        raise UsageError(f'There is no scale "{scale}".', "scale", did_you_mean(scale, SCALES))
    if label.task == "regression":
        return scale or scale_of(label)
    if label.task == "multilabel":
        return "multilabel"
    return "polarity" if _polarity(label) else "classes"


def _polarity(label: Label) -> list[int]:
    """Class numbers of negative, neutral and positive; [] where these are not the classes."""
    places = [_POLARITY.get(name.lower(), 3) for name in label.classes]
    return [places.index(k) for k in range(3)] if sorted(places) == [0, 1, 2] else []


def _arrays(label: Label, y: Any, pred: Any, ours: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bring y to (N,) or (N, K), and pred to (N,) of a regression, else (N, K)."""
    dtype = np.float64 if ours else np.float32
    y, pred = np.asarray(y), np.asarray(pred, dtype)
    shapes = f"{y.shape} and {pred.shape}"
    y = y.astype(int if label.task == "classification" else dtype)
    columns = max(1, len(label.classes))
    per_clip = columns if label.task == "multilabel" else 1
    widths = (columns,) if ours or per_clip == 1 else (columns, 2 * columns)
    n = len(y)
    fits = len(pred) == n and y.size == n * per_clip and pred.size in [n * w for w in widths]
    if label.task == "classification" and n:
        fits = fits and 0 <= y.min() and y.max() < columns
    if not fits:
        raise DataError(
            "Labels and predictions do not fit together.",
            f'label "{label.name}": shapes {shapes}',
            "Give each clip a row of predictions, with a column per class; classes count from 0.",
        )
    y = y.reshape(n, columns) if label.task == "multilabel" else y.reshape(n)
    pred = pred.reshape(n, pred.size // n if n else columns)
    return y, pred[:, 0] if label.task == "regression" else pred


def _usable(label: Label, y: np.ndarray, pred: np.ndarray) -> bool:
    """Whether all are numbers; a logit may be infinite, as where classes are masked."""
    if label.task != "regression":
        return not np.isnan(pred).any()
    return bool(np.isfinite(y).all() and np.isfinite(pred).all())


def _matrix(
    label: Label, kind: str, y: np.ndarray, pred: np.ndarray
) -> tuple[list[list[int]], list[str]]:
    """The confusion matrix and the names of its classes."""
    if label.task == "multilabel":
        return [], []
    if label.task == "classification":
        return _classes(label, y, pred).tolist(), list(label.classes)
    numbers = ~(np.isnan(y) | np.isnan(pred))
    y, pred = y[numbers], pred[numbers]
    if kind == "mosi":
        matrix = confusion(rounded(y, 7) + 3, rounded(pred, 7) + 3, 7)
        return matrix.tolist(), [str(v) for v in range(-3, 4)]
    if kind == "sims":
        matrix = confusion(sims_bins(y, 5), sims_bins(pred, 5), 5)
        return matrix.tolist(), list(_SIMS_CLASSES)
    whole = _whole_numbers(label, y, pred)
    if whole is None:
        return [], []
    low = np.round(label.range[0])
    return whole.tolist(), [f"{low + k:g}" for k in range(len(whole))]


def _reason(name: str, label: Label, y: np.ndarray, pred: np.ndarray) -> str:
    """Why a metric is NaN."""
    if not len(y):
        return "There are no clips."
    if not _usable(label, y, pred):
        return "A label or a prediction is not a finite number."
    if name == "ccc":
        return "All labels and all predictions are the same number."
    if name == "pearson":
        if len(y) < 2:
            return "One clip has no correlation."
        return f"All {'labels' if _constant(y) else 'predictions'} are the same."
    if name.startswith("weighted_accuracy"):
        share = dict(zip(label.classes, (y > 0.5).mean(0), strict=True))
        lone = [k for k, s in share.items() if s in (0, 1) and name in (_WA, f"{_WA}:{k}")]
        return f"Every clip or none has {', '.join(lone)}."
    return "Every clip is neutral." if label.task == "classification" else "Every label is 0."


def _has0(y: np.ndarray, pred: np.ndarray) -> np.ndarray:
    return confusion(y >= 0, pred >= 0, 2)


def _non0(y: np.ndarray, pred: np.ndarray) -> np.ndarray:
    keep = y != 0
    return confusion(y[keep] > 0, pred[keep] > 0, 2)


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else NAN


def _constant(values: np.ndarray) -> bool:
    return bool(values.min() == values.max())


def _four_digits(values: Values) -> Values:
    return {
        name: float(np.round(v, 4)) if name in _NUMPY_SCALARS else round(v, 4)
        for name, v in values.items()
    }


def _support(convention: str) -> str:
    return "pred" if convention == "tmt" else "true"


def _need_a_sign(convention: str, any_sign: bool) -> None:
    if not any_sign:
        _refuse(convention, "needs a clip that is not neutral", "All labels are 0, or neutral.")


def _refuse(convention: str, what: str, where: str) -> NoReturn:
    """The project's code stops here with an error; so does its convention."""
    raise DataError(
        f'The convention "{convention}" {what}.',
        where,
        'Use the convention "mertool": it gives NaN with a reason.',
    )
