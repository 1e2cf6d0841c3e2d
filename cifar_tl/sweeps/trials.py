"""A trial and its run: begun, gone on with, adopted from a conductor that is no more. `sweeps.conductor` decides when.

A trial is begun in steps, and a conductor may be killed between any two of them:
(1) Optuna makes the trial, (2) it is marked with the machine, (3) values are drawn, (4) the run's folder is made,
(5) the run is noted with the trial, (6) the worker starts.
Until (4) nothing is lost: such a trial is left out, and another takes its place. After (4) the trial goes on with that run.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import sleep

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from cifar_tl.config import RunConfig
from cifar_tl.errors import RunActive, RunError, SettingsError
from cifar_tl.paths import RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.annotations import MAX_NAME_LENGTH, MAX_TAG_LENGTH, annotate
from cifar_tl.runs.events import Failed, Progress, Step
from cifar_tl.runs.names import one_line
from cifar_tl.runs.store import RunFollower, RunStatus, find_run, is_alive, read_config, run_ids
from cifar_tl.sweeps.space import Value, config_of
from cifar_tl.sweeps.store import Sweep
from cifar_tl.sweeps.study import GIVEN_UP, MACHINE, REASON, REFUSED, RUN

LOOK_AGAIN_SECONDS = 0.2
_SECONDS_TO_BE_MARKED = 60.0  # steps (1) to (2) take milliseconds
_CLOCK_SECONDS = 2.0  # file times and the clock may differ by so much


@dataclass
class OpenTrial:
    """A trial that runs, and its run. `is_stopping`: an earlier conductor asked the run to stop; the trial goes on when it has."""

    trial: optuna.Trial
    follower: RunFollower
    epochs_told: int = 0
    is_stopping: bool = False

    @property
    def run_id(self) -> str:
        return self.follower.folder.run_id

    @property
    def is_given_up(self) -> bool:
        return bool(self.trial.user_attrs.get(GIVEN_UP))


def trial_config(sweep: Sweep, number: int, values: dict[str, Value]) -> RunConfig:
    """Settings of a trial's run, with its name. Raises SettingsError for values that do not go together."""
    name = one_line(f"{number + 1} · {sweep.name}")[:MAX_NAME_LENGTH]
    return config_of(sweep.base, values).model_copy(update={"name": name})


def sweep_tag(sweep: Sweep) -> str:
    """The tag of a sweep's runs, for people: its name. Which run a trial is stands in the study."""
    name = one_line(sweep.name) or "sweep"
    return name if len(name) <= MAX_TAG_LENGTH else name[: MAX_TAG_LENGTH - 1].rstrip() + "…"


def begin(sweep: Sweep, trial: optuna.Trial, run: RunFolder) -> OpenTrial:
    """Raises RunError."""
    trial.set_user_attr(RUN, run.run_id)
    annotate(run.run_id, tags=(sweep_tag(sweep),))
    launcher.start_worker(run)
    return _opened(trial, run)


def go_on(opened: OpenTrial) -> None:
    """Start the worker of its run again. Raises RunError if the run cannot go on."""
    opened.is_stopping = False
    with suppress(RunActive):  # a person has resumed it: it is followed as it is
        if opened.follower.history.version:
            launcher.resume_run(opened.run_id)
        else:  # its worker was killed before its first word, or never started
            launcher.start_worker(opened.follower.folder)


def leave_out(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    """A trial that never was a run: it does not count, and another takes its place."""
    with suppress(UpdateFinishedTrialError):  # where machines share a study, another one was quicker
        trial.set_user_attr(REFUSED, True)  # first, as whoever is killed after it leaves a trial that does not count either
        fail(study, trial, reason)


def fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    trial.set_user_attr(REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


def adopted(study: optuna.Study, sweep: Sweep, machine: str) -> Iterator[OpenTrial]:
    """Trials that an earlier conductor of this sweep left open, each of them under way when it is given."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_ours(frozen, sweep, machine):
            continue
        trial = optuna.Trial(study, frozen._trial_id)
        try:
            opened = _adopted(sweep, trial, frozen)
        except RunError as error:
            fail(study, trial, str(error))
            continue
        if opened is None:
            leave_out(study, trial, "The sweep was interrupted before its run was made.")
        else:
            yield opened


def ask_to_stop(trials: Iterable[OpenTrial]) -> None:
    """Ask their runs to stop, and wait until they have."""
    asked = []
    for opened in trials:
        with suppress(RunError):  # its folder is gone, or nothing can be written there: the others are stopped all the same
            launcher.request_stop(opened.run_id)
            asked.append(opened.follower.folder)
    while any(map(is_alive, asked)):
        sleep(LOOK_AGAIN_SECONDS)


def _opened(trial: optuna.Trial, run: RunFolder) -> OpenTrial:
    return OpenTrial(trial, RunFollower(run, leave_out=(Step, Progress)))


def _is_ours(frozen: FrozenTrial, sweep: Sweep, machine: str) -> bool:
    """A study in the sweep's own folder is its alone, whatever the machine is called now and wherever the folder lies."""
    if not sweep.storage:
        return True
    if owner := frozen.user_attrs.get(MACHINE):
        return bool(owner == machine)
    started = frozen.datetime_start or datetime.min
    return datetime.now() - started > timedelta(seconds=_SECONDS_TO_BE_MARKED)


def _adopted(sweep: Sweep, trial: optuna.Trial, frozen: FrozenTrial) -> OpenTrial | None:
    """None if the trial never was a run. Raises RunError if its run is gone, or cannot go on."""
    if RUN not in frozen.user_attrs:
        run = _run_made_for(sweep, frozen)
        return begin(sweep, trial, run) if run else None
    opened = _opened(trial, find_run(frozen.user_attrs[RUN]))
    opened.epochs_told = max(frozen.intermediate_values, default=0)
    folder, status = opened.follower.folder, opened.follower.update()
    if opened.is_given_up:
        return opened
    if is_alive(folder):
        opened.is_stopping = folder.stop_request.exists()
    elif status is not RunStatus.COMPLETED and not isinstance(opened.follower.history.terminal, Failed):
        go_on(opened)
    return opened


def _run_made_for(sweep: Sweep, frozen: FrozenTrial) -> RunFolder | None:
    """The run whose folder was made, and not noted with the trial any more: it has the trial's settings, and nothing happened in it."""
    if set(frozen.params) != {dimension.name for dimension in sweep.space} or frozen.datetime_start is None:
        return None
    try:
        config = trial_config(sweep, frozen.number, frozen.params)
    except SettingsError:
        return None
    since = frozen.datetime_start.timestamp() - _CLOCK_SECONDS
    for run_id in run_ids():
        with suppress(RunError, OSError):
            run = find_run(run_id)
            is_untouched = not run.events.exists() and not is_alive(run) and run.config.stat().st_mtime >= since
            if is_untouched and read_config(run) == config:
                return run
    return None
