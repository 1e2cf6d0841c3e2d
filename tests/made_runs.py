"""Run folders and image stores made up for tests: the real files through the real writers, with random but plausible numbers.

    folder = make_run(tmp_path, run_id="a", status="running")
    with hold_lock(folder):          # now it counts as alive
        ...

Needs no torch. Weights are not written: a made run can be looked at, not predicted with.
"""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.store import ImageStore, StoreInfo, writing_store
from cifar_tl.evaluation.arrays import Evaluation, save_evaluation
from cifar_tl.evaluation.embeddings import TSNE, EmbeddingMap, Embeddings, SplitVectors, save_embeddings, save_map
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Epoch, Event, Failed, Phase, Started, Step, Stopped, Warned
from cifar_tl.runs.log import EventWriter
from cifar_tl.runs.store import Preprocessing, RunManifest, write_json, write_manifest

STATUSES = ("completed", "queued", "running", "stopped", "failed", "lost", "empty")
FAILURE = "The weights of resnet50 are not on this machine and cannot be fetched. Choose another backbone or connect to the network."

_COLOURS = ("red", "green", "blue", "yellow", "purple")
_SHAPES = ("circle", "square", "triangle", "star")
# Alphabetical, as the data set numbers them; the long ones are what a chart has to cope with.
_CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""


def class_names(num_classes: int) -> tuple[str, ...]:
    """`num_classes` names: CIFAR-100's for a hundred, coloured shapes for up to twenty, numbered ones otherwise."""
    if num_classes == 100:
        return tuple(_CIFAR100.split())
    if num_classes <= len(_COLOURS) * len(_SHAPES):
        return tuple(f"{_COLOURS[i % len(_COLOURS)]} {_SHAPES[i // len(_COLOURS)]}" for i in range(num_classes))
    return tuple(f"class {i}" for i in range(num_classes))


