"""Cached loading for Explore: evaluation files, embeddings and the image stores behind them, each cache bounded.

Keys carry the time and size of the file, so a run that was evaluated again is read again. Nothing here calls Streamlit's
elements; what cannot be had is told by an exception or, for images, in `RunImages.problem`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from cifar_tl.data.sources import SourceStatus
from cifar_tl.data.store import ImageStore
from cifar_tl.errors import CifarTLError, RunInvalid
from cifar_tl.evaluation.analysis import confusion_matrix
from cifar_tl.evaluation.arrays import Evaluation, how_to_evaluate, load_evaluation
from cifar_tl.evaluation.embeddings import EmbeddingMap, Embeddings, SplitVectors, load_embeddings, load_map
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import RunManifest, find_run, read_config, read_manifest
from cifar_tl.ui.cached import file_stamp, source_status
from cifar_tl.ui.image_fetch import WantedImages
from cifar_tl.ui.picture_sheet import PictureSheet, make_sheet

# 50,000 training images of 100 classes take 12 MB, at most 40 MB whatever the classes.
MAX_EVALUATIONS = 6
# The embeddings of 65,000 images take 9 MB, and 18 MB more once they are compared.
MAX_EMBEDDINGS = 4
MAX_MAPS = 8
MAX_SHEETS = 4  # of 4 MB
MAX_STORES = 6
SPLITS = ("test", "dev", "train")


@dataclass(frozen=True)
class RunImages:
    """The stored images of a run, or in one line why there are none to show.

    Where they can be had, `wanted` is what to ask for and `how` says where they would come from.
    """

    store: ImageStore | None
    problem: str = ""
    wanted: WantedImages | None = None
    how: str = ""

    def of(self, evaluation: Evaluation, positions: np.ndarray) -> np.ndarray | None:
        """uint8, n x H x W x 3: the images at these positions of the evaluation; None if there are none to show."""
        if self.store is None or evaluation.store_split not in self.store:
            return None
        images = self.store[evaluation.store_split].images_NHWC
        rows = evaluation.rows_N[positions]
        return None if len(rows) and rows.max() >= len(images) else np.asarray(images[rows])


@dataclass(frozen=True)
class Explored:
    """One evaluated split of one run: everything that the views of Explore show."""

    run_id: str
    split: str
    manifest: RunManifest
    evaluation: Evaluation
    matrix_CC: np.ndarray
    images: RunImages

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.manifest.class_names


def evaluated_splits(run_id: str) -> list[str]:
    """Splits with an evaluation file, test first. Raises RunNotFound."""
    folder = find_run(run_id)
    return [split for split in SPLITS if folder.evaluation_of(split).is_file()]


def explored(run_id: str, split: str) -> Explored:
    """Load what the views need. Raises RunNotFound, RunInvalid (damaged files)."""
    folder = find_run(run_id)
    manifest = read_manifest(folder)
    if manifest is None:
        raise RunInvalid(f"Run {run_id} has an evaluation but no run.json, so its class names are unknown.")
    evaluation, matrix_CC = _evaluation(
        str(folder.evaluation_of(split)), file_stamp(folder.evaluation_of(split)), len(manifest.class_names)
    )
    return Explored(run_id, split, manifest, evaluation, matrix_CC, run_images(folder, manifest))


def embeddings_of(run_id: str) -> Embeddings | None:
    """What a run's images look like to it; None if that was not prepared (yet). Raises RunNotFound, RunInvalid."""
    folder = find_run(run_id)
    try:
        found = _embeddings(str(folder.embeddings), file_stamp(folder.embeddings))
    except FileNotFoundError:
        return None
    _check_labels(found.splits, folder)
    return found


def map_of(run_id: str) -> EmbeddingMap | None:
    """The embedding map of a run; None if there is none (yet). Raises RunNotFound, RunInvalid."""
    folder = find_run(run_id)
    try:
        found = _map(str(folder.embedding_map), file_stamp(folder.embedding_map))
    except FileNotFoundError:
        return None
    _check_labels(found.splits, folder)
    return found


def map_pictures(drawn: EmbeddingMap, images: RunImages) -> PictureSheet | None:
    """The pictures of all points of a map, those of the first split first; None if they cannot be shown."""
    store = images.store
    if store is None or not all(split.store_split in store for split in drawn.splits.values()):
        return None
    wanted = tuple((split.store_split, split.rows_N) for split in drawn.splits.values())
    if any(len(rows_N) and rows_N.max() >= len(store[name]) for name, rows_N in wanted):
        return None
    digest = hashlib.blake2b(b"".join(rows_N.tobytes() for _, rows_N in wanted), digest_size=16).hexdigest()
    return _pictures(store.info.fingerprint, digest, store, wanted)


