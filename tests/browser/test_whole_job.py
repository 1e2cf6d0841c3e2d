"""The whole job as a person does it, in a real browser, with nothing made up: train, watch, reload, explore, predict."""

import fcntl
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from cifar_tl.data.shapes import draw
from cifar_tl.evaluation.analysis import confusion_matrix
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.paths import APP_FILE, RunFolder
from cifar_tl.runs.store import is_alive, read_manifest
from tests.browser.conftest import StartApp, drop_files
from tests.browser.test_components import PLOT, click_cell_named, drawn

pytestmark = pytest.mark.browser

EPOCHS = 100  # from cached features about 0.2 s each: long enough to watch, short enough to wait for
RUN_ENDS_WITHIN_MS = 240_000
STARTS_WITHIN_MS = 120_000


def points_drawn(page: Page) -> int:
    """Of all lines of all charts on the page."""
    return page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].flatMap((p) => p._fullData ?? []).reduce((n, t) => n + (t.x?.length ?? 0), 0)"
    )


def wait_for_growth(page: Page) -> None:
    before = points_drawn(page)
    page.wait_for_function(
        "(before) => [...document.querySelectorAll('.js-plotly-plot')].flatMap((p) => p._fullData ?? [])"
        ".reduce((n, t) => n + (t.x?.length ?? 0), 0) > before",
        arg=before,
        timeout=RUN_ENDS_WITHIN_MS,
    )


def only_run(checkpoints: Path) -> RunFolder:
    (path,) = checkpoints.iterdir()
    return RunFolder(path)


def test_train_watch_reload_explore_and_predict(page: Page, start_app: StartApp, tmp_path: Path):
    checkpoints = tmp_path / "checkpoints"
    address = start_app(APP_FILE)
    start_training(page, address)
    watch_it_grow_and_reload(page, checkpoints)
    explore_a_confusion(page, only_run(checkpoints))
    drop_three_files(page, address, only_run(checkpoints), tmp_path)


def test_a_run_outlives_the_dashboard_and_is_stopped_from_the_next_one(page: Page, start_app: StartApp, tmp_path: Path):
    start_training(page, start_app(APP_FILE), epochs=1000)
    run = only_run(tmp_path / "checkpoints")
    try:
        start_app.stop_all()
        assert is_alive(run)
        page.goto(f"{start_app(APP_FILE)}/?run={run.run_id}")
        page.locator(PLOT).first.wait_for(timeout=STARTS_WITHIN_MS)
        wait_for_growth(page)
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("The test set was not touched")).to_be_visible(timeout=STARTS_WITHIN_MS)
        wait_for_the_end(run)
    finally:
        run.stop_request.touch()  # a failed test leaves no worker behind


def wait_for_the_end(run: RunFolder) -> None:
    """The last event is written before the process ends. Whoever gets the lock knows that it has: no polling, no sleep."""
    with run.lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # pytest's own time limit ends a test whose worker never ends
    assert not is_alive(run)


def start_training(page: Page, address: str, epochs: int = EPOCHS) -> None:
    page.goto(address)
    expect(page.get_by_text("The form starts with this one because")).to_be_visible()
    page.get_by_role("radio", name="Quick look").click()
    page.get_by_role("spinbutton", name="Epochs").fill(str(epochs))
    page.get_by_role("spinbutton", name="Epochs").press("Enter")
    expect(page.get_by_text("in all")).to_be_visible(timeout=STARTS_WITHIN_MS)  # the estimate, measured here
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/?run=*")


def watch_it_grow_and_reload(page: Page, checkpoints: Path) -> None:
    page.locator(PLOT).first.wait_for(timeout=STARTS_WITHIN_MS)
    for _ in range(3):
        wait_for_growth(page)
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.reload()
    page.locator(PLOT).first.wait_for()
    wait_for_growth(page)
    expect(page.get_by_text("Test accuracy", exact=True)).to_be_visible(timeout=RUN_ENDS_WITHIN_MS)
    expect(page.get_by_text("Traceback")).to_have_count(0)
    assert only_run(checkpoints).best_weights.is_file()


def explore_a_confusion(page: Page, run: RunFolder) -> None:
    """Click the cell of the commonest mistake; the images shown are as many as the arrays say."""
    page.get_by_role("button", name="Explore").click()
    page.wait_for_url("**/explore?run=*")
    drawn(page)
    manifest = read_manifest(run)
    evaluation = load_evaluation(run.evaluation_of("test"))
    assert manifest
    mistakes = confusion_matrix(evaluation.labels_N, evaluation.predictions_N, evaluation.num_classes)
    np.fill_diagonal(mistakes, 0)
    order = page.evaluate(f"[...document.querySelector('{PLOT}')._fullData[0].x]")
    true, predicted = (manifest.class_names[index] for index in np.unravel_index(mistakes.argmax(), mistakes.shape))
    click_cell_named(page, order.index(true), order.index(predicted), len(order), true, predicted)
    expect(page.get_by_role("button", name=f"{true}, → {predicted}")).to_have_count(int(mistakes.max()))


def drop_three_files(page: Page, address: str, run: RunFolder, tmp_path: Path) -> None:
    images, _ = next(draw("test"))
    good = []
    for number in (0, 1):
        path = tmp_path / f"picture{number}.png"
        Image.fromarray(images[number]).resize((256, 256), Image.Resampling.NEAREST).save(path)
        good.append(str(path))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    page.goto(f"{address}/predict?run={run.run_id}")
    page.locator("[data-testid=stFileUploaderDropzone]").wait_for()
    drop_files(page, [*good, str(broken)])
    expect(page.get_by_text("2 answered")).to_be_visible(timeout=STARTS_WITHIN_MS)
    expect(page.get_by_text("1 could not be")).to_be_visible()
    expect(page.locator("[data-testid=stAlert]", has_text="broken.jpg")).to_be_visible()
    for path in good:
        expect(page.get_by_text(Path(path).name).last).to_be_visible()
