"""Each convention gives the very digits of the project it is named after.

The file of reference outputs is $MERTOOL_REFERENCE_METRICS, else metrics/reference_metrics.json
of the shared data. Any file of that form will do: cases, sizes and values are read, not known.
"""

from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from mertool import metrics
from mertool.errors import DataError
from mertool.types import Label

LABELS = {
    "mosi-regression": Label("score", "regression", (), (-3.0, 3.0)),
    "sims-regression": Label("score", "regression", (), (-1.0, 1.0)),
    "3way-classification": Label("s", "classification", ("negative", "neutral", "positive")),
    "4way-classification": Label("e", "classification", ("neutral", "happy", "sad", "angry")),
    "5way-classification": Label("s", "classification", ("--", "-", "0", "+", "++")),
    "iemocap-4x2": Label("e", "multilabel", ("Neutral", "Happy", "Sad", "Angry")),
}

MOSI = {
    "MAE": "mae", "Corr": "pearson", "Has0_acc_2": "acc2_has0", "Has0_F1_score": "f1_has0",
    "Non0_acc_2": "acc2_non0", "Non0_F1_score": "f1_non0", "Mult_acc_5": "acc5",
    "Mult_acc_7": "acc7",
}  # fmt: skip
SIMS = {
    "MAE": "mae", "Corr": "pearson", "Mult_acc_2": "acc2", "F1_score": "f1", "Mult_acc_3": "acc3",
    "Mult_acc_5": "acc5",
}  # fmt: skip
THREE = {
    "Acc_3": "accuracy", "F1_score_3": "weighted_f1", "Has0_acc_2": "acc2_has0",
    "Has0_F1_score": "f1_has0", "Non0_acc_2": "acc2_non0", "Non0_F1_score": "f1_non0",
}  # fmt: skip
MULT = {
    "MAE": "mae", "Correlation Coefficient": "pearson", "mult_acc_7": "acc7", "mult_acc_5": "acc5",
}  # fmt: skip
MISA = {
    "returned (non-neg/neg accuracy)": "acc2_has0", "acc non-neg/neg": "acc2_has0",
    "acc pos/neg": "acc2_non0", "mae": "mae", "corr": "pearson", "mult_acc": "acc7",
    "weighted f1 pos/neg (5 digits, true-support)": "f1_non0",
    "weighted f1 non-neg/neg (5 digits, true-support)": "f1_has0",
}  # fmt: skip
IEMOCAP = {
    f"{emotion} {theirs}": f"{ours}:{emotion}"
    for emotion in LABELS["iemocap-4x2"].classes
    for theirs, ours in (("F1 Score", "weighted_f1"), ("Accuracy", "accuracy"))
}

# {project's entry: (its name with us, {its metric: our name})}
PROJECTS = {
    "MMSA regression MOSI/MOSEI": ("mmsa", MOSI),
    "TMT regression MOSI/MOSEI": ("tmt", MOSI),
    "ALMT regression MOSI/MOSEI": ("almt", MOSI),
    "MulT eval_mosei_senti exclude_zero=True": (
        "mult", MULT | {"F1 score": "f1_non0", "Accuracy": "acc2_non0"},
    ),
    "MulT eval_mosei_senti exclude_zero=False": (
        "mult", MULT | {"F1 score": "f1_zero_negative", "Accuracy": "acc2_zero_negative"},
    ),
    "MISA calc_metrics": ("misa", MISA),
    "MISA f_score expression": ("misa", {"f": "f1_non0_pred_support"}),
    "MMSA regression SIMS": ("mmsa", SIMS),
    "TMT regression SIMS": ("tmt", SIMS),
    "ALMT regression SIMS": ("almt", SIMS),
    "MMSA classification (3-way)": ("mmsa", THREE),
    "TMT classification (3-way)": ("tmt", THREE | {"ua": "unweighted_recall", "wa": "accuracy"}),
    "TMT IEMOCAP 4-way": ("tmt", {"Mult_acc_4": "accuracy", "F1_score_4": "weighted_f1"}),
    "TMT cal_acc5": ("tmt", {"Mult_acc_5": "accuracy", "F1_score_5": "weighted_f1"}),
    "MulT eval_iemocap": ("mult", IEMOCAP),
    "MulT weighted_accuracy": ("mult", {"wa": "weighted_accuracy"}),
}  # fmt: skip


@pytest.fixture
def reference(request) -> dict:
    given = os.environ.get("MERTOOL_REFERENCE_METRICS")
    path = (
        Path(given)
        if given
        else request.getfixturevalue("shared") / "metrics" / "reference_metrics.json"
    )
    return json.loads(path.read_text(encoding="utf-8"))


def flat(outputs: dict) -> dict:
    """{metric: stored value}, emotions and their metrics joined."""
    result = {}
    for key, value in outputs.items():
        nested = value.items() if isinstance(value, dict) else [("", value)]
        result.update({f"{key} {k}".strip(): v for k, v in nested})
    return result


def stored_entries(reference: dict) -> int:
    """How many values and exceptions the file holds."""
    return sum(len(flat(o)) for case in reference["cases"] for o in case["outputs"].values())


