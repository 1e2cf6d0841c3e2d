"""The driver of a run on a Ray cluster: `python -m cifar_tl cluster-driver RUN_DIR`, the entry point of the job that `runs.cluster` submits.

It runs on the cluster's head, does no work itself, and is to the run what a worker is on one machine: it holds the lock, and says the last
word if the processes cannot. Ray Train's TorchTrainer places the processes (`training.rank`), and starts them again elsewhere when a
machine dies; they go on from the last checkpoint.
"""

import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, ScalingConfig
from ray.train import RunConfig as TrainRunConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from cifar_tl.config import RunConfig
from cifar_tl.group import PATIENCE
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Completed, Failed, Phase, Stopped
from cifar_tl.runs.log import EventWriter
from cifar_tl.runs.store import RunFollower, RunStatus, read_config
from cifar_tl.training.last_word import draw_map, failed
from cifar_tl.training.launch import last_word
from cifar_tl.training.worker import stopped_while_waiting, take_lock

_RESTARTS = 3  # after deaths of machines
_LOOK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Needs:
    """What a run asks the cluster for: so many processes, each with so many processors and GPUs."""

    processes: int
    cpus: int
    gpus: int


def run_driver(folder: RunFolder) -> int:
    """Train the run in `folder` on the cluster that this job belongs to. Returns the exit code."""
    lock = take_lock(folder)
    os.set_inheritable(lock, False)
    _write_into(folder.worker_log)
    stop_signals: list[int] = []
    began = time.monotonic()
    if folder.stop_request.exists():
        return _say(folder, stopped_while_waiting(folder))
    ending: Completed | Stopped | Failed | None = None
    try:
        ray.init()
        for number in (signal.SIGTERM, signal.SIGINT):  # not earlier: Ray puts in its own, which end this process
            signal.signal(number, lambda received, _frame: stop_signals.append(received))
        problem = _train(folder, read_config(folder), lambda: bool(stop_signals))
        ending = last_word(folder) or Failed(error="ProcessFailed", message=problem, seconds=time.monotonic() - began)
    except Exception as error:
        ending = last_word(folder) or failed(error, began)
    if last_word(folder) is None:
        _say(folder, ending)
    if isinstance(ending, Completed) and not folder.stop_request.exists():
        draw_map(folder, lock)
    return 1 if isinstance(ending, Failed) else 0


def _train(folder: RunFolder, config: RunConfig, is_asked: Callable[[], bool]) -> str:
    """Wait for a place and until the processes are done. Returns what went wrong, in words; they may have said it themselves."""
    needs = needs_of(config, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    text = why_wait(needs, ray.cluster_resources(), ray.available_resources())
    if text:
        with EventWriter(folder.events) as log:
            log.write(Phase(name="queued", text=text))
    threading.Thread(target=_pass_on_stop, args=(folder, is_asked), name="pass-on-stop", daemon=True).start()
    storage = folder.path / "ray"
    trainer = TorchTrainer(
        _train_as_one,
        train_loop_config={"run_dir": str(folder.path)},
        torch_config=TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
        scaling_config=ScalingConfig(
            num_workers=needs.processes, use_gpu=needs.gpus > 0, resources_per_worker={"CPU": needs.cpus, "GPU": needs.gpus}
        ),
        run_config=TrainRunConfig(name=folder.run_id, storage_path=str(storage), failure_config=FailureConfig(max_failures=_RESTARTS)),
    )
    try:
        trainer.fit()
    except Exception as error:
        traceback.print_exc()
        return _why(error)
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    return "The processes of the run ended without a word. The worker log may tell why."


def _train_as_one(settings: dict[str, Any]) -> None:
    """In each process, on whichever machine Ray has placed it."""
    from cifar_tl.training.rank import run_rank_on_cluster

    device = get_device()
    run_rank_on_cluster(RunFolder(Path(settings["run_dir"])), str(device) if device.type == "cuda" else "cpu")


def needs_of(config: RunConfig, machines: list[dict[str, float]]) -> Needs:
    """One process takes a GPU and its part of the machine's processors, or all processors of the smallest machine. `machines`: Ray's resources of each."""
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if config.device == "cuda" or (config.device == "auto" and gpus):
        per_gpu = [machine.get("CPU", 1) // machine["GPU"] for machine in machines if machine.get("GPU", 0) >= 1]
        return Needs(config.processes or max(1, gpus), max(1, int(min(per_gpu, default=1))), 1)
    cpus = [machine["CPU"] for machine in machines if machine.get("CPU", 0) >= 1]
    return Needs(config.processes or 1, int(min(cpus, default=1)), 0)


def why_wait(needs: Needs, all_resources: dict[str, float], free_resources: dict[str, float]) -> str:
    """In words; '' if there is room now."""
    for name, title, count in (("GPU", "GPU", needs.gpus * needs.processes), ("CPU", "processor", needs.cpus * needs.processes)):
        asked = f"{count} {title}{'s' if count > 1 else ''}"
        total, free = int(all_resources.get(name, 0)), int(free_resources.get(name, 0))
        if count > total:
            return f"Waiting: the run asks for {asked} and the cluster has {total} in all; it begins when machines join"
        if count > free:
            return f"Waiting: the cluster is full; the run asks for {asked}, of which {free} are free"
    return ""


def _pass_on_stop(folder: RunFolder, is_asked: Callable[[], bool]) -> None:
    """A signal becomes a request, which the first process hears. Before there are processes, the job just ends."""
    follower = RunFollower(folder)
    while True:
        if is_asked():
            folder.stop_request.touch()
        if folder.stop_request.exists() and follower.update() is RunStatus.QUEUED:
            _say(folder, stopped_while_waiting(folder))
            os._exit(0)
        time.sleep(_LOOK_AGAIN_SECONDS)


def _why(error: Exception) -> str:
    """Of what TorchTrainer raises."""
    failures = getattr(error, "worker_failures", None) or {}
    first = next(iter(failures.values()), error)
    cause = next((line for line in reversed(str(first).splitlines()) if line.strip()), type(first).__name__).strip()
    return (
        f"The run was started {_RESTARTS + 1} times on the cluster and its processes died each time: {cause} The worker log may tell more."
    )


def _say(folder: RunFolder, ending: Completed | Stopped | Failed) -> int:
    with suppress(OSError), EventWriter(folder.events) as log:
        log.write_last(ending)
    return 1 if isinstance(ending, Failed) else 0


def _write_into(log: Path) -> None:
    """Everything that this process prints, and what Ray brings from the others, goes into the run's log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
