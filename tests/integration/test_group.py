"""Several processes train one run: the same losses as one process, every image once, and an ending in words whatever dies."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from cifar_tl.config import make_config
from cifar_tl.data.shapes import CLASS_NAMES
from cifar_tl.data.sources import prepare
from cifar_tl.devices import cpu_count
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.events import Completed, Failed, Resumed, Stopped
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.store import RunFollower, RunStatus, find_run, is_alive
from cifar_tl.training import launch
from cifar_tl.training.checkpoint import load_checkpoint, save_checkpoint

# Four classes, 80 images, 8 steps an epoch. Batch norms frozen and no dropout, or a process would have its own.
CONFIG: dict[str, Any] = {
    "source": "shapes",
    "classes": CLASS_NAMES[:4],
    "images_per_class": 20,
    "image_size": 32,
    "epochs": 2,
    "batch_size": 10,
    "device": "cpu",
    "precision": "float32",
    "trainable": "everything",
    "learning_rate": 0.001,
    "dropout": 0.0,
    "log_every_steps": 1,
    "describe": False,
}
CHANGED = {"crop": True, "trivial_augment": True, "random_erasing": 0.3, "ema_decay": 0.9, "class_balance": "weighted_loss"}
LONG = {"epochs": 400, "checkpoint_minutes": 0.005}
SECONDS = 240.0


@pytest.fixture(scope="module", autouse=True)
def roots(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path_factory.mktemp("checkpoints")))
        patch.setenv("OMP_NUM_THREADS", "1")
        prepare("shapes")
        yield


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


class Started:
    """A run that was started, and its log as it grows."""

    def __init__(self, on: str = launcher.HERE, **changes: Any) -> None:
        self.folder = find_run(launcher.start_run(make_config(**CONFIG | changes), on))
        self.follower = RunFollower(self.folder)

    @property
    def history(self) -> RunHistory:
        return self.follower.history

    def until(self, condition: Callable[[RunHistory], Any], what: str) -> None:
        def is_so() -> bool:
            status = self.follower.update()
            log = self.folder.worker_log.read_text() if self.folder.worker_log.exists() else ""
            assert status is not RunStatus.LOST or condition(self.history), log
            return bool(condition(self.history))

        wait_for(is_so, what)

    def end(self) -> Any:
        self.until(lambda history: history.terminal, "the last word")
        wait_for(lambda: not is_alive(self.folder), "the worker to leave")
        return self.history.terminal

    def resume(self, **changes: Any) -> None:
        if "processes" in changes:  # as a person would who edits config.json, or moves the folder to a machine with more GPUs
            from cifar_tl.runs.store import read_config, write_json

            config = read_config(self.folder).model_copy(update={"processes": changes.pop("processes")})
            write_json(self.folder.config, config.model_dump(mode="json"))
        launcher.resume_run(self.folder.run_id, **changes)

    def processes(self) -> dict[int, psutil.Process]:
        """By their index."""
        found = {}
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] and process.info["cmdline"][-2:] == ["rank", str(self.folder.path)]:
                found[int(process.environ()["RANK"])] = process
        return found

    def worker(self) -> psutil.Process:
        return next(iter(self.processes().values())).parent() or pytest.fail("no worker")


def losses(run: Started) -> list[float]:
    history = run.history
    per_epoch = [loss for epoch in history.epochs for loss in (epoch.train_loss, epoch.dev_loss)]
    assert isinstance(history.terminal, Completed), history.terminal
    return [*(step.loss for step in history.steps), *per_epoch, history.terminal.test_loss]


@pytest.mark.parametrize(
    "changes",
    [CHANGED, {"trainable": "head", "cached_views": 2, "crop": True}, {"trainable": "head_then_everything", "head_epochs": 1}],
    ids=["everything", "head", "head first"],
)
def test_two_and_three_processes_train_as_one_does(changes):
    runs = []
    for processes in (1, 2, 3):
        run = Started(**changes, processes=processes)
        run.end()
        runs.append(run)
    one = losses(runs[0])
    assert len(one) == 16 + 2 * 2 + 1
    for run in runs[1:]:
        assert losses(run) == pytest.approx(one, abs=1e-4)
        assert [step.batch_accuracy for step in run.history.steps] == [step.batch_accuracy for step in runs[0].history.steps]
        assert [step.step for step in run.history.steps] == list(range(1, 17))


def test_every_image_is_evaluated_once_by_three_processes():
    run = Started(processes=3, epochs=1, classes=CLASS_NAMES[:5])
    run.end()
    assert run.history.started is not None
    assert run.history.started.processes == 3
    for split, count in (("dev", run.history.started.dev_images), ("test", run.history.started.test_images)):
        evaluation = load_evaluation(run.folder.evaluation_of(split))
        assert count % 3  # no even shares
        assert len(evaluation.rows_N) == len(np.unique(evaluation.rows_N)) == len(evaluation.labels_N) == count


def test_a_killed_process_ends_the_run_in_words_and_it_goes_on_with_another_number_of_processes():
    run = Started(**LONG, processes=2)
    run.until(lambda history: len(history.steps) > 20, "steps")
    began = time.monotonic()
    run.processes()[1].kill()
    ending = run.end()
    assert time.monotonic() - began < 10
    assert isinstance(ending, Failed)
    assert "Process 2 of 2 was killed (SIGKILL)" in ending.message
    assert not run.processes()
    run.resume(processes=3, epochs=run.history.epochs[-1].epoch + 2)
    assert isinstance(run.end(), Completed)
    assert run.history.started is not None
    assert run.history.started.processes == 3
    assert any("fewer would be faster" in warned.message for warned in run.history.warnings) is (cpu_count() < 3)
    steps = [step.step for step in run.history.steps]
    assert steps == sorted(set(steps))
    assert len(run.history.epochs) == run.history.epochs[-1].epoch


@pytest.mark.parametrize("by_signal", [True, False], ids=["SIGTERM", "stop request"])
def test_stopping_keeps_a_checkpoint_and_one_process_can_go_on(by_signal):
    run = Started(**LONG | {"checkpoint_minutes": 60}, processes=2)
    run.until(lambda history: len(history.steps) > 10, "steps")
    if by_signal:
        run.worker().send_signal(signal.SIGTERM)
    else:
        assert launcher.request_stop(run.folder.run_id)
    ending = run.end()
    assert isinstance(ending, Stopped)
    assert "Traceback" not in run.folder.worker_log.read_text()
    assert not run.processes()
    assert by_signal is not run.folder.stop_request.exists()
    run.resume(processes=1, epochs=ending.step // 8 + 1)
    assert isinstance(run.end(), Completed)
    assert run.history.steps[-1].step == (ending.step // 8 + 1) * 8
    text = run.folder.events.read_text()
    assert f'"type":"{Resumed.type}","step":{ending.step},' in text  # nothing was done twice


def test_a_killed_worker_leaves_no_process_behind():
    run = Started(**LONG, processes=2)
    run.until(lambda history: len(history.steps) > 5, "steps")
    run.worker().kill()
    wait_for(lambda: not run.processes(), "its processes to end")
    assert run.follower.update() is RunStatus.LOST
    run.resume(epochs=max((epoch.epoch for epoch in run.history.epochs), default=0) + 1)
    assert isinstance(run.end(), Completed)


def test_a_worker_killed_before_its_processes_are_ready_leaves_none_behind():
    run = Started(**LONG, processes=2)
    wait_for(run.processes, "its processes")
    run.worker().kill()
    wait_for(lambda: not run.processes(), "its processes to end")


def test_batches_in_parts_are_as_many_in_every_process_of_a_group():
    """A run that halved its batches for want of memory goes on in a group whose shares are 4, 3 and 3 images."""
    run = Started(**LONG, processes=1)
    run.until(lambda history: len(history.epochs) > 1, "an epoch")
    launcher.request_stop(run.folder.run_id)
    run.end()
    state, _ = load_checkpoint(run.folder)
    assert state is not None
    save_checkpoint(run.folder, state | {"parts": 4})
    run.resume(processes=3, epochs=run.history.epochs[-1].epoch + 2)
    assert isinstance(run.end(), Completed)


def test_a_run_of_one_process_waits_for_nobody_in_a_job_that_is_one_of_many(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}.items():
        monkeypatch.setenv(name, value)
    assert isinstance(Started(epochs=1).end(), Completed)


def test_processes_that_do_not_hear_the_request_to_stop_are_ended_and_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "SECONDS_TO_STOP", 1.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (launch.HAS_WORKER, launch.IS_RESUMED):
        monkeypatch.setenv(name, "")
    run = Started.__new__(Started)
    run.folder = launcher.create_run(make_config(**CONFIG | LONG | {"processes": 2}))
    run.follower = RunFollower(run.folder, leave_out=())
    endings, is_stopped = [], threading.Event()

    def train() -> None:
        endings.append(launch.train_in_processes(run.folder, 2, ["cpu"], is_resumed=False, should_stop=is_stopped.is_set))

    thread = threading.Thread(target=train)
    thread.start()
    wait_for(lambda: run.follower.update() and len(run.history.steps) > 5, "steps")
    run.processes()[0].suspend()  # the one that hears
    is_stopped.set()
    thread.join(SECONDS)
    (ending,) = endings
    assert isinstance(ending, Failed)
    assert "did not answer the request to stop" in ending.message
    assert not run.processes()
    assert not run.folder.stop_request.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices on this machine")
def test_all_gpus_train_one_run():
    run = Started(processes=0, device="cuda")
    assert isinstance(run.end(), Completed)
    assert run.history.started is not None
    assert run.history.started.processes == torch.cuda.device_count()
    one = Started(processes=1, device="cuda")
    one.end()
    assert losses(run) == pytest.approx(losses(one), abs=1e-3)


def test_what_a_run_cannot_do_is_said_in_words():
    run = Started(processes=10, images_per_class=2, classes=CLASS_NAMES[:2])
    ending = run.end()
    assert isinstance(ending, Failed)
    assert "10 processes cannot share" in ending.message


def test_torchrun_trains_a_run_that_was_only_created():
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in CONFIG.items() if name not in ("classes", "describe")]
    created = subprocess.run(
        [sys.executable, "-m", "cifar_tl", "train", "--create", "--no-describe", "--classes", *CLASS_NAMES[:4], *arguments],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = RunFolder(PROJECT_ROOT / created.stdout.strip())
    folder.stop_request.touch()  # left over from an earlier stop
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cifar_tl", "rank"]
    done = subprocess.run(
        [*torchrun, str(folder.path)],
        cwd=PROJECT_ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    follower = RunFollower(folder)
    assert follower.update() is RunStatus.COMPLETED
    assert follower.history.started is not None
    assert follower.history.started.processes == 2
