"""How many wrong labels the Suspicious data view finds: a share of the training labels is flipped at random, and then looked for.

    python -m bench.label_noise [--flipped 0.05] [--seeds 0 1 2] [--source cifar100] [--image-size 128] [--json]

Each seed flips that share of all training labels, each to any other class, and ranks the labels as an audit does: frozen features of
the backbone from the cache (filled first, where they are not there), five folds, confident learning. A label that was wrong before counts
as a false alarm, so the true precision is a little higher. Exit code 1: fewer than 60 % are found at a precision of 50 %.
"""

import argparse
import sys
import time

import numpy as np

from bench.common import Column, Row, add_source_option, make_parser, report
from cifar_tl.config import BUNDLED_BACKBONE, make_config
from cifar_tl.data.progress import tell_nobody
from cifar_tl.data.splits import stratified_folds
from cifar_tl.devices import choose_compute
from cifar_tl.evaluation.audit import as_progress, split_data
from cifar_tl.evaluation.suspicion.cross_validation import cross_validate
from cifar_tl.evaluation.suspicion.labels import doubted_labels
from cifar_tl.evaluation.suspicion.linear import FOLDS
from cifar_tl.evaluation.suspicion.result import audit_settings
from cifar_tl.evaluation.suspicion.search import SplitData
from cifar_tl.training.prepare import load_data, load_network

PROMISED_RECALL, PROMISED_PRECISION = 0.6, 0.5
COLUMNS = (
    Column("seed", "seed"),
    Column("images", "images", ",d"),
    Column("flipped", "flipped", ",d"),
    Column("accuracy", "accuracy of the judge", ".3f"),
    Column("listed", "listed", ",d"),
    Column("precision_of_list", "precision", ".3f"),
    Column("recall_of_list", "recall", ".3f"),
    Column("precision_at_flipped", "precision of as many as were flipped", ".3f"),
    Column("list_at_half", "longest list at precision 0.5", ",d"),
    Column("recall_at_half", "its recall", ".3f"),
    Column("suggestion_right", "suggested label is the true one", ".3f"),
    Column("seconds", "seconds", ".1f"),
)


def main() -> int:
    options = _parser().parse_args()
    train, num_classes = _train_split(options)
    rows = [measured(train, num_classes, options.flipped, seed) for seed in options.seeds]
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any(row["recall_at_half"] < PROMISED_RECALL for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_source_option(parser)
    parser.add_argument("--flipped", type=float, default=0.05, help="share of the training labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--backbone", default=BUNDLED_BACKBONE)
    parser.add_argument("--image-size", type=int, default=128)
    return parser


def _train_split(options: argparse.Namespace) -> tuple[SplitData, int]:
    config = audit_settings(make_config(source=options.source, backbone=options.backbone, image_size=options.image_size))
    emit = as_progress(tell_nobody)
    print("running the backbone, where its features are not cached", file=sys.stderr, flush=True)
    prepared = load_network(config, load_data(config, emit), choose_compute(), emit)
    return split_data(prepared, emit)[0], prepared.num_classes


def measured(train: SplitData, num_classes: int, share: float, seed: int) -> Row:
    """One seed: flip, look, count."""
    noisy_N, is_flipped_N = flip_labels(train.labels_N, share, num_classes, seed)
    began = time.perf_counter()
    judge = cross_validate(train.features, noisy_N, stratified_folds(noisy_N, FOLDS, seed=0), num_classes)
    ranked = doubted_labels(noisy_N, judge.probabilities_NC, np.ones(num_classes, bool))
    seconds = time.perf_counter() - began
    return {
        "seed": seed,
        "images": len(noisy_N),
        "accuracy": float((judge.probabilities_NC.argmax(1) == train.labels_N).mean()),
        "suggestion_right": float((_suggested(noisy_N, judge.probabilities_NC) == train.labels_N)[is_flipped_N].mean()),
        "seconds": seconds,
    } | counts(is_flipped_N[ranked], int(is_flipped_N.sum()))


def _suggested(labels_N: np.ndarray, probabilities_NC: np.ndarray) -> np.ndarray:
    """The likeliest class other than the given one."""
    others_NC = probabilities_NC.copy()
    np.put_along_axis(others_NC, labels_N[:, None], -1, 1)
    return others_NC.argmax(1)


def flip_labels(labels_N: np.ndarray, share: float, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels with that share of them changed, each to any other class; which ones were)."""
    random = np.random.default_rng(seed)
    flipped = random.choice(len(labels_N), round(share * len(labels_N)), replace=False)
    noisy_N, is_flipped_N = labels_N.copy(), np.zeros(len(labels_N), bool)
    noisy_N[flipped] = (labels_N[flipped] + random.integers(1, num_classes, len(flipped))) % num_classes
    is_flipped_N[flipped] = True
    return noisy_N, is_flipped_N


def counts(is_hit_n: np.ndarray, flipped: int) -> Row:
    """What a ranked list finds: `is_hit_n` says of each entry whether its label was flipped; `flipped` labels were."""
    hits_n, lengths_n = np.cumsum(is_hit_n), np.arange(1, len(is_hit_n) + 1)
    at_half = np.flatnonzero(hits_n >= PROMISED_PRECISION * lengths_n)
    longest = int(at_half[-1]) + 1 if len(at_half) else 0
    found, first = int(is_hit_n.sum()), is_hit_n[:flipped]
    return {
        "flipped": flipped,
        "listed": len(is_hit_n),
        "precision_of_list": found / max(1, len(is_hit_n)),
        "recall_of_list": found / max(1, flipped),
        "precision_at_flipped": float(first.sum()) / max(1, flipped),
        "list_at_half": longest,
        "recall_at_half": int(hits_n[longest - 1]) / max(1, flipped) if longest else 0.0,
    }


if __name__ == "__main__":
    sys.exit(main())
