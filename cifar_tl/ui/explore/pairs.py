"""Confused pairs: which class is taken for which, commonest first, beside the images of the chosen pair."""

from typing import Any

import streamlit as st

from cifar_tl.evaluation.analysis import most_confused_pairs, rows_behind_cell
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.explore.parts import VIEW_COLUMNS, csv_button, heading, selectable
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.widgets import page_boundary

MOST_PAIRS = 200


@st.fragment
@page_boundary()
def show_pairs(explored: Explored) -> None:
    """Which class is taken for which, commonest first, beside the images of the chosen pair."""
    names = explored.class_names
    pairs = most_confused_pairs(explored.matrix_CC, MOST_PAIRS)
    if not pairs:
        st.info("No class was taken for another: every prediction is right.", icon=":material/check_circle:")
        return
    table: dict[str, list[Any]] = {
        "True class": [names[pair.true] for pair in pairs],
        "Taken for": [names[pair.predicted] for pair in pairs],
        "Images": [pair.count for pair in pairs],
        "Share of class": [pair.share for pair in pairs],
    }
    left, right = st.columns(VIEW_COLUMNS, gap="medium")
    with left:
        row = selectable(
            table, None, f"pairs.{explored.run_id}.{explored.split}", "Pairs of classes by how often the first is taken for the second"
        )
        csv_button(lambda: table, f"{explored.run_id}-{explored.split}-pairs")
        if len(pairs) == MOST_PAIRS:
            st.caption(f"The {MOST_PAIRS} commonest pairs are shown.")
    with right:
        if row is None:
            st.caption("Choose a pair to see its images.")
            return
        pair, evaluation = pairs[row], explored.evaluation
        positions = rows_behind_cell(evaluation.labels_N, evaluation.predictions_N, evaluation.confidences_N, pair.true, pair.predicted)
        heading(len(positions), names[pair.true], names[pair.predicted], right=0)
        show_gallery(explored, positions, selection=f"pair.{pair.true}.{pair.predicted}", key="pairs.images")
