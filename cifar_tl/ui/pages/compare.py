"""The Compare page: two to six runs side by side. Curves, results with intervals, settings that differ, classes that gained or lost,
and for two runs on the same images the images that only one of them gets right.
"""

import streamlit as st

from cifar_tl.evaluation.comparison import differing_settings
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui.cached import follower, summaries
from cifar_tl.ui.charts.comparison import CURVES, overlay
from cifar_tl.ui.compare_progress import show_unfinished
from cifar_tl.ui.compare_views import MOST_RUNS, RUNS_PARAMETER, show_classes, show_pair, show_results
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.setting_widgets import label_of, value_in_words
from cifar_tl.ui.widgets import page_boundary, plain, run_labels

_PICKER = "compare.runs"
_CHART_HEIGHT = 380


def page() -> None:
    st.title("Compare", anchor=False)
    known = {run.run_id: run for run in summaries() if not run.problem}
    chosen = _picker(known)
    if len(chosen) < 2:
        st.caption(f"Choose two to {MOST_RUNS} runs, here or in the list of runs.")
        return
    names = _short_names(chosen)
    show_unfinished(chosen, names)
    _curves(chosen, names)
    show_results(chosen, names)
    _settings(chosen, names)
    show_classes(chosen, names)
    if len(chosen) == 2:
        show_pair(chosen[0], chosen[1], names)


def _picker(known: dict[str, RunSummary]) -> list[RunSummary]:
    """The address leads, the box writes it."""
    asked = [run_id for run_id in st.query_params.get(RUNS_PARAMETER, "").split(",") if run_id in known][:MOST_RUNS]
    if asked and st.session_state.get(_PICKER) != asked:
        st.session_state[_PICKER] = asked
    st.session_state[_PICKER] = [run_id for run_id in st.session_state.get(_PICKER, []) if run_id in known]
    labels = run_labels(list(known.values()))
    chosen: list[str] = st.multiselect(
        "Runs",
        list(known),
        format_func=lambda run_id: labels.get(run_id, run_id),
        max_selections=MOST_RUNS,
        key=_PICKER,
        on_change=_write_address,
        persist_state="session",
    )
    if chosen and ",".join(chosen) != st.query_params.get(RUNS_PARAMETER):
        st.query_params[RUNS_PARAMETER] = ",".join(chosen)
    return [known[run_id] for run_id in chosen]


def _write_address() -> None:
    st.query_params[RUNS_PARAMETER] = ",".join(st.session_state[_PICKER])


def _short_names(runs: list[RunSummary]) -> list[str]:
    """Names apart from each other: two runs of one name are told by a letter."""
    labels = [run.label for run in runs]
    return [f"{label} ({chr(ord('A') + number)})" if labels.count(label) > 1 else label for number, label in enumerate(labels)]


@st.fragment
@page_boundary()
def _curves(runs: list[RunSummary], names: list[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names_of_curves = [curve.name for curve in CURVES]
        chosen = st.segmented_control("Curve", names_of_curves, default=names_of_curves[0], required=True, key="compare.curve")
        curve = CURVES[names_of_curves.index(chosen)]
        axis = st.segmented_control("Against", ["Epochs", "Time"], default="Epochs", required=True, key="compare.axis")
    epochs = []
    for run in runs:
        following = follower(run.run_id)
        following.update()
        epochs.append(following.history.epochs)
    if not any(epochs):
        st.caption("None of these runs has finished an epoch yet.")
        return
    chart = overlay(names, epochs, curve, by_time=axis == "Time")
    key = f"compare.{curve.name}.{axis}"
    live_plot(chart.traces, chart.layout, revision=key + ",".join(names), key=key, description=chart.description, height=_CHART_HEIGHT)


def _settings(runs: list[RunSummary], names: list[str]) -> None:
    st.subheader("Settings that differ", anchor=False)
    differing = differing_settings([run.config for run in runs if run.config is not None])
    if not differing:
        st.caption("None: these runs have the same settings.")
        return
    columns = {"Setting": [label_of(setting) for setting, _ in differing]}
    for number, name in enumerate(names):
        columns[name] = [
            "all" if values[number] in (None, ()) else value_in_words(setting, values[number]) for setting, values in differing
        ]
    st.dataframe(columns, hide_index=True, alt="Settings that are not the same in all of these runs")
    st.caption("All others are the same. " + plain("Their names do not count."))


if __name__ == "__main__":
    with page_boundary():
        page()
