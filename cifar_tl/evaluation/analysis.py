"""What an evaluation tells: confusion, accuracy with its uncertainty, per-class scores, confused pairs, the images behind a cell.

Pure functions on arrays: numpy only, no files, no torch, no Streamlit. Called by the Explore page and the command line.
N images, C classes, K kept ranks. A confusion matrix has true classes as rows and predicted ones as columns.
Shares are fractions in [0, 1]; a share of nothing (a class without images, or never predicted) is nan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cifar_tl.evaluation.arrays import Evaluation

# Of the normal distribution, for intervals that hold the truth 95 times in 100.
_Z_95 = 1.959963984540054


def confusion_matrix(labels_N: np.ndarray, predictions_N: np.ndarray, num_classes: int) -> np.ndarray:
    """int64, C x C counts: entry [i, j] is how many images of class i were taken for class j."""
    cells = labels_N.astype(np.int64) * num_classes + predictions_N
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def superclass_confusion(matrix_CC: np.ndarray, superclass_of_class: Sequence[int] | np.ndarray, num_superclasses: int) -> np.ndarray:
    """The same counts with classes summed into their superclasses."""
    of_class = np.asarray(superclass_of_class, np.int64)
    merged = np.zeros((num_superclasses, num_superclasses), matrix_CC.dtype)
    np.add.at(merged, (of_class[:, None], of_class[None, :]), matrix_CC)
    return merged


def shares_of_rows(matrix_CC: np.ndarray) -> np.ndarray:
    """float64: each row divided by its sum; a class without images has a row of zeros, as it has no cells to show."""
    totals = matrix_CC.sum(1, keepdims=True)
    return matrix_CC / np.maximum(totals, 1)


@dataclass(frozen=True)
class Proportion:
    """`hits` of `total`, with the 95 % interval of Wilson's score method, which stays within [0, 1] also near its ends."""

    hits: int
    total: int

    @property
    def fraction(self) -> float:
        return self.hits / self.total if self.total else math.nan

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927)."""
        if not self.total:
            return (0.0, 1.0)
        n, p, z = self.total, self.fraction, _Z_95
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        # The exact ends at 0 and n hits, where rounding would leave a trace.
        return (0.0 if self.hits == 0 else max(0.0, centre - half), 1.0 if self.hits == n else min(1.0, centre + half))


def accuracy(evaluation: Evaluation) -> Proportion:
    """How many images were predicted right."""
    return Proportion(int((evaluation.predictions_N == evaluation.labels_N).sum()), len(evaluation))


def top_k_accuracy(evaluation: Evaluation, k: int) -> Proportion:
    """How many images have their class among the first k; k beyond the kept ranks counts those that are kept."""
    hits = (evaluation.top_classes_NK[:, :k] == evaluation.labels_N[:, None]).any(1)
    return Proportion(int(hits.sum()), len(evaluation))


@dataclass(frozen=True)
class ClassScore:
    """One class: `support` images have it, `predicted` were taken for it. `confused_with` is the commonest wrong answer, None if none."""

    index: int
    support: int
    predicted: int
    hits: int
    confused_with: int | None
    confused_count: int

    @property
    def precision(self) -> float:
        """Of the images taken for this class, the share that are."""
        return self.hits / self.predicted if self.predicted else math.nan

    @property
    def precision_interval(self) -> tuple[float, float]:
        return Proportion(self.hits, self.predicted).interval

    @property
    def recall(self) -> float:
        """Of this class's images, the share that were recognised."""
        return self.hits / self.support if self.support else math.nan

    @property
    def recall_interval(self) -> tuple[float, float]:
        return Proportion(self.hits, self.support).interval

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 hits / (support + predicted)."""
        both = self.support + self.predicted
        return 2 * self.hits / both if both else math.nan


def per_class(matrix_CC: np.ndarray) -> list[ClassScore]:
    """Scores of every class, in the order of the classes."""
    mistakes = _off_diagonal(matrix_CC)
    worst = mistakes.argmax(1)
    worst_counts = mistakes.max(1)
    columns = zip(matrix_CC.sum(1), matrix_CC.sum(0), matrix_CC.diagonal(), worst, worst_counts, strict=True)
    return [
        ClassScore(i, int(support), int(predicted), int(hits), int(other) if count else None, int(count))
        for i, (support, predicted, hits, other, count) in enumerate(columns)
    ]


@dataclass(frozen=True)
class ConfusedPair:
    """`count` images of class `true` were taken for class `predicted`; `share` is of all images of `true`."""

    true: int
    predicted: int
    count: int
    share: float


def most_confused_pairs(matrix_CC: np.ndarray, limit: int = 50) -> list[ConfusedPair]:
    """Ordered pairs of different classes with at least one mistake, commonest first, then by share, then by class index."""
    true, predicted = np.nonzero(_off_diagonal(matrix_CC))
    counts = matrix_CC[true, predicted]
    shares = counts / matrix_CC.sum(1)[true]
    order = np.lexsort((predicted, true, -shares, -counts))[:limit]
    return [ConfusedPair(int(true[i]), int(predicted[i]), int(counts[i]), float(shares[i])) for i in order]


def rows_behind_cell(labels_N: np.ndarray, predictions_N: np.ndarray, confidences_N: np.ndarray, true: int, predicted: int) -> np.ndarray:
    """Positions in the evaluation of the images in one cell of the confusion matrix, most confident first."""
    rows = np.flatnonzero((labels_N == true) & (predictions_N == predicted))
    return rows[np.argsort(-confidences_N[rows], kind="stable")]


def _off_diagonal(matrix_CC: np.ndarray) -> np.ndarray:
    mistakes = matrix_CC.copy()
    np.fill_diagonal(mistakes, 0)
    return mistakes
