"""Advise me: what to expect of each backbone, from about 2,000 training images and a few timed steps on this machine."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from cifar_tl.advice.answers import BackboneAdvice
from cifar_tl.advice.learning_curve import Shares, expect
from cifar_tl.advice.memory import peak_bytes
from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.splits import SplitRows, limit_per_class
from cifar_tl.devices import choose_compute
from cifar_tl.errors import CifarTLError, SettingsError
from cifar_tl.models import catalog
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.probe import measure_epoch
from cifar_tl.runs.events import Event, Progress
from cifar_tl.training.inputs import fill_cache
from cifar_tl.training.prefix_cache import PLAIN
from cifar_tl.training.prepare import Prepared, load_data, load_network, open_cache

IMAGES = 2000
Heard = Callable[[str, int, int], object]  # what is being done, how many of how many


def advise(config: RunConfig, backbones: Sequence[str], heard: Heard, told: Callable[[BackboneAdvice], object]) -> list[BackboneAdvice]:
    """One after the other; `told` hears of each as it is known. What is wrong with one backbone is said of it, and the next is looked at."""
    found = []
    for name in backbones:
        try:
            advice = _advise(make_config(**config.model_dump() | {"backbone": name}), heard)
        # Networks refuse images or batches in the words of torch: a RuntimeError (also for too little memory), batch norms a ValueError.
        except (CifarTLError, RuntimeError, ValueError) as error:
            advice = BackboneAdvice(name, error=(str(error) or type(error).__name__).splitlines()[0])
        _free_memory()
        told(advice)
        found.append(advice)
    return found


def _advise(config: RunConfig, heard: Heard) -> BackboneAdvice:
    if problems := catalog.problems(config):
        raise SettingsError(" ".join(problems))
    prepared = load_for_advice(_of_head(config), heard)
    rows = subset(prepared, IMAGES)
    features_NF = features_of(prepared, rows, heard)
    heard(f"Judging {config.backbone}", 0, 1)
    all_images, shares = len(prepared.splits.train.rows), shares_of(prepared)
    expected = expect(features_NF, rows.labels, prepared.num_classes, all_images=all_images, seed=config.seed, shares=shares)
    heard(f"Timing {config.backbone}", 0, 1)
    estimate = measure_epoch(config.model_dump(mode="json"))
    heard(f"Measuring the memory of {config.backbone}", 0, 1)
    return BackboneAdvice(
        config.backbone,
        expected.expected,
        expected.low,
        expected.high,
        expected.neighbours,
        len(rows.rows),
        estimate.epoch_seconds,
        estimate.run_seconds,
        peak_bytes(config),
    )


def _free_memory() -> None:
    """Of a backbone that is done with, for the next one and for the process that measures its memory."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def shares_of(prepared: Prepared) -> Shares:
    """How frequent classes are to the head that a run trains, and in dev. Balancing makes them equally frequent to the head, not in dev."""
    learned_C, measured_C = (
        np.bincount(rows.labels, minlength=prepared.num_classes) / len(rows) for rows in (prepared.splits.train, prepared.splits.dev)
    )
    if prepared.config.class_balance != "none":
        learned_C = np.full(prepared.num_classes, 1 / prepared.num_classes)
    return Shares(learned_C, measured_C)


def _of_head(config: RunConfig) -> RunConfig:
    """The settings, as far as the features of frozen stages depend on them."""
    changes = {"trainable": "head", "first_image_size": None, "head_epochs": 1}
    return make_config(**config.model_dump() | changes)


def load_for_advice(config: RunConfig, heard: Heard) -> Prepared:
    """Data and network of a run that is not made. Raises DataError, BackboneError, DeviceUnavailable."""
    emit = progress_to(heard)
    return load_network(config, load_data(config, emit), choose_compute(config.device, config.precision), emit)


def progress_to(heard: Heard) -> Callable[[Event], None]:
    """Of a run's events, the progress alone."""

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            heard(event.text, event.done, event.total)

    return emit


def subset(prepared: Prepared, images: int) -> SplitRows:
    """About that many training images, of each class as many as of the others; at least five, where it has them. Raises SettingsError."""
    train = prepared.splits.train
    per_class = max(5, round(images / prepared.num_classes))
    chosen = limit_per_class(train.labels, np.arange(len(train.labels)), per_class, seed=prepared.config.seed)
    if np.bincount(train.labels[chosen], minlength=prepared.num_classes).min() < 2:
        raise SettingsError("There are classes with a single training image: nothing can be told of a backbone from those.")
    return replace(train, rows=train.rows[chosen], labels=train.labels[chosen])


@torch.inference_mode()
def features_of(prepared: Prepared, rows: SplitRows, heard: Heard) -> np.ndarray:
    """float32 N x F: what the frozen backbone gives of these images, kept in the cache that runs use too."""
    boundary = len(prepared.classifier.stages)
    prepared.classifier.freeze_before(boundary)
    cache, done = open_cache(prepared, boundary), 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        heard(f"Looking at images with {prepared.config.backbone}", done, len(rows.rows))

    prefix = FrozenPrefix(prepared.classifier, boundary, prepared.preprocessing, prepared.compute)
    fill_cache(cache, prefix, prepared.store, rows, prepared.config, views=(PLAIN,), progress=progress)
    split_size = len(prepared.store[rows.store_split])
    return cache.read(rows.store_split, split_size, rows.rows, PLAIN).float().flatten(1).numpy()
