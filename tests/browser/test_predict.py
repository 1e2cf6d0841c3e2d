"""The Predict page in a real browser, with a real network: files and an archive, a paste, two runs, an explanation, and the CSV."""

import base64
import csv
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect

from cifar_tl.data.shapes import draw
from cifar_tl.models.build import build_classifier
from cifar_tl.paths import APP_FILE, RunFolder
from cifar_tl.runs.store import read_config, read_manifest
from cifar_tl.training.checkpoint import save_weights
from tests.browser.conftest import StartApp, drop_files
from tests.made_runs import describe_made_run, make_run

pytestmark = pytest.mark.browser

ANSWERS_WITHIN_MS = 120_000
CARD = ".answers .card"
PASTE = """async ([name, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, { type: 'image/png' }));
  document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true }));
}"""


def untrained(folder: RunFolder, seed: int) -> RunFolder:
    """The made run with weights by chance, which answer differently from those of another seed."""
    config, manifest = read_config(folder), read_manifest(folder)
    assert manifest is not None
    torch.manual_seed(seed)
    save_weights(
        folder.best_weights, build_classifier(config.backbone, weights="none", num_classes=len(manifest.class_names), image_size=32)
    )
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    root = tmp_path / "checkpoints"
    first, second = (
        untrained(make_run(root, run_id=name.lower(), name=name, image_size=64), seed) for seed, name in enumerate(("First", "Second"))
    )
    describe_made_run(first)
    return first, second


def pictures() -> list[bytes]:
    images, _ = next(draw("test"))
    files = []
    for image in images[:5]:
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(image)).resize((240, 160)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two pictures, a file that is none, and an archive of two more."""
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "broken.jpg", tmp_path / "more.zip"]
    for path, data in zip(paths[:2], pictures(), strict=False):
        path.write_bytes(data)
    paths[2].write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    with zipfile.ZipFile(paths[3], "w") as archive:
        for name, data in zip(("c.png", "d.png"), pictures()[2:], strict=False):
            archive.writestr(name, data)
    return [str(path) for path in paths]


def opened(page: Page, address: str, run: RunFolder, files: list[str]) -> None:
    page.goto(f"{address}/predict?run={run.run_id}")
    page.locator("[data-testid=stFileUploaderDropzone]").wait_for()
    drop_files(page, files)
    expect(page.get_by_text("4 answered, 1 could not be")).to_be_visible(timeout=ANSWERS_WITHIN_MS)


def test_files_and_an_archive_are_answered_compared_and_downloaded(
    page: Page, start_app: StartApp, runs: tuple[RunFolder, RunFolder], files: list[str], tmp_path: Path
) -> None:
    opened(page, start_app(APP_FILE), runs[0], files)
    expect(page.locator("[data-testid=stAlert]", has_text="broken.jpg")).to_be_visible()
    expect(page.locator(CARD)).to_have_count(4)
    expect(page.locator(CARD, has_text="more.zip/c.png")).to_be_visible()

    page.get_by_role("combobox", name="Beside it").click()
    page.get_by_role("option", name="Second ·").click()
    expect(page.get_by_text("the runs disagree on")).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    expect(page.locator(f"{CARD} .answer")).to_have_count(8, timeout=ANSWERS_WITHIN_MS)
    expect(page.locator(CARD, has_text="Not answered yet")).to_have_count(0, timeout=ANSWERS_WITHIN_MS)

    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    download.value.save_as(tmp_path / "answers.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "answers.csv").read_text("utf-8"))))
    assert sorted((row["Picture"], row["Run"]) for row in rows) == sorted(
        (name, run.run_id) for name in ("a.png", "b.png", "more.zip/c.png", "more.zip/d.png") for run in runs
    )
    manifest = read_manifest(runs[0])
    assert manifest is not None
    assert {row["Class 1"] for row in rows} <= set(manifest.class_names)
    shown = page.locator(CARD, has_text="a.png").locator(".answer").first.locator(".bar .name").all_text_contents()
    of_first = next(row for row in rows if (row["Picture"], row["Run"]) == ("a.png", runs[0].run_id))
    assert shown == [of_first[f"Class {place}"] for place in range(1, 6)]


def test_a_chosen_answer_is_explained_and_the_map_fades_without_asking_again(
    page: Page, start_app: StartApp, runs: tuple[RunFolder, RunFolder], files: list[str]
) -> None:
    opened(page, start_app(APP_FILE), runs[0], files)
    page.locator(CARD, has_text="more.zip/d.png").click()
    expect(page.locator(CARD, has_text="more.zip/d.png")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(f"{CARD}[aria-pressed=true]")).to_have_count(1)
    picture = page.locator(".photo .picture")
    expect(picture).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    expect(picture).to_have_attribute("alt", re.compile("more.zip/d.png"), timeout=ANSWERS_WITHIN_MS)
    assert picture.evaluate("(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [240, 160]
    part, frame = page.locator(".photo .part").bounding_box(), page.locator(".photo .frame").bounding_box()
    assert part
    assert frame
    assert part["width"] == pytest.approx(frame["width"] * 2 / 3, abs=1)  # the middle square of 240 x 160
    assert part["x"] - frame["x"] == pytest.approx(frame["width"] / 6, abs=1)

    heat = page.locator(".photo .part img")
    page.locator(".photo input").fill("20")
    assert float(heat.evaluate("(image) => getComputedStyle(image).opacity")) == pytest.approx(0.2)

    before = heat.get_attribute("src")
    page.get_by_role("radio", name="Why this, not that").click()
    expect(page.get_by_text("rather than")).to_be_visible()
    expect(heat).not_to_have_attribute("src", before or "", timeout=ANSWERS_WITHIN_MS)
    expect(page.get_by_text("Traceback")).to_have_count(0)


def test_a_pasted_picture_is_answered_wherever_the_focus_is(page: Page, start_app: StartApp, runs: tuple[RunFolder, RunFolder]) -> None:
    page.goto(f"{start_app(APP_FILE)}/predict?run={runs[0].run_id}")
    page.get_by_text("or press Ctrl+V").wait_for()
    page.evaluate(PASTE, ["image.png", base64.b64encode(pictures()[0]).decode()])
    expect(page.locator(CARD, has_text="pasted")).to_have_count(1, timeout=ANSWERS_WITHIN_MS)
    expect(page.get_by_text("1 answered")).to_be_visible()


def test_a_file_dropped_beside_the_zone_is_answered_instead_of_opened_by_the_browser(
    page: Page, start_app: StartApp, runs: tuple[RunFolder, RunFolder], files: list[str]
) -> None:
    page.goto(f"{start_app(APP_FILE)}/predict?run={runs[0].run_id}")
    page.get_by_text("or press Ctrl+V").wait_for()
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": files[:1], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 600, "data": data})
    expect(page.locator(CARD, has_text="a.png")).to_have_count(1, timeout=ANSWERS_WITHIN_MS)
