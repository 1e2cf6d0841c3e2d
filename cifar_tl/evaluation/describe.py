"""What Explore shows of a run beyond dev and test: answers for training images, embeddings of all splits, a first map of them.

Made by the worker when its run is complete, from what it has in hand (`describe_trained`: cached activations where the run had them),
or later from the run's folder (`describe_run`). t-SNE comes after, in `evaluation.embedding_map`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from cifar_tl.data.progress import Progress
from cifar_tl.data.splits import RunSplits, SplitRows, train_dev_split
from cifar_tl.devices import Compute
from cifar_tl.evaluation.arrays import save_evaluation
from cifar_tl.evaluation.collect import EvaluationInputs, collect
from cifar_tl.evaluation.embedding_map import first_map
from cifar_tl.evaluation.embeddings import Embeddings, SplitVectors, forget_description, reduced, save_embeddings, save_map
from cifar_tl.evaluation.evaluate import counted_images, reopen
from cifar_tl.evaluation.familiarity import can_tell, unlikeness
from cifar_tl.models.build import Classifier
from cifar_tl.paths import RunFolder
from cifar_tl.training.loop import StopRequested, TrainedRun

MOST_TRAIN_IMAGES = 50_000  # of CIFAR all; 115 MB of features while they are reduced
MOST_TRAIN_PROBABILITIES = 20_000_000  # of all these images and classes: 40 MB on disk


@dataclass(frozen=True)
class _Described:
    """A network with its best weights, and the images of each split as it takes them."""

    classifier: Classifier
    compute: Compute
    splits: RunSplits
    inputs: Mapping[str, EvaluationInputs]
    seed: int

    def rows(self, split: str) -> SplitRows:
        rows = getattr(self.splits, split)
        assert isinstance(rows, SplitRows)
        return rows


def describe_trained(trained: TrainedRun, folder: RunFolder, *, should_stop: Callable[[], bool]) -> None:
    """Of a run that has just been tested. Raises StopRequested between two batches."""
    prepared, inputs = trained.prepared, trained.inputs
    described = _Described(
        prepared.classifier,
        prepared.compute,
        prepared.splits,
        {"train": inputs.train, "dev": inputs.dev},
        prepared.config.seed,
    )

    def check(_progress: Progress) -> None:
        if should_stop():
            raise StopRequested

    _describe(described, folder, check, _vectors(prepared.splits.test, None, trained.test_embeddings_NF))


def describe_run(folder: RunFolder, *, progress: Callable[[Progress], None]) -> None:
    """Of any run that has weights. Raises RunInvalid if its data has changed since training, DataError."""
    reopened = reopen(folder, progress=progress)
    splits, predictor = reopened.splits, reopened.predictor
    inputs = {name: reopened.inputs(getattr(splits, name)) for name in ("train", "dev", "test")}
    forget_description(folder)
    described = _Described(predictor.classifier, predictor.compute, splits, inputs, predictor.config.seed)
    _describe(described, folder, progress, _embed(described, "test", progress))


def _describe(described: _Described, folder: RunFolder, progress: Callable[[Progress], None], test: SplitVectors) -> None:
    train, sample = (
        described.rows("train"),
        described_images(described.rows("train").labels, len(described.splits.class_names), described.seed),
    )
    counted = counted_images(progress, "Answers for training images", len(sample))
    _, answers, features_NF = collect(
        described.classifier, described.inputs["train"], train, described.compute, positions=sample, progress=counted
    )
    save_evaluation(folder.evaluation_of("train"), answers)
    of_train = _vectors(train, sample, features_NF)
    of_dev = _embed(described, "dev", progress)
    embeddings = with_familiarity(reduced({"train": of_train, "dev": of_dev, "test": test}), of_dev.vectors_ND)
    save_embeddings(folder.embeddings, embeddings)
    save_map(folder.embedding_map, first_map(embeddings, seed=described.seed))


def with_familiarity(embeddings: Embeddings, dev_features_NF: np.ndarray) -> Embeddings:
    """With what new pictures are compared with, where the features allow it."""
    if embeddings.axes is None or not can_tell(embeddings.axes) or not len(dev_features_NF):
        return embeddings
    return replace(embeddings, dev_unlikeness_N=unlikeness(dev_features_NF, embeddings.axes))


def _embed(described: _Described, split: str, progress: Callable[[Progress], None]) -> SplitVectors:
    rows = described.rows(split)
    counted = counted_images(progress, f"Embeddings of {split} images", len(rows))
    _, _, features_NF = collect(described.classifier, described.inputs[split], rows, described.compute, progress=counted)
    return _vectors(rows, None, features_NF)


def _vectors(rows: SplitRows, positions: np.ndarray | None, features_NF: np.ndarray) -> SplitVectors:
    chosen = slice(None) if positions is None else positions
    return SplitVectors(features_NF, rows.labels[chosen].astype(np.int32), rows.rows[chosen], rows.store_split)


def described_images(labels_N: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """Positions of the training images that are described: all of them up to a bound, then a stratified sample of about that many."""
    most = min(MOST_TRAIN_IMAGES, MOST_TRAIN_PROBABILITIES // num_classes)
    if len(labels_N) <= most:
        return np.arange(len(labels_N))
    _, sample = train_dev_split(labels_N, seed=seed, dev_fraction=most / len(labels_N))
    return sample
