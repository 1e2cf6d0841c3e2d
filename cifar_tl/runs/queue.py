"""The queue for the devices of a machine: one run at a time on each, in the order in which runs were made, and no scheduler.

    <cache>/devices/cpu.lock, cuda:0.lock ...   held with flock by the run that has the device
                    waiting/<run id>-<hash>     a ticket for each run that waits, held with flock for as long as it does

A worker that waits looks at the tickets a few times a second; the first one takes the first device that is free, or waits for as many as it wants together. The kernel drops
a lock whichever way its process ends, so a killed worker blocks nobody, and a ticket that nobody holds is thrown away.
Runs that were moved to the front come first, the latest move before the others.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_tl.errors import RunInvalid
from cifar_tl.paths import RunFolder, device_locks_root
from cifar_tl.runs.lock import OPEN_TO_ALL, try_lock
from cifar_tl.runs.store import find_run, writing_in

_POLL_SECONDS = 0.25
RUNS_ON_EACH_DEVICE = "CIFAR_TL_RUNS_ON_EACH_DEVICE"  # in the environment of workers of which several are to share a device
_SHARE = "+"  # cpu+1 is the second place on the device cpu


@contextmanager
def devices_for(
    folder: RunFolder, devices: Sequence[str], *, count: int = 1, tell: Callable[[int], object], should_stop: Callable[[], bool]
) -> Iterator[tuple[str, ...]]:
    """Wait for `count` of `devices` and have them to oneself inside the `with`; none if asked to stop before there were so many.

    `tell(ahead)` hears how many waiting runs come before this one, when that changes; nothing if a device is free at once.
    """
    waiting = device_locks_root() / "waiting"
    waiting.mkdir(parents=True, exist_ok=True)
    with _held_ticket(waiting, folder, devices):
        taken = _wait(waiting, folder, devices, count, tell, should_stop)
    try:
        yield tuple(taken)
    finally:
        _give_back(taken)


def places_on(devices: Sequence[str]) -> tuple[str, ...]:
    """The devices, and further places on each where the environment says that runs share them."""
    more = range(1, int(os.environ.get(RUNS_ON_EACH_DEVICE, "1")))
    return (*devices, *(f"{device}{_SHARE}{number}" for number in more for device in devices))


def device_of_place(place: str) -> str:
    return place.partition(_SHARE)[0]


def runs_waiting() -> list[str]:
    """Ids of the runs that wait, in the order in which they will start."""
    waiting = device_locks_root() / "waiting"
    return [folder.run_id for folder, _ in _tickets(waiting)] if waiting.is_dir() else []


def move_to_front(run_id: str) -> None:
    """Let a waiting run be the next to start. Raises RunNotFound, RunInvalid if it does not wait, RunError."""
    folder = find_run(run_id)
    if run_id not in runs_waiting():
        raise RunInvalid(f"Run {run_id} does not wait for a device.")
    with writing_in(folder.path):
        folder.queue_front.write_text(str(time.time_ns()))  # the clock of files is too coarse for two clicks


def _wait(
    waiting: Path,
    folder: RunFolder,
    devices: Sequence[str],
    count: int,
    tell: Callable[[int], object],
    should_stop: Callable[[], bool],
) -> dict[str, int]:
    """The locks of the devices, by name; none if asked to stop."""
    told = None
    while not should_stop():
        before = [run.path for run, wanted in _tickets(waiting) if set(wanted) & set(devices)]
        ahead = before.index(folder.path) if folder.path in before else 0
        if ahead == 0 and (taken := _take(devices, count)):
            folder.queue_front.unlink(missing_ok=True)
            return taken
        if ahead != told:
            told = ahead
            tell(ahead)
        time.sleep(_POLL_SECONDS)
    return {}


def _take(devices: Sequence[str], count: int) -> dict[str, int]:
    """The first `count` devices that are free, or none."""
    taken: dict[str, int] = {}
    for name in devices:
        if len(taken) < count and (lock := _lock_at(device_locks_root() / f"{name}.lock")) is not None:
            taken[name] = lock
    if len(taken) == count:
        return taken
    _give_back(taken)
    return {}


def _give_back(taken: dict[str, int]) -> None:
    for lock in taken.values():
        os.close(lock)


def _tickets(waiting: Path) -> list[tuple[RunFolder, list[str]]]:
    """Folder and wanted devices of every run that waits, in order."""
    found = []
    for path in waiting.iterdir():
        with suppress(OSError, ValueError, KeyError):
            with path.open("rb") as file:
                if try_lock(file.fileno(), shared=True):
                    path.unlink()  # nobody waits with it (any more)
                    continue
                ticket = json.load(file)
            folder = RunFolder(Path(ticket["folder"]))
            found.append((_order(folder, ticket["since"]), folder, list(ticket["devices"])))
    return [(folder, devices) for _, folder, devices in sorted(found, key=lambda item: item[0])]


def _order(folder: RunFolder, since: int) -> tuple[int, int, str]:
    try:
        return 0, -int(folder.queue_front.read_text()), folder.run_id
    except (OSError, ValueError):
        return 1, since, folder.run_id


@contextmanager
def _held_ticket(waiting: Path, folder: RunFolder, devices: Sequence[str]) -> Iterator[None]:
    path = waiting / f"{folder.run_id}-{hashlib.sha256(str(folder.path).encode()).hexdigest()[:8]}"
    lock = _lock_new_file(path)
    ticket = {"folder": str(folder.path), "devices": list(devices), "since": folder.config.stat().st_mtime_ns}
    os.write(lock, json.dumps(ticket).encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _lock_new_file(path: Path) -> int:
    """An empty file of this name, locked, and not thrown away by someone who saw it before it was."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, OPEN_TO_ALL)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.fstat(lock).st_ino == path.stat().st_ino:
                return lock
        os.close(lock)


def _lock_at(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, OPEN_TO_ALL)
    if try_lock(lock):
        return lock
    os.close(lock)
    return None
