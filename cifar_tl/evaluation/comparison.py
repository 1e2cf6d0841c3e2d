"""What tells two or more runs apart: the images that only one gets right, the classes that gained or lost, the settings that differ.

Pure functions on arrays and settings: numpy only. Called by the Compare page.
N images, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from cifar_tl.config import RunConfig
from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.settings import Setting, settings


@dataclass(frozen=True)
class Paired:
    """Two runs on the same images. `only_a_n` and `only_b_n` are positions, in the evaluation of a, of what only one gets right."""

    both_right: int
    both_wrong: int
    only_a_n: np.ndarray
    only_b_n: np.ndarray

    @property
    def p_value(self) -> float:
        return mcnemar(len(self.only_a_n), len(self.only_b_n))


def mcnemar(only_a: int, only_b: int) -> float:
    """How likely a split at least as unequal as this is, if both runs are equally good: the exact two-sided test.

    McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947). Of the images on
    which the runs differ, each is then right with probability one half, so the smaller count is binomial.
    """
    differing, smaller = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(differing, hits) for hits in range(smaller + 1))
    return min(1.0, float(Fraction(2 * tail, 2**differing)))


def paired(a: Evaluation, b: Evaluation) -> Paired:
    """Raises RunInvalid if the two were not evaluated on the same images."""
    order = _same_images(a, b)
    right_a, right_b = a.predictions_N == a.labels_N, b.predictions_N[order] == b.labels_N[order]
    return Paired(
        both_right=int((right_a & right_b).sum()),
        both_wrong=int((~right_a & ~right_b).sum()),
        only_a_n=np.flatnonzero(right_a & ~right_b),
        only_b_n=np.flatnonzero(right_b & ~right_a),
    )


def _same_images(a: Evaluation, b: Evaluation) -> np.ndarray:
    """Positions in b of the images of a, in the order of a."""
    by_a, by_b = np.argsort(a.rows_N, kind="stable"), np.argsort(b.rows_N, kind="stable")
    is_same = a.store_split == b.store_split and len(a) == len(b) and bool((a.rows_N[by_a] == b.rows_N[by_b]).all())
    if not is_same or not (a.labels_N[by_a] == b.labels_N[by_b]).all():
        raise RunInvalid("These runs were not evaluated on the same images, so their answers cannot be paired.")
    order = np.empty(len(a), np.int64)
    order[by_a] = by_b
    return order


def class_changes(recall_a_C: np.ndarray, recall_b_C: np.ndarray) -> list[int]:
    """Indices of the classes by how much their recall gained from a to b, greatest gain first; classes without images are left out."""
    gain_C = recall_b_C - recall_a_C
    known = np.flatnonzero(~np.isnan(gain_C))
    return [int(index) for index in known[np.lexsort((known, -gain_C[known]))]]


def differing_settings(configs: Sequence[RunConfig]) -> list[tuple[Setting, list[Any]]]:
    """The settings that are not the same in all of these runs, with the value of each run. A run's name is no such difference."""
    values = [(setting, [getattr(config, setting.name) for config in configs]) for setting in settings() if setting.name != "name"]
    return [(setting, of_runs) for setting, of_runs in values if any(value != of_runs[0] for value in of_runs)]
