"""What this machine is, and how long an epoch takes on it: measured with a few real steps, before a run is started.

Runs in the prediction process. Uses the training code itself on random pixels and random weights, whose speed is that of
real ones. While another run trains on the same device the estimate is as slow as the run would be.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from cifar_tl.answers import EpochEstimate, Hardware
from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.augment import augment, mix, needs_fresh_images
from cifar_tl.data.batches import to_model_input
from cifar_tl.data.sizes import expected_sizes
from cifar_tl.devices import Compute, available_devices, choose_compute, cpu_count, device_name, has_native_bf16
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.runs.store import Preprocessing
from cifar_tl.training.optim import make_optimizer

_FIRST_BATCH = 8  # small enough for a giant on a laptop; grown to the real batch if it is quick
_SECONDS_PER_STEP = 1.5


def hardware() -> Hardware:
    """This machine, as the form needs it."""
    devices = available_devices()
    best = torch.device(devices[0])
    memory = torch.cuda.get_device_properties(best).total_memory if best.type == "cuda" else psutil.virtual_memory().total
    return Hardware(devices, device_name(best), has_native_bf16(best.type), cpu_count(), int(memory))


def measure_epoch(config_values: dict[str, Any]) -> EpochEstimate:
    """Time the parts of a run with these settings. Takes a few seconds. Raises CifarTLError for settings that cannot run."""
    config = make_config(**config_values)
    compute = choose_compute(config.device, config.precision)
    sizes = expected_sizes(config)
    classifier = build_classifier(
        config.backbone, weights="none", num_classes=sizes.num_classes, image_size=config.image_size, dropout=config.dropout
    )
    classifier.to(memory_format=torch.channels_last).to(compute.device)
    classifier.set_freeze_batch_norm(config.freeze_batch_norm)
    timer = _Timer(config, compute, classifier, sizes.resolution, sizes.num_classes)
    forward = timer.seconds_per_image(timer.evaluate)
    boundary = 0 if config.trainable == "head_then_everything" else classifier.boundary(config.trainable, config.trainable_stages)
    classifier.freeze_before(boundary)
    is_cached = boundary > 0 and not needs_fresh_images(config) and classifier.can_split_at(boundary)
    train_step = timer.seconds_per_image(lambda count: timer.train_step(count, boundary, from_cache=is_cached))
    measured = sizes.dev + min(2000, sizes.dev)
    views = 2 if config.flip else 1
    caching = forward * (sizes.train * views + sizes.dev + sizes.test) if is_cached else 0.0
    # From the cache only the trained stages run, also to measure.
    epoch = sizes.train * train_step + measured * (train_step / 2 if is_cached else forward)
    test = 0.0 if is_cached else sizes.test * forward
    return EpochEstimate(
        train_images=sizes.train,
        epoch_seconds=epoch,
        run_seconds=caching + config.epochs * epoch + test,
        images_per_second=1 / train_step,
        device=compute.device.type,
        precision=compute.precision,
    )


class _Timer:
    """Times one kind of step on growing batches until it is long enough to trust or the real batch is reached."""

    def __init__(self, config: RunConfig, compute: Compute, classifier: Classifier, resolution: int, num_classes: int) -> None:
        self.config, self.compute, self.classifier, self.num_classes = config, compute, classifier, num_classes
        self.preprocessing = Preprocessing(resolution, config.image_size, classifier.mean, classifier.std)
        pixels = np.random.default_rng(0).integers(0, 256, (config.batch_size, resolution, resolution, 3), np.uint8)
        self.images_BCHW = torch.from_numpy(pixels).to(compute.device).permute(0, 3, 1, 2)
        self.labels_B = torch.zeros(config.batch_size, dtype=torch.int64, device=compute.device)
        self.generator = torch.Generator(compute.device).manual_seed(0)

    def seconds_per_image(self, step: Callable[[int], None]) -> float:
        count = min(_FIRST_BATCH, self.config.batch_size)
        self._timed(step, count)  # the first call allocates and chooses kernels
        seconds = self._timed(step, count)
        while count < self.config.batch_size and seconds < _SECONDS_PER_STEP / 4:
            count = min(count * 4, self.config.batch_size)
            self._timed(step, count)
            seconds = self._timed(step, count)
        return min(seconds, self._timed(step, count)) / count

    def _timed(self, step: Callable[[int], None], count: int) -> float:
        began = time.perf_counter()
        step(count)
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    @torch.inference_mode()
    def evaluate(self, count: int) -> None:
        self.classifier.eval()
        with self.compute.autocast():
            self.classifier(to_model_input(self.images_BCHW[:count], self.preprocessing))

    def train_step(self, count: int, boundary: int, *, from_cache: bool) -> None:
        self.classifier.train()
        images, targets = augment(self.images_BCHW[:count], self.config, self.generator), self.labels_B[:count]
        images, targets = mix(images, targets, self.config, self.num_classes, self.generator)
        inputs = self._activations(count, boundary) if from_cache else to_model_input(images, self.preprocessing)
        optimizer = self._optimizer()
        with self.compute.autocast():
            logits = self.classifier.forward_suffix(inputs, boundary if from_cache else 0)
        F.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _activations(self, count: int, boundary: int) -> torch.Tensor:
        if not hasattr(self, "_one_activation"):
            with torch.no_grad(), self.compute.autocast():
                self._one_activation = self.classifier.forward_prefix(to_model_input(self.images_BCHW[:1], self.preprocessing), boundary)
        return self._one_activation.expand(count, *self._one_activation.shape[1:]).contiguous()

    def _optimizer(self) -> torch.optim.Optimizer:
        if not hasattr(self, "_the_optimizer"):
            self._the_optimizer = make_optimizer(self.classifier, self.config)
        return self._the_optimizer
