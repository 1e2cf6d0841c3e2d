"""Trainer: the optimizer steps of one leg of a run. Forward, backward, step; sums stay on the device until a report is due.

All randomness of a step is a function of (seed, step): data order, augmentation and dropout need no stored generator state, and
`Trainer.state` with `Progress` is all that a run needs to go on exactly where it was.
The processes of a group walk through the same batches; each computes its share of one, and gradients are averaged in the backward pass.
Emits nothing and keeps no files: that is `training.loop`.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

from cifar_tl.config import RunConfig
from cifar_tl.data.batches import epoch_batches, num_batches
from cifar_tl.data.draws import SharedGenerator
from cifar_tl.devices import to_device
from cifar_tl.errors import NonFiniteLoss
from cifar_tl.group import outside_any_group
from cifar_tl.models.build import Classifier
from cifar_tl.runs.events import Step
from cifar_tl.training.inputs import Inputs
from cifar_tl.training.linear_head import add_gradients, is_linear
from cifar_tl.training.optim import WeightAverage, learning_rate_factor, make_optimizer, set_learning_rate
from cifar_tl.training.plan import Leg, image_sizes
from cifar_tl.training.prepare import Prepared
from cifar_tl.training.recorded import RecordedPasses
from cifar_tl.training.seeding import seed_step

_LOGGED_STEPS_PER_EPOCH = 5  # at least, however short the epoch


@dataclass
class Progress:
    """How far a run has come. Counters only; weights are in the classifier."""

    step: int = 0
    epoch: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    patience_from: int = 0  # the epoch from which early stopping counts: where a run was made longer
    epochs_asked: int = 0
    seconds_before: float = 0.0  # spent before the run was resumed
    measuring_seconds: float = 0.0  # of the last epoch's evaluation and checkpoint
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def state(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in _KEPT_OF_PROGRESS}
        return kept | {"seconds_before": self.seconds}

    def extend_to(self, epochs: int) -> None:
        """Train for so many epochs in all. If that is more than was asked before, patience begins anew."""
        if epochs > self.epochs_asked > 0:
            self.patience_from = self.epoch
        self.epochs_asked = epochs


_KEPT_OF_PROGRESS = ("step", "epoch", "best_accuracy", "best_epoch", "patience_from", "epochs_asked")


class Trainer:
    """Owns optimizer, averaged weights and the running sums of one leg."""

    def __init__(self, prepared: Prepared, leg: Leg, inputs: Inputs) -> None:
        config = prepared.config
        self.config, self.leg, self.inputs = config, leg, inputs
        self.classifier = prepared.classifier
        self.compute, self.device = prepared.compute, prepared.compute.device
        mixed = {"float32": "no"}.get(prepared.compute.precision, prepared.compute.precision)
        ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        self.group = prepared.group
        with outside_any_group() if self.group.size == 1 else nullcontext():
            self.accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision=mixed, kwargs_handlers=[ddp])
        optimizer = make_optimizer(self.classifier, config)
        # Accelerate's own step looks for optional packages on the disk each time (0.2 ms): not where it has nothing to add.
        self._is_plain = self.accelerator.scaler is None and self.group.size == 1
        self.optimizer = optimizer if self._is_plain else self.accelerator.prepare(optimizer)
        suffix = self.classifier.forward_suffix
        if self.group.size > 1:
            suffix = self.accelerator.prepare_model(_Suffix(self.classifier))
        self._forward = torch.compile(suffix) if is_compiled(config, self.device) else suffix
        self._recorded = RecordedPasses(self.classifier, inputs.boundary, self.compute) if self._can_record(config) else None
        self.average = WeightAverage(self.classifier, config.ema_decay) if config.ema_decay else None
        self.labels_N = prepared.splits.train.labels
        self.class_weights = (
            _class_weights(self.labels_N, prepared.num_classes, self.device) if config.class_balance == "weighted_loss" else None
        )
        # On an accelerator the graph costs nothing beside what it waits for.
        self._is_head_alone = (
            leg.boundary == len(self.classifier.stages) > 0
            and inputs.is_cached
            and self._is_plain
            and self.device.type == "cpu"
            and self.class_weights is None
            and is_linear(self.classifier)
        )
        self.steps_per_epoch = num_batches(len(self.labels_N), config.batch_size)
        self._largest_batch = -(-len(self.labels_N) // self.steps_per_epoch)
        self.log_every = min(config.log_every_steps, max(1, self.steps_per_epoch // _LOGGED_STEPS_PER_EPOCH))
        self._learning_rate = 0.0
        self.factor_of_step: Callable[[int], float] | None = None  # of the learning rate, instead of the schedule's
        self._parts = 1  # of a batch, each with a forward and backward pass of its own
        self._warnings: list[str] = []
        self._step_loss = self._step_right = torch.zeros(())
        self._clear_sums()
        self._epoch_began = time.monotonic()

    @property
    def best_guess(self) -> Classifier:
        """The weights that are evaluated and kept: the average where there is one."""
        return self.average.classifier if self.average else self.classifier

    def ready_to_measure(self) -> Classifier:
        """The weights that are evaluated, the same in every process: statistics of batch norms are the first one's."""
        if not self.config.freeze_batch_norm:
            self.group.same_as_first(self.best_guess.buffers())
        return self.best_guess

    def batches(self, epoch: int, progress: Progress) -> Iterator[tuple[int, np.ndarray]]:
        """Number and positions of each batch of an epoch that is still to come."""
        self.classifier.train()
        self.inputs.set_training_size(image_sizes(self.config, self.leg)[epoch - self.leg.first_epoch])
        done = progress.step - epoch * self.steps_per_epoch
        if done == 0:
            self._clear_sums()
            self._epoch_began = time.monotonic()
        is_balanced = self.config.class_balance == "balanced_sampling"
        batches = epoch_batches(
            self.labels_N, batch_size=self.config.batch_size, seed=self.config.seed, epoch=epoch, is_balanced=is_balanced
        )
        yield from list(enumerate(batches))[done:]

    @property
    def epoch_seconds(self) -> float:
        """Since this epoch's first step, without what lay between a stop and a resume."""
        return time.monotonic() - self._epoch_began

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, except `Progress`. Refers to the living tensors: write it before the next step."""
        return {
            "first_epoch": self.leg.first_epoch,
            "weights": self.classifier.trained_state(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state() if self.average else None,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "parts": self._parts,
            # Sums of this process alone are no part of the run: the next report leaves out the steps before this checkpoint.
            "sums": (self._loss_sum, self._right_sum, self._steps, self._images) if self.group.size == 1 else None,
            "epoch_seconds": self.epoch_seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Rates and decays stay those of the settings, which may have been changed."""
        self.classifier.load_trained_state(state["weights"])
        if state["first_epoch"] != self.leg.first_epoch:
            # Taken at the end of the leg before: this one begins as it would have begun then.
            self.average = WeightAverage(self.classifier, self.config.ema_decay) if self.config.ema_decay else None
            return
        settings = [{name: value for name, value in group.items() if name != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)
        if self.average:
            self.average.load_state(state["average"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self._parts = state["parts"]
        if state["sums"] and self.group.size == 1:
            loss_sum, right_sum, self._steps, self._images = state["sums"]
            self._loss_sum, self._right_sum = loss_sum.to(self.device), right_sum.to(self.device)
        self._epoch_began = time.monotonic() - state["epoch_seconds"]

    def require_finite(self, progress: Progress) -> None:
        """Raises NonFiniteLoss unless the last losses and all that trains are numbers: nothing else is worth keeping."""
        trained: list[torch.Tensor] = [parameter for parameter in self.classifier.parameters() if parameter.requires_grad]
        norms = torch.stack([norm.float().cpu() for norm in torch._foreach_norm(trained)])
        if not (math.isfinite(float(self._loss_sum)) and bool(norms.isfinite().all())):
            raise self._non_finite(progress, "nan")

    def step(self, positions: np.ndarray, progress: Progress) -> None:
        """One optimizer step on the images at `positions`, of which this process sees its share."""
        own = self.group.share(len(positions))
        generator = seed_step(self.config.seed, progress.step, self.device, self.group.index)
        random = SharedGenerator(generator, len(positions), own) if self.group.size > 1 else generator
        batch, targets = self.inputs.training_batch(positions[own], random)
        self._learning_rate = self._set_learning_rate(progress.step)
        if self._recorded and self._parts == 1 and self._recorded.record_when_due(self._filled_up(batch)):
            seed_step(self.config.seed, progress.step, self.device)  # trial passes drew what dropout is to draw
        while not self._add_gradients(batch, targets, positions):
            # Out of memory. Out of the except clause too, whose traceback would keep the tensors of the failed pass.
            self._halve_parts(len(positions))
            # Dropout draws as it will when the parts are small from the start.
            seed_step(self.config.seed, progress.step, self.device, self.group.index)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.classifier)
        progress.step += 1
        self._loss_sum += self._step_loss
        self._right_sum += self._step_right
        self._steps, self._images = self._steps + 1, self._images + len(positions)

    def _add_gradients(self, batch: torch.Tensor, targets: torch.Tensor, positions: np.ndarray) -> bool:
        """Forward and backward of this process's share of the batch at `positions`, in as many parts as fit into memory. False if even they do not."""
        weights = self.class_weights
        # Of the whole batch, so that the losses of all shares add up to the mean over it.
        images = (
            len(positions)
            if weights is None or targets.ndim > 1
            else weights[self.inputs.labels_N[to_device(torch.from_numpy(positions), self.device)]].sum()
        )
        hard_targets = targets if targets.ndim == 1 else targets.argmax(1)
        if self._is_head_alone:
            smoothing, dtype = self.config.label_smoothing, self.compute.dtype
            self._step_loss, logits = add_gradients(
                self.classifier.head, batch, targets, label_smoothing=smoothing, images=len(targets), dtype=dtype
            )
            self._step_right = (logits.argmax(1) == hard_targets).sum()
            return True
        self._step_loss, self._step_right = torch.zeros((), device=self.device), torch.zeros((), device=self.device, dtype=torch.int64)
        whole = (batch, targets, hard_targets)
        # As many in every process of a group, whose shares differ by an image: each part is a meeting of all of them.
        count = min(self._parts, len(positions) // self.group.size)
        parts = [whole] if count == 1 else zip(*(tensor.tensor_split(count) for tensor in whole), strict=True)
        try:
            for part, part_targets, part_classes in parts:
                logits = self._logits(part)
                smoothing = self.config.label_smoothing
                loss = F.cross_entropy(logits.float(), part_targets, weight=weights, label_smoothing=smoothing, reduction="sum") / images
                if self._is_plain:
                    loss.backward()
                else:
                    self.accelerator.backward(loss * self.group.size)  # gradients are averaged over the group, losses add up
                self._step_loss += loss.detach()
                self._step_right += (logits.detach().argmax(1) == part_classes).sum()
        except torch.OutOfMemoryError:
            if self._parts >= len(targets) or self.group.size > 1:  # the others would wait for gradients that never come
                raise
            return False
        return True

    def _logits(self, part: torch.Tensor) -> torch.Tensor:
        images, part = len(part), self._filled_up(part)
        # One part only: gradients of a recorded pass lie where the next one writes its own, so they cannot add up.
        if self._recorded and self._parts == 1 and self._recorded.records(part):
            return self._recorded(part)[:images]
        with self.compute.autocast():
            logits: torch.Tensor = self._forward(part, self.inputs.boundary)
        return logits[:images]

    def _filled_up(self, batch: torch.Tensor) -> torch.Tensor:
        """A GPU's batches all have the size of the largest, for what does not count in the loss: each size costs cuDNN seconds of planning."""
        missing = self._largest_batch - len(batch)
        if self.device.type != "cuda" or self._parts > 1 or self.group.size > 1 or not self.config.freeze_batch_norm or missing <= 0:
            return batch
        return torch.cat([batch, batch[:missing]])

    def _can_record(self, config: RunConfig) -> bool:
        return self.device.type == "cuda" and self.group.size == 1 and not is_compiled(config, self.device)

    def _halve_parts(self, batch_size: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._parts = min(2 * self._parts, batch_size)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._warnings.append(
            f"The device ran out of memory. Batches of {batch_size} now pass through it in {self._parts} parts, and one step is made of "
            "all of them: training goes on with the same batch size, a little slower."
        )

    def take_warnings(self) -> list[str]:
        """What a person should know of the last step; each once."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def is_log_due(self, batch_number: int, progress: Progress) -> bool:
        """Every so many steps, at the end of an epoch, and after the very first step: people wait for that one."""
        return (batch_number + 1) % self.log_every == 0 or batch_number + 1 == self.steps_per_epoch or progress.step == 1

    def report(self, progress: Progress) -> Step:
        """Means since the last report, over the whole group. Raises NonFiniteLoss."""
        loss = float(self.group.sum(self._loss_sum)) / self._steps
        right_sum = self.group.sum(self._right_sum)
        if not math.isfinite(loss):
            raise self._non_finite(progress, loss)
        seconds = max(time.monotonic() - self._since, 1e-9)
        step = Step(
            step=progress.step,
            epoch=round(progress.step / self.steps_per_epoch, 4),
            loss=loss,
            batch_accuracy=float(right_sum) / self._images,
            learning_rate=self._learning_rate,
            images_per_second=self._images / seconds,
            eta_seconds=self.eta(progress, seconds / self._steps),
        )
        self._clear_sums()
        return step

    def _non_finite(self, progress: Progress, loss: float | str) -> NonFiniteLoss:
        return NonFiniteLoss(
            f"The loss is {loss} at step {progress.step} (epoch {progress.step / self.steps_per_epoch:.2f}). "
            f"Resume from the last checkpoint with a learning rate below {self.config.learning_rate:g}, or start again with precision float32."
        )

    def eta(self, progress: Progress, seconds_per_step: float) -> float | None:
        """Seconds until training ends, if steps at the present image size take so long; larger images cost as their area.

        None while that is no guide: the first step warms up, and a leg that is yet to come has other steps.
        """
        if progress.step == 1 or self.leg.last_epoch < self.config.epochs:
            return None
        areas = [size**2 for size in image_sizes(self.config, self.leg)]
        done = progress.step - self.leg.first_epoch * self.steps_per_epoch
        now = min(max(done - 1, 0) // self.steps_per_epoch, self.leg.epochs - 1)
        steps_ahead = [self.steps_per_epoch * (epoch + 1) - max(done, self.steps_per_epoch * epoch) for epoch in range(self.leg.epochs)]
        steps = sum(max(0, count) * area for count, area in zip(steps_ahead, areas, strict=True)) / areas[now]
        return steps * seconds_per_step + (self.config.epochs - progress.epoch) * progress.measuring_seconds

    def _set_learning_rate(self, step: int) -> float:
        first, last = (epoch * self.steps_per_epoch for epoch in (self.leg.first_epoch, self.leg.last_epoch))
        if self.factor_of_step:
            factor = self.factor_of_step(step)
        else:
            factor = learning_rate_factor(
                step - first, last - first, schedule=self.config.schedule, warmup_fraction=self.config.warmup_fraction
            )
        set_learning_rate(self.optimizer, factor)
        return self.config.learning_rate * factor

    def _clear_sums(self) -> None:
        self._loss_sum = torch.zeros((), device=self.device)
        self._right_sum = torch.zeros((), device=self.device, dtype=torch.int64)
        self._steps = self._images = 0
        self._since = time.monotonic()


class _Suffix(nn.Module):
    """What DistributedDataParallel wraps: the forward pass that trains."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, activations: torch.Tensor, boundary: int) -> torch.Tensor:
        return self.classifier.forward_suffix(activations, boundary)


def is_compiled(config: RunConfig, device: torch.device) -> bool:
    """torch.compile serves on CUDA. On a CPU it was measured: 44.6 instead of 46.3 images a second, and far slower with batch norm training."""
    return config.compile and device.type == "cuda"


def _class_weights(labels_N: np.ndarray, num_classes: int, device: torch.device) -> torch.Tensor:
    """Inverse frequency, scaled so that the mean weight over training images is 1."""
    images_per_class = np.bincount(labels_N, minlength=num_classes)
    return torch.tensor(len(labels_N) / (num_classes * np.maximum(images_per_class, 1)), dtype=torch.float32, device=device)
