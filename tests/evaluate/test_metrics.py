import numpy as np
import pytest
from sklearn import metrics as sk

from mertool import metrics
from mertool.types import Label

SCORE = Label("score", "regression", (), (-3.0, 3.0))
EMOTION = Label("emotion", "classification", ("a", "b", "c"))
TRAITS = Label("traits", "multilabel", ("x", "y"))


def test_regression_by_hand():
    y, pred = np.array([[-2.0], [0.0], [1.0], [3.0]]), np.array([[-1.0], [0.4], [1.6], [9.0]])
    result = metrics.scores(SCORE, y, pred)
    assert result["mae"] == pytest.approx((1 + 0.4 + 0.6 + 6) / 4)
    assert result["pearson"] == pytest.approx(np.corrcoef(y[:, 0], pred[:, 0])[0, 1])
    # rounded and clipped: y -2 0 1 3, pred -1 0 2 3: two of four
    assert result["accuracy_rounded"] == 0.5
    assert result["confusion"][1][2] == 1 and result["confusion"][6][6] == 1
    assert np.sum(result["confusion"]) == 4


def test_constant_prediction_has_no_correlation():
    result = metrics.scores(SCORE, [[1.0], [2.0]], [[0.5], [0.5]])
    assert np.isnan(result["pearson"])


def test_a_wide_range_has_no_classes():
    wide = Label("age", "regression", (), (0.0, 100.0))
    assert set(metrics.scores(wide, [[3.0]], [[4.0]])) == {"mae", "pearson"}


@pytest.mark.parametrize("seed", range(5))
def test_classification_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    y, logits = rng.integers(0, 3, 50), rng.normal(size=(50, 3))
    if seed == 4:
        y[y == 1] = 0  # a class without members
    said = logits.argmax(1)
    result = metrics.scores(EMOTION, y, logits)
    assert result["accuracy"] == pytest.approx(sk.accuracy_score(y, said))
    expected = sk.f1_score(y, said, average="weighted", zero_division=0)
    assert result["weighted_f1"] == pytest.approx(expected)
    recall = sk.recall_score(y, said, labels=np.unique(y), average="macro")
    assert result["unweighted_recall"] == pytest.approx(recall)
    assert result["confusion"] == sk.confusion_matrix(y, said, labels=[0, 1, 2]).tolist()


def test_multilabel_against_scikit_learn():
    rng = np.random.default_rng(0)
    y, logits = rng.integers(0, 2, (40, 2)).astype(float), rng.normal(size=(40, 2))
    said = logits > 0
    result = metrics.scores(TRAITS, y, logits)
    each = [sk.f1_score(y[:, k], said[:, k], average="weighted") for k in range(2)]
    assert result["weighted_f1"] == pytest.approx(np.mean(each))
    assert result["accuracy"] == pytest.approx(1 - sk.hamming_loss(y, said))
    assert result["subset_accuracy"] == pytest.approx(sk.accuracy_score(y, said))


def test_swapping_truth_and_prediction_changes_the_weighting():
    """Support is that of the truth: the swapped call gives another number."""
    y, said = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
    there = metrics.weighted_f1(metrics.confusion(y, said, 2))
    back = metrics.weighted_f1(metrics.confusion(said, y, 2))
    assert there == pytest.approx(3 / 4 * 0.5 + 1 / 4 * 0.5)
    assert back == pytest.approx(1 / 4 * 0.5 + 3 / 4 * 0.5)
    y, said = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 0])
    there = metrics.weighted_f1(metrics.confusion(y, said, 2))
    assert there == pytest.approx(0.8 * 0.75)


def test_baselines():
    mean = metrics.baseline_of(SCORE, np.array([[1.0], [2.0], [6.0]]))
    assert metrics.baseline_prediction(SCORE, mean, 2).tolist() == [[3.0], [3.0]]
    share = metrics.baseline_of(EMOTION, np.array([2, 2, 0]))
    assert metrics.baseline_prediction(EMOTION, share, 1).argmax() == 2
    each = metrics.baseline_of(TRAITS, np.array([[1, 0], [1, 0], [0, 1]]))
    assert (metrics.baseline_prediction(TRAITS, each, 1) > 0).tolist() == [[True, False]]
