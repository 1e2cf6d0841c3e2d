"""The process of one sweep: asks Optuna for values, starts a run for each trial, tells Optuna how it does, gives up what lags behind.

Started by `sweeps.launcher` as `python -m cifar_tl conductor SWEEP_DIR`. Every trial is an ordinary run, tagged with the sweep. What a
conductor must know to go on where another was killed lies with the trials in Optuna's study (`sweeps.study`).
"""

import os
import signal
import time
import traceback
from contextlib import suppress
from typing import Any

from optuna.trial import TrialState

from cifar_tl.errors import CifarTLError, RunError, SettingsError
from cifar_tl.models import catalog
from cifar_tl.paths import SweepFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.events import Completed, Failed
from cifar_tl.runs.queue import RUNS_ON_EACH_DEVICE
from cifar_tl.runs.store import RunStatus
from cifar_tl.sweeps.space import suggest
from cifar_tl.sweeps.store import Sweep, SweepStatus, read_sweep, say_last_word
from cifar_tl.sweeps.study import GIVEN_UP, MACHINE, REASON, REFUSED, RESUMED, SPENT, machine_of, open_study
from cifar_tl.sweeps.trials import LOOK_AGAIN_SECONDS, OpenTrial, adopted, ask_to_stop, begin, go_on, leave_out, trial_config

_SPENT_EVERY_SECONDS = 5.0
_MOST_RESUMES = 2  # of a trial whose worker was killed
_MOST_REFUSED = 100  # combinations in a row that the settings do not allow
_ALIKE_FAILURES = 3


class _Over(Exception):
    """The sweep cannot go on; says why."""


def run_conductor(folder: SweepFolder, lock: int) -> int:
    """Conduct the sweep to its end; returns the exit code. `lock`: an inherited file descriptor that holds the sweep's lock."""
    os.set_inheritable(lock, False)
    signal.signal(signal.SIGTERM, lambda *_: folder.stop_request.touch())
    try:
        status, message = Conductor(folder, read_sweep(folder)).conduct()
    except (CifarTLError, _Over) as error:
        status, message = SweepStatus.FAILED, str(error)
    except Exception as error:
        traceback.print_exc()
        status, message = SweepStatus.FAILED, f"{type(error).__name__}: {error}. The traceback is in {folder.log.name}."
    say_last_word(folder, status, message)
    folder.stop_request.unlink(missing_ok=True)
    return 1 if status is SweepStatus.FAILED else 0