def ours(kind: str, inputs: dict, project: str) -> dict[str, float]:
    """Our values for a case, by our names."""
    inputs = {name.split()[0]: value for name, value in inputs.items()}
    y = inputs.pop("label")
    (pred,) = inputs.values()
    if kind == "mult-weighted_accuracy":
        return {"weighted_accuracy": metrics.mult_weighted_accuracy(y, pred)}
    if project.startswith("MulT eval_mosei_senti"):
        # Apart, as one of them raises where the other does not.
        return metrics.mult_sentiment(y, pred, project.endswith("True"))
    return metrics.scores(LABELS[kind], y, pred, PROJECTS[project][0]).values


def same(stored: object, value: float) -> bool:
    """Equal, as double or as single precision numbers: at most 6e-8 apart."""
    if stored == "nan":
        return math.isnan(value)
    assert isinstance(stored, int | float), stored
    return stored == value or np.float32(stored) == np.float32(value)


def compare(reference: dict) -> tuple[int, list[str], set[tuple[str, str]]]:
    """Number of comparisons, what differs, and which of our values were compared."""
    count, wrong, compared = 0, [], set()
    for case in reference["cases"]:
        for project, outputs in case["outputs"].items():
            names = PROJECTS[project][1]
            try:
                values = ours(case["kind"], case["inputs"], project)
            except DataError as error:
                assert error.what and error.where and error.fix
                values = {"raises": str(error)}
            for theirs, stored in flat(outputs).items():
                count += 1
                where = f"{case['name']} / {project} / {theirs}: {stored}"
                if "raises" in outputs or "raises" in values:
                    if not ("raises" in outputs and "raises" in values):
                        wrong.append(f"{where}, ours {values}")
                    continue
                name = names[theirs]
                compared.add((project, name))
                if not same(stored, values[name]):
                    wrong.append(f"{where}, ours {values[name]!r}")
    return count, wrong, compared


def test_every_stored_value(reference):
    count, wrong, _ = compare(reference)
    assert not wrong, "\n".join(wrong)
    assert count == stored_entries(reference) > 0


def test_no_value_of_a_convention_is_left_unchecked(reference):
    """What a convention returns for a case is what the reference holds of that project."""
    for case in reference["cases"]:
        for project, outputs in case["outputs"].items():
            if "raises" in outputs:
                continue
            convention = PROJECTS[project][0]
            known = {
                name
                for other in case["outputs"]
                if PROJECTS[other][0] == convention
                for name in PROJECTS[other][1].values()
            }
            assert set(ours(case["kind"], case["inputs"], project)) <= known, project


def test_the_two_forms_of_mult_are_both_in_scores(reference):
    forms = [f"MulT eval_mosei_senti exclude_zero={e}" for e in (True, False)]
    for case in reference["cases"]:
        if case["kind"] != "mosi-regression" or any(
            "raises" in case["outputs"][form] for form in forms
        ):
            continue
        y, pred = case["inputs"]["label"], case["inputs"]["pred"]
        both = metrics.scores(LABELS[case["kind"]], y, pred, "mult").values
        for form in forms:
            for theirs, stored in case["outputs"][form].items():
                assert same(stored, both[PROJECTS[form][1][theirs]])


def test_our_own_convention_never_raises(reference):
    for case in reference["cases"]:
        if case["kind"] not in LABELS:
            continue
        inputs = {name.split()[0]: value for name, value in case["inputs"].items()}
        y = inputs.pop("label")
        (pred,) = map(np.array, inputs.values())
        if case["kind"] == "iemocap-4x2":
            pred = pred[:, 1::2] - pred[:, ::2]
        result = metrics.scores(LABELS[case["kind"]], y, pred)
        assert set(result.reasons) == {n for n, v in result.values.items() if math.isnan(v)}


def changed(reference: dict, change) -> dict:
    """A copy of the file with `change` made to a case that has numbers."""
    copied = copy.deepcopy(reference)
    case = next(c for c in copied["cases"] if c["kind"] == "mosi-regression")
    change(case["outputs"])
    return copied


def test_a_changed_digit_is_noticed(reference):
    def digit(outputs):
        outputs["MMSA regression MOSI/MOSEI"]["MAE"] += 1e-4

    _, wrong, _ = compare(changed(reference, digit))
    assert len(wrong) == 1 and "MAE" in wrong[0]


def test_an_exception_that_we_do_not_raise_is_noticed(reference):
    def raises(outputs):
        outputs["MISA f_score expression"] = {"raises": "IndexError: x"}

    assert len(compare(changed(reference, raises))[1]) == 1


def test_an_unknown_metric_fails(reference):
    def metric(outputs):
        outputs["MMSA regression MOSI/MOSEI"]["Kappa"] = 1.0

    with pytest.raises(KeyError, match="Kappa"):
        compare(changed(reference, metric))


def test_an_unknown_project_fails(reference):
    def project(outputs):
        outputs["Another project"] = {"MAE": 1.0}

    with pytest.raises(KeyError, match="Another project"):
        compare(changed(reference, project))
