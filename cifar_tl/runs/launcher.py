"""Start and stop a run's worker process. Used by the dashboard and the command line; knows nothing of training.

The worker is a fresh interpreter in its own session, so a page reload, a closed tab or Ctrl-C in the dashboard's
terminal never touches it. Its lock is taken here and handed over as an open file, so there is no moment in which a
starting run looks lost or can be started twice.
"""

import fcntl
import os
import re
import subprocess
import sys
import threading
import time

from cifar_tl.config import RunConfig
from cifar_tl.errors import RunActive, RunError
from cifar_tl.paths import PROJECT_ROOT, RunFolder, checkpoints_root
from cifar_tl.runs.store import RUN_ID_TIME, find_run, is_alive, write_json


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
    with folder.lock.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunActive(f"Run {folder.run_id} is already running.") from None
        folder.stop_request.unlink(missing_ok=True)
        with folder.worker_log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "cifar_tl", "worker", str(folder.path), "--lock-file", str(lock.fileno())],
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
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


def request_stop(run_id: str) -> bool:
    """Ask the worker to stop after the present step; False if none is alive. Raises RunNotFound."""
    folder = find_run(run_id)
    if not is_alive(folder):
        return False
    folder.stop_request.touch()
    return True
