"""The Explore page in every state, through Streamlit's AppTest."""

from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.evaluation.analysis import confusion_matrix, most_confused_pairs
from cifar_tl.evaluation.arrays import Evaluation, load_evaluation, save_evaluation
from cifar_tl.paths import PROJECT_ROOT, RunFolder, stores_root
from tests.made_runs import FAILURE, class_names, hold_lock, make_run, make_store

PAGE = PROJECT_ROOT / "cifar_tl/ui/pages/explore.py"


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data", "cache", "checkpoints"):
        monkeypatch.setenv(f"CIFAR_TL_{name.upper()}", str(tmp_path / name))
    st.cache_data.clear()
    st.cache_resource.clear()
    return tmp_path / "checkpoints"


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(PAGE, default_timeout=20)
    for name, value in query.items():
        at.query_params[name] = value
    return at.run()


def texts(at: AppTest) -> str:
    return "\n".join(element.value for kind in (at.markdown, at.caption, at.error, at.warning, at.info) for element in kind).replace(
        "\\", ""
    )


def metrics(at: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in at.metric}


def components(at: AppTest) -> list[str]:
    return [element.proto.component_name for element in at.get("bidi_component")]


def run_in_address(at: AppTest) -> str:
    value = at.query_params["run"]
    return value if isinstance(value, str) else value[0]


def worst_pair(folder: RunFolder) -> tuple[str, str, int]:
    evaluation = load_evaluation(folder.evaluation_of("test"))
    pair = most_confused_pairs(confusion_matrix(evaluation.labels_N, evaluation.predictions_N, evaluation.num_classes))[0]
    names = class_names(evaluation.num_classes)
    return names[pair.true], names[pair.predicted], pair.count


def test_without_runs_the_page_leads_to_training():
    at = opened()
    assert not at.exception
    assert "No runs yet" in texts(at)
    assert [button.label for button in at.button] == ["Train a model"]


def test_headline_shows_accuracy_with_its_interval(roots: Path):
    make_run(roots, test_images=200)
    at = opened()
    assert not at.exception
    assert metrics(at) == {"Accuracy": "71.5 %", "Top-5 accuracy": "99.5 %", "Test images": "200", "Mistakes": "57"}
    assert at.metric[0].delta == "95 % interval: 64.9 to 77.3 %"


def test_few_classes_have_no_top_5_accuracy(roots: Path):
    make_run(roots, num_classes=3)
    assert "Top-5 accuracy" not in metrics(opened())


def test_page_opens_with_the_newest_run_and_says_so_in_the_address(roots: Path):
    make_run(roots, run_id="old", created=1000)
    make_run(roots, run_id="new", created=2000)
    at = opened()
    assert at.selectbox[0].value == "new"
    assert run_in_address(at) == "new"


def test_address_chooses_the_run(roots: Path):
    make_run(roots, run_id="old", created=1000)
    make_run(roots, run_id="new", created=2000)
    assert opened(run="old").selectbox[0].value == "old"


def test_choosing_a_run_changes_the_address(roots: Path):
    make_run(roots, run_id="old", created=1000)
    make_run(roots, run_id="new", created=2000)
    at = opened(run="new")
    at.selectbox[0].set_value("old").run()
    assert run_in_address(at) == "old"
    assert at.selectbox[0].value == "old"


def test_unknown_run_in_the_address_is_told_and_another_shown(roots: Path):
    make_run(roots, run_id="known")
    at = opened(run="../gone")
    assert not at.exception
    assert "There is no run ../gone here" in texts(at)
    assert at.selectbox[0].value == "known"


def test_split_can_be_changed_to_dev(roots: Path):
    make_run(roots, test_images=200)
    at = opened(split="Dev")
    assert metrics(at)["Dev images"] == "100"


@pytest.mark.parametrize(("view", "drawn"), [("Confusion", True), ("Classes", False), ("Confused pairs", False)])
def test_views_are_chosen_by_the_address(roots: Path, view: str, drawn: bool):
    make_run(roots)
    at = opened(view=view)
    assert not at.exception
    assert ("cifar_tl_live_plot" in components(at)) is drawn
    assert len(at.dataframe) == (0 if drawn else 1)


def test_classes_come_worst_first(roots: Path):
    make_run(roots)
    scores = opened(view="Classes").dataframe[0].value["F1"].to_list()
    assert scores == sorted(scores)


def test_class_in_the_address_shows_its_mistakes(roots: Path):
    make_run(roots)
    at = opened(view="Classes", **{"class": "red square"})
    assert not at.exception
    assert "of **red square** taken for something else" in texts(at)


def test_missing_images_are_told_in_one_line_and_the_rest_works(roots: Path):
    make_run(roots)
    at = opened(view="Classes", **{"class": "red square"})
    told = [caption.value for caption in at.caption if "not on this machine" in caption.value]
    assert len(told) == 1
    assert "Accuracy" in metrics(at)


