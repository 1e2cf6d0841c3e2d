"""One sweep, live: how far it is, its trials, its best one, and Optuna's charts of them."""

from typing import Any

import streamlit as st

from cifar_tl.errors import CifarTLError
from cifar_tl.paths import SweepFolder
from cifar_tl.runs import launcher as run_launcher
from cifar_tl.runs.summary import summarize
from cifar_tl.settings import settings
from cifar_tl.sweeps import launcher
from cifar_tl.sweeps.space import Choice, Dimension
from cifar_tl.sweeps.store import Sweep, SweepStatus, find_sweep, read_sweep, request_stop, status_of
from cifar_tl.sweeps.study import SPENT, TrialRow, best_of, load_study, rows_of
from cifar_tl.ui.charts.sweeps import CHARTS, about, sweep_chart, why_not
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.setting_widgets import value_in_words
from cifar_tl.ui.sweep_form import SWEEP_PARAMETER
from cifar_tl.ui.widgets import (
    PERCENT_FORMAT,
    Metric,
    format_duration,
    format_percent,
    metric_row,
    page_boundary,
    percent,
    plain,
    show_error,
)

_REFRESH_SECONDS = 2.0
_CHART_HEIGHT = 420
_BADGES: dict[SweepStatus, tuple[str, Any]] = {
    SweepStatus.RUNNING: ("Running", "blue"),
    SweepStatus.COMPLETED: ("Completed", "green"),
    SweepStatus.STOPPED: ("Stopped", "gray"),
    SweepStatus.FAILED: ("Failed", "red"),
    SweepStatus.LOST: ("Interrupted", "orange"),
}
_STATES = {"running": "Running", "complete": "Complete", "pruned": "Given up", "fail": "Failed", "waiting": "Waiting"}


def sweep_badge(status: SweepStatus) -> None:
    text, colour = _BADGES[status]
    st.badge(text, color=colour)


def show_sweep(sweep_id: str) -> None:
    """Raises RunNotFound, RunInvalid."""
    folder = find_sweep(sweep_id)
    read_sweep(folder)
    is_running = status_of(folder)[0] is SweepStatus.RUNNING
    st.fragment(_body, run_every=_REFRESH_SECONDS if is_running else None)(sweep_id, was_running=is_running)


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _body(sweep_id: str, *, was_running: bool) -> None:
    folder = find_sweep(sweep_id)
    sweep, (status, message) = read_sweep(folder), status_of(folder)
    if was_running and status is not SweepStatus.RUNNING:
        st.rerun()  # the whole page, once: ends the refreshing
    study = load_study(folder, sweep)
    rows = rows_of(study) if study else []
    _header(folder, sweep, status)
    if status is SweepStatus.FAILED:
        st.error(f"**The sweep failed.** {plain(message)}", icon=":material/error:")
    elif status is SweepStatus.LOST:
        st.warning("The sweep's process vanished. Its runs are whole; Continue goes on with what is missing.", icon=":material/link_off:")
    elif message:
        st.info(plain(message), icon=":material/info:")
    _numbers(sweep, rows, float(study.user_attrs.get(SPENT, 0.0)) if study else 0.0)
    if not rows:
        st.caption("The first trial is about to start.")
        return
    _best(best_of(rows), is_running=status is SweepStatus.RUNNING)
    _table(sweep, rows)
    _charts(study, rows, sweep_id)


def _header(folder: SweepFolder, sweep: Sweep, status: SweepStatus) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(plain(sweep.name), width="content", anchor=False)
        sweep_badge(status)
        st.space("stretch")
        if status is SweepStatus.RUNNING:
            is_stopping = folder.stop_request.exists()
            if st.button("Stopping…" if is_stopping else "Stop", icon=":material/stop_circle:", disabled=is_stopping):
                _act(request_stop, folder.sweep_id)
        elif status is not SweepStatus.COMPLETED and st.button(
            "Continue", icon=":material/resume:", help="The open trials go on, the missing ones follow."
        ):
            _act(launcher.continue_sweep, folder.sweep_id)
        if st.button("All sweeps", icon=":material/list_alt:"):
            st.query_params.pop(SWEEP_PARAMETER, None)
            st.rerun()
    st.caption(f"Varies {varies_in_words(sweep)}")


def varies_in_words(sweep: Sweep) -> str:
    return " · ".join(plain(_dimension_in_words(dimension)) for dimension in sweep.space)


