"""The headline numbers of a run, as the metric cards of the live view. Pure: history in, words out."""

from cifar_tl.runs.events import Completed, Epoch
from cifar_tl.runs.history import RunHistory
from cifar_tl.settings import CHOICE_LABELS
from cifar_tl.ui.widgets import NONE_YET, Metric, format_duration, format_percent

_GIB = 1024**3


def live_metrics(history: RunHistory) -> list[Metric]:
    """Best dev accuracy, epoch, speed and memory of a run that has not completed."""
    best, latest = history.best_epoch, history.epochs[-1] if history.epochs else None
    started, step = history.started, history.steps[-1] if history.steps else None
    computes = (
        f"{CHOICE_LABELS.get(started.device, started.device)}, {CHOICE_LABELS.get(started.precision, started.precision)}" if started else ""
    )
    return [
        Metric(
            "Best dev accuracy",
            format_percent(best.dev_accuracy if best else None),
            f"in epoch {best.epoch}" if best else "after the first epoch",
        ),
        Metric(
            "Epochs finished",
            f"{latest.epoch if latest else 0} of {started.epochs}" if started else NONE_YET,
            f"the last one took {format_duration(latest.epoch_seconds)}" if latest else "",
        ),
        Metric("Images per second", f"{step.images_per_second:,.0f}" if step else NONE_YET, computes),
        Metric("Memory", _gib(latest.memory_bytes if latest else None), _gpu(latest) if latest else "measured each epoch"),
    ]


def ended_metrics(history: RunHistory) -> list[Metric]:
    """The results of a completed run."""
    end = history.terminal
    assert isinstance(end, Completed)
    is_tested = end.test_accuracy is not None
    return [
        Metric(
            "Test accuracy",
            format_percent(end.test_accuracy),
            "top-1, measured once" if is_tested else "test was left alone",
            help="With the weights of the best epoch.",
        ),
        Metric("Test accuracy, top-5", format_percent(end.test_top5), "right class among the first five" if is_tested else ""),
        Metric("Best dev accuracy", format_percent(end.best_dev_accuracy), f"in epoch {end.best_epoch}"),
        Metric("Time", format_duration(end.seconds), f"{history.started.train_images:,} training images" if history.started else ""),
    ]


def _gib(size: int | None) -> str:
    return NONE_YET if size is None else f"{size / _GIB:.1f} GiB"


def _gpu(epoch: Epoch) -> str:
    """What the GPU tells of itself; '' where there is none."""
    parts = []
    if epoch.gpu_memory_bytes is not None:
        parts.append(f"GPU {_gib(epoch.gpu_memory_bytes)}")
    if epoch.gpu_use is not None:
        parts.append(f"{epoch.gpu_use:.0%} busy")
    if epoch.gpu_temperature is not None:
        parts.append(f"{epoch.gpu_temperature:.0f} °C")
    return ", ".join(parts) or "of the worker process"
