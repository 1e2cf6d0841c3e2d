"""Reliability, calibration error and temperature: hand-made cases, slow references, and scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from cifar_tl.evaluation import calibration
from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.evaluation.calibration import (
    BINS,
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    apply_temperature,
    class_calibration,
    fit_temperature,
    reliability,
    scores,
)
from tests.made_runs import made_evaluation


def evaluation_of(probabilities_NC: np.ndarray, labels_N: np.ndarray) -> Evaluation:
    """An evaluation with these answers, stored in half precision as runs do."""
    made = made_evaluation(len(labels_N), probabilities_NC.shape[1])
    return replace(
        made,
        labels_N=labels_N.astype(np.int32),
        top_classes_NK=np.argsort(-probabilities_NC, axis=1, kind="stable")[:, :5].astype(np.int32),
        probabilities_NC=probabilities_NC.astype(np.float16),
    )


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    exponentials_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return exponentials_NC / exponentials_NC.sum(1, keepdims=True)


def sampled(temperature: float, *, images: int = 4000, num_classes: int = 6, seed: int = 0) -> Evaluation:
    """A model whose confidence would be exact after dividing its logits by `temperature`."""
    random = np.random.default_rng(seed)
    logits_NC = random.normal(0, 1.5, (images, num_classes))
    cumulated_NC = softmax(logits_NC).cumsum(1)
    labels_N = (random.random((images, 1)) > cumulated_NC).sum(1).clip(max=num_classes - 1)
    return evaluation_of(softmax(temperature * logits_NC), labels_N)


def normalised(evaluation: Evaluation) -> np.ndarray:
    """What half precision kept, in float64 and with rows that sum up to 1."""
    probabilities_NC = np.maximum(evaluation.probabilities_NC.astype(np.float64), 2.0**-25)
    return probabilities_NC / probabilities_NC.sum(1, keepdims=True)


def test_calibration_error_of_a_hand_made_case():
    # Two bins: 3 images at 0.9, of which 2 are right, and 1 image at 0.6 that is right.
    bins = reliability(np.array([0.9, 0.9, 0.9, 0.6]), np.array([True, True, False, True]), bins=5)
    assert bins.counts_B.tolist() == [0, 0, 1, 0, 3]
    assert bins.hits_B.tolist() == [0, 0, 1, 0, 2]
    assert bins.accuracies_B[4] == pytest.approx(2 / 3)
    assert bins.mean_confidences_B[4] == pytest.approx(0.9)
    assert np.isnan(bins.accuracies_B[0])
    assert np.isnan(bins.mean_confidences_B[0])
    assert bins.expected_error == pytest.approx((3 * abs(2 / 3 - 0.9) + abs(1 - 0.6)) / 4)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it():
    assert reliability(np.array([0.0, 0.5, 1.0]), np.ones(3, bool), bins=2).counts_B.tolist() == [2, 1]


def test_calibration_error_equals_a_loop_over_bins():
    random = np.random.default_rng(1)
    confidences_N, is_right_N = random.random(500), random.random(500) < 0.6
    expected = 0.0
    for b in range(BINS):
        inside = [i for i in range(500) if b / BINS < confidences_N[i] <= (b + 1) / BINS]
        if inside:
            expected += len(inside) / 500 * abs(np.mean(is_right_N[inside]) - np.mean(confidences_N[inside]))
    assert reliability(confidences_N, is_right_N).expected_error == pytest.approx(expected)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_reliability_equals_scikit_learns_calibration_curve(equal_mass: bool):
    random = np.random.default_rng(2)
    confidences_N, is_right_N = random.beta(4, 2, 1000), random.random(1000) < 0.7
    accuracies, confidences = calibration_curve(is_right_N, confidences_N, n_bins=10, strategy="quantile" if equal_mass else "uniform")
    bins = reliability(confidences_N, is_right_N, bins=10, equal_mass=equal_mass)
    filled = bins.counts_B > 0
    if equal_mass:
        # Its edges lie between two images, ours on one of them: bins differ by that image at most.
        assert set(bins.counts_B.tolist()) == {100}
        assert bins.mean_confidences_B[filled] == pytest.approx(confidences, abs=0.005)
    else:
        assert bins.mean_confidences_B[filled] == pytest.approx(confidences)
        assert bins.accuracies_B[filled] == pytest.approx(accuracies)


def test_bins_of_equal_mass_keep_equal_confidences_together():
    bins = reliability(np.array([0.2, 1.0, 1.0, 1.0, 1.0, 1.0]), np.ones(6, bool), bins=3, equal_mass=True)
    assert sorted(bins.counts_B[bins.counts_B > 0].tolist()) in ([6], [1, 5])
    assert bins.total == 6


def test_a_single_confidence_fills_one_bin_of_equal_mass():
    bins = reliability(np.full(4, 0.5), np.array([True, False, True, False]), bins=5, equal_mass=True)
    assert (bins.counts_B.tolist(), bins.expected_error) == ([4], 0.0)


def test_excess_is_mean_confidence_minus_accuracy_with_the_interval_of_a_mean():
    random = np.random.default_rng(6)
    confidences_N, is_right_N = random.beta(4, 2, 500), random.random(500) < 0.5
    bins, gaps_N = reliability(confidences_N, is_right_N), confidences_N - is_right_N
    assert bins.excess == pytest.approx(gaps_N.mean())
    assert bins.excess_interval == pytest.approx(norm.interval(0.95, gaps_N.mean(), gaps_N.std() / np.sqrt(500)))


def test_no_images_have_no_calibration_error():
    bins = reliability(np.empty(0), np.empty(0, bool))
    assert np.isnan(bins.expected_error)
    assert bins.error_interval == (0.0, 1.0)


@pytest.mark.parametrize(("offset", "images"), [(0.0, 300), (0.05, 300), (0.05, 3000)])
def test_the_interval_of_the_error_holds_the_truth_nine_times_in_ten(offset: float, images: int):
    random = np.random.default_rng(3)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        confidences = random.beta(4, 1.2, count).clip(0.1)
        return confidences, random.random(count) < confidences - offset

    held = 0
    for _ in range(200):
        low, high = reliability(*drawn(images)).error_interval
        held += low <= offset <= high
    assert held >= 180


def test_a_large_error_is_told_apart_from_none():
    confidences_N = np.full(400, 0.9)
    bins = reliability(confidences_N, np.arange(400) < 200)
    low, high = bins.error_interval
    assert 0 < low < bins.expected_error == pytest.approx(0.4)
    assert bins.expected_error <= high


def test_error_by_chance_is_the_mean_error_of_exact_confidences():
    random = np.random.default_rng(4)
    confidences_N = random.beta(4, 1.2, 1000)
    simulated = [reliability(confidences_N, random.random(1000) < confidences_N).expected_error for _ in range(200)]
    by_chance = reliability(confidences_N, np.ones(1000, bool)).error_by_chance
    assert by_chance == pytest.approx(np.mean(simulated), rel=0.05)


def test_scores_equal_scikit_learns():
    evaluation = sampled(2.0, images=300)
    found = scores(evaluation)
    probabilities_NC, classes = normalised(evaluation), list(range(6))
    assert found.nll == pytest.approx(log_loss(evaluation.labels_N, probabilities_NC, labels=classes), rel=1e-5)
    assert found.brier == pytest.approx(brier_score_loss(evaluation.labels_N, probabilities_NC, labels=classes), rel=1e-5)
    assert found.confidences_N == pytest.approx(evaluation.confidences_N, abs=1e-3)


def test_scores_do_not_depend_on_the_size_of_the_chunks(monkeypatch: pytest.MonkeyPatch):
    evaluation = sampled(2.0, images=100)
    whole = scores(evaluation, 1.7)
    monkeypatch.setattr(calibration, "_CHUNK", 6 * 7)
    parts = scores(evaluation, 1.7)
    assert (parts.nll, parts.brier) == pytest.approx((whole.nll, whole.brier))
    assert parts.confidences_N.tolist() == whole.confidences_N.tolist()


def test_a_temperature_divides_the_logits():
    logits_NC = np.random.default_rng(5).normal(0, 2, (20, 5))
    assert apply_temperature(softmax(logits_NC), 1.6) == pytest.approx(softmax(logits_NC / 1.6), abs=1e-6)


def test_a_true_class_that_was_rounded_to_nothing_has_a_finite_loss():
    evaluation = evaluation_of(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 0]))
    assert scores(evaluation).nll == pytest.approx(25 * np.log(2) / 2, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_the_temperature_that_makes_confidence_exact_is_found(temperature: float):
    assert fit_temperature(sampled(temperature)) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("temperature", [0.6, 3.0])
def test_the_fitted_temperature_has_the_smallest_loss_of_a_fine_grid(temperature: float):
    evaluation = sampled(temperature, images=500)
    logits_NC, classes = np.log(normalised(evaluation)), list(range(6))
    grid = np.linspace(0.4, 4, 181)
    losses = [log_loss(evaluation.labels_N, softmax(logits_NC / t), labels=classes) for t in grid]
    assert fit_temperature(evaluation) == pytest.approx(grid[np.argmin(losses)], abs=0.021)


def test_after_scaling_the_calibration_error_is_small():
    dev, test = sampled(3.0), sampled(3.0, seed=1)
    is_right_N = test.predictions_N == test.labels_N
    before = reliability(test.confidences_N, is_right_N).expected_error
    after = reliability(scores(test, fit_temperature(dev)).confidences_N, is_right_N).expected_error
    assert before > 0.1
    assert after < 0.04


def test_without_a_mistake_the_temperature_is_the_lowest():
    evaluation = evaluation_of(np.tile([0.8, 0.2], (10, 1)), np.zeros(10, np.int64))
    assert fit_temperature(evaluation) == LOWEST_TEMPERATURE


def test_with_nothing_but_mistakes_the_temperature_is_the_highest():
    evaluation = evaluation_of(np.tile([0.8, 0.2], (10, 1)), np.ones(10, np.int64))
    assert fit_temperature(evaluation) == HIGHEST_TEMPERATURE


def test_answers_without_any_preference_need_no_temperature():
    assert fit_temperature(evaluation_of(np.full((8, 4), 0.25), np.arange(8) % 4)) == 1.0


def test_a_large_dev_split_is_fitted_on_a_part_of_it(monkeypatch: pytest.MonkeyPatch):
    evaluation = sampled(2.0)
    whole = fit_temperature(evaluation)
    monkeypatch.setattr(calibration, "MOST_FITTED", 2000)
    part = fit_temperature(evaluation)
    assert part != whole
    assert part == pytest.approx(whole, rel=0.1)


def test_class_calibration_is_of_the_images_taken_for_the_class():
    probabilities_NC = np.array([[0.75, 0.25, 0.0], [0.5, 0.375, 0.125], [0.25, 0.75, 0.0]])
    first, second, third = class_calibration(evaluation_of(probabilities_NC, np.array([0, 1, 1])))
    assert (first.precision.hits, first.precision.total) == (1, 2)
    assert first.mean_confidence == 0.625
    assert first.excess == 0.125
    assert first.error == 0.125
    assert second.excess == -0.25
    assert second.error == 0.25
    assert third.precision.total == 0
    assert np.isnan([third.mean_confidence, third.error, third.excess]).all()


def test_class_calibration_counts_every_image_once():
    evaluation = made_evaluation(600, 20)
    found = class_calibration(evaluation)
    assert [item.index for item in found] == list(range(20))
    assert sum(item.precision.total for item in found) == 600
    assert sum(item.precision.hits for item in found) == int((evaluation.predictions_N == evaluation.labels_N).sum())


def test_a_class_with_many_images_has_several_bins_so_that_opposite_errors_do_not_cancel():
    # Half of the images at 0.9 and never right, half at 0.6 and always: on average as sure as... but wrong in both.
    probabilities_NC = np.concatenate([np.tile([0.9, 0.1], (60, 1)), np.tile([0.6, 0.4], (60, 1))])
    labels_N = np.concatenate([np.ones(60, np.int64), np.zeros(60, np.int64)])
    first = class_calibration(evaluation_of(probabilities_NC, labels_N))[0]
    assert first.excess == pytest.approx(0.25, abs=1e-3)
    assert first.error == pytest.approx((0.9 + 0.4) / 2, abs=1e-3)
