"""Several runs in a real browser: they take turns on one device, and are compared down to single images. And names that are long."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.comparison import paired
from cifar_tl.paths import APP_FILE
from cifar_tl.runs.queue import runs_waiting
from cifar_tl.runs.store import find_run
from tests.browser.conftest import StartApp
from tests.browser.test_runs_and_explore import choose_row
from tests.browser.test_surviving import STOPS_WITHIN_MS, Start, badge, frozen, start, watch  # noqa: F401 - a fixture
from tests.browser.test_whole_job import RUN_ENDS_WITHIN_MS, STARTS_WITHIN_MS
from tests.made_runs import make_run, make_store

pytestmark = pytest.mark.browser


def start_on_the_form(page: Page, name: str) -> str:
    """A short run, started as a person does it; its id."""
    page.get_by_role("radio", name="Quick look").click()
    for label, value in (("Image size (px)", "32"), ("Epochs", "1")):
        page.get_by_role("spinbutton", name=label).fill(value)
        page.get_by_role("spinbutton", name=label).press("Enter")
    page.get_by_role("textbox", name="Run name").fill(name)
    page.get_by_role("textbox", name="Run name").press("Enter")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/?run=*")
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    return page.url.rpartition("=")[2]


def test_runs_take_turns_on_one_device_and_the_queue_is_in_peoples_hands(
    page: Page,
    start_app: StartApp,
    start: Start,  # noqa: F811 - the fixture
) -> None:
    address, busy = start_app(APP_FILE), start(epochs=1000)
    watch(page, address, busy)
    with frozen(busy):
        tab = page.context.new_page()
        tab.goto(address)
        second = start_on_the_form(tab, "The second")
        expect(badge(tab, "Queued")).to_be_visible(timeout=STARTS_WITHIN_MS)
        expect(tab.get_by_text("Waiting: the device is busy…")).to_be_visible()
        tab.goto(address)
        third = start_on_the_form(tab, "The third")
        expect(tab.get_by_text("1 run is before this one")).to_be_visible(timeout=STARTS_WITHIN_MS)
        assert runs_waiting() == [second, third]

        tab.get_by_role("button", name="Move to front").click()
        expect(tab.get_by_text("Waiting: the device is busy…")).to_be_visible()
        assert runs_waiting() == [third, second]

        runs = page.context.new_page()
        runs.goto(f"{address}/runs")
        choose_row(runs, 1)  # the newest come first
        expect(runs.get_by_test_id("stMarkdown").filter(has_text="The second").first).to_be_visible()
        expect(runs.get_by_text("1 run is before this one")).to_be_visible()
        runs.get_by_role("button", name="Cancel").click()
        expect(badge(runs, "Stopped")).to_be_visible(timeout=STOPS_WITHIN_MS)
        assert runs_waiting() == [third]

    runs.reload()
    choose_row(runs, 2)
    runs.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("as asked")).to_be_visible(timeout=STOPS_WITHIN_MS)
    expect(tab.get_by_text("Test accuracy", exact=True)).to_be_visible(timeout=RUN_ENDS_WITHIN_MS)  # by itself
    assert not find_run(second).best_weights.exists()


def test_of_two_compared_runs_an_image_that_only_one_gets_right_is_seen_large(page: Page, start_app: StartApp, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    store = make_store(tmp_path / "cache" / "stores" / ShapesSource().store_name)
    folders = [
        make_run(checkpoints, run_id=run_id, name=name, seed=seed, created=created, data_fingerprint=store.info.fingerprint)
        for run_id, name, seed, created in (("a", "First", 1, 1000), ("b", "Second", 2, 2000))
    ]
    page.goto(start_app(APP_FILE) + "/runs")
    for row in (0, 1):
        choose_row(page, row)
    expect(page.get_by_text("2 runs")).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/compare?runs=*")
    names = [run_id.strip() for run_id in page.url.rpartition("=")[2].replace("%2C", ",").split(",")]
    first, second = (load_evaluation(next(folder for folder in folders if folder.run_id == name).evaluation_of("test")) for name in names)
    pairs = paired(first, second)
    title = {"a": "First", "b": "Second"}[names[1]]
    expect(page.get_by_role("radio", name=f"Only {title} is right ({len(pairs.only_b_n):,})")).to_be_checked()
    images = page.get_by_role("button", name="→")
    expect(images).to_have_count(len(pairs.only_b_n))
    images.first.click()
    expect(page.get_by_test_id("stImage").last).to_be_visible()
    expect(page.get_by_text("True class:")).to_be_visible()


@pytest.mark.parametrize("address", ["runs", "explore?run=a", "compare?runs=a,b", "?run=a", "predict?run=a"])
def test_a_name_of_one_long_word_stays_inside_the_window(page: Page, start_app: StartApp, tmp_path: Path, address: str) -> None:
    for run_id, name in (("a", "W" * 100), ("b", "ﷺ" * 100)):
        make_run(tmp_path / "checkpoints", run_id=run_id, name=name).best_weights.touch()
    page.goto(f"{start_app(APP_FILE)}/{address}")
    page.get_by_test_id("stHeading").first.wait_for()
    if address == "runs":
        choose_row(page, 1)
        expect(page.get_by_role("button", name="Delete")).to_be_visible()
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('[data-testid=stMain] button, [data-testid=stMain] h1, [data-testid=stSelectbox]')]"
        ".every((e) => e.getBoundingClientRect().right <= document.documentElement.clientWidth)"
    )
