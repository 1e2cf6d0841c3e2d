"""Data sets far larger than CIFAR-100: what must not grow with the number of images, or not fast."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_tl.data.batches import ImageBatches, epoch_batches
from cifar_tl.data.splits import train_dev_split
from cifar_tl.data.store import ImageStore, StoreInfo, writing_store
from cifar_tl.evaluation.analysis import confusion_matrix

IMAGES, CLASSES = 1_300_000, 1_000


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ImageStore:
    """1.3 million images of 2 px: as many rows as ImageNet has, in 16 MB."""
    folder: Path = tmp_path_factory.mktemp("stores") / "large"
    chunk = np.arange(10_000 * 12, dtype=np.uint32).astype(np.uint8).reshape(-1, 2, 2, 3)
    with writing_store(folder) as writer:
        for split, count in (("train", IMAGES), ("test", 10_000)):
            writer.write_split(split, np.arange(count) % CLASSES, (chunk for _ in range(count // 10_000)), 2)
        writer.finish(StoreInfo("made", "Made", 2, tuple(map(str, range(CLASSES)))))
    return ImageStore(folder)


def peak_of(work) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_opening_a_store_reads_none_of_its_images(store):
    def work() -> None:
        assert len(ImageStore(store.folder)["train"]) == IMAGES

    assert peak_of(work) < 30e6  # its labels are 10 MB


def test_batches_of_a_large_store_hold_one_batch(store):
    labels_N = store["train"].labels_N
    rows = np.arange(IMAGES)
    batches = ImageBatches(store["train"], rows, labels_N, torch.device("cpu"))
    order = epoch_batches(labels_N, batch_size=128, seed=0, epoch=0)
    assert sum(map(len, order)) == IMAGES
    seen = np.concatenate(order)
    assert np.array_equal(np.sort(seen), rows)

    def work() -> None:
        for positions in order[:500]:
            assert batches.images(positions).shape == (len(positions), 3, 2, 2)

    assert peak_of(work) < 5e6


def test_the_split_of_a_million_labels_is_stratified_and_repeats(store):
    labels_N = np.asarray(store["train"].labels_N)
    train, dev = train_dev_split(labels_N, seed=3)
    assert len(train) + len(dev) == IMAGES
    assert not np.intersect1d(train, dev, assume_unique=True).size
    assert set(np.bincount(labels_N[dev], minlength=CLASSES)) == {130}
    assert np.array_equal(train_dev_split(labels_N, seed=3)[1], dev)
    assert not np.array_equal(train_dev_split(labels_N, seed=4)[1], dev)


def test_the_confusion_of_a_thousand_classes_counts_every_image_once():
    random = np.random.default_rng(0)
    labels_N, answers_N = random.integers(0, CLASSES, (2, 100_000))
    matrix_CC = confusion_matrix(labels_N, answers_N, CLASSES)
    assert matrix_CC.sum() == 100_000
    for true, answered in ((0, 1), (999, 999), (17, 400)):
        assert matrix_CC[true, answered] == ((labels_N == true) & (answers_N == answered)).sum()
