"""The parts of Compare that need evaluations: results with intervals, classes that gained or lost, and two runs image by image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from cifar_tl.errors import CifarTLError, RunInvalid
from cifar_tl.evaluation.analysis import accuracy, per_class
from cifar_tl.evaluation.comparison import Paired, class_changes, paired
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui.cached_evaluation import Explored, explored
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.widgets import NONE_YET, PERCENT_FORMAT, format_duration, page_boundary, percent, plain

RUNS_PARAMETER = "runs"  # of the address: ?runs=ID,ID
MOST_RUNS = 6
_SIGNIFICANT = 0.05
_TABLE_HEIGHT = 420
_OTHER_HEADINGS = ("Class", "Change", "Setting")
_MOST_OF_A_NAME = 40  # on a button
_LAST_OF_A_NAME = 8  # of these: there stands what tells it from others


def names_apart(labels: Sequence[str]) -> list[str]:
    """Names that can head columns: no two alike, and none the heading of another column. Those that would be are told by a letter."""
    with_letters = [f"{label} ({chr(ord('A') + number)})" for number, label in enumerate(labels)]
    names = [
        with_letter if labels.count(label) > 1 or label in _OTHER_HEADINGS else label
        for label, with_letter in zip(labels, with_letters, strict=True)
    ]
    return names if len(set(names)) == len(names) else with_letters


def show_results(runs: list[RunSummary], names: list[str]) -> None:
    st.subheader("Results", anchor=False)
    intervals = [_interval(run) for run in runs]
    st.dataframe(
        {
            "Run": names,
            "Test": [percent(run.test_accuracy) for run in runs],
            "95 % interval": intervals,
            "Top-5": [percent(run.test_top5) for run in runs],
            "Best dev": [percent(run.best_dev_accuracy) for run in runs],
            "Epochs": [len(run.dev_curve) for run in runs],
            "Duration": [format_duration(run.seconds) for run in runs],
            "Data": [run.data_title for run in runs],
            "Backbone": [run.config.backbone if run.config else "" for run in runs],
        },
        hide_index=True,
        placeholder=NONE_YET,
        column_config={name: st.column_config.NumberColumn(format=PERCENT_FORMAT) for name in ("Test", "Top-5", "Best dev")},
        alt="Results of the chosen runs",
    )


def _interval(run: RunSummary) -> str:
    loaded = _tested(run)
    if loaded is None:
        return ""
    low, high = accuracy(loaded.evaluation).interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _tested(run: RunSummary) -> Explored | None:
    """The test evaluation of a run; None where there is none that can be read."""
    try:
        return explored(run.run_id, "test")
    except (CifarTLError, FileNotFoundError):
        return None


def show_classes(runs: list[RunSummary], names: list[str]) -> None:
    """Recall of every class in every run; of two runs also what changed, greatest gain first."""
    st.subheader("Classes", anchor=False)
    tested = [_tested(run) for run in runs]
    loaded = [item for item in tested if item is not None]
    if len(loaded) < len(runs):
        missing = ", ".join(name for name, item in zip(names, tested, strict=True) if item is None)
        st.caption(f"Classes can be compared when all of these runs have been tested. Not yet: {plain(missing)}.")
        return
    if len({item.class_names for item in loaded}) > 1:
        st.caption("These runs have different classes, so their classes cannot be compared.")
        return
    recalls = [np.array([score.recall for score in per_class(item.matrix_CC)]) for item in loaded]
    order = class_changes(recalls[0], recalls[-1])
    table: dict[str, list[Any]] = {"Class": [loaded[0].class_names[index] for index in order]}
    table |= {name: [percent(float(recall[index])) for index in order] for name, recall in zip(names, recalls, strict=True)}
    if len(runs) == 2:
        gains = recalls[1] - recalls[0]
        table["Change"] = [round(100 * float(gains[index]), 1) for index in order]
        gained, lost = int((gains > 0).sum()), int((gains < 0).sum())
        st.caption(f"{plain(names[1])} recognises more images of {gained} classes than {plain(names[0])}, and fewer of {lost}.")
    formats: dict[str, Any] = {name: st.column_config.NumberColumn(format=PERCENT_FORMAT) for name in names}
    formats["Change"] = st.column_config.NumberColumn(format="%+.1f points")
    st.dataframe(
        table,
        hide_index=True,
        height=_TABLE_HEIGHT,
        column_config=formats,
        alt="Share of each class's test images that each run recognises",
    )


@st.fragment
@page_boundary()
def show_pair(first: RunSummary, second: RunSummary, names: list[str]) -> None:
    """The images that only one of two runs gets right, and whether that difference could be chance."""
    st.subheader("Image by image", anchor=False)
    a, b = _tested(first), _tested(second)
    if a is None or b is None:
        st.caption("Both runs must have been tested.")
        return
    try:
        result = _paired(a, b)
    except RunInvalid as error:
        st.caption(plain(str(error)))
        return
    st.markdown(in_words(result, plain(names[0]), plain(names[1])))
    choices = {
        f"Only {_short(names[1])} is right ({len(result.only_b_n):,})": result.only_b_n,
        f"Only {_short(names[0])} is right ({len(result.only_a_n):,})": result.only_a_n,
    }
    which = st.segmented_control("Images", list(choices), default=next(iter(choices)), required=True, label_visibility="collapsed")
    # The answers shown are those of the run that is wrong: what it took the image for is what one wants to know.
    is_wrong, positions = (a, choices[which]) if which == next(iter(choices)) else (b, _in(b, a, choices[which]))
    st.caption(f"Captions: the true class, and what {plain(names[0] if is_wrong is a else names[1])} took it for.")
    order = np.argsort(-is_wrong.evaluation.confidences_N[positions], kind="stable")
    show_gallery(is_wrong, positions[order], selection=f"pair.{first.run_id}.{second.run_id}.{which}", key="compare.images")


def _short(name: str) -> str:
    """For a button, whose text is Markdown."""
    if len(name) > _MOST_OF_A_NAME:
        name = f"{name[: _MOST_OF_A_NAME - _LAST_OF_A_NAME - 1]}…{name[-_LAST_OF_A_NAME:]}"
    return plain(name)


def _paired(a: Explored, b: Explored) -> Paired:
    if a.manifest.data_fingerprint != b.manifest.data_fingerprint or a.class_names != b.class_names:
        raise RunInvalid("These runs were trained on different data or classes, so their answers cannot be paired.")
    return paired(a.evaluation, b.evaluation)


def _in(target: Explored, source: Explored, positions: np.ndarray) -> np.ndarray:
    """Positions in `target` of the images that lie at `positions` in `source`."""
    rows = source.evaluation.rows_N[positions]
    order = np.argsort(target.evaluation.rows_N, kind="stable")
    return order[np.searchsorted(target.evaluation.rows_N[order], rows)]


def in_words(result: Paired, first: str, second: str) -> str:
    """What McNemar's test says, in a sentence."""
    fixes, breaks, p = len(result.only_b_n), len(result.only_a_n), result.p_value
    if fixes == breaks == 0:
        return f"**{first}** and **{second}** are right and wrong on the same images."
    counts = f"**{second}** fixes {fixes:,} images that {first} gets wrong, and breaks {breaks:,} that it gets right; p = {p:.2g}."
    if p < _SIGNIFICANT:
        better = second if fixes > breaks else first
        return f"{counts} A difference like this is hardly chance: {better} is better (McNemar's test, exact)."
    return f"{counts} Two equally good runs differ as much as this often enough: neither is shown to be better (McNemar's test, exact)."
