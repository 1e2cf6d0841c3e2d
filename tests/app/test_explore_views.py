"""Each view of Explore with a normal run, a run of a thousand classes and one without mistakes, through Streamlit's AppTest."""

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.evaluation.analysis import confusion_matrix, per_class
from cifar_tl.evaluation.arrays import Evaluation, load_evaluation, save_evaluation
from cifar_tl.evaluation.epochs import answers_of, save_answers
from cifar_tl.evaluation.selection import Filter, Order, Outcome, select
from cifar_tl.paths import RunFolder, stores_root
from tests.app.test_explore_page import class_names, components, opened, texts
from tests.made_runs import hold_lock, made_evaluation, make_run, make_store

VIEWS = ("Confusion", "Classes", "Confused pairs", "Images", "Suspicious data", "Trust", "Map")


@pytest.fixture
def with_images(checkpoints: Path) -> RunFolder:
    """A run whose images are on this machine."""
    store = make_store(stores_root() / ShapesSource().store_name)
    return make_run(checkpoints, data_fingerprint=store.info.fingerprint)


def without_mistakes(folder: RunFolder) -> None:
    for split in ("test", "dev"):
        old = load_evaluation(folder.evaluation_of(split))
        top = np.stack([(old.labels_N + i) % old.num_classes for i in range(5)], 1).astype(np.int32)
        save_evaluation(folder.evaluation_of(split), Evaluation(**(old.__dict__ | {"top_classes_NK": top})))


def evaluation_of(folder: RunFolder, split: str = "test") -> Evaluation:
    return load_evaluation(folder.evaluation_of(split))


def heat_map_of(at: AppTest) -> dict:
    (plot,) = [item for item in at.get("bidi_component") if item.proto.component_name == "cifar_tl_live_plot"]
    return plot.proto


@pytest.mark.parametrize("view", VIEWS)
def test_view_of_a_normal_run_shows(with_images: RunFolder, view: str):
    at = opened(view=view)
    assert not at.exception
    assert not at.error


@pytest.mark.parametrize("view", VIEWS)
def test_view_of_a_thousand_classes_shows(checkpoints: Path, view: str):
    make_run(checkpoints, num_classes=1000, test_images=3000)
    at = opened(view=view)
    assert not at.exception
    assert not at.error


@pytest.mark.parametrize("view", VIEWS)
def test_view_of_a_run_without_mistakes_shows(checkpoints: Path, view: str):
    without_mistakes(make_run(checkpoints))
    at = opened(view=view)
    assert not at.exception
    assert not at.error


@pytest.mark.parametrize("view", VIEWS)
def test_view_of_two_classes_without_superclasses_shows(checkpoints: Path, view: str):
    make_run(checkpoints, num_classes=2)
    at = opened(view=view)
    assert not at.exception
    assert not at.error


def test_unknown_view_in_the_address_opens_the_first(checkpoints: Path):
    make_run(checkpoints)
    at = opened(view="No such view")
    assert not at.exception
    assert "cifar_tl_live_plot" in components(at)


def test_cell_in_the_address_shows_its_images(with_images: RunFolder):
    names = class_names(20)
    evaluation = evaluation_of(with_images)
    count = int(confusion_matrix(evaluation.labels_N, evaluation.predictions_N, 20)[0, 0])
    at = opened(true=names[0], pred=names[0])
    assert f"{count} images of **{names[0]}** recognised" in texts(at)
    assert "cifar_tl_thumbnails" in components(at)


def test_row_in_the_address_shows_all_images_of_a_class(with_images: RunFolder):
    name = class_names(20)[3]
    score = per_class(confusion_matrix(evaluation_of(with_images).labels_N, evaluation_of(with_images).predictions_N, 20))[3]
    assert f"{score.support} images of **{name}**: {score.hits} recognised" in texts(opened(true=name))


def test_column_in_the_address_shows_all_that_was_taken_for_a_class(with_images: RunFolder):
    name = class_names(20)[3]
    score = per_class(confusion_matrix(evaluation_of(with_images).labels_N, evaluation_of(with_images).predictions_N, 20))[3]
    told = texts(opened(pred=name))
    assert f"taken for **{name}**: {score.hits} are, {score.predicted - score.hits} are not" in told


def test_unknown_class_in_the_address_is_no_choice(with_images: RunFolder):
    at = opened(true="no such class")
    assert not at.exception
    assert "Choose a cell" in texts(at)