def _dimension_in_words(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return f"{_title(dimension.name)}: {', '.join(_in_words(dimension.name, value) for value in dimension.values)}"
    return f"{_title(dimension.name)} {dimension.low:g} to {dimension.high:g}{' by factors' if dimension.is_log else ''}"


def _numbers(sweep: Sweep, rows: list[TrialRow], spent: float) -> None:
    ended = [row for row in rows if row.has_ended]
    best, given_up = best_of(rows), [row.reason for row in rows if row.state == "pruned"]
    why = given_up[0].rstrip(".").lower() if len(set(given_up)) == 1 else "the table says why" if given_up else ""
    of = f"of {format_duration(60 * sweep.minutes)}" if sweep.minutes else "no limit"
    metric_row(
        [
            Metric("Trials ended", f"{len(ended)} of {sweep.trials}", f"{len(rows) - len(ended)} open"),
            Metric(
                "Best dev accuracy",
                format_percent(best.accuracy if best else None),
                f"in trial {best.number + 1}" if best else "after the first trial",
            ),
            Metric("Given up", f"{len(given_up)}", why),
            Metric("Time", format_duration(spent), of),
        ]
    )


def _best(best: TrialRow | None, *, is_running: bool) -> None:
    if best is None or not best.run_id:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        values = ", ".join(f"{_title(name)} {_in_words(name, value)}" for name, value in best.values.items())
        st.markdown(
            f"**Best: trial {best.number + 1}**, {format_percent(best.accuracy)} on dev  \n:small[{plain(values)}]", width="stretch"
        )
        if st.button("Open", icon=":material/monitoring:"):
            st.switch_page("cifar_tl/ui/pages/train.py", query_params={"run": best.run_id})
        if not is_running:
            _test_or_train_longer(best)


def _test_or_train_longer(best: TrialRow) -> None:
    run = summarize(best.run_id)
    if run.config is None or run.status.is_active:
        return
    if run.test_accuracy is not None:
        st.markdown(f"{format_percent(run.test_accuracy)} on test")
    elif st.button("Test", icon=":material/quiz:", help="Evaluate its test images, and prepare what Explore shows."):
        _act(run_launcher.resume_run, best.run_id, is_tested=True)
    with st.popover("Train longer", icon=":material/resume:"):
        epochs = st.number_input("Epochs in all", run.config.epochs + 1, 1000, min(1000, 2 * run.config.epochs))
        st.caption("The run of the best trial goes on, and is tested at its end.")
        if st.button("Train longer", type="primary"):
            _act(run_launcher.resume_run, best.run_id, epochs=int(epochs), is_tested=True)
            st.switch_page("cifar_tl/ui/pages/train.py", query_params={"run": best.run_id})


def _table(sweep: Sweep, rows: list[TrialRow]) -> None:
    names = [dimension.name for dimension in sweep.space]
    shown = sorted(rows, key=lambda row: row.number, reverse=True)
    config = st.column_config
    values: dict[str, list[Any]] = {
        "Trial": [row.number + 1 for row in shown],
        "State": [_STATES.get(row.state, row.state) for row in shown],
        "Dev": [percent(row.accuracy) for row in shown],
        "Epochs": [row.epochs for row in shown],
        **{_title(name): [_in_words(name, row.values.get(name)) for row in shown] for name in names},
        # Streamlit serves its first page, Train, at the root.
        "Run": [f"/?run={row.run_id}" if row.run_id else None for row in shown],
        "Why": [row.reason for row in shown],
    }
    columns = {
        "Trial": config.NumberColumn(width=60),
        "State": config.TextColumn(width=90),
        "Dev": config.NumberColumn(width=75, format=PERCENT_FORMAT, help="Accuracy on the dev images, of the best epoch so far."),
        "Epochs": config.NumberColumn(width=70),
        "Run": config.LinkColumn(width=80, display_text="Open"),
        "Why": config.TextColumn(width=320),
    }
    st.dataframe(values, hide_index=True, column_config=columns, height=min(400, 38 + 35 * len(shown)), key="sweep.table")


def _charts(study: Any, rows: list[TrialRow], sweep_id: str) -> None:
    complete = sum(row.state == "complete" for row in rows)
    name = st.segmented_control("Chart", CHARTS, default=CHARTS[0], required=True, key="sweep.chart", label_visibility="collapsed")
    st.caption(about(name))
    problem = why_not(name, complete)
    if problem:
        st.caption(problem)
        return
    try:
        chart = sweep_chart(name, study)
    except (ValueError, RuntimeError) as error:
        st.caption(f"Nothing can be told from these trials yet: {plain(str(error))}")
        return
    live_plot(
        chart.traces, chart.layout, revision=f"{sweep_id}.{name}", key=f"sweep.{name}", description=chart.description, height=_CHART_HEIGHT
    )


def _title(name: str) -> str:
    return next((setting.title for setting in settings() if setting.name == name), name)


def _in_words(name: str, value: Any) -> str:
    setting = next((setting for setting in settings() if setting.name == name), None)
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value) if setting is None or value is None else value_in_words(setting, value)


def _act(action: Any, *arguments: Any, **named: Any) -> None:
    """Do it and draw the page anew; what is refused is told."""
    try:
        action(*arguments, **named)
    except CifarTLError as error:
        show_error(error)
        return
    st.rerun()
