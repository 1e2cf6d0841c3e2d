"""Accuracy on a part of the images: on those a model is sure of, or without some that should not count.

Pure functions on arrays: numpy only. Called by the Trust view of Explore.
N images, M thresholds.
"""

import math
from dataclasses import dataclass

import numpy as np

from cifar_tl.evaluation.analysis import Proportion
from cifar_tl.evaluation.arrays import Evaluation


@dataclass(frozen=True)
class Coverage:
    """Accuracy when only sure answers are given: threshold m answers the images with at least that confidence.

    thresholds_M  float64  every confidence that occurs, highest first
    answered_M    int64    images that are answered
    hits_M        int64    those that are answered right
    """

    thresholds_M: np.ndarray
    answered_M: np.ndarray
    hits_M: np.ndarray

    @property
    def total(self) -> int:
        return int(self.answered_M[-1]) if len(self.answered_M) else 0

    @property
    def area_under_risk(self) -> float:
        """Mean share of wrong answers over all coverages: 0 for a model that is sure of all its right answers and has no others.

        Geifman and El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
        """
        risks_M = 1 - self.hits_M / np.maximum(self.answered_M, 1)
        return float((np.diff(self.answered_M, prepend=0) * risks_M).sum()) / self.total if self.total else math.nan

    def at(self, threshold: float) -> Proportion:
        """Of the images that are answered at this threshold, those that are right."""
        index = int(np.searchsorted(-self.thresholds_M, -threshold, side="right")) - 1
        return Proportion(int(self.hits_M[index]), int(self.answered_M[index])) if index >= 0 else Proportion(0, 0)

    def threshold_for(self, accuracy: float) -> float | None:
        """The lowest threshold at which answers are right this often; None if there is none. Choose it on dev, judge it on test."""
        reaching = np.flatnonzero(self.hits_M >= accuracy * self.answered_M)
        return float(self.thresholds_M[reaching[-1]]) if len(reaching) else None


def coverage(confidences_N: np.ndarray, is_right_N: np.ndarray) -> Coverage:
    """The curve of all thresholds; images of equal confidence are answered together."""
    order = np.argsort(-confidences_N, kind="stable")
    sorted_N, hits_N = np.asarray(confidences_N, np.float64)[order], np.cumsum(is_right_N[order], dtype=np.int64)
    ends = np.flatnonzero(np.diff(sorted_N, append=-1.0))  # the last of each group of equals
    return Coverage(sorted_N[ends], ends + 1, hits_N[ends])


def accuracy_without(evaluation: Evaluation, excluded_positions: np.ndarray) -> Proportion:
    """Accuracy on the images that are left when those at these positions are not counted."""
    is_counted_N = np.ones(len(evaluation), bool)
    is_counted_N[excluded_positions] = False
    is_right_N = evaluation.predictions_N == evaluation.labels_N
    return Proportion(int((is_right_N & is_counted_N).sum()), int(is_counted_N.sum()))
