"""Takes the pictures of the README from a running dashboard: `python -m docs.screenshots http://127.0.0.1:8501 RUN_ID PICTURE...`.

RUN_ID is a finished run; the PICTUREs are dropped on the Predict page. Light pictures go to docs/images, and with `--look DIR`
light and dark ones of every page go to DIR instead, to be looked at. `--compare RUN_ID` is a second run, for the Compare page;
`--sweep SWEEP_ID` an ended sweep.
"""

import argparse
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.chromium import find_chromium
from tests.browser.conftest import CHROMIUM_ARGS, drop_files
from tests.browser.test_components import PLOT, click_cell_named, drawn

IMAGES = Path(__file__).parent / "images"
LAPTOP = {"width": 1366, "height": 768}
THUMBNAIL = ".grid button"
# Of each view of Explore: its address, and what is there once it is drawn.
VIEWS = {
    "classes": ("view=Classes&class=otter", THUMBNAIL),
    "images": ("view=Images&true=otter&pred=seal", THUMBNAIL),
    "suspicious": ("view=Suspicious+data", "button"),
    "trust": ("view=Trust", PLOT),
    "map": ("view=Map", PLOT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("run_id")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--cell", nargs=2, default=["maple_tree", "oak_tree"], help="true and predicted class whose images Explore shows")
    parser.add_argument("--compare", help="id of a run to compare with")
    parser.add_argument("--sweep", help="id of an ended sweep")
    parser.add_argument("--look", type=Path)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        for scheme in ("light", "dark") if options.look else ("light",):
            folder = options.look / scheme if options.look else IMAGES
            folder.mkdir(parents=True, exist_ok=True)
            take_all(browser, scheme, options, folder)
        browser.close()


def take_all(browser: Browser, scheme: str, options: argparse.Namespace, folder: Path) -> None:
    context = browser.new_context(viewport=LAPTOP, color_scheme=scheme)
    page = context.new_page()
    page.goto(options.address)
    page.get_by_text("images/s").wait_for(timeout=120_000)
    take(page, folder / "form.png")
    advise(page, folder)
    page.goto(f"{options.address}/?run={options.run_id}")
    page.locator(PLOT).nth(2).wait_for()
    take(page, folder / "train.png")
    page.goto(f"{options.address}/runs")
    page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
    take(page, folder / "runs.png")
    page.goto(f"{options.address}/explore?run={options.run_id}")
    explore(page, options.cell)
    take(page, folder / "explore.png")
    page.set_viewport_size({"width": LAPTOP["width"], "height": 950})
    for name, (address, shown) in VIEWS.items():
        page.goto(f"{options.address}/explore?run={options.run_id}&{address}")
        page.locator(shown).first.wait_for()
        if name == "images":
            page.locator(THUMBNAIL).first.click()
            page.get_by_text("Where the model looked").click()
        take(page, folder / f"explore_{name}.png")
    if options.compare:
        page.goto(f"{options.address}/compare?runs={options.compare},{options.run_id}")
        page.locator(PLOT).first.wait_for()
        take(page, folder / "compare.png")
    if options.sweep:
        page.set_viewport_size({"width": LAPTOP["width"], "height": 1300})
        page.goto(f"{options.address}/sweep?sweep={options.sweep}")
        page.locator(PLOT).first.wait_for(timeout=120_000)
        take(page, folder / "sweep.png")
    page.set_viewport_size({"width": LAPTOP["width"], "height": 940})
    page.goto(f"{options.address}/predict?run={options.run_id}")
    page.locator("[data-testid=stFileUploaderDropzone]").wait_for()
    drop_files(page, options.pictures)
    page.get_by_text("answered").wait_for(timeout=120_000)
    take(page, folder / "predict.png")
    context.close()


def advise(page: Page, folder: Path) -> None:
    """Both answers under the form."""
    page.set_viewport_size({"width": LAPTOP["width"], "height": 1150})
    for button, name, answer in (("Advise me", "advise", "on dev with a new head"), ("Find a learning rate", "rates", "Suggested")):
        page.get_by_role("button", name=button).click()
        page.get_by_text(answer).first.wait_for(timeout=120_000)
        page.locator(PLOT).first.wait_for()
        take(page, folder / f"{name}.png")
    page.set_viewport_size(LAPTOP)


def explore(page: Page, cell: list[str]) -> None:
    """Open the images behind one cell, on a page long enough to show the whole map."""
    page.set_viewport_size({"width": LAPTOP["width"], "height": 1150})
    drawn(page)
    classes = page.evaluate(f"[...document.querySelector('{PLOT}')._fullData[0].x]")
    true, predicted = cell
    click_cell_named(page, classes.index(true), classes.index(predicted), len(classes), true, predicted)
    page.get_by_role("button", name=f"{true}, → {predicted}").first.wait_for()


def take(page: Page, path: Path) -> None:
    # Charts and the table draw themselves after they are there; nothing on the page says when they are done.
    page.mouse.move(0, 0)  # away from what would show its help
    page.wait_for_timeout(1500)
    page.screenshot(path=path)


if __name__ == "__main__":
    main()
