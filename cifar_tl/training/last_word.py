"""From the settings of a run to its last word: train, turn what goes wrong into words, prepare what Explore shows.

Used by the worker of a run of one process and by the first process of a group. What comes after the last word of a completed run is no
part of it: nothing of it changes how the run ended or how long it took, and it leaves off when it is asked to stop, also by who wants to
resume or delete the run (`runs.hold`).
"""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError
from cifar_tl.evaluation.describe import describe_trained
from cifar_tl.evaluation.embedding_map import become_map_drawer, wants_tsne
from cifar_tl.group import ALONE, Group
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Event, Failed, Stopped
from cifar_tl.runs.log import EventWriter
from cifar_tl.training.loop import StopRequested, TrainedRun, train


def train_to_the_end(
    config: RunConfig,
    folder: RunFolder,
    log: EventWriter,
    *,
    should_stop: Callable[[], bool],
    is_resumed: bool,
    device: str,
    group: Group = ALONE,
    hand_over: Callable[[TrainedRun], object],
) -> Completed | Stopped:
    """As `training.loop.train`, telling the log and, where a person wants it, TensorBoard. The last word is not written. Raises as that does."""
    with _board_for(config, folder) as draw:

        def emit(event: Event) -> None:
            log.write(event)
            draw(event)

        ending = train(
            config, folder, emit=emit, should_stop=should_stop, is_resumed=is_resumed, device=device, group=group, hand_over=hand_over
        )
        draw(ending)
    return ending


def failed(error: Exception, began: float) -> Failed:
    """The last word of a run in which `error` was raised; the traceback goes into the worker's log. `began`: of time.monotonic()."""
    traceback.print_exc()
    message = str(error) if isinstance(error, CifarTLError) else _explain(error)
    return Failed(error=type(error).__name__, message=message, seconds=time.monotonic() - began)


def _explain(error: Exception) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    if type(error).__name__ == "OutOfMemoryError":
        return out_of_memory(first_line)
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}: {error.filename or 'a file of the run'}. What was saved before is whole."
    return f"{type(error).__name__}: {first_line}. The traceback is in the worker log."


def out_of_memory(reason: str) -> str:
    return f"The device ran out of memory ({reason}). Choose a smaller batch size or image size."


def describe(trained: TrainedRun, folder: RunFolder, should_stop: Callable[[], bool]) -> None:
    """The run is complete on disk: whatever goes wrong here is for the worker's log."""
    try:
        describe_trained(trained, folder, should_stop=should_stop)
    except StopRequested:
        pass
    except Exception:
        traceback.print_exc()


def draw_map(folder: RunFolder, lock: int) -> None:
    """Does not return where there is a map to be drawn: this process then goes on as the one that draws it."""
    try:
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
