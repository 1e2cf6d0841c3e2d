"""Classes: scores of every class as table or chart, worst first, beside the page of the chosen class. A class can be linked to (?class=otter)."""

from dataclasses import dataclass

import numpy as np
import streamlit as st

from cifar_tl.evaluation.analysis import ClassScore, per_class
from cifar_tl.evaluation.calibration import class_calibration
from cifar_tl.ui.cached_evaluation import Explored, evaluated_splits, explored
from cifar_tl.ui.charts.classes import measure_chart
from cifar_tl.ui.explore.class_page import show_class
from cifar_tl.ui.explore.parts import VIEW_COLUMNS, Table, csv_button, selectable
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.widgets import page_boundary

CLASS_PARAMETER = "class"  # of the address: ?class=NAME
_CHART_HEIGHT = 520
_CHOSEN_BY_CLICK = "classes.clicked"


@dataclass(frozen=True)
class _Scores:
    """Of every class, in the order of the classes; `train_recall_C` is None where train was not evaluated, nan where a class has no images."""

    scores: list[ClassScore]
    confidence_C: np.ndarray
    calibration_error_C: np.ndarray
    train_recall_C: np.ndarray | None

    @property
    def recall_C(self) -> np.ndarray:
        return np.array([score.recall for score in self.scores])

    @property
    def gap_C(self) -> np.ndarray | None:
        return None if self.train_recall_C is None else self.train_recall_C - self.recall_C


@st.fragment
@page_boundary()  # a fragment's rerun does not pass through the page's own
def show_classes(explored: Explored) -> None:
    names, scores = explored.class_names, _scores_of(explored)
    left, right = st.columns(VIEW_COLUMNS, gap="medium")
    with left:
        form = st.segmented_control(
            "Form", ["Table", "Chart"], default="Table", required=True, key="classes.form", label_visibility="collapsed"
        )
        chosen = _table(explored, scores) if form == "Table" else _chart(explored, scores)
    with right:
        if chosen is None:
            st.caption("Choose a class to see its images, what it is taken for, how it came to be, and what it resembles.")
            return
        if st.query_params.get(CLASS_PARAMETER) != names[chosen]:
            st.query_params[CLASS_PARAMETER] = names[chosen]
        show_class(explored, chosen, scores.scores[chosen])


def _scores_of(shown: Explored) -> _Scores:
    calibrations = class_calibration(shown.evaluation)
    confidence_C = np.array([calibration.mean_confidence for calibration in calibrations])
    error_C = np.array([calibration.error for calibration in calibrations])
    train = None
    if shown.split != "train" and "train" in evaluated_splits(shown.run_id):
        train = np.array([score.recall for score in per_class(explored(shown.run_id, "train").matrix_CC)])
    return _Scores(per_class(shown.matrix_CC), confidence_C, error_C, train)


def _asked(names: tuple[str, ...]) -> int | None:
    asked = st.query_params.get(CLASS_PARAMETER)
    return names.index(asked) if asked in names else None


def _table(explored: Explored, scores: _Scores) -> int | None:
    """The table, worst first; the index of the chosen class."""
    names = explored.class_names
    order = sorted(range(len(names)), key=lambda i: (np.nan_to_num(scores.scores[i].f1, nan=2.0), i))
    table = _as_table(scores, names, order, explored.split)
    asked = _asked(names)
    start = None if asked is None else order.index(asked)
    row = selectable(table, start, f"classes.{explored.run_id}.{explored.split}", "Scores of every class, worst first")
    csv_button(lambda: table, f"{explored.run_id}-{explored.split}-classes")
    return None if row is None else order[row]


def _as_table(scores: _Scores, names: tuple[str, ...], order: list[int], split: str) -> Table:
    ordered = [scores.scores[i] for i in order]
    table: Table = {
        "Class": [names[i] for i in order],
        "F1": [score.f1 for score in ordered],
        "Recall": [score.recall for score in ordered],
        "Recall, 95 % interval": [interval_in_words(score.recall_interval) if score.support else "" for score in ordered],
        "Precision": [score.precision for score in ordered],
        "Images": [score.support for score in ordered],
        "Most often taken for": ["" if s.confused_with is None else f"{names[s.confused_with]} ({s.confused_count})" for s in ordered],
        "Mean confidence": [float(scores.confidence_C[i]) for i in order],
        "Calibration error": [float(scores.calibration_error_C[i]) for i in order],
    }
    if scores.gap_C is not None:
        table[f"Train minus {split}"] = [float(scores.gap_C[i]) for i in order]
    return table


def interval_in_words(interval: tuple[float, float]) -> str:
    """(0.41, 0.6) -> "41 to 60 %"."""
    return f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"


def _chart(explored: Explored, scores: _Scores) -> int | None:
    names = explored.class_names
    by_class = scores.scores
    measures: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "Recall": (scores.recall_C, np.array([score.recall_interval for score in by_class])),
        "Precision": (np.array([score.precision for score in by_class]), np.array([score.precision_interval for score in by_class])),
        "F1": (np.array([score.f1 for score in by_class]), None),
        "Mean confidence": (scores.confidence_C, None),
        "Calibration error": (scores.calibration_error_C, None),
    }
    if scores.gap_C is not None:
        measures[f"Train minus {explored.split}"] = (scores.gap_C, None)
    measure = st.selectbox("Measure", list(measures), key="classes.measure", width=240)
    values_C, intervals_C2 = measures[measure]
    key = f"classes.chart.{explored.run_id}.{explored.split}"
    state = st.session_state.get(key)
    clicked = state.get("clicked") if state else None
    chosen = names.index(clicked["x"]) if clicked and clicked["x"] in names else _asked(names)
    chart = measure_chart(measure, names, values_C, intervals_C2, selected=chosen)
    drawn = live_plot(chart.traces, chart.layout, revision=key + measure, key=key, description=chart.description, height=_CHART_HEIGHT)
    csv_button(lambda: _as_table(scores, names, list(range(len(names))), explored.split), f"{explored.run_id}-{explored.split}-classes")
    return names.index(drawn.clicked["x"]) if drawn.clicked and drawn.clicked["x"] in names else chosen
