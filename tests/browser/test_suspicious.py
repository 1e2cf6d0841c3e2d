"""The loop that closes in a real browser: look for suspicious images, decide with keys, train again, and see the two runs compared."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cifar_tl.data.corrections import read_corrections
from cifar_tl.data.shapes import ShapesSource
from cifar_tl.evaluation.suspicion.result import TRAIN, load_suspicion
from cifar_tl.paths import APP_FILE, RunFolder
from cifar_tl.runs.store import find_run, read_config, read_manifest
from tests.browser.conftest import StartApp
from tests.browser.test_surviving import Start, start  # noqa: F401 - a fixture
from tests.browser.test_whole_job import RUN_ENDS_WITHIN_MS, wait_for_the_end
from tests.made_audits import DOUBTED_TRAIN, audit_files, make_audit
from tests.made_runs import make_run, make_store

pytestmark = pytest.mark.browser

TILES = ".grid button"
LOOKS_WITHIN_MS = 120_000


def decided(folder: RunFolder) -> list[tuple[int, str]]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return [(each.row, each.decision) for each in read_corrections(manifest.data_fingerprint).decisions]


def expect_image(page: Page, row: int) -> None:
    """It is shown, and its keys work: the buttons that they press come after it."""
    expect(page.get_by_text(f"training image {row:,}", exact=False).first).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    expect(page.locator("[data-stale=true]")).to_have_count(0)


def test_look_decide_train_again_and_compare(
    page: Page,
    start_app: StartApp,
    start: Start,  # noqa: F811 - the fixture
) -> None:
    address, first = start_app(APP_FILE), start(epochs=2)
    page.goto(f"{address}/?run={first.run_id}")
    wait_for_the_end(first)
    page.goto(f"{address}/explore?run={first.run_id}&view=Suspicious+data")
    page.get_by_role("button", name="Look for suspicious images").click()
    expect(page.locator(TILES).first).to_be_visible(timeout=LOOKS_WITHIN_MS)
    found = load_suspicion(audit_files(first).result)
    rows = found.labels.row_n[found.labels.split_n == TRAIN].tolist()
    assert len(rows) > 3
    expect_image(page, rows[0])

    page.locator(TILES).nth(1).click()
    expect_image(page, rows[1])
    page.keyboard.press("d")
    expect_image(page, rows[2])
    assert decided(first) == [(rows[1], "drop")]
    page.keyboard.press("l")
    expect(page.get_by_text("2 decided:")).to_be_visible()
    expect_image(page, rows[3])
    assert decided(first) == [(rows[1], "drop"), (rows[2], "relabel")]
    page.keyboard.press("u")
    expect_image(page, rows[2])
    assert decided(first) == [(rows[1], "drop")]

    page.get_by_role("button", name="Train again on the corrected data").click()
    page.wait_for_url(f"**/compare?runs={first.run_id}*")
    second = find_run(page.url.replace("%2C", ",").rpartition(",")[2])
    assert read_config(second).corrected
    expect(page.get_by_text("fixes").first).to_be_visible(timeout=RUN_ENDS_WITHIN_MS)
    before, after = read_manifest(first), read_manifest(second)
    assert before is not None
    assert after is not None
    assert (before.corrections, bool(after.corrections)) == ("", True)


def test_keys_go_through_the_list_and_a_link_opens_where_one_was(page: Page, start_app: StartApp, tmp_path: Path) -> None:
    store = make_store(tmp_path / "cache" / "stores" / ShapesSource().store_name)
    folder = make_run(tmp_path / "checkpoints", data_fingerprint=store.info.fingerprint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))
        make_audit(folder)
    page.goto(start_app(APP_FILE) + f"/explore?run={folder.run_id}&view=Suspicious+data")
    expect_image(page, DOUBTED_TRAIN[0])
    page.keyboard.press("ArrowRight")
    expect_image(page, DOUBTED_TRAIN[1])
    page.keyboard.press("ArrowRight")
    expect_image(page, DOUBTED_TRAIN[2])
    page.keyboard.press("ArrowLeft")
    expect_image(page, DOUBTED_TRAIN[1])
    page.wait_for_url(f"**image=train.{DOUBTED_TRAIN[1]}**")
    page.reload()
    expect_image(page, DOUBTED_TRAIN[1])
