"""Sweeps with real runs: each trial an ordinary run; killed, stopped and continued without losing or repeating one."""

import os
import signal
import time
from typing import Any

import psutil
import pytest

from cifar_tl.config import make_config
from cifar_tl.data.shapes import CLASS_NAMES
from cifar_tl.data.sources import prepare
from cifar_tl.paths import RunFolder, SweepFolder, checkpoints_root
from cifar_tl.runs import launcher as run_launcher
from cifar_tl.runs.annotations import read_annotations
from cifar_tl.runs.store import find_run, is_alive, read_config, run_ids
from cifar_tl.runs.summary import summarize
from cifar_tl.sweeps import launcher
from cifar_tl.sweeps.space import parse_dimension
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus, find_sweep, read_sweep, request_stop, status_of
from cifar_tl.sweeps.study import TrialRow, best_of, load_study, rows_of
from tests.integration.test_group import wait_for

BASE: dict[str, Any] = {
    "source": "shapes",
    "classes": CLASS_NAMES[:4],
    "images_per_class": 20,
    "image_size": 32,
    "epochs": 2,
    "batch_size": 10,
    "device": "cpu",
    "precision": "float32",
    "describe": False,
    "evaluate_test": False,
}
LONG = {"epochs": 500, "trainable": "everything", "checkpoint_minutes": 0.01}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        prepare("shapes")
        yield


@pytest.fixture(autouse=True)
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    yield tmp_path
    for process in conductors():
        process.send_signal(signal.SIGTERM)


def started(base: dict[str, Any] | None = None, vary: tuple[str, ...] = ("learning_rate=0.001..0.1:log",), **asked: Any) -> SweepFolder:
    sweep = Sweep("Trying", BASE | (base or {}), tuple(map(parse_dimension, vary)), **{"trials": 3, "pruner": Pruner.NONE} | asked)
    return find_sweep(launcher.start_sweep(sweep))


def rows(folder: SweepFolder) -> list[TrialRow]:
    study = load_study(folder, read_sweep(folder))
    return rows_of(study) if study else []


def end(folder: SweepFolder) -> tuple[SweepStatus, str]:
    wait_for(lambda: status_of(folder)[0] is not SweepStatus.RUNNING, f"the end; {folder.log.read_text() if folder.log.exists() else ''}")
    return status_of(folder)


def conductors() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if "conductor" in (p.info["cmdline"] or []) and p.ppid() == os.getpid()]


def steps_of(run_id: str) -> int:
    folder = RunFolder(checkpoints_root() / (run_id or "none yet"))
    return folder.events.read_text().count('"type":"epoch"') if folder.events.exists() else 0


def test_each_trial_is_an_ordinary_tagged_run_that_leaves_test_alone():
    folder = started(at_once=2)
    assert end(folder) == (SweepStatus.COMPLETED, ""), folder.log.read_text()
    trials = rows(folder)
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert sorted(trial.run_id for trial in trials) == sorted(run_ids())
    for trial in trials:
        run, summary = find_run(trial.run_id), summarize(trial.run_id)
        assert read_annotations(run).tags == ("Trying",)
        assert read_config(run).learning_rate == trial.values["learning_rate"]
        assert summary.best_dev_accuracy == trial.accuracy
        assert summary.test_accuracy is None
        assert not run.evaluation_of("test").exists()
        assert trial.epochs == 2
    best = best_of(trials)
    assert best is not None
    assert best.accuracy == max(trial.accuracy or 0 for trial in trials)
    # The best one is trained longer, and tested then.
    run_launcher.resume_run(best.run_id, epochs=3, is_tested=True)
    wait_for(lambda: not is_alive(find_run(best.run_id)), "the best trial")
    assert summarize(best.run_id).test_accuracy is not None
    assert find_run(best.run_id).evaluation_of("test").exists()


def test_a_run_that_left_test_alone_can_be_tested_as_it_is():
    run_id = run_launcher.start_run(make_config(**BASE))
    wait_for(lambda: not is_alive(find_run(run_id)), "the run")
    weights = find_run(run_id).best_weights.read_bytes()
    run_launcher.resume_run(run_id, is_tested=True)
    wait_for(lambda: not is_alive(find_run(run_id)), "its test")
    summary = summarize(run_id)
    assert summary.test_accuracy is not None
    assert find_run(run_id).best_weights.read_bytes() == weights


