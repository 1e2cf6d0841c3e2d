"""Which rows of a store a run trains on, watches and is tested on.

Owns the stratified train / dev split, class selection and few-shot limits. All are functions of labels and seed alone, so
two runs with the same seed see the same dev images whatever else differs. Corrections come after: they change the labels of rows and
leave rows out, and move none between train and dev. Reads no pixels.

Rows are positions within one split of the store; N images, C classes, S superclasses.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cifar_tl.data.corrections import Corrections
from cifar_tl.data.store import ImageStore
from cifar_tl.errors import SettingsError, SourceInvalid

DEV_FRACTION = 0.1


@dataclass(frozen=True)
class SplitRows:
    """Rows of `store[store_split]`, int64 ascending, and the run's labels of those rows, int64 0..C-1."""

    store_split: str
    rows: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class RunSplits:
    """What a run sees of a store. Classes and superclasses keep the store's order; superclasses without a class are gone."""

    train: SplitRows
    dev: SplitRows
    test: SplitRows
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...]
    superclass_of_class: tuple[int, ...]


def run_splits(
    store: ImageStore, *, classes: Sequence[str], images_per_class: int | None, seed: int, corrections: Corrections | None = None
) -> RunSplits:
    """`classes` empty means all; `images_per_class` limits training only. Raises SettingsError, SourceInvalid.

    Dev is the store's own where it brings one, else a tenth of its train split. `corrections` act on that split alone.
    """
    chosen = select_classes(store.info.class_names, classes)
    labels_N = store["train"].labels_N
    corrected_N, is_kept_N = (corrections or Corrections()).apply(labels_N, store.info.class_names)
    if "dev" in store:
        train_rows = np.arange(len(labels_N))
        dev = _rows_of_classes("dev", store["dev"].labels_N, np.arange(len(store["dev"])), chosen)
    else:
        train_rows, dev_rows = train_dev_split(labels_N, seed=seed)
        dev = _rows_of_classes("train", corrected_N, dev_rows[is_kept_N[dev_rows]], chosen)
    if images_per_class is not None:
        train_rows = limit_per_class(labels_N, train_rows, images_per_class, seed=seed)
    train = _rows_of_classes("train", corrected_N, train_rows[is_kept_N[train_rows]], chosen)
    test = _rows_of_classes("test", store["test"].labels_N, np.arange(len(store["test"])), chosen)
    for name, rows in (("train", train), ("dev", dev), ("test", test)):
        if len(rows) == 0:
            raise SourceInvalid(f"{store.info.title} has no {name} images of the chosen classes. Choose more classes or add images.")
    superclass_names, superclass_of_class = _superclasses(store, chosen)
    class_names = tuple(store.info.class_names[index] for index in chosen)
    return RunSplits(train, dev, test, class_names, superclass_names, superclass_of_class)


def train_dev_split(labels_N: np.ndarray, *, seed: int, dev_fraction: float = DEV_FRACTION) -> tuple[np.ndarray, np.ndarray]:
    """Ascending int64 (train, dev) indices; of each class `dev_fraction`, rounded, but at least one image on either side.

    The only image of a class goes to train.
    """
    rank_N, size_N = _rank_within_class(labels_N, seed)
    wanted_N = np.floor(size_N * dev_fraction + 0.5).astype(np.int64)
    is_dev = rank_N < np.minimum(np.maximum(wanted_N, 1), size_N - 1)
    return np.flatnonzero(~is_dev), np.flatnonzero(is_dev)


def stratified_folds(labels_N: np.ndarray, folds: int, *, seed: int) -> np.ndarray:
    """int64 N: a fold of 0..folds-1 for each image, every class spread over them as evenly as its size allows."""
    rank_N, _ = _rank_within_class(labels_N, seed)
    return (rank_N + np.asarray(labels_N, np.int64)) % folds


def limit_per_class(labels_N: np.ndarray, indices: np.ndarray, images_per_class: int, *, seed: int) -> np.ndarray:
    """At most `images_per_class` of `indices` (into `labels_N`) per class, ascending. A smaller limit gives a subset of a larger one's."""
    indices = np.sort(np.asarray(indices, np.int64))
    rank_N, _ = _rank_within_class(labels_N[indices], seed)
    return indices[rank_N < images_per_class]


def select_classes(class_names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """int64 class indices, ascending; all of them if `wanted` is empty. Raises SettingsError for unknown names."""
    unknown = [name for name in wanted if name not in class_names]
    if unknown:
        hints = [f"{name!r}{_hint(name, class_names)}" for name in unknown]
        raise SettingsError(f"This data set has no class {', '.join(hints)}. It has {len(class_names)}: {_shortened(class_names)}.")
    return np.flatnonzero(np.isin(np.asarray(class_names), list(wanted))) if wanted else np.arange(len(class_names))


def _rank_within_class(labels_N: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random rank of each image among those of its class, 0 first, and the size of that class."""
    labels_N = np.asarray(labels_N, np.int64)
    # Sorting random doubles instead of Generator.permutation, whose algorithm numpy may change between versions.
    keys_N = np.random.Generator(np.random.PCG64(seed)).random(len(labels_N))
    order = np.lexsort((keys_N, labels_N))
    size_C = np.bincount(labels_N)
    first_C = np.cumsum(size_C) - size_C
    rank_N = np.empty(len(labels_N), np.int64)
    rank_N[order] = np.arange(len(labels_N)) - first_C[labels_N[order]]
    return rank_N, size_C[labels_N]


def _rows_of_classes(store_split: str, labels_N: np.ndarray, rows: np.ndarray, chosen: np.ndarray) -> SplitRows:
    """Those of `rows` whose class is chosen, ascending, with labels counted within the chosen classes."""
    kept = np.sort(rows[np.isin(labels_N[rows], chosen)]).astype(np.int64)
    return SplitRows(store_split, kept, np.searchsorted(chosen, labels_N[kept]).astype(np.int64))


def _superclasses(store: ImageStore, chosen: np.ndarray) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if not store.info.superclass_names:
        return (), ()
    old = np.asarray(store.info.superclass_of_class)[chosen]
    used, new = np.unique(old, return_inverse=True)
    return tuple(store.info.superclass_names[index] for index in used), tuple(int(index) for index in new)


def _hint(name: str, class_names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, class_names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _shortened(names: Sequence[str], limit: int = 20) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
