"""What advice is made of: the learning curve, the range test's rule, and the sentences."""

import math
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cifar_tl.advice.answers import (
    RANGE_STEPS,
    BackboneAdvice,
    RateRange,
    backbone_from_json,
    plain_number,
    rates_from_json,
    rates_in_words,
    sentence,
    suggest,
    to_json,
)
from cifar_tl.advice.learning_curve import Shares, _extrapolated, expect
from cifar_tl.advice.rate_range import HIGHEST, LOWEST, as_frequent, class_weights, rate_of_step
from cifar_tl.advice_commands import _names
from cifar_tl.data.splits import SplitRows, limit_per_class
from cifar_tl.errors import SettingsError
from cifar_tl.models import catalog
from cifar_tl.training.trainer import _class_weights
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


def rare_and_frequent(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, 95 to 5, hard to tell apart."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 20 == 0).astype(int)
    return (labels[:, None] * 0.25 + random.normal(size=(count, 64))).astype(np.float32), labels


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([np.flatnonzero(labels == number)[:count] for number in np.unique(labels)])


@pytest.mark.parametrize("is_balanced", [False, True])
def test_of_unequal_classes_what_a_linear_head_on_all_images_reaches_is_expected(is_balanced):
    features, labels = rare_and_frequent(20_000, seed=1)
    few = first_of_each(labels, 1000)
    natural, even = np.array([0.95, 0.05]), np.array([0.5, 0.5])
    shares = Shares(even if is_balanced else natural, natural)
    found = expect(features[few], labels[few], 2, all_images=10_000, seed=0, shares=shares)
    head = LogisticRegression(max_iter=500, class_weight="balanced" if is_balanced else None).fit(features[:10_000], labels[:10_000])
    real = head.score(features[10_000:], labels[10_000:])
    assert found.low - 0.03 <= real <= found.high + 0.03  # of normal distributions a little too much is expected
    assert (found.neighbours > 0.9) != is_balanced


def test_of_equal_classes_shares_change_nothing():
    features, labels = blobs(500, 10, 3.0)
    even = np.full(10, 0.1)
    with_shares = expect(features, labels, 10, all_images=5000, seed=0, shares=Shares(even, even))
    assert astuple(with_shares) == pytest.approx(astuple(expect(features, labels, 10, all_images=5000, seed=0)))


def rows_of(*counts: int) -> SplitRows:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return SplitRows("train", 7 + np.arange(len(labels)), labels)


def test_steps_of_the_range_test_see_each_class_as_often_as_a_run_does():
    rows = as_frequent(rows_of(9500, 497, 3), 1000, seed=0)
    assert np.bincount(rows.labels).tolist() == [950, 50, 1]
    assert len(set(rows.rows)) == 1001
    even = rows_of(300, 300)
    assert (as_frequent(even, 100, seed=3).rows - 7 == limit_per_class(even.labels, np.arange(600), 50, seed=3)).all()
    assert len(as_frequent(even, 10_000, seed=0)) == 600


@pytest.mark.parametrize("asked", [None, ["resnet50"]])
def test_weights_that_are_asked_for_must_be_here_not_the_default_ones(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    default, others = (catalog.weights_path("resnet50", name) for name in ("default", "IMAGENET1K_V1"))
    assert default is not None
    assert default != others
    default.parent.mkdir(parents=True)
    default.touch()
    assert "resnet50" in _names(None, "default")
    with pytest.raises(SettingsError, match="weights IMAGENET1K_V1"):
        _names(asked, "IMAGENET1K_V1")


def test_the_range_test_weighs_classes_as_the_run_does():
    labels = rows_of(9500, 500).labels
    assert class_weights(labels, 2).equal(_class_weights(labels, 2, torch.device("cpu")))


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
    assert "the one you have" in rates_in_words(found, 0.1)
    assert "is as good" in rates_in_words(found, 0.15)
    assert "is lower" in rates_in_words(found, 0.001)
    assert "is higher" in rates_in_words(found, 5)


def test_a_range_test_that_ended_early_says_when_and_why():
    whole = RateRange((0.1,) * RANGE_STEPS, (1.0,) * RANGE_STEPS, 0.01, 0.1)
    assert "Stopped" not in rates_in_words(whole, 0.01)
    cut = RateRange((0.1,) * 70, (1.0,) * 70, 0.01, 0.1)
    assert f"Stopped after 70 of {RANGE_STEPS} steps: the loss ran away." in rates_in_words(cut, 0.01)


@pytest.mark.parametrize(("value", "words"), [(1e-5, "0.00001"), (0.0051, "0.0051"), (10.0, "10"), (1.0, "1"), (0.3, "0.3")])
def test_numbers_are_written_as_the_form_and_the_chart_write_them(value, words):
    assert plain_number(value) == words


def test_rates_rise_by_one_factor_in_less_than_a_hundred_steps():
    assert RANGE_STEPS < 100
    rates = [rate_of_step(step) for step in range(RANGE_STEPS)]
    assert (rates[0], rates[-1]) == pytest.approx((LOWEST, HIGHEST))
    factors = [after / before for before, after in pairwise(rates)]
    assert factors == pytest.approx([factors[0]] * len(factors))


def test_charts_show_what_was_found_and_leave_out_what_was_not():
    chart = accuracy_against_time([advice("a", 0.5, 1), BackboneAdvice("b", error="no")])
    assert chart.traces[0]["text"] == ["a"]
    assert chart.traces[0]["error_y"]["array"] == pytest.approx([2.0])
    assert "a 50 % at" in chart.description
    assert "Not measured: b." in chart.description
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
