"""Is a picture like anything the model was trained on? A model answers for every picture; this says when nobody should believe it.

A trained network's features of the images it was trained for lie near a few directions (their principal axes, which the embeddings
have). Those of other pictures do not: the share of a picture's features that lies off these axes tells it apart better than low
confidence, energy, the distance to the nearest training images or to class centres do (bench/familiarity.py has the numbers; the
idea is that of Wang et al., ViM: Out-of-distribution with virtual-logit matching, CVPR 2022). It needs no image but the picture itself.

Written for dev images when a run is described, compared with by `inference`. numpy only.
Shapes: n pictures, N dev images, F features.
"""

import numpy as np

from cifar_tl.evaluation.embeddings import Axes

_SMALLEST = 1e-12


def unlikeness(features_nF: np.ndarray, axes: Axes) -> np.ndarray:
    """float32 n in [0, 1]: the share of the length of features, seen from the mean of train, that no principal axis holds."""
    squares_n = np.maximum(((features_nF.astype(np.float32) - axes.mean_F) ** 2).sum(1), _SMALLEST)
    held_n = ((axes.placed(features_nF) * axes.spread) ** 2).sum(1)
    shares_n: np.ndarray = np.sqrt(np.clip(1 - held_n / squares_n, 0, 1)).astype(np.float32)
    return shares_n


def can_tell(axes: Axes) -> bool:
    """True if features have directions that are no axes; a network with very few features has none."""
    features, components = axes.axes_FD.shape
    return components < features


def familiarity(unlikeness_n: np.ndarray, dev_unlikeness_N: np.ndarray) -> np.ndarray:
    """float64 n: the share of dev images that are at least as unlike the training images as each picture."""
    as_unlike_n = len(dev_unlikeness_N) - np.searchsorted(np.sort(dev_unlikeness_N), unlikeness_n, side="left")
    shares_n: np.ndarray = as_unlike_n / max(1, len(dev_unlikeness_N))
    return shares_n
