"""Analysis against scikit-learn, and against cases small enough to work out by hand."""

import math

import numpy as np
import pytest
from sklearn import metrics

from cifar_tl.evaluation import analysis
from cifar_tl.evaluation.arrays import Evaluation
from tests.made_runs import made_evaluation

# Three classes: 0 is right twice and taken for 1 once; 1 is always taken for 2; 2 is right once. Class 3 has no images.
LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 2, 2, 2])
MATRIX = np.array([[2, 1, 0, 0], [0, 0, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0]])


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return made_evaluation(1000, 20, seed=3)


def test_confusion_counts_true_classes_as_rows():
    matrix = analysis.confusion_matrix(LABELS, PREDICTIONS, 4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == MATRIX.tolist()


def test_confusion_agrees_with_scikit_learn(evaluation):
    ours = analysis.confusion_matrix(evaluation.labels_N, evaluation.predictions_N, 20)
    assert (ours == metrics.confusion_matrix(evaluation.labels_N, evaluation.predictions_N, labels=range(20))).all()


def test_confusion_does_not_overflow_the_narrow_integers_of_the_file():
    labels = np.array([999], np.int16)
    assert analysis.confusion_matrix(labels, labels, 1000)[999, 999] == 1


def test_superclass_confusion_is_the_confusion_of_superclass_labels(evaluation):
    of_class = np.array([0, 2, 1, 1] * 5)
    merged = analysis.superclass_confusion(analysis.confusion_matrix(evaluation.labels_N, evaluation.predictions_N, 20), tuple(of_class), 3)
    assert (merged == metrics.confusion_matrix(of_class[evaluation.labels_N], of_class[evaluation.predictions_N])).all()


def test_shares_of_rows_leave_a_class_without_images_at_zero():
    shares = analysis.shares_of_rows(MATRIX)
    assert shares[0].tolist() == [2 / 3, 1 / 3, 0, 0]
    assert shares[3].tolist() == [0, 0, 0, 0]


def test_accuracy_and_top_k_agree_with_scikit_learn(evaluation):
    scores = evaluation.probabilities_NC.astype(np.float64)
    assert analysis.accuracy(evaluation).fraction == pytest.approx(metrics.accuracy_score(evaluation.labels_N, evaluation.predictions_N))
    for k in (1, 3, 5):
        expected = metrics.top_k_accuracy_score(evaluation.labels_N, scores, k=k, labels=range(20))
        # Half precision may swap near-equal ranks in scikit-learn's view; ours ranks before rounding.
        assert analysis.top_k_accuracy(evaluation, k).fraction == pytest.approx(expected, abs=0.002)


def test_top_k_beyond_the_kept_ranks_counts_the_kept_ones(evaluation):
    assert analysis.top_k_accuracy(evaluation, 100) == analysis.top_k_accuracy(evaluation, 5)


@pytest.mark.parametrize(("hits", "total", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)])
def test_wilson_intervals_are_those_of_newcombe_1998(hits, total, low, high):
    assert analysis.Proportion(hits, total).interval == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_all_hits_ends_at_one_exactly():
    assert analysis.Proportion(29, 29).interval[1] == 1.0


def test_proportion_of_nothing_is_unknown():
    nothing = analysis.Proportion(0, 0)
    assert math.isnan(nothing.fraction)
    assert nothing.interval == (0.0, 1.0)


def test_per_class_scores_agree_with_scikit_learn(evaluation):
    scores = analysis.per_class(analysis.confusion_matrix(evaluation.labels_N, evaluation.predictions_N, 20))
    expected = metrics.precision_recall_fscore_support(evaluation.labels_N, evaluation.predictions_N, labels=range(20))
    for ours, theirs in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [getattr(score, ours) for score in scores] == pytest.approx(theirs)


def test_per_class_names_the_commonest_wrong_answer():
    scores = analysis.per_class(MATRIX)
    assert [(score.confused_with, score.confused_count) for score in scores] == [(1, 1), (2, 2), (None, 0), (None, 0)]


def test_scores_of_a_class_that_never_occurs_are_unknown():
    score = analysis.per_class(MATRIX)[3]
    assert all(math.isnan(value) for value in (score.precision, score.recall, score.f1))


def test_most_confused_pairs_are_ordered_by_count_and_never_on_the_diagonal():
    pairs = analysis.most_confused_pairs(MATRIX)
    assert [(pair.true, pair.predicted, pair.count, pair.share) for pair in pairs] == [(1, 2, 2, 1.0), (0, 1, 1, pytest.approx(1 / 3))]


def test_most_confused_pairs_of_equal_count_are_ordered_by_share():
    matrix = np.array([[9, 1, 0], [0, 0, 1], [0, 0, 5]])
    assert [(pair.true, pair.predicted) for pair in analysis.most_confused_pairs(matrix)] == [(1, 2), (0, 1)]


def test_most_confused_pairs_keep_to_their_limit(evaluation):
    matrix = analysis.confusion_matrix(evaluation.labels_N, evaluation.predictions_N, 20)
    assert len(analysis.most_confused_pairs(matrix, limit=7)) == 7


def test_analysis_does_not_change_the_matrix_it_is_given():
    matrix = MATRIX.copy()
    analysis.per_class(matrix)
    analysis.most_confused_pairs(matrix)
    assert (matrix == MATRIX).all()


def test_rows_behind_a_cell_come_most_confident_first():
    confidences = np.array([0.5, 0.9, 0.3, 0.2, 0.8, 0.7])
    assert analysis.rows_behind_cell(LABELS, PREDICTIONS, confidences, 1, 2).tolist() == [4, 3]
    assert analysis.rows_behind_cell(LABELS, PREDICTIONS, confidences, 0, 0).tolist() == [1, 0]
    assert analysis.rows_behind_cell(LABELS, PREDICTIONS, confidences, 2, 0).tolist() == []


def test_cells_hold_as_many_images_as_the_matrix_counts(evaluation):
    matrix = analysis.confusion_matrix(evaluation.labels_N, evaluation.predictions_N, 20)
    for true, predicted in ((0, 0), (3, 4), (19, 2)):
        rows = analysis.rows_behind_cell(evaluation.labels_N, evaluation.predictions_N, evaluation.confidences_N, true, predicted)
        assert len(rows) == matrix[true, predicted]
