"""Each image's nearest neighbours among the features of all, and the images that have none near: outliers.

Distances are between directions: features less their mean, along the axes in which they vary most, scaled to length 1. They lie
between 0 and 2. Blocks of images are compared with all of them, so memory does not grow with the data; time grows with its square.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DIMENSIONS = 64  # twice as many find the same duplicates in twice the time
NEIGHBOURS = 10
MOST_OUTLIERS = 1000
_OUTLIER_SHARE = 0.01
_BLOCK = 2048


def directions(features_NF: np.ndarray, mean_F: np.ndarray, axes_FD: np.ndarray) -> np.ndarray:
    """float32 N x D, of length 1."""
    projected = (features_NF - mean_F) @ axes_FD
    return projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Neighbours:
    """float32 distances and int64 positions of each image's nearest ones, nearest first, itself left out. N images, k neighbours."""

    distances_Nk: np.ndarray
    positions_Nk: np.ndarray


def nearest_neighbours(points_ND: np.ndarray, heard: Callable[[int], object], k: int = NEIGHBOURS) -> Neighbours:
    """Exact. `heard(n)` is told of n more images done."""
    from sklearn.neighbors import NearestNeighbors

    count = len(points_ND)
    k = min(k, count - 1)
    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute", metric="euclidean").fit(points_ND)
    distances, positions = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        found_distances, found = search.kneighbors(points_ND[rows])
        # An image that is there more often than k times may not find itself: then the last one goes.
        order = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, :k]
        distances[rows] = np.take_along_axis(found_distances, order, 1)
        positions[rows] = np.take_along_axis(found, order, 1)
        heard(len(rows))
    return Neighbours(distances, positions)


def strangest(neighbours: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """(positions, strangeness) of the one in a hundred images that are furthest from their neighbours, the furthest first.

    Strangeness is the mean distance to the neighbours over that of the middle image (Kuan and Mueller 2022, arXiv 2207.03061,
    on why so simple a score does well on pretrained features).
    """
    distance_N = neighbours.distances_Nk.mean(1)
    count = min(MOST_OUTLIERS, -(-len(distance_N) * _OUTLIER_SHARE // 1))
    order = np.argsort(-distance_N, kind="stable")[: int(count)]
    return order, (distance_N[order] / max(float(np.median(distance_N)), 1e-12)).astype(np.float32)
