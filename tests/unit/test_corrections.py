"""Corrections: every decision is kept, the last one counts, undo takes it back, and what a run trains on never changes under it."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.data.corrections import (
    Corrections,
    Decision,
    corrections_of_run,
    decide,
    note_corrections,
    read_corrections,
    undo,
)
from cifar_tl.data.splits import run_splits
from cifar_tl.errors import DataError, SettingsError, SourceInvalid
from cifar_tl.paths import corrections_file
from tests.unit.test_splits import NAMES, made_store

DATA = "fingerprint"


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_TL_CORRECTIONS", str(tmp_path / "corrections"))


def decided(*decisions: Decision) -> Corrections:
    for decision in decisions:
        decide(DATA, decision, title="Made")
    return read_corrections(DATA)


def relabel(row: int, label: str, about: str = "label") -> Decision:
    return Decision(row, about, "relabel", label)  # type: ignore[arg-type]


def test_data_that_nobody_has_reviewed_has_no_corrections():
    assert read_corrections(DATA) == Corrections()
    assert Corrections().version == ""


def test_decisions_are_kept_in_order_with_their_time():
    corrections = decided(Decision(3, "label", "keep"), relabel(5, "cat"), Decision(7, "duplicate", "drop"))
    assert [(d.row, d.about, d.decision, d.label) for d in corrections.decisions] == [
        (3, "label", "keep", ""),
        (5, "label", "relabel", "cat"),
        (7, "duplicate", "drop", ""),
    ]
    assert all(decision.at > 1e9 for decision in corrections.decisions)


def test_the_last_decision_about_the_same_thing_counts():
    assert decided(relabel(5, "cat"), Decision(5, "label", "drop")).dropped == [5]
    assert decided(relabel(5, "dog")).relabelled == {5: "dog"}
    assert decided(Decision(5, "label", "keep")).version == ""


def test_keeping_both_of_a_pair_does_not_take_back_a_relabel():
    corrections = decided(relabel(5, "cat"), Decision(5, "duplicate", "keep"))
    assert corrections.relabelled == {5: "cat"}


def test_an_image_dropped_for_anything_is_dropped():
    corrections = decided(Decision(5, "outlier", "drop"), relabel(5, "cat"))
    assert (corrections.dropped, corrections.relabelled) == ([5], {})


def test_of_two_labels_given_for_two_reasons_the_later_counts():
    assert decided(relabel(5, "cat"), relabel(5, "dog", "duplicate")).relabelled == {5: "dog"}
    assert decided(relabel(5, "bee")).relabelled == {5: "bee"}


def test_a_verdict_shows_changes_everywhere_and_keeps_only_where_they_were_made():
    corrections = decided(Decision(1, "label", "keep"), relabel(2, "cat"))
    assert [corrections.verdict(1, about) for about in ("label", "duplicate")] == ["keep", None]
    assert [corrections.verdict(2, about) for about in ("label", "duplicate")] == ["relabel", "relabel"]


def test_undo_takes_back_the_last_decision_only():
    decided(relabel(5, "cat"), Decision(5, "label", "drop"))
    taken_back = undo(DATA, title="Made")
    assert taken_back is not None
    assert taken_back.decision == "drop"
    assert read_corrections(DATA).relabelled == {5: "cat"}


def test_undo_of_nothing_is_nothing():
    assert undo(DATA, title="Made") is None


def test_equal_corrections_have_equal_versions_however_they_came_about():
    first = decided(relabel(5, "cat"), Decision(9, "outlier", "drop")).version
    undo(DATA, title="Made")
    undo(DATA, title="Made")
    second = decided(Decision(9, "label", "drop"), Decision(4, "label", "keep"), relabel(5, "dog"), relabel(5, "cat")).version
    assert first == second != ""


def test_different_corrections_have_different_versions():
    versions = [
        decided(decision).version for decision in (relabel(5, "cat"), relabel(5, "dog"), relabel(6, "dog"), Decision(6, "label", "drop"))
    ]
    assert len(set(versions)) == 4


def test_two_pages_that_decide_at_once_both_keep_their_decision():
    threads = [threading.Thread(target=decide, args=(DATA, Decision(row, "label", "drop")), kwargs={"title": "Made"}) for row in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_corrections(DATA).dropped == list(range(20))


def test_test_images_cannot_be_decided_on():
    with pytest.raises(SettingsError, match="not those of test"):
        decide(DATA, Decision(3, "label", "drop", split="test"), title="Made")
    assert read_corrections(DATA) == Corrections()


@pytest.mark.parametrize("decision", [Decision(3, "label", "relabel"), Decision(3, "label", "drop", "cat")])
def test_a_label_belongs_to_a_relabel_and_to_nothing_else(decision: Decision):
    with pytest.raises(SettingsError, match="name of a class"):
        decide(DATA, decision, title="Made")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"version": 2, "decisions": []}', '{"version": 1, "decisions": [{"row": 1}]}']
    + [
        json.dumps(
            {"version": 1, "decisions": [{"split": "train", "row": 1, "about": "label", "decision": "drop", "label": "", "at": 0} | bad]}
        )
        for bad in ({"row": -1}, {"split": "test"}, {"decision": "burn"}, {"about": "x"}, {"decision": "relabel"}, {"label": "cat"})
    ],
)
def test_a_damaged_file_is_told_and_never_overwritten(text: str):
    path = corrections_file(DATA)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(SourceInvalid, match="cannot be read"):
        read_corrections(DATA)
    with pytest.raises(SourceInvalid, match="cannot be read"):
        decide(DATA, Decision(1, "label", "drop"), title="Made")
    assert path.read_text() == text


def test_a_folder_that_cannot_be_written_is_told_with_the_setting_that_names_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIFAR_TL_CORRECTIONS", str(tmp_path / "file"))
    with pytest.raises(DataError, match="CIFAR_TL_CORRECTIONS"):
        decide(DATA, Decision(1, "label", "drop"), title="Made")


def test_applied_corrections_change_labels_and_leave_images_out():
    corrections = decided(relabel(1, "dog"), Decision(2, "label", "drop"), Decision(3, "label", "keep"))
    labels, is_kept = corrections.apply(np.array([0, 0, 1, 1]), NAMES)
    assert labels.tolist() == [0, 3, 1, 1]
    assert is_kept.tolist() == [True, True, False, True]


@pytest.mark.parametrize("decision", [relabel(1, "unicorn"), Decision(4, "label", "drop")])
def test_corrections_of_other_data_are_refused(decision: Decision):
    with pytest.raises(SourceInvalid, match="made for other data"):
        Corrections((decision,)).apply(np.zeros(4, np.int64), NAMES)


def test_corrected_splits_keep_every_other_row_where_it_was(tmp_path: Path):
    store = made_store(tmp_path / "s")
    before = run_splits(store, classes=(), images_per_class=None, seed=0)
    in_train, in_dev, gone = int(before.train.rows[0]), int(before.dev.rows[0]), int(before.train.rows[1])
    corrections = Corrections((relabel(in_train, "dog"), relabel(in_dev, "dog"), Decision(gone, "label", "drop")))
    after = run_splits(store, classes=(), images_per_class=None, seed=0, corrections=corrections)
    assert after.train.rows.tolist() == [row for row in before.train.rows.tolist() if row != gone]
    assert after.dev.rows.tolist() == before.dev.rows.tolist()
    assert after.train.labels[0] == after.dev.labels[0] == NAMES.index("dog")
    np.testing.assert_array_equal(after.test.labels, before.test.labels)


def test_a_dev_split_of_the_data_set_itself_is_not_corrected(tmp_path: Path):
    corrections = Corrections((Decision(0, "label", "drop"),))
    splits = run_splits(made_store(tmp_path / "s", dev=True), classes=(), images_per_class=None, seed=0, corrections=corrections)
    assert (len(splits.train), len(splits.dev)) == (79, 8)


def test_few_shot_runs_see_the_same_images_corrected_or_not(tmp_path: Path):
    store = made_store(tmp_path / "s")
    before = run_splits(store, classes=(), images_per_class=3, seed=0)
    corrections = Corrections((relabel(int(before.train.rows[0]), "dog"),))
    after = run_splits(store, classes=(), images_per_class=3, seed=0, corrections=corrections)
    assert after.train.rows.tolist() == before.train.rows.tolist()


def test_an_image_relabelled_out_of_the_chosen_classes_is_left_out_and_one_relabelled_into_them_comes_in(tmp_path: Path):
    store = made_store(tmp_path / "s")
    before = run_splits(store, classes=("cat", "dog"), images_per_class=None, seed=0)
    everything = run_splits(store, classes=(), images_per_class=None, seed=0).train
    out, into = int(before.train.rows[0]), int(everything.rows[everything.labels == 0][0])
    corrections = Corrections((relabel(out, "ant"), relabel(into, "cat")))
    after = run_splits(store, classes=("cat", "dog"), images_per_class=None, seed=0, corrections=corrections)
    assert set(before.train.rows) ^ set(after.train.rows) == {out, into}


def test_a_run_that_goes_on_trains_on_what_it_began_with(tmp_path: Path):
    begun = decided(relabel(5, "cat"), Decision(6, "label", "keep"))
    note_corrections(tmp_path / "corrections.json", begun, title="Made")
    decided(Decision(5, "label", "drop"))
    found = corrections_of_run(tmp_path / "corrections.json", DATA)
    assert (found.relabelled, found.dropped, found.version) == ({5: "cat"}, [], begun.version)


def test_a_new_run_trains_on_what_is_in_force(tmp_path: Path):
    now = decided(relabel(5, "cat"))
    assert corrections_of_run(tmp_path / "corrections.json", DATA).version == now.version


def test_a_run_whose_corrections_are_lost_is_told_rather_than_guessed(tmp_path: Path):
    decided(relabel(5, "cat"))
    with pytest.raises(SourceInvalid, match="version 123456 of the corrections"):
        corrections_of_run(tmp_path / "corrections.json", DATA, version="123456")
