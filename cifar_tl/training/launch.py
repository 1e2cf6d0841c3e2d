"""Start the processes of one run on this machine, by torch's own elastic launcher (what torchrun is made of), and learn how they ended.

Each is `python -m cifar_tl rank RUN_DIR` (`training.rank`). The first one writes the log. If one dies, the launcher ends the others.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cifar_tl.devices import cpu_count
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Failed, Stopped
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.log import EventReader, EventWriter
from cifar_tl.training.last_word import failed, out_of_memory

_LOOK_AGAIN_SECONDS = 0.1
SECONDS_TO_STOP = 600.0  # after a request; a step, or what comes between two of them, may take minutes
_SECONDS_TO_DIE = 5  # between SIGTERM and SIGKILL, for the processes that are left when one has died
HAS_WORKER = "CIFAR_TL_HAS_WORKER"  # its process id, told to the processes: it holds the run's lock, and says the last word if they cannot
IS_RESUMED = "CIFAR_TL_IS_RESUMED"


def train_in_processes(
    folder: RunFolder, processes: int, devices: Sequence[str], *, is_resumed: bool, should_stop: Callable[[], bool]
) -> Completed | Stopped | Failed:
    """Wait until the run has said its last word, which is returned, and its processes are gone. A signal to stop becomes a request in the folder."""
    began, raised = time.monotonic(), list[Exception]()
    _set_environment(processes, devices, is_resumed)

    def launch() -> None:
        arguments = ("-m", "cifar_tl", "rank", str(folder.path))
        try:
            with tempfile.TemporaryDirectory(prefix="cifar_tl-") as logs:  # the launcher would leave one behind
                elastic_launch(_launch_config(folder, processes, logs), sys.executable)(*arguments)
        except Exception as error:
            raised.append(error)

    # In the main thread the launcher would take the signals, and end the processes instead of stopping the run.
    launcher, our_request = threading.Thread(target=launch, name="launcher", daemon=True), False
    launcher.start()
    stop_asked, is_deaf = 0.0, False
    while launcher.is_alive():
        if should_stop() and not stop_asked:
            stop_asked = time.monotonic()
            our_request = not folder.stop_request.exists()
            folder.stop_request.touch()
        if stop_asked and not is_deaf and time.monotonic() - stop_asked > SECONDS_TO_STOP:
            is_deaf = True
            _kill_processes()
        launcher.join(_LOOK_AGAIN_SECONDS)
    if our_request:
        folder.stop_request.unlink(missing_ok=True)
    said = last_word(folder)
    if said is not None:
        return said
    ending = _deaf(began) if is_deaf else _explained(raised, processes, began)
    with EventWriter(folder.events) as log:
        log.write_last(ending)
    return ending


def _kill_processes() -> None:
    """Those that the launcher started; it notices, and ends."""
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "rank" in process.cmdline():
                process.kill()


def _launch_config(folder: RunFolder, processes: int, logs: str) -> LaunchConfig:
    """As `torchrun --standalone`: one machine, any free port."""
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        run_id=folder.run_id,
        monitor_interval=_LOOK_AGAIN_SECONDS,
        shutdown_timeout=_SECONDS_TO_DIE,
        logs_specs=DefaultLogsSpecs(log_dir=logs),
    )


def _set_environment(processes: int, devices: Sequence[str], is_resumed: bool) -> None:
    """What the processes inherit. Each takes the visible GPU of its local index."""
    os.environ[HAS_WORKER] = str(os.getpid())
    os.environ[IS_RESUMED] = str(int(is_resumed))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // processes)))
    chosen = [int(name.partition(":")[2]) for name in devices if name.startswith("cuda:")]
    if chosen:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(index) for index in range(max(chosen) + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[index] for index in chosen)


def last_word(folder: RunFolder) -> Completed | Stopped | Failed | None:
    """None while it has not been said."""
    history = RunHistory()
    history.extend(EventReader(folder.events).read_new())
    return history.terminal


def _explained(raised: Sequence[Exception], processes: int, began: float) -> Failed:
    if not raised:
        message = "The processes of the run ended without a word. The worker log may tell why."
        return Failed(error="ProcessFailed", message=message, seconds=time.monotonic() - began)
    if not isinstance(raised[0], ChildFailedError):
        return failed(raised[0], began)
    return why_failed(list(raised[0].failures.items()), processes, time.monotonic() - began)


def why_failed(failures: Sequence[tuple[int, ProcessFailure]], processes: int, seconds: float) -> Failed:
    """In words, from what the launcher knows of each process (by its index). Those that it ended itself are no cause."""
    index, failure = min(failures, key=lambda item: (item[1].exitcode == -signal.SIGTERM, item[1].timestamp))
    which = f"Process {index + 1} of {processes}"
    if failure.exitcode < 0:
        reason = f"{which} was killed ({failure.signal_name()}). Resume the run: it goes on from its last checkpoint."
        return Failed(error="ProcessKilled", message=reason, seconds=seconds)
    kind, _, text = failure.message.partition(": ")
    first_line = (text.splitlines() or [""])[0]
    if kind.endswith("OutOfMemoryError"):
        return Failed(error=kind, message=out_of_memory(first_line), seconds=seconds)
    return Failed(error=kind or "ProcessFailed", message=f"{which}: {first_line} The traceback is in the worker log.", seconds=seconds)


def _deaf(began: float) -> Failed:
    message = (
        f"The processes of the run did not answer the request to stop within {SECONDS_TO_STOP / 60:.0f} minutes and were ended. "
        "Resume the run: it goes on from its last checkpoint."
    )
    return Failed(error="ProcessFailed", message=message, seconds=time.monotonic() - began)
