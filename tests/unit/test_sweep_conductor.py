"""The conductor of a sweep, killed at each step of a trial, and with runs that cannot go on. Workers are made up: they say their last word at once."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cifar_tl.errors import RunActive
from cifar_tl.paths import RunFolder, SweepFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.annotations import read_annotations
from cifar_tl.runs.events import Completed, Event, Failed, Phase, Stopped
from cifar_tl.runs.log import EventWriter
from cifar_tl.runs.queue import RUNS_ON_EACH_DEVICE
from cifar_tl.runs.store import is_alive, read_config, run_ids
from cifar_tl.sweeps import conductor, trials
from cifar_tl.sweeps.conductor import Conductor
from cifar_tl.sweeps.space import parse_dimension, suggest
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus, create_sweep
from cifar_tl.sweeps.study import MACHINE, REASON, REFUSED, RESUMED, RUN, machine_of, open_study, rows_of
from cifar_tl.sweeps.trials import trial_config
from tests.made_runs import hold_lock

SWEEP = Sweep("Trying", {"source": "shapes"}, (parse_dimension("learning_rate=0.001..0.1:log"),), trials=2, pruner=Pruner.NONE)
COMPLETED = Completed(best_epoch=1, best_dev_accuracy=0.5, test_accuracy=None, test_top5=None, test_loss=None, seconds=1.0)
STOPPED = Stopped(step=1, best_dev_accuracy=0.4, seconds=1.0)
FAILED = Failed(error="DataError", message="No disk.", seconds=1.0)

Worker = Callable[[RunFolder], object]


def say(run: RunFolder, *events: Event) -> None:
    with EventWriter(run.events) as log:
        for event in events:
            log.write(event)


class Workers:
    """Stand in for the processes: each start calls `work`, and is noted."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.work: Worker = lambda run: say(run, Phase(name="train", text="Training"), COMPLETED)

    def start(self, folder: RunFolder, lock: int, arguments: Any) -> None:
        folder.stop_request.unlink(missing_ok=True)
        self.started.append(folder.run_id)
        self.work(folder)


@pytest.fixture(autouse=True)
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(RUNS_ON_EACH_DEVICE, "1")
    monkeypatch.setattr(conductor, "LOOK_AGAIN_SECONDS", 0.0)
    made = Workers()
    monkeypatch.setattr(launcher, "_start", made.start)
    return made


@pytest.fixture
def folder() -> SweepFolder:
    return create_sweep(SWEEP)


def asked(folder: SweepFolder, sweep: Sweep = SWEEP, **attributes: Any) -> optuna.Trial:
    """A trial that a conductor which is no more has begun."""
    trial = open_study(folder, sweep).ask()
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    return trial


def made(folder: SweepFolder, machine: str = "", sweep: Sweep = SWEEP) -> tuple[optuna.Trial, RunFolder]:
    """And one whose run's folder was made too."""
    trial = asked(folder, sweep, **{MACHINE: machine or machine_of(folder)})
    return trial, launcher.create_run(trial_config(sweep, trial.number, suggest(trial, sweep.space)))


def states(folder: SweepFolder, sweep: Sweep = SWEEP) -> list[str]:
    return [row.state for row in rows_of(open_study(folder, sweep))]


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_trial_that_never_became_a_run_is_replaced_and_does_not_count(folder, is_marked):
    lost = asked(folder, **({MACHINE: machine_of(folder)} if is_marked else {}))
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    assert states(folder) == ["complete"] * 2
    assert len(run_ids()) == 2
    frozen = open_study(folder, SWEEP).get_trials()[lost.number]
    assert frozen.state is TrialState.FAIL
    assert frozen.user_attrs[REFUSED]


def test_a_run_that_was_made_and_not_noted_is_the_run_of_its_trial(folder):
    trial, run = made(folder)
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    rows = rows_of(open_study(folder, SWEEP))
    assert [row.state for row in rows] == ["complete"] * 2
    assert rows[trial.number].run_id == run.run_id
    assert sorted(row.run_id for row in rows) == sorted(run_ids())


def test_a_trial_goes_on_when_the_machine_has_another_name_or_the_folder_another_place(folder, workers):
    trial, run = made(folder, machine="old-name:/old/place")
    trial.set_user_attr(RUN, run.run_id)
    say(run, Phase(name="train", text="Training"), STOPPED)
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    assert states(folder) == ["complete"] * 2
    assert workers.started[0] == run.run_id
    assert len(run_ids()) == 2


