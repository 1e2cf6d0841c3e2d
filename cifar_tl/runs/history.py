"""RunHistory: the events of a run folded into curves and latest facts, as pages and summaries show them.

Holds no file: feed it records. Calls nothing of Streamlit; several sessions may share one instance behind a lock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cifar_tl.runs.events import TERMINAL, Completed, Epoch, Event, Failed, Phase, Progress, Record, Resumed, Started, Step, Stopped, Warned


@dataclass
class RunHistory:
    """Everything a run has said so far. Lists grow in the order of the log; `steps` holds logged steps only."""

    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    started: Started | None = None
    phase: Phase | None = None
    progress: Progress | None = None
    terminal: Completed | Stopped | Failed | None = None
    first_time: float | None = None
    last_time: float | None = None
    version: int = 0  # grows with every event
    seconds_before: float = 0.0  # spent before the run was last resumed

    def extend(self, records: Iterable[Record]) -> bool:
        """Fold more records in; True if there were any."""
        before = self.version
        for record in records:
            self.version += 1
            self.first_time = record.time if self.first_time is None else self.first_time
            self._fold(record.event, record.time)
            self.last_time = record.time
        return self.version > before

    def _fold(self, event: Event, time: float) -> None:
        if isinstance(event, Step):
            self.steps.append(event)
        elif isinstance(event, Epoch):
            self.epochs.append(event)
        elif isinstance(event, Progress):
            self.progress = event
        elif isinstance(event, Phase):
            # Neither the time between an end and a resumption is part of the run, nor the wait for a device.
            if event.name == "resuming":
                self.seconds_before, self.first_time = self.seconds or 0.0, time
            elif self.is_queued and event.name != "queued":
                self.first_time = time
            self.phase, self.progress, self.terminal = event, None, None
        elif isinstance(event, Warned):
            self.warnings.append(event)
        elif isinstance(event, Started):
            self.started = event
        elif isinstance(event, Resumed):
            self._forget_after(event)
            self.first_time, self.seconds_before = time, event.seconds
        elif isinstance(event, TERMINAL):
            self.terminal = event

    @property
    def is_queued(self) -> bool:
        """True while its last word is that it waits for a device."""
        return self.phase is not None and self.phase.name == "queued" and self.terminal is None

    @property
    def has_begun(self) -> bool:
        """False before the first word of a worker, and of the worker that was started to go on."""
        return self.phase is not None and self.phase.name != "resuming"

    def _forget_after(self, resumed: Resumed) -> None:
        """What was logged after the checkpoint is logged again."""
        kept = sum(step.step <= resumed.step for step in self.steps)
        del self.steps[kept:]
        self.epochs = [epoch for epoch in self.epochs if epoch.epoch <= resumed.epoch]

    @property
    def best_epoch(self) -> Epoch | None:
        """The epoch of highest dev accuracy so far, the earliest of equals."""
        return max(self.epochs, key=lambda epoch: epoch.dev_accuracy, default=None)

    @property
    def total_steps(self) -> int | None:
        return self.started.epochs * self.started.steps_per_epoch if self.started else None

    @property
    def fraction_done(self) -> float:
        """Of the optimizer steps of the whole run, in [0, 1]."""
        if isinstance(self.terminal, Completed):
            return 1.0
        if not self.steps or not self.total_steps:
            return 0.0
        return min(1.0, self.steps[-1].step / self.total_steps)

    @property
    def eta_seconds(self) -> float | None:
        """Expected seconds until training ends, as last told by the worker."""
        return self.steps[-1].eta_seconds if self.steps and self.terminal is None else None

    @property
    def seconds(self) -> float | None:
        """How long the run took, or has taken by its last event."""
        if self.terminal is not None:
            return self.terminal.seconds
        if self.is_queued:
            return self.seconds_before or None
        if self.first_time is None or self.last_time is None:
            return None
        return self.seconds_before + max(0.0, self.last_time - self.first_time)  # clocks are set back
