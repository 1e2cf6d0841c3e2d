"""What this machine is, and how long an epoch takes on it: measured with a few real steps, before a run is started.

Runs in the prediction process. Uses the training code itself on random pixels and random weights, whose speed is that of
real ones. While another run trains on the same device the estimate is as slow as the run would be.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from cifar_tl.answers import EpochEstimate, Hardware
from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.augment import augment, mix
from cifar_tl.data.batches import to_model_input
from cifar_tl.data.sizes import ExpectedSizes, expected_sizes
from cifar_tl.devices import Compute, available_devices, choose_compute, cpu_count, device_name, has_native_bf16
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.runs.store import Preprocessing
from cifar_tl.training.inputs import cached_evaluation_views, cached_training_views
from cifar_tl.training.optim import make_optimizer
from cifar_tl.training.plan import Leg, image_sizes, plan_legs
from cifar_tl.training.prefix_cache import activation_bytes
from cifar_tl.training.recorded import RecordedPasses

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
    classifier.ready(compute.device, config.image_size)
    classifier.set_freeze_batch_norm(config.freeze_batch_norm)
    timer = _Timer(config, compute, classifier, sizes.resolution, sizes.num_classes)
    forward = timer.seconds_per_image(timer.evaluate)
    legs = plan_legs(config, classifier)
    parts = [_measure_leg(timer, leg, sizes, forward) for leg in legs]
    # With the head first, "an epoch" is one of the epochs that train everything: those are what a person waits for.
    last = parts[-1]
    test = 0.0 if last.is_cached else sizes.test * forward * timer.evaluated_views
    return EpochEstimate(
        train_images=sizes.train,
        epoch_seconds=last.epoch_seconds,
        run_seconds=sum(part.caching_seconds + part.epoch_seconds * leg.epochs for part, leg in zip(parts, legs, strict=True)) + test,
        images_per_second=sizes.train / last.training_seconds,
        device=compute.device.type,
        precision=compute.precision,
        cache_bytes=sum(part.cache_bytes for part in parts),
    )


@dataclass(frozen=True)
class _LegEstimate:
    is_cached: bool
    cache_bytes: int
    caching_seconds: float
    training_seconds: float  # of one epoch, and
    epoch_seconds: float  # with its evaluation


def _measure_leg(timer: "_Timer", leg: Leg, sizes: ExpectedSizes, forward: float) -> _LegEstimate:
    """Costs of a leg, of which one epoch is timed at the full image size; smaller first images cost as their area."""
    config, classifier = timer.config, timer.classifier
    classifier.freeze_before(leg.boundary)
    views = cached_training_views(config) if leg.boundary > 0 and classifier.can_split_at(leg.boundary) else ()
    step = timer.seconds_per_image(lambda count: timer.train_step(count, leg.boundary, from_cache=bool(views)))
    measured = (sizes.dev + min(2000, sizes.dev)) * timer.evaluated_views
    if not views:
        areas = [(size / config.image_size) ** 2 for size in image_sizes(config, leg)]
        training = sizes.train * step * sum(areas) / len(areas)
        return _LegEstimate(False, 0, 0.0, training, training + measured * forward)
    evaluated = cached_evaluation_views(config)
    cached = sizes.train * len({*views, *evaluated}) + (sizes.dev + sizes.test) * len(evaluated)
    size = activation_bytes(timer.activation_shape(leg.boundary), timer.compute.dtype)
    training = sizes.train * step
    # From the cache only the trained stages run, also to measure.
    return _LegEstimate(
        True, cached * size, cached * timer.seconds_per_cached_image(leg.boundary), training, training + measured * step / 2
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
        self._one_activation: dict[int, torch.Tensor] = {}  # by boundary
        self._optimizers: dict[int, torch.optim.Optimizer] = {}
        self._recorded: dict[tuple[int, int], RecordedPasses] = {}  # by what trains and where the pass starts

    @property
    def _is_on_gpu(self) -> bool:
        return self.compute.device.type == "cuda"

    @property
    def evaluated_views(self) -> int:
        return len(cached_evaluation_views(self.config))

    def activation_shape(self, boundary: int) -> tuple[int, ...]:
        return tuple(self._activations(1, boundary).shape[1:])

    def seconds_per_image(self, step: Callable[[int], object]) -> float:
        # On a GPU cuDNN plans for seconds for each size of a batch: it gets the real one alone.
        count = self.config.batch_size if self._is_on_gpu else min(_FIRST_BATCH, self.config.batch_size)
        self._timed(step, count)  # the first call allocates and chooses kernels
        seconds = self._timed(step, count)
        while count < self.config.batch_size and seconds < _SECONDS_PER_STEP / 4:
            count = min(count * 4, self.config.batch_size)
            self._timed(step, count)
            seconds = self._timed(step, count)
        return min(seconds, self._timed(step, count)) / count

    def seconds_per_cached_image(self, boundary: int) -> float:
        prefix = FrozenPrefix(self.classifier, boundary, self.preprocessing, self.compute)
        prefix(self.images_BCHW if self._is_on_gpu else self.images_BCHW[:_FIRST_BATCH])  # compiles, once a run
        return self.seconds_per_image(lambda count: prefix(self.images_BCHW[:count]))

    def _timed(self, step: Callable[[int], object], count: int) -> float:
        began = time.perf_counter()
        step(count)
        if self._is_on_gpu:
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
        optimizer = self._optimizer(boundary)
        logits = self._logits(inputs, boundary, starts_at=boundary if from_cache else 0)
        F.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _logits(self, inputs: torch.Tensor, boundary: int, starts_at: int) -> torch.Tensor:
        if self._is_on_gpu:  # as the trainer does after its first steps
            if (boundary, starts_at) not in self._recorded:
                self._recorded[boundary, starts_at] = RecordedPasses(self.classifier, starts_at, self.compute, plain_steps=0)
            recorded = self._recorded[boundary, starts_at]
            recorded.record_when_due(inputs)
            if recorded.records(inputs):
                return recorded(inputs)
        with self.compute.autocast():
            return self.classifier.forward_suffix(inputs, starts_at)

    def _activations(self, count: int, boundary: int) -> torch.Tensor:
        if boundary not in self._one_activation:
            with torch.no_grad(), self.compute.autocast():
                images = to_model_input(self.images_BCHW if self._is_on_gpu else self.images_BCHW[:1], self.preprocessing)
                self._one_activation[boundary] = self.classifier.forward_prefix(images, boundary)[:1]
        one = self._one_activation[boundary]
        return one.expand(count, *one.shape[1:]).contiguous()

    def _optimizer(self, boundary: int) -> torch.optim.Optimizer:
        if boundary not in self._optimizers:
            self._optimizers[boundary] = make_optimizer(self.classifier, self.config)
        return self._optimizers[boundary]
