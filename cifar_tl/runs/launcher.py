"""Start and stop a run's worker process. Used by the dashboard and the command line; knows nothing of training.

The worker is a fresh interpreter in its own session, so a page reload, a closed tab or Ctrl-C in the dashboard's
terminal never touches it. Its lock is taken here and handed over as an open file, so there is no moment in which a
starting run looks lost or can be started twice.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_tl.config import RunConfig, make_config
from cifar_tl.errors import RunActive, RunError, RunInvalid, SettingsError
from cifar_tl.paths import PROJECT_ROOT, RunFolder, checkpoints_root
from cifar_tl.runs.events import Completed, Phase
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.lock import try_lock
from cifar_tl.runs.log import EventReader, EventWriter
from cifar_tl.runs.store import RUN_ID_TIME, find_run, is_alive, read_config, write_json

_SECONDS_TO_GO = 10.0
_LOOK_AGAIN_SECONDS = 0.05


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
            write_json(folder.config, config.model_dump(mode="json"))
            return folder
    except OSError as error:
        raise RunError(
            f"A run folder cannot be made in {root}: {error.strerror or error}. Free space or permissions there, or set CIFAR_TL_CHECKPOINTS."
        ) from error
    raise RunError(f"More than a thousand runs were started this second in {root}.")


def start_worker(folder: RunFolder) -> subprocess.Popen[bytes]:
    """Start the worker of a run that is not running. Raises RunActive if one is."""
    with _locked(folder) as lock:
        return _spawn(folder, lock)


@contextmanager
def _locked(folder: RunFolder, patience: float = 0.0) -> Iterator[int]:
    """Hold the run's lock, as an open file to be handed over. `patience`: seconds to wait for a worker that holds it.

    Raises RunActive if one still does, RunError if the lock cannot be made.
    """
    try:
        lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"Nothing can be written in {folder.path}: {error.strerror}.") from error
    try:
        deadline = time.monotonic() + patience
        while not try_lock(lock):
            if time.monotonic() >= deadline:
                raise RunActive(f"Run {folder.run_id} is already running.")
            time.sleep(_LOOK_AGAIN_SECONDS)
        yield lock
    finally:
        os.close(lock)  # a worker that was started has inherited it, and holds it for as long as it lives


def _spawn(folder: RunFolder, lock: int) -> subprocess.Popen[bytes]:
    folder.stop_request.unlink(missing_ok=True)
    with folder.worker_log.open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "cifar_tl", "worker", str(folder.path), "--lock-file", str(lock)],
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    # A finished child stays a zombie until someone waits for it.
    threading.Thread(target=worker.wait, name=f"reap-{folder.run_id}", daemon=True).start()
    return worker


def start_run(config: RunConfig) -> str:
    """Create and start a run; returns its id at once. Raises RunError."""
    folder = create_run(config)
    start_worker(folder)
    return folder.run_id


def resume_run(run_id: str, *, epochs: int | None = None, learning_rate: float | None = None) -> None:
    """Let a run go on from its last checkpoint, perhaps for more epochs in all, or with another learning rate.

    Raises RunNotFound, RunActive, RunInvalid (nothing to resume), SettingsError (values that do not fit), RunError.
    """
    folder = find_run(run_id)
    # A worker that has said its last word takes a moment to go.
    with _locked(folder, patience=_SECONDS_TO_GO if _history(folder).terminal else 0.0) as lock:
        config = _changed(folder, epochs, learning_rate)
        try:
            write_json(folder.config, config.model_dump(mode="json"))
            with EventWriter(folder.events) as log:
                log.write(Phase(name="resuming", text="Going on from the last checkpoint"))
        except OSError as error:
            raise RunError(f"Nothing can be written in {folder.path}: {error.strerror or error}.") from error
        _spawn(folder, lock)


def why_not_resume(folder: RunFolder, history: RunHistory) -> str:
    """In words; '' if a run that has ended can go on."""
    if history.epochs and not (folder.last_checkpoint.exists() or folder.previous_checkpoint.exists()):
        return "Its checkpoints are not in its folder. Start a new run with its settings."
    return ""


def _history(folder: RunFolder) -> RunHistory:
    history = RunHistory()
    history.extend(EventReader(folder.events).read_new())
    return history


def _changed(folder: RunFolder, epochs: int | None, learning_rate: float | None) -> RunConfig:
    """The run's settings with what is to be different from now on."""
    config, history = read_config(folder), _history(folder)
    if reason := why_not_resume(folder, history):
        raise RunInvalid(f"Run {folder.run_id} cannot go on: {reason}")
    finished = history.epochs[-1].epoch if history.epochs else 0
    if isinstance(history.terminal, Completed) and (epochs is None or epochs <= finished):
        raise RunInvalid(f"Run {folder.run_id} is completed after {finished} epochs. To train longer, ask for more epochs than that.")
    if epochs is not None and epochs < max(1, finished):
        raise SettingsError(f"Run {folder.run_id} has finished {finished} epochs already; it cannot be asked for {epochs}.")
    changes = {"epochs": epochs, "learning_rate": learning_rate}
    return make_config(**config.model_dump() | {name: value for name, value in changes.items() if value is not None})


def request_stop(run_id: str) -> bool:
    """Ask the worker to stop after the present step; False if none is alive. Raises RunNotFound."""
    folder = find_run(run_id)
    if not is_alive(folder):
        return False
    folder.stop_request.touch()
    return True
