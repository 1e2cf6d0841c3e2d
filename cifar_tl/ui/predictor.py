"""The prediction process: one long-lived child that has torch, so that the dashboard need not.

Owns starting it, handing work to it and starting it anew when it broke. Does not know what is asked: functions are
named by dotted path ("cifar_tl.inference:predict_files") and imported in the child alone. Pages get the shared
instance from `ui.cached.predictor`, submit, and poll the future from a fragment; none ever waits.

The child imports this module first, so nothing of Streamlit may be imported here. It also imports `app.py` as
`__mp_main__` (the way of `spawn`), which is why app.py does its work under `if __name__ == "__main__"`.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from cifar_tl.errors import CifarTLError, PredictionProcessDied


class PredictionProcess:
    """A process of one worker, started at the first request, shared by all sessions, replaced when it broke."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def submit(self, function: str, *args: object) -> Future[Any]:
        """Ask for `function` ("package.module:name") with picklable arguments; returns at once.

        Requests are answered one after the other. Read the future with `result_of`.
        """
        with self._lock:
            if self._executor is not None:
                try:
                    return self._executor.submit(_call, function, args)
                except (BrokenProcessPool, RuntimeError):  # it broke, or somebody shut it down, since the last request
                    self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_child)
            return self._executor.submit(_call, function, args)

    @property
    def is_alive(self) -> bool:
        """True while the child lives; False also before the first request, which starts it."""
        executor = self._executor
        children = list((executor._processes or {}).values()) if executor else []
        # Not `child.is_alive()`: that collects the exit status, which is the executor's matter.
        return any(not wait([child.sentinel], 0) for child in children)

    def shutdown(self) -> None:
        """End the child after its present work; a later request starts another."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown(wait=True, cancel_futures=True)
                self._executor = None


def result_of(future: Future[Any]) -> Any:
    """The answer of a finished future. Raises CifarTLError, PredictionProcessDied among them, with one clear line."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise PredictionProcessDied(
            "The prediction process ended in the middle of its work; often the machine ran out of memory. Ask again: a new one is started."
        ) from error


def _call(function: str, args: tuple[object, ...]) -> Any:
    """Runs in the child. Only CifarTLError leaves it as it is: others may not survive pickling, which would break the pool."""
    try:
        module_name, _, name = function.partition(":")
        return getattr(importlib.import_module(module_name), name)(*args)
    except CifarTLError:
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        raise CifarTLError(
            f"An unexpected error in the prediction process ({type(error).__name__}: {error}). Its traceback is in the dashboard's terminal."
        ) from None


def _prepare_child() -> None:
    """Runs in the child at its start: Ctrl-C is the dashboard's matter, and a dashboard that is gone takes the child along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    # A killed dashboard closes no queue (the child holds both its ends), so the child would wait for work forever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
