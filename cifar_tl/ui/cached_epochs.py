"""The dev answers of single epochs, as the views of Explore take them. Bounded: each holds the probabilities of all dev images."""

from dataclasses import replace
from pathlib import Path

import streamlit as st

from cifar_tl.evaluation.analysis import confusion_matrix
from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.evaluation.epochs import answered_epochs, evaluation_of_epoch
from cifar_tl.runs.store import find_run
from cifar_tl.ui.cached import file_stamp
from cifar_tl.ui.cached_evaluation import Explored

MAX_EPOCHS = 8


def epochs_to_choose(explored: Explored) -> list[int]:
    """Epochs whose dev answers are there; none for other splits. Raises RunNotFound."""
    return answered_epochs(find_run(explored.run_id)) if explored.split == "dev" else []


def at_epoch(explored: Explored, epoch: int) -> Explored:
    """The same dev images as the weights of that epoch saw them. Raises FileNotFoundError, RunInvalid."""
    path = find_run(explored.run_id).dev_answers_of(epoch)
    evaluation = _at_epoch(str(path), file_stamp(path), explored.evaluation)
    matrix_CC = confusion_matrix(evaluation.labels_N, evaluation.predictions_N, evaluation.num_classes)
    return replace(explored, evaluation=evaluation, matrix_CC=matrix_CC)


@st.cache_resource(max_entries=MAX_EPOCHS, show_spinner=False)
def _at_epoch(path: str, stamp: tuple[int, int], _dev: Evaluation) -> Evaluation:  # noqa: ARG001 - part of the key
    return evaluation_of_epoch(Path(path), _dev)
