"""The two custom components in a real browser: what Python's own tests cannot see."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import StartApp

pytestmark = pytest.mark.browser

LIVE_CURVE = """
import streamlit as st
from cifar_tl.ui.live_plot import live_plot, typed

@st.fragment(run_every=0.3)
def curve():
    st.session_state.count = count = st.session_state.get("count", 50) + 1
    lines = [{"type": "scatter", "mode": "lines", "name": n, "x": typed(range(count)), "y": typed([s * i for i in range(count)])} for n, s in (("one", 1), ("two", 2))]
    live_plot(lines, {"showlegend": True}, revision="same", key="curve", description="Two rising lines", height=320)

curve()
st.toggle("Show below")
st.text("below")
"""

HEAT_MAP = """
import numpy as np
import streamlit as st
from cifar_tl.ui.charts.confusion import cell_of_click, confusion_chart
from cifar_tl.ui.live_plot import live_plot

names = [f"class {i}" for i in range(SIZE)]

@st.fragment
def matrix():
    slot = st.container()
    chart = confusion_chart(np.arange(SIZE * SIZE).reshape(SIZE, SIZE), names)
    with slot:
        clicked = live_plot(chart.traces, chart.layout, revision="same", key="heat", description=chart.description, height=500, has_clickable_labels=True).clicked
    cell = cell_of_click(clicked, names)
    st.text(f"chosen {cell and (cell.true, cell.predicted)}")

matrix()
"""

THUMBNAILS = """
import numpy as np
import streamlit as st
from cifar_tl.ui.thumbnails import thumbnails

