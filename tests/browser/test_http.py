"""The pages beside the HTTP interface: the same dashboard, the same prediction process, the same answers."""

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from cifar_tl.paths import PROJECT_ROOT
from tests.browser.conftest import StartApp, drop_files

pytestmark = pytest.mark.browser

ANSWERS_WITHIN_MS = 120_000
DEMO = "demo-efficientnet_lite0-cifar100"


def test_a_page_answers_for_a_picture_what_the_interface_answers(page: Page, start_app: StartApp, tmp_path: Path) -> None:
    address = start_app(PROJECT_ROOT / "serve.py", CIFAR_TL_HTTP="1", CIFAR_TL_CHECKPOINTS=str(PROJECT_ROOT / "checkpoints"))
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8)).resize((60, 40)).save(path)
    request = urllib.request.Request(f"{address}/api/predict?run={DEMO}", path.read_bytes(), {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_MS / 1000) as answer:  # it starts the process that the page then asks
        (told,) = json.load(answer)["files"]

    page.goto(f"{address}/predict?run={DEMO}")
    page.locator("[data-testid=stFileUploaderDropzone]").wait_for()
    drop_files(page, [str(path)])
    card = page.locator(".answers .card", has_text="noise.png")
    expect(card.locator(".bar .name").first).to_have_text(told["classes"][0]["class"], timeout=ANSWERS_WITHIN_MS)
    assert card.locator(".bar .name").all_text_contents() == [item["class"] for item in told["classes"]]

    page.goto(f"{address}/runs")
    expect(page.get_by_text("Best accuracy on CIFAR-100").first).to_be_attached()
