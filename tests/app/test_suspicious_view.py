"""The Suspicious data view through Streamlit's AppTest: every state of an audit, the lists, decisions and what becomes of them."""

import fcntl
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.data.corrections import Decision, decide, read_corrections
from cifar_tl.data.progress import Progress
from cifar_tl.data.shapes import ShapesSource
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.suspicion.state import failed, working
from cifar_tl.paths import RunFolder, corrections_file, stores_root
from cifar_tl.runs import launcher
from cifar_tl.runs.store import read_config, read_manifest, write_json
from cifar_tl.ui.explore import train_again
from tests.app.test_explore_page import components, metrics, opened, texts
from tests.made_audits import DOUBTED_TEST, DOUBTED_TRAIN, audit_files, make_audit
from tests.made_runs import class_names, made_labels, make_run, make_store

NAMES = class_names(20)
LABELS = made_labels(200, 20)


@pytest.fixture
def run(checkpoints: Path) -> RunFolder:
    """A run whose images are on this machine, and whose data have been looked at."""
    store = make_store(stores_root() / ShapesSource().store_name)
    folder = make_run(checkpoints, data_fingerprint=store.info.fingerprint, name="First")
    make_audit(folder)
    return folder


def suspicious(**query: str) -> AppTest:
    at = opened(view="Suspicious data", **query)
    assert not at.exception
    return at


def fingerprint(folder: RunFolder) -> str:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest.data_fingerprint


def decisions(folder: RunFolder) -> list[tuple[int, str, str, str]]:
    return [(each.row, each.about, each.decision, each.label) for each in read_corrections(fingerprint(folder)).decisions]


def press(at: AppTest, start: str) -> AppTest:
    (button,) = [button for button in at.button if button.label.startswith(start)]
    assert not button.disabled
    at = button.click().run()
    assert not at.exception
    return at


def is_disabled(at: AppTest, start: str) -> bool:
    (button,) = [button for button in at.button if button.label.startswith(start)]
    return bool(button.disabled)


def choose(at: AppTest, label: str, option: str) -> AppTest:
    (group,) = [group for group in at.button_group if group.label == label]
    at = group.set_value(option).run()
    assert not at.exception
    return at


# The states of an audit


