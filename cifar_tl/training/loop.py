"""train(): one run from settings to a tested model. Reads like the story of the run; prints nothing, knows no file format.

prepare ──► for each leg (head alone, then everything; or just one leg): epochs of steps ──► test once, with the best epoch
                      │ every epoch: measure train and dev, keep the last and the best weights
                      ▼
                    emit(event)
"""

import os
import time
from collections.abc import Callable

import numpy as np

from cifar_tl.config import RunConfig
from cifar_tl.data.batches import num_batches
from cifar_tl.data.splits import limit_per_class
from cifar_tl.devices import device_name, usage
from cifar_tl.evaluation.arrays import Evaluation, save_evaluation
from cifar_tl.evaluation.collect import Metrics, collect, measure
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Epoch, Event, Phase, Started, Stopped
from cifar_tl.runs.events import Progress as ProgressEvent
from cifar_tl.training.checkpoint import load_weights, save_state, save_weights
from cifar_tl.training.plan import Leg, plan_legs
from cifar_tl.training.prepare import Emit, Prepared, SplitInputs, counted_progress, inputs_for, prepare_run
from cifar_tl.training.trainer import Progress, Trainer

# Train accuracy is measured on this many images: its standard error is then about one point.
_TRAIN_IMAGES_MEASURED = 2000


class StopRequested(BaseException):
    """Raised out of long work that is no training step, when a person asks the run to stop. No error, so no Exception."""


def train(config: RunConfig, folder: RunFolder, *, emit: Emit, should_stop: Callable[[], bool]) -> Completed | Stopped:
    """Run the whole job and return how it ended (not emitted here). Raises CifarTLError for what a person can mend."""
    progress = Progress()

    def emit_or_stop(event: Event) -> None:
        emit(event)
        if isinstance(event, ProgressEvent) and should_stop():
            raise StopRequested

    try:
        return _run(config, folder, progress, emit_or_stop, should_stop)
    except StopRequested:
        best = progress.best_accuracy if progress.best_epoch else None
        return Stopped(step=progress.step, best_dev_accuracy=best, seconds=progress.seconds)


def _run(config: RunConfig, folder: RunFolder, progress: Progress, emit: Emit, should_stop: Callable[[], bool]) -> Completed:
    prepared = prepare_run(config, folder, emit)
    for leg in plan_legs(config, prepared.classifier):
        prepared.classifier.freeze_before(leg.boundary)
        inputs = inputs_for(prepared, leg.boundary, emit)
        if leg.first_epoch == 0:
            emit(_started(prepared))
            emit(Phase(name="training", text="Training"))
        _train_leg(prepared, leg, inputs, folder, progress, emit, should_stop)
    return _test(prepared, inputs, folder, progress, emit)


def _train_leg(
    prepared: Prepared, leg: Leg, inputs: SplitInputs, folder: RunFolder, progress: Progress, emit: Emit, should_stop: Callable[[], bool]
) -> None:
    """Train all epochs of a leg. Raises StopRequested between two steps."""
    trainer = Trainer(prepared, leg, inputs.train)
    sample = _train_sample(prepared, inputs)
    for epoch in range(leg.first_epoch, leg.last_epoch):
        began = time.monotonic()
        for batch_number, positions in enumerate(trainer.batches(epoch)):
            if should_stop():
                raise StopRequested
            trainer.step(positions, progress)
            if trainer.is_log_due(batch_number, progress):
                emit(trainer.report(progress))
        progress.epoch = epoch + 1
        _finish_epoch(prepared, trainer, inputs, sample, folder, progress, emit, began)
        if _patience_is_over(prepared.config, leg, progress):
            break


def _finish_epoch(
    prepared: Prepared,
    trainer: Trainer,
    inputs: SplitInputs,
    sample: np.ndarray,
    folder: RunFolder,
    progress: Progress,
    emit: Emit,
    began: float,
) -> None:
    """Measure train and dev alike, tell, and keep the weights."""
    training_seconds = time.monotonic() - began
    dev, evaluation = collect(trainer.best_guess, inputs.dev, prepared.splits.dev, prepared.compute)
    train = measure(trainer.best_guess, inputs.train, prepared.compute, sample)
    is_best = dev.accuracy > progress.best_accuracy
    if is_best:
        progress.best_accuracy, progress.best_epoch = dev.accuracy, progress.epoch
    _keep(trainer, evaluation, folder, progress, is_best=is_best)
    seconds = time.monotonic() - began
    progress.measuring_seconds = seconds - training_seconds
    eta = trainer.eta(progress, training_seconds / trainer.steps_per_epoch)
    emit(_epoch_event(prepared, progress, train, dev, len(sample), is_best, len(trainer.labels_N) / training_seconds, seconds, eta))


