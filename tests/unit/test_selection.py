"""Which images a filter lets through, and their order."""

import numpy as np
import pytest

from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.evaluation.selection import Filter, Order, Outcome, losses, margins, select

# true class, probabilities of the classes 0, 1, 2
IMAGES = [(0, (0.7, 0.2, 0.1)), (0, (0.3, 0.6, 0.1)), (1, (0.05, 0.9, 0.05)), (2, (0.1, 0.4, 0.5)), (2, (0.0, 1.0, 0.0))]


@pytest.fixture
def evaluation() -> Evaluation:
    labels = np.array([label for label, _ in IMAGES], np.int32)
    probabilities = np.array([row for _, row in IMAGES], np.float16)
    order = np.argsort(-probabilities, axis=1, kind="stable").astype(np.int32)
    return Evaluation(labels, order, probabilities, rows_N=np.arange(5), store_split="test")


def test_no_filter_lets_every_image_through(evaluation: Evaluation):
    assert sorted(select(evaluation, Filter(), Order.LOSS)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(true=0), {0, 1}),
        (Filter(predicted=1), {1, 2, 4}),
        (Filter(true=2, predicted=1), {4}),
        (Filter(outcome=Outcome.WRONG), {1, 4}),
        (Filter(outcome=Outcome.RIGHT), {0, 2, 3}),
        (Filter(lowest=0.65), {0, 2, 4}),
        (Filter(highest=0.65), {1, 3}),
        (Filter(true=1, outcome=Outcome.WRONG), set()),
    ],
)
def test_filter_lets_through_what_it_names(evaluation: Evaluation, wanted: Filter, expected: set[int]):
    assert set(select(evaluation, wanted, Order.CONFIDENT).tolist()) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.LOSS, [4, 1, 3, 0, 2]),
        (Order.CONFIDENT, [4, 2, 0, 1, 3]),
        (Order.UNSURE, [3, 1, 0, 2, 4]),
        (Order.MARGIN, [3, 1, 0, 2, 4]),
    ],
)
def test_order_puts_first_what_it_names(evaluation: Evaluation, order: Order, expected: list[int]):
    assert select(evaluation, Filter(), order).tolist() == expected


def test_loss_is_cross_entropy_and_finite_where_the_probability_was_rounded_to_zero(evaluation: Evaluation):
    assert losses(evaluation)[:4] == pytest.approx(-np.log([0.7, 0.3, 0.9, 0.5]), abs=1e-3)
    assert 15 < losses(evaluation)[4] < 20


def test_margin_is_the_lead_over_the_second_class(evaluation: Evaluation):
    assert margins(evaluation) == pytest.approx([0.5, 0.3, 0.85, 0.1, 1.0], abs=1e-3)


def test_only_those_asked_for_are_looked_through(evaluation: Evaluation):
    among = np.array([True, True, False, False, True])
    assert select(evaluation, Filter(true=0), Order.CONFIDENT, among).tolist() == [0, 1]
    assert select(evaluation, Filter(), Order.LOSS, ~among).tolist() == [3, 2]
