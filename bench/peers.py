"""The loops that training is compared with. Only `bare_engine` uses what makes this program quick.

    bare           one batch that stays in memory, forward, backward, step: what the machine can do with plain torch
    bare_engine    the same with this program's network and malloc settings: what is left for the rest of a run to lose
    reference      torchvision's references/classification/train.py with its default flags, line by line
    tuned          the same loop with every flag set as well as one can

`reference` and `tuned` read the same memory-mapped pixels as this program, so no decoding of JPEG files is held against them.
They train the whole network with batch norm in training mode, as that loop has no flag to freeze it; the loop itself is in
`bench.torchvision_loop`.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler

from bench.common import rate
from bench.networks import (
    batch_in_memory,
    channels_last_network,
    engine_compute,
    num_classes_of,
    plain_compute,
    plain_network,
    ready_network,
    waiting_for,
)
from bench.torchvision_loop import Flags, StoreImages, TorchvisionLoop, test_transform, train_loader, train_transform, tuned_flags
from cifar_tl.config import make_config
from cifar_tl.data.sources import prepare
from cifar_tl.data.store import Split
from cifar_tl.devices import Compute, cpu_count
from cifar_tl.models.build import Classifier
from cifar_tl.training.optim import make_optimizer

_BARE_LEARNING_RATE = 1e-3  # small: random labels must not drive the numbers to infinity while the clock runs
_EVALUATION_BATCH = 256

Measured = dict[str, Any]


def bare(
    *, device: str, source: str, model: str, weights: str, image_size: int, batch: int, frozen_batch_norm: bool, timing: dict[str, int]
) -> Measured:
    """Plain torch, channels_last, autocast where the hardware has bfloat16, fused SGD, one batch that is never loaded again."""
    compute, num_classes = plain_compute(device), num_classes_of(source)
    classifier = channels_last_network(model, weights, num_classes, image_size, compute)
    classifier.set_freeze_batch_norm(frozen_batch_norm)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=_BARE_LEARNING_RATE, momentum=0.9, nesterov=True, fused=True)
    return _bare_rate(classifier, compute, optimizer, batch, image_size, num_classes, timing)


def bare_engine(
    *, device: str, source: str, model: str, weights: str, image_size: int, batch: int, frozen_batch_norm: bool, timing: dict[str, int]
) -> Measured:
    """The same step on this program's network, with its optimizer and its malloc settings: the limit of its own pipeline."""
    compute, num_classes = engine_compute(device), num_classes_of(source)
    classifier = ready_network(model, weights, num_classes, image_size, compute)
    classifier.set_freeze_batch_norm(frozen_batch_norm)
    optimizer = make_optimizer(classifier, make_config(learning_rate=_BARE_LEARNING_RATE))
    return _bare_rate(classifier, compute, optimizer, batch, image_size, num_classes, timing)


def _bare_rate(
    classifier: Classifier,
    compute: Compute,
    optimizer: torch.optim.Optimizer,
    batch: int,
    image_size: int,
    num_classes: int,
    timing: dict[str, int],
) -> Measured:
    images_BCHW, labels_B = batch_in_memory(batch, image_size, num_classes, compute.device)
    step = bare_step(classifier, compute, optimizer, images_BCHW, labels_B)
    measured = rate(step, **timing, wait=waiting_for(compute.device))
    return measured | {"precision": compute.precision}


def bare_step(
    classifier: Classifier, compute: Compute, optimizer: torch.optim.Optimizer, images_BCHW: torch.Tensor, labels_B: torch.Tensor
) -> Any:
    """A function that does one forward pass, backward pass and step, and returns the number of images."""
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    classifier.train()

    def step() -> int:
        with compute.autocast():
            logits = classifier(images_BCHW)
        criterion(logits.float(), labels_B).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return len(labels_B)

    return step


def reference(
    *, device: str, source: str, model: str, weights: str, image_size: int, batch: int, workers: int, timing: dict[str, int]
) -> Measured:
    """torchvision's loop as it comes: float32, contiguous memory, batches of 32, 16 workers unless told otherwise."""
    return _loop_rate(Flags(batch_size=batch, workers=workers), device, source, model, weights, image_size, timing)


def tuned(
    *, device: str, source: str, model: str, weights: str, image_size: int, batch: int, workers: int, timing: dict[str, int]
) -> Measured:
    """torchvision's loop with every flag set as well as one can."""
    return _loop_rate(tuned_flags(batch, workers), device, source, model, weights, image_size, timing)


def _loop_rate(flags: Flags, device: str, source: str, model: str, weights: str, image_size: int, timing: dict[str, int]) -> Measured:
    store = prepare(source)
    classifier = plain_network(model, weights, store.info.num_classes, image_size)
    loader = train_loader(StoreImages(store["train"], train_transform(image_size, flags, classifier)), flags, device)
    loop = TorchvisionLoop(classifier, flags, plain_compute(device))
    batches = _endless(loader)
    measured = rate(lambda: loop.step(*next(batches)), **timing, wait=waiting_for(loop.compute.device))
    return measured | {"precision": loop.compute.precision if flags.amp else "float32"}


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def train_to_the_end(
    *,
    device: str,
    source: str,
    model: str,
    weights: str,
    image_size: int,
    epochs: int,
    batch: int,
    workers: int,
    crop_scale: float,
    images: int | None,
) -> Measured:
    """`tuned` from the published files to the accuracy on test. `images`: train on the first so many only, to try the benchmark out."""
    began = time.perf_counter()
    store = prepare(source)
    preparing = time.perf_counter() - began
    flags, split = tuned_flags(batch, workers, crop_scale), store["train"]
    split = Split(split.images_NHWC[:images], split.labels_N[:images])
    classifier = plain_network(model, weights, store.info.num_classes, image_size)
    loader = train_loader(StoreImages(split, train_transform(image_size, flags, classifier)), flags, device)
    loop = TorchvisionLoop(classifier, flags, plain_compute(device), total_steps=epochs * len(loader))
    for _ in range(epochs):
        for image, target in loader:
            loop.step(image, target)
    trained = time.perf_counter() - began - preparing
    tests = StoreImages(store["test"], test_transform(image_size, classifier))
    accuracy = loop.accuracy_on(DataLoader(tests, _EVALUATION_BATCH, sampler=SequentialSampler(tests), num_workers=workers))
    return {"test_accuracy": accuracy, "preparing_seconds": preparing, "training_seconds": trained, "flags": asdict(flags)}


def default_workers() -> int:
    """torchvision's 16, but never more than there are cores: more would only slow the peer down."""
    return min(Flags.workers, cpu_count())
