"""The process of one sweep: asks Optuna for values, starts a run for each trial, tells Optuna how it does, gives up what lags behind.

Started by `sweeps.launcher` as `python -m cifar_tl conductor SWEEP_DIR`. Every trial is an ordinary run, tagged with the sweep. What a
conductor must know to go on where another was killed lies with the trials in Optuna's study (`sweeps.study`).
"""

import os
import signal
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from cifar_tl.errors import CifarTLError, RunError, SettingsError
from cifar_tl.models import catalog
from cifar_tl.paths import SweepFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.annotations import MAX_TAG_LENGTH, annotate
from cifar_tl.runs.events import Completed, Failed, Progress, Step
from cifar_tl.runs.queue import RUNS_ON_EACH_DEVICE
from cifar_tl.runs.store import RunFollower, RunStatus, find_run, is_alive
from cifar_tl.sweeps.space import config_of, suggest
from cifar_tl.sweeps.store import Sweep, SweepStatus, read_sweep, say_last_word
from cifar_tl.sweeps.study import GIVEN_UP, MACHINE, REASON, REFUSED, RESUMED, RUN, SPENT, open_study

_LOOK_AGAIN_SECONDS = 0.2
_SPENT_EVERY_SECONDS = 5.0
_MOST_RESUMES = 2  # of a trial whose worker was killed
_MOST_REFUSED = 100  # combinations in a row that the settings do not allow
_ALIKE_FAILURES = 3
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class _Over(Exception):
    """The sweep cannot go on; says why."""


