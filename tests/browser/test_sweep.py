"""A sweep in a real browser, with real runs: its best trial is tested and trained longer, and the page tells it without a reload."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cifar_tl.config import make_config
from cifar_tl.paths import APP_FILE, SweepFolder
from cifar_tl.runs import launcher as run_launcher
from cifar_tl.runs.store import find_run, run_ids
from cifar_tl.sweeps.launcher import start_sweep
from cifar_tl.sweeps.space import parse_dimension
from cifar_tl.sweeps.store import find_sweep, new_sweep, read_sweep, request_stop, sweep_ids
from cifar_tl.sweeps.study import best_of, load_study, rows_of
from tests.browser.conftest import StartApp
from tests.browser.test_components import PLOT
from tests.browser.test_surviving import QUICK, STOPS_WITHIN_MS, badge, frozen, wait_for_epochs
from tests.browser.test_whole_job import RUN_ENDS_WITHIN_MS

pytestmark = pytest.mark.browser

EPOCHS = 2
LONGER = 1000  # until it is stopped
FEW = {"images_per_class": 25}  # what is watched are words, not accuracies
SPACE = (parse_dimension("learning_rate=0.01..0.1:log"), parse_dimension("optimizer=sgd,adamw"))
StartSweep = Callable[[], SweepFolder]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartSweep]:
    """`started()` starts a sweep where servers of `start_app` look for it. Nothing of it is left behind."""
    for name in ("data", "cache", "checkpoints"):
        monkeypatch.setenv(f"CIFAR_TL_{name.upper()}", str(tmp_path / name))
    yield lambda: find_sweep(start_sweep(new_sweep(make_config(**QUICK | FEW, epochs=EPOCHS), SPACE, trials=1, name="Which rate?")))
    for sweep_id in sweep_ids():
        request_stop(sweep_id)
    for run_id in run_ids():
        run_launcher.request_stop(run_id)


def best_run(folder: SweepFolder) -> str:
    study = load_study(folder, read_sweep(folder))
    assert study is not None
    best = best_of(rows_of(study))
    assert best is not None
    return best.run_id


def test_the_best_trial_is_tested_and_trained_longer_with_a_word_and_without_a_reload(
    page: Page, start_app: StartApp, started: StartSweep
) -> None:
    folder = started()
    sweep_page = f"{start_app(APP_FILE)}/sweep?sweep={folder.sweep_id}"
    page.goto(sweep_page)
    expect(badge(page, "Completed")).to_be_visible(timeout=RUN_ENDS_WITHIN_MS)  # by itself
    expect(page.locator(PLOT).first).to_be_visible()

    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.get_by_text("Testing…")).to_be_visible()
    expect(page.get_by_role("button", name="Train longer")).to_have_count(0)
    expect(page.get_by_text("on test", exact=False).first).to_be_visible(timeout=RUN_ENDS_WITHIN_MS)
    expect(page.get_by_text("Testing…")).to_have_count(0)
    expect(page.get_by_role("button", name="Test", exact=True)).to_have_count(0)

    run_id = best_run(folder)
    page.get_by_role("button", name="Train longer").click()
    page.get_by_role("spinbutton", name="Epochs in all").fill(str(LONGER))
    page.get_by_role("spinbutton", name="Epochs in all").press("Enter")
    page.get_by_test_id("stPopoverBody").get_by_role("button", name="Train longer").click()
    page.wait_for_url(f"**/?run={run_id}")
    wait_for_epochs(page, EPOCHS + 1)
    with frozen(find_run(run_id)):
        page.goto(sweep_page)
        expect(page.get_by_text("Training longer…")).to_be_visible()
        run_launcher.request_stop(run_id)
    expect(badge(page, "Stopped")).to_be_visible(timeout=STOPS_WITHIN_MS)  # by itself
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
