"""The views of Explore in a real browser: what a click opens is what the arrays say is there."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.evaluation.arrays import load_evaluation, save_evaluation
from cifar_tl.evaluation.epochs import answers_of, save_answers
from cifar_tl.evaluation.selection import Filter, Order, Outcome, select
from cifar_tl.paths import APP_FILE, RunFolder
from tests.browser.conftest import StartApp
from tests.browser.test_components import PLOT, click_cell_named, drawn
from tests.made_runs import class_names, hold_lock, made_evaluation, make_run, make_store

pytestmark = pytest.mark.browser

NAMES = class_names(20)
TILES = ".grid button"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of twenty classes whose images are on the machine that serves it."""
    store = make_store(tmp_path / "cache" / "stores" / ShapesSource().store_name)
    return make_run(tmp_path / "checkpoints", data_fingerprint=store.info.fingerprint)


def shown_captions(page: Page) -> list[str]:
    return [label.split(", ")[0] for label in page.locator(TILES).evaluate_all("tiles => tiles.map(tile => tile.ariaLabel)")]


def expect_image(page: Page, row: int) -> None:
    expect(page.get_by_text(f"image {row} of test")).to_be_visible()


def order_of_rows(page: Page) -> list[str]:
    return page.evaluate(f"[...document.querySelector('{PLOT}')._fullData[0].y]")


def test_click_on_the_name_of_a_class_opens_its_row_and_a_tile_the_right_image(page: Page, start_app: StartApp, run: RunFolder):
    page.goto(start_app(APP_FILE) + f"/explore?run={run.run_id}")
    drawn(page)
    row = 6
    box = page.locator(f"{PLOT} .nsewdrag").first.bounding_box()
    assert box
    true = order_of_rows(page)[row]
    page.mouse.click(box["x"] - 12, box["y"] + box["height"] * (row + 0.5) / 20)
    evaluation = load_evaluation(run.evaluation_of("test"))
    index = NAMES.index(true)
    wrong = select(evaluation, Filter(true=index, outcome=Outcome.WRONG), Order.CONFIDENT)
    right = select(evaluation, Filter(true=index, outcome=Outcome.RIGHT), Order.CONFIDENT)
    expect(page.get_by_text(f"{len(wrong) + len(right)} images of {true}: {len(right)} recognised")).to_be_visible()
    expect(page.locator(TILES)).to_have_count(len(wrong) + len(right))
    assert set(shown_captions(page)) == {true}
    assert f"true={true.replace(' ', '+')}" in page.url
    page.locator(TILES).first.click()
    expect_image(page, int(np.concatenate([wrong, right])[0]))


def test_click_on_a_cell_opens_exactly_its_images(page: Page, start_app: StartApp, run: RunFolder):
    evaluation = load_evaluation(run.evaluation_of("test"))
    wrong = np.flatnonzero(evaluation.labels_N != evaluation.predictions_N)
    true, predicted = int(evaluation.labels_N[wrong[0]]), int(evaluation.predictions_N[wrong[0]])
    page.goto(start_app(APP_FILE) + f"/explore?run={run.run_id}")
    drawn(page)
    names = order_of_rows(page)
    click_cell_named(page, names.index(NAMES[true]), names.index(NAMES[predicted]), 20, NAMES[true], NAMES[predicted])
    expected = select(evaluation, Filter(true=true, predicted=predicted), Order.CONFIDENT)
    expect(page.locator(TILES)).to_have_count(len(expected))
    for number, position in enumerate(expected):
        page.locator(TILES).nth(number).click()
        expect_image(page, int(evaluation.rows_N[position]))


def test_link_to_a_cell_opens_its_images(page: Page, start_app: StartApp, run: RunFolder):
    evaluation = load_evaluation(run.evaluation_of("test"))
    count = int(((evaluation.labels_N == 2) & (evaluation.predictions_N == 2)).sum())
    page.goto(start_app(APP_FILE) + f"/explore?run={run.run_id}&view=Confusion&true={NAMES[2]}&pred={NAMES[2]}")
    expect(page.get_by_text(f"{count} images of {NAMES[2]} recognised")).to_be_visible()
    expect(page.locator(TILES)).to_have_count(count)


def test_filter_of_the_images_view_is_in_the_address_and_back_again(page: Page, start_app: StartApp, run: RunFolder):
    page.goto(start_app(APP_FILE) + f"/explore?run={run.run_id}&view=Images")
    expect(page.get_by_text("200 of 200 images")).to_be_visible()
    page.get_by_role("radio", name="Wrong").click()
    evaluation = load_evaluation(run.evaluation_of("test"))
    wrong = select(evaluation, Filter(outcome=Outcome.WRONG), Order.LOSS)
    expect(page.get_by_text(f"{len(wrong)} of 200 images")).to_be_visible()
    page.wait_for_url("**outcome=Wrong**")
    page.reload()
    expect(page.get_by_text(f"{len(wrong)} of 200 images")).to_be_visible()
    page.locator(TILES).nth(3).click()
    expect_image(page, int(evaluation.rows_N[wrong[3]]))


def test_row_of_the_class_chart_can_be_chosen_by_a_click(page: Page, start_app: StartApp, run: RunFolder):
    page.goto(start_app(APP_FILE) + f"/explore?run={run.run_id}&view=Classes")
    page.get_by_role("radio", name="Chart").click()
    drawn(page)
    name = page.evaluate(f"document.querySelector('{PLOT}')._fullData[0].x[0]")
    page.locator(f"{PLOT} .points path").first.click(force=True)
    expect(page.get_by_text(f"{name}:").first).to_be_visible()
    page.wait_for_url(f"**class={name.replace(' ', '+')}**")


def test_confusion_of_a_running_run_follows_its_newest_epoch(page: Page, start_app: StartApp, tmp_path: Path):
    folder = make_run(tmp_path / "checkpoints", status="running")
    save_evaluation(folder.evaluation_of("dev"), made_evaluation(100, 20, "train"))
    answers = [made_evaluation(100, 20, "train", seed=seed) for seed in (11, 12, 13)]
    for epoch in (1, 2):
        save_answers(folder.dev_answers_of(epoch), answers_of(answers[epoch - 1]))
    right = [int((answer.labels_N == answer.predictions_N).sum()) for answer in answers]
    with hold_lock(folder):
        page.goto(start_app(APP_FILE) + f"/explore?run={folder.run_id}")
        expect(page.get_by_role("img", name=f"{right[1]} of 100 images on the diagonal")).to_be_visible()
        save_answers(folder.dev_answers_of(3), answers_of(answers[2]))
        expect(page.get_by_role("img", name=f"{right[2]} of 100 images on the diagonal")).to_be_visible(timeout=15_000)


def test_thousand_classes_can_be_clicked(page: Page, start_app: StartApp, tmp_path: Path):
    folder = make_run(tmp_path / "checkpoints", num_classes=1000, test_images=5000)
    page.goto(start_app(APP_FILE) + f"/explore?run={folder.run_id}")
    drawn(page)
    page.get_by_label("Find").fill("class 500")
    page.get_by_role("option", name="class 500", exact=True).click()
    page.wait_for_function(
        f"document.querySelector('{PLOT}')._fullLayout.xaxis.range[1] - document.querySelector('{PLOT}')._fullLayout.xaxis.range[0] < 40"
    )
    low = page.evaluate(f"document.querySelector('{PLOT}')._fullLayout.yaxis.range[1]")
    names = order_of_rows(page)
    row = round(low + 0.5) + 3
    click_cell_named(page, 3, 3, 30, names[row], names[row])
    expect(page.get_by_text(f"of {names[row]} recognised")).to_be_visible()
