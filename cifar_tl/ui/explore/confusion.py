"""Confusion: the heat map of classes or superclasses, beside the images of the cell, row or column that was chosen.

A choice is in the address (?true=otter&pred=seal), so it can be linked to. Of dev images every epoch can be seen; while the run
trains, the newest one comes by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from cifar_tl.evaluation.analysis import ConfusedPair, superclass_confusion
from cifar_tl.evaluation.class_order import ClassOrder, class_order, error_split_by_superclass
from cifar_tl.runs.store import find_run, is_alive
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.charts.confusion import Cell, cell_of_click, cell_of_names, chart_height, confusion_chart
from cifar_tl.ui.explore.epoch_slider import at_chosen_epoch
from cifar_tl.ui.explore.parts import PREDICTED_PARAMETER, TRUE_PARAMETER, VIEW_COLUMNS, Table, csv_button, heading
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.widgets import format_percent, page_boundary, plain

_EPOCH_SECONDS = 3


@dataclass(frozen=True)
class _Level:
    """What the matrix is of: classes, or superclasses. `labels_N` and `predictions_N` count in them."""

    name: str
    names: tuple[str, ...]
    labels_N: np.ndarray
    predictions_N: np.ndarray
    matrix_CC: np.ndarray
    superclass_of: Sequence[int]


@dataclass(frozen=True)
class _Options:
    as_shares: bool
    order: ClassOrder
    least: float
    hide_diagonal: bool
    find: str | None


def show_confusion(explored: Explored) -> None:
    """The view; it looks for new epochs while the run trains."""
    is_live = explored.split == "dev" and is_alive(find_run(explored.run_id))
    st.fragment(_show, run_every=_EPOCH_SECONDS if is_live else None)(explored)


@page_boundary()  # a fragment's rerun does not pass through the page's own
def _show(explored: Explored) -> None:
    level_name, options = _options(explored)
    left, right = st.columns(VIEW_COLUMNS, gap="medium")
    with left:
        explored = at_chosen_epoch(explored)
        level = _level(explored, level_name)
        chosen = _heat_map(explored, level, options)
        _below(explored, level, options)
    with right:
        if chosen is None:
            st.caption(
                "Choose a cell to see its images, or the name of a class at the side for all of its row or column. "
                "Drag over an area to enlarge it; a double click shows all again."
            )
            return
        _show_images(explored, level, chosen)


def _options(explored: Explored) -> tuple[str, _Options]:
    """What the controls above the chart say: the level, and how to draw it."""
    level = "Classes"
    with st.container(horizontal=True, gap="small"):
        if explored.manifest.superclass_names:
            level = st.segmented_control("Level", ["Classes", "Superclasses"], default="Classes", required=True, key="confusion.level")
        unit = st.segmented_control("Cells show", ["Images", "Share of class"], default="Images", required=True, key="confusion.unit")
        order = st.selectbox("Order", _orders(explored, level), key="confusion.order", width=190)
        names = explored.class_names if level == "Classes" else explored.manifest.superclass_names
        find = st.selectbox("Find", sorted(names), index=None, placeholder="A class", key=f"confusion.find.{level}", width=190)
        as_shares = unit != "Images"
        least = st.number_input(
            "Show from, %" if as_shares else "Show from, images",
            min_value=0 if as_shares else 1,
            value=0 if as_shares else 1,
            key=f"confusion.least.{unit}",
            width=150,
            help="Cells with less are left empty.",
        )
        correct = st.segmented_control(
            "Correct ones", ["Show", "Hide"], default="Show", required=True, key="confusion.correct",
            help="Hiding leaves out the diagonal, so that the colours tell the mistakes apart.",
        )  # fmt: skip
    return level, _Options(as_shares, order, least / 100 if as_shares else least, correct == "Hide", find)


def _orders(explored: Explored, level: str) -> list[ClassOrder]:
    """By superclass first, where there are any and classes are shown: neighbours are then what is confused most."""
    has_superclasses = bool(explored.manifest.superclass_names) and level == "Classes"
    orders: list[ClassOrder] = [ClassOrder.SUPERCLASS] if has_superclasses else []
    return orders + [order for order in ClassOrder if order is not ClassOrder.SUPERCLASS]


def _level(explored: Explored, name: str) -> _Level:
    manifest, evaluation = explored.manifest, explored.evaluation
    if name == "Classes":
        return _Level(
            name, manifest.class_names, evaluation.labels_N, evaluation.predictions_N, explored.matrix_CC, manifest.superclass_of_class
        )
    of_class = np.asarray(manifest.superclass_of_class)
    merged = superclass_confusion(explored.matrix_CC, of_class, len(manifest.superclass_names))
    return _Level(name, manifest.superclass_names, of_class[evaluation.labels_N], of_class[evaluation.predictions_N], merged, ())


def _heat_map(explored: Explored, level: _Level, options: _Options) -> Cell | None:
    """Draw the matrix; returns what is chosen in it, by a click or by the address."""
    key = f"confusion.{explored.run_id}.{explored.split}.{level.name}"
    state = st.session_state.get(key)
    selected = _chosen(state.get("clicked") if state else None, level.names)
    chart = confusion_chart(
        level.matrix_CC,
        level.names,
        as_shares=options.as_shares,
        hide_diagonal=options.hide_diagonal,
        least=options.least,
        order=class_order(options.order, level.matrix_CC, level.names, level.superclass_of),
        selected=selected,
        focus=level.names.index(options.find) if options.find else None,
    )
    # Another order or class to find is another picture: an area that was enlarged before means nothing in it.
    revision = f"{key}.{options.order}.{options.find}"
    height = chart_height(len(level.names))
    drawn = live_plot(
        chart.traces, chart.layout, revision=revision, key=key, description=chart.description, height=height, has_clickable_labels=True
    )
    return _chosen(drawn.clicked, level.names)


def _chosen(clicked: Any, names: Sequence[str]) -> Cell | None:
    """A click leads and writes the address; without one the address does."""
    cell = cell_of_click(clicked, names)
    if cell is None:
        return cell_of_names(st.query_params.get(TRUE_PARAMETER), st.query_params.get(PREDICTED_PARAMETER), names)
    for parameter, index in ((TRUE_PARAMETER, cell.true), (PREDICTED_PARAMETER, cell.predicted)):
        if index is None:
            st.query_params.pop(parameter, None)
        elif st.query_params.get(parameter) != names[index]:
            st.query_params[parameter] = names[index]
    return cell


def _below(explored: Explored, level: _Level, options: _Options) -> None:
    """Which share of the mistakes stays within superclasses, and the matrix for a spreadsheet."""
    if explored.manifest.superclass_names:
        st.caption(_roll_up(explored))
    order = class_order(options.order, level.matrix_CC, level.names, level.superclass_of)

    def table() -> Table:
        columns = {level.names[i]: level.matrix_CC[order, i].tolist() for i in order}
        return {"True class": [level.names[i] for i in order]} | columns

    csv_button(table, f"{explored.run_id}-{explored.split}-confusion")


def _roll_up(explored: Explored) -> str:
    """How many mistakes stay within a superclass, how many cross it, with the commonest of either."""
    split = error_split_by_superclass(explored.matrix_CC, explored.manifest.superclass_of_class)
    if not split.within.total:
        return "There are no mistakes."
    low, high = split.within.interval
    within, across = (_pair_in_words(explored, pair) for pair in (split.commonest_within, split.commonest_across))
    return (
        f"Of {split.within.total:,} mistakes, {format_percent(split.within.fraction)} ({100 * low:.0f} to {100 * high:.0f} %) stay within "
        f"the superclass{within}, {format_percent(split.across.fraction)} cross it{across}. "
        f"If mistakes fell anywhere, {format_percent(split.by_chance)} would stay within."
    )


def _pair_in_words(explored: Explored, pair: ConfusedPair | None) -> str:
    return "" if pair is None else f" (as {plain(explored.class_names[pair.true])} for {plain(explored.class_names[pair.predicted])})"


def _show_images(explored: Explored, level: _Level, cell: Cell) -> None:
    evaluation = explored.evaluation
    in_row = np.ones(len(evaluation), bool) if cell.true is None else level.labels_N == cell.true
    in_column = np.ones(len(evaluation), bool) if cell.predicted is None else level.predictions_N == cell.predicted
    positions = np.flatnonzero(in_row & in_column)
    is_right = level.labels_N[positions] == level.predictions_N[positions]
    positions = positions[np.lexsort((-evaluation.confidences_N[positions], is_right))]
    true = None if cell.true is None else level.names[cell.true]
    predicted = None if cell.predicted is None else level.names[cell.predicted]
    heading(len(positions), true, predicted, right=int(is_right.sum()))
    show_gallery(explored, positions, selection=f"{level.name}.{cell.true}.{cell.predicted}", key="confusion.images")