def test_a_killed_conductor_loses_no_trial_and_repeats_none():
    folder = started(LONG | {"epochs": 8}, trials=3)
    wait_for(lambda: any(steps_of(row.run_id) for row in rows(folder)), "the first trial")
    (conductor,) = conductors()
    conductor.kill()
    wait_for(lambda: status_of(folder)[0] is SweepStatus.LOST, "its end")
    first = rows(folder)[0]
    assert first.state == "running"
    launcher.continue_sweep(folder.sweep_id)
    assert end(folder)[0] is SweepStatus.COMPLETED, folder.log.read_text()
    trials = rows(folder)
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert trials[0].run_id == first.run_id
    assert len({trial.run_id for trial in trials}) == 3 == len(run_ids())
    assert len({trial.values["learning_rate"] for trial in trials}) == 3  # a sampler that begins again draws anew


def test_stop_takes_the_runs_along_and_continue_goes_on_with_them():
    folder = started(LONG | {"epochs": 20}, trials=2, at_once=2)
    wait_for(lambda: len([row for row in rows(folder) if steps_of(row.run_id)]) == 2, "two trials at once")
    assert request_stop(folder.sweep_id)
    assert end(folder)[0] is SweepStatus.STOPPED
    assert not any(is_alive(find_run(row.run_id)) for row in rows(folder))
    launcher.continue_sweep(folder.sweep_id)
    assert end(folder)[0] is SweepStatus.COMPLETED, folder.log.read_text()
    assert [(row.state, row.epochs) for row in rows(folder)] == [("complete", 20)] * 2
    assert len(run_ids()) == 2


def test_a_trial_whose_worker_is_killed_goes_on():
    folder = started(LONG | {"epochs": 20}, trials=1)
    wait_for(lambda: any(steps_of(row.run_id) > 2 for row in rows(folder)), "epochs")
    run = find_run(rows(folder)[0].run_id)
    worker = next(p for p in psutil.process_iter(["cmdline"]) if str(run.path) in (p.info["cmdline"] or []))
    worker.kill()
    assert end(folder)[0] is SweepStatus.COMPLETED, folder.log.read_text()
    assert [(row.state, row.epochs) for row in rows(folder)] == [("complete", 20)]
    assert '"type":"resumed"' in run.events.read_text()


def test_what_lags_behind_is_given_up():
    # A learning rate near nothing learns nothing: after four trials the median pruner gives those up.
    folder = started({"epochs": 90, "source": "shapes"}, vary=("learning_rate=1e-7,0.02",), trials=9, pruner=Pruner.MEDIAN, at_once=2)
    assert end(folder)[0] is SweepStatus.COMPLETED, folder.log.read_text()
    pruned = [row for row in rows(folder) if row.state == "pruned"]
    assert pruned
    assert all(row.epochs < 90 and row.reason == "Others did better by then." for row in pruned)
    assert all(summarize(row.run_id).status.value == "stopped" for row in pruned)


def test_when_the_time_is_over_the_sweep_ends():
    folder = started(LONG, trials=5, minutes=0.2)
    began = time.monotonic()
    assert end(folder) == (SweepStatus.COMPLETED, "The time was over.")
    assert time.monotonic() - began < 60
    (row,) = rows(folder)
    assert (row.state, row.reason) == ("pruned", "The time was over.")


def test_trials_that_all_fail_alike_end_the_sweep_with_their_reason():
    folder = started({"classes": ("circle", "no such class")}, trials=50)
    status, message = end(folder)
    assert status is SweepStatus.FAILED
    assert message.startswith("3 trials failed for the same reason")
    assert "no such class" in message
    assert len(rows(folder)) == 3


def test_combinations_that_cannot_be_are_passed_over():
    vary = ("trainable=head,head_then_everything", "head_epochs=1,7")
    folder = started(vary=vary, trials=4)
    assert end(folder)[0] is SweepStatus.COMPLETED, folder.log.read_text()
    assert [row.state for row in rows(folder)] == ["complete"] * 4
    assert all((row.values["trainable"], row.values["head_epochs"]) != ("head_then_everything", 7) for row in rows(folder))