page = st.segmented_control("Page", [0, 1], default=0, required=True)
images = np.random.default_rng(page).integers(0, 256, (30, 32, 32, 3), np.uint8)
chosen = thumbnails(images, [f"cat {page}.{i}\\n90 %" for i in range(30)], revision=str(page), key="grid")
st.text(f"chosen {chosen}")
"""

PLOT = ".cifar-tl-plot"


def drawn(page: Page) -> None:
    page.wait_for_function(f"document.querySelector('{PLOT}')?._fullLayout?._size !== undefined")


def x_range(page: Page) -> list[float]:
    return page.evaluate(f"document.querySelector('{PLOT}')._fullLayout.xaxis.range.map(Number)")


def points(page: Page) -> int:
    return page.evaluate(f"document.querySelector('{PLOT}')._fullData[0].x.length")


def wait_for_more_points(page: Page) -> None:
    page.wait_for_function(f"(n) => document.querySelector('{PLOT}')._fullData[0].x.length > n + 1", arg=points(page))


def zoom_with_the_mouse(page: Page) -> None:
    box = page.locator(f"{PLOT} .nsewdrag").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=5)
    page.mouse.up()


def click_cell(page: Page, row: int, column: int, size: int) -> None:
    click_cell_named(page, row, column, size, f"class {row}", f"class {column}")


def click_cell_named(page: Page, row: int, column: int, size: int, true: str, predicted: str) -> None:
    page.locator(PLOT).scroll_into_view_if_needed()
    box = page.locator(f"{PLOT} .nsewdrag").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * (column + 0.5) / size, box["y"] + box["height"] * (row + 0.5) / size)
    # Plotly looks under the pointer every 50 ms only; a click before that is one on the cell before.
    hovered = f"document.querySelector('{PLOT}')._hoverdata?.[0]"
    page.wait_for_function(f"(cell) => {hovered}?.y === cell[0] && {hovered}?.x === cell[1]", arg=[true, predicted])
    page.mouse.down()
    page.mouse.up()


def test_zoom_and_hidden_lines_stay_while_data_arrive(page: Page, start_app: StartApp):
    page.goto(start_app(LIVE_CURVE))
    drawn(page)
    page.locator(f"{PLOT} .legendtoggle").nth(1).click()
    page.wait_for_function(f"document.querySelector('{PLOT}')._fullData[1].visible === 'legendonly'")
    before = x_range(page)
    zoom_with_the_mouse(page)
    page.wait_for_function(f"(r) => document.querySelector('{PLOT}')._fullLayout.xaxis.range[0] > r[0] + 1", arg=before)
    zoomed = x_range(page)
    wait_for_more_points(page)
    assert x_range(page) == zoomed
    assert page.evaluate(f"document.querySelector('{PLOT}')._fullData[1].visible") == "legendonly"


def test_updates_never_remove_the_chart_nor_move_what_is_below(page: Page, start_app: StartApp):
    page.goto(start_app(LIVE_CURVE))
    drawn(page)
    page.evaluate(
        f"""() => {{
        window.blanks = 0; window.tops = new Set();
        const below = [...document.querySelectorAll('[data-testid=stText]')].at(-1), first = document.querySelector('{PLOT} svg.main-svg');
        const watch = () => {{ if (!first.isConnected || !document.querySelector('{PLOT} .scatterlayer .js-line')) window.blanks++;
            window.tops.add(below.getBoundingClientRect().top); requestAnimationFrame(watch); }};
        watch(); }}"""
    )
    wait_for_more_points(page)
    wait_for_more_points(page)
    assert page.evaluate("window.blanks") == 0
    assert page.evaluate("window.tops.size") == 1


def test_chart_has_a_text_for_those_who_cannot_see_it(page: Page, start_app: StartApp):
    page.goto(start_app(LIVE_CURVE))
    expect(page.get_by_role("img", name="Two rising lines")).to_be_visible()


def test_chart_says_in_one_line_that_its_script_did_not_load(page: Page, start_app: StartApp):
    page.goto(start_app(LIVE_CURVE, with_plotly_js=False))
    expect(page.get_by_role("alert").filter(has_text="The chart cannot be drawn")).to_be_visible()


def test_chart_takes_over_the_dark_theme_when_the_system_turns_dark(page: Page, start_app: StartApp):
    page.goto(start_app(HEAT_MAP.replace("SIZE", "5")))
    drawn(page)
    colour = f"document.querySelector('{PLOT}')._fullLayout.font.color"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"(light) => {colour} !== light", arg=light)


@pytest.mark.parametrize("size", [20, 100])
def test_click_on_a_cell_tells_its_true_and_predicted_class(page: Page, start_app: StartApp, size: int):
    page.goto(start_app(HEAT_MAP.replace("SIZE", str(size))))
    drawn(page)
    click_cell(page, 3, 7, size)
    expect(page.get_by_text("chosen (3, 7)")).to_be_visible()
    click_cell(page, 12, 0, size)
    expect(page.get_by_text("chosen (12, 0)")).to_be_visible()


@pytest.mark.parametrize("size", [20, 100])
def test_click_on_a_label_tells_its_row_or_column(page: Page, start_app: StartApp, size: int):
    page.goto(start_app(HEAT_MAP.replace("SIZE", str(size))))
    drawn(page)
    box = page.locator(f"{PLOT} .nsewdrag").first.bounding_box()
    assert box
    page.mouse.click(box["x"] - 12, box["y"] + box["height"] * 4.5 / size)
    expect(page.get_by_text("chosen (4, None)")).to_be_visible()
    page.mouse.click(box["x"] + box["width"] * 6.5 / size, box["y"] + box["height"] + 12)
    expect(page.get_by_text("chosen (None, 6)")).to_be_visible()


def test_thumbnail_can_be_chosen_by_mouse_and_by_keyboard(page: Page, start_app: StartApp):
    page.goto(start_app(THUMBNAILS))
    page.get_by_role("button", name="cat 0.7, 90 %").click()
    expect(page.get_by_text("chosen 7")).to_be_visible()
    expect(page.get_by_role("button", name="cat 0.7, 90 %")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("chosen 8")).to_be_visible()


def test_new_thumbnails_start_with_none_chosen(page: Page, start_app: StartApp):
    page.goto(start_app(THUMBNAILS))
    page.get_by_role("button", name="cat 0.7, 90 %").click()
    expect(page.get_by_text("chosen 7")).to_be_visible()
    page.get_by_role("radio", name="1").click()
    expect(page.get_by_role("button", name="cat 1.7, 90 %")).to_be_visible()
    expect(page.get_by_text("chosen None")).to_be_visible()


def test_thumbnails_show_their_pixels_sharp(page: Page, start_app: StartApp):
    page.goto(start_app(THUMBNAILS))
    picture = page.get_by_role("button", name="cat 0.0, 90 %").locator("i")
    style = picture.evaluate("e => [getComputedStyle(e).imageRendering, getComputedStyle(e).backgroundImage]")
    assert style[0] == "pixelated"
    assert style[1].startswith('url("blob:')
