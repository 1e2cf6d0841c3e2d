"""This program's side of a comparison: its trainer's steps as `training.loop` makes them, without measuring and keeping between epochs."""

from collections.abc import Iterator
from pathlib import Path

from cifar_tl.config import RunConfig
from cifar_tl.paths import RunFolder
from cifar_tl.training.plan import plan_legs
from cifar_tl.training.prepare import Prepared, inputs_for, prepare_run
from cifar_tl.training.trainer import Progress, Trainer


def tell_nobody(_event: object) -> None: ...


def start(config: RunConfig, folder: Path) -> tuple[Prepared, Trainer]:
    """A run of one leg, ready for its first step."""
    prepared = prepare_run(config, RunFolder(folder), tell_nobody)
    (leg,) = plan_legs(config, prepared.classifier)
    prepared.classifier.freeze_before(leg.boundary)
    return prepared, Trainer(prepared, leg, inputs_for(prepared, leg.boundary, tell_nobody).train)


def endless_steps(trainer: Trainer) -> Iterator[int]:
    """Epoch after epoch; each item is the number of images of one step, its report included where one is due."""
    first = trainer.leg.first_epoch
    while True:
        progress = Progress(step=first * trainer.steps_per_epoch)
        for number, positions in trainer.batches(first, progress):
            trainer.step(positions, progress)
            if trainer.is_log_due(number, progress):
                trainer.report(progress)
            yield len(positions)
