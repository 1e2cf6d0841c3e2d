"""A real browser and real servers for the tests in this folder; each server is stopped by its own process, and no other."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.ui.live_plot import ensure_plotly_js
from tests.browser.chromium import find_chromium

CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SERVER_START_SECONDS = 60
PAGE_TIMEOUT_MS = 30_000
expect.set_options(timeout=PAGE_TIMEOUT_MS)  # a busy machine is not a broken page


class StartApp:
    """`start_app(script)` serves a script, given as a path or as its text, and returns its address.

    It listens at `bind`, and gets empty data, cache and checkpoint folders under `folder`, and the project's own Streamlit settings. A script
    given as text has plotly.js in its static folder unless `with_plotly_js=False`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers: list[subprocess.Popen[bytes]] = []
        self._addresses: list[str] = []

    def __call__(self, script: Path | str, *, with_plotly_js: bool = True, bind: str = "127.0.0.1", **environment: str) -> str:
        number = len(self._servers)
        if isinstance(script, str):
            script = _write_script(self.folder / f"app{number}", script, with_plotly_js)
        port = _free_port()
        log = self.folder / f"server{number}.log"
        server = _serve(script, bind, port, log, _environment(self.folder) | environment)
        self._servers.append(server)
        _wait_until_healthy(server, port, log)
        self._addresses.append(f"http://127.0.0.1:{port}")
        return self._addresses[-1]

    def process_of(self, address: str) -> subprocess.Popen[bytes]:
        """The server at an address that was returned."""
        return self._servers[self._addresses.index(address)]

    def log_of(self, address: str) -> str:
        """What that server has written."""
        return (self.folder / f"server{self._addresses.index(address)}.log").read_text("utf-8", "replace")

    def stop_all(self) -> None:
        """End every server that was started, as Ctrl-C in its terminal would."""
        for server in self._servers:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.fail("There is no Chromium: run python tests/browser/chromium.py --install, as make test does.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def start_app(tmp_path: Path) -> Iterator[StartApp]:
    """Servers for one test; see StartApp."""
    start = StartApp(tmp_path)
    yield start
    start.stop_all()


def _write_script(folder: Path, text: str, with_plotly_js: bool) -> Path:
    folder.mkdir()
    (folder / "static").mkdir()
    if with_plotly_js:
        shutil.copy(ensure_plotly_js(), folder / "static")
    script = folder / "app.py"
    script.write_text(text, "utf-8")
    return script


def _environment(tmp_path: Path) -> dict[str, str]:
    roots = {f"CIFAR_TL_{name.upper()}": str(tmp_path / name) for name in ("data", "cache", "checkpoints")}
    return os.environ | roots | {"PYTHONPATH": str(PROJECT_ROOT)}


def _serve(script: Path, bind: str, port: int, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    options = ["--server.address", bind, "--server.port", str(port), "--server.headless", "true"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(script), *options],
            cwd=PROJECT_ROOT,  # its .streamlit/config.toml holds
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"The server did not start. Its log:\n{log.read_text('utf-8', 'replace')}")


def drop_files(page: Page, paths: list[str]) -> None:
    """Drop files on the page's drop zone through the DevTools protocol, as a person does (a made-up DataTransfer leaves the overlay stuck)."""
    zone = page.locator("[data-testid=stFileUploaderDropzone]").bounding_box()
    assert zone
    x, y = zone["x"] + zone["width"] / 2, zone["y"] + zone["height"] / 2
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": paths, "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})
