"""Learning-rate range test (Smith 2017, arXiv 1506.01186): real training steps at rates that rise from far too low to far too high.

The steps are those of a run with the same settings (`training.trainer`), on some thousands of its training images; nothing of them is
kept. The loss is smoothed as usual, by an exponential average without the bias of its beginning.

Classes are as frequent in these steps as in the run's: each has its share of the images, or the same number where sampling balances them,
and its weight in a weighted loss is that of the run.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from cifar_tl.advice.answers import RANGE_STEPS, RateRange, suggest
from cifar_tl.advice.backbones import Heard, load_for_advice, progress_to, subset
from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.splits import SplitRows, limit_per_class
from cifar_tl.errors import NonFiniteLoss
from cifar_tl.training.plan import Leg, plan_legs
from cifar_tl.training.prepare import inputs_for
from cifar_tl.training.trainer import Progress, Trainer

LOWEST, HIGHEST = 1e-5, 10.0
_IMAGES = 4000
_SMOOTHING = 0.9
_DIVERGED = 4.0  # times the lowest loss


def rate_range(config: RunConfig, heard: Heard) -> RateRange:
    """With the optimizer, batch size and trained stages of the settings. Raises CifarTLError."""
    changes = {"learning_rate": HIGHEST, "schedule": "constant", "warmup_fraction": 0.0, "first_image_size": None, "ema_decay": 0.0}
    prepared = load_for_advice(make_config(**config.model_dump() | changes), heard)
    is_balanced = config.class_balance == "balanced_sampling"
    rows = subset(prepared, _IMAGES) if is_balanced else as_frequent(prepared.splits.train, _IMAGES, seed=config.seed)
    # Whoever trains sees these images alone; dev and test as few as can be, since nobody looks at them.
    splits, all_labels_N = prepared.splits, prepared.splits.train.labels
    prepared = replace(prepared, splits=replace(splits, train=rows, dev=_first(splits.dev), test=_first(splits.test)))
    boundary = plan_legs(prepared.config, prepared.classifier)[-1].boundary
    prepared.classifier.freeze_before(boundary)
    inputs = inputs_for(prepared, boundary, progress_to(heard))
    trainer = Trainer(prepared, Leg(boundary, 0, prepared.config.epochs), inputs.train)
    if trainer.class_weights is not None:
        trainer.class_weights = class_weights(all_labels_N, prepared.num_classes).to(trainer.device)
    return _risen(trainer, heard)


def _first(rows: SplitRows) -> SplitRows:
    return replace(rows, rows=rows.rows[:1], labels=rows.labels[:1])


def as_frequent(rows: SplitRows, images: int, *, seed: int) -> SplitRows:
    """About that many of the rows, of each class its share, and one at least."""
    count_C = np.bincount(rows.labels)
    wanted_N = np.maximum(1, np.round(count_C * images / len(rows)))[rows.labels]
    # Classes of which equally many are wanted are drawn together: where all are alike, these are the images of `subset`.
    parts = []
    for wanted in np.unique(wanted_N):
        parts.append(limit_per_class(rows.labels, np.flatnonzero(wanted_N == wanted), int(wanted), seed=seed))
    chosen = np.sort(np.concatenate(parts))
    return replace(rows, rows=rows.rows[chosen], labels=rows.labels[chosen])


def class_weights(labels_N: np.ndarray, num_classes: int) -> torch.Tensor:
    """Of the weighted loss of a run on all these images, as `Trainer` has them: inverse frequency, 1 on average over the images."""
    count_C = np.bincount(labels_N, minlength=num_classes)
    return torch.tensor(len(labels_N) / (num_classes * np.maximum(count_C, 1)), dtype=torch.float32)


def rate_of_step(step: int) -> float:
    """Each is the same factor above the one before."""
    return LOWEST * (HIGHEST / LOWEST) ** (step / (RANGE_STEPS - 1))


def _risen(trainer: Trainer, heard: Heard) -> RateRange:
    trainer.factor_of_step = lambda step: rate_of_step(step) / HIGHEST
    progress, average = Progress(), 0.0
    rates: list[float] = []
    losses: list[float] = []
    order = np.random.default_rng(trainer.config.seed)
    batch_size = min(trainer.config.batch_size, len(trainer.labels_N))
    trainer.classifier.train()
    for step in range(RANGE_STEPS):
        trainer.step(order.choice(len(trainer.labels_N), batch_size, replace=False), progress)
        try:
            loss = trainer.report(progress).loss
        except NonFiniteLoss:
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        rates.append(rate_of_step(step))
        losses.append(average / (1 - _SMOOTHING ** (step + 1)))
        heard("Trying learning rates", step + 1, RANGE_STEPS)
        if losses[-1] > _DIVERGED * min(losses) or not math.isfinite(losses[-1]):
            break
    return suggest(rates, losses)
