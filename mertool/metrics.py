"""Scores of predictions: plain numpy, one function per kind of label."""

from __future__ import annotations

from typing import Any

import numpy as np

from mertool.types import Label

# A regression label is also read as classes, its rounded values, when there are few of them.
_MOST_CLASSES = 11


def scores(label: Label, y: Any, pred: Any) -> dict[str, Any]:
    """Every score of a task.

    Args:
        label: The label's task and classes.
        y: (N, 1), (N,) or (N, K) true values.
        pred: (N, K) raw predictions: values, or logits.

    Returns:
        {name: float}, and "confusion" as a list of rows (true class by predicted class).
        regression: mae, pearson (NaN where a side is constant), and of the values rounded and
        clipped to the label's range: accuracy_rounded, weighted_f1_rounded (when these are few
        classes). classification: accuracy,
        weighted_f1, unweighted_recall. multilabel: accuracy (mean over labels),
        weighted_f1 (mean over labels of the two-class weighted F1), subset_accuracy.
    """
    y, pred = np.asarray(y, np.float64), np.asarray(pred, np.float64)
    if label.task == "regression":
        return _regression(label, y.reshape(-1), pred.reshape(-1))
    if label.task == "classification":
        return _classes(y.astype(int), pred.argmax(1), len(label.classes))
    present, said = y > 0.5, pred > 0
    each = [weighted_f1(confusion(present[:, k], said[:, k], 2)) for k in range(y.shape[1])]
    return {
        "accuracy": float((present == said).mean()),
        "weighted_f1": float(np.mean(each)),
        "subset_accuracy": float((present == said).all(1).mean()),
    }


def _regression(label: Label, y: np.ndarray, pred: np.ndarray) -> dict[str, Any]:
    result: dict[str, Any] = {
        "mae": float(np.abs(pred - y).mean()),
        "pearson": pearson(y, pred),
    }
    low, high = np.round(label.range)
    if high - low < _MOST_CLASSES:
        rounded = [np.clip(np.round(v), low, high) - low for v in (y, pred)]
        classes = _classes(*(v.astype(int) for v in rounded), int(high - low) + 1)
        result["accuracy_rounded"] = classes["accuracy"]
        result["weighted_f1_rounded"] = classes["weighted_f1"]
        result["confusion"] = classes["confusion"]
    return result


def _classes(y: np.ndarray, said: np.ndarray, classes: int) -> dict[str, Any]:
    matrix = confusion(y, said, classes)
    return {
        "accuracy": float(np.trace(matrix) / max(1, matrix.sum())),
        "weighted_f1": weighted_f1(matrix),
        "unweighted_recall": unweighted_recall(matrix),
        "confusion": matrix.tolist(),
    }


def pearson(y: np.ndarray, pred: np.ndarray) -> float:
    """Pearson correlation of two (N,) arrays; NaN where one is constant."""
    a, b = y - y.mean(), pred - pred.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def confusion(y: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts, rows = true, columns = predicted."""
    pairs = y.astype(int) * classes + said.astype(int)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def weighted_f1(matrix: np.ndarray) -> float:
    """Mean F1 of the classes, weighted by how many true members each has."""
    hits, true, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    f1 = 2 * hits / np.maximum(true + said, 1)
    return float((f1 * true).sum() / max(1, true.sum()))


def unweighted_recall(matrix: np.ndarray) -> float:
    """Mean recall of the classes that have true members."""
    true = matrix.sum(1)
    return float((np.diag(matrix)[true > 0] / true[true > 0]).mean()) if true.any() else 0.0


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
