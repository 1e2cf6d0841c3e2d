"""In which order to show the classes of a confusion matrix, and whether mistakes stay within superclasses.

Pure functions on counts: numpy, and scipy for clustering. Called by the Confusion view of Explore.
C classes, S superclasses. A confusion matrix has true classes as rows and predicted ones as columns.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from cifar_tl.evaluation.analysis import ConfusedPair, Proportion, most_confused_pairs, shares_of_rows, superclass_confusion

# The best order of leaves takes time with the cube of the classes: 0.9 s for 700, 3.3 s for 1,000, and 0.1 s for 1,000 without it.
_MOST_WITH_BEST_LEAVES = 600
_KEPT_ORDERS = 4  # at 1,000 classes, the counts that are the key take 4 MB each


class ClassOrder(StrEnum):
    """What a person can choose; the values are the words."""

    GIVEN = "As given"
    ALPHABETICAL = "Alphabetical"
    SUPERCLASS = "By superclass"
    CONFUSION = "Confused together"
    ERROR = "Most errors first"


def class_order(order: ClassOrder, matrix_CC: np.ndarray, class_names: Sequence[str], superclass_of_class: Sequence[int]) -> list[int]:
    """Class indices in this order; equal ones as given. Without superclasses (an empty sequence), by superclass is as given."""
    indices = range(len(class_names))
    if order is ClassOrder.ALPHABETICAL:
        return sorted(indices, key=lambda index: _natural(class_names[index]))
    if order is ClassOrder.SUPERCLASS and len(superclass_of_class):
        return sorted(indices, key=lambda index: superclass_of_class[index])
    if order is ClassOrder.CONFUSION:
        return list(_clustered(np.ascontiguousarray(matrix_CC, np.int32).tobytes(), len(class_names)))
    if order is ClassOrder.ERROR:
        return _worst_first(matrix_CC)
    return list(indices)


def _natural(name: str) -> list[str | int]:
    """Capitals do not count, and "class 2" comes before "class 10". Words and numbers take turns, so keys can be compared."""
    return [int(part) if number else part for number, part in _words_and_numbers(name.casefold())]


def _words_and_numbers(text: str) -> list[tuple[bool, str]]:
    return [(bool(place % 2), part) for place, part in enumerate(re.split(r"(\d+)", text))]


def _worst_first(matrix_CC: np.ndarray) -> list[int]:
    """By falling share of a class's images that were taken for another; classes without images come last."""
    totals_C = matrix_CC.sum(1)
    errors_C = np.where(totals_C > 0, 1 - matrix_CC.diagonal() / np.maximum(totals_C, 1), -1.0)
    return [int(index) for index in np.argsort(-errors_C, kind="stable")]


@lru_cache(maxsize=_KEPT_ORDERS)
def _clustered(counts: bytes, num_classes: int) -> tuple[int, ...]:
    """Leaves of a tree that joins the classes which are confused most, so that they sit side by side.

    Average linkage on the share of images that go either way; the tree's branches are turned so that neighbouring leaves are as
    alike as can be (Bar-Joseph, Gifford and Jaakkola, Fast optimal leaf ordering for hierarchical clustering, 2001).
    """
    # Not at the top: it takes long to import, and only this order needs it.
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    shares_CC = shares_of_rows(np.frombuffer(counts, np.int32).reshape(num_classes, num_classes))
    closeness_CC = (shares_CC + shares_CC.T) / 2
    np.fill_diagonal(closeness_CC, 0)
    if num_classes < 3 or not closeness_CC.any():
        return tuple(range(num_classes))
    distances_CC = closeness_CC.max() - closeness_CC
    np.fill_diagonal(distances_CC, 0)
    distances = squareform(distances_CC, checks=False)
    tree = linkage(distances, "average")
    if num_classes <= _MOST_WITH_BEST_LEAVES:
        tree = optimal_leaf_ordering(tree, distances)
    return tuple(int(index) for index in leaves_list(tree))


@dataclass(frozen=True)
class ErrorSplit:
    """The mistakes by whether they stay within the superclass (otter for seal) or cross it (otter for bus).

    `within` and `across` count of all mistakes; `by_chance` is the share that would stay within if every mistake fell on any other class
    alike. `commonest_within` and `commonest_across` are pairs of classes, None where there is no such mistake.
    `crossings` are pairs of superclasses, commonest first.
    """

    within: Proportion
    across: Proportion
    by_chance: float
    commonest_within: ConfusedPair | None
    commonest_across: ConfusedPair | None
    crossings: list[ConfusedPair]


def error_split_by_superclass(matrix_CC: np.ndarray, superclass_of_class: Sequence[int], most_crossings: int = 20) -> ErrorSplit:
    """How many mistakes stay within the superclass, how many cross it, and where. Chance is nan without mistakes."""
    of_class = np.asarray(superclass_of_class, np.int64)
    merged_SS = superclass_confusion(matrix_CC, of_class, int(of_class.max()) + 1)
    mistakes_C = matrix_CC.sum(1) - matrix_CC.diagonal()
    total, within = int(mistakes_C.sum()), int(merged_SS.trace() - matrix_CC.trace())
    siblings_C = np.bincount(of_class)[of_class] - 1
    expected = float((mistakes_C * siblings_C).sum()) / max(1, len(of_class) - 1)
    pairs = most_confused_pairs(matrix_CC, matrix_CC.size)
    return ErrorSplit(
        within=Proportion(within, total),
        across=Proportion(total - within, total),
        by_chance=expected / total if total else math.nan,
        commonest_within=next((pair for pair in pairs if of_class[pair.true] == of_class[pair.predicted]), None),
        commonest_across=next((pair for pair in pairs if of_class[pair.true] != of_class[pair.predicted]), None),
        crossings=most_confused_pairs(merged_SS, most_crossings),
    )
