"""Runs that are killed, stopped and clicked twice, in a real browser: what the page says of them, and how they go on."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from cifar_tl.config import make_config
from cifar_tl.paths import APP_FILE, RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.events import Completed, Resumed, Started, Stopped
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.log import EventReader
from cifar_tl.runs.store import find_run, is_alive, run_ids
from tests.browser.conftest import StartApp
from tests.browser.test_components import PLOT
from tests.browser.test_whole_job import RUN_ENDS_WITHIN_MS, STARTS_WITHIN_MS, wait_for_growth, wait_for_the_end
from tests.made_runs import hold_lock, make_run

pytestmark = pytest.mark.browser

# From cached features, an epoch of 112 steps takes a quarter of a second: long enough to be interrupted, and no longer.
QUICK = {"source": "shapes", "image_size": 32, "trainable": "head", "batch_size": 32, "device": "cpu", "cached_views": 1, "describe": False}
KILLED_AMID = 12  # epochs
SAID_WITHIN_MS = 3_000
STOPS_WITHIN_MS = 10_000
Start = Callable[..., RunFolder]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """`start(epochs=6)` starts a run where servers of `start_app` look for it. None is left behind."""
    for name in ("data", "cache", "checkpoints"):
        monkeypatch.setenv(f"CIFAR_TL_{name.upper()}", str(tmp_path / name))
    yield lambda **settings: find_run(launcher.start_run(make_config(**QUICK | settings)))
    for run_id in run_ids():
        launcher.request_stop(run_id)


def told(folder: RunFolder) -> list[object]:
    return [record.event for record in EventReader(folder.events).read_new()]


def history_of(folder: RunFolder) -> RunHistory:
    history = RunHistory()
    history.extend(EventReader(folder.events).read_new())
    return history


def worker_of(folder: RunFolder) -> int:
    """The process that trains the run now."""
    assert is_alive(folder)
    return [event for event in told(folder) if isinstance(event, Started)][-1].worker_pid


@contextmanager
def frozen(folder: RunFolder) -> Iterator[None]:
    """Its worker has the device inside the `with`, and leaves the processor to the others."""
    worker = worker_of(folder)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def watch(page: Page, address: str, folder: RunFolder) -> None:
    """Open the run and wait until its curves grow."""
    page.goto(f"{address}/?run={folder.run_id}")
    page.locator(PLOT).first.wait_for(timeout=STARTS_WITHIN_MS)
    wait_for_growth(page)


def badge(page: Page, status: str) -> Locator:
    """The status of the run that is shown."""
    return page.locator(".stMarkdownBadge", has_text=status).first


def wait_for_epochs(page: Page, count: int) -> None:
    """Until the accuracy chart, the first on the page, shows so many."""
    page.wait_for_function(
        f"(n) => (document.querySelector('{PLOT}')?._fullData ?? []).some((t) => t.mode?.includes('markers') && t.x.length >= n)",
        arg=count,
        timeout=STARTS_WITHIN_MS,
    )


def every_line_goes_on(page: Page) -> bool:
    """True if no line of any chart goes back or stands still in its x."""
    return page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].flatMap((p) => p._fullData ?? [])"
        ".every((t) => [...(t.x ?? [])].every((x, i, xs) => i === 0 || x > xs[i - 1]))"
    )


def test_a_killed_run_is_lost_goes_on_by_a_click_and_its_curve_is_unbroken(page: Page, start_app: StartApp, start: Start) -> None:
    address, run = start_app(APP_FILE), start(epochs=KILLED_AMID)
    while len(history_of(run).epochs) < 2:
        page.wait_for_timeout(20)
    worker = worker_of(run)
    os.kill(worker, signal.SIGSTOP)  # it stays in the middle of its work, however long the page takes
    page.goto(f"{address}/?run={run.run_id}")
    wait_for_epochs(page, 2)
    os.kill(worker, signal.SIGKILL)
    expect(badge(page, "Lost")).to_be_visible(timeout=SAID_WITHIN_MS)
    expect(page.get_by_text("The worker process vanished")).to_be_visible()
    wait_for_epochs(page, 2)  # its curves stay; a new status draws them anew
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Test accuracy", exact=True)).to_be_visible(timeout=RUN_ENDS_WITHIN_MS)
    history = history_of(run)
    assert isinstance(history.terminal, Completed)
    assert any(isinstance(event, Resumed) for event in told(run))
    assert [epoch.epoch for epoch in history.epochs] == list(range(1, KILLED_AMID + 1))
    steps = [step.step for step in history.steps]
    assert steps == sorted(set(steps))
    assert steps[-1] == history.total_steps
    assert every_line_goes_on(page)


def test_a_run_that_is_asked_to_end_by_the_system_stops_with_a_checkpoint(page: Page, start_app: StartApp, start: Start) -> None:
    address, run = start_app(APP_FILE), start(epochs=1000)
    watch(page, address, run)
    os.kill(worker_of(run), signal.SIGTERM)
    expect(page.get_by_text("as asked")).to_be_visible(timeout=STOPS_WITHIN_MS)
    wait_for_the_end(run)
    (stopped,) = [event for event in told(run) if isinstance(event, Stopped)]
    assert stopped.step > 0
    assert run.last_checkpoint.is_file()
    expect(page.get_by_role("button", name="Resume")).to_be_enabled()


def test_a_worker_that_dies_before_its_first_word_has_failed_within_three_seconds(page: Page, start_app: StartApp, tmp_path: Path) -> None:
    run = make_run(tmp_path / "checkpoints", status="empty")
    address = start_app(APP_FILE)
    with hold_lock(run):
        page.goto(f"{address}/?run={run.run_id}")
        expect(page.get_by_text("Starting…")).to_be_visible()
        run.worker_log.write_text("ImportError: libcudart.so.12: cannot open shared object file\n")
    expect(badge(page, "Failed")).to_be_visible(timeout=SAID_WITHIN_MS)
    expect(page.get_by_text("libcudart.so.12")).to_be_visible()


def test_a_double_click_on_start_makes_one_run(page: Page, start_app: StartApp, start: Start) -> None:
    page.goto(start_app(APP_FILE))
    page.get_by_role("radio", name="Quick look").click()
    for name, value in (("Image size (px)", "32"), ("Epochs", "1")):
        page.get_by_role("spinbutton", name=name).fill(value)
        page.get_by_role("spinbutton", name=name).press("Enter")
    page.get_by_role("button", name="Start training").dblclick()
    page.wait_for_url("**/?run=*")
    expect(page.get_by_text("Test accuracy", exact=True)).to_be_visible(timeout=RUN_ENDS_WITHIN_MS)
    (run_id,) = run_ids()
    assert page.url.endswith(run_id)
    assert sum(isinstance(event, Started) for event in told(find_run(run_id))) == 1


def test_resume_in_two_tabs_starts_one_worker(page: Page, start_app: StartApp, start: Start) -> None:
    address, run = start_app(APP_FILE), start(epochs=1000, images_per_class=3)
    watch(page, address, run)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("as asked")).to_be_visible(timeout=STOPS_WITHIN_MS)
    wait_for_the_end(run)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("button", name="Resume")).to_be_enabled()
    for tab in (page, other):
        tab.get_by_role("button", name="Resume").click(no_wait_after=True)
    for tab in (page, other):
        # The one that came second sees the run that goes on, too.
        expect(tab.get_by_role("button", name="Stop")).to_be_visible(timeout=STARTS_WITHIN_MS)
    wait_for_growth(page)
    page.get_by_role("button", name="Stop").click()
    with run.lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert sum(isinstance(event, Resumed) for event in told(run)) == 1
