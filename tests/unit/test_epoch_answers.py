"""The dev answers of single epochs on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.epochs import answered_epochs, answers_of, evaluation_of_epoch, forget_after, save_answers
from cifar_tl.paths import RunFolder
from tests.made_runs import made_evaluation


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_answers_come_back_with_their_five_likeliest_classes(folder: RunFolder):
    saved, dev = made_evaluation(50, 20, seed=1), made_evaluation(50, 20, seed=2)
    save_answers(folder.dev_answers_of(3), answers_of(saved))
    read = evaluation_of_epoch(folder.dev_answers_of(3), dev)
    assert (read.top_classes_NK == saved.top_classes_NK).all()
    assert (read.confidences_N == saved.confidences_N).all()
    assert (read.labels_N == dev.labels_N).all()
    assert ((read.probabilities_NC > 0).sum(1) == 5).all()


def test_epochs_are_listed_in_order_and_other_files_are_not(folder: RunFolder):
    answers = answers_of(made_evaluation(5, 3))
    for epoch in (10, 2, 12345):
        save_answers(folder.dev_answers_of(epoch), answers)
    folder.dev_answers_of(7).with_name(".0007.npz.4711").touch()
    assert answered_epochs(folder) == [2, 10, 12345]


def test_no_epoch_is_listed_before_the_first(folder: RunFolder):
    assert answered_epochs(folder) == []


def test_epochs_after_a_checkpoint_are_forgotten(folder: RunFolder):
    for epoch in (1, 2, 3):
        save_answers(folder.dev_answers_of(epoch), answers_of(made_evaluation(5, 3)))
    forget_after(folder, 1)
    assert answered_epochs(folder) == [1]


def test_answers_of_other_images_are_refused(folder: RunFolder):
    save_answers(folder.dev_answers_of(1), answers_of(made_evaluation(40, 20)))
    with pytest.raises(RunInvalid, match="other images"):
        evaluation_of_epoch(folder.dev_answers_of(1), made_evaluation(50, 20))


def test_answers_of_more_classes_are_refused(folder: RunFolder):
    answers = answers_of(made_evaluation(50, 20))
    save_answers(folder.dev_answers_of(1), replace(answers, top_classes_NK=answers.top_classes_NK + 20))
    with pytest.raises(RunInvalid, match="other images"):
        evaluation_of_epoch(folder.dev_answers_of(1), made_evaluation(50, 20))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut", b"no archive at all"])
def test_damaged_answers_are_told(folder: RunFolder, damage: bytes):
    path = folder.dev_answers_of(4)
    save_answers(path, answers_of(made_evaluation(50, 20)))
    path.write_bytes(damage)
    with pytest.raises(RunInvalid, match="epoch 4"):
        evaluation_of_epoch(path, made_evaluation(50, 20))


def test_cut_answers_are_told(folder: RunFolder):
    path = folder.dev_answers_of(4)
    save_answers(path, answers_of(made_evaluation(50, 20)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunInvalid, match="epoch 4"):
        evaluation_of_epoch(path, made_evaluation(50, 20))


def test_files_are_small(folder: RunFolder):
    save_answers(folder.dev_answers_of(1), answers_of(made_evaluation(5000, 100)))
    assert folder.dev_answers_of(1).stat().st_size < 5000 * 31


def test_single_class_of_two_has_two_ranks(folder: RunFolder):
    dev = made_evaluation(10, 2)
    save_answers(folder.dev_answers_of(1), answers_of(dev))
    assert np.allclose(evaluation_of_epoch(folder.dev_answers_of(1), dev).probabilities_NC, dev.probabilities_NC)
