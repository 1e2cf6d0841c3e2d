"""Placing: where a picture that a run has never seen lies among its embeddings, and how unlike the training images it is.

The principal axes of the training images' features hold what the run's classes differ in. What a picture has beside them is the share
of its feature vector that no training image explains (the residual of Wang et al., ViM: Out-of-Distribution with Virtual-logit
Matching, CVPR 2022). Against images that are no CIFAR-100 class it tells more than the probability of the likeliest class, the energy, or the
distance to the nearest training images do (`python -m bench.familiarity`), and takes a product with one small matrix.

Kept in evaluation/embeddings.npz. numpy only. Shapes: n pictures, F features, D axes, Q quantiles.
"""

from dataclasses import dataclass

import numpy as np

QUANTILES = 1001
_FEWEST = 50  # dev images, below which "as unlike as one in twenty of them" says nothing
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Placing:
    """mean_F, axes_FD: float32, the axes of length 1. `spread`: root of the training features' variance, the embeddings' unit.

    residuals_Q: float32, ascending quantiles of the dev images' residuals; none where dev is too small to compare with.
    """

    mean_F: np.ndarray
    axes_FD: np.ndarray
    spread: float
    residuals_Q: np.ndarray

    def placed(self, features_nF: np.ndarray) -> np.ndarray:
        """float32 n x D: embeddings, in the coordinates and the unit of those in the file."""
        vectors_nD: np.ndarray = (features_nF.astype(np.float32) - self.mean_F) @ self.axes_FD
        return vectors_nD / np.float32(self.spread)

    def residuals(self, features_nF: np.ndarray) -> np.ndarray:
        """float32 n in [0, 1]: how much of each feature vector, seen from the mean, lies off the axes."""
        centred_nF = features_nF.astype(np.float32) - self.mean_F
        whole_n = np.square(centred_nF).sum(1)
        explained_n = np.square(centred_nF @ self.axes_FD).sum(1)
        return np.sqrt(np.clip(1 - explained_n / np.maximum(whole_n, _SMALLEST), 0, 1))

    def familiarities(self, features_nF: np.ndarray) -> np.ndarray | None:
        """float32 n: the share of dev images whose residual is at least as large; None where there are none to compare with."""
        if not len(self.residuals_Q):
            return None
        below_n = np.searchsorted(self.residuals_Q, self.residuals(features_nF), side="left")
        return (1 - below_n / len(self.residuals_Q)).astype(np.float32)

    def compared_with(self, dev_features_NF: np.ndarray) -> "Placing":
        """The same, with the residuals of these dev images to compare with."""
        num_features, num_axes = self.axes_FD.shape
        if len(dev_features_NF) < _FEWEST or num_axes >= num_features:  # axes that hold everything leave nothing beside them
            return self
        residuals_Q = np.quantile(self.residuals(dev_features_NF), np.linspace(0, 1, QUANTILES)).astype(np.float32)
        return Placing(self.mean_F, self.axes_FD, self.spread, residuals_Q)
