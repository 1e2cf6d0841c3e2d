"""What the commands show on standard error while they work: a bar where a terminal redraws it, plain lines where it goes to a file."""

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from cifar_tl.data import sources
from cifar_tl.runs.history import RunHistory

_SECONDS_BETWEEN_LINES = 10.0  # of a bar that nobody sees move


class PhaseBar:
    """A tqdm bar for work that is counted, one bar per phase; none where nobody looks."""

    def __init__(self, *, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._bar: Any = None
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: sources.Progress) -> None:
        if progress.phase != self._phase:
            if self._bar is not None:
                self._bar.close()
            self._phase = progress.phase
            unit = "B" if progress.unit == "bytes" else f" {progress.unit}"
            self._bar = tqdm(
                desc=progress.phase,
                total=progress.total,
                unit=unit,
                unit_scale=progress.unit == "bytes",
                file=sys.stderr,
                mininterval=0.1 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES,
                disable=not self._is_shown,
            )
        self._bar.update(progress.done - self._bar.n)


class StatusBar:
    """One bar with a text that says what goes on; a line for each new text where no terminal redraws it."""

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=1.0,
            bar_format="{desc} |{bar}| {percentage:3.0f}%",
            file=sys.stderr,
            dynamic_ncols=True,
            disable=not self.is_terminal,
        )
        self._text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.close()

    def show(self, text: str, share: float) -> None:
        """`share`: how much is done, 0 to 1."""
        if self.is_terminal:
            self._bar.n = round(share, 4)
            self._bar.set_description_str(text)
        elif text != self._text:
            print(text, file=sys.stderr, flush=True)
        self._text = text


class RunBar:
    """How far a run is: a bar with its newest numbers; a line for each phase and each epoch where no terminal redraws it."""

    def __init__(self) -> None:
        self._bar = StatusBar()
        self._epochs_told = self._warnings_told = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.__exit__(kind, error, traceback)

    def show(self, history: RunHistory) -> None:
        for warning in history.warnings[self._warnings_told :]:
            tqdm.write(f"warning: {warning.message}", file=sys.stderr)  # above the bar
        self._warnings_told = len(history.warnings)
        if self._bar.is_terminal:
            self._bar.show(_now(history), _share(history))
        else:
            self._tell(history)

    def _tell(self, history: RunHistory) -> None:
        of = history.started.epochs if history.started else len(history.epochs)
        self._epochs_told = min(self._epochs_told, len(history.epochs))  # a resumed run repeats what came after its checkpoint
        for epoch in history.epochs[self._epochs_told :]:
            print(f"epoch {epoch.epoch}/{of}: train {epoch.train_accuracy:.1%}, dev {epoch.dev_accuracy:.1%}", file=sys.stderr, flush=True)
        self._epochs_told = len(history.epochs)
        if history.phase:
            self._bar.show(history.phase.text, 0.0)


def _now(history: RunHistory) -> str:
    if history.phase is None:
        return "Starting"
    if history.phase.name != "training" or not history.steps:
        return history.progress.text if history.progress else history.phase.text
    step = history.steps[-1]
    epochs = history.started.epochs if history.started else 0
    text = f"epoch {min(int(step.epoch) + 1, epochs)}/{epochs}, loss {step.loss:.3f}, {step.images_per_second:.0f} images/s"
    if history.epochs:
        text += f", train {history.epochs[-1].train_accuracy:.1%}, dev {history.epochs[-1].dev_accuracy:.1%}"
    return text


def _share(history: RunHistory) -> float:
    if history.progress and history.progress.total and history.phase and history.phase.name != "training":
        return min(1.0, history.progress.done / history.progress.total)
    return history.fraction_done
