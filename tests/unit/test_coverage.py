"""Accuracy on a part of the images: coverage against hand-made cases and a slow reference, and accuracy without some images."""

import numpy as np
import pytest

from cifar_tl.evaluation.analysis import accuracy
from cifar_tl.evaluation.coverage import accuracy_without, coverage
from tests.made_runs import made_evaluation

CONFIDENCES = np.array([0.9, 0.5, 0.7, 0.5, 0.8])
IS_RIGHT = np.array([True, False, True, True, False])


def test_a_threshold_answers_the_images_with_at_least_that_confidence():
    curve = coverage(CONFIDENCES, IS_RIGHT)
    assert curve.thresholds_M.tolist() == [0.9, 0.8, 0.7, 0.5]
    assert curve.answered_M.tolist() == [1, 2, 3, 5]
    assert curve.hits_M.tolist() == [1, 1, 2, 3]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.65, 0.7, 0.9, 0.95])
def test_what_is_answered_at_a_threshold_equals_a_count(threshold: float):
    answered = coverage(CONFIDENCES, IS_RIGHT).at(threshold)
    assert answered.total == int((threshold <= CONFIDENCES).sum())
    assert answered.hits == int((IS_RIGHT & (threshold <= CONFIDENCES)).sum())


def test_the_threshold_for_an_accuracy_is_the_lowest_that_reaches_it():
    curve = coverage(CONFIDENCES, IS_RIGHT)
    assert curve.threshold_for(0.6) == 0.5
    assert curve.threshold_for(0.65) == 0.7
    assert curve.threshold_for(0.9) == 0.9


def test_an_accuracy_that_is_never_reached_has_no_threshold():
    assert coverage(CONFIDENCES, np.zeros(5, bool)).threshold_for(0.5) is None


def test_area_under_risk_is_the_mean_risk_over_all_coverages():
    random = np.random.default_rng(0)
    confidences, is_right = random.permutation(200) / 200, random.random(200) < 0.7
    order = sorted(range(200), key=lambda i: -confidences[i])
    risks = [np.mean([not is_right[i] for i in order[:count]]) for count in range(1, 201)]
    assert coverage(confidences, is_right).area_under_risk == pytest.approx(np.mean(risks))


def test_a_model_that_is_never_wrong_has_no_risk():
    assert coverage(CONFIDENCES, np.ones(5, bool)).area_under_risk == 0


def test_no_images_give_an_empty_curve():
    curve = coverage(np.empty(0, np.float32), np.empty(0, bool))
    assert (curve.total, curve.at(0.0).total, curve.threshold_for(0.5)) == (0, 0, None)


def test_accuracy_without_some_images_leaves_them_out_of_both_counts():
    evaluation = made_evaluation(100, 5)
    is_right = evaluation.predictions_N == evaluation.labels_N
    excluded = np.flatnonzero(is_right)[:10]
    left = accuracy_without(evaluation, excluded)
    assert (left.hits, left.total) == (int(is_right.sum()) - 10, 90)


def test_accuracy_without_no_images_is_the_accuracy():
    evaluation = made_evaluation(100, 5)
    assert accuracy_without(evaluation, np.empty(0, np.int64)) == accuracy(evaluation)


def test_an_image_named_twice_is_left_out_once():
    assert accuracy_without(made_evaluation(100, 5), np.array([3, 3, 4])).total == 98