def test_images_of_other_data_are_not_shown_as_this_runs(roots: Path):
    make_store(stores_root() / ShapesSource().store_name)
    make_run(roots, data_fingerprint="of other data")
    at = opened(view="Classes", **{"class": "red square"})
    assert "is not the data this run was trained on" in texts(at)
    assert components(at) == []


def test_images_of_a_class_are_shown_as_thumbnails(roots: Path):
    store = make_store(stores_root() / ShapesSource().store_name)
    make_run(roots, data_fingerprint=store.info.fingerprint)
    at = opened(view="Classes", **{"class": "red square"})
    assert not at.exception
    assert components(at) == ["cifar_tl_thumbnails"]


def test_more_images_than_a_page_holds_get_a_pager(roots: Path):
    store = make_store(stores_root() / ShapesSource().store_name, num_classes=2, test_images=1200)
    make_run(roots, num_classes=2, test_images=1200, data_fingerprint=store.info.fingerprint)
    folder = RunFolder(next(roots.iterdir()))
    _predict_everything_as(folder, 0)
    at = opened(view="Classes", **{"class": class_names(2)[1]})
    assert not at.exception
    assert len(at.get("pagination")) == 1


def test_chosen_pair_shows_its_images(roots: Path):
    store = make_store(stores_root() / ShapesSource().store_name)
    folder = make_run(roots, data_fingerprint=store.info.fingerprint)
    at = opened(view="Confused pairs")
    at.session_state[f"pairs.{folder.run_id}.test"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    at.run()
    true, predicted, count = worst_pair(folder)
    assert f"{count} images of **{true}** taken for **{predicted}**" in texts(at)
    assert components(at) == ["cifar_tl_thumbnails"]


def test_run_without_mistakes_has_no_confused_pairs(roots: Path):
    folder = make_run(roots)
    _make_perfect(folder)
    at = opened(view="Confused pairs")
    assert not at.exception
    assert "every prediction is right" in texts(at)


def test_running_run_is_said_to_appear_when_it_is_done(roots: Path):
    folder = make_run(roots, status="running")
    with hold_lock(folder):
        at = opened()
    assert not at.exception
    assert "still training" in texts(at)
    assert [button.label for button in at.button] == ["Open the run"]


def test_failed_run_tells_why(roots: Path):
    make_run(roots, status="failed")
    assert FAILURE in texts(opened())


def test_run_that_ended_before_its_first_word_tells_that(roots: Path):
    make_run(roots, status="empty")
    at = opened()
    assert not at.exception
    assert "ended before it could say anything" in texts(at)


@pytest.mark.parametrize("status", ["stopped", "lost"])
def test_run_without_weights_has_nothing_to_explore(roots: Path, status: str):
    make_run(roots, status=status)
    at = opened()
    assert not at.exception
    assert "no weights" in texts(at)


@pytest.mark.parametrize("status", ["stopped", "lost"])
def test_run_that_ended_early_with_weights_can_be_evaluated(roots: Path, status: str):
    folder = make_run(roots, status=status)
    folder.best_weights.touch()
    assert [code.value for code in opened().code] == [f"python -m cifar_tl evaluate {folder.run_id}"]


def test_damaged_evaluation_is_told_and_the_other_split_still_works(roots: Path):
    folder = make_run(roots)
    folder.evaluation_of("test").write_bytes(b"not an archive")
    at = opened()
    assert not at.exception
    assert "is damaged" in at.error[0].value.replace("\\", "")
    assert "Dev images" in metrics(opened(split="Dev"))


def test_evaluation_of_other_classes_is_refused(roots: Path):
    folder = make_run(roots)
    other = make_run(roots, run_id="other", num_classes=5)
    folder.evaluation_of("test").write_bytes(other.evaluation_of("test").read_bytes())
    at = opened(run=folder.run_id)
    assert not at.exception
    assert "does not fit its run of 20 classes" in at.error[0].value.replace("\\", "")


def test_unreadable_run_folder_shows_its_problem(roots: Path):
    make_run(roots).config.write_text("{broken", "utf-8")
    at = opened()
    assert not at.exception
    assert "cannot be read" in texts(at)


def _make_perfect(folder: RunFolder) -> None:
    old = load_evaluation(folder.evaluation_of("test"))
    top = np.stack([(old.labels_N + i) % 20 for i in range(5)], 1).astype(np.int32)
    save_evaluation(folder.evaluation_of("test"), Evaluation(**(old.__dict__ | {"top_classes_NK": top})))


def _predict_everything_as(folder: RunFolder, predicted: int) -> None:
    old = load_evaluation(folder.evaluation_of("test"))
    top = np.tile(np.array([predicted, 1 - predicted], np.int32), (len(old), 1))
    save_evaluation(folder.evaluation_of("test"), Evaluation(**(old.__dict__ | {"top_classes_NK": top})))
