"""The three views of Explore: the confusion matrix, the classes, and the most confused pairs, each with the images behind a choice.

Each view is a fragment: a click reruns the view and not the page. Numbers come from `evaluation.analysis`, the heat map
from `ui.charts.confusion`. What is chosen lies in the widgets and, for a class, in the address.
"""

import csv
import io
from typing import Any

import numpy as np
import streamlit as st

from cifar_tl.evaluation.analysis import ClassScore, most_confused_pairs, per_class, rows_behind_cell, superclass_confusion
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.charts.confusion import chart_height, class_of_click, confusion_chart, superclass_order
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.widgets import NONE_YET, PERCENT_FORMAT, page_boundary, percent, plain

CLASS_PARAMETER = "class"  # of the address: ?class=NAME
MOST_PAIRS = 200
_TABLE_HEIGHT = 560
_WIDTHS = (3, 2)
_SHARES = ("F1", "Precision", "Recall", "Share of class")  # columns of fractions
_MOST_ROWS_SHOWN = 15


@st.fragment
@page_boundary()  # a fragment's rerun does not pass through the page's own
def show_confusion(explored: Explored) -> None:
    """The heat map beside the images of the clicked cell."""
    left, right = st.columns(_WIDTHS, gap="medium")
    with left:
        level, as_shares, hide_diagonal = _confusion_options(explored)
        names, labels_N, predictions_N, matrix_CC, order = _at_level(explored, level)
        key = f"confusion.{explored.run_id}.{explored.split}.{level}"
        chart = confusion_chart(
            matrix_CC,
            names,
            as_shares=as_shares,
            hide_diagonal=hide_diagonal,
            order=order,
            selected=class_of_click(_clicked_before(key), names),
        )
        state = live_plot(chart.traces, chart.layout, revision=key, key=key, description=chart.description, height=chart_height(len(names)))
        cell = class_of_click(state.clicked, names)
    with right:
        if cell is None:
            st.caption("Choose a cell to see its images. Drag over an area to enlarge it; a double click shows all again.")
            return
        true, predicted = cell
        positions = rows_behind_cell(labels_N, predictions_N, explored.evaluation.confidences_N, true, predicted)
        _heading(len(positions), names[true], names[predicted], is_right=true == predicted)
        show_gallery(explored, positions, selection=f"{level}.{true}.{predicted}", key="confusion.images")


def _confusion_options(explored: Explored) -> tuple[str, bool, bool]:
    """(level, as shares, hide the diagonal)"""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        level = "Classes"
        if explored.manifest.superclass_names:
            level = st.segmented_control("Level", ["Classes", "Superclasses"], default="Classes", required=True, key="confusion.level")
        unit = st.segmented_control("Cells show", ["Images", "Share of class"], default="Images", required=True, key="confusion.unit")
        hide = st.toggle(
            "Hide correct ones", key="confusion.hide", help="Leaves out the diagonal, so that the colours tell the mistakes apart."
        )
    return level, unit != "Images", hide


def _at_level(explored: Explored, level: str) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, list[int] | None]:
    """(names, labels, predictions, matrix, order) of classes, or of superclasses."""
    manifest, evaluation = explored.manifest, explored.evaluation
    if level == "Classes":
        order = superclass_order(manifest.superclass_of_class) if manifest.superclass_names else None
        return manifest.class_names, evaluation.labels_N, evaluation.predictions_N, explored.matrix_CC, order
    of_class = np.asarray(manifest.superclass_of_class)
    merged = superclass_confusion(explored.matrix_CC, of_class, len(manifest.superclass_names))
    return manifest.superclass_names, of_class[evaluation.labels_N], of_class[evaluation.predictions_N], merged, None


def _clicked_before(key: str) -> Any:
    """The click that this rerun is about: the chart frames it, so it must be known before the chart is drawn."""
    state = st.session_state.get(key)
    return state.get("clicked") if state else None


