"""Orders of classes and the split of mistakes by superclass, on hand-made matrices."""

import itertools

import numpy as np
import pytest

from cifar_tl.evaluation import class_order as module
from cifar_tl.evaluation.class_order import ClassOrder, class_order, error_split_by_superclass

NAMES = ("otter", "Bus", "seal", "class 10", "class 2", "tram")
# otter and seal are confused, bus and tram are, the others are not.
MATRIX = np.array(
    [
        [6, 0, 4, 0, 0, 0],
        [0, 7, 0, 0, 0, 3],
        [2, 1, 7, 0, 0, 0],
        [0, 0, 0, 10, 0, 0],
        [0, 0, 0, 1, 9, 0],
        [0, 5, 0, 0, 0, 5],
    ]
)
SUPERCLASS = (1, 0, 1, 2, 2, 0)


def names_in(order: ClassOrder, matrix: np.ndarray = MATRIX) -> list[str]:
    return [NAMES[index] for index in class_order(order, matrix, NAMES, SUPERCLASS)]


def test_as_given():
    assert names_in(ClassOrder.GIVEN) == list(NAMES)


def test_alphabetical_ignores_capitals_and_counts_numbers():
    assert names_in(ClassOrder.ALPHABETICAL) == ["Bus", "class 2", "class 10", "otter", "seal", "tram"]


def test_names_that_begin_with_a_number_can_be_sorted_with_others():
    assert class_order(ClassOrder.ALPHABETICAL, np.eye(3), ("b", "10", "9"), ()) == [2, 1, 0]


def test_by_superclass_keeps_the_order_within_each():
    assert names_in(ClassOrder.SUPERCLASS) == ["Bus", "tram", "otter", "seal", "class 10", "class 2"]


def test_without_superclasses_by_superclass_is_as_given():
    assert class_order(ClassOrder.SUPERCLASS, MATRIX, NAMES, ()) == list(range(6))


def test_most_errors_first():
    assert names_in(ClassOrder.ERROR) == ["tram", "otter", "Bus", "seal", "class 2", "class 10"]


def test_classes_without_images_come_last_by_error():
    matrix = MATRIX.copy()
    matrix[5] = 0
    assert names_in(ClassOrder.ERROR, matrix)[-1] == "tram"


def test_confused_classes_sit_side_by_side():
    order = names_in(ClassOrder.CONFUSION)
    for one, other in (("otter", "seal"), ("Bus", "tram"), ("class 2", "class 10")):
        assert abs(order.index(one) - order.index(other)) == 1


def test_confused_groups_are_found_again_after_shuffling():
    random = np.random.default_rng(0)
    group = random.permutation(np.repeat(np.arange(8), 5))
    matrix = random.poisson(np.where(group[:, None] == group[None, :], 6, 0.2)) + 50 * np.eye(40, dtype=np.int64)
    order = class_order(ClassOrder.CONFUSION, matrix, [str(i) for i in range(40)], ())
    assert len(list(itertools.groupby(group[order]))) == 8


def test_clustering_joins_classes_by_confusion_either_way():
    # 0 is taken for 3, never the other way round.
    matrix = np.diag([10, 10, 10, 10])
    matrix[0, 3] = 5
    order = class_order(ClassOrder.CONFUSION, matrix, list("abcd"), ())
    assert abs(order.index(0) - order.index(3)) == 1


@pytest.mark.parametrize("order", list(ClassOrder))
@pytest.mark.parametrize("num_classes", [1, 2, 3, 30])
@pytest.mark.parametrize("is_perfect", [True, False])
def test_every_order_has_every_class_once(order: ClassOrder, num_classes: int, is_perfect: bool):
    random = np.random.default_rng(num_classes)
    matrix = np.eye(num_classes, dtype=np.int64) if is_perfect else random.integers(0, 5, (num_classes, num_classes))
    names, superclass = [f"c{i}" for i in range(num_classes)], [i % 3 for i in range(num_classes)]
    assert sorted(class_order(order, matrix, names, superclass)) == list(range(num_classes))


def test_without_mistakes_clustering_keeps_the_order():
    assert class_order(ClassOrder.CONFUSION, np.eye(5, dtype=np.int64), list("abcde"), ()) == [0, 1, 2, 3, 4]


def test_clustering_of_many_classes_does_without_the_best_order_of_leaves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST_WITH_BEST_LEAVES", 3)
    module._clustered.cache_clear()
    order = names_in(ClassOrder.CONFUSION)
    module._clustered.cache_clear()
    assert abs(order.index("otter") - order.index("seal")) == 1


def test_mistakes_split_into_within_and_across():
    split = error_split_by_superclass(MATRIX, SUPERCLASS)
    # Within: 4 + 3 + 2 + 1 + 5; across: one seal for a bus.
    assert (split.within.hits, split.within.total) == (15, 16)
    assert (split.across.hits, split.across.total) == (1, 16)
    low, high = split.across.interval
    assert low < 1 / 16 < high


def test_the_commonest_mistakes_of_either_kind_are_named():
    split = error_split_by_superclass(MATRIX, SUPERCLASS)
    assert split.commonest_within is not None
    assert split.commonest_across is not None
    assert (split.commonest_within.true, split.commonest_within.predicted, split.commonest_within.share) == (5, 1, 0.5)
    assert (split.commonest_across.true, split.commonest_across.predicted, split.commonest_across.share) == (2, 1, 0.1)


def test_crossings_are_pairs_of_superclasses_commonest_first():
    matrix = MATRIX.copy()
    matrix[3, 0], matrix[4, 2] = 2, 1
    crossings = error_split_by_superclass(matrix, SUPERCLASS).crossings
    assert [(pair.true, pair.predicted, pair.count) for pair in crossings] == [(2, 1, 3), (1, 0, 1)]


def test_the_share_within_by_chance_equals_a_count_over_all_other_classes():
    # Superclass sizes 3 and 1: a mistake of the first three falls within with 2 of 3, one of the last never.
    matrix = np.array([[5, 1, 1, 1], [0, 8, 0, 0], [0, 0, 8, 0], [1, 0, 0, 7]])
    assert error_split_by_superclass(matrix, (0, 0, 0, 1)).by_chance == pytest.approx((3 * 2 / 3 + 1 * 0) / 4)


def test_without_mistakes_there_is_nothing_to_split():
    split = error_split_by_superclass(np.eye(4, dtype=np.int64), (0, 0, 1, 1))
    assert (split.within.total, split.commonest_within, split.commonest_across, split.crossings) == (0, None, None, [])
    assert np.isnan(split.by_chance)
