"""An audit made up for tests: the real file through the real writer, about the images of `made_runs.make_store`. Needs no torch."""

import numpy as np

from cifar_tl.evaluation.suspicion.result import TEST, TRAIN, Duplicates, Facts, LabelIssues, Outliers, Suspicion, audit_key, save_suspicion
from cifar_tl.paths import AuditFolder, RunFolder, audit_folder
from cifar_tl.runs.store import read_config, read_manifest
from tests.made_runs import made_labels

DOUBTED_TRAIN, DOUBTED_TEST = (7, 3, 28, 51), (12, 30)
PAIRS = ((TRAIN, 10, TRAIN, 30), (TRAIN, 40, TEST, 60), (TRAIN, 41, TEST, 61))  # the first with equal pixels
STRANGE = (99, 4)


def audit_files(folder: RunFolder) -> AuditFolder:
    """Where the audit of a run's data is kept."""
    manifest = read_manifest(folder)
    assert manifest is not None
    return audit_folder(audit_key(read_config(folder), manifest.data_fingerprint))


def make_audit(folder: RunFolder, *, num_classes: int = 20, images: int = 200) -> Suspicion:
    """Write what an audit of that run's data found, and return it. Each doubted label is suggested to be the class after it."""
    labels_N = made_labels(images, num_classes)
    split_n = np.array([TRAIN] * len(DOUBTED_TRAIN) + [TEST] * len(DOUBTED_TEST), np.int8)
    row_n = np.array([*DOUBTED_TRAIN, *DOUBTED_TEST], np.int64)
    given_n = labels_N[row_n].astype(np.int32)
    low, high = np.linspace(0.01, 0.2, len(row_n)), np.linspace(0.9, 0.5, len(row_n))
    issues = LabelIssues(split_n, row_n, given_n, (given_n + 1) % num_classes, low.astype(np.float32), high.astype(np.float32))
    pairs = np.array(PAIRS)
    duplicates = Duplicates(
        pairs[:, [0, 2]].astype(np.int8),
        pairs[:, [1, 3]].astype(np.int64),
        labels_N[pairs[:, [1, 3]]].astype(np.int32),
        np.array([1, 0.9, 0.8], np.float32),
        np.array([True, False, False]),
    )
    strange = np.array(STRANGE)
    outliers = Outliers(
        np.full(len(strange), TRAIN, np.int8),
        strange.astype(np.int64),
        labels_N[strange].astype(np.int32),
        np.array([3.5, 2.5], np.float32),
    )
    config = read_config(folder)
    facts = Facts(
        config.backbone, config.weights, config.image_size, num_classes, (images, 0, images), (images, 0, images), 0.69, 0.68, 12.5
    )
    found = Suspicion(issues, duplicates, outliers, facts)
    save_suspicion(audit_files(folder).result, found)
    return found