def superclasses(num_classes: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names, and of each class its superclass: groups of five neighbours; none below ten classes."""
    if num_classes < 10:
        return (), ()
    groups = -(-num_classes // 5)
    names = _SHAPES if groups == len(_SHAPES) else tuple(f"group {i}" for i in range(groups))
    return tuple(names), tuple(i // 5 for i in range(num_classes))


def made_labels(count: int, num_classes: int) -> np.ndarray:
    """Labels of `make_store` and `make_run` alike, so that an image and its evaluation row agree."""
    return np.arange(count) % num_classes


def make_run(
    root: Path,
    *,
    run_id: str = "20260101-120000-efficientnet_lite0-shapes",
    status: str = "completed",
    source: str = "shapes",
    num_classes: int = 20,
    epochs: int = 3,
    steps_per_epoch: int = 20,
    with_evaluation: bool = True,
    test_images: int = 200,
    seed: int = 0,
    name: str = "",
    data_fingerprint: str = "made",
    created: float | None = None,
    **settings: Any,
) -> RunFolder:
    """Write a whole run folder under `root` and return it.

    "running" and "queued" are what a worker leaves while it lives: hold its lock with `hold_lock`, or it counts as lost. "empty" has
    its settings and nothing else. `settings` are further RunConfig values. Evaluation files only for completed runs.
    """
    assert status in STATUSES
    folder = RunFolder(root / run_id)
    folder.path.mkdir(parents=True)
    config = make_config(source=source, name=name, epochs=epochs, **({"head_epochs": 1} | settings))
    write_json(folder.config, config.model_dump(mode="json"))
    if status == "queued":
        _write_events(folder, [Phase(name="queued", text="Waiting: the device is busy")])
    elif status != "empty":
        write_manifest(folder, _manifest(run_id, config, num_classes, data_fingerprint, created))
        evaluation = made_evaluation(test_images, num_classes, seed=seed)
        _write_events(folder, _events(status, config, num_classes, steps_per_epoch, evaluation, np.random.default_rng(seed)))
        if status == "completed" and with_evaluation:
            save_evaluation(folder.evaluation_of("test"), evaluation)
            save_evaluation(
                folder.evaluation_of("dev"), made_evaluation(max(num_classes, test_images // 2), num_classes, "train", seed + 1)
            )
    if created is not None:
        os.utime(folder.config, (created, created))
    return folder


def made_evaluation(images: int, num_classes: int, store_split: str = "test", seed: int = 0) -> Evaluation:
    """About 70 % right; errors fall on neighbours of the same group of five, as superclasses would have it."""
    random = np.random.default_rng(seed)
    labels = made_labels(images, num_classes)
    neighbours = labels // 5 * 5 + (labels + 1) % 5
    logits = random.normal(0, 1, (images, num_classes))
    np.put_along_axis(logits, labels[:, None], np.take_along_axis(logits, labels[:, None], 1) + 3.5, 1)
    inside = neighbours < num_classes
    logits[inside, neighbours[inside]] += 2.5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Evaluation(
        labels_N=labels.astype(np.int32),
        top_classes_NK=np.argsort(-logits, axis=1)[:, :5].astype(np.int32),
        probabilities_NC=probabilities.astype(np.float16),
        rows_N=np.arange(images, dtype=np.int64),
        store_split=store_split,
    )


def describe_made_run(
    folder: RunFolder, *, num_classes: int = 20, test_images: int = 200, train_images: int = 200, method: str = TSNE
) -> None:
    """What a worker prepares after a run: answers for train, embeddings of all splits, a map of test and of half of train.

    Embeddings of one class lie around a centre of their own, and so do their points on the map.
    """
    save_evaluation(folder.evaluation_of("train"), made_evaluation(train_images, num_classes, "train", seed=2))
    random = np.random.default_rng(3)
    centres_CD = random.normal(0, 1, (num_classes, 8))
    images = {"train": train_images, "dev": max(num_classes, test_images // 2), "test": test_images}
    splits = {name: _made_vectors(count, centres_CD, "test" if name == "test" else "train", random) for name, count in images.items()}
    save_embeddings(folder.embeddings, Embeddings(splits, 0.9))
    points = {name: splits[name].taken(np.arange(count)) for name, count in (("test", test_images), ("train", train_images // 2))}
    on_map = {name: replace(split, vectors_ND=split.vectors_ND[:, :2].astype(np.float32)) for name, split in points.items()}
    save_map(folder.embedding_map, EmbeddingMap(method, on_map))


def _made_vectors(images: int, centres_CD: np.ndarray, store_split: str, random: np.random.Generator) -> SplitVectors:
    labels = made_labels(images, len(centres_CD))
    vectors = centres_CD[labels] + random.normal(0, 0.2, (images, centres_CD.shape[1]))
    return SplitVectors(vectors.astype(np.float16), labels.astype(np.int32), np.arange(images, dtype=np.int64), store_split)


def make_store(
    folder: Path, *, num_classes: int = 20, train_images: int = 200, test_images: int = 200, resolution: int = 32, source: str = "shapes"
) -> ImageStore:
    """A store whose images show their class as a colour over noise; labels as in `made_labels`."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (num_classes, 1, 1, 3))
    with writing_store(folder) as writer:
        for split, count in (("train", train_images), ("test", test_images)):
            labels = made_labels(count, num_classes)
            noise = random.integers(-40, 40, (count, resolution, resolution, 1))
            writer.write_split(split, labels, [(colours[labels] + noise).astype(np.uint8)], resolution)
        names, of_class = superclasses(num_classes)
        writer.finish(StoreInfo(source, "Made shapes", resolution, class_names(num_classes), names, of_class))
    return ImageStore(folder)


@contextmanager
def hold_lock(folder: RunFolder) -> Iterator[None]:
    """Hold the run's lock as a worker does, so that the run is alive. (A second open of the file conflicts, also in this process.)"""
    with folder.lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _manifest(run_id: str, config: RunConfig, num_classes: int, data_fingerprint: str, created: float | None) -> RunManifest:
    titles = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "shapes": "Shapes"}
    names, of_class = superclasses(num_classes)
    return RunManifest(
        run_id=run_id,
        created=time.time() if created is None else created,
        data_title=titles.get(config.source, config.source),
        data_fingerprint=data_fingerprint,
        class_names=class_names(num_classes),
        superclass_names=names,
        superclass_of_class=of_class,
        preprocessing=Preprocessing(32, config.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        stage_names=("stem", "stage 1", "stage 2", "head"),
        versions={"torch": "0"},
    )


def _write_events(folder: RunFolder, events: Iterable[Event]) -> None:
    with EventWriter(folder.events) as writer:
        for event in events:
            writer.write(event)


def _events(
    status: str, config: RunConfig, num_classes: int, steps_per_epoch: int, evaluation: Evaluation, random: np.random.Generator
) -> Iterator[Event]:
    yield Phase(name="preparing_data", text="Preparing the data")
    yield Phase(name="loading_weights", text="Loading pretrained weights")
    if status == "failed":
        yield Failed(error="WeightsUnavailable", message=FAILURE, seconds=2.0)
        return
    yield _started(config, num_classes, steps_per_epoch, len(evaluation))
    yield Phase(name="training", text="Training")
    yield Warned(message="This warning is made up for a test.")
    finished_epochs = config.epochs if status == "completed" else max(1, config.epochs - 1)
    best = 0.0
    for epoch in range(1, finished_epochs + 1):
        yield from _steps(epoch, config, steps_per_epoch, random)
        measured = _epoch(epoch, config, num_classes, steps_per_epoch, best, random)
        best = max(best, measured.dev_accuracy)
        yield measured
    if status == "stopped":
        yield Stopped(step=finished_epochs * steps_per_epoch, best_dev_accuracy=best, seconds=431.0)
    elif status == "completed":
        is_right = evaluation.predictions_N == evaluation.labels_N
        top5 = (evaluation.top_classes_NK == evaluation.labels_N[:, None]).any(1)
        yield Completed(
            best_epoch=config.epochs,
            best_dev_accuracy=best,
            test_accuracy=float(is_right.mean()),
            test_top5=float(top5.mean()),
            test_loss=1.1,
            seconds=612.4,
        )


def _started(config: RunConfig, num_classes: int, steps_per_epoch: int, test_images: int) -> Started:
    return Started(
        device="cpu",
        device_name="Made processor",
        precision="float32",
        train_images=steps_per_epoch * config.batch_size,
        dev_images=max(num_classes, test_images // 2),
        test_images=test_images,
        num_classes=num_classes,
        parameters=3_499_652,
        trainable_parameters=128_100,
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        worker_pid=os.getpid(),
    )


def _steps(epoch: int, config: RunConfig, steps_per_epoch: int, random: np.random.Generator) -> Iterator[Step]:
    total = config.epochs * steps_per_epoch
    for step in range((epoch - 1) * steps_per_epoch + 1, epoch * steps_per_epoch + 1):
        done = step / total
        yield Step(
            step=step,
            epoch=step / steps_per_epoch,
            loss=float(1 + 2 * np.exp(-3 * done) + random.normal(0, 0.05)),
            batch_accuracy=float(np.clip(0.75 * (1 - np.exp(-3 * done)) + random.normal(0, 0.02), 0, 1)),
            learning_rate=config.learning_rate * min(1.0, done * 10) * (1 - done),
            images_per_second=float(230 + random.normal(0, 5)),
            eta_seconds=(total - step) * 0.5,
        )


def _epoch(epoch: int, config: RunConfig, num_classes: int, steps_per_epoch: int, best: float, random: np.random.Generator) -> Epoch:
    accuracy = float(0.72 * (1 - np.exp(-1.5 * epoch)))
    return Epoch(
        epoch=epoch,
        step=epoch * steps_per_epoch,
        train_loss=1.9 / epoch,
        train_accuracy=min(1.0, accuracy + 0.04),
        train_images_measured=500,
        dev_loss=2.1 / epoch,
        dev_accuracy=accuracy,
        dev_top5=min(1.0, accuracy + 0.2),
        dev_accuracy_per_class=[float(x) for x in np.clip(random.normal(accuracy, 0.1, num_classes), 0, 1)],
        is_best=accuracy > best,
        images_per_second=228.0,
        epoch_seconds=15.0,
        eta_seconds=(config.epochs - epoch) * 15.0,
        memory_bytes=1_500_000_000,
    )