def test_where_machines_share_a_storage_each_adopts_its_own_trials_alone(tmp_path, monkeypatch):
    sweep = replace(SWEEP, storage=f"sqlite:///{tmp_path}/shared.db", trials=4)
    folder = create_sweep(sweep)
    other, fresh = asked(folder, sweep, **{MACHINE: "another:/place"}), asked(folder, sweep)
    assert Conductor(folder, sweep).conduct()[0] is SweepStatus.COMPLETED
    assert states(folder, sweep) == ["running"] * 2 + ["complete"] * 2
    monkeypatch.setattr(trials, "_SECONDS_TO_BE_MARKED", -1.0)  # some time later
    assert Conductor(folder, sweep).conduct()[0] is SweepStatus.COMPLETED
    found = open_study(folder, sweep).get_trials()
    assert found[other.number].state is TrialState.RUNNING
    assert found[fresh.number].state is TrialState.FAIL
    assert found[fresh.number].user_attrs[REFUSED]
    assert states(folder, sweep) == ["running"] + ["complete"] * 3


def test_a_trial_that_was_being_stopped_goes_on_when_it_has(folder):
    trial, run = made(folder)
    trial.set_user_attr(RUN, run.run_id)
    say(run, Phase(name="train", text="Training"))
    run.lock.touch()
    conducting = Conductor(folder, SWEEP)
    with hold_lock(run):
        run.stop_request.touch()
        (opened,) = trials.adopted(conducting.study, SWEEP, "")
        assert not conducting._follow(opened)
    say(run, STOPPED)
    assert not conducting._follow(opened)  # it was started again
    assert conducting._follow(opened)
    assert open_study(folder, SWEEP).get_trials()[0].state is TrialState.COMPLETE


def test_trials_that_failed_alike_before_are_forgiven_when_a_person_continues(workers):
    sweep = replace(SWEEP, trials=9)
    folder = create_sweep(sweep)
    well, workers.work = workers.work, lambda run: say(run, FAILED)
    for _ in range(2):
        failures = len(run_ids())
        with pytest.raises(conductor._Over, match="3 trials failed for the same reason, so the sweep was ended"):
            Conductor(folder, sweep).conduct()
        assert len(run_ids()) == failures + 3
    workers.work = well
    assert Conductor(folder, sweep).conduct() == (SweepStatus.COMPLETED, "")
    assert states(folder, sweep) == ["fail"] * 6 + ["complete"] * 3


def test_a_run_that_cannot_be_read_fails_alone(folder):
    trial, run = made(folder)
    trial.set_user_attr(RUN, run.run_id)
    say(run, Phase(name="train", text="Training"), STOPPED)
    run.config.write_text("{")
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    row, *_ = rows_of(open_study(folder, SWEEP))
    assert row.state == "fail"
    assert "cannot be read" in row.reason
    assert states(folder) == ["fail", "complete"]


def test_a_run_that_is_damaged_while_it_trains_fails_alone(folder, workers):
    def killed(run: RunFolder) -> None:
        say(run, Phase(name="train", text="Training"))
        run.config.write_text("{")
        workers.work = well

    well, workers.work = workers.work, killed
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    assert states(folder) == ["fail", "complete"]
    assert "cannot be read" in rows_of(open_study(folder, SWEEP))[0].reason


def test_a_run_that_a_person_resumes_first_is_followed(folder, workers, monkeypatch):
    def resumed(run_id: str) -> None:
        say(RunFolder(folder.path.parent.parent / run_id), COMPLETED)
        raise RunActive("resumed by a person")

    workers.work = lambda run: say(run, Phase(name="train", text="Training"))
    monkeypatch.setattr(launcher, "resume_run", resumed)
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    assert states(folder) == ["complete"] * 2


def train_until_stopped(run: RunFolder) -> None:
    is_held = threading.Event()

    def train() -> None:
        with hold_lock(run):
            is_held.set()
            while not run.stop_request.exists():
                time.sleep(0.01)
            say(run, STOPPED)

    run.lock.unlink()  # what starts a worker holds the lock meanwhile, and would hand it over
    say(run, Phase(name="train", text="Training"))
    threading.Thread(target=train, daemon=True).start()
    assert is_held.wait(20)


