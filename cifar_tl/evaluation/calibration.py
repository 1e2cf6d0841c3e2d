"""How sure a model is against how often it is right: reliability, its expected error, and the temperature that mends it.

Pure functions on arrays: numpy only, no files, no torch, no Streamlit. Called by the Trust and Classes views of Explore.
N images, C classes, B bins. Confidence is the probability of the predicted class; shares are fractions in [0, 1].
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cifar_tl.evaluation.analysis import Proportion
from cifar_tl.evaluation.arrays import Evaluation

BINS = 15  # as Guo et al., On calibration of modern neural networks, ICML 2017
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0
# One number is fitted, so more images change it by less than is shown, and take seconds at 1,000 classes.
MOST_FITTED = 10_000
# A class has few images: with fewer than this in a bin, its error would be chance and nothing else.
_FEWEST_IN_CLASS_BIN = 30
# Half of float16's smallest number: what a probability that was rounded to zero may have been at most.
_SMALLEST_PROBABILITY = 2.0**-25
_CHUNK = 1 << 20  # probabilities at a time: 4 MB for each of a few arrays
_NEWTON_STEPS = 60
_NEWTON_TOLERANCE = 1e-6
# Of the normal distribution, for intervals that hold the truth 95 times in 100.
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Reliability:
    """Images in bins by confidence. Bin b holds (edges[b], edges[b + 1]], the first also its lower edge; bins may be empty.

    counts_B            int64     images
    hits_B              int64     those that were predicted right
    confidence_sums_B   float64   sum of their confidences
    squared_gaps_B      float64   sum of (right - confidence)^2, with right 0 or 1
    chance_variances_B  float64   sum of confidence (1 - confidence): the variance of the hits if confidence were exact
    """

    edges: np.ndarray
    counts_B: np.ndarray
    hits_B: np.ndarray
    confidence_sums_B: np.ndarray
    squared_gaps_B: np.ndarray
    chance_variances_B: np.ndarray

    @property
    def total(self) -> int:
        return int(self.counts_B.sum())

    @property
    def accuracies_B(self) -> np.ndarray:
        """nan where a bin is empty."""
        return _divided(self.hits_B, self.counts_B)

    @property
    def mean_confidences_B(self) -> np.ndarray:
        """nan where a bin is empty."""
        return _divided(self.confidence_sums_B, self.counts_B)

    @property
    def mean_confidence(self) -> float:
        return float(self.confidence_sums_B.sum()) / self.total if self.total else math.nan

    @property
    def accuracy(self) -> Proportion:
        return Proportion(int(self.hits_B.sum()), self.total)

    @property
    def excess(self) -> float:
        """How much surer than right, on average: mean confidence minus accuracy; below 0 if it is not sure enough."""
        return self.mean_confidence - self.accuracy.fraction

    @property
    def excess_interval(self) -> tuple[float, float]:
        """Of `excess`, 95 %, from the spread of confidence minus right over the images (the central limit theorem)."""
        if not self.total:
            return (-1.0, 1.0)
        variance = max(0.0, float(self.squared_gaps_B.sum()) / self.total - self.excess**2)
        half = _Z_95 * math.sqrt(variance / self.total)
        return (self.excess - half, self.excess + half)

    @property
    def expected_error(self) -> float:
        """Expected calibration error: |accuracy - mean confidence| of each bin, weighted by its images.

        Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
        """
        return float(np.abs(self.hits_B - self.confidence_sums_B).sum()) / self.total if self.total else math.nan

    @property
    def error_by_chance(self) -> float:
        """The error that as many images show on average when confidence is exact: it is never 0, as chance moves every bin."""
        return float(np.sqrt(2 / math.pi * self.chance_variances_B).sum()) / self.total if self.total else math.nan

    @property
    def error_interval(self) -> tuple[float, float]:
        """Of `expected_error`, about 95 %: in simulations of 200 to 10,000 images it held the truth 91 to 98 times in 100.

        Bins are taken as normal. Chance can only add to a sum of absolute values: what it adds is taken off (the mean of a folded
        normal), and the lower end is 0 if exact confidence would show as much in one of 40 samples. The variance of an absolute
        value is at most that of the value itself.
        """
        if not self.total:
            return (0.0, 1.0)
        gaps_B = np.abs(self.hits_B - self.confidence_sums_B)
        variances_B = np.maximum(0, self.squared_gaps_B - gaps_B**2 / np.maximum(self.counts_B, 1))
        expected_B = [_folded_normal_mean(gap, math.sqrt(variance)) for gap, variance in zip(gaps_B, variances_B, strict=True)]
        without_chance = 2 * self.expected_error - sum(expected_B) / self.total
        half = _Z_95 * math.sqrt(variances_B.sum()) / self.total
        half_by_chance = _Z_95 * math.sqrt((1 - 2 / math.pi) * self.chance_variances_B.sum()) / self.total
        may_be_exact = self.expected_error <= self.error_by_chance + half_by_chance
        low = 0.0 if may_be_exact else max(0.0, without_chance - half)
        return (low, min(1.0, max(self.expected_error, without_chance + half)))


def reliability(confidences_N: np.ndarray, is_right_N: np.ndarray, *, bins: int = BINS, equal_mass: bool = False) -> Reliability:
    """Sort images into bins of equal width, or of about equally many images (equal confidences stay together, so bins may be fewer)."""
    confidences_N = np.asarray(confidences_N, np.float64)
    edges = _edges_of_equal_mass(confidences_N, bins) if equal_mass and len(confidences_N) else np.linspace(0, 1, bins + 1)
    bin_N = np.searchsorted(edges[1:-1], confidences_N)

    def sums(values_N: np.ndarray) -> np.ndarray:
        return np.bincount(bin_N, weights=values_N, minlength=len(edges) - 1)

    return Reliability(
        edges=edges,
        counts_B=np.bincount(bin_N, minlength=len(edges) - 1),
        hits_B=sums(is_right_N).astype(np.int64),
        confidence_sums_B=sums(confidences_N),
        squared_gaps_B=sums((is_right_N - confidences_N) ** 2),
        chance_variances_B=sums(confidences_N * (1 - confidences_N)),
    )


def _edges_of_equal_mass(confidences_N: np.ndarray, bins: int) -> np.ndarray:
    upper = np.quantile(confidences_N, np.arange(1, bins + 1) / bins, method="inverted_cdf")
    return np.append(confidences_N.min(), np.unique(upper))


@dataclass(frozen=True)
class Scores:
    """What probabilities at one temperature are worth. `nll` in nats; `brier` from 0 to 2, summed over classes (Brier 1950)."""

    confidences_N: np.ndarray
    nll: float
    brier: float


def scores(evaluation: Evaluation, temperature: float = 1.0) -> Scores:
    """Confidences (float32), mean negative log likelihood and Brier score after dividing the logits by `temperature`."""
    confidences, nll, brier = [], 0.0, 0.0
    for rows in _chunks(len(evaluation), evaluation.num_classes):
        probabilities_NC = apply_temperature(evaluation.probabilities_NC[rows], temperature)
        every = np.arange(len(probabilities_NC))
        of_label_N = probabilities_NC[every, evaluation.labels_N[rows]].astype(np.float64)
        confidences.append(probabilities_NC[every, evaluation.predictions_N[rows]])
        nll -= float(np.log(np.maximum(of_label_N, np.finfo(np.float32).tiny)).sum())
        brier += float(np.square(probabilities_NC).sum(dtype=np.float64) + (1 - 2 * of_label_N).sum())
    count = max(1, len(evaluation))
    return Scores(np.concatenate([np.empty(0, np.float32), *confidences]), nll / count, brier / count)


def apply_temperature(probabilities_NC: np.ndarray, temperature: float) -> np.ndarray:
    """float32 probabilities after dividing the logits by `temperature`; above 1 it makes the model less sure. The ranking stays."""
    return _softmax(_logs(probabilities_NC) / np.float32(temperature))


def fit_temperature(evaluation: Evaluation) -> float:
    """The temperature with the smallest negative log likelihood, between LOWEST_ and HIGHEST_TEMPERATURE (Guo et al. 2017).

    To be fitted on dev, never on test; of more than MOST_FITTED images on as many, evenly spaced. In 1 / temperature the likelihood
    is convex, so Newton's method finds the one minimum, inside a bracket that is halved where a step would leave it.
    """
    rows = np.linspace(0, len(evaluation) - 1, min(len(evaluation), MOST_FITTED)).astype(np.int64)
    chunks = [
        (_logs(evaluation.probabilities_NC[rows[chunk]]), evaluation.labels_N[rows[chunk]])
        for chunk in _chunks(len(rows), evaluation.num_classes)
    ]
    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    at_low, at_high = _slope(chunks, low)[0], _slope(chunks, high)[0]
    if at_low >= 0 or at_high <= 0:
        return 1.0 if at_low == at_high else HIGHEST_TEMPERATURE if at_low >= 0 else LOWEST_TEMPERATURE
    inverse = 1.0
    for _ in range(_NEWTON_STEPS):
        slope, curvature = _slope(chunks, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        target = inverse - slope / curvature if curvature > 0 else low
        if not low < target < high:
            target = (low + high) / 2
        step, inverse = abs(target - inverse), target
        if step < _NEWTON_TOLERANCE * inverse:
            break
    return 1 / inverse


def _slope(chunks: list[tuple[np.ndarray, np.ndarray]], inverse: float) -> tuple[float, float]:
    """First and second derivative of the summed negative log likelihood by 1 / temperature."""
    slope = curvature = 0.0
    for logits_NC, labels_N in chunks:
        probabilities_NC = _softmax(np.float32(inverse) * logits_NC)
        mean_N = (probabilities_NC * logits_NC).sum(1)
        of_label_N = logits_NC[np.arange(len(labels_N)), labels_N]
        slope += float((mean_N - of_label_N).sum(dtype=np.float64))
        curvature += float((probabilities_NC * np.square(logits_NC - mean_N[:, None])).sum(dtype=np.float64))
    return slope, curvature


def _chunks(count: int, num_classes: int) -> Iterator[slice]:
    """Rows, few enough at a time that their probabilities take little memory."""
    rows = max(1, _CHUNK // num_classes)
    return (slice(start, start + rows) for start in range(0, count, rows))


def _logs(probabilities_NC: np.ndarray) -> np.ndarray:
    """float32 logits: the logarithms of probabilities are logits up to a constant of each row, which a softmax does not see."""
    return np.log(np.maximum(probabilities_NC.astype(np.float32), np.float32(_SMALLEST_PROBABILITY)))


def _softmax(logits_NC: np.ndarray) -> np.ndarray:
    exponentials_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return exponentials_NC / exponentials_NC.sum(1, keepdims=True)


@dataclass(frozen=True)
class ClassCalibration:
    """Of the images taken for one class, how sure the model was and how often it was right; nan if there are none.

    `error` is their expected calibration error in bins of about equally many images, at least 30: with fewer than 60 images there is
    one bin, and it is the distance of mean confidence and precision.
    """

    index: int
    precision: Proportion
    mean_confidence: float
    error: float

    @property
    def excess(self) -> float:
        """How much surer than right the model was; below 0 if it was right more often than it was sure."""
        return self.mean_confidence - self.precision.fraction


def class_calibration(evaluation: Evaluation) -> list[ClassCalibration]:
    """Of every class, in the order of the classes."""
    predictions_N, confidences_N = evaluation.predictions_N, evaluation.confidences_N
    is_right_N = predictions_N == evaluation.labels_N
    ends_C = np.cumsum(np.bincount(predictions_N, minlength=evaluation.num_classes))
    groups = np.split(np.argsort(predictions_N, kind="stable"), ends_C[:-1])
    found = []
    for index, taken in enumerate(groups):
        bins = min(BINS, max(1, len(taken) // _FEWEST_IN_CLASS_BIN))
        binned = reliability(confidences_N[taken], is_right_N[taken], bins=bins, equal_mass=True)
        found.append(ClassCalibration(index, binned.accuracy, binned.mean_confidence, binned.expected_error))
    return found


def _divided(sums_B: np.ndarray, counts_B: np.ndarray) -> np.ndarray:
    return np.divide(sums_B, counts_B, out=np.full(len(counts_B), np.nan), where=counts_B > 0)


def _folded_normal_mean(mean: float, deviation: float) -> float:
    """Of |X| for a normal X (Leone, Nelson and Nottingham, Technometrics 3, 1961)."""
    if deviation == 0:
        return abs(mean)
    z = mean / deviation
    return deviation * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + mean * math.erf(z / math.sqrt(2))
