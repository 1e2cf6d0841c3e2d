"""Where a living run is, as a share and a sentence. Pure; the live view draws it."""

from dataclasses import dataclass

from cifar_tl.runs.events import Progress
from cifar_tl.runs.history import RunHistory
from cifar_tl.ui.widgets import format_duration, format_percent

_MIB = 1024 * 1024


@dataclass(frozen=True)
class RunProgress:
    """`fraction` in [0, 1] of what `text` speaks of."""

    fraction: float
    text: str


def progress_of(history: RunHistory) -> RunProgress:
    """Of the whole training once it goes on; before that (and while testing) of the present phase."""
    if history.phase is None:
        return RunProgress(0.0, "Starting…")
    if history.phase.name == "training":
        return _training(history)
    if history.progress is not None and history.progress.total > 0:
        fraction = min(1.0, history.progress.done / history.progress.total)
        return RunProgress(fraction, f"{history.progress.text} · {_amount(history.progress)}")
    return RunProgress(history.fraction_done, f"{history.phase.text}…")


def _training(history: RunHistory) -> RunProgress:
    if history.started is None or not history.steps:
        return RunProgress(0.0, "Training · waiting for the first step…")
    epoch = min(int(history.steps[-1].epoch) + 1, history.started.epochs)
    left = f" · about {format_duration(history.eta_seconds)} left" if history.eta_seconds is not None else ""
    return RunProgress(history.fraction_done, f"Epoch {epoch} of {history.started.epochs} · {format_percent(history.fraction_done)}{left}")


def _amount(progress: Progress) -> str:
    if progress.unit == "bytes":
        return f"{progress.done / _MIB:.1f} of {progress.total / _MIB:.1f} MiB"
    return f"{progress.done:,} of {progress.total:,} {progress.unit}"
