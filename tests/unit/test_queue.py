"""The queue for devices: one run at a time, in order, and nobody who died in the way. Waiting runs are threads and real processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cifar_tl.errors import RunInvalid, RunNotFound
from cifar_tl.paths import PROJECT_ROOT, RunFolder, device_locks_root
from cifar_tl.runs.queue import devices_for, move_to_front, runs_waiting
from tests.made_runs import make_run

CPU = ("cpu",)
SECONDS = 20


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def made(root: Path, run_id: str, created: int) -> RunFolder:
    return make_run(root, run_id=run_id, status="empty", created=created)


class Waiting(threading.Thread):
    """A run that waits, has the device until it is let go, and notes in `started` when it got it."""

    def __init__(self, folder: RunFolder, started: list[str], devices: tuple[str, ...] = CPU) -> None:
        super().__init__(daemon=True)
        self.folder, self.started, self.devices = folder, started, devices
        self.told: list[int] = []
        self.waits, self.has_it, self.let_go, self.stop = (threading.Event() for _ in range(4))
        self.device: str | None = None
        self.start()

    def run(self) -> None:
        with devices_for(self.folder, self.devices, tell=self._tell, should_stop=self.stop.is_set) as devices:
            self.device = devices[0] if devices else None
            if self.device:
                self.started.append(self.folder.run_id)
            self.has_it.set()
            self.let_go.wait(SECONDS)

    def _tell(self, ahead: int) -> None:
        self.told.append(ahead)
        self.waits.set()

    def finish(self) -> None:
        assert self.has_it.wait(SECONDS), f"{self.folder.run_id} never got a device"
        self.let_go.set()
        self.join(SECONDS)


def test_a_free_device_is_had_at_once_and_nothing_is_told(roots):
    run = Waiting(made(roots, "a", 1), [])
    run.finish()
    assert (run.device, run.told) == ("cpu", [])
    assert runs_waiting() == []


def test_runs_start_in_the_order_in_which_they_were_made(roots):
    started: list[str] = []
    first = Waiting(made(roots, "a", 1), started)
    first.has_it.wait(SECONDS)
    # The younger one comes to the queue before the older one.
    young = Waiting(made(roots, "c", 3), started)
    assert young.waits.wait(SECONDS)
    old = Waiting(made(roots, "b", 2), started)
    assert old.waits.wait(SECONDS)
    assert runs_waiting() == ["b", "c"]
    for run in (first, old, young):
        run.finish()
    assert started == ["a", "b", "c"]
    assert young.told[0] == 0
    assert 1 in young.told  # the older one came before it


def test_a_run_moved_to_the_front_is_the_next(roots):
    started: list[str] = []
    runs = [Waiting(made(roots, "a", 1), started)]
    runs[0].has_it.wait(SECONDS)
    for created, run_id in enumerate(("b", "c", "d"), 2):
        runs.append(Waiting(made(roots, run_id, created), started))
        assert runs[-1].waits.wait(SECONDS)
    move_to_front("c")
    move_to_front("d")
    assert runs_waiting() == ["d", "c", "b"]
    a, b, c, d = runs
    for run in (a, d, c, b):
        run.finish()
    assert started == ["a", "d", "c", "b"]
    assert not d.folder.queue_front.exists()


def test_only_a_run_that_waits_is_moved(roots):
    made(roots, "a", 1)
    with pytest.raises(RunInvalid, match="does not wait"):
        move_to_front("a")
    with pytest.raises(RunNotFound):
        move_to_front("../a")


def test_two_devices_serve_two_runs_at_a_time(roots):
    started: list[str] = []
    gpus = ("cuda:0", "cuda:1")
    runs = []
    for created, run_id in enumerate(("a", "b")):
        runs.append(Waiting(made(roots, run_id, created), started, gpus))
        assert runs[-1].has_it.wait(SECONDS)
    third = Waiting(made(roots, "c", 9), started, gpus)
    assert third.waits.wait(SECONDS)
    assert [run.device for run in runs] == ["cuda:0", "cuda:1"]
    runs[1].finish()
    assert third.has_it.wait(SECONDS)
    assert third.device == "cuda:1"
    for run in (runs[0], third):
        run.finish()


def test_who_waits_for_another_device_is_not_in_the_way(roots):
    busy, waiting = Waiting(made(roots, "a", 1), [], ("cuda:0",)), made(roots, "b", 2)
    busy.has_it.wait(SECONDS)
    stuck = Waiting(waiting, [], ("cuda:0",))
    assert stuck.waits.wait(SECONDS)
    other = Waiting(made(roots, "c", 3), [], CPU)
    other.finish()
    assert other.told == []
    for run in (busy, stuck):
        run.finish()


def test_a_run_that_is_asked_to_stop_leaves_the_queue(roots):
    busy = Waiting(made(roots, "a", 1), [])
    busy.has_it.wait(SECONDS)
    waiting = Waiting(made(roots, "b", 2), [])
    assert waiting.waits.wait(SECONDS)
    waiting.stop.set()
    waiting.finish()
    assert waiting.device is None
    assert runs_waiting() == []
    busy.finish()


_PROCESS = """
import sys
from pathlib import Path
from cifar_tl.paths import RunFolder
from cifar_tl.runs.queue import devices_for
say = lambda word: print(word, flush=True)
with devices_for(RunFolder(Path(sys.argv[1])), ("cpu",), tell=lambda ahead: say("waits"), should_stop=lambda: False):
    say("has it")
    sys.stdin.read()
"""


@pytest.fixture
def process() -> Iterator[Callable[[RunFolder, str], subprocess.Popen[str]]]:
    """Start a process for a run, and wait for it to say a word."""
    processes = []

    def start(folder: RunFolder, word: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(folder.path)],
            cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy(),
        )  # fmt: skip
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline().strip() == word
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_run_lets_go_of_its_device(roots, process):
    holder = process(made(roots, "a", 1), "has it")
    waiting = Waiting(made(roots, "b", 2), [])
    assert waiting.waits.wait(SECONDS)
    os.kill(holder.pid, signal.SIGKILL)
    waiting.finish()
    assert waiting.device == "cpu"


def test_a_killed_run_is_not_waited_for(roots, process):
    busy = Waiting(made(roots, "a", 1), [])
    busy.has_it.wait(SECONDS)
    killed = process(made(roots, "b", 2), "waits")
    waiting = Waiting(made(roots, "c", 3), [])
    assert waiting.waits.wait(SECONDS)
    assert runs_waiting() == ["b", "c"]
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert runs_waiting() == ["c"]
    assert len(list((device_locks_root() / "waiting").iterdir())) == 1
    busy.finish()
    waiting.finish()
    assert waiting.device == "cpu"
