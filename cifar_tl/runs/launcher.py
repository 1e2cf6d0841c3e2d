"""Start and stop a run's worker process. Used by the dashboard and the command line; knows nothing of training.

The worker is a fresh interpreter in its own session, so a page reload, a closed tab or Ctrl-C in the dashboard's
terminal never touches it. Its lock is taken here and handed over as an open file, so there is no moment in which a
starting run looks lost or can be started twice.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from cifar_tl.config import RunConfig, make_config
from cifar_tl.errors import ClusterUnavailable, RunError, RunInvalid, SettingsError
from cifar_tl.paths import PROJECT_ROOT, RunFolder, checkpoints_root
from cifar_tl.runs.cluster import require_cluster, submit
from cifar_tl.runs.events import Completed, Failed, Phase
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.hold import has_ended, held
from cifar_tl.runs.log import EventReader, EventWriter
from cifar_tl.runs.names import one_line
from cifar_tl.runs.store import RUN_ID_TIME, find_run, is_alive, read_config, write_json, writing_in
from cifar_tl.runs.submission import is_expected, read_submission

HERE = "here"


def create_run(config: RunConfig) -> RunFolder:
    """Make the folder of a new run with its settings in it. Raises RunError if the folder cannot be written."""
    root = checkpoints_root()
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{config.backbone}-{config.source.removeprefix('folder:').rstrip('/').rsplit('/', 1)[-1]}")[:80]
    stamp = time.strftime(RUN_ID_TIME)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
            folder = RunFolder(root / f"{stamp}-{slug}{suffix}")
            try:
                folder.path.mkdir()
            except FileExistsError:
                continue
            _write_settings_or_leave_nothing(folder, config)
            return folder
    except OSError as error:
        raise RunError(
            f"A run folder cannot be made in {root}: {error.strerror or error}. Free space or permissions there, or set CIFAR_TL_CHECKPOINTS."
        ) from error
    raise RunError(f"More than a thousand runs were started this second in {root}.")


def _write_settings_or_leave_nothing(folder: RunFolder, config: RunConfig) -> None:
    try:
        write_json(folder.config, config.model_copy(update={"name": one_line(config.name)}).model_dump(mode="json"))
    except OSError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def start_worker(folder: RunFolder) -> subprocess.Popen[bytes]:
    """Start the worker of a run that is not running. Raises RunActive if one is."""
    with held(folder) as lock:
        return _spawn(folder, lock)


def start_description(run_id: str) -> None:
    """Prepare what Explore shows of a run that has ended (`python -m cifar_tl describe`), in a process of its own; returns at once.

    Raises RunNotFound, RunActive if that is under way already, RunInvalid if the run is not ready for it, RunError.
    """
    folder = find_run(run_id)
    if reason := why_not_describe(folder):
        raise RunInvalid(reason)
    with held(folder, patience=0, asks_to_leave=False) as lock:
        _start(folder, lock, ["describe", run_id, "--lock-file", str(lock)])


def why_not_describe(folder: RunFolder) -> str:
    """In words; '' if what Explore shows of a run can be prepared."""
    if not has_ended(folder):
        return f"Run {folder.run_id} has not ended. Resume it, or wait until it is complete."
    if not folder.best_weights.is_file():
        return f"Run {folder.run_id} has no weights: its first epoch was not done."
    if not folder.evaluation_of("test").is_file():
        return f"Run {folder.run_id} ended before it was tested. Resume it, or evaluate it: python -m cifar_tl evaluate {folder.run_id}"
    return ""


def _spawn(folder: RunFolder, lock: int) -> subprocess.Popen[bytes]:
    return _start(folder, lock, ["worker", str(folder.path), "--lock-file", str(lock)])


def _start(folder: RunFolder, lock: int, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """The program in a process of its own, which inherits the lock and writes into the run's log."""
    with writing_in(folder.path):
        folder.stop_request.unlink(missing_ok=True)
        log = folder.worker_log.open("ab")
    with log:
        try:
            worker = subprocess.Popen(
                [sys.executable, "-m", "cifar_tl", *arguments],
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:  # no memory, no process to be had
            raise RunError(f"The worker of run {folder.run_id} cannot be started: {error.strerror or error}.") from error
    # A finished child stays a zombie until someone waits for it.
    threading.Thread(target=worker.wait, name=f"reap-{folder.run_id}", daemon=True).start()
    return worker


def start_run(config: RunConfig, on: str = HERE) -> str:
    """Create and start a run, here or on the Ray cluster at that address; returns its id at once. Raises RunError, and then there is no such run."""
    if on != HERE:
        require_cluster(on)
    folder = create_run(config)
    try:
        if on == HERE:
            start_worker(folder)
        else:
            with held(folder):
                _send(folder, on)
    except RunError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder.run_id


def resume_run(
    run_id: str, *, epochs: int | None = None, learning_rate: float | None = None, is_tested: bool = False, on: str | None = None
) -> None:
    """Let a run go on from its last checkpoint, perhaps for more epochs in all, or with another learning rate.

    `is_tested`: test a run that was to leave test alone, and prepare what Explore shows; that alone is enough to go on. `on`: `HERE` or the address of a Ray cluster; None is where it was. Raises RunNotFound, RunActive, RunInvalid (nothing to resume), SettingsError (values that do not fit), RunError.
    """
    folder = find_run(run_id)
    _changed(folder, epochs, learning_rate, is_tested)  # what is refused disturbs nobody who still describes the run
    place = where(folder) if on is None else on
    if place != HERE:
        require_cluster(place)
    with held(folder) as lock:
        config = _changed(folder, epochs, learning_rate, is_tested)
        with writing_in(folder.path):
            write_json(folder.config, config.model_dump(mode="json"))
            with EventWriter(folder.events) as log:
                log.write(Phase(name="resuming", text="Going on from the last checkpoint"))
        if place == HERE:
            folder.submission.unlink(missing_ok=True)
            _spawn(folder, lock)
        else:
            _send(folder, place)


def where(folder: RunFolder) -> str:
    """`HERE`, or the address of the Ray cluster that the run was sent to."""
    submission = read_submission(folder)
    return submission.address if submission else HERE


def _send(folder: RunFolder, address: str) -> None:
    """Raises RunError; then the log does not say that the run waits."""
    with writing_in(folder.path):
        folder.stop_request.unlink(missing_ok=True)
        with EventWriter(folder.events) as log:
            log.write(Phase(name="queued", text=f"Waiting for the Ray cluster at {address}"))
            try:
                submit(folder, address)
            except ClusterUnavailable as error:
                log.write_last(Failed(error=type(error).__name__, message=str(error), seconds=0.0))
                raise


def why_not_resume(folder: RunFolder, history: RunHistory) -> str:
    """In words; '' if a run that has ended can go on."""
    if history.epochs and not (folder.last_checkpoint.exists() or folder.previous_checkpoint.exists()):
        return "Its checkpoints are not in its folder. Start a new run with its settings."
    return ""


def _history(folder: RunFolder) -> RunHistory:
    history = RunHistory()
    history.extend(EventReader(folder.events).read_new())
    return history


def _changed(folder: RunFolder, epochs: int | None, learning_rate: float | None, is_tested: bool) -> RunConfig:
    """The run's settings with what is to be different from now on."""
    config, history = read_config(folder), _history(folder)
    if reason := why_not_resume(folder, history):
        raise RunInvalid(f"Run {folder.run_id} cannot go on: {reason}")
    finished = history.epochs[-1].epoch if history.epochs else 0
    is_yet_to_be_tested = is_tested and not config.evaluate_test
    if isinstance(history.terminal, Completed) and (epochs is None or epochs <= finished) and not is_yet_to_be_tested:
        raise RunInvalid(f"Run {folder.run_id} is completed after {finished} epochs. To train longer, ask for more epochs than that.")
    if epochs is not None and epochs < max(1, finished):
        raise SettingsError(f"Run {folder.run_id} has finished {finished} epochs already; it cannot be asked for {epochs}.")
    changes: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate}
    if is_tested:
        changes |= {"evaluate_test": True, "describe": True}
    return make_config(**config.model_dump() | {name: value for name, value in changes.items() if value is not None})


def request_stop(run_id: str) -> bool:
    """Ask the worker to stop after the present step; False if the run has no worker, or none that still trains. Raises RunNotFound, RunError."""
    folder = find_run(run_id)
    if not (is_alive(folder) or is_expected(folder)):
        return False
    with writing_in(folder.path):
        folder.stop_request.touch()
    return not has_ended(folder)
