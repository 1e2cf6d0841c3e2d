"""Suspicion: what an audit found, as dataclasses and as one .npz file; and the key under which it is kept.

Written by `evaluation.audit`, read by the Explore page. Positions in a data set are (split, row): an index into `SPLITS` and a row
of that split of the image store. Classes are counted within the chosen ones, as a run counts them. No pickle is ever read.
"""

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cifar_tl.config import BUNDLED_BACKBONE, RunConfig, make_config
from cifar_tl.errors import DataError

SPLITS = ("train", "dev", "test")
TRAIN, DEV, TEST = range(3)
_LAYOUT = 1  # of the file and of what it is made with; raised when either changes, so that older ones are not read


@dataclass(frozen=True)
class LabelIssues:
    """Images whose label is doubted, split by split, the most doubtful first. n of them.

    Probabilities, float32, are those of a model that has not seen the image: of the given label, and of the one it suggests.
    """

    split_n: np.ndarray
    row_n: np.ndarray
    given_n: np.ndarray
    suggested_n: np.ndarray
    given_probability_n: np.ndarray
    suggested_probability_n: np.ndarray

    def __len__(self) -> int:
        return len(self.row_n)


@dataclass(frozen=True)
class Duplicates:
    """Pairs of images that show the same, equal ones first, then the most alike. n pairs; arrays n x 2 are of both images.

    `likeness_n` is the correlation of their pixels, 1 for equal ones; `is_exact_n` says that every pixel is equal.
    """

    split_n2: np.ndarray
    row_n2: np.ndarray
    label_n2: np.ndarray
    likeness_n: np.ndarray
    is_exact_n: np.ndarray

    def __len__(self) -> int:
        return len(self.row_n2)

    def rows_of(self, split: int, *, shared_with: int) -> np.ndarray:
        """Ascending rows of `split` that have a duplicate in the split `shared_with`."""
        here, there = self.split_n2, self.split_n2[:, ::-1]
        return np.unique(self.row_n2[(here == split) & (there == shared_with)])


@dataclass(frozen=True)
class Outliers:
    """Images unlike all others, the strangest first. `strangeness_n`: how many times as far from its neighbours as the middle image is."""

    split_n: np.ndarray
    row_n: np.ndarray
    label_n: np.ndarray
    strangeness_n: np.ndarray

    def __len__(self) -> int:
        return len(self.row_n)


@dataclass(frozen=True)
class Facts:
    """How it was found. Accuracies, fractions, are those of the linear model on images it has not seen.

    Of each of SPLITS: `images` that were looked at, and `store_sizes`, all that the store has there.
    """

    backbone: str
    weights: str
    image_size: int
    num_classes: int
    images: tuple[int, int, int]
    store_sizes: tuple[int, int, int]
    train_accuracy: float
    test_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Suspicion:
    """All that an audit found."""

    labels: LabelIssues
    duplicates: Duplicates
    outliers: Outliers
    facts: Facts

    @property
    def test_rows_seen_in_training(self) -> np.ndarray:
        """Ascending rows of test that also are, or nearly are, in the store's train split."""
        return self.duplicates.rows_of(TEST, shared_with=TRAIN)

    def is_new_to_training(self, test_rows_N: np.ndarray) -> np.ndarray:
        """bool N: False for the test images that are in train, too. On the others a score says what a model makes of new images."""
        return ~np.isin(test_rows_N, self.test_rows_seen_in_training)


def audit_settings(config: RunConfig) -> RunConfig:
    """The settings that a run's data set is looked at with: the frozen features of its backbone, as a run of its head has them cached.

    All images of the chosen classes as they came, each as it is, on whatever this machine has. A network without pretrained weights has nothing to say, so for
    runs from scratch it is the bundled one.
    """
    backbone = {"backbone": BUNDLED_BACKBONE, "weights": "default"} if config.weights == "none" else {}
    kept = ("source", "store_resolution", "classes", "backbone", "weights", "image_size", "seed", "cache_limit")
    return make_config(
        **{name: getattr(config, name) for name in kept} | backbone,
        trainable="head",
        flip=False,
        cached_views=1,
    )


def audit_key(config: RunConfig, data_fingerprint: str) -> str:
    """A folder name: equal for runs whose data look alike to their backbone."""
    looked = audit_settings(config)
    parts = [data_fingerprint, looked.backbone, looked.weights, looked.image_size, sorted(looked.classes), _LAYOUT]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return f"{looked.backbone.replace(':', '-').replace('/', '-')}-{looked.image_size}px-{digest}"


_PARTS = {"labels": LabelIssues, "duplicates": Duplicates, "outliers": Outliers}


def save_suspicion(path: Path, found: Suspicion) -> None:
    """Write whole or not at all."""
    arrays = {f"{part}_{item.name}": getattr(getattr(found, part), item.name) for part, kind in _PARTS.items() for item in fields(kind)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, facts=np.array(json.dumps(asdict(found.facts))), **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_suspicion(path: Path) -> Suspicion:
    """Raises FileNotFoundError if there is none, DataError if it is damaged."""
    try:
        # Opened here: given the path of a damaged file, numpy leaves it open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            parts: dict[str, Any] = {
                part: kind(**{item.name: file[f"{part}_{item.name}"] for item in fields(kind)}) for part, kind in _PARTS.items()
            }
            raw = json.loads(str(file["facts"]))
        found = Suspicion(**parts, facts=Facts(**(raw | {name: tuple(raw[name]) for name in ("images", "store_sizes")})))
        _check(found)
        return found
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
        raise DataError(f"What was found suspicious cannot be read ({error}). Delete {path} and look again.") from error


def _check(found: Suspicion) -> None:
    """Everything is as long as it should be, and points at images and classes that are there."""
    facts, labels, pairs, outliers = found.facts, found.labels, found.duplicates, found.outliers
    for part in (labels, pairs, outliers):
        if len({len(getattr(part, item.name)) for item in fields(part)}) != 1:
            raise ValueError("its columns differ in length")
    sizes = np.array(facts.store_sizes)
    for split, row in ((labels.split_n, labels.row_n), (pairs.split_n2, pairs.row_n2), (outliers.split_n, outliers.row_n)):
        if ((split < 0) | (split >= len(SPLITS)) | (row < 0)).any() or (row >= sizes[split]).any():
            raise ValueError("it names images that are not there")
    for of_class in (labels.given_n, labels.suggested_n, pairs.label_n2, outliers.label_n):
        if ((of_class < 0) | (of_class >= facts.num_classes)).any():
            raise ValueError("it names classes that are not there")
