"""Hold a run's lock: to start a worker in its folder, to move the folder away, to prepare what Explore shows of it.

A worker keeps the lock for a while after its run has ended, because it goes on to describe it (`evaluation.describe`). It is asked to
leave off, and gets some seconds to do so. A worker that trains is never asked here.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_tl.errors import RunActive
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Progress, Step
from cifar_tl.runs.lock import OPEN_TO_ALL, try_lock
from cifar_tl.runs.store import RunFollower, is_alive, writing_in

SECONDS_TO_GO = 10.0
_LOOK_AGAIN_SECONDS = 0.05


@contextmanager
def held(folder: RunFolder, *, patience: float = SECONDS_TO_GO, asks_to_leave: bool = True) -> Iterator[int]:
    """Hold the lock inside the `with`, as an open file that may be handed over to a worker.

    `patience`: seconds to wait for a worker whose run has ended. Raises RunActive while the run goes on or if that worker does not
    leave, RunError if the lock cannot be made.
    """
    with writing_in(folder.path):
        lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, OPEN_TO_ALL)
    try:
        if not try_lock(lock):
            _wait_for_lock(folder, lock, patience, asks_to_leave)
        yield lock
    finally:
        os.close(lock)  # a worker that was started has inherited it, and holds it for as long as it lives


def _wait_for_lock(folder: RunFolder, lock: int, patience: float, asks_to_leave: bool) -> None:
    follower = RunFollower(folder, leave_out=(Step, Progress))
    _refuse_unless_ended(follower)
    if asks_to_leave:
        with writing_in(folder.path):
            folder.stop_request.touch()
    deadline = time.monotonic() + patience
    while not try_lock(lock):
        try:
            _refuse_unless_ended(follower)
        except RunActive:
            # (1) It had ended, (2) somebody else resumed it, (3) we asked: not the one we meant. That worker is too young to have looked.
            if asks_to_leave:
                folder.stop_request.unlink(missing_ok=True)
            raise
        if time.monotonic() >= deadline:
            raise RunActive(f"Run {folder.run_id} has ended, but what Explore shows of it is still being prepared. Try again in a minute.")
        time.sleep(_LOOK_AGAIN_SECONDS)


def _refuse_unless_ended(follower: RunFollower) -> None:
    follower.update()
    if follower.history.terminal is None:
        raise RunActive(f"Run {follower.folder.run_id} is still running. Stop it first.")


def has_ended(folder: RunFolder) -> bool:
    """True if the run has said its last word (completed, stopped or failed), whether or not its worker is still there."""
    follower = RunFollower(folder, leave_out=(Step, Progress))
    follower.update()
    return follower.history.terminal is not None


def is_being_described(folder: RunFolder) -> bool:
    """True while the worker of an ended run, or a process started for it, prepares what Explore shows."""
    return is_alive(folder) and has_ended(folder)
