"""Runs on a real Ray cluster: a head without processors and machines of one processor each, all of them processes on this one."""

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from cifar_tl.config import make_config
from cifar_tl.data.sources import prepare
from cifar_tl.errors import ClusterUnavailable
from cifar_tl.evaluation.embeddings import is_described
from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.runs import cluster, launcher
from cifar_tl.runs.events import Completed, Failed, Stopped
from cifar_tl.runs.store import RunStatus, is_alive, run_ids
from cifar_tl.runs.submission import read_submission
from tests.integration.test_group import CHANGED, CONFIG, LONG, Started, losses, wait_for

JobSubmissionClient = pytest.importorskip("ray.job_submission", reason="Ray is optional").JobSubmissionClient
ray_cluster = pytest.importorskip("ray.cluster_utils", reason="Ray is optional: pip install -r requirements-ray.txt")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def roots(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path_factory.mktemp("checkpoints")))
        patch.setenv("PYTHONPATH", str(PROJECT_ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        prepare("shapes")
        yield


@pytest.fixture(scope="module")
def machines(roots) -> Iterator[Any]:
    port = free_port()
    made = ray_cluster.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": True, "dashboard_port": port, "dashboard_host": "127.0.0.1"},
    )
    made.http = f"http://127.0.0.1:{port}"
    for _ in range(2):
        made.add_node(num_cpus=1)
    wait_for(lambda: answers(made.http), "the cluster")
    yield made
    made.shutdown()


def answers(address: str) -> bool:
    try:
        cluster.require_cluster(address)
    except ClusterUnavailable:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sent(Started):
    """A run that was sent to the cluster."""

    def __init__(self, address: str, **changes: Any) -> None:
        super().__init__(on=address, **changes)

    def until_it_trains(self) -> None:
        self.until(lambda history: len(history.steps) > 3, "steps")


def finish(run: Started) -> Completed:
    ending = run.end()
    assert isinstance(ending, Completed), f"{ending}\n{run.folder.worker_log.read_text()[-5000:]}"
    return ending


def test_a_run_on_the_cluster_ends_as_one_on_this_machine_does_and_is_described(machines):
    there = Sent(machines.http, **CHANGED, describe=True)
    assert there.follower.update() in (RunStatus.QUEUED, RunStatus.RUNNING)
    finish(there)
    here = Started(**CHANGED)
    finish(here)
    assert losses(there) == pytest.approx(losses(here), abs=1e-4)
    assert is_described(there.folder)
    assert not (there.folder.path / "ray").exists()


def test_two_processes_on_two_machines_train_as_one_does(machines):
    there = Sent(machines.http, **CHANGED, processes=2)
    finish(there)
    assert there.history.started is not None
    assert there.history.started.processes == 2
    here = Started(**CHANGED)
    finish(here)
    assert losses(there) == pytest.approx(losses(here), abs=1e-4)


def test_two_runs_train_at_once_a_third_waits_and_begins_when_one_is_stopped(machines):
    first, second = Sent(machines.http, **LONG), Sent(machines.http, **LONG)
    for run in (first, second):
        run.until_it_trains()
    third = Sent(machines.http, **LONG)
    third.until(lambda history: "cluster is full" in (history.phase.text if history.phase else ""), "the queue")
    assert third.follower.update() is RunStatus.QUEUED
    seen = len(second.history.steps)
    assert launcher.request_stop(first.folder.run_id)
    assert isinstance(first.end(), Stopped)
    third.until_it_trains()
    second.until(lambda history: len(history.steps) > seen, "steps of the second run, beside it")
    fourth = Sent(machines.http, **LONG)
    fourth.until(lambda history: "cluster is full" in (history.phase.text if history.phase else ""), "the queue")
    for run in (fourth, second, third):  # one that waits, two that train
        assert launcher.request_stop(run.folder.run_id)
        assert isinstance(run.end(), Stopped)
    assert not fourth.history.steps


def test_a_machine_that_dies_takes_no_run_with_it(machines):
    for machine in [machine for machine in machines.list_all_nodes() if machine is not machines.head_node]:
        machines.remove_node(machine)
    run = Sent(machines.http, **LONG | {"epochs": 60})
    run.until(lambda history: "when machines join" in (history.phase.text if history.phase else ""), "the queue")
    victim = machines.add_node(num_cpus=1)
    run.until_it_trains()
    machines.add_node(num_cpus=1)
    machines.remove_node(victim, allow_graceful=False)
    run.until(lambda history: any("was lost" in warned.message for warned in history.warnings), "the run to go on elsewhere")
    seen = run.history.steps[-1].step if run.history.steps else 0
    run.until(lambda history: history.steps and history.steps[-1].step > seen + 3, "steps elsewhere")
    finish(run)
    machines.add_node(num_cpus=1)
    steps = [step.step for step in run.history.steps]
    assert steps == list(range(1, 60 * 8 + 1))  # none twice, none missing
    assert len(run.history.epochs) == 60


def test_a_run_moves_from_here_to_the_cluster_and_back(machines):
    run = Started(**LONG)
    run.until(lambda history: len(history.steps) > 10, "steps here")
    launcher.request_stop(run.folder.run_id)
    assert isinstance(run.end(), Stopped)
    launcher.resume_run(run.folder.run_id, on=machines.http)
    before = run.history.steps[-1].step
    run.until(lambda history: history.steps and history.steps[-1].step > before + 5, "steps there")
    assert launcher.where(run.folder) == machines.http
    launcher.request_stop(run.folder.run_id)
    stopped = run.end()
    assert isinstance(stopped, Stopped)
    launcher.resume_run(run.folder.run_id, on=launcher.HERE, epochs=stopped.step // 8 + 1)
    finish(run)
    assert read_submission(run.folder) is None
    assert [step.step for step in run.history.steps] == list(range(1, (stopped.step // 8 + 1) * 8 + 1))


def test_a_job_that_ray_is_told_to_stop_is_a_run_stopped_with_a_checkpoint(machines):
    run = Sent(machines.http, **LONG)
    run.until_it_trains()
    submission = read_submission(run.folder)
    assert submission is not None
    assert JobSubmissionClient(machines.http).stop_job(submission.job)
    ending = run.end()
    assert isinstance(ending, Stopped), ending
    launcher.resume_run(run.folder.run_id, on=launcher.HERE, epochs=ending.step // 8 + 1)
    finish(run)
    assert [step.step for step in run.history.steps] == list(range(1, (ending.step // 8 + 1) * 8 + 1))


def test_a_request_that_no_machine_can_meet_waits_in_words_and_can_be_cancelled(machines):
    run = Sent(machines.http, processes=9)
    run.until(lambda history: "begins when machines join" in (history.phase.text if history.phase else ""), "the reason")
    assert launcher.request_stop(run.folder.run_id)
    assert isinstance(run.end(), Stopped)


def test_what_the_run_cannot_do_is_said_in_its_own_words(machines):
    run = Sent(machines.http, classes=("circle", "no such class"))
    ending = run.end()
    assert isinstance(ending, Failed)
    assert "no such class" in ending.message


def test_a_job_that_dies_before_it_begins_is_a_failed_run_that_says_so(machines, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    run = Sent(machines.http)
    ending = run.end()
    assert isinstance(ending, Failed)
    assert "before the run began" in ending.message


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def another() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_address_without_a_cluster_is_refused_in_words_and_leaves_no_run(silent, another, monkeypatch):
    monkeypatch.setattr(cluster, "_SECONDS_TO_ANSWER", 0.5)
    before = run_ids()
    for address, words in (
        (f"http://127.0.0.1:{free_port()}", "No Ray cluster can be reached"),
        ("http://no.such.host.invalid:8265", "No Ray cluster can be reached"),
        (silent, "does not answer"),
        (another, "is no Ray cluster"),
        ("ray://127.0.0.1:10001", "is no address"),
        ("", "Type the address"),
    ):
        with pytest.raises(ClusterUnavailable, match=words):
            launcher.start_run(make_config(**CONFIG), on=address)
    assert run_ids() == before


def test_the_command_line_sends_a_run_and_follows_it(machines):
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in CONFIG.items() if name not in ("classes", "describe")]
    done = subprocess.run(
        [sys.executable, "-m", "cifar_tl", "train", "--on", machines.http, "--no-describe", "--classes", *CONFIG["classes"], *arguments],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test" in done.stdout


def test_when_the_head_dies_the_run_is_lost_and_goes_on_here(machines):
    """The last one: no cluster is left."""
    run = Sent(machines.http, **LONG)
    run.until(lambda history: len(history.epochs) > 1, "an epoch")
    machines.remove_node(machines.head_node, allow_graceful=False)
    wait_for(lambda: not is_alive(run.folder), "the driver to notice")
    wait_for(lambda: not processes_of_ray(), "processes on its machines to notice")
    # The driver, a process of the head, outlives Ray's own here and may say so; it would not if the whole machine went.
    assert run.follower.update() in (RunStatus.LOST, RunStatus.FAILED)
    epochs = run.history.epochs[-1].epoch + 2
    launcher.resume_run(run.folder.run_id, on=launcher.HERE, epochs=epochs)
    run.until(lambda history: isinstance(history.terminal, Completed), "the end")
    assert [step.step for step in run.history.steps] == list(range(1, epochs * 8 + 1))


def processes_of_ray() -> list[psutil.Process]:
    """Those that train and still run."""
    found = [process for process in psutil.process_iter(["cmdline", "status"]) if "RayTrainWo" in " ".join(process.info["cmdline"] or ())]
    return [process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]
