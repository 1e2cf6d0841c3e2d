"""One of the processes that train a run together: `python -m cifar_tl rank RUN_DIR`, started by `training.launch`, torchrun or Ray.

All of them walk through `training.loop.train` side by side. The first one writes the run folder, hears that the run is to stop, and says
its last word; the others have nothing to say, and end when it has been said. Where no worker holds the run's lock (torchrun), the first
one does.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from cifar_tl.config import RunConfig
from cifar_tl.devices import device_slots, processes_on
from cifar_tl.errors import CifarTLError
from cifar_tl.group import Group
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Event, Failed, Phase, Progress, Step, Warned
from cifar_tl.runs.log import EventWriter
from cifar_tl.runs.store import RunFollower, is_alive, read_config
from cifar_tl.training.last_word import describe, draw_map, failed, train_to_the_end
from cifar_tl.training.launch import HAS_WORKER, IS_RESUMED
from cifar_tl.training.loop import TrainedRun, train
from cifar_tl.training.worker import take_lock

_LOOK_AGAIN_SECONDS = 0.1
_SECONDS_WITHOUT_DRIVER = 0.5  # the lock may lie on a file server
_SECONDS_TO_BE_ENDED = 3.0
_SECONDS_TO_LEAVE = 10.0  # for a process of Ray's, whose sudden end would count as a death


def rank_main(folder: RunFolder) -> int:
    """The exit code. A traceback is printed, and left for the launcher where it asks for it."""
    try:
        return record(run_rank)(folder) or 0
    except Exception:
        traceback.print_exc()
        return 1


def run_rank_on_cluster(folder: RunFolder, device: str) -> None:
    """The same in a process of Ray's, whose run's lock the driver holds. Raises what another machine may do better: Ray starts the group again."""
    if has_said_last_word(RunFollower(folder, leave_out=(Step, Progress))):
        return  # this process was started because another of an ended run was left alone
    os.environ[HAS_WORKER] = "1"
    end_without_driver(folder)
    config = read_config(folder)
    group = Group.join(device.partition(":")[0])
    if group.is_first:
        os.environ[IS_RESUMED] = str(int(_goes_on(folder)))
        _run_first(folder, config, group, device, folder.stop_request.exists, raises=RuntimeError)
    else:
        _run_other(folder, config, group, device, patience=_SECONDS_TO_LEAVE)


def _goes_on(folder: RunFolder) -> bool:
    """Whether a process of the run was there before; says so where one was lost."""
    follower = RunFollower(folder)
    follower.update()
    history = follower.history
    if history.phase is not None and history.phase.name not in ("queued", "resuming"):
        with EventWriter(folder.events) as log:
            text = "A machine or process of the cluster was lost: the run goes on from its last checkpoint"
            log.write(Phase(name="resuming", text=text))
            log.write(Warned(message=f"{text}."))
        return True
    return history.started is not None or (history.phase is not None and history.seconds_before > 0)


def run_rank(folder: RunFolder) -> int:
    """Train as one of a group. Returns the exit code of the first process; raises what goes wrong in another."""
    has_worker = HAS_WORKER in os.environ
    stop_signals: list[int] = []
    if not has_worker and threading.current_thread() is threading.main_thread():
        # A signal to all processes stops the run as one to a worker does; the first one says so, and that ends the others.
        signal.signal(signal.SIGTERM, lambda received, _frame: stop_signals.append(received))
    end_with_parent()
    config = read_config(folder)
    slots = device_slots(config.device)
    processes_on(slots, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun may have been asked for more than there are GPUs
    group = Group.join(slots[0].partition(":")[0])
    device = device_of(group, config)
    if group.is_first:
        return _run_first(folder, config, group, device, lambda: bool(stop_signals) or folder.stop_request.exists())
    _run_other(folder, config, group, device)
    return 0


def _run_first(
    folder: RunFolder,
    config: RunConfig,
    group: Group,
    device: str,
    should_stop: Callable[[], bool],
    raises: type[Exception] | None = None,
) -> int:
    """`raises`: errors that are left to who started this process."""
    has_worker = HAS_WORKER in os.environ
    lock = None if has_worker else take_lock(folder)
    if lock is not None:
        folder.stop_request.unlink(missing_ok=True)  # which stopped it the last time
    began, trained = time.monotonic(), list[TrainedRun]()
    with EventWriter(folder.events) as log:
        is_resumed = os.environ.get(IS_RESUMED) == "1" if has_worker else log.next_seq > 0
        ending = _train_first(folder, config, group, device, log, is_resumed, should_stop, trained.append, began, raises)
        log.write_last(ending)
        if isinstance(ending, Completed) and config.describe and trained:
            describe(trained.pop(), folder, should_stop)
    with suppress(Exception):
        group.leave()
    if lock is not None and isinstance(ending, Completed) and not should_stop():
        draw_map(folder, lock)
    return 1 if isinstance(ending, Failed) else 0


def _train_first(
    folder: RunFolder,
    config: RunConfig,
    group: Group,
    device: str,
    log: EventWriter,
    is_resumed: bool,
    should_stop: Callable[[], bool],
    hand_over: Callable[[TrainedRun], object],
    began: float,
    raises: type[Exception] | None,
) -> Event:
    try:
        if is_resumed and HAS_WORKER not in os.environ:
            log.write(Phase(name="resuming", text="Going on from the last checkpoint"))
        group.from_first(is_resumed)
        return train_to_the_end(
            config,
            folder,
            log,
            should_stop=should_stop,
            is_resumed=is_resumed,
            device=device,
            group=group,
            hand_over=hand_over,
        )
    except CifarTLError as error:
        return failed(error, began)
    except Exception as error:
        if raises and isinstance(error, raises) and not isinstance(error, torch.OutOfMemoryError):
            raise
        # If this is because another process died, the launcher knows better why, and ends this one now.
        time.sleep(_SECONDS_TO_BE_ENDED)
        return failed(error, began)


def _run_other(folder: RunFolder, config: RunConfig, group: Group, device: str, patience: float = 0.0) -> None:
    """Raises what goes wrong, unless the run has said its last word: then this process was left alone in the middle of its work."""
    is_resumed, done = group.from_first(None), threading.Event()
    end_with_run(folder, done, patience)
    try:
        train(config, folder, emit=_say_nothing, should_stop=_never, is_resumed=is_resumed, device=device, group=group)
        group.leave()
    except Exception:
        if not has_said_last_word(RunFollower(folder, leave_out=(Step, Progress))):
            raise
    finally:
        done.set()


def device_of(group: Group, config: RunConfig) -> str:
    """The device of this process: the GPU of its local index, or the one device that all share."""
    slots = device_slots(config.device)
    return slots[group.local_index % len(slots)]


def _say_nothing(_event: Event) -> None:
    pass


def _never() -> bool:
    return False


def has_said_last_word(follower: RunFollower) -> bool:
    follower.update()
    return follower.history.terminal is not None


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does: a killed worker leaves nobody behind who writes into its folder."""
    # A worker that was killed while this process still loaded its libraries is known by the id that it left.
    parent = int(os.environ.get(HAS_WORKER) or os.getppid())
    _end_when(lambda: os.getppid() != parent, exit_code=1)


def end_without_driver(folder: RunFolder) -> None:
    """From now on this process of Ray's ends when nobody holds the run's lock: a head that died takes its driver along, but not this process.

    Who resumes the run must have its folder alone.
    """
    _end_when(lambda: not is_alive(folder), exit_code=1, look_again_seconds=_SECONDS_WITHOUT_DRIVER)


def end_with_run(folder: RunFolder, done: threading.Event, patience: float) -> None:
    """From now on, until `done`, this process ends when the run has said its last word `patience` seconds ago."""
    follower = RunFollower(folder, leave_out=(Step, Progress))
    _end_when(lambda: has_said_last_word(follower) and not done.wait(patience), exit_code=0)


def _end_when(condition: Callable[[], bool], exit_code: int, look_again_seconds: float = _LOOK_AGAIN_SECONDS) -> None:
    def watch() -> None:
        while not condition():
            time.sleep(look_again_seconds)
        os._exit(exit_code)

    threading.Thread(target=watch, name="end-when", daemon=True).start()