class Conductor:
    def __init__(self, folder: SweepFolder, sweep: Sweep) -> None:
        self.folder, self.sweep = folder, sweep
        self.study = open_study(folder, sweep)
        self.began = time.monotonic()
        self.spent_before = float(self.study.user_attrs.get(SPENT, 0.0))
        self.spent_told = 0.0
        self.machine = machine_of(folder)
        self.endings: list[tuple[TrialState, str]] = []  # of the trials that ended under this conductor, with their reasons
        os.environ[RUNS_ON_EACH_DEVICE] = str(sweep.at_once)
        if sweep.at_once > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cpu_count() // sweep.at_once)))
        self.open: list[OpenTrial] = []

    def conduct(self) -> tuple[SweepStatus, str]:
        """How it ended, and why if that needs words. Whichever error ends it, no run trains on with nobody to follow it."""
        try:
            for opened in adopted(self.study, self.sweep, self.machine):
                self.open.append(opened)  # one by one: those before it train when the next cannot
            return self._conduct()
        except Exception:
            ask_to_stop(self.open)
            with suppress(Exception):  # the error may be that nothing can be told any more
                self._tell_spent()
            raise

    def _conduct(self) -> tuple[SweepStatus, str]:
        while True:
            for opened in list(self.open):
                if self._follow(opened):
                    self.open.remove(opened)
            self._require_hope()
            if self.folder.stop_request.exists():
                self._stop_runs()
                return SweepStatus.STOPPED, ""
            if self._is_time_over():
                self._stop_runs()
                for opened in self.open:
                    self._tell(opened, TrialState.PRUNED, reason="The time was over.")
                return SweepStatus.COMPLETED, "The time was over."
            while len(self.open) < self.sweep.at_once and self._counted() < self.sweep.trials:
                self.open.append(self._started())
            if not self.open:
                self._tell_spent()
                return SweepStatus.COMPLETED, ""
            time.sleep(LOOK_AGAIN_SECONDS)

    def _started(self) -> OpenTrial:
        for _ in range(_MOST_REFUSED):
            trial = self.study.ask()
            trial.set_user_attr(MACHINE, self.machine)
            try:
                config = trial_config(self.sweep, trial.number, suggest(trial, self.sweep.space))
                if problems := catalog.problems(config):
                    raise SettingsError(" ".join(problems))
            except SettingsError as error:
                refused = str(error)
                leave_out(self.study, trial, refused)
                continue
            return begin(self.sweep, trial, launcher.create_run(config))
        raise _Over(f"{_MOST_REFUSED} combinations in a row cannot be trained; of the last: {refused}")

    def _follow(self, opened: OpenTrial) -> bool:
        """Tell Optuna what is new; True if the trial is over."""
        status = opened.follower.update()
        history = opened.follower.history
        if not history.epochs or history.epochs[-1].epoch < opened.epochs_told:
            opened.epochs_told = 0  # resumed from an earlier checkpoint: what is told again is ignored
        for epoch in history.epochs[opened.epochs_told :]:
            if epoch.epoch > max(self._reported(opened), default=0):
                opened.trial.report(epoch.dev_accuracy, epoch.epoch)
            opened.epochs_told = epoch.epoch
            if status.is_active and not opened.is_given_up and opened.trial.should_prune():
                opened.trial.set_user_attr(GIVEN_UP, True)
        if status.is_active:
            if opened.is_given_up and not opened.follower.folder.stop_request.exists():
                launcher.request_stop(opened.run_id)
            return False
        return self._end(opened, status, history.terminal)

    def _end(self, opened: OpenTrial, status: RunStatus, ending: Any) -> bool:
        if isinstance(ending, Completed):
            self._tell(opened, TrialState.COMPLETE, ending.best_dev_accuracy)
        elif opened.is_given_up:
            self._tell(opened, TrialState.PRUNED, reason="Others did better by then.")
        elif status is RunStatus.STOPPED and opened.is_stopping:
            return not self._goes_on(opened)
        elif status is RunStatus.STOPPED:
            self._tell(opened, TrialState.PRUNED, reason="Its run was stopped.")
        elif ending is None and (resumed := int(opened.trial.user_attrs.get(RESUMED, 0))) < _MOST_RESUMES:
            opened.trial.set_user_attr(RESUMED, resumed + 1)
            return not self._goes_on(opened)
        else:
            self._tell(opened, TrialState.FAIL, reason=ending.message if isinstance(ending, Failed) else "Its worker vanished.")
        return True

    def _goes_on(self, opened: OpenTrial) -> bool:
        """False if its run cannot: then the trial has failed, and the others go on."""
        try:
            go_on(opened)
        except RunError as error:
            self._tell(opened, TrialState.FAIL, reason=str(error))
            return False
        return True

    def _tell(self, opened: OpenTrial, state: TrialState, accuracy: float | None = None, reason: str = "") -> None:
        if reason:
            opened.trial.set_user_attr(REASON, reason)
        self.study.tell(opened.trial, accuracy, state=state)
        self.endings.append((state, reason))

    def _reported(self, opened: OpenTrial) -> list[int]:
        return list(self.study.get_trials(deepcopy=False)[opened.trial.number].intermediate_values)

    def _stop_runs(self) -> None:
        """Ask the open runs to stop, and wait until they have."""
        self._tell_spent()
        ask_to_stop(self.open)
        for opened in list(self.open):
            opened.follower.update()
            if isinstance(opened.follower.history.terminal, Completed):
                self._follow(opened)
                self.open.remove(opened)

    def _counted(self) -> int:
        return sum(not trial.user_attrs.get(REFUSED) for trial in self.study.get_trials(deepcopy=False))

    def _require_hope(self) -> None:
        """Raises _Over if all trials that ended here failed, and in the same way. What failed before a person chose to continue is forgiven."""
        reasons = {reason for state, reason in self.endings if state is TrialState.FAIL}
        if len(self.endings) < _ALIKE_FAILURES or len(reasons) != 1 or any(state is not TrialState.FAIL for state, _ in self.endings):
            return
        raise _Over(f"{len(self.endings)} trials failed for the same reason, so the sweep was ended. {reasons.pop()}")

    def _is_time_over(self) -> bool:
        spent = self._spent()
        if spent - self.spent_told > _SPENT_EVERY_SECONDS:
            self._tell_spent()
        return self.sweep.minutes is not None and spent > 60 * self.sweep.minutes

    def _spent(self) -> float:
        return self.spent_before + time.monotonic() - self.began

    def _tell_spent(self) -> None:
        self.spent_told = self._spent()
        self.study.set_user_attr(SPENT, self.spent_told)


def _cpu_count() -> int:
    """As `devices.cpu_count`, which needs torch: cores this process may use, fewer than the machine has in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
