"""How well a new head on frozen features would do with all training images, told from a few of them.

A head in closed form (linear discriminant analysis, with the shrinkage that serves best at each size) is cross-validated on a fifth, two
fifths and four fifths of the subset. Errors fall with the number of images, by a factor for each doubling (Hestness et al. 2017, arXiv
1712.00409, find power laws), and here by a little less from one doubling to the next: `_SLOWER`, chosen on CIFAR-100 at 64 and 96 px and held
at other sizes (`python -m bench.advice`).

The images are alike of every class, dev is not: each class counts by its share of dev, and a head that trains on unequal classes learns
which of them are frequent (`Shares`).

Shapes: N images, F features, C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cifar_tl.data.splits import limit_per_class, stratified_folds
from cifar_tl.evaluation.suspicion.linear import FOLDS

_SHRINKAGES = (0.1, 0.3, 0.6, 0.9)
_SIZES = (0.25, 0.5, 1.0)  # of what the folds leave to learn from
_SLOWER = 0.87
_Z = 1.96
_OF_EXTRAPOLATION = 0.2  # standard error of what is extrapolated, as a share of the accuracy it adds
_NEIGHBOURS = 10
_TEMPERATURE = 0.07  # of the vote: Wu et al. 2018, arXiv 1805.01978


@dataclass(frozen=True)
class Expectation:
    """Accuracies as fractions: expected, its 95 % interval, and the vote of the nearest images."""

    expected: float
    low: float
    high: float
    neighbours: float


@dataclass(frozen=True)
class Shares:
    """What part of the images each class is, as C fractions: of those that a head learns from (`learned_C`, alike of all for one that learns from
    balanced classes), and of those that it is measured on."""

    learned_C: np.ndarray
    measured_C: np.ndarray


@dataclass(frozen=True)
class _Subset:
    """`weights_N` sum to 1: how much each image counts in an accuracy. `frequency_C`: times a class is more frequent to the head than it is here."""

    features_NF: np.ndarray
    labels_N: np.ndarray
    folds_N: np.ndarray
    weights_N: np.ndarray
    frequency_C: np.ndarray

    @property
    def num_classes(self) -> int:
        return len(self.frequency_C)

    @property
    def counts_as(self) -> float:
        """How many images of equal weight would tell an accuracy as surely."""
        return float(1 / (self.weights_N**2).sum())


def expect(
    features_NF: np.ndarray, labels_N: np.ndarray, num_classes: int, *, all_images: int, seed: int, shares: Shares | None = None
) -> Expectation:
    """Of a head trained on `all_images`, from the N that are here. float32 features, whatever their scale. Without `shares` the N are as all are."""
    subset = _subset(np.asarray(features_NF, np.float32), labels_N, num_classes, seed, shares)
    learned_from = len(labels_N) * (FOLDS - 1) / FOLDS
    prior_C = np.ones(num_classes) if shares is None else shares.learned_C
    accuracies = [_accuracy(subset, share, prior_C, seed) for share in _SIZES]
    measured, doublings = accuracies[-1], max(0.0, np.log2(all_images / learned_from))
    expected = _extrapolated(accuracies, doublings)
    sampling = np.sqrt(max(measured * (1 - measured), 1e-4) / subset.counts_as)
    half = _Z * float(np.hypot(sampling, _OF_EXTRAPOLATION * (expected - measured)))
    return Expectation(expected, max(0.0, expected - half), min(1.0, expected + half), _vote(subset))


def _subset(features_NF: np.ndarray, labels_N: np.ndarray, num_classes: int, seed: int, shares: Shares | None) -> _Subset:
    folds_N = stratified_folds(labels_N, FOLDS, seed=seed)
    share_C = np.bincount(labels_N, minlength=num_classes) / len(labels_N)
    measured_C, learned_C = (share_C, share_C) if shares is None else (shares.measured_C, shares.learned_C)
    here_C = np.maximum(share_C, 1e-12)
    return _Subset(features_NF, labels_N, folds_N, (measured_C / here_C)[labels_N] / len(labels_N), learned_C / here_C)


def _extrapolated(accuracies: list[float], doublings: float) -> float:
    """`accuracies` at a quarter, half and all of the images; then `doublings` more."""
    errors = [max(1 - accuracy, 1e-3) for accuracy in accuracies]
    first, second = (max(0.0, float(np.log(before / after))) for before, after in pairwise(errors))
    fall = (second + _SLOWER * first) / 2  # of the last doubling, in log error: both tell of it
    whole, rest = int(doublings), doublings - int(doublings)
    falls = [fall * _SLOWER**number for number in range(1, whole + 2)]
    return 1 - errors[-1] * float(np.exp(-(sum(falls[:whole]) + rest * falls[whole])))


def _accuracy(subset: _Subset, share: float, prior_C: np.ndarray, seed: int) -> float:
    """Of images in each fold, by heads that have seen `share` of the others; with the shrinkage that serves best."""
    right = np.zeros(len(_SHRINKAGES))
    labels_N, log_prior_C = subset.labels_N, np.log(np.maximum(prior_C, 1e-12))
    for fold in range(FOLDS):
        seen = _part(labels_N, np.flatnonzero(subset.folds_N != fold), share, seed)
        unseen = np.flatnonzero(subset.folds_N == fold)
        for number, scores_mC in enumerate(
            _scores(subset.features_NF[seen], labels_N[seen], subset.features_NF[unseen], subset.num_classes)
        ):
            right[number] += subset.weights_N[unseen] @ ((scores_mC + log_prior_C).argmax(1) == labels_N[unseen])
    return float(right.max())


def _part(labels_N: np.ndarray, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """About that share of the rows, of every class alike."""
    if share == 1:
        return rows
    per_class = max(1, round(share * len(rows) / max(1, len(np.unique(labels_N[rows])))))
    return rows[limit_per_class(labels_N[rows], np.arange(len(rows)), per_class, seed=seed)]


def _scores(seen_nF: np.ndarray, labels_n: np.ndarray, unseen_mF: np.ndarray, num_classes: int) -> Iterator[np.ndarray]:
    """What each class scores for the unseen, m x C for each shrinkage: log likelihoods but for a constant. By one decomposition: shrinking moves
    eigenvalues only."""
    mean_F = seen_nF.mean(0)
    count_C = np.bincount(labels_n, minlength=num_classes)
    mean_CF = np.zeros((num_classes, seen_nF.shape[1]), np.float32)
    np.add.at(mean_CF, labels_n, seen_nF - mean_F)
    mean_CF /= np.maximum(count_C, 1)[:, None]
    within = seen_nF - mean_F - mean_CF[labels_n]
    # n < F as a rule: the covariance has at most n directions, and all others shrink to the same value.
    _, singular, directions = np.linalg.svd(within, full_matrices=False)
    variances, scale = singular**2 / len(within), float((within**2).sum()) / len(within) / within.shape[1]
    scale = max(scale, 1e-12)
    centred_mF = unseen_mF - mean_F
    means_CK, unseen_mK = mean_CF @ directions.T, centred_mF @ directions.T
    products_mC, squares_C = centred_mF @ mean_CF.T, (mean_CF**2).sum(1)
    for shrinkage in _SHRINKAGES:
        base = 1 / (shrinkage * scale)
        weights_K = 1 / ((1 - shrinkage) * variances + shrinkage * scale) - base
        scores_mC = base * products_mC + (unseen_mK * weights_K) @ means_CK.T
        scores_mC -= 0.5 * (base * squares_C + (means_CK**2) @ weights_K)
        scores_mC[:, count_C == 0] = -np.inf
        yield scores_mC


def _vote(subset: _Subset) -> float:
    """Accuracy of the vote of the nearest images of other folds, by cosine, weighted as in Wu et al. 2018; each speaks for as many as are like it."""
    features_NF, labels_N = subset.features_NF, subset.labels_N
    units_NF = features_NF / np.maximum(np.linalg.norm(features_NF, axis=1, keepdims=True), 1e-12)
    right = 0.0
    for fold in range(FOLDS):
        seen, unseen = np.flatnonzero(subset.folds_N != fold), np.flatnonzero(subset.folds_N == fold)
        likeness_ms = units_NF[unseen] @ units_NF[seen].T
        count = min(_NEIGHBOURS, len(seen))
        nearest_mk = np.argpartition(-likeness_ms, count - 1, axis=1)[:, :count]
        weights_mk = np.exp((np.take_along_axis(likeness_ms, nearest_mk, 1) - 1) / _TEMPERATURE)
        votes_mC = np.zeros((len(unseen), subset.num_classes))
        np.add.at(votes_mC, (np.arange(len(unseen))[:, None], labels_N[seen][nearest_mk]), weights_mk)
        right += float(subset.weights_N[unseen] @ ((votes_mC * subset.frequency_C).argmax(1) == labels_N[unseen]))
    return right