@dataclass
class _Open:
    """A trial that runs, and its run."""

    trial: optuna.Trial
    follower: RunFollower
    epochs_told: int = 0

    @property
    def run_id(self) -> str:
        return self.follower.folder.run_id


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
        self.machine = f"{socket.gethostname()}:{folder.path}"
        os.environ[RUNS_ON_EACH_DEVICE] = str(sweep.at_once)
        if sweep.at_once > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // sweep.at_once)))
        self.open = self._adopted()

    def conduct(self) -> tuple[SweepStatus, str]:
        """How it ended, and why if that needs words."""
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
            time.sleep(_LOOK_AGAIN_SECONDS)

    def _adopted(self) -> list[_Open]:
        """Trials that a conductor of this sweep left open. One that was not yet a run, or whose run is gone, has failed."""
        found = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get(MACHINE) != self.machine:
                continue
            try:
                run = find_run(frozen.user_attrs.get(RUN, ""))
            except RunError:
                self.study.tell(frozen.number, state=TrialState.FAIL)
                continue
            opened = _Open(optuna.Trial(self.study, frozen._trial_id), RunFollower(run, leave_out=(Step, Progress)))
            opened.epochs_told = max(frozen.intermediate_values, default=0)
            if (
                not is_alive(run)
                and opened.follower.update() in (RunStatus.STOPPED, RunStatus.FAILED)
                and not frozen.user_attrs.get(GIVEN_UP)
            ):
                if opened.follower.history.terminal is None:  # made, and never begun
                    launcher.start_worker(run)
                elif not isinstance(opened.follower.history.terminal, Failed):
                    launcher.resume_run(run.run_id)
            found.append(opened)
        return found

    def _started(self) -> _Open:
        for _ in range(_MOST_REFUSED):
            trial = self.study.ask()
            trial.set_user_attr(MACHINE, self.machine)
            try:
                config = config_of(self.sweep.base, suggest(trial, self.sweep.space))
                if problems := catalog.problems(config):
                    raise SettingsError(" ".join(problems))
            except SettingsError as error:
                trial.set_user_attr(REFUSED, True)
                trial.set_user_attr(REASON, str(error))
                self.study.tell(trial, state=TrialState.FAIL)
                refused = str(error)
                continue
            name = f"{self.sweep.name} · {trial.number + 1}"[:100]
            run = launcher.create_run(config.model_copy(update={"name": name}))
            trial.set_user_attr(RUN, run.run_id)
            annotate(run.run_id, tags=(sweep_tag(self.folder),))
            launcher.start_worker(run)
            return _Open(trial, RunFollower(run, leave_out=(Step, Progress)))
        raise _Over(f"{_MOST_REFUSED} combinations in a row cannot be trained; of the last: {refused}")

    def _follow(self, opened: _Open) -> bool:
        """Tell Optuna what is new; True if the trial is over."""
        status = opened.follower.update()
        history, attributes = opened.follower.history, opened.trial.user_attrs
        if not history.epochs or history.epochs[-1].epoch < opened.epochs_told:
            opened.epochs_told = 0  # resumed from an earlier checkpoint: what is told again is ignored
        for epoch in history.epochs[opened.epochs_told :]:
            if epoch.epoch > max(self._reported(opened), default=0):
                opened.trial.report(epoch.dev_accuracy, epoch.epoch)
            opened.epochs_told = epoch.epoch
            if status.is_active and not attributes.get(GIVEN_UP) and opened.trial.should_prune():
                opened.trial.set_user_attr(GIVEN_UP, True)
        if status.is_active:
            if opened.trial.user_attrs.get(GIVEN_UP) and not opened.follower.folder.stop_request.exists():
                launcher.request_stop(opened.run_id)
            return False
        return self._end(opened, status, history.terminal)

    def _end(self, opened: _Open, status: RunStatus, ending: Any) -> bool:
        if isinstance(ending, Completed):
            self._tell(opened, TrialState.COMPLETE, ending.best_dev_accuracy)
        elif opened.trial.user_attrs.get(GIVEN_UP):
            self._tell(opened, TrialState.PRUNED, reason="Others did better by then.")
        elif status is RunStatus.STOPPED:
            self._tell(opened, TrialState.PRUNED, reason="Its run was stopped.")
        elif status is RunStatus.LOST and (resumed := int(opened.trial.user_attrs.get(RESUMED, 0))) < _MOST_RESUMES:
            opened.trial.set_user_attr(RESUMED, resumed + 1)
            launcher.resume_run(opened.run_id)
            return False
        else:
            self._tell(opened, TrialState.FAIL, reason=ending.message if isinstance(ending, Failed) else "Its worker vanished.")
        return True

    def _tell(self, opened: _Open, state: TrialState, accuracy: float | None = None, reason: str = "") -> None:
        if reason:
            opened.trial.set_user_attr(REASON, reason)
        self.study.tell(opened.trial, accuracy, state=state)

    def _reported(self, opened: _Open) -> list[int]:
        return list(self.study.get_trials(deepcopy=False)[opened.trial.number].intermediate_values)

    def _stop_runs(self) -> None:
        """Ask the open runs to stop, and wait until they have."""
        self._tell_spent()
        for opened in self.open:
            launcher.request_stop(opened.run_id)
        while any(is_alive(opened.follower.folder) for opened in self.open):
            time.sleep(_LOOK_AGAIN_SECONDS)
        for opened in list(self.open):
            opened.follower.update()
            if isinstance(opened.follower.history.terminal, Completed):
                self._follow(opened)
                self.open.remove(opened)

    def _counted(self) -> int:
        return sum(not trial.user_attrs.get(REFUSED) for trial in self.study.get_trials(deepcopy=False))

    def _require_hope(self) -> None:
        """Raises _Over if the last trials all failed in the same way and none ever did not."""
        ended = [t for t in self.study.get_trials(deepcopy=False, states=ENDED) if not t.user_attrs.get(REFUSED)]
        reasons = [trial.user_attrs.get(REASON, "") for trial in ended if trial.state is TrialState.FAIL]
        if len(ended) == len(reasons) >= _ALIKE_FAILURES and len(set(reasons)) == 1:
            self._stop_runs()
            raise _Over(f"{len(ended)} trials failed for the same reason, so the sweep was ended. {reasons[0]}")

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


def sweep_tag(folder: SweepFolder) -> str:
    """The tag of a sweep's runs."""
    return f"sweep {folder.sweep_id}"[:MAX_TAG_LENGTH]
