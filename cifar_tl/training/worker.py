"""The process of one run: take the lock, wait for a device, train, say exactly one last word, prepare what Explore shows, exit.

Started by `runs.launcher` as `python -m cifar_tl worker RUN_DIR`. The lock is held for as long as the process lives, whichever
way it dies. Exit code 0 for completed and stopped, 1 for failed. Where several processes share the run, this one starts them
(`training.launch`) and keeps the lock and the devices; the first of them writes the log meanwhile.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_tl.config import RunConfig
from cifar_tl.errors import RunActive
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Event, Failed, Phase, Stopped
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.lock import try_lock
from cifar_tl.runs.log import EventReader, EventWriter
from cifar_tl.runs.queue import device_of_place, devices_for, places_on
from cifar_tl.runs.store import read_config

if TYPE_CHECKING:
    from cifar_tl.training.loop import TrainedRun

_SECONDS_FOR_LOCK = 3.0


@dataclass(frozen=True)
class _Place:
    """Where a run trains: its devices, and whether it was there before."""

    config: RunConfig
    devices: tuple[str, ...]
    processes: int
    is_resumed: bool


def run_worker(folder: RunFolder, lock_file: int | None = None) -> int:
    """Train the run in `folder`. `lock_file` is an inherited file descriptor that already holds the lock. Returns the exit code."""
    lock = take_lock(folder) if lock_file is None else lock_file
    os.set_inheritable(lock, False)
    stop_signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stop_signals.append(received))

    def should_stop() -> bool:
        return bool(stop_signals) or folder.stop_request.exists()

    with ExitStack() as held:
        trained: list[TrainedRun] = []
        with EventWriter(folder.events) as log:
            ending = _train_alone_or_place(folder, log, should_stop, held, trained)
            if isinstance(ending, Event):
                log.write_last(ending)
            if isinstance(ending, Completed) and trained:
                from cifar_tl.training.last_word import describe

                describe(trained.pop(), folder, should_stop)
        if isinstance(ending, _Place):
            from cifar_tl.training.launch import train_in_processes

            ending = train_in_processes(folder, ending.processes, ending.devices, is_resumed=ending.is_resumed, should_stop=should_stop)
    if isinstance(ending, Completed) and not should_stop():
        from cifar_tl.training.last_word import draw_map

        draw_map(folder, lock)
    return 1 if isinstance(ending, Failed) else 0


def _train_alone_or_place(
    folder: RunFolder, log: EventWriter, should_stop: Callable[[], bool], held: ExitStack, trained: "list[TrainedRun]"
) -> Event | _Place:
    """The last word, or where several processes are to train. `held` keeps the devices until it closes; a completed run that is to be
    described is put into `trained`."""
    began = time.monotonic()
    is_resumed = log.next_seq > 0  # a log that has events in it is that of a run which was there before
    try:
        # Imported here, so that a broken installation ends as a failed run that says so.
        from cifar_tl.training.last_word import failed, train_to_the_end
    except Exception as error:
        return Failed(error=type(error).__name__, message=f"{error}. The installation is broken.", seconds=0.0)
    try:
        place = _find_place(folder, log, should_stop, held, is_resumed)
        if not place.devices:
            return stopped_while_waiting(folder)
        if place.processes > 1:
            return place
        config = place.config
        hand_over = trained.append if config.describe else lambda _trained: None
        return train_to_the_end(
            config, folder, log, should_stop=should_stop, is_resumed=is_resumed, device=place.devices[0], hand_over=hand_over
        )
    except Exception as error:
        return failed(error, began)


def _find_place(folder: RunFolder, log: EventWriter, should_stop: Callable[[], bool], held: ExitStack, is_resumed: bool) -> _Place:
    """Wait for the devices; a place without any if asked to stop before. Raises CifarTLError."""
    from cifar_tl.devices import device_slots, processes_on

    config = read_config(folder)
    slots = device_slots(config.device)
    processes = processes_on(slots, config.processes)

    def tell(ahead: int) -> None:
        others = f"; {ahead} {'run is' if ahead == 1 else 'runs are'} before this one" if ahead else ""
        log.write(Phase(name="queued", text=f"Waiting: the device is busy{others}"))

    count = min(processes, len(slots))  # processes on one CPU share it
    wanted = slots if processes > 1 else places_on(slots)
    places = held.enter_context(devices_for(folder, wanted, count=count, tell=tell, should_stop=should_stop))
    return _Place(config, tuple(map(device_of_place, places)), processes, is_resumed)


def stopped_while_waiting(folder: RunFolder) -> Stopped:
    """As it was before it waited, which for a new run is nothing."""
    history = RunHistory()
    history.extend(EventReader(folder.events).read_new())
    best = history.best_epoch
    return Stopped(
        step=history.steps[-1].step if history.steps else 0,
        best_dev_accuracy=best.dev_accuracy if best else None,
        seconds=history.seconds or 0.0,
    )


def take_lock(folder: RunFolder) -> int:
    """The open file that holds the run's lock. Raises RunActive if it does not become free: who only looks or hands over has it shortly."""
    lock, deadline = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644), time.monotonic() + _SECONDS_FOR_LOCK
    while not (is_held := try_lock(lock)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if is_held:
        return lock
    os.close(lock)
    raise RunActive(f"Run {folder.run_id} is already running.")
