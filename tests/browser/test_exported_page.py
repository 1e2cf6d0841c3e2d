"""An exported web page in a real browser: with the network off it gives the answers that Python gives, and it sends nothing anywhere."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from cifar_tl.data.progress import tell_nobody
from cifar_tl.data.sources import prepare
from cifar_tl.export.network import Exportable
from cifar_tl.export.report import ExportOptions, Kind
from cifar_tl.export.run import export_run
from cifar_tl.export.web_page import RUNTIME_FILES
from cifar_tl.inference import Predictor
from cifar_tl.paths import APP_FILE, RunFolder
from tests.browser.conftest import StartApp
from tests.browser.runtime import install_runtime
from tests.integration.test_training import run, small

pytestmark = pytest.mark.browser

READY_WITHIN_MS = 60_000
TOP = 5
MIRROR = "https://cdn.jsdelivr.net/**"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(small(image_size=64, images_per_class=20, epochs=3, average_flips=True), tmp_path_factory.mktemp("run"))[2]


def exported(folder: RunFolder, target: Path, runtime: Path | None = None) -> str:
    export_run(folder, ExportOptions(Kind.WEB, runtime_folder=str(runtime or "")), progress=tell_nobody, target=target)
    return (target / "index.html").as_uri()


@pytest.fixture(scope="module")
def offline_page(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported(folder, tmp_path_factory.mktemp("offline") / "web", install_runtime())


@pytest.fixture(scope="module")
def online_page(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported(folder, tmp_path_factory.mktemp("online") / "web")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty: as stored, enlarged, photo-like of odd sizes, small ones, and JPEGs."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    images = [Image.fromarray(np.asarray(image)) for image in prepare("shapes")["test"].images_NHWC[:20]]
    sizes = [(32, 32), (256, 256), (300, 200), (211, 640), (40, 50), (64, 64), (97, 33), (20, 26), (1200, 900), (500, 501)]
    paths = []
    for number, image in enumerate(images):
        size = sizes[number % len(sizes)]
        picture = image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
        if number >= len(sizes) and size != (32, 32):
            noisy = np.asarray(picture, np.float32) + random.normal(0, 12, (size[1], size[0], 3))
            picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        path = folder / (f"{number}.jpg" if number in (11, 18) else f"{number}.png")
        picture.save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))
        paths.append(path)
    return paths


def test_with_the_network_off_it_gives_the_same_five_classes_as_python(
    page: Page, folder: RunFolder, pictures: list[Path], offline_page: str
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.goto(offline_page)
    expect(page.get_by_role("status")).to_have_text("Ready.", timeout=READY_WITHIN_MS)
    page.locator("#file").set_input_files(pictures)
    expect(page.locator("#answers > li:has(.class)")).to_have_count(len(pictures), timeout=READY_WITHIN_MS)
    predictor = Predictor.from_run(folder.path)
    expected = Exportable.from_run(folder, predictor.temperature)
    for path in pictures:
        card = page.locator("#answers > li", has=page.get_by_title(path.name, exact=True))
        lines = [(line.locator("span").first.inner_text(), line.locator(".share").inner_text()) for line in card.locator(".class").all()]
        probabilities = expected.probabilities(predictor.square(path.read_bytes())[None])[0]
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        assert [name for name, _ in lines] == [expected.manifest.class_names[index] for index in best], path.name
        assert [float(share.removesuffix(" %")) for _, share in lines] == pytest.approx(
            [100 * probabilities[index] for index in best], abs=1
        )
    assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]


def test_what_is_no_picture_gets_a_line_and_the_others_their_answers(
    page: Page, pictures: list[Path], offline_page: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    page.goto(offline_page)
    page.locator("#file").set_input_files([broken, pictures[1]])
    expect(page.get_by_text("This is not a picture that this browser can read.")).to_be_visible(timeout=READY_WITHIN_MS)
    expect(page.locator("#answers > li:has(.class)")).to_have_count(1, timeout=READY_WITHIN_MS)


@pytest.mark.parametrize("is_altered", [False, True])
def test_without_the_runtime_inside_it_takes_only_the_bytes_that_were_tested(page: Page, online_page: str, is_altered: bool) -> None:
    runtime = install_runtime()

    def answer(route: Route) -> None:
        name = re.sub(r".*/", "", route.request.url)
        assert name in RUNTIME_FILES
        body = (runtime / name).read_bytes() + (b"\n" if is_altered else b"")
        route.fulfill(body=body, headers={"access-control-allow-origin": "*", "content-type": "application/octet-stream"})

    page.context.route(MIRROR, answer)
    page.goto(online_page)
    words = "The model could not be loaded" if is_altered else "Ready."
    expect(page.get_by_role("status")).to_contain_text(words, timeout=READY_WITHIN_MS)


def test_the_predict_page_exports_and_hands_over_what_it_made(page: Page, start_app: StartApp, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    run(small(image_size=64, images_per_class=20, epochs=1), tmp_path / "checkpoints")
    page.goto(f"{start_app(APP_FILE)}/predict?run=run")
    page.get_by_text("Use this model elsewhere").click()
    page.get_by_role("radio", name="PyTorch").click()
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_text("Exporting and comparing")).to_be_visible()
    button = page.locator("[data-testid=stDownloadButton] button", has_text="Download (")
    expect(button).to_be_visible(timeout=READY_WITHIN_MS)
    with page.expect_download() as download:
        button.click()
    download.value.save_as(tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        assert "run-bundle/predict.py" in archive.namelist()
        assert archive.testzip() is None
