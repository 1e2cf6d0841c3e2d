"""How far something is, as a share and a sentence: a living run, or one thing that counts up. Pure; the live view and the gallery draw it."""

from dataclasses import dataclass

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
        now = history.progress
        return counted_progress(now.text, now.done, now.total, now.unit)
    return RunProgress(history.fraction_done, f"{history.phase.text}…")


def _training(history: RunHistory) -> RunProgress:
    if history.started is None or not history.steps:
        return RunProgress(0.0, "Training · waiting for the first step…")
    epoch = min(int(history.steps[-1].epoch) + 1, history.started.epochs)
    left = f" · about {format_duration(history.eta_seconds)} left" if history.eta_seconds is not None else ""
    return RunProgress(history.fraction_done, f"Epoch {epoch} of {history.started.epochs} · {format_percent(history.fraction_done)}{left}")


def counted_progress(text: str, done: int, total: int, unit: str) -> RunProgress:
    """Of one thing that counts up, such as a download ("bytes" are shown as MiB); `total` 0 means unknown."""
    if total == 0:
        return RunProgress(0.0, f"{text}…")
    amount = f"{done / _MIB:.1f} of {total / _MIB:.1f} MiB" if unit == "bytes" else f"{done:,} of {total:,} {unit}"
    return RunProgress(min(1.0, done / total), f"{text} · {amount}")
