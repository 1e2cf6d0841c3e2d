"""The prediction process: real children, trivial work."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar_tl.errors import CifarTLError, PredictionProcessDied, RunNotFound
from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.ui.predictor import PredictionProcess, result_of

PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def process() -> Iterator[PredictionProcess]:
    shared = PredictionProcess()
    yield shared
    shared.shutdown()


def answer(process: PredictionProcess, function: str, *args: object) -> object:
    future = process.submit(function, *args)
    future.exception(PATIENCE_SECONDS)
    return result_of(future)


def test_answers_come_from_another_process(process: PredictionProcess) -> None:
    assert answer(process, "os:getpid") != os.getpid()


def test_one_child_serves_all_requests(process: PredictionProcess) -> None:
    assert answer(process, "os:getpid") == answer(process, "os:getpid")


def test_arguments_and_answers_travel_unchanged(process: PredictionProcess) -> None:
    assert answer(process, "builtins:divmod", 17, 5) == (3, 2)


def test_nothing_is_started_before_the_first_request() -> None:
    assert PredictionProcess()._executor is None


def test_an_error_for_the_user_comes_back_as_itself(process: PredictionProcess) -> None:
    with pytest.raises(RunNotFound, match="There is no run 'no-such-run'"):
        answer(process, "cifar_tl.runs.store:find_run", "no-such-run")


def test_any_other_error_comes_back_as_one_line_that_names_it(process: PredictionProcess) -> None:
    with pytest.raises(CifarTLError, match="ValueError: invalid literal") as caught:
        answer(process, "builtins:int", "seven")
    assert "\n" not in str(caught.value)


def test_a_function_that_does_not_exist_is_an_error_and_not_a_dead_process(process: PredictionProcess) -> None:
    with pytest.raises(CifarTLError, match="ModuleNotFoundError"):
        answer(process, "cifar_tl.no_such_module:anything")
    assert answer(process, "builtins:abs", -1) == 1


def test_a_child_killed_in_the_middle_gives_one_clear_line_and_the_next_request_works() -> None:
    process = PredictionProcess()
    pid = answer(process, "os:getpid")
    assert isinstance(pid, int)
    working = process.submit("time:sleep", PATIENCE_SECONDS)
    waiting = process.submit("builtins:abs", -1)
    os.kill(pid, signal.SIGKILL)
    for future in (working, waiting):
        future.exception(PATIENCE_SECONDS)
        with pytest.raises(PredictionProcessDied, match="Ask again"):
            result_of(future)
    assert answer(process, "os:getpid") not in (pid, None)
    process.shutdown()


def test_a_child_killed_while_idle_is_replaced() -> None:
    process = PredictionProcess()
    pid = answer(process, "os:getpid")
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    wait_until_broken(process)
    assert answer(process, "builtins:abs", -1) == 1
    process.shutdown()


def wait_until_broken(process: PredictionProcess) -> None:
    executor = process._executor
    assert executor is not None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not executor._broken:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_dashboard_leaves_no_child_behind(tmp_path: Path) -> None:
    dashboard = tmp_path / "dashboard.py"
    dashboard.write_text(
        "if __name__ == '__main__':\n"
        "    import time\n"
        "    from cifar_tl.ui.predictor import PredictionProcess\n"
        "    process = PredictionProcess()\n"
        "    print(process.submit('os:getpid').result(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, dashboard], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        child_gone = os.pidfd_open(child)
        parent.kill()
    readable, _, _ = select.select([child_gone], [], [], PATIENCE_SECONDS)
    os.close(child_gone)
    assert readable


def test_the_child_imports_neither_streamlit_nor_torch_before_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text("import sys\ndef heavy(): return sorted({'streamlit', 'torch'} & set(sys.modules))\n")
    script = tmp_path / "script.py"
    script.write_text(
        "if __name__ == '__main__':\n"
        "    from cifar_tl.ui.predictor import PredictionProcess\n"
        "    process = PredictionProcess()\n"
        "    print(process.submit('look:heavy').result())\n"
        "    process.shutdown()\n"
    )
    path = os.pathsep.join([str(PROJECT_ROOT), str(tmp_path)])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=True)
    assert done.stdout.strip() == "[]"