@pytest.mark.parametrize("error", [conductor._Over("no more"), OSError("no disk"), KeyError("a defect")])
def test_whatever_ends_a_sweep_no_run_trains_on_unattended(workers, monkeypatch, error):
    sweep = replace(SWEEP, at_once=2)
    folder = create_sweep(sweep)
    workers.work = train_until_stopped
    conducting, begin = Conductor(folder, sweep), conductor.begin

    def begin_one(sweep: Sweep, trial: optuna.Trial, run: RunFolder) -> Any:
        if conducting.open:
            raise error
        return begin(sweep, trial, run)

    monkeypatch.setattr(conductor, "begin", begin_one)
    with pytest.raises(type(error)):
        conducting.conduct()
    (opened,) = conducting.open
    assert not is_alive(opened.follower.folder)
    assert opened.follower.update().value == "stopped"


def test_a_worker_that_was_killed_before_its_first_word_is_started_again(folder, workers):
    def killed(run: RunFolder) -> None:
        workers.work = well

    well, workers.work = workers.work, killed
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    assert states(folder) == ["complete"] * 2
    assert len(run_ids()) == 2
    assert workers.started[0] == workers.started[1]
    assert open_study(folder, SWEEP).get_trials()[0].user_attrs[RESUMED] == 1


def test_a_worker_that_never_comes_to_its_first_word_is_started_three_times(folder, workers):
    sweep = replace(SWEEP, trials=1)
    workers.work = lambda run: None
    assert Conductor(folder, sweep).conduct() == (SweepStatus.COMPLETED, "")
    assert len(workers.started) == 3
    (row,) = rows_of(open_study(folder, sweep))
    assert (row.state, row.reason) == ("fail", "Its worker vanished.")


def test_what_was_killed_goes_on_each_time_a_person_continues(folder, workers):
    trial, run = made(folder)
    trial.set_user_attr(RUN, run.run_id)
    trial.set_user_attr(RESUMED, 2)
    say(run, Phase(name="train", text="Training"))
    assert Conductor(folder, SWEEP).conduct() == (SweepStatus.COMPLETED, "")
    assert states(folder) == ["complete"] * 2
    assert run.run_id in workers.started


def test_runs_are_named_by_their_number_and_tagged_with_the_name_of_the_sweep():
    sweep = replace(SWEEP, name="Sweep of learning rate, weight decay", trials=1)
    folder = create_sweep(sweep)
    Conductor(folder, sweep).conduct()
    run = RunFolder(folder.path.parent.parent / run_ids()[0])
    assert read_config(run).name == "1 · Sweep of learning rate, weight decay"
    assert read_annotations(run).tags == ("Sweep of learning rate, weigh…",)


def test_threads_are_shared_among_the_cores_this_process_may_use(folder, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(6)), raising=False)
    Conductor(folder, replace(SWEEP, at_once=3))
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.delenv("OMP_NUM_THREADS")


def test_machines_that_begin_together_draw_different_values(tmp_path):
    sweep = replace(SWEEP, storage=f"sqlite:///{tmp_path}/shared.db")
    first, second = create_sweep(sweep), create_sweep(sweep)
    studies = [open_study(folder, sweep) for folder in (first, second)]  # both before there is a trial
    drawn = [suggest(study.ask(), sweep.space)["learning_rate"] for study in studies]
    assert drawn[0] != drawn[1]


def test_a_sweep_alone_draws_the_same_values_each_time():
    studies = [open_study(create_sweep(SWEEP), SWEEP) for _ in range(2)]
    assert len({suggest(study.ask(), SWEEP.space)["learning_rate"] for study in studies}) == 1


def test_a_trial_that_was_given_up_shows_its_best_epoch(folder):
    study = open_study(folder, SWEEP)
    for state in (TrialState.PRUNED, TrialState.FAIL):
        trial = study.ask()
        for epoch, accuracy in enumerate((0.3, 0.6, 0.4), 1):
            trial.report(accuracy, epoch)
        trial.set_user_attr(REASON, "Others did better by then.")
        study.tell(trial, state=state)
    assert [row.accuracy for row in rows_of(study)] == [0.6, 0.6]
