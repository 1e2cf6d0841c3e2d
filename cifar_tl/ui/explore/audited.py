"""What the audit of a run's data, if there is one, says of the images that a view shows: those that are in train too, those whose label is doubted."""

import numpy as np

from cifar_tl.errors import CifarTLError
from cifar_tl.evaluation.suspicion.result import SPLITS, TRAIN, Suspicion
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


def doubted_training_rows(run_id: str, manifest: RunManifest) -> set[int]:
    """Rows of the store's train split whose label is doubted; none where nobody has looked."""
    found = _found_of(run_id, manifest)
    return set() if found is None else set(found.labels.row_n[found.labels.split_n == TRAIN].tolist())


def _found(explored: Explored) -> Suspicion | None:
    return _found_of(explored.run_id, explored.manifest)


def _found_of(run_id: str, manifest: RunManifest) -> Suspicion | None:
    try:
        files = audit_of(run_id, manifest)
        return audit_in(files).found if audit_state(files).status is AuditStatus.DONE else None
    except (CifarTLError, FileNotFoundError):  # Suspicious data says what is wrong with it
        return None
