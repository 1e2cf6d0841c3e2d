"""Learning-rate range test (Smith 2017, arXiv 1506.01186): real training steps at rates that rise from far too low to far too high.

The steps are those of a run with the same settings (`training.trainer`), on some thousands of its training images; nothing of them is
kept. The loss is smoothed as usual, by an exponential average without the bias of its beginning.
"""

import math
from dataclasses import replace

import numpy as np

from cifar_tl.advice.answers import RateRange, suggest
from cifar_tl.advice.backbones import Heard, load_for_advice, progress_to, subset
from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.splits import SplitRows
from cifar_tl.errors import NonFiniteLoss
from cifar_tl.training.plan import Leg, plan_legs
from cifar_tl.training.prepare import inputs_for
from cifar_tl.training.trainer import Progress, Trainer

STEPS = 90
LOWEST, HIGHEST = 1e-5, 10.0
_IMAGES = 4000
_SMOOTHING = 0.9
_DIVERGED = 4.0  # times the lowest loss


def rate_range(config: RunConfig, heard: Heard) -> RateRange:
    """With the optimizer, batch size and trained stages of the settings. Raises CifarTLError."""
    changes = {"learning_rate": HIGHEST, "schedule": "constant", "warmup_fraction": 0.0, "first_image_size": None, "ema_decay": 0.0}
    prepared = load_for_advice(make_config(**config.model_dump() | changes), heard)
    rows = subset(prepared, _IMAGES)
    # Whoever trains sees these images alone; dev and test as few as can be, since nobody looks at them.
    splits = prepared.splits
    splits = replace(splits, train=rows, dev=_first(splits.dev), test=_first(splits.test))
    prepared = replace(prepared, splits=splits)
    boundary = plan_legs(prepared.config, prepared.classifier)[-1].boundary
    prepared.classifier.freeze_before(boundary)
    inputs = inputs_for(prepared, boundary, progress_to(heard))
    trainer = Trainer(prepared, Leg(boundary, 0, prepared.config.epochs), inputs.train)
    return _risen(trainer, heard)


def _first(rows: SplitRows) -> SplitRows:
    return replace(rows, rows=rows.rows[:1], labels=rows.labels[:1])


def rate_of_step(step: int) -> float:
    """Each is the same factor above the one before."""
    return LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))


def _risen(trainer: Trainer, heard: Heard) -> RateRange:
    trainer.factor_of_step = lambda step: rate_of_step(step) / HIGHEST
    progress, average = Progress(), 0.0
    rates: list[float] = []
    losses: list[float] = []
    order = np.random.default_rng(trainer.config.seed)
    batch_size = min(trainer.config.batch_size, len(trainer.labels_N))
    trainer.classifier.train()
    for step in range(STEPS):
        trainer.step(order.choice(len(trainer.labels_N), batch_size, replace=False), progress)
        try:
            loss = trainer.report(progress).loss
        except NonFiniteLoss:
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        rates.append(rate_of_step(step))
        losses.append(average / (1 - _SMOOTHING ** (step + 1)))
        heard("Trying learning rates", step + 1, STEPS)
        if losses[-1] > _DIVERGED * min(losses) or not math.isfinite(losses[-1]):
            break
    return suggest(rates, losses)
