"""A run folder that is not whole: every page shows what there is, says what is not, and never a traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.paths import PROJECT_ROOT, RunFolder
from tests.made_runs import make_run

pytestmark = pytest.mark.usefixtures("predictor")

PAGES = ("train", "runs", "compare", "explore", "predict")


def no_manifest(folder: RunFolder) -> None:
    folder.manifest.unlink()


def manifest_of_a_newer_version(folder: RunFolder) -> None:
    folder.manifest.write_text(folder.manifest.read_text().replace('"version": 1', '"version": 99'))


def half_a_manifest(folder: RunFolder) -> None:
    folder.manifest.write_text(folder.manifest.read_text()[:100])


def settings_of_a_newer_version(folder: RunFolder) -> None:
    folder.config.write_text('{"version": 99}')


def no_settings(folder: RunFolder) -> None:
    folder.config.unlink()


def no_log(folder: RunFolder) -> None:
    folder.events.unlink()


def empty_log(folder: RunFolder) -> None:
    folder.events.write_bytes(b"")


def garbled_log(folder: RunFolder) -> None:
    data = folder.events.read_bytes()
    folder.events.write_bytes(data[: len(data) // 2] + b"\xff\x00garbled\n{]\n" + data[len(data) // 2 :])


def torn_log(folder: RunFolder) -> None:
    folder.events.write_bytes(folder.events.read_bytes()[:-20])


def no_evaluation(folder: RunFolder) -> None:
    shutil.rmtree(folder.evaluation)


def half_an_evaluation(folder: RunFolder) -> None:
    path = folder.evaluation_of("test")
    path.write_bytes(path.read_bytes()[:500])


def annotations_that_are_none(folder: RunFolder) -> None:
    folder.annotations.write_text('{"tags": {"a": 1}, "name": ["x"')


def a_folder_in_place_of_a_file(folder: RunFolder) -> None:
    folder.events.unlink()
    folder.events.mkdir()


DAMAGES = (
    no_manifest, manifest_of_a_newer_version, half_a_manifest, settings_of_a_newer_version, no_settings, no_log, empty_log, garbled_log,
    torn_log, no_evaluation, half_an_evaluation, annotations_that_are_none, a_folder_in_place_of_a_file,
)  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_run_is_shown_as_far_as_it_goes(checkpoints: Path, page: str, damage: Callable[[RunFolder], None]) -> None:
    damage(make_run(checkpoints, run_id="damaged"))
    make_run(checkpoints, run_id="whole")
    at = AppTest.from_file(PROJECT_ROOT / "cifar_tl/ui/pages" / f"{page}.py", default_timeout=30)
    at.query_params["run"] = "damaged"
    at.query_params["runs"] = "whole,damaged"
    at.session_state["runs.chosen"] = ["damaged"]
    at.run()
    assert not at.exception, at.exception
    said = "\n".join(str(element.value) for kind in ("error", "warning", "caption", "markdown", "title") for element in at.get(kind))
    assert "Something went wrong in the dashboard itself" not in said
    assert said


@pytest.mark.parametrize(
    ("page", "damage", "words"),
    [
        ("explore", no_manifest, "has an evaluation but no run.json"),
        ("explore", manifest_of_a_newer_version, "newer version of the program"),
        ("explore", half_an_evaluation, "Evaluate the run again"),
        ("explore", no_evaluation, "can be evaluated from the command line"),
        ("train", settings_of_a_newer_version, "newer version of the program"),
        ("train", no_settings, "There is no run"),
        ("runs", settings_of_a_newer_version, "newer version of the program"),
    ],
)
def test_what_is_missing_is_named(checkpoints: Path, page: str, damage: Callable[[RunFolder], None], words: str) -> None:
    folder = make_run(checkpoints, run_id="damaged")
    folder.best_weights.touch()
    damage(folder)
    at = AppTest.from_file(PROJECT_ROOT / "cifar_tl/ui/pages" / f"{page}.py", default_timeout=30)
    at.query_params["run"] = "damaged"
    at.session_state["runs.chosen"] = ["damaged"]
    at.run()
    said = "\n".join(str(element.value) for kind in ("error", "warning", "caption", "markdown") for element in at.get(kind))
    assert words in said.replace("\\", "")
