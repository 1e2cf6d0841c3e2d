"""A linear model of frozen features in closed form, from sums over the images it is made of. `cross_validation` makes it better.

Linear discriminant analysis needs of its images only sums. Those of five folds are taken in one pass over the features, and the
model that has not seen a fold is made of the sums of the other four. Features are read block by block, in order, so memory does not grow
with the data and the classes may come sorted.

Shapes: N images, C classes, F features, K folds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

FOLDS = 5
SHRINKAGE = 0.1  # from 0.01 to 0.5 all are within two percent of each other in accuracy; small data sets need some
NEVER = -1e4  # the bias of a class that a model has not seen: its probability is zero, and no sum becomes undefined
_BLOCK = 2048


class Features(Protocol):
    """float32 features of N images, read in slices: an array, or what reads them from a cache."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


def blocks_of(features: Features, heard: Callable[[int], object] = lambda _: None) -> Iterator[tuple[slice, np.ndarray]]:
    """The features block by block, each with its place. `heard(n)` is told of n more images done."""
    for start in range(0, len(features), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(features)))
        yield rows, np.asarray(features[rows], np.float32)
        heard(rows.stop - rows.start)


@dataclass(frozen=True)
class Sums:
    """Of some images: how many of each class, the sum of their features, and of the features' products. All less one `origin_F`."""

    count_C: np.ndarray
    sum_CF: np.ndarray
    product_FF: np.ndarray
    origin_F: np.ndarray

    def minus(self, other: "Sums") -> "Sums":
        return Sums(self.count_C - other.count_C, self.sum_CF - other.sum_CF, self.product_FF - other.product_FF, self.origin_F)

    @property
    def total(self) -> int:
        return int(self.count_C.sum())

    @property
    def mean_F(self) -> np.ndarray:
        return (self.origin_F + self.sum_CF.sum(0) / self.total).astype(np.float32)

    @property
    def covariance_FF(self) -> np.ndarray:
        mean_F = self.sum_CF.sum(0) / self.total
        return self.product_FF / self.total - np.outer(mean_F, mean_F)

    @property
    def covariance_within_FF(self) -> np.ndarray:
        """Of the classes around their own means, all classes together."""
        mean_CF = self.sum_CF / np.maximum(self.count_C, 1)[:, None]
        return (self.product_FF - (mean_CF.T * self.count_C) @ mean_CF) / self.total

    def principal_axes(self, count: int) -> np.ndarray:
        """float32 F x count: orthonormal directions in which the features vary most, most first."""
        from scipy.linalg import eigh

        size = len(self.origin_F)
        _, axes = eigh(self.covariance_FF, subset_by_index=[max(0, size - count), size - 1])  # ascending
        return np.ascontiguousarray(axes[:, ::-1]).astype(np.float32)


def sums_by_fold(
    features: Features, labels_N: np.ndarray, folds_N: np.ndarray, num_classes: int, heard: Callable[[int], object]
) -> list[Sums]:
    """The sums of each fold, in one pass."""
    # Near the mean, so that the products lose no digits to it.
    origin_F = np.asarray(features[slice(0, min(_BLOCK, len(features)))], np.float32).mean(0)
    size, folds = len(origin_F), FOLDS
    counts_KC, sums_KCF = np.zeros((folds, num_classes)), np.zeros((folds, num_classes, size))
    products_KFF = np.zeros((folds, size, size), np.float32)
    for rows, block in blocks_of(features, heard):
        centred = block - origin_F
        for fold in range(folds):
            inside = folds_N[rows] == fold
            of_fold, is_class_nC = centred[inside], one_hot(labels_N[rows][inside], num_classes)
            counts_KC[fold] += is_class_nC.sum(0)
            sums_KCF[fold] += is_class_nC.T @ of_fold
            products_KFF[fold] += of_fold.T @ of_fold
    return [Sums(counts_KC[fold], sums_KCF[fold], products_KFF[fold], origin_F) for fold in range(folds)]


def one_hot(labels_n: np.ndarray, num_classes: int) -> np.ndarray:
    return (labels_n[:, None] == np.arange(num_classes)).astype(np.float32)


def sum_of(parts: list[Sums]) -> Sums:
    return Sums(
        np.sum([part.count_C for part in parts], 0),
        np.sum([part.sum_CF for part in parts], 0),
        np.asarray(np.sum([part.product_FF for part in parts], 0, dtype=np.float64)),
        parts[0].origin_F,
    )


def shrunk(covariance_FF: np.ndarray, shrinkage: float = SHRINKAGE) -> np.ndarray:
    """Drawn towards the multiple of the identity that has the same trace: of few images it is no full matrix otherwise."""
    size = len(covariance_FF)
    scale = max(float(np.trace(covariance_FF)) / size, 1e-12)
    drawn = (1 - shrinkage) * covariance_FF
    drawn[np.diag_indices(size)] += shrinkage * scale
    return drawn


@dataclass(frozen=True)
class LinearModel:
    """(features - mean_F) @ weights_FC + bias_C."""

    weights_FC: np.ndarray
    bias_C: np.ndarray
    mean_F: np.ndarray

    def logits(self, features_NF: np.ndarray) -> np.ndarray:
        return (features_NF - self.mean_F) @ self.weights_FC + self.bias_C


def discriminant(sums: Sums, mean_F: np.ndarray, shrinkage: float = SHRINKAGE) -> LinearModel:
    """Linear discriminant analysis: classes are normal distributions with means of their own and one covariance."""
    from scipy.linalg import solve

    mean_CF = sums.sum_CF / np.maximum(sums.count_C, 1)[:, None]
    weights_FC = solve(shrunk(sums.covariance_within_FF, shrinkage), mean_CF.T, assume_a="pos")
    bias_C = np.log(np.maximum(sums.count_C, 1) / sums.total) - 0.5 * (mean_CF.T * weights_FC).sum(0)
    bias_C += (mean_F - sums.origin_F) @ weights_FC
    return LinearModel(weights_FC.astype(np.float32), np.where(sums.count_C > 0, bias_C, NEVER).astype(np.float32), mean_F)