def run_images(folder: RunFolder, manifest: RunManifest) -> RunImages:
    """The image store that a run was trained on, if it is on this machine and still the same."""
    try:
        config = read_config(folder)
    except CifarTLError as error:
        return RunImages(None, f"The images cannot be shown: {error}")
    status = source_status(config.source, store_resolution=config.store_resolution, seed=config.seed)
    if status.state == "invalid":
        return RunImages(None, f"The images cannot be shown: {_why_invalid(status)}")
    wanted = WantedImages(config.source, config.store_resolution, config.seed)
    if status.store_folder is None:
        problem = f"The images of {manifest.data_title} are not on this machine yet; all numbers are complete."
        return RunImages(None, problem, wanted, f"Does now what a first run on these data would do. {status.message}")
    try:
        store = _store(str(status.store_folder), file_stamp(status.store_folder))
    except CifarTLError as error:
        return RunImages(None, f"The images cannot be shown: {error}", wanted, "Prepares the data set anew.")
    if store.info.fingerprint != manifest.data_fingerprint:
        return RunImages(
            None, f"The images cannot be shown: {manifest.data_title} on this machine is not the data this run was trained on."
        )
    return RunImages(store)


def _why_invalid(status: SourceStatus) -> str:
    path = status.source.removeprefix("folder:")
    if path == status.source:
        return status.message
    if not Path(path).expanduser().exists():
        return f"this run expects them in the folder {path}, which is not on this machine."
    return f"this run expects them in the folder {path}. {status.message}"


@st.cache_resource(max_entries=MAX_EVALUATIONS, show_spinner="Reading the evaluation")
def _evaluation(path: str, stamp: tuple[int, int], num_classes: int) -> tuple[Evaluation, np.ndarray]:  # noqa: ARG001 - part of the key
    evaluation = load_evaluation(Path(path))
    _check(evaluation, Path(path), num_classes)
    return evaluation, confusion_matrix(evaluation.labels_N, evaluation.predictions_N, num_classes)


def _check(evaluation: Evaluation, path: Path, num_classes: int) -> None:
    """A file that can be read may still not be this run's."""
    lengths = {len(array) for array in (evaluation.labels_N, evaluation.top_classes_NK, evaluation.probabilities_NC, evaluation.rows_N)}
    labels = evaluation.labels_N
    is_whole = lengths == {len(labels)} and len(labels) > 0 and evaluation.num_classes == num_classes
    if (
        not is_whole
        or min(labels.min(), evaluation.top_classes_NK.min()) < 0
        or max(labels.max(), evaluation.top_classes_NK.max()) >= num_classes
    ):
        raise RunInvalid(
            f"The evaluation file {path} does not fit its run of {num_classes} classes. Evaluate the run again: {how_to_evaluate(path)}"
        )


@st.cache_resource(max_entries=MAX_EMBEDDINGS, show_spinner=False)
def _embeddings(path: str, stamp: tuple[int, int]) -> Embeddings:  # noqa: ARG001 - part of the key
    return load_embeddings(Path(path))


@st.cache_resource(max_entries=MAX_SHEETS, show_spinner="Collecting the pictures")
def _pictures(fingerprint: str, digest: str, _store: ImageStore, _wanted: Sequence[tuple[str, np.ndarray]]) -> PictureSheet:  # noqa: ARG001 - part of the key
    return make_sheet([(_store[split].images_NHWC, rows_N) for split, rows_N in _wanted])


@st.cache_resource(max_entries=MAX_MAPS, show_spinner=False)
def _map(path: str, stamp: tuple[int, int]) -> EmbeddingMap:  # noqa: ARG001 - part of the key
    return load_map(Path(path))


def _check_labels(splits: Mapping[str, SplitVectors], folder: RunFolder) -> None:
    """A file that can be read may still not be this run's."""
    manifest = read_manifest(folder)
    num_classes = len(manifest.class_names) if manifest else 0
    if any(len(split) and not 0 <= split.labels_N.min() <= split.labels_N.max() < num_classes for split in splits.values()):
        raise RunInvalid(
            f"The embeddings of run {folder.run_id} do not fit its {num_classes} classes. Delete embeddings.npz and map.npz in "
            f"{folder.evaluation}, then make them again: python -m cifar_tl describe {folder.run_id}"
        )


@st.cache_resource(max_entries=MAX_STORES, show_spinner=False)
def _store(path: str, stamp: tuple[int, int]) -> ImageStore:  # noqa: ARG001 - part of the key
    return ImageStore(Path(path))
