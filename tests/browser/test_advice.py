"""Advice in a real browser, with real answers: given up, taken over into the form, closed. AppTest reruns the whole page and sees none of it."""

import pytest
from playwright.sync_api import Locator, Page, expect

from cifar_tl.config import BUNDLED_BACKBONE
from cifar_tl.paths import APP_FILE
from tests.browser.conftest import StartApp

pytestmark = pytest.mark.browser

ANSWERS_WITHIN_MS = 240_000
LONGER_THAN_TWO_POLLS_MS = 2500
ANOTHER_BACKBONE = "resnet18"
IMAGES_PER_CLASS = "20"  # a busy machine takes minutes for all of them


def open_small_form(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_text("The form starts with this one because")).to_be_visible()  # shapes
    page.get_by_role("radio", name="Quick look").click()
    page.get_by_text("Advanced settings", exact=True).click()
    for label, value in (("Image size (px)", "32"), ("Training images per class", IMAGES_PER_CLASS)):
        page.get_by_role("spinbutton", name=label, exact=True).fill(value)
        page.get_by_role("spinbutton", name=label, exact=True).press("Enter")


def ask(page: Page, button: str, title: str) -> Locator:
    page.get_by_role("button", name=button).click()
    expect(page.get_by_text(title, exact=True)).to_be_visible()
    return page.get_by_role("button", name="Cancel")


def expect_closed_without_a_word(page: Page, title: str) -> None:
    expect(page.get_by_text(title, exact=True)).to_be_hidden()
    page.wait_for_timeout(LONGER_THAN_TWO_POLLS_MS)  # what refreshes itself would have failed by now
    expect(page.get_by_text("Something went wrong")).to_be_hidden()
    expect(page.get_by_role("button", name="Advise me")).to_be_visible()


def test_advice_that_is_cancelled_is_gone_and_stays_gone(page: Page, start_app: StartApp) -> None:
    address = start_app(APP_FILE)
    open_small_form(page, address)
    ask(page, "Advise me", "Which backbone?").click()
    expect_closed_without_a_word(page, "Which backbone?")
    assert "Traceback" not in start_app.log_of(address)


def test_a_rate_that_is_taken_over_is_in_the_form_and_the_answer_can_be_closed(page: Page, start_app: StartApp) -> None:
    open_small_form(page, start_app(APP_FILE))
    ask(page, "Find a learning rate", "Which learning rate?")
    use = page.get_by_role("button", name="Use 0.")
    expect(use).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    rate = use.inner_text().removeprefix("Use ")
    use.click()
    expect(page.get_by_role("spinbutton", name="Learning rate", exact=True)).to_have_value(rate)
    expect(page.get_by_text("It is the one you have.")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect_closed_without_a_word(page, "Which learning rate?")


def test_a_backbone_that_is_taken_over_is_in_the_form(page: Page, start_app: StartApp) -> None:
    open_small_form(page, start_app(APP_FILE))
    box = page.get_by_role("combobox", name="Backbone")
    box.fill(ANOTHER_BACKBONE)
    page.get_by_role("option", name=ANOTHER_BACKBONE, exact=True).click()
    expect(page.get_by_text("11.7 M parameters")).to_be_visible()
    ask(page, "Advise me", "Which backbone?")
    use = page.get_by_role("button", name=f"Use {BUNDLED_BACKBONE}")
    expect(use).to_be_visible(timeout=ANSWERS_WITHIN_MS)
    use.click()
    expect(box).to_have_value(BUNDLED_BACKBONE)
