"""What is known of the images on the embedding map, point by point, and the words for each. Pure functions on arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.evaluation.embeddings import EmbeddingMap

UNKNOWN = -1


@dataclass(frozen=True)
class MapPoints:
    """N points, test first. Predictions are UNKNOWN and confidences nan where the run's folder has no answer.

    `positions_N`: of each point in the evaluation of its split, UNKNOWN where it has none.
    """

    xy_N2: np.ndarray
    labels_N: np.ndarray
    predictions_N: np.ndarray
    confidences_N: np.ndarray
    positions_N: np.ndarray
    is_train_N: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def is_wrong_N(self) -> np.ndarray:
        return (self.predictions_N != self.labels_N) & (self.predictions_N != UNKNOWN)


def map_points(drawn: EmbeddingMap, answers: Mapping[str, Evaluation]) -> MapPoints:
    """`answers`: evaluations of the splits on the map, by name, as far as there are any."""
    parts = []
    for name, split in drawn.splits.items():
        count = len(split)
        predictions, confidences, positions = np.full(count, UNKNOWN), np.full(count, np.nan, np.float32), np.full(count, UNKNOWN)
        if (evaluation := answers.get(name)) is not None and evaluation.store_split == split.store_split:
            positions = _positions(evaluation.rows_N, split.rows_N)
            known = positions != UNKNOWN
            predictions[known] = evaluation.predictions_N[positions[known]]
            confidences[known] = evaluation.confidences_N[positions[known]]
        parts.append(
            (
                split.vectors_ND[:, :2].astype(np.float32),
                split.labels_N,
                predictions,
                confidences,
                positions,
                np.full(count, name == "train"),
            )
        )
    return MapPoints(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _positions(rows_N: np.ndarray, wanted_n: np.ndarray) -> np.ndarray:
    order = np.argsort(rows_N, kind="stable")
    found = order[np.minimum(np.searchsorted(rows_N, wanted_n, sorter=order), len(order) - 1)]
    return np.where(rows_N[found] == wanted_n, found, UNKNOWN)


def card_texts(points: MapPoints, class_names: Sequence[str]) -> list[str]:
    """What is shown beside the pointer, for each point."""
    return [
        f"{class_names[label]}\n{_answer(class_names, label, prediction, confidence)} · {'train' if is_train else 'test'}"
        for label, prediction, confidence, is_train in zip(
            points.labels_N.tolist(), points.predictions_N.tolist(), points.confidences_N.tolist(), points.is_train_N.tolist(), strict=True
        )
    ]


def _answer(class_names: Sequence[str], label: int, prediction: int, confidence: float) -> str:
    if prediction == UNKNOWN:
        return "no answer"
    if prediction == label:
        return f"recognised, {100 * confidence:.1f} %"
    return f"taken for {class_names[prediction]}, {100 * confidence:.1f} %"