def test_data_that_nobody_has_looked_at_can_be_looked_at(checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_run(checkpoints)
    started: list[str] = []
    monkeypatch.setattr("cifar_tl.ui.explore.suspicious.start_audit", lambda run_id, _: started.append(run_id))
    at = suspicious()
    assert "Nobody has looked at Shapes through efficientnet_lite0 yet" in texts(at)
    press(at, "Look for suspicious images")
    assert started == [folder.run_id]


def test_an_audit_that_goes_on_says_how_far_it_is(checkpoints: Path):
    files = audit_files(make_run(checkpoints))
    files.path.mkdir(parents=True)
    write_json(files.state, working(Progress("Comparing pixels", 300, 1200, "pairs")))
    with files.lock.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        at = suspicious()
        (bar,) = at.get("progress")
        assert bar.proto.value == 25
        assert "Comparing pixels" in bar.proto.text
        assert not [button for button in at.button if button.label.startswith("Look")]


def test_a_failed_audit_says_why_and_can_be_tried_again(checkpoints: Path):
    files = audit_files(make_run(checkpoints))
    files.path.mkdir(parents=True)
    write_json(files.state, failed("The disk is full."))
    at = suspicious()
    assert "The data could not be looked at: The disk is full." in texts(at)
    assert not is_disabled(at, "Try again")


def test_a_damaged_result_says_so_and_can_be_made_again(run: RunFolder):
    audit_files(run).result.write_bytes(b"damaged")
    at = suspicious()
    assert "The data could not be looked at" in texts(at)
    assert not is_disabled(at, "Try again")


def test_images_that_are_not_on_the_machine_are_told(checkpoints: Path):
    make_audit(make_run(checkpoints))
    at = suspicious()
    assert "cifar_tl_thumbnails" not in components(at)
    assert not at.error


# Lists


def test_doubted_training_labels_come_first_with_the_suggested_label(run: RunFolder):
    at = suspicious()
    assert "cifar_tl_thumbnails" in components(at)
    first = DOUBTED_TRAIN[0]
    assert f"**1** of {len(DOUBTED_TRAIN)}" in texts(at)
    assert f"**{NAMES[LABELS[first]]}** · training image {first}" in texts(at)
    assert f"→ **{NAMES[LABELS[first] + 1]}**?" in texts(at)
    assert at.query_params["image"] in (f"train.{first}", [f"train.{first}"])


def test_test_images_are_listed_and_cannot_be_changed(run: RunFolder):
    at = choose(suspicious(), "Among", "Test (2)")
    assert f"test image {DOUBTED_TEST[0]}" in texts(at)
    assert "never changed" in texts(at)
    assert not [button for button in at.button if button.label.startswith(("Keep", "Relabel", "Drop"))]


def test_duplicates_show_both_images_and_how_many_of_test_are_in_train(run: RunFolder):
    at = choose(suspicious(kind="Duplicates"), "Among", "Test in training (2)")
    assert "2 of 200 test images are in train" in texts(at)
    assert "training image 40" in texts(at)
    assert "test image 60" in texts(at)
    assert "pixels correlate by 0.900" in texts(at)


def test_outliers_say_how_strange_they_are(run: RunFolder):
    assert "3.5 times as far from others as usual" in texts(suspicious(kind="Outliers"))


def test_a_link_opens_its_image(run: RunFolder):
    at = suspicious(image=f"train.{DOUBTED_TRAIN[2]}")
    assert f"**3** of {len(DOUBTED_TRAIN)}" in texts(at)
    assert f"training image {DOUBTED_TRAIN[2]}" in texts(at)


@pytest.mark.parametrize("image", ["train.150", "nonsense", "train.-1", "elsewhere.7"])
def test_a_link_to_an_image_that_is_not_listed_opens_the_first(run: RunFolder, image: str):
    assert f"training image {DOUBTED_TRAIN[0]}" in texts(suspicious(image=image))


# Decisions


def test_keep_is_written_and_the_next_image_comes(run: RunFolder):
    at = press(suspicious(), "Keep")
    assert decisions(run) == [(DOUBTED_TRAIN[0], "label", "keep", "")]
    assert f"training image {DOUBTED_TRAIN[1]}" in texts(at)
    assert "1 decided:** 0 relabelled, 0 dropped, 1 kept" in texts(at)


def test_relabel_takes_the_suggested_class(run: RunFolder):
    press(suspicious(), "Relabel as")
    row = DOUBTED_TRAIN[0]
    assert decisions(run) == [(row, "label", "relabel", NAMES[LABELS[row] + 1])]


def test_another_label_than_the_suggested_one_can_be_chosen(run: RunFolder):
    at = suspicious()
    (box,) = [box for box in at.selectbox if box.label == "Another label"]
    row = DOUBTED_TRAIN[0]
    assert NAMES[LABELS[row]] not in box.options
    box.set_value("red star").run()
    assert decisions(run) == [(row, "label", "relabel", "red star")]


def test_drop_and_undo(run: RunFolder):
    at = press(suspicious(), "Drop")
    assert decisions(run) == [(DOUBTED_TRAIN[0], "label", "drop", "")]
    at = press(at, "Undo")
    assert decisions(run) == []
    assert f"training image {DOUBTED_TRAIN[0]}" in texts(at)
    assert is_disabled(at, "Undo")


def test_of_a_test_image_in_train_the_training_image_is_dropped(run: RunFolder):
    at = choose(suspicious(kind="Duplicates"), "Among", "Test in training (2)")
    press(at, "Drop the training image")
    assert decisions(run) == [(40, "duplicate", "drop", "")]


def test_when_all_are_reviewed_the_view_says_so(run: RunFolder):
    at = suspicious()
    for _ in DOUBTED_TRAIN:
        at = press(at, "Keep")
    assert "All of these have been reviewed." in texts(at)
    at = choose(at, "Show", "Decided")
    assert f"**1** of {len(DOUBTED_TRAIN)}" in texts(at)


def test_decisions_that_cannot_be_kept_are_told(run: RunFolder):
    at = suspicious()
    path = corrections_file(fingerprint(run))
    path.parent.mkdir(parents=True)
    path.write_text("damaged")
    at = next(button for button in at.button if button.label.startswith("Keep")).click().run()
    assert not at.exception
    assert "corrections" in " ".join(error.value for error in at.error).lower()
    assert path.read_text() == "damaged"


# Training again


def test_without_a_change_there_is_nothing_to_train_on(run: RunFolder):
    assert is_disabled(suspicious(), "Train again")
    assert is_disabled(press(suspicious(), "Keep"), "Train again")


def test_a_run_on_corrected_data_has_the_same_settings_and_is_compared_at_once(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    decide(fingerprint(run), Decision(DOUBTED_TRAIN[0], "label", "drop"), title="Shapes")
    started, opened_pages = [], []
    monkeypatch.setattr(launcher, "start_run", lambda config: started.append(config) or "second")
    monkeypatch.setattr(train_again.st, "switch_page", lambda page, *, query_params: opened_pages.append((page, query_params)))
    at = press(suspicious(), "Train again on the corrected data")
    (config,) = started
    before = read_config(run)
    assert config.corrected
    assert config.name == "First · corrected"
    assert config.model_dump(exclude={"corrected", "name"}) == before.model_dump(exclude={"corrected", "name"})
    assert opened_pages == [(train_again.COMPARE_PAGE, {"runs": f"{run.run_id},second"})]
    at.run()
    press(at, "Compare with the run on the corrected data")
    assert len(started) == 1


# What other views make of an audit


def test_images_can_be_filtered_by_a_doubted_label(run: RunFolder):
    at = opened(view="Images", labels="Doubted")
    assert not at.exception
    assert f"{len(DOUBTED_TEST)} of 200 images" in texts(at)


def test_trust_shows_the_score_without_images_that_are_in_train(run: RunFolder):
    at = opened(view="Trust")
    assert not at.exception
    evaluation = load_evaluation(run.evaluation_of("test"))
    is_right = np.delete(evaluation.labels_N == evaluation.predictions_N, [60, 61])
    assert metrics(at)["Accuracy without duplicates"] == f"{100 * is_right.mean():.1f} %"
