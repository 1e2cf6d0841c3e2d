"""search(): everything suspicious in a data set, from its features, labels and pixels. Holds the order of the work and its progress.

Train images are judged by models that have not seen them (five folds), the others by the model of all train images.
M images in all, N in one split.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from cifar_tl.config import RunConfig
from cifar_tl.data.progress import Progress, Tell
from cifar_tl.data.splits import stratified_folds
from cifar_tl.evaluation.suspicion.cross_validation import MOST_STEPS, CrossValidated, cross_validate
from cifar_tl.evaluation.suspicion.duplicates import ReadImages, candidate_pairs, find_duplicates
from cifar_tl.evaluation.suspicion.labels import doubted_labels, label_issues
from cifar_tl.evaluation.suspicion.linear import FOLDS, Features, blocks_of
from cifar_tl.evaluation.suspicion.neighbours import DIMENSIONS, Neighbours, directions, nearest_neighbours, strangest
from cifar_tl.evaluation.suspicion.result import SPLITS, TEST, TRAIN, Duplicates, Facts, LabelIssues, Outliers, Suspicion


@dataclass(frozen=True)
class SplitData:
    """The images of one split: an index into SPLITS, and how many images the store has there, of which `rows_N` are looked at.

    `images(rows)` gives uint8 pixels n x H x W x 3 of rows of the store.
    """

    split: int
    store_size: int
    rows_N: np.ndarray
    labels_N: np.ndarray
    features: Features
    images: ReadImages


def search(splits: Sequence[SplitData], config: RunConfig, num_classes: int, tell: Tell) -> Suspicion:
    """`splits`: train first, each at most once. Repeatable: `config.seed` decides the folds."""
    began, train = time.monotonic(), splits[0]
    assert train.split == TRAIN
    folds_N = stratified_folds(train.labels_N, FOLDS, seed=config.seed)
    learning = _counter(tell, "Learning what the classes look like", (MOST_STEPS + 2) * len(train.rows_N), "images")
    judge = cross_validate(train.features, train.labels_N, folds_N, num_classes, learning)
    probabilities = [judge.probabilities_NC, *(judge.predict(data.features) for data in splits[1:])]
    tell(Progress("Doubting labels", 0, 0, "images"))
    issues = _label_issues(splits, probabilities, num_classes)
    where = _Where.of(splits)
    comparing = _counter(tell, "Comparing images with each other", len(where.row_M), "images")
    neighbours = nearest_neighbours(_points(splits, judge), comparing)
    comparing = _counter(tell, "Comparing pixels", len(candidate_pairs(neighbours)), "pairs")
    duplicates = _duplicates(splits, where, neighbours, comparing)
    strange, strangeness = strangest(neighbours)
    accuracies = {
        data.split: float((of_split.argmax(1) == data.labels_N).mean()) for data, of_split in zip(splits, probabilities, strict=True)
    }
    facts = Facts(
        backbone=config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        num_classes=num_classes,
        images=_of_each_split({data.split: len(data.rows_N) for data in splits}),
        store_sizes=_of_each_split({data.split: data.store_size for data in splits}),
        train_accuracy=accuracies[TRAIN],
        test_accuracy=accuracies.get(TEST, 0.0),
        seconds=round(time.monotonic() - began, 1),
    )
    outliers = Outliers(where.split_M[strange], where.row_M[strange], where.label_M[strange], strangeness)
    return Suspicion(issues, duplicates, outliers, facts)


@dataclass(frozen=True)
class _Where:
    """Split, row and label of each image, all splits one after the other."""

    split_M: np.ndarray
    row_M: np.ndarray
    label_M: np.ndarray

    @classmethod
    def of(cls, splits: Sequence[SplitData]) -> "_Where":
        return cls(
            np.concatenate([np.full(len(data.rows_N), data.split, np.int8) for data in splits]),
            np.concatenate([data.rows_N for data in splits]).astype(np.int64),
            np.concatenate([data.labels_N for data in splits]).astype(np.int32),
        )


def _label_issues(splits: Sequence[SplitData], probabilities: Sequence[np.ndarray], num_classes: int) -> LabelIssues:
    """Those of all splits, the most doubtful first within each."""
    parts, images_C = [], np.bincount(splits[0].labels_N, minlength=num_classes)
    for data, of_split in zip(splits, probabilities, strict=True):
        # The only image of a class has no other to learn it from.
        doubted = doubted_labels(data.labels_N, of_split, images_C > (1 if data.split == TRAIN else 0))
        parts.append(label_issues(data.split, data.rows_N, data.labels_N, of_split, doubted))
    return LabelIssues(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(LabelIssues)})


def _points(splits: Sequence[SplitData], judge: CrossValidated) -> np.ndarray:
    """float32 M x D: the direction of each image's features, along their principal axes in train."""
    axes, mean = judge.sums.principal_axes(DIMENSIONS), judge.sums.mean_F
    return np.concatenate([directions(block, mean, axes) for data in splits for _, block in blocks_of(data.features)])


def _duplicates(splits: Sequence[SplitData], where: _Where, neighbours: Neighbours, heard: Callable[[int], object]) -> Duplicates:
    by_split = {data.split: data.images for data in splits}

    def read(positions: np.ndarray) -> np.ndarray:
        of_split, rows = where.split_M[positions], where.row_M[positions]
        pixels = [by_split[int(split)](rows[of_split == split]) for split in np.unique(of_split)]
        if not pixels:
            return np.empty((0, 1, 1, 3), np.uint8)
        order = np.argsort(of_split, kind="stable")
        joined = np.empty((len(positions), *pixels[0].shape[1:]), np.uint8)
        joined[order] = np.concatenate(pixels)
        return joined

    pairs = find_duplicates(neighbours, read, heard)
    both = pairs.positions_n2
    return Duplicates(where.split_M[both], where.row_M[both], where.label_M[both], pairs.likeness_n, pairs.is_exact_n)


def _of_each_split(counts: dict[int, int]) -> tuple[int, int, int]:
    train, dev, test = (counts.get(split, 0) for split in range(len(SPLITS)))
    return train, dev, test


def _counter(tell: Tell, text: str, total: int, unit: str) -> Callable[[int], None]:
    """A function that is told of n more done."""
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        tell(Progress(text, done, total, unit))

    return more
