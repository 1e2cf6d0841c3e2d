"""What advice is made of: the learning curve, the range test's rule, and the sentences."""

import math
from itertools import pairwise

import numpy as np
import pytest

from cifar_tl.advice.answers import BackboneAdvice, backbone_from_json, rates_from_json, rates_in_words, sentence, suggest, to_json
from cifar_tl.advice.learning_curve import _extrapolated, expect
from cifar_tl.advice.rate_range import HIGHEST, LOWEST, STEPS, rate_of_step
from cifar_tl.ui.charts.advice import accuracy_against_time, loss_against_rate, name_places


def blobs(count: int, classes: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 64))
    labels = np.arange(count) % classes
    return (centres[labels] + spread * random.normal(size=(count, 64))).astype(np.float32), labels


def test_classes_that_lie_apart_are_expected_to_be_told_apart():
    features, labels = blobs(400, 8, 0.2)
    found = expect(features, labels, 8, all_images=400, seed=0)
    assert found.expected > 0.99
    assert found.neighbours > 0.99


def test_noise_is_expected_to_be_guessed():
    random = np.random.default_rng(0)
    found = expect(random.normal(size=(600, 64)).astype(np.float32), np.arange(600) % 10, 10, all_images=600, seed=0)
    assert found.low < 0.1 < found.high
    assert found.expected < 0.17


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_holds_what_twice_as_many_images_bring(seed):
    features, labels = blobs(6000, 20, 3.0, seed=seed + 1)
    few = expect(features[:1500], labels[:1500], 20, all_images=2400, seed=seed)
    truth = expect(features[1500:4500], labels[1500:4500], 20, all_images=2400, seed=0).expected  # folds leave 2,400 to learn from
    assert few.low <= truth <= few.high
    assert few.high - few.low < 0.1


def test_where_no_number_of_images_helps_any_more_the_promise_stays_bounded():
    features, labels = blobs(13_000, 20, 3.0)
    truth = expect(features[:12_000], labels[:12_000], 20, all_images=12_000, seed=0).expected
    few = expect(features[12_000:], labels[12_000:], 20, all_images=12_000, seed=0)
    assert few.low - 0.05 < truth < few.high


def test_scale_and_offset_of_features_do_not_matter():
    features, labels = blobs(500, 10, 1.5)
    one, other = (expect(values, labels, 10, all_images=5000, seed=0) for values in (features, features * 1000 + 7))
    assert other.expected == pytest.approx(one.expected, abs=0.005)


def test_more_images_are_expected_to_help_and_none_ahead_changes_nothing():
    accuracies = [0.3, 0.4, 0.48]
    assert _extrapolated(accuracies, 0) == pytest.approx(0.48)
    expected = [_extrapolated(accuracies, doublings) for doublings in (0, 0.5, 1, 2.5, 5)]
    assert expected == sorted(expected)
    assert expected[-1] < 0.85
    assert _extrapolated([0.5, 0.48, 0.47], 5) == pytest.approx(0.47)  # what falls is not drawn on


def test_a_class_with_two_images_and_a_constant_feature_are_no_trouble():
    features, labels = blobs(60, 3, 0.5)
    labels[:2], labels[2:] = 0, 1 + np.arange(58) % 2
    features[:, 0] = 1.0
    assert 0 <= expect(features, labels, 3, all_images=60, seed=0).expected <= 1


def advice(name: str, expected: float, seconds: float, half: float = 0.02) -> BackboneAdvice:
    return BackboneAdvice(name, expected, expected - half, expected + half, expected - 0.1, 2000, seconds, 10 * seconds, 10**9)


def test_the_sentence_names_the_best_or_the_quickest_that_may_be_as_good():
    assert "Take big: the highest" in sentence([advice("small", 0.6, 1), advice("big", 0.7, 5)])
    text = sentence([advice("small", 0.69, 1), advice("big", 0.7, 5)])
    assert "small may do as well" in text
    assert "5.0 times as fast" in text
    assert "slow may do as well, and is slower" in sentence([advice("quick", 0.7, 1), advice("slow", 0.69, 5)])
    assert sentence([advice("only", 0.7, 0.25)]).startswith("only: 68 to 72 % on dev")
    assert "0.2 s an epoch" in sentence([advice("only", 0.7, 0.25)])
    assert sentence([BackboneAdvice("x", error="no")]) == "None of these backbones could be measured."


def test_answers_survive_the_pipe():
    for item in (advice("a", 0.5, 1), BackboneAdvice("b", error="weights are broken")):
        back = backbone_from_json(to_json(item))
        assert (back.backbone, back.error) == (item.backbone, item.error)
        assert math.isnan(back.expected) == math.isnan(item.expected)
    found = suggest([0.1, 1.0], [2.0, 1.0])
    assert rates_from_json(to_json(found)) == found


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss():
    rates = [10**-number for number in range(5, 0, -1)]
    found = suggest(rates, [2.3, 2.2, 1.5, 1.1, 4.0])
    assert found.suggestion == pytest.approx(1e-3)
    assert found.lowest_at == pytest.approx(1e-2)
    assert suggest([0.123, 0.1276], [2.0, 1.0]).suggestion == 0.013


@pytest.mark.parametrize("losses", [[], [2.3, 2.3, 2.31, 9.0], [2.0, 1.99]])
def test_a_loss_that_never_falls_gives_no_suggestion(losses):
    found = suggest([0.1] * len(losses), losses)
    assert found.suggestion is None
    assert "never fell" in rates_in_words(found, 0.01)


def test_the_words_compare_with_the_rate_in_use():
    found = suggest([0.1, 1.0], [2.0, 1.0])
    assert "is as good" in rates_in_words(found, 0.1)
    assert "is lower" in rates_in_words(found, 0.001)
    assert "is higher" in rates_in_words(found, 5)


def test_rates_rise_by_one_factor_in_less_than_a_hundred_steps():
    assert STEPS < 100
    rates = [rate_of_step(step) for step in range(STEPS)]
    assert (rates[0], rates[-1]) == pytest.approx((LOWEST, HIGHEST))
    factors = [after / before for before, after in pairwise(rates)]
    assert factors == pytest.approx([factors[0]] * len(factors))


def test_charts_show_what_was_found_and_leave_out_what_was_not():
    chart = accuracy_against_time([advice("a", 0.5, 1), BackboneAdvice("b", error="no")])
    assert chart.traces[0]["text"] == ["a"]
    assert chart.traces[0]["error_y"]["array"] == pytest.approx([0.02])
    marked = loss_against_rate(suggest([0.1, 1.0], [2.0, 1.0]))
    assert marked.layout["shapes"][0]["x0"] == 0.1
    assert "shapes" not in loss_against_rate(suggest([0.1], [2.0])).layout


def test_names_of_backbones_near_each_other_stand_apart_and_none_leaves_the_chart():
    twins = [advice("efficientnet_v2_s", 0.61, 30), advice("mobilenet_v3_large", 0.612, 30.5), advice("regnet_y_400mf", 0.608, 2)]
    places = name_places(twins)
    assert all(places)
    assert places[0] != places[1]
    assert places[2].endswith("right")  # left of it is the axis
    crowd = [advice(f"resnet{number}", 0.6, 10) for number in range(10)]
    assert name_places(crowd).count("") >= 4  # six places around one point, at most
    assert accuracy_against_time(crowd).traces[0]["hovertext"] == [item.backbone for item in crowd]
    assert name_places([]) == []
