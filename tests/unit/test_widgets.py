"""Numbers in words, and what a page does with errors."""

import logging
import math

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.runs.store import RunStatus
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui.widgets import format_duration, format_percent, plain, run_labels, status_word


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (252, "4 min 12 s"),
        (7500, "2 h 5 min"),
        (100_000, "1 d 3 h"),
        (None, "–"),
        (math.inf, "–"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, words: str):
    assert format_duration(seconds) == words


@pytest.mark.parametrize(("fraction", "words"), [(0.6849, "68.5 %"), (1, "100.0 %"), (0, "0.0 %"), (None, "–"), (math.nan, "–")])
def test_shares_have_one_decimal(fraction: float | None, words: str):
    assert format_percent(fraction) == words


def test_every_status_has_a_word():
    assert all(status_word(status) for status in RunStatus)


def test_plain_text_loses_its_markdown():
    assert plain("a*b_[c]") == r"a\*b\_\[c\]"


def test_runs_of_the_same_name_can_be_told_apart():
    runs = [RunSummary(run_id, "twin", RunStatus.LOST, 0, None, "Shapes") for run_id in ("a", "b")]
    assert run_labels(runs) == {"a": "twin · Shapes · lost · a", "b": "twin · Shapes · lost · b"}


def _page_with_user_error() -> None:
    from cifar_tl.errors import RunNotFound
    from cifar_tl.ui.widgets import page_boundary

    with page_boundary():
        raise RunNotFound("There is no run.")


def _page_with_bug() -> None:
    from cifar_tl.ui.widgets import page_boundary

    with page_boundary():
        raise KeyError("secret detail")


def test_errors_meant_for_people_are_shown_as_they_are():
    at = AppTest.from_function(_page_with_user_error).run()
    assert not at.exception
    assert at.error[0].value.replace("\\", "") == "There is no run."


def test_other_errors_are_logged_and_told_without_details(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR):
        at = AppTest.from_function(_page_with_bug).run()
    assert not at.exception
    assert "secret detail" not in at.error[0].value
    assert "secret detail" in caplog.text
