"""Start and continue sweeps: a conductor is a process of its own, as a run's worker is."""

import os
import shutil
import subprocess
import sys
import threading

from cifar_tl.errors import RunActive, RunError
from cifar_tl.paths import PROJECT_ROOT, SweepFolder
from cifar_tl.runs.store import writing_in
from cifar_tl.sweeps.store import Sweep, create_sweep, find_sweep, read_sweep, take_lock
from cifar_tl.sweeps.study import open_study


def start_sweep(sweep: Sweep) -> str:
    """Returns the sweep's id at once. Raises SettingsError, RunError (RunInvalid if the storage cannot be used); then there is no such sweep."""
    folder = create_sweep(sweep)
    try:
        open_study(folder, sweep)
        _start(folder)
    except RunError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder.sweep_id


def continue_sweep(sweep_id: str) -> None:
    """Of one that was stopped, killed or failed: its open trials go on, and the missing ones follow. Raises RunNotFound, RunInvalid, RunActive."""
    folder = find_sweep(sweep_id)
    read_sweep(folder)
    _start(folder)


def _start(folder: SweepFolder) -> None:
    with writing_in(folder.path):
        lock = take_lock(folder)
        if lock is None:
            raise RunActive(f"The sweep {folder.sweep_id} is running already.")
        try:
            folder.stop_request.unlink(missing_ok=True)
            folder.ending.unlink(missing_ok=True)
            with folder.log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "cifar_tl", "conductor", str(folder.path), "--lock-file", str(lock)],
                    cwd=PROJECT_ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(lock,),
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
        except OSError as error:
            raise RunError(f"The sweep {folder.sweep_id} cannot be started: {error.strerror or error}.") from error
        finally:
            os.close(lock)
    threading.Thread(target=process.wait, name=f"reap-{folder.sweep_id}", daemon=True).start()
