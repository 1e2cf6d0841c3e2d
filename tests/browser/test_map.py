"""The embedding map in a real browser: lasso, click and hover lead to the right images; it redraws itself when a better one comes."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.data.store import ImageStore
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.embeddings import PCA, TSNE, load_map, save_map
from cifar_tl.paths import RunFolder
from tests.browser.conftest import StartApp
from tests.browser.test_components import PLOT, drawn
from tests.made_runs import class_names, describe_made_run, hold_lock, make_run, make_store

pytestmark = pytest.mark.browser

MAP = """
import streamlit as st
from cifar_tl.ui.cached_evaluation import explored
from cifar_tl.ui.explore.embedding_map import show_map

st.set_page_config(layout="wide")
show_map(explored("r", "test"))
"""
CARD = ".cifar-tl-plot-card"
NO_WEBGL = """
const original = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind.includes('webgl') ? null : original.call(this, kind, ...rest);
};
"""
# Of every point: its number and where it is on the page, in pixels.
PLACES = f"""() => {{
  const plot = document.querySelector('{PLOT}'), {{ xaxis, yaxis }} = plot._fullLayout, box = plot.getBoundingClientRect();
  return plot._fullData.filter((trace) => trace.customdata).flatMap((trace) => [...trace.customdata].map((number, i) =>
    [number, box.left + xaxis._offset + xaxis.d2p(trace.x[i]), box.top + yaxis._offset + yaxis.d2p(trace.y[i])]));
}}"""


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return make_store(tmp_path / "cache" / "stores" / ShapesSource().store_name)


@pytest.fixture
def run(tmp_path: Path, store: ImageStore) -> RunFolder:
    folder = make_run(tmp_path / "checkpoints", run_id="r", data_fingerprint=store.info.fingerprint)
    describe_made_run(folder)
    return folder


def places(page: Page) -> np.ndarray:
    """N x 2: of point i, where it is on the page."""
    found = {int(number): (x, y) for number, x, y in page.evaluate(PLACES)}
    return np.array([found[number] for number in sorted(found)])


def lasso(page: Page, corners: list[tuple[float, float]]) -> None:
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in [*corners[1:], corners[0]]:
        page.mouse.move(*corner, steps=5)
    page.mouse.up()


def around(points_n2: np.ndarray, margin: float = 6) -> list[tuple[float, float]]:
    (left, top), (right, bottom) = points_n2.min(0) - margin, points_n2.max(0) + margin
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def inside(points_N2: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    low, high = np.min(corners, 0), np.max(corners, 0)
    return np.flatnonzero(((points_N2 > low) & (points_N2 < high)).all(1))


def point_at(page: Page, number: int) -> tuple[float, float]:
    """Moves the pointer onto that point, and waits until Plotly, which looks every 50 ms, has noticed."""
    x, y = places(page)[number]
    page.mouse.move(x - 1, y)
    page.mouse.move(x, y)
    page.wait_for_function(f"(n) => document.querySelector('{PLOT}')._hoverdata?.[0]?.customdata === n", arg=number)
    return float(x), float(y)


def alone(points_N2: np.ndarray) -> int:
    """The number of a point that no other is near to."""
    distances = np.linalg.norm(points_N2[:, None] - points_N2[None], axis=2) + np.diag(np.full(len(points_N2), np.inf))
    return int(distances.min(1).argmax())


def gallery_labels(page: Page, count: int) -> list[str]:
    """True classes of the images that the gallery shows, sorted."""
    tiles = page.locator("button", has=page.locator("i"))
    expect(tiles).to_have_count(count)
    return sorted(title.split("\n")[0] for title in tiles.evaluate_all("tiles => tiles.map((tile) => tile.title)"))


@pytest.mark.parametrize("webgl", [True, False])
def test_lasso_opens_the_gallery_with_the_images_inside_it(page: Page, start_app: StartApp, run: RunFolder, webgl: bool):
    if not webgl:
        page.add_init_script(NO_WEBGL)
    page.goto(start_app(MAP))
    drawn(page)
    kinds = page.evaluate(f"[...new Set(document.querySelector('{PLOT}')._fullData.map((trace) => trace.type))]")
    assert kinds == ["scattergl" if webgl else "scatter"]
    points, evaluation = places(page), load_evaluation(run.evaluation_of("test"))
    assert len(points) == 200
    corners = around(points[evaluation.labels_N == 4])
    chosen = inside(points, corners)
    assert 10 <= len(chosen) < 200
    lasso(page, corners)
    wrong = int((evaluation.predictions_N[chosen] != evaluation.labels_N[chosen]).sum())
    expect(page.get_by_text(f"{len(chosen)} images", exact=True)).to_be_visible()
    expect(page.get_by_text(f"{wrong} of them taken for something else")).to_be_visible()
    assert gallery_labels(page, len(chosen)) == sorted(class_names(20)[label] for label in evaluation.labels_N[chosen])


def test_hovering_shows_the_picture_and_what_it_was_taken_for(page: Page, start_app: StartApp, run: RunFolder, store: ImageStore):
    page.goto(start_app(MAP))
    drawn(page)
    number = alone(places(page))
    with page.expect_response(lambda response: "/media/" in response.url and response.url.endswith((".jpg", ".jpeg"))) as fetched:
        point_at(page, number)
    assert fetched.value.ok
    evaluation = load_evaluation(run.evaluation_of("test"))
    card = page.locator(CARD)
    expect(card).to_be_visible()
    expect(card).to_contain_text(class_names(20)[evaluation.labels_N[number]])
    page.wait_for_load_state("networkidle")
    picture = np.asarray(Image.open(io.BytesIO(card.locator("i").screenshot())).convert("RGB"), np.float32)
    expected = store["test"].images_NHWC[evaluation.rows_N[number]].astype(np.float32)
    assert picture[20:-20, 20:-20].mean((0, 1)) == pytest.approx(expected.mean((0, 1)), abs=14)
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()


def test_click_shows_one_image_also_after_a_lasso(page: Page, start_app: StartApp, run: RunFolder):
    page.goto(start_app(MAP))
    drawn(page)
    points, evaluation = places(page), load_evaluation(run.evaluation_of("test"))
    number = alone(points)
    name = class_names(20)[evaluation.labels_N[number]]
    corners = around(points[evaluation.labels_N == (4 if evaluation.labels_N[number] != 4 else 5)])
    lasso(page, corners)
    expect(page.get_by_text(f"{len(inside(points, corners))} images", exact=True)).to_be_visible()
    page.mouse.click(*point_at(page, number))
    expect(page.get_by_text(f"1 image of {name}")).to_be_visible()
    assert gallery_labels(page, 1) == [name]
    page.wait_for_function(f"!document.querySelector('{PLOT}').layout.selections?.length")


def test_a_selection_stays_when_the_map_is_coloured_otherwise(page: Page, start_app: StartApp, run: RunFolder):
    page.goto(start_app(MAP))
    drawn(page)
    points, evaluation = places(page), load_evaluation(run.evaluation_of("test"))
    corners = around(points[evaluation.labels_N == 4])
    told = page.get_by_text(f"{len(inside(points, corners))} images", exact=True)
    lasso(page, corners)
    expect(told).to_be_visible()
    page.get_by_role("radio", name="Right or wrong").click()
    page.wait_for_function(f"document.querySelector('{PLOT}')._fullData.length === 2")
    expect(told).to_be_visible()
    assert page.evaluate(f"document.querySelector('{PLOT}').layout.selections.length") == 1


def test_a_better_map_takes_the_place_of_the_first_by_itself(page: Page, start_app: StartApp, run: RunFolder):
    better = load_map(run.embedding_map)
    save_map(run.embedding_map, replace(better, method=PCA))
    with hold_lock(run):
        page.goto(start_app(MAP))
        drawn(page)
        expect(page.get_by_text("t-SNE is being computed")).to_be_visible()
        save_map(run.embedding_map, replace(better, method=TSNE))
        expect(page.get_by_text("t-SNE of 200 test")).to_be_visible(timeout=15_000)
        expect(page.get_by_text("t-SNE is being computed")).to_have_count(0)
