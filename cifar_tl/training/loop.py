"""train(): one run from settings to a tested model. Reads like the story of the run; prints nothing, knows no file format.

prepare ──► for each leg (head alone, then everything; or just one leg): epochs of steps ──► test once, with the best epoch
                      │ every epoch: measure train and dev, keep the answers for dev and the best weights
                      │ every epoch, every few minutes, and when asked to stop: a checkpoint, from which a resumed run goes on
                      ▼
                    emit(event)

The processes of a group walk through the same story side by side. The first one alone tells, writes and hears that the run is to stop.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cifar_tl.config import RunConfig
from cifar_tl.data.batches import num_batches
from cifar_tl.data.splits import limit_per_class
from cifar_tl.devices import device_name, usage
from cifar_tl.evaluation.arrays import Evaluation, save_evaluation
from cifar_tl.evaluation.collect import Metrics, collect, measure
from cifar_tl.evaluation.embeddings import forget_description
from cifar_tl.evaluation.epochs import answers_of, forget_after, save_answers
from cifar_tl.group import ALONE, Group
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Epoch, Event, Phase, Resumed, Started, Stopped, Warned
from cifar_tl.runs.events import Progress as ProgressEvent
from cifar_tl.training.checkpoint import State, load_checkpoint, load_weights, save_checkpoint, save_weights
from cifar_tl.training.plan import Leg, plan_legs
from cifar_tl.training.prepare import Emit, Prepared, SplitInputs, counted_progress, inputs_for, prepare_run
from cifar_tl.training.trainer import Progress, Trainer

# Train accuracy is measured on this many images: its standard error is then about one point.
_TRAIN_IMAGES_MEASURED = 2000
_SECONDS_PER_MINUTE = 60


class StopRequested(BaseException):
    """Raised out of long work that is no training step, when a person asks the run to stop. No error, so no Exception."""


@dataclass(frozen=True)
class TrainedRun:
    """What a completed run has in hand: the network with its best weights, its inputs, and the embeddings of all test images."""

    prepared: Prepared
    inputs: SplitInputs
    test_embeddings_NF: np.ndarray


@dataclass(frozen=True)
class _Run:
    """What every part of the story needs. `check` raises StopRequested when a person has asked the run to stop."""

    prepared: Prepared
    folder: RunFolder
    progress: Progress
    emit: Emit
    check: Callable[[], None]
    hand_over: Callable[[TrainedRun], object]

    def checked(self, _images: int) -> None:
        self.check()


def train(
    config: RunConfig,
    folder: RunFolder,
    *,
    emit: Emit,
    should_stop: Callable[[], bool],
    is_resumed: bool = False,
    device: str = "",
    group: Group = ALONE,
    hand_over: Callable[[TrainedRun], object] = lambda _trained: None,
) -> Completed | Stopped:
    """Run the whole job and return how it ended (not emitted here). A resumed run goes on from its newest whole checkpoint.

    `device` is the one of several that this process has to itself, such as "cuda:1"; else the settings decide. In a group all processes
    call this alike; of those that are not the first, `emit` and `should_stop` do nothing, and the caller ends them when the first returns.
    `hand_over` is given what a completed run has in hand, for who wants to go on with it. Raises CifarTLError for what a person can mend.
    """
    progress, state = _resume(folder, emit, group) if is_resumed else (Progress(), None)
    progress.extend_to(config.epochs)

    def check() -> None:
        if should_stop():
            raise StopRequested

    def emit_or_stop(event: Event) -> None:
        emit(event)
        if isinstance(event, ProgressEvent):
            check()

    try:
        run = _Run(prepare_run(config, folder, emit_or_stop, device, group), folder, progress, emit_or_stop, check, hand_over)
        return _train_and_test(run, state)
    except StopRequested:
        best = progress.best_accuracy if progress.best_epoch else None
        return Stopped(step=progress.step, best_dev_accuracy=best, seconds=progress.seconds)


def _resume(folder: RunFolder, emit: Emit, group: Group) -> tuple[Progress, State | None]:
    state, problem = load_checkpoint(folder)
    group.wait()  # all have read the same checkpoint before a newer one can be written
    progress = Progress(**state["progress"]) if state else Progress()
    if group.is_first:
        forget_after(folder, progress.epoch)
    emit(Resumed(step=progress.step, epoch=progress.epoch, seconds=progress.seconds_before, message=problem))
    if problem:
        emit(Warned(message=f"{problem} The run goes on from the one before, at step {progress.step:,}."))
    return progress, state


def _train_and_test(run: _Run, state: State | None) -> Completed:
    legs = plan_legs(run.prepared.config, run.prepared.classifier)
    ahead = [leg for leg in legs if run.progress.epoch < leg.last_epoch] or legs[-1:]
    for leg in ahead:
        run.prepared.classifier.freeze_before(leg.boundary)
        inputs = inputs_for(run.prepared, leg.boundary, run.emit)
        if leg is ahead[0]:
            run.emit(_started(run.prepared))
            run.emit(Phase(name="training", text="Training"))
        _train_leg(run, leg, inputs, state)
        state = None
    return _test(run, inputs) if run.prepared.config.evaluate_test else _leave_test_alone(run)


def _train_leg(run: _Run, leg: Leg, inputs: SplitInputs, state: State | None) -> None:
    """Train what is left of a leg. Raises StopRequested between two steps, with a checkpoint written."""
    trainer = Trainer(run.prepared, leg, inputs.train)
    if state:
        trainer.load_state(state)
    sample = _train_sample(run.prepared, inputs)
    try:
        for epoch in range(max(leg.first_epoch, run.progress.epoch), leg.last_epoch):
            if _patience_is_over(run.prepared.config, leg, run.progress):
                break
            _train_epoch(run, trainer, epoch)
            _finish_epoch(run, trainer, inputs, sample)
    except StopRequested:
        _save_checkpoint(run, trainer)
        raise


def _train_epoch(run: _Run, trainer: Trainer, epoch: int) -> None:
    minutes, saved = run.prepared.config.checkpoint_minutes, time.monotonic()
    for batch_number, positions in trainer.batches(epoch, run.progress):
        run.check()
        trainer.step(positions, run.progress)
        for warning in trainer.take_warnings():
            run.emit(Warned(message=warning))
        if trainer.is_log_due(batch_number, run.progress):
            run.emit(trainer.report(run.progress))
        if time.monotonic() - saved >= minutes * _SECONDS_PER_MINUTE:
            _save_checkpoint(run, trainer)
            saved = time.monotonic()


def _finish_epoch(run: _Run, trainer: Trainer, inputs: SplitInputs, sample: np.ndarray) -> None:
    """Measure train and dev alike, keep the weights, tell."""
    prepared, progress = run.prepared, run.progress
    training_seconds, began = trainer.epoch_seconds, time.monotonic()
    classifier, compute, group = trainer.ready_to_measure(), prepared.compute, prepared.group
    dev, evaluation, _ = collect(
        classifier, inputs.dev, prepared.splits.dev, compute, keep_embeddings=False, progress=run.checked, group=group
    )
    train = measure(classifier, inputs.train, compute, sample, progress=run.checked, group=group)
    trainer.require_finite(progress)
    progress.epoch += 1
    is_best = dev.accuracy > progress.best_accuracy
    if is_best:
        progress.best_accuracy, progress.best_epoch = dev.accuracy, progress.epoch
    if group.is_first:
        save_answers(run.folder.dev_answers_of(progress.epoch), answers_of(evaluation))
        if is_best:
            _keep_best(trainer, evaluation, run.folder)
    seconds = training_seconds + time.monotonic() - began
    eta = trainer.eta(progress, training_seconds / trainer.steps_per_epoch)
    run.emit(_epoch_event(prepared, progress, train, dev, len(sample), is_best, len(trainer.labels_N) / training_seconds, seconds, eta))
    # After the event: a run that is killed between the two measures this epoch again, and no epoch is missing from its curve.
    _save_checkpoint(run, trainer)
    progress.measuring_seconds = time.monotonic() - began


def _keep_best(trainer: Trainer, evaluation: Evaluation, folder: RunFolder) -> None:
    save_weights(folder.best_weights, trainer.best_guess)
    save_evaluation(folder.evaluation_of("dev"), evaluation)


def _save_checkpoint(run: _Run, trainer: Trainer) -> None:
    """Raises NonFiniteLoss instead of keeping weights that are no numbers."""
    trainer.require_finite(run.progress)
    if run.prepared.group.is_first:
        save_checkpoint(run.folder, {"progress": run.progress.state()} | trainer.state())


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


def _test(run: _Run, inputs: SplitInputs) -> Completed:
    """The only look at test, with the epoch that dev chose."""
    prepared, progress = run.prepared, run.progress
    run.emit(Phase(name="testing", text=f"Testing the weights of epoch {progress.best_epoch}"))
    if prepared.group.is_first:
        load_weights(run.folder.best_weights, prepared.classifier)
    prepared.group.same_as_first(iter(prepared.classifier.state_dict().values()))
    told = counted_progress(run.emit, "Testing", len(inputs.test) // prepared.group.size)
    metrics, evaluation, embeddings_NF = collect(
        prepared.classifier, inputs.test, prepared.splits.test, prepared.compute, progress=told, group=prepared.group
    )
    if prepared.group.is_first:
        forget_description(run.folder)  # of a run that was trained longer: the weights are others now
        save_evaluation(run.folder.evaluation_of("test"), evaluation)
    run.hand_over(TrainedRun(prepared, inputs, embeddings_NF))
    return Completed(
        best_epoch=progress.best_epoch,
        best_dev_accuracy=progress.best_accuracy,
        test_accuracy=metrics.accuracy,
        test_top5=metrics.top5,
        test_loss=metrics.loss,
        seconds=progress.seconds,
    )


def _leave_test_alone(run: _Run) -> Completed:
    if run.prepared.group.is_first:
        forget_description(run.folder)
        run.folder.evaluation_of("test").unlink(missing_ok=True)  # of a run that was tested, and then trained longer without
    progress = run.progress
    return Completed(
        best_epoch=progress.best_epoch,
        best_dev_accuracy=progress.best_accuracy,
        test_accuracy=None,
        test_top5=None,
        test_loss=None,
        seconds=progress.seconds,
    )


def _patience_is_over(config: RunConfig, leg: Leg, progress: Progress) -> bool:
    """Counts epochs of the last leg only: a head that has stopped improving is what the rest was waiting for."""
    if leg.last_epoch < config.epochs:
        return False
    counted_from = max(progress.best_epoch, leg.first_epoch, progress.patience_from)
    return 0 < config.early_stopping_patience <= progress.epoch - counted_from


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
        processes=prepared.group.size,
    )
