"""Runs and Explore in a real browser: what refreshes by itself, and clicks that lead to images."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.data.sources import prepare
from cifar_tl.evaluation.arrays import save_evaluation
from cifar_tl.paths import APP_FILE, RunFolder
from cifar_tl.runs.events import Completed
from cifar_tl.runs.log import EventWriter
from tests.browser.conftest import StartApp
from tests.browser.test_components import click_cell_named, drawn
from tests.made_runs import class_names, hold_lock, made_evaluation, make_run, make_store

pytestmark = pytest.mark.browser

TABLE = "[data-testid=stDataFrame]"
ROW_PIXELS = 33


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Where servers of `start_app` look for runs."""
    return tmp_path / "checkpoints"


def choose_row(page: Page, row: int) -> None:
    page.locator(f"{TABLE} canvas").first.wait_for()
    box = page.locator(TABLE).first.bounding_box()
    assert box
    page.mouse.click(box["x"] + 15, box["y"] + ROW_PIXELS * (row + 1.5))


def finish(folder: RunFolder) -> None:
    save_evaluation(folder.evaluation_of("test"), made_evaluation(200, 20))
    with EventWriter(folder.events) as writer:
        writer.write(Completed(best_epoch=3, best_dev_accuracy=0.7, test_accuracy=0.7, test_top5=0.9, test_loss=1.0, seconds=10.0))


def test_chosen_run_stays_chosen_while_the_table_refreshes_and_can_be_explored(page: Page, start_app: StartApp, checkpoints: Path):
    running = make_run(checkpoints, run_id="running", status="running", created=2000)
    make_run(checkpoints, run_id="chosen", created=1000)
    with hold_lock(running):
        page.goto(start_app(APP_FILE) + "/runs")
        choose_row(page, 1)
        expect(page.get_by_role("button", name="Delete")).to_be_enabled()
        finish(running)
        expect(page.locator(f"{TABLE} td", has_text="Completed")).to_have_count(2, timeout=15_000)
    page.get_by_role("button", name="Explore").click()
    page.wait_for_url("**/explore?run=chosen")
    expect(page.get_by_role("heading", name="Explore")).to_be_visible()


def test_run_appears_in_explore_by_itself_when_it_is_done(page: Page, start_app: StartApp, checkpoints: Path):
    folder = make_run(checkpoints, status="running")
    with hold_lock(folder):
        page.goto(start_app(APP_FILE) + f"/explore?run={folder.run_id}")
        expect(page.get_by_text("This run is still training")).to_be_visible()
        finish(folder)
    expect(page.get_by_text("Mistakes", exact=True)).to_be_visible(timeout=15_000)


def test_click_on_a_cell_shows_the_images_behind_it(page: Page, start_app: StartApp, checkpoints: Path, tmp_path: Path):
    store = make_store(tmp_path / "cache" / "stores" / ShapesSource().store_name)
    folder = make_run(checkpoints, data_fingerprint=store.info.fingerprint)
    page.goto(start_app(APP_FILE) + f"/explore?run={folder.run_id}")
    drawn(page)
    names = class_names(20)
    click_cell_named(page, 0, 0, 20, names[0], names[0])
    expect(page.get_by_text(f"images of {names[0]} recognised")).to_be_visible()
    image = page.get_by_role("button", name=f"{names[0]}, → {names[0]}").first
    image.click()
    expect(page.get_by_text(f"True class: {names[0]}")).to_be_visible()


def test_images_that_are_not_here_are_fetched_and_shown_without_a_reload(
    page: Page, start_app: StartApp, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "of another machine"))
    make_run(checkpoints, run_id="shipped", data_fingerprint=prepare("shapes").info.fingerprint)
    page.goto(start_app(APP_FILE) + "/explore?run=shipped")
    drawn(page)
    names = class_names(20)
    click_cell_named(page, 0, 0, 20, names[0], names[0])
    expect(page.get_by_text("are not on this machine yet")).to_be_visible()
    page.get_by_role("button", name="Get the images").click()
    expect(page.get_by_test_id("stProgress")).to_be_visible()
    expect(page.get_by_role("button", name=f"{names[0]}, → {names[0]}").first).to_be_visible(timeout=30_000)
    expect(page.get_by_text("are not on this machine yet")).to_have_count(0)