@st.fragment
@page_boundary()
def show_classes(explored: Explored) -> None:
    """All classes, worst first, beside the mistakes of the chosen one."""
    scores = sorted(per_class(explored.matrix_CC), key=lambda score: (np.nan_to_num(score.f1, nan=2.0), score.index))
    names = explored.class_names
    table = _class_table(scores, names)
    left, right = st.columns(_WIDTHS, gap="medium")
    with left:
        asked = st.query_params.get(CLASS_PARAMETER, "")
        start = next((row for row, score in enumerate(scores) if names[score.index] == asked), None)
        row = _selectable(table, start, f"classes.{explored.run_id}.{explored.split}", "Scores of every class, worst first")
        st.download_button(
            "Download as CSV",
            _csv(table),
            f"{explored.run_id}-{explored.split}-classes.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
    with right:
        if row is None:
            st.caption("Choose a class to see which of its images were taken for something else.")
            return
        chosen = scores[row].index
        if asked != names[chosen]:
            st.query_params[CLASS_PARAMETER] = names[chosen]
        _show_mistakes_of(explored, chosen)


def _show_mistakes_of(explored: Explored, chosen: int) -> None:
    evaluation = explored.evaluation
    mistakes = np.flatnonzero((evaluation.labels_N == chosen) & (evaluation.predictions_N != chosen))
    mistakes = mistakes[np.argsort(-evaluation.confidences_N[mistakes], kind="stable")]
    count = "1 image" if len(mistakes) == 1 else f"{len(mistakes)} images"
    st.markdown(f"{count} of **{plain(explored.class_names[chosen])}** taken for something else")
    show_gallery(explored, mistakes, selection=f"class.{chosen}", key="classes.images")


def _class_table(scores: list[ClassScore], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {
        "Class": [names[score.index] for score in scores],
        "F1": [score.f1 for score in scores],
        "Precision": [score.precision for score in scores],
        "Recall": [score.recall for score in scores],
        "Images": [score.support for score in scores],
        "Most often taken for": ["" if s.confused_with is None else f"{names[s.confused_with]} ({s.confused_count})" for s in scores],
    }


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
    left, right = st.columns(_WIDTHS, gap="medium")
    with left:
        row = _selectable(
            table, None, f"pairs.{explored.run_id}.{explored.split}", "Pairs of classes by how often the first is taken for the second"
        )
        if len(pairs) == MOST_PAIRS:
            st.caption(f"The {MOST_PAIRS} commonest pairs are shown.")
    with right:
        if row is None:
            st.caption("Choose a pair to see its images.")
            return
        pair, evaluation = pairs[row], explored.evaluation
        positions = rows_behind_cell(evaluation.labels_N, evaluation.predictions_N, evaluation.confidences_N, pair.true, pair.predicted)
        _heading(len(positions), names[pair.true], names[pair.predicted], is_right=False)
        show_gallery(explored, positions, selection=f"pair.{pair.true}.{pair.predicted}", key="pairs.images")


def _selectable(table: dict[str, list[Any]], start: int | None, key: str, alt: str) -> int | None:
    """A table of which one row can be chosen; the row's number, or None."""
    state = st.dataframe(
        table | {name: [percent(share) for share in table[name]] for name in _SHARES if name in table},
        height="content" if len(next(iter(table.values()))) <= _MOST_ROWS_SHOWN else _TABLE_HEIGHT,
        placeholder=NONE_YET,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        selection_default=None if start is None else {"selection": {"rows": [start]}},
        key=key,
        alt=alt,
        column_config={name: st.column_config.NumberColumn(format=PERCENT_FORMAT) for name in _SHARES},
    )
    rows = state.selection.rows
    return rows[0] if rows else None


def _heading(count: int, true: str, predicted: str, *, is_right: bool) -> None:
    images = "1 image" if count == 1 else f"{count} images"
    if is_right:
        st.markdown(f"{images} of **{plain(true)}** recognised")
    else:
        st.markdown(f"{images} of **{plain(true)}** taken for **{plain(predicted)}**")


def _csv(table: dict[str, list[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return file.getvalue()
