"""Which images of an evaluation to look at, and in which order: by class, by outcome, by confidence, by how wrong they are.

Pure functions on arrays: numpy only. Called by the Images view and the class page of Explore.
N images, C classes.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from cifar_tl.evaluation.arrays import Evaluation

# Half of float16's smallest number: what a probability that was rounded to zero may have been.
_SMALLEST_PROBABILITY = 3e-8


class Outcome(StrEnum):
    ALL = "All"
    WRONG = "Wrong"
    RIGHT = "Right"


class Order(StrEnum):
    LOSS = "Highest loss"
    CONFIDENT = "Most confident"
    UNSURE = "Least confident"
    MARGIN = "Smallest margin"


@dataclass(frozen=True)
class Filter:
    """Which images: None means any class. Confidence is that of the predicted class, a fraction; both ends count."""

    true: int | None = None
    predicted: int | None = None
    outcome: Outcome = Outcome.ALL
    lowest: float = 0.0
    highest: float = 1.0


def select(evaluation: Evaluation, wanted: Filter, order: Order, among_N: np.ndarray | None = None) -> np.ndarray:
    """int64 positions of the images that pass, in this order; equal ones by position. `among_N`: bool, only these."""
    is_right_N = evaluation.predictions_N == evaluation.labels_N
    confidences_N = evaluation.confidences_N
    passes_N = (confidences_N >= wanted.lowest) & (confidences_N <= wanted.highest)
    if wanted.true is not None:
        passes_N &= evaluation.labels_N == wanted.true
    if wanted.predicted is not None:
        passes_N &= evaluation.predictions_N == wanted.predicted
    if wanted.outcome is not Outcome.ALL:
        passes_N &= is_right_N == (wanted.outcome is Outcome.RIGHT)
    if among_N is not None:
        passes_N &= among_N
    positions = np.flatnonzero(passes_N)
    return positions[np.argsort(_keys(evaluation, order)[positions], kind="stable")]


def _keys(evaluation: Evaluation, order: Order) -> np.ndarray:
    """float32 N: the smaller, the earlier."""
    if order is Order.LOSS:
        return -losses(evaluation)
    if order is Order.MARGIN:
        return margins(evaluation)
    return evaluation.confidences_N if order is Order.UNSURE else -evaluation.confidences_N


def losses(evaluation: Evaluation) -> np.ndarray:
    """float32 N: cross-entropy of each image in nats, minus the logarithm of its true class's probability."""
    of_label_N = np.take_along_axis(evaluation.probabilities_NC, evaluation.labels_N[:, None].astype(np.int64), axis=1)[:, 0]
    return -np.log(np.maximum(of_label_N.astype(np.float32), _SMALLEST_PROBABILITY))


def margins(evaluation: Evaluation) -> np.ndarray:
    """float32 N: how far the likeliest class is ahead of the second; small where the model could hardly decide."""
    if evaluation.num_classes < 2:
        return np.ones(len(evaluation), np.float32)
    first_two = np.take_along_axis(evaluation.probabilities_NC, evaluation.top_classes_NK[:, :2].astype(np.int64), axis=1)
    return first_two[:, 0].astype(np.float32) - first_two[:, 1].astype(np.float32)