def _epoch_event(
    prepared: Prepared,
    progress: Progress,
    train: Metrics,
    dev: Metrics,
    sample_size: int,
    is_best: bool,
    images_per_second: float,
    seconds: float,
    eta: float | None,
) -> Epoch:
    used = usage(prepared.compute.device)
    return Epoch(
        epoch=progress.epoch,
        step=progress.step,
        train_loss=train.loss,
        train_accuracy=train.accuracy,
        train_images_measured=sample_size,
        dev_loss=dev.loss,
        dev_accuracy=dev.accuracy,
        dev_top5=dev.top5,
        dev_accuracy_per_class=dev.accuracy_per_class,
        is_best=is_best,
        images_per_second=images_per_second,
        epoch_seconds=seconds,
        eta_seconds=eta,
        memory_bytes=used.memory_bytes,
        gpu_memory_bytes=used.gpu_memory_bytes,
        gpu_use=used.gpu_use,
        gpu_temperature=used.gpu_temperature,
    )


def _keep(trainer: Trainer, evaluation: Evaluation, folder: RunFolder, progress: Progress, *, is_best: bool) -> None:
    save_weights(folder.last_weights, trainer.classifier)
    state = {"step": progress.step, "epoch": progress.epoch, "best_accuracy": progress.best_accuracy, "best_epoch": progress.best_epoch}
    average = trainer.average.classifier.state_dict() if trainer.average else None
    save_state(folder.last_state, state | {"optimizer": trainer.optimizer.state_dict(), "average": average})
    if is_best:
        save_weights(folder.best_weights, trainer.best_guess)
        save_evaluation(folder.evaluation_of("dev"), evaluation)


def _test(prepared: Prepared, inputs: SplitInputs, folder: RunFolder, progress: Progress, emit: Emit) -> Completed:
    """The only look at test, with the epoch that dev chose."""
    emit(Phase(name="testing", text=f"Testing the weights of epoch {progress.best_epoch}"))
    load_weights(folder.best_weights, prepared.classifier)
    told = counted_progress(emit, "Testing", len(inputs.test))
    metrics, evaluation = collect(prepared.classifier, inputs.test, prepared.splits.test, prepared.compute, progress=told)
    save_evaluation(folder.evaluation_of("test"), evaluation)
    return Completed(
        best_epoch=progress.best_epoch,
        best_dev_accuracy=progress.best_accuracy,
        test_accuracy=metrics.accuracy,
        test_top5=metrics.top5,
        test_loss=metrics.loss,
        seconds=progress.seconds,
    )


def _patience_is_over(config: RunConfig, leg: Leg, progress: Progress) -> bool:
    """Counts epochs of the last leg only: a head that has stopped improving is what the rest was waiting for."""
    if leg.last_epoch < config.epochs:
        return False
    return 0 < config.early_stopping_patience <= progress.epoch - max(progress.best_epoch, leg.first_epoch)


def _train_sample(prepared: Prepared, inputs: SplitInputs) -> np.ndarray:
    """Positions of the training images that are measured each epoch: stratified, fixed, and all cheap where activations are cached."""
    size = len(prepared.splits.dev.rows) if inputs.train.is_cached else min(_TRAIN_IMAGES_MEASURED, len(prepared.splits.dev.rows))
    per_class = max(1, -(-size // prepared.num_classes))
    labels_N = prepared.splits.train.labels
    return limit_per_class(labels_N, np.arange(len(labels_N)), per_class, seed=prepared.config.seed)


def _started(prepared: Prepared) -> Started:
    parameters = list(prepared.classifier.parameters())
    splits, config = prepared.splits, prepared.config
    return Started(
        device=prepared.compute.device.type,
        device_name=device_name(prepared.compute.device),
        precision=prepared.compute.precision,
        train_images=len(splits.train.rows),
        dev_images=len(splits.dev.rows),
        test_images=len(splits.test.rows),
        num_classes=prepared.num_classes,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        epochs=config.epochs,
        steps_per_epoch=num_batches(len(splits.train.rows), config.batch_size),
        worker_pid=os.getpid(),
    )
