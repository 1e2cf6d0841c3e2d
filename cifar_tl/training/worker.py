"""The process of one run: take the lock, train, say exactly one last word, prepare what Explore shows, exit.

Started by `runs.launcher` as `python -m cifar_tl worker RUN_DIR`. The lock is held for as long as the process lives, whichever
way it dies. Exit code 0 for completed and stopped, 1 for failed.

What comes after the last word of a completed run is no part of it: nothing of it changes how the run ended or how long it took, and
it leaves off when it is asked to stop, also by who wants to resume or delete the run (`runs.hold`).
"""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError, RunActive
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Event, Failed, Phase, Stopped
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.lock import try_lock
from cifar_tl.runs.log import EventReader, EventWriter
from cifar_tl.runs.queue import device_for
from cifar_tl.runs.store import read_config

if TYPE_CHECKING:
    from cifar_tl.training.loop import TrainedRun


def run_worker(folder: RunFolder, lock_file: int | None = None) -> int:
    """Train the run in `folder`. `lock_file` is an inherited file descriptor that already holds the lock. Returns the exit code."""
    lock = _take_lock(folder) if lock_file is None else lock_file
    os.set_inheritable(lock, False)
    stop_signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stop_signals.append(received))

    def should_stop() -> bool:
        return bool(stop_signals) or folder.stop_request.exists()

    trained: list[TrainedRun] = []
    with ExitStack() as held, EventWriter(folder.events) as log:
        ending = _run(folder, log, should_stop, held, trained)
        log.write_last(ending)
        if isinstance(ending, Completed) and trained:
            _describe(trained.pop(), folder, should_stop)
    if isinstance(ending, Completed) and not should_stop():
        _draw_map(folder, lock)
    return 1 if isinstance(ending, Failed) else 0


def _run(folder: RunFolder, log: EventWriter, should_stop: Callable[[], bool], held: ExitStack, trained: "list[TrainedRun]") -> Event:
    """The last word. `held` keeps the device until it closes; a completed run that is to be described is put into `trained`."""
    began = time.monotonic()
    is_resumed = log.next_seq > 0  # a log that has events in it is that of a run which was there before

    def tell(ahead: int) -> None:
        others = f"; {ahead} {'run is' if ahead == 1 else 'runs are'} before this one" if ahead else ""
        log.write(Phase(name="queued", text=f"Waiting: the device is busy{others}"))

    try:
        # Imported here, so that a broken installation ends as a failed run that says so.
        from cifar_tl.devices import device_slots
        from cifar_tl.training.loop import train

        config = read_config(folder)
        device = held.enter_context(device_for(folder, device_slots(config.device), tell=tell, should_stop=should_stop))
        if device is None:
            return _stopped_while_waiting(folder)
        with _board_for(config, folder) as draw:

            def emit(event: Event) -> None:
                log.write(event)
                draw(event)

            hand_over = trained.append if config.describe else lambda _trained: None
            ending = train(config, folder, emit=emit, should_stop=should_stop, is_resumed=is_resumed, device=device, hand_over=hand_over)
            draw(ending)
        return ending
    except CifarTLError as error:
        traceback.print_exc()
        return Failed(error=type(error).__name__, message=str(error), seconds=time.monotonic() - began)
    except Exception as error:
        traceback.print_exc()
        return Failed(error=type(error).__name__, message=_explain(error), seconds=time.monotonic() - began)


def _describe(trained: "TrainedRun", folder: RunFolder, should_stop: Callable[[], bool]) -> None:
    """The run is complete on disk: whatever goes wrong here is for the log."""
    from cifar_tl.evaluation.describe import describe_trained
    from cifar_tl.training.loop import StopRequested

    try:
        describe_trained(trained, folder, should_stop=should_stop)
    except StopRequested:
        pass
    except Exception:
        traceback.print_exc()


def _draw_map(folder: RunFolder, lock: int) -> None:
    """Does not return where there is a map to be drawn: this process then goes on as the one that draws it."""
    try:
        from cifar_tl.evaluation.embedding_map import become_map_drawer, wants_tsne

        if wants_tsne(folder):
            become_map_drawer(folder, lock)
    except Exception:
        traceback.print_exc()


@contextmanager
def _board_for(config: RunConfig, folder: RunFolder) -> Iterator[Callable[[Event], object]]:
    """TensorBoard hears every event where a person wants it; else nobody does."""
    if not config.tensorboard:
        yield lambda _event: None
        return
    from cifar_tl.training.tensorboard import TensorBoardLog

    with closing(TensorBoardLog(folder.tensorboard)) as board:
        yield board.write


def _stopped_while_waiting(folder: RunFolder) -> Stopped:
    """As it was before it waited, which for a new run is nothing."""
    history = RunHistory()
    history.extend(EventReader(folder.events).read_new())
    best = history.best_epoch
    return Stopped(
        step=history.steps[-1].step if history.steps else 0,
        best_dev_accuracy=best.dev_accuracy if best else None,
        seconds=history.seconds or 0.0,
    )


def _explain(error: Exception) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    if type(error).__name__ == "OutOfMemoryError":
        return f"The device ran out of memory ({first_line}). Choose a smaller batch size or image size."
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}: {error.filename or 'a file of the run'}. What was saved before is whole."
    return f"{type(error).__name__}: {first_line}. The traceback is in the worker log."


def _take_lock(folder: RunFolder) -> int:
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    if try_lock(lock):
        return lock
    os.close(lock)
    raise RunActive(f"Run {folder.run_id} is already running.")