def test_share_of_mistakes_within_superclasses_is_told(checkpoints: Path):
    folder = make_run(checkpoints)
    evaluation = evaluation_of(folder)
    wrong = evaluation.labels_N != evaluation.predictions_N
    within = (evaluation.labels_N[wrong] // 5 == evaluation.predictions_N[wrong] // 5).mean()
    assert f"Of {wrong.sum()} mistakes, {100 * within:.1f} %" in texts(opened())


def test_data_set_without_superclasses_says_nothing_of_them(checkpoints: Path):
    make_run(checkpoints, num_classes=3)
    assert "superclass" not in texts(opened())


def test_epochs_of_dev_images_can_be_chosen(checkpoints: Path):
    folder = make_run(checkpoints)
    for epoch in (1, 2, 3):
        save_answers(folder.dev_answers_of(epoch), answers_of(made_evaluation(100, 20, "train", seed=10 + epoch)))
    at = opened(split="Dev")
    (slider,) = at.select_slider
    assert slider.options == ["1", "2", "3"]
    slider.set_value(1).run()
    assert not at.exception
    first = made_evaluation(100, 20, "train", seed=11)
    right = int((first.predictions_N == first.labels_N).sum())
    assert f"{right} of 100 images on the diagonal" in str(heat_map_of(at))


def test_test_images_have_no_epochs_to_choose(checkpoints: Path):
    folder = make_run(checkpoints)
    for epoch in (1, 2):
        save_answers(folder.dev_answers_of(epoch), answers_of(made_evaluation(100, 20)))
    assert not opened().select_slider


def test_running_run_shows_its_newest_epoch(checkpoints: Path):
    folder = make_run(checkpoints, status="running")
    save_evaluation(folder.evaluation_of("dev"), made_evaluation(100, 20, "train"))
    for epoch in (1, 2):
        save_answers(folder.dev_answers_of(epoch), answers_of(made_evaluation(100, 20, "train", seed=10 + epoch)))
    with hold_lock(folder):
        at = opened(run=folder.run_id)
        assert not at.exception
        assert at.select_slider[0].value == 2
        assert "still trains" in texts(at)
        save_answers(folder.dev_answers_of(3), answers_of(made_evaluation(100, 20, "train", seed=13)))
        assert at.run().select_slider[0].value == 3


def test_epoch_that_was_chosen_stays_while_new_ones_come(checkpoints: Path):
    folder = make_run(checkpoints, status="running")
    save_evaluation(folder.evaluation_of("dev"), made_evaluation(100, 20, "train"))
    for epoch in (1, 2):
        save_answers(folder.dev_answers_of(epoch), answers_of(made_evaluation(100, 20, "train", seed=10 + epoch)))
    with hold_lock(folder):
        at = opened(run=folder.run_id)
        at.select_slider[0].set_value(1).run()
        save_answers(folder.dev_answers_of(3), answers_of(made_evaluation(100, 20, "train", seed=13)))
        assert at.run().select_slider[0].value == 1


def test_damaged_epoch_is_told_and_the_best_is_shown(checkpoints: Path):
    folder = make_run(checkpoints)
    for epoch in (1, 2):
        save_answers(folder.dev_answers_of(epoch), answers_of(made_evaluation(100, 20, "train")))
        folder.dev_answers_of(epoch).write_bytes(b"damaged")
    at = opened(split="Dev")
    assert not at.exception
    assert "cannot be read" in texts(at)
    assert "cifar_tl_live_plot" in components(at)


def test_images_view_filters_by_the_address(with_images: RunFolder):
    names = class_names(20)
    count = len(select(evaluation_of(with_images), Filter(true=2, outcome=Outcome.WRONG), Order.LOSS))
    at = opened(view="Images", true=names[2], outcome="Wrong")
    assert not at.exception
    assert f"{count} of 200 images" in texts(at)


def test_images_view_without_a_filter_has_all(with_images: RunFolder):
    assert "200 of 200 images" in texts(opened(view="Images"))


def test_images_view_takes_a_range_of_confidence_from_the_address(with_images: RunFolder):
    passing = select(evaluation_of(with_images), Filter(lowest=0.2, highest=0.6), Order.LOSS)
    assert 0 < len(passing) < 200
    assert f"{len(passing)} of 200 images" in texts(opened(view="Images", confidence="20-60"))


@pytest.mark.parametrize("confidence", ["", "60", "60-20", "-5-20", "a-b", "0-900"])
def test_images_view_ignores_a_range_that_is_none(with_images: RunFolder, confidence: str):
    assert "200 of 200 images" in texts(opened(view="Images", confidence=confidence))


@pytest.mark.parametrize("split", ["dev", "Dev"])
def test_split_in_the_address_opens_its_images(with_images: RunFolder, split: str):
    assert "100 of 100 images" in texts(opened(view="Images", split=split))


def test_filter_that_nothing_passes_says_so(with_images: RunFolder):
    at = opened(view="Images")
    at.slider[0].set_value((99, 100)).run()
    assert not at.exception
    evaluation = evaluation_of(with_images)
    assert f"{int((evaluation.confidences_N >= 0.99).sum())} of 200 images" in texts(at)


@pytest.mark.parametrize("part", ["Mistakes", "Images", "Trend", "Nearest classes"])
def test_every_part_of_a_class_page_shows(with_images: RunFolder, part: str):
    at = opened(view="Classes", **{"class": class_names(20)[1]})
    (parts,) = [group for group in at.button_group if "Trend" in group.options]
    parts.set_value(part).run()
    assert not at.exception
    assert not at.error


def test_classes_can_be_seen_as_a_chart(with_images: RunFolder):
    at = opened(view="Classes")
    (form,) = [group for group in at.button_group if "Chart" in group.options]
    form.set_value("Chart").run()
    assert not at.exception
    assert components(at).count("cifar_tl_live_plot") == 1
