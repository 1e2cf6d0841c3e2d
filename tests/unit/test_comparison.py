"""What tells runs apart: pairs of answers, McNemar's test, classes and settings."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from cifar_tl.config import make_config
from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.comparison import class_changes, differing_settings, mcnemar, paired
from cifar_tl.ui.compare_views import in_words
from tests.made_runs import made_evaluation


def answering(right_N: list[bool]):
    """An evaluation of five classes that is right exactly there."""
    evaluation = made_evaluation(len(right_N), 5)
    top = np.stack([(evaluation.labels_N + shift) % 5 for shift in range(5)], 1)
    wrong = np.roll(top, 1, axis=1)
    return replace(evaluation, top_classes_NK=np.where(np.array(right_N)[:, None], top, wrong).astype(np.int32))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 32),
        (1, 9, 2 * 11 / 1024),
        (205, 312, binomtest(205, 517).pvalue),
        (4, 21, binomtest(4, 25).pvalue),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == pytest.approx(p, rel=1e-9)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


def test_mcnemar_of_large_counts_is_a_number():
    assert mcnemar(0, 10_000) == pytest.approx(0.0, abs=1e-300)
    assert math.isclose(mcnemar(5000, 5000), 1.0)


def test_pairs_are_counted_and_the_images_named():
    result = paired(answering([True, True, False, False, True]), answering([True, False, True, False, False]))
    assert (result.both_right, result.both_wrong) == (1, 1)
    assert result.only_a_n.tolist() == [1, 4]
    assert result.only_b_n.tolist() == [2]


def test_pairs_are_found_whatever_the_order_of_the_images():
    a, b = answering([True, True, False, False, True]), answering([True, False, True, False, False])
    order = np.array([3, 1, 4, 0, 2])
    shuffled = replace(
        b,
        labels_N=b.labels_N[order],
        top_classes_NK=b.top_classes_NK[order],
        probabilities_NC=b.probabilities_NC[order],
        rows_N=b.rows_N[order],
    )
    result = paired(a, shuffled)
    assert result.only_a_n.tolist() == [1, 4]
    assert result.only_b_n.tolist() == [2]


def test_runs_on_other_images_are_not_paired():
    a = answering([True] * 5)
    for other in (answering([True] * 4), replace(a, store_split="train"), replace(a, rows_N=a.rows_N + 1)):
        with pytest.raises(RunInvalid, match="same images"):
            paired(a, other)


def test_the_test_is_told_in_words():
    right = [True] * 12 + [False] * 20
    better = in_words(paired(answering([False] * 32), answering(right)), "A", "B")
    assert "**B** fixes 12 images that A gets wrong, and breaks 0" in better
    assert "p = 0.00049" in better
    assert "B is better" in better
    assert "neither is shown to be better" in in_words(paired(answering([True, False]), answering([False, True])), "A", "B")
    assert "same images" in in_words(paired(answering(right), answering(right)), "A", "B")


def test_classes_are_ordered_by_gain_and_those_without_images_are_left_out():
    before, after = np.array([0.5, 0.5, np.nan, 0.5]), np.array([0.4, 0.9, 0.5, 0.5])
    assert class_changes(before, after) == [1, 3, 0]


def test_only_settings_that_differ_are_listed_and_no_names():
    configs = [make_config(name="a", epochs=3), make_config(name="b", epochs=3, learning_rate=0.1), make_config(name="c", epochs=4)]
    listed = {setting.name: values for setting, values in differing_settings(configs)}
    assert listed == {"epochs": [3, 3, 4], "learning_rate": [0.01, 0.1, 0.01]}
    assert differing_settings(configs[:1] * 2) == []
