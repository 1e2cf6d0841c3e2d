"""What many people who watch a run cost it: training speed with no viewer, with twenty, and with none again; all in one run.

    python -m bench.viewers [--viewers 20] [--seconds 40] [--size 64] [--json]

A viewer is a client that speaks the dashboard's own protocol: it opens the live view of the run and asks for its refresh as often as the page
tells a browser to. It draws nothing: what a browser does on its own machine costs the server nothing. `behind` is the age of the newest
that a viewer can see when its refresh arrives: the time between refreshes and the longest wait for one. Exits 1 beyond a budget.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.common import Column, add_source_option, make_parser, report
from cifar_tl.paths import APP_FILE, PROJECT_ROOT

MOST_SPEED_LOST = 0.05
MOST_SECONDS_BEHIND = 3.0
MOST_MEGABYTES_EACH = 15.0
_WARM_UP_SECONDS = 10
_STARTS_WITHIN_SECONDS = 120
COLUMNS = (
    Column("viewers", "viewers", "d"),
    Column("alone", "images/s alone", ".1f"),
    Column("watched", "images/s watched", ".1f"),
    Column("speed_lost", "speed lost", ".1%"),
    Column("refreshes", "refreshes", ",d"),
    Column("median_milliseconds", "median wait, ms", ".0f"),
    Column("worst_milliseconds", "worst wait, ms", ".0f"),
    Column("seconds_behind", "behind, s", ".2f"),
    Column("megabytes_each", "MB a viewer", ".1f"),
)


@dataclass
class Viewer:
    """One open page. `waits` are the seconds from asking for a refresh to its end."""

    address: str
    run_id: str
    waits: list[float] = field(default_factory=list)
    interval: float = 0.0
    is_shown: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
        from websockets.asyncio.client import connect
        from websockets.typing import Origin, Subprotocol

        stream = f"ws://{self.address}/_stcore/stream"
        origin, protocol = Origin(f"http://{self.address}"), Subprotocol("streamlit")
        async with connect(stream, subprotocols=[protocol], origin=origin, max_size=None) as socket_:
            page, asked = "", 0.0
            fragment: Any = None

            def rerun(**more: Any) -> bytes:
                message = BackMsg()
                message.rerun_script.query_string = f"run={self.run_id}"
                message.rerun_script.page_script_hash = page
                for name, value in more.items():
                    setattr(message.rerun_script, name, value)
                return bytes(message.SerializeToString())

            await socket_.send(rerun())
            while True:
                due = None if fragment is None or asked else max(0.0, fragment.next_at - time.monotonic())
                try:
                    data = await asyncio.wait_for(socket_.recv(), due)
                except TimeoutError:
                    asked = time.monotonic()
                    await socket_.send(rerun(fragment_id=fragment.id, is_auto_rerun=True))
                    continue
                message = ForwardMsg()
                message.ParseFromString(data)
                kind = message.WhichOneof("type")
                if kind == "new_session":
                    page = message.new_session.page_script_hash
                elif kind == "auto_rerun":
                    fragment = _Fragment(message.auto_rerun.fragment_id, message.auto_rerun.interval)
                    self.interval = message.auto_rerun.interval
                elif kind == "script_finished":
                    self.is_shown.set()
                    if asked:
                        self.waits.append(time.monotonic() - asked)
                        fragment.next_at, asked = max(asked + fragment.interval, time.monotonic()), 0.0


class _Fragment:
    def __init__(self, fragment_id: str, interval: float) -> None:
        self.id, self.interval = fragment_id, interval
        self.next_at = time.monotonic() + interval


def main() -> int:
    parser = make_parser(__doc__)
    add_source_option(parser)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=40, help="of each of the three measurements")
    parser.add_argument("--size", type=int, default=64, help="image size of the run in px")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        os.environ["CIFAR_TL_CHECKPOINTS"] = root
        row = _measure(options.source, options.viewers, options.seconds, options.size, Path(root))
    report([row], COLUMNS, as_json=options.json)
    is_within = (
        row["speed_lost"] <= MOST_SPEED_LOST
        and row["seconds_behind"] <= MOST_SECONDS_BEHIND
        and row["megabytes_each"] <= MOST_MEGABYTES_EACH
    )
    return 0 if is_within else 1


def _measure(source: str, viewers: int, seconds: float, size: int, root: Path) -> dict[str, Any]:
    from cifar_tl.config import make_config
    from cifar_tl.runs import launcher
    from cifar_tl.runs.store import find_run

    address = f"127.0.0.1:{_free_port()}"
    server = _serve(address, root / "server.log")
    run_id = launcher.start_run(make_config(source=source, trainable="everything", image_size=size, epochs=1000))
    folder = find_run(run_id)
    try:
        _wait_for(lambda: _is_healthy(address), server)
        _wait_for(lambda: len(_rates(folder.events, 0.0)) > 2, server)
        return asyncio.run(_watch(address, folder, psutil.Process(server.pid), viewers, seconds))
    finally:
        launcher.request_stop(run_id)
        with folder.lock.open("ab") as lock:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        server.terminate()
        server.wait()


async def _watch(address: str, folder: Any, server: psutil.Process, count: int, seconds: float) -> dict[str, Any]:
    first = Viewer(address, folder.run_id)
    await _shown([first])  # imports and caches of the server
    before = await _speed(folder, seconds)
    memory = server.memory_info().rss
    viewers = [Viewer(address, folder.run_id) for _ in range(count)]
    tasks = await _open(viewers)
    await asyncio.sleep(_WARM_UP_SECONDS)
    for viewer in viewers:
        viewer.waits.clear()
    watched = await _speed(folder, seconds)
    grown = server.memory_info().rss - memory
    await _close(tasks)
    await asyncio.sleep(_WARM_UP_SECONDS)
    after = await _speed(folder, seconds)
    waits = [wait for viewer in viewers for wait in viewer.waits]
    alone = (before + after) / 2
    return {
        "viewers": count,
        "alone": alone,
        "alone_before_and_after": [before, after],
        "watched": watched,
        "speed_lost": 1 - watched / alone,
        "refreshes": len(waits),
        "median_milliseconds": 1000 * statistics.median(waits),
        "worst_milliseconds": 1000 * max(waits),
        "seconds_behind": max(viewer.interval for viewer in viewers) + max(waits),
        "megabytes_each": grown / 1e6 / count,
    }


async def _shown(viewers: list[Viewer]) -> None:
    await _close(await _open(viewers))


async def _open(viewers: list[Viewer]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(viewer.watch()) for viewer in viewers]
    await asyncio.wait_for(asyncio.gather(*(viewer.is_shown.wait() for viewer in viewers)), _STARTS_WITHIN_SECONDS)
    return tasks


async def _close(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _speed(folder: Any, seconds: float) -> float:
    """Images a second of the steps that are logged in the next so many seconds."""
    began = time.time()
    await asyncio.sleep(seconds)
    return statistics.mean(_rates(folder.events, began))


def _rates(events: Path, since: float) -> list[float]:
    if not events.exists():
        return []
    found = [json.loads(line) for line in events.read_bytes().splitlines() if b'"type":"step"' in line]
    return [event["images_per_second"] for event in found if event["time"] > since]


def _serve(address: str, log: Path) -> subprocess.Popen[bytes]:
    host, port = address.split(":")
    command = [sys.executable, "-m", "streamlit", "run", str(APP_FILE), "--server.headless", "true"]
    command += ["--server.address", host, "--server.port", port]
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)


def _is_healthy(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://{address}/_stcore/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _wait_for(is_so: Any, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    while not is_so():
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the dashboard or the run did not start")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
