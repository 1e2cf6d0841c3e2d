"""Predicting in a real browser with the shipped run: files and an archive dropped, a closer look, two runs side by side, the file of answers."""

import csv
import io
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from cifar_tl.inference import predictor_of
from cifar_tl.paths import APP_FILE
from cifar_tl.runs.store import write_json
from tests.browser.conftest import StartApp, drop_files
from tests.integration.test_demo import DEMO

pytestmark = pytest.mark.browser

ANSWERS_WITHIN_MS = 120_000


def picture(seed: int) -> bytes:
    """A coloured disc on a coloured ground, larger than a CIFAR image and no square."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:90, :140]
    disc = ((x - random.integers(50, 90)) ** 2 + (y - 45) ** 2 < 900)[..., None]
    buffer = io.BytesIO()
    Image.fromarray(np.where(disc, random.integers(0, 256, 3), random.integers(0, 256, 3)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_drop_look_closer_compare_and_download(page: Page, start_app: StartApp, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(DEMO.path, checkpoints / DEMO.run_id)
    shutil.copytree(DEMO.path, checkpoints / "second")
    write_json(checkpoints / "second" / "annotations.json", {"name": "The second"})
    files = {f"{name}.png": picture(seed) for seed, name in enumerate("abc")}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("d.png", picture(3))
    page.goto(f"{start_app(APP_FILE)}/predict?run={DEMO.run_id}")
    page.locator("[data-testid=stFileUploaderDropzone]").wait_for()
    drop_files(page, [str(tmp_path / name) for name in (*files, "notes.txt", "more.zip")])
    expect(page.get_by_text("4 answered, 1 could not be")).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    expect(page.get_by_text("notes.txt: This is not a picture that can be read")).to_be_visible()

    expected = {a.name: a for a in predictor_of(DEMO.path).answer([*files.items(), ("more.zip/d.png", picture(3))])}
    for name, answer in expected.items():
        expect(page.get_by_text(name).last).to_be_visible()
        expect(page.get_by_text(re.compile(rf"^{answer.classes[0].class_name} [0-9.]+ %$")).first).to_be_visible()

    page.get_by_role("button", name="Look closer").first.click()
    expect(page.get_by_text("What speaks for")).to_be_visible()
    expect(page.get_by_text("Bright is what speaks for it").or_(page.get_by_text("Nothing in the picture speaks")).first).to_be_visible(
        timeout=ANSWERS_WITHIN_MS
    )
    expect(page.get_by_text("Nearest training images")).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_text("What speaks for")).to_have_count(0)

    page.get_by_role("combobox", name="Beside").fill("second")
    page.get_by_role("option", name="The second").click()
    expect(page.get_by_text("The second").last).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    expect(page.get_by_text("4 answered, 1 could not be")).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8"))))
    assert [(row["file"], row["run"]) for row in rows if not row["problem"]] == [
        (name, run_id) for name in ("a.png", "b.png", "c.png", "more.zip/d.png") for run_id in (DEMO.run_id, "second")
    ]
    for row in rows:
        if not row["problem"]:
            assert row["class 1"] == expected[row["file"]].classes[0].class_name
            assert float(row["probability 1"]) == pytest.approx(expected[row["file"]].classes[0].probability, abs=0.02)
