"""Embeddings: what images look like to a trained network, and where the embedding map puts them.

Written after a run by `evaluation.describe` and `evaluation.embedding_map`, read by the Explore page. numpy only.

    evaluation/embeddings.npz    of train, dev and test images: the principal components of the network's pooled features
    evaluation/map.npz           of test and a sample of train images: a point of the plane

Both hold, for each split, `<split>.vectors_ND`, `.labels_N`, `.rows_N` and `.store_split`. The first also holds `axes.mean_F`,
`axes.axes_FD` and `axes.spread`, which place a new picture among these images, and `dev_unlikeness_N` (`evaluation.familiarity`); files
of older versions do not.
Images are compared by the angle between their embeddings, seen from the mean of train: what a feature's length tells is how sure
the network is, and neighbours by angle share a class more often than neighbours by distance.
Shapes: N images, F features, D <= 64 components (2 in a map), C classes; n queries, k neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.arrays import load_evaluation, save_arrays
from cifar_tl.paths import RunFolder

MOST_COMPONENTS = 64
PCA, TSNE = "PCA", "t-SNE"  # how a map was made
LEAST_FOR_TSNE = 100  # images; a map of fewer shows chance
_ROWS_AT_ONCE = 4096  # of features, as float32: 20 MB of 1,280
_QUERIES_AT_ONCE = 64  # similarities to 50,000 images: 13 MB
_SMALLEST = 1e-12
_ARRAYS = ("vectors_ND", "labels_N", "rows_N")
_AXES = ("mean_F", "axes_FD", "spread")
_FACTS, _MAY_MISS = ("variance_kept",), (*(f"axes.{name}" for name in _AXES), "dev_unlikeness_N")


@dataclass(frozen=True)
class SplitVectors:
    """One vector for each of N images of a split.

    vectors_ND  float16 components, or float32 points of a map
    labels_N    int32    the run's label
    rows_N      int64    row of each image in split `store_split` of the image store
    """

    vectors_ND: np.ndarray
    labels_N: np.ndarray
    rows_N: np.ndarray
    store_split: str

    def __len__(self) -> int:
        return len(self.rows_N)

    @cached_property
    def directions_ND(self) -> np.ndarray:
        """float32: the vectors, scaled to length 1."""
        return _directions(self.vectors_ND)

    def positions_of(self, rows_n: np.ndarray) -> np.ndarray:
        """int64: where the images of these rows are, -1 for those that are not here."""
        if not len(self):
            return np.full(len(rows_n), -1, np.int64)
        order = np.argsort(self.rows_N, kind="stable")
        found = order[np.minimum(np.searchsorted(self.rows_N, rows_n, sorter=order), len(order) - 1)]
        return np.where(self.rows_N[found] == rows_n, found, -1)

    def taken(self, positions_n: np.ndarray) -> "SplitVectors":
        """Only these images, in this order."""
        return SplitVectors(self.vectors_ND[positions_n], self.labels_N[positions_n], self.rows_N[positions_n], self.store_split)


@dataclass(frozen=True)
class Axes:
    """How features become embeddings: mean_F float32, axes_FD float16 (the principal axes of train, each of length 1), and their unit."""

    mean_F: np.ndarray
    axes_FD: np.ndarray
    spread: float

    def placed(self, features_nF: np.ndarray) -> np.ndarray:
        """float32 n x D: the embeddings of pooled features."""
        placed_nD: np.ndarray = (features_nF.astype(np.float32) - self.mean_F) @ self.axes_FD.astype(np.float32)
        return placed_nD / np.float32(self.spread)


@dataclass(frozen=True)
class Embeddings:
    """Of each split: the principal components of features, fitted on train, in units in which train vectors have length 1 on average.

    `variance_kept` is the share of train's variance that the components hold. `dev_unlikeness_N` float32: how unlike the training images
    each dev image is. None in files of older versions: `axes`, `dev_unlikeness_N`.
    """

    splits: Mapping[str, SplitVectors]
    variance_kept: float
    axes: Axes | None = None
    dev_unlikeness_N: np.ndarray | None = None

    def nearest(self, vectors_nD: np.ndarray, k: int, *, among: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """(positions_nk int64, similarities_nk float32) of the k images of `among` most alike, most alike first. Cosines, in [-1, 1]."""
        return _most_alike(_directions(vectors_nD), self.splits[among].directions_ND, k)

    def neighbours(self, split: str, positions_n: np.ndarray, k: int, *, among: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """The same for images that are here themselves; none is its own neighbour."""
        of = self.splits[split]
        others = among != split
        return _most_alike(of.directions_ND[positions_n], self.splits[among].directions_ND, k, None if others else positions_n)

    def class_centres(self, num_classes: int) -> np.ndarray:
        """float32 C x D: the mean embedding of each class over train; nan for a class without images."""
        train = self.splits["train"]
        sums_CD = np.zeros((num_classes, train.vectors_ND.shape[1]), np.float32)
        np.add.at(sums_CD, train.labels_N, train.vectors_ND.astype(np.float32))
        counts_C = np.bincount(train.labels_N, minlength=num_classes).astype(np.float32)
        counts_C[counts_C == 0] = np.nan
        return sums_CD / counts_C[:, None]

    def nearest_classes(self, index: int, num_classes: int, k: int) -> list[tuple[int, float]]:
        """The k classes whose centres are most alike that of class `index`, most alike first, with the cosine; classes without images are none."""
        directions_CD = _directions(self.class_centres(num_classes))
        similarities_C = directions_CD @ directions_CD[index]
        order = [int(i) for i in np.argsort(-similarities_C, kind="stable") if i != index and not np.isnan(similarities_C[i])]
        return [(i, float(similarities_C[i])) for i in order[:k]]


@dataclass(frozen=True)
class EmbeddingMap:
    """The embedding map: `vectors_ND` of each split are points of the plane. `method` is PCA or TSNE."""

    method: str
    splits: Mapping[str, SplitVectors]

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))


def reduced(features: Mapping[str, SplitVectors], most: int = MOST_COMPONENTS) -> Embeddings:
    """Embeddings of what the network gave: `vectors_ND` of each split are all F features. The components are those of train."""
    mean_F, axes_FD, variance_kept, spread = _principal_axes(features["train"].vectors_ND, most)
    axes = Axes(mean_F, axes_FD.astype(np.float16), spread)
    splits = {
        name: SplitVectors(_projected(split.vectors_ND, axes), split.labels_N, split.rows_N, split.store_split)
        for name, split in features.items()
    }
    return Embeddings(splits, variance_kept, axes)


def _principal_axes(vectors_NF: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    """(mean, axes F x D by falling variance, share of the variance on them, root of the whole variance)."""
    mean_F = vectors_NF.mean(0, dtype=np.float64).astype(np.float32)
    scatter_FF = np.zeros((len(mean_F), len(mean_F)), np.float32)
    for start in range(0, len(vectors_NF), _ROWS_AT_ONCE):
        centred = vectors_NF[start : start + _ROWS_AT_ONCE].astype(np.float32) - mean_F
        scatter_FF += centred.T @ centred
    values_F, axes_FF = np.linalg.eigh(scatter_FF)  # ascending
    count = min(most, len(mean_F), len(vectors_NF))
    axes_FD = axes_FF[:, ::-1][:, :count]
    axes_FD = axes_FD * np.where(np.take_along_axis(axes_FD, np.abs(axes_FD).argmax(0)[None], 0) < 0, -1, 1)  # the sign is arbitrary
    total = max(float(values_F.sum()), _SMALLEST)
    return mean_F, axes_FD, float(values_F[::-1][:count].sum()) / total, max((total / len(vectors_NF)) ** 0.5, _SMALLEST)


def _projected(vectors_NF: np.ndarray, axes: Axes) -> np.ndarray:
    projected_ND = np.empty((len(vectors_NF), axes.axes_FD.shape[1]), np.float16)
    for start in range(0, len(vectors_NF), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        projected_ND[rows] = axes.placed(vectors_NF[rows])
    return projected_ND


def _directions(vectors_nD: np.ndarray) -> np.ndarray:
    vectors_nD = vectors_nD.astype(np.float32)
    return vectors_nD / np.maximum(np.linalg.norm(vectors_nD, axis=1, keepdims=True), _SMALLEST)


def _most_alike(
    queries_nD: np.ndarray, directions_ND: np.ndarray, k: int, themselves_n: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    k = max(0, min(k, len(directions_ND) - (themselves_n is not None)))
    positions_nk, similarities_nk = np.empty((len(queries_nD), k), np.int64), np.empty((len(queries_nD), k), np.float32)
    for start in range(0, len(queries_nD) if k else 0, _QUERIES_AT_ONCE):
        block = slice(start, start + _QUERIES_AT_ONCE)
        similarities_qN = queries_nD[block] @ directions_ND.T
        if themselves_n is not None:
            np.put_along_axis(similarities_qN, themselves_n[block, None], -np.inf, axis=1)
        found = np.argpartition(-similarities_qN, k - 1, axis=1)[:, :k]
        best = np.take_along_axis(similarities_qN, found, axis=1)
        order = np.lexsort((found, -best), axis=1)
        positions_nk[block] = np.take_along_axis(found, order, axis=1)
        similarities_nk[block] = np.take_along_axis(best, order, axis=1)
    return positions_nk, similarities_nk


def save_embeddings(path: Path, embeddings: Embeddings, *, compressed: bool = False) -> None:
    """Write whole or not at all."""
    arrays = {"variance_kept": np.array(embeddings.variance_kept)} | _flat(embeddings.splits)
    if embeddings.axes is not None:
        arrays |= {f"axes.{name}": np.asarray(getattr(embeddings.axes, name)) for name in _AXES}
    if embeddings.dev_unlikeness_N is not None:
        arrays["dev_unlikeness_N"] = embeddings.dev_unlikeness_N
    save_arrays(path, arrays, compressed=compressed)


def load_embeddings(path: Path) -> Embeddings:
    """Raises FileNotFoundError if there are none, RunInvalid if the file is damaged."""
    facts, splits = _load(path, _FACTS, _MAY_MISS)
    axes = None
    if "axes.spread" in facts:
        axes = Axes(facts["axes.mean_F"], facts["axes.axes_FD"], float(facts["axes.spread"]))
    return Embeddings(splits, float(facts["variance_kept"]), axes, facts.get("dev_unlikeness_N"))


def save_map(path: Path, drawn: EmbeddingMap, *, compressed: bool = False) -> None:
    """Write whole or not at all."""
    save_arrays(path, {"method": np.array(drawn.method)} | _flat(drawn.splits), compressed=compressed)


def load_map(path: Path) -> EmbeddingMap:
    """Raises FileNotFoundError if there is none, RunInvalid if it is damaged."""
    facts, splits = _load(path, ("method",))
    return EmbeddingMap(str(facts["method"]), splits)


def _flat(splits: Mapping[str, SplitVectors]) -> dict[str, np.ndarray]:
    arrays = {f"{name}.{array}": getattr(split, array) for name, split in splits.items() for array in _ARRAYS}
    return arrays | {f"{name}.store_split": np.array(split.store_split) for name, split in splits.items()}


def _load(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> tuple[dict[str, np.ndarray], dict[str, SplitVectors]]:
    """The arrays of these names, and the splits."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = [name.removesuffix(".rows_N") for name in file.files if name.endswith(".rows_N")]
            splits = {
                name: SplitVectors(**{array: file[f"{name}.{array}"] for array in _ARRAYS}, store_split=str(file[f"{name}.store_split"]))
                for name in names
            }
            facts = {name: file[name] for name in (*needed, *(name for name in optional if name in file.files))}
            _check(splits, facts)
            return facts, splits
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
        raise RunInvalid(
            f"The file {path} is damaged. Delete it, then make it again: python -m cifar_tl describe {path.parent.parent.name}"
        ) from error


def _check(splits: Mapping[str, SplitVectors], facts: Mapping[str, np.ndarray]) -> None:
    if "test" not in splits:
        raise ValueError("no test images")
    for split in splits.values():
        if split.vectors_ND.ndim != 2 or not len(split.vectors_ND) == len(split.labels_N) == len(split.rows_N):
            raise ValueError("arrays that do not belong together")
    if "axes.spread" in facts and facts["axes.axes_FD"].shape != (len(facts["axes.mean_F"]), splits["test"].vectors_ND.shape[1]):
        raise ValueError("axes that are not of these embeddings")


def is_described(folder: RunFolder) -> bool:
    """True if answers for train, embeddings and at least a first map are there and can be read."""
    try:
        load_evaluation(folder.evaluation_of("train"))
        load_embeddings(folder.embeddings)
        load_map(folder.embedding_map)
    except (FileNotFoundError, RunInvalid):
        return False
    return True


def forget_description(folder: RunFolder) -> None:
    """Remove what described earlier weights of this run."""
    for path in (folder.evaluation_of("train"), folder.embeddings, folder.embedding_map):
        path.unlink(missing_ok=True)
