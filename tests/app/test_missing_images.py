"""Explore where the images of a run are not on this machine: one line, the button that gets them, and what comes of it."""

import shutil
import threading
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.data.sources import prepare
from cifar_tl.errors import SourceUnavailable
from cifar_tl.paths import PROJECT_ROOT, stores_root
from cifar_tl.runs.store import run_ids
from cifar_tl.ui import cached, image_fetch
from tests.made_runs import make_run, make_store

PAGE = PROJECT_ROOT / "cifar_tl/ui/pages/explore.py"
GET = "Get the images"
LONGEST_SECONDS = 60


def opened(view: str = "Classes") -> AppTest:
    """Explore with a gallery open: the mistakes of one class, or the images of the commonest pair."""
    at = AppTest.from_file(PAGE, default_timeout=20)
    at.query_params["view"] = view
    at.query_params["class"] = "red square"
    at.run()
    if view == "Confused pairs":
        (run_id,) = run_ids()
        at.session_state[f"pairs.{run_id}.test"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
        at.run()
    assert not at.exception
    return at


def told(at: AppTest) -> list[str]:
    """The lines in place of a gallery, as they read."""
    return [text.replace("\\", "") for caption in at.caption if (text := caption.value).startswith(":material/hide_image:")]


def buttons(at: AppTest) -> list[str]:
    return [button.label for button in at.button]


def has_thumbnails(at: AppTest) -> bool:
    return any(element.proto.component_name == "cifar_tl_thumbnails" for element in at.get("bidi_component"))


def click_get(at: AppTest) -> AppTest:
    at = next(button for button in at.button if button.label == GET).click().run()
    assert not at.exception
    return at


def after_the_fetch(at: AppTest) -> AppTest:
    """The page as its polling shows it once the fetch is over."""
    for fetch in list(cached.image_fetches().values()):
        assert fetch.over.wait(LONGEST_SECONDS)
    at.run()
    assert not at.exception
    return at


@pytest.fixture
def slow_fetch(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Preparing does not end before this is set."""
    may_end = threading.Event()

    def wait(*arguments: object, **settings: object) -> None:
        assert may_end.wait(LONGEST_SECONDS)

    monkeypatch.setattr(image_fetch, "prepare", wait)
    return may_end


def failing_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr(image_fetch, "prepare", fail)


@pytest.mark.parametrize("view", ["Classes", "Confused pairs"])
@pytest.mark.parametrize(("source", "title"), [("shapes", "Shapes"), ("cifar100", "CIFAR-100")])
def test_absent_images_are_one_line_and_a_button(checkpoints: Path, view: str, source: str, title: str) -> None:
    make_run(checkpoints, source=source)
    at = opened(view)
    assert told(at) == [f":material/hide_image: The images of {title} are not on this machine yet; all numbers are complete."]
    assert buttons(at) == [GET]
    assert not has_thumbnails(at)


def test_the_button_says_how_much_will_be_downloaded(checkpoints: Path) -> None:
    make_run(checkpoints, source="cifar100")
    assert "169 MB" in opened().button[0].help


def test_numbers_and_tables_stay_without_images(checkpoints: Path) -> None:
    make_run(checkpoints)
    at = opened()
    assert "Accuracy" in [metric.label for metric in at.metric]
    assert len(at.dataframe) == 2  # the scores of all classes, and what the chosen one was taken for


def test_fetched_images_appear_as_thumbnails(checkpoints: Path) -> None:
    store = prepare("shapes")
    shutil.rmtree(store.folder)
    make_run(checkpoints, data_fingerprint=store.info.fingerprint)
    at = after_the_fetch(click_get(opened()))
    assert has_thumbnails(at)
    assert told(at) == []
    assert GET not in buttons(at)


def test_images_on_their_way_show_how_far_they_are(checkpoints: Path, slow_fetch: threading.Event) -> None:
    make_run(checkpoints)
    at = click_get(opened())
    assert len(at.get("progress")) == 1
    assert GET not in buttons(at)
    slow_fetch.set()


def test_another_page_waits_for_the_same_fetch(checkpoints: Path, slow_fetch: threading.Event) -> None:
    make_run(checkpoints)
    click_get(opened())
    assert len(opened().get("progress")) == 1
    slow_fetch.set()


def test_a_fetch_that_fails_says_why_in_words_and_may_be_tried_again(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(SourceUnavailable("CIFAR-100 cannot be fetched: no network. Connect to the network."), monkeypatch)
    make_run(checkpoints, source="cifar100")
    at = after_the_fetch(click_get(opened()))
    assert [warning.value.replace("\\", "") for warning in at.warning] == [
        "The images could not be fetched: CIFAR-100 cannot be fetched: no network. Connect to the network."
    ]
    assert buttons(at) == [GET]


def test_an_unexpected_error_leads_to_the_terminal(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing_with(RuntimeError("made up"), monkeypatch)
    make_run(checkpoints)
    at = after_the_fetch(click_get(opened()))
    assert "The details are in the terminal" in at.warning[0].value.replace("\\", "")
    assert "made up" in caplog.text


def test_other_data_under_the_same_name_are_not_offered_again(checkpoints: Path) -> None:
    make_store(stores_root() / ShapesSource().store_name)
    make_run(checkpoints, data_fingerprint="of other data")
    at = opened()
    assert told(at) == [":material/hide_image: The images cannot be shown: Shapes on this machine is not the data this run was trained on."]
    assert buttons(at) == []


def test_fetched_images_that_are_not_those_of_the_run_are_not_shown(checkpoints: Path) -> None:
    make_run(checkpoints, data_fingerprint="of other data")
    at = after_the_fetch(click_get(opened()))
    assert len(told(at)) == 1
    assert "is not the data this run was trained on" in told(at)[0]
    assert buttons(at) == []


def test_a_damaged_store_may_be_prepared_anew(checkpoints: Path) -> None:
    folder = stores_root() / ShapesSource().store_name
    store = make_store(folder)
    (folder / "test.images.npy").unlink()
    make_run(checkpoints, data_fingerprint=store.info.fingerprint)
    at = opened()
    assert "is damaged" in told(at)[0]
    assert buttons(at) == [GET]


def test_a_missing_folder_is_named_and_nothing_is_offered(checkpoints: Path, tmp_path: Path) -> None:
    make_run(checkpoints, source=f"folder:{tmp_path / 'birds'}")
    at = opened()
    assert told(at) == [
        f":material/hide_image: The images cannot be shown: this run expects them in the folder {tmp_path / 'birds'}, "
        "which is not on this machine."
    ]
    assert buttons(at) == []


def test_a_folder_that_is_no_data_set_says_why(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    make_run(checkpoints, source=f"folder:{tmp_path / 'birds'}")
    at = opened()
    assert f"expects them in the folder {tmp_path / 'birds'}. " in told(at)[0]
    assert buttons(at) == []
