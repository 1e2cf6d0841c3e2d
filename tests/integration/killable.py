"""A run that is killed on purpose: `python -m tests.integration.killable RUN_DIR KILL [KILL ...]`. Started by test_resume.

For each KILL a worker is started that dies by SIGKILL at that moment; one for the empty word lives to its end. Each goes on with the
same run folder. Prints, as JSON, how each of them ended: minus the number of the signal, or the exit code.

    step:N          before step N of this worker          gradients:N    between backward pass and optimizer step
    log:N           in the middle of writing line N       checkpoint:N   in the middle of writing checkpoint N
    rename:N        between the two renames of checkpoint N
    best:N          in the middle of writing best.safetensors, the N-th time
    epoch:N         while dev is being measured, in chunk N
    event:N         after epoch event N and before its checkpoint
    test            in the middle of the test evaluation  arrays         in the middle of writing evaluation/test.npz
    after:SECONDS   whatever it does then
    stop:N          asked to stop by SIGTERM before step N; not killed
    stop_dev:N      asked to stop while dev is being measured, in chunk N

Workers are forked from one process that has imported everything and computed nothing: that takes a tenth of a second, not five.
The clock that checkpoints go by ticks once, by a second, each time it is looked at, which is once a step: where a worker dies does not depend on
how fast the machine is. Steps are reported as seldom as the settings ask, however short the epoch.
"""

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

import torch

from cifar_tl.evaluation import collect
from cifar_tl.paths import RunFolder
from cifar_tl.runs import log
from cifar_tl.runs.events import Epoch
from cifar_tl.training import checkpoint, loop, trainer
from cifar_tl.training.worker import run_worker


def main() -> None:
    folder, *kills = sys.argv[1:]
    sys.stdout.write(json.dumps([_run(RunFolder(Path(folder)), kill) for kill in kills]) + "\n")


def _run(folder: RunFolder, kill: str) -> int:
    child = os.fork()
    if child == 0:
        _live_and_die(folder, kill)
    if kill.startswith("after:"):
        time.sleep(float(kill.split(":")[1]))
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _live_and_die(folder: RunFolder, kill: str) -> NoReturn:
    code = 70
    try:
        torch.set_num_threads(1)
        mock.patch.object(loop, "time", SimpleNamespace(monotonic=itertools.count().__next__)).start()
        mock.patch.object(trainer, "_LOGGED_STEPS_PER_EPOCH", 1).start()
        name, _, count = kill.partition(":")
        if name and name != "after":
            _POINTS[name](int(count or 1))
        code = run_worker(folder)
    finally:
        os._exit(code)


def _die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _at_call(
    owner: Any, name: str, count: int, instead: Callable[..., Any] = _die, when: Callable[..., bool] = lambda *_, **__: True
) -> None:
    """Call `instead` in place of the count-th call of `owner.name` for which `when` holds."""
    original, calls = getattr(owner, name), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += when(*arguments, **named)
        return instead(*arguments, **named) if calls == count else original(*arguments, **named)

    setattr(owner, name, counted)


def _half_a_line(descriptor: int, data: bytes) -> NoReturn:
    _WRITE(descriptor, data[: len(data) // 2])
    _die()


def _half_a_file(_content: Any, target: Any, *_: Any, **__: Any) -> NoReturn:
    """`target` is an open file for torch, a path for safetensors."""
    if isinstance(target, Path):
        target.write_bytes(b"half of it")
    else:
        target.write(b"half of it")
        target.flush()
    _die()


def _half_the_arrays(path: Path, _arrays: Any) -> NoReturn:
    path.with_name(f".{path.name}.{os.getpid()}").write_bytes(b"half of it")
    _die()


def _ask_to_stop(original: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    return asked


def _after_the_event(writer: log.EventWriter, event: Any) -> NoReturn:
    _WRITE_EVENT(writer, event)
    _die()


def _is_of_the_log(_descriptor: int, data: bytes) -> bool:
    return data.startswith(b'{"v"')


_WRITE, _WRITE_EVENT = os.write, log.EventWriter.write
_POINTS: dict[str, Callable[[int], None]] = {
    "step": lambda n: _at_call(trainer.Trainer, "step", n),
    "gradients": lambda n: _at_call(torch.optim.SGD, "step", n),
    "log": lambda n: _at_call(log.os, "write", n, _half_a_line, _is_of_the_log),
    "checkpoint": lambda n: _at_call(checkpoint.torch, "save", n, _half_a_file),
    "rename": lambda n: _at_call(Path, "replace", n, when=lambda path, target: path.name == ".last.pt.writing"),
    "best": lambda n: _at_call(checkpoint, "save_file", n, _half_a_file),
    "stop": lambda n: _at_call(trainer.Trainer, "step", n, _ask_to_stop(trainer.Trainer.step)),
    "stop_dev": lambda n: _at_call(loop._Run, "checked", n, _ask_to_stop(loop._Run.checked)),
    "epoch": lambda n: _at_call(loop._Run, "checked", n),
    "event": lambda n: _at_call(log.EventWriter, "write", n, _after_the_event, lambda _log, event: isinstance(event, Epoch)),
    "test": lambda n: _at_call(loop, "load_weights", n, lambda *_: _at_call(collect, "in_order", 1)),
    "arrays": lambda n: _at_call(loop, "save_evaluation", n, _half_the_arrays, lambda path, _arrays: path.stem == "test"),
}

if __name__ == "__main__":
    main()
