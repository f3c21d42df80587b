"""Metrics by hand: what each name means, what is NaN and why, what is refused."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from mertool import metrics
from mertool.errors import DataError, UsageError
from mertool.types import Label

SCORE = Label("score", "regression", (), (-3.0, 3.0))
SIMS = Label("score", "regression", (), (-1.0, 1.0))
EMOTION = Label("emotion", "classification", ("a", "b", "c"))
POLARITY = Label("polarity", "classification", ("negative", "neutral", "positive"))
TRAITS = Label("traits", "multilabel", ("x", "y"))
EXAMPLES = {
    "regression": ([1.0, -1.0, 0.5], np.eye(3)),
    "classification": ([0, 1, 2], np.eye(3)),
    "multilabel": ([[0, 1], [1, 0], [1, 1]], np.eye(3)),
}


def test_regression_by_hand():
    y, pred = np.array([[-2.0], [0.0], [1.0], [3.0]]), np.array([[-1.0], [0.4], [1.6], [9.0]])
    result = metrics.scores(SCORE, y, pred)
    assert list(result.values) == [
        "mae", "pearson", "ccc", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc3", "acc5",
        "acc7", "acc7_cmu",
    ]  # fmt: skip
    assert result.values["mae"] == pytest.approx((1 + 0.4 + 0.6 + 6) / 4)
    assert result.values["pearson"] == pytest.approx(np.corrcoef(y[:, 0], pred[:, 0])[0, 1])
    # means 0.5 and 2.5, variances 13/4 and 60.53/4, covariance 25.6/4
    ccc = 2 * 25.6 / 4 / (13 / 4 + 59.72 / 4 + 4)
    assert result.values["ccc"] == pytest.approx(ccc)
    # rounded: y -2 0 1 3, pred -1 0 2 9: cut to 3 classes, all; to 5, 0 and 3; to 7, likewise
    assert result.values["acc3"] == 1
    assert result.values["acc5"] == result.values["acc7"] == 0.5
    # away from zero pred is -1 1 2 3
    assert result.values["acc7_cmu"] == 0.25
    assert result.confusion[1][2] == 1 and result.confusion[6][6] == 1
    assert np.sum(result.confusion) == 4
    assert result.classes == ["-3", "-2", "-1", "0", "1", "2", "3"]
    assert result.convention == "mertool" and not result.reasons


def test_the_two_binary_forms_by_hand():
    y, pred = [-1.0, 0.0, 0.0, 2.0, 1.0], [-0.5, 0.0, -0.1, 0.0, 3.0]
    values = metrics.scores(SCORE, y, np.array(pred)[:, None]).values
    # y + of zero: - + + + +; pred: - + - + +
    assert values["acc2_has0"] == 4 / 5
    assert values["f1_has0"] == pytest.approx(1 / 5 * (2 / 3) + 4 / 5 * (6 / 7))
    # without the zeros: - + +; a prediction of 0 is negative: - - +
    assert values["acc2_non0"] == 2 / 3
    assert values["f1_non0"] == pytest.approx(2 / 3)


def test_ties_are_rounded_to_even():
    values = np.array([-4, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    assert metrics.rounded(values, 7).tolist() == [-3, -2, -2, 0, 0, 2, 2, 3]
    assert metrics.rounded(values, 5).tolist() == [-2, -2, -2, 0, 0, 2, 2, 2]
    assert metrics.rounded(values, 3).tolist() == [-1, -1, -1, 0, 0, 1, 1, 1]


def test_sims_by_hand():
    y, pred = [-1.0, -0.4, 0.0, 0.2, 0.8], [-3.0, -0.8, 0.05, -0.1, 2.0]
    result = metrics.scores(SIMS, y, pred)
    assert list(result.values) == ["mae", "pearson", "ccc", "acc2", "f1", "acc3", "acc5"]
    assert result.values["mae"] == pytest.approx((2 + 0.4 + 0.05 + 0.3 + 1.2) / 5)  # unclipped
    assert result.values["acc2"] == 3 / 5  # y - - - + +, pred - - + - +
    assert result.values["acc3"] == 4 / 5  # y 0 0 1 2 2, pred 0 0 1 0 2
    assert result.values["acc5"] == 3 / 5  # y 0 1 2 3 4, pred 0 0 2 1 4
    assert np.trace(result.confusion) == 3 and len(result.classes) == 5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tenth_lies_on_its_edge_in_either_precision(dtype):
    tenths = np.array([-0.7, -0.1, 0.1, 0.7], dtype)
    assert metrics.sims_bins(tenths, 5).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "low, high, scale",
    [
        (-1, 1, "sims"), (-0.8, 1, "sims"), (-1.2, 1, "mosi"), (-3, 3, "mosi"), (-3, 3.2, "other"),
        (0, 1, "other"), (1, 5, "other"), (-5, 5, "other"),
    ],
)  # fmt: skip
def test_the_scale_follows_the_range(low, high, scale):
    label = Label("v", "regression", (), (low, high))
    assert metrics.scale_of(label) == scale
    names = set(metrics.scores(label, [low, high], [low, high]).values)
    assert ("acc7" in names) == (scale == "mosi") and ("acc2" in names) == (scale == "sims")


def test_the_scale_can_be_given():
    assert "acc7" in metrics.scores(SIMS, [0.0], [0.0], scale="mosi").values
    assert "acc2" in metrics.scores(SCORE, [0.0], [0.0], "mmsa", scale="sims").values


def test_another_scale_has_rounded_classes_if_few():
    stars = Label("stars", "regression", (), (1.0, 5.0))
    result = metrics.scores(stars, [1.0, 2.0, 5.0], [0.0, 3.4, 7.0])
    assert result.values["accuracy_rounded"] == pytest.approx(2 / 3)
    assert result.classes == ["1", "2", "3", "4", "5"] and result.confusion[1][2] == 1
    wide = metrics.scores(Label("age", "regression", (), (0.0, 100.0)), [3.0], [4.0])
    assert set(wide.values) == {"mae", "pearson", "ccc"}
    assert wide.confusion == wide.classes == []


def test_classification_has_signs_only_where_the_classes_do():
    plain = {"accuracy", "unweighted_recall", "weighted_f1"}
    assert set(metrics.scores(EMOTION, [0, 1], np.eye(3)[:2]).values) == plain
    signs = {"acc2_has0", "f1_has0", "acc2_non0", "f1_non0"}
    assert set(metrics.scores(POLARITY, [0, 1], np.eye(3)[:2]).values) == plain | signs


def test_polarity_by_hand_in_any_order_of_classes():
    y = np.array([0, 1, 2, 2])
    logits = np.array([[1, 9, 0], [1, 0, 2], [0, 9, 1], [0, 9, 0]], float)  # the last is a tie
    for names, places in (
        (("negative", "neutral", "positive"), [0, 1, 2]),
        (("Neutral", "POS", "neg"), [1, 2, 0]),
    ):
        label = Label("p", "classification", names)
        values = metrics.scores(label, np.argsort(places)[y], logits[:, places]).values
        assert values["acc2_has0"] == 0.5  # truth - - + +, said - + + -
        assert values["acc2_non0"] == pytest.approx(2 / 3)  # truth - + +, said - + -
        assert values["f1_non0"] == pytest.approx(2 / 3)
        mmsa = metrics.scores(label, np.argsort(places)[y], logits[:, places], "mmsa").values
        assert mmsa["acc2_has0"] == 0.5 and mmsa["acc2_non0"] == 0.3333  # its bug


def test_multilabel_by_hand():
    y = np.array([[1, 0], [1, 1], [0, 0], [0, 0]])
    logits = np.array([[1, -1], [-1, 1], [1, 1], [-1, -1]], float)
    values = metrics.scores(TRAITS, y, logits).values
    assert list(values) == [
        "accuracy", "weighted_f1", "weighted_accuracy", "subset_accuracy",
        "accuracy:x", "weighted_f1:x", "weighted_accuracy:x",
        "accuracy:y", "weighted_f1:y", "weighted_accuracy:y",
    ]  # fmt: skip
    assert values["accuracy:x"] == 0.5 and values["accuracy:y"] == 0.75
    assert values["accuracy"] == 0.625 and values["subset_accuracy"] == 0.5
    assert values["weighted_accuracy:y"] == pytest.approx((1 * (3 / 1) + 2) / 6)


def test_mult_reads_pairs_of_logits():
    y = [[1, 0], [0, 1]]
    single = np.array([[2.0, -1.0], [0.0, 3.0]])
    pairs = np.array([[1.0, 3.0, 1.0, 0.0], [5.0, 5.0, -4.0, -1.0]])  # the first label ties: absent
    for pred in (single, pairs):
        values = metrics.scores(TRAITS, y, pred, "mult").values
        assert set(values.values()) == {1.0} and "accuracy" not in values
    with pytest.raises(DataError):
        metrics.scores(TRAITS, y, pairs)


def test_mult_has_both_treatments_of_zero():
    y, pred = [0.0, 0.0, 1.0], [-1.0, 1.0, 1.0]
    values = metrics.scores(SCORE, y, pred, "mult").values
    assert values["acc2_non0"] == 1 and values["acc2_zero_negative"] == 2 / 3
    assert metrics.mult_sentiment([0.0], [1.0], False)["acc2_zero_negative"] == 0
    with pytest.raises(DataError, match="mult"):
        metrics.mult_sentiment([0.0], [1.0], True)


def test_the_name_carries_the_convention():
    assert metrics.printed("acc2_has0", "mmsa") == "acc2_has0 (mmsa)"
    assert metrics.printed("mae", "mertool") == "mae (mertool)"


def test_pooled_folds_weigh_clips_alike():
    folds = [(np.array([0]), np.eye(3)[[0]]), (np.array([0, 1, 2]), np.eye(3)[[1, 1, 1]])]
    y, pred = metrics.pooled(folds)
    assert y.tolist() == [0, 0, 1, 2] and pred.shape == (4, 3)
    assert metrics.scores(EMOTION, y, pred).values["accuracy"] == 0.5  # the folds: 1 and 1/3


# NaN, with a reason.


def reasons(*args) -> dict[str, str]:
    result = metrics.scores(*args)
    assert set(result.reasons) == {n for n, v in result.values.items() if math.isnan(v)}
    assert all(r.endswith(".") and r.count(".") == 1 for r in result.reasons.values())
    return result.reasons


@pytest.mark.parametrize(
    "label, y, pred",
    [
        (SCORE, [], []), (SIMS, [], []), (Label("n", "regression", (), (0.0, 5.0)), [], []),
        (EMOTION, [], []), (POLARITY, [], np.zeros((0, 3))), (TRAITS, [], []),
    ],
)  # fmt: skip
def test_no_clips(label, y, pred):
    result = metrics.scores(label, y, pred)
    assert set(reasons(label, y, pred).values()) == {"There are no clips."}
    assert set(result.reasons) == set(result.values)
    assert np.sum(result.confusion) == 0
    assert len(result.confusion) == len(result.classes)


@pytest.mark.parametrize("label", [SCORE, SIMS, Label("n", "regression", (), (0.0, 5.0))])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none(label, value):
    told = reasons(label, [0.0, 1.0], [value, 1.0])
    assert set(told.values()) == {"A label or a prediction is not a finite number."}
    assert set(told) == set(metrics.scores(label, [0.0, 1.0], [value, 1.0]).values)


def test_logits_may_be_infinite_but_not_nan():
    assert not reasons(EMOTION, [0, 1], [[0, -np.inf, -1], [-np.inf, 0, 1]])
    assert len(reasons(EMOTION, [0], [[0, np.nan, 1]])) == 3
    assert len(reasons(TRAITS, [[0, 1]], [[0, np.nan]])) == 10


def test_constants_have_no_correlation():
    told = reasons(SCORE, [1.0, 2.0], [0.5, 0.5])
    assert told == {"pearson": "All predictions are the same."}
    # Ten times 0.1: the mean is not exactly 0.1.
    assert (
        reasons(SCORE, [0.1] * 10, np.linspace(0, 1, 10))["pearson"] == "All labels are the same."
    )
    told = reasons(SCORE, [0.1] * 10, [0.1] * 10)
    assert told["ccc"] == "All labels and all predictions are the same number."
    assert metrics.scores(SCORE, [0.1] * 10, [0.2] * 10).values["ccc"] == 0
    assert reasons(SCORE, [1.0], [2.0])["pearson"] == "One clip has no correlation."


def test_no_sign_in_any_label():
    told = reasons(SCORE, [0.0, 0.0], [1.0, -1.0])
    assert told["acc2_non0"] == told["f1_non0"] == "Every label is 0."
    assert set(told) == {"acc2_non0", "f1_non0", "pearson"}
    told = reasons(POLARITY, [1, 1], np.eye(3)[:2])
    assert told == dict.fromkeys(["acc2_non0", "f1_non0"], "Every clip is neutral.")


def test_a_label_that_no_clip_or_every_clip_has():
    told = reasons(TRAITS, [[1, 0], [0, 0]], [[1.0, 1.0], [1.0, -1.0]])
    assert set(told.values()) == {"Every clip or none has y."}
    assert set(told) == {"weighted_accuracy", "weighted_accuracy:y"}


def test_unweighted_recall_is_of_the_classes_that_occur():
    assert metrics.scores(EMOTION, [0, 0, 1], np.eye(3)[[0, 2, 1]]).values[
        "unweighted_recall"
    ] == pytest.approx((1 / 2 + 1) / 2)
    with pytest.raises(DataError, match="all three classes"):
        metrics.scores(POLARITY, [0, 0, 2], np.eye(3), "tmt")


def test_a_reason_for_a_project_s_nan_too():
    assert reasons(SCORE, [1.0, 2.0], [0.5, 0.5], "mmsa") == {
        "pearson": "All predictions are the same."
    }


# What is refused.


@pytest.mark.parametrize("convention", metrics.CONVENTIONS[1:])
def test_the_projects_need_clips_with_a_sign(convention):
    for y in ([], [0.0, 0.0]):
        with pytest.raises(DataError, match=convention) as error:
            metrics.scores(SCORE, y, y, convention)
        assert error.value.what and error.value.where and "mertool" in error.value.fix


@pytest.mark.parametrize(
    "label, conventions",
    [
        (SCORE, "mertool mmsa mult misa tmt almt"), (SIMS, "mertool mmsa tmt almt"),
        (POLARITY, "mertool mmsa misa tmt"), (EMOTION, "mertool misa tmt"),
        (TRAITS, "mertool mult"), (Label("n", "regression", (), (0.0, 5.0)), "mertool"),
    ],
)  # fmt: skip
def test_which_convention_covers_which_task(label, conventions):
    y, pred = EXAMPLES[label.task]
    pred = pred[:, : max(1, len(label.classes))]
    for convention in metrics.CONVENTIONS:
        if convention in conventions.split():
            result = metrics.scores(label, y, pred, convention)
            assert result.values and result.convention == convention
        else:
            with pytest.raises(UsageError) as error:
                metrics.scores(label, y, pred, convention)
            assert error.value.fix.endswith(conventions.replace(" ", ", "))


def test_the_page_names_every_metric_and_reason():
    """docs/metrics.md against what is computed."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    codes = set(re.findall(r"`([^`\s]+)`", page))
    assert codes >= set(metrics.CONVENTIONS) | set(metrics.LOWER_IS_BETTER)
    others = [SIMS, POLARITY, EMOTION, TRAITS, Label("n", "regression", (), (0.0, 5.0))]
    said = set()
    for label, convention in itertools.product([SCORE, *others], metrics.CONVENTIONS):
        y, pred = EXAMPLES[label.task]
        try:
            result = metrics.scores(label, y, pred[:, : max(1, len(label.classes))], convention)
        except UsageError:
            continue
        said |= {re.sub(":[xy]$", ":NAME", name) for name in result.values}
    assert said <= codes
    for told in (
        reasons(SCORE, [], []), reasons(SCORE, [0.0, 0.0], [np.nan, 1.0]),
        reasons(SCORE, [0.0, 0.0], [1.0, 2.0]), reasons(SCORE, [1.0, 0.0], [1.0, 1.0]),
        reasons(SCORE, [1.0], [1.0]), reasons(POLARITY, [1], np.eye(3)[:1]),
    ):  # fmt: skip
        assert all(f"{reason} " in page for reason in told.values()), told
    assert "Every clip or none has NAME." in page


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="mmsa"):
        metrics.scores(SCORE, [1.0], [1.0], "mmssa")
    with pytest.raises(UsageError, match="mosi"):
        metrics.scores(SCORE, [1.0], [1.0], scale="mosei")


@pytest.mark.parametrize(
    "label, y, pred",
    [
        (SCORE, [1.0, 2.0], [1.0]), (SCORE, [1.0], [[1.0, 2.0]]), (EMOTION, [0, 1], [0, 1]),
        (EMOTION, [0], [[1.0, 2.0]]), (EMOTION, [3], [[1.0, 2.0, 3.0]]),
        (EMOTION, [-1], [[1.0, 2.0, 3.0]]), (TRAITS, [1, 0, 1], np.zeros((3, 2))),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(label, y, pred):
    with pytest.raises(DataError, match="do not fit"):
        metrics.scores(label, y, pred)


def test_baselines():
    mean = metrics.baseline_of(SCORE, np.array([[1.0], [2.0], [6.0]]))
    assert metrics.baseline_prediction(SCORE, mean, 2).tolist() == [[3.0], [3.0]]
    share = metrics.baseline_of(EMOTION, np.array([2, 2, 0]))
    assert metrics.baseline_prediction(EMOTION, share, 1).argmax() == 2
    each = metrics.baseline_of(TRAITS, np.array([[1, 0], [1, 0], [0, 1]]))
    assert (metrics.baseline_prediction(TRAITS, each, 1) > 0).tolist() == [[True, False]]
