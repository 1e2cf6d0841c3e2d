"""What the audit of a run's data, if there is one, says of the images that a view shows: those that are in train too, those whose label is doubted."""

import numpy as np

from cifar_tl.errors import CifarTLError
from cifar_tl.evaluation.embeddings import SplitVectors
from cifar_tl.evaluation.suspicion.result import SPLITS, Suspicion
from cifar_tl.evaluation.suspicion.state import AuditStatus, audit_state
from cifar_tl.runs.store import RunManifest
from cifar_tl.ui.audits import audit_in, audit_of
from cifar_tl.ui.cached_evaluation import Explored


def images_in_train(explored: Explored) -> np.ndarray | None:
    """Of test: positions of the images that are, or nearly are, in train; None for other splits and where nobody has looked."""
    found = _found(explored) if explored.split == "test" else None
    return None if found is None else np.flatnonzero(~found.is_new_to_training(explored.evaluation.rows_N))


def doubted_labels(explored: Explored) -> np.ndarray | None:
    """bool N: the images of this evaluation whose label is doubted; None where nobody has looked."""
    found = _found(explored)
    if found is None:
        return None
    in_split = found.labels.split_n == SPLITS.index(explored.evaluation.store_split)
    return np.isin(explored.evaluation.rows_N, found.labels.row_n[in_split])


def suggested_labels(run_id: str, manifest: RunManifest, images: SplitVectors) -> dict[int, str] | None:
    """Of these images, by row, the class that the audit suggests in place of a doubted label; None where nobody has looked."""
    found = _found_of(run_id, manifest)
    if found is None:
        return None
    labels = found.labels
    is_here_n = (labels.split_n == SPLITS.index(images.store_split)) & np.isin(labels.row_n, images.rows_N)
    pairs = zip(labels.row_n[is_here_n], labels.suggested_n[is_here_n], strict=True)
    return {int(row): manifest.class_names[suggested] for row, suggested in pairs}


def _found(explored: Explored) -> Suspicion | None:
    return _found_of(explored.run_id, explored.manifest)


def _found_of(run_id: str, manifest: RunManifest) -> Suspicion | None:
    try:
        files = audit_of(run_id, manifest)
        return audit_in(files).found if audit_state(files).status is AuditStatus.DONE else None
    except (CifarTLError, FileNotFoundError):  # Suspicious data says what is wrong with it
        return None
