"""One sweep, live: how far it is, its trials, its best one, and Optuna's charts of them."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import streamlit as st

from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError, RunNotFound
from cifar_tl.paths import SweepFolder
from cifar_tl.runs.store import RunStatus, find_run, is_alive
from cifar_tl.runs.summary import RunSummary, summarize
from cifar_tl.settings import settings
from cifar_tl.sweeps import launcher
from cifar_tl.sweeps.space import Choice, Dimension
from cifar_tl.sweeps.store import Sweep, SweepStatus, find_sweep, read_sweep, request_stop, status_of
from cifar_tl.sweeps.study import SPENT, TrialRow, best_of, load_study, rows_of
from cifar_tl.ui.charts.sweeps import CHARTS, about, choice_label, is_slow, sweep_chart, why_not
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.sweep_best import go_on_controls, open_run
from cifar_tl.ui.sweep_form import SWEEP_PARAMETER
from cifar_tl.ui.widgets import (
    NONE_YET,
    PERCENT_FORMAT,
    RUN_PARAMETER,
    Metric,
    format_duration,
    format_percent,
    metric_row,
    page_boundary,
    percent,
    plain,
    show_error,
    status_badge,
)

_REFRESH_SECONDS = 2.0
_CHART_HEIGHT = 420
_MOST_ROWS, _TABLE_HEIGHT = 10, 400  # beyond so many rows the table scrolls
_PIXELS_OF_CHARACTER, _PIXELS_OF_CELL, _WIDEST_CHOICE = 7, 32, 320  # of table columns
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


@dataclass(frozen=True)
class _Loaded:
    """A sweep as it stands. `best_run` is the run of its best trial; None if there is none (any more)."""

    folder: SweepFolder
    sweep: Sweep
    status: SweepStatus
    message: str
    study: Any
    rows: list[TrialRow]
    best: TrialRow | None
    best_run: RunSummary | None

    @property
    def is_running(self) -> bool:
        return self.status is SweepStatus.RUNNING

    @property
    def is_live(self) -> bool:
        """True while what is shown changes by itself: the sweep runs, or its best trial is tested or trained longer."""
        return self.is_running or (self.best_run is not None and self.best_run.status.is_active)


def _load(sweep_id: str) -> _Loaded:
    """Raises RunNotFound, RunInvalid."""
    folder = find_sweep(sweep_id)
    sweep, (status, message) = read_sweep(folder), status_of(folder)
    study = load_study(folder, sweep)
    rows = rows_of(study) if study else []
    best = best_of(rows)
    return _Loaded(folder, sweep, status, message, study, rows, best, _run_of(best))


def _run_of(trial: TrialRow | None) -> RunSummary | None:
    try:
        return summarize(trial.run_id) if trial and trial.run_id else None
    except RunNotFound:  # deleted since; the sweep remembers its trial
        return None


def show_sweep(sweep_id: str) -> None:
    """Raises RunNotFound, RunInvalid."""
    loaded = _load(sweep_id)
    # Handed over for the first drawing, which would otherwise open the study a second time.
    first = [loaded]
    st.fragment(_body, run_every=_REFRESH_SECONDS if loaded.is_live else None)(sweep_id, first, was_live=loaded.is_live)


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _body(sweep_id: str, first: list[_Loaded], *, was_live: bool) -> None:
    loaded = first.pop() if first else _load(sweep_id)
    if was_live and not loaded.is_live:
        st.rerun()  # the whole page, once: ends the refreshing
    _header(loaded.folder, loaded.sweep, loaded.status)
    if loaded.status is SweepStatus.FAILED:
        st.error(f"**The sweep failed.** {plain(loaded.message)}", icon=":material/error:")
    elif loaded.status is SweepStatus.LOST:
        st.warning("The sweep's process vanished. Its runs are whole; Continue goes on with what is missing.", icon=":material/link_off:")
    elif loaded.message:
        st.info(plain(loaded.message), icon=":material/info:")
    _numbers(loaded)
    if not loaded.rows:
        st.caption("The first trial is about to start." if loaded.is_running else "No trial was begun.")
        return
    if loaded.best is not None and loaded.best.run_id:
        _best(loaded, loaded.best)
    _table(loaded)
    _charts(loaded.study, loaded.rows, sweep_id)


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


def _numbers(loaded: _Loaded) -> None:
    sweep, rows, best = loaded.sweep, loaded.rows, loaded.best
    spent = float(loaded.study.user_attrs.get(SPENT, 0.0)) if loaded.study else 0.0
    opened = sum(not row.has_ended for row in rows)
    given_up = [row.reason for row in rows if row.state == "pruned"]
    why = given_up[0].rstrip(".").lower() if len(set(given_up)) == 1 else "the table says why" if given_up else ""
    where = f"in trial {best.number + 1}{_of_complete(loaded)}" if best else "after the first complete trial"
    metric_row(
        [
            Metric(
                "Trials ended",
                f"{len(rows) - opened} of {sweep.trials}",
                f"{opened} {'running' if loaded.is_running else 'unfinished'}" if opened else "",
            ),
            Metric("Best dev accuracy", format_percent(best.accuracy if best else None), where),
            Metric("Given up", f"{len(given_up)}", why),
            Metric("Time", format_duration(spent), f"of {format_duration(60 * sweep.minutes)}" if sweep.minutes else "no limit"),
        ]
    )


def _of_complete(loaded: _Loaded) -> str:
    """Words for the best accuracy where a trial that is not complete shows a higher one."""
    best = (loaded.best.accuracy if loaded.best else None) or 0.0
    return ", of complete trials" if any((row.accuracy or 0.0) > best for row in loaded.rows if row.state != "complete") else ""


def _best(loaded: _Loaded, best: TrialRow) -> None:
    run = loaded.best_run
    with st.container(border=True):
        words, buttons = st.columns([2, 1], vertical_alignment="center")
        values = ", ".join(f"{_title(name)} {_in_words(name, value)}" for name, value in best.values.items())
        words.markdown(
            f"**Best: trial {best.number + 1}**, {format_percent(best.accuracy)} on dev{_of_complete(loaded)}{_since(run, best)}  \n"
            f":small[{plain(values)}]"
        )
        with buttons.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
            _best_buttons(loaded, best)
    if run is not None and run.message:
        st.error(f"**The run of the best trial failed.** {plain(run.message)}", icon=":material/error:")


def _best_buttons(loaded: _Loaded, best: TrialRow) -> None:
    """How its run stands, and what it can be asked for."""
    run = loaded.best_run
    if run is None:
        st.caption("Its run was deleted.", width="content")
        return
    if run.config is not None and run.status.is_active:
        st.markdown(f":material/hourglass_top: {_under_way(run, run.config, loaded.sweep, best)}", width="content")
    elif run.status is not RunStatus.COMPLETED:
        status_badge(run.status)
    if st.button("Open", icon=":material/monitoring:"):
        open_run(best.run_id)
    if run.config is not None and not run.status.is_active and not loaded.is_running:
        go_on_controls(run, run.config)


def _since(run: RunSummary | None, best: TrialRow) -> str:
    """What came of its run after the sweep."""
    if run is None or run.test_accuracy is None:
        return ""
    longer = len(run.dev_curve) > best.epochs
    after = f"; after {len(run.dev_curve)} epochs {format_percent(run.best_dev_accuracy)} on dev" if longer else ""
    return f"{after}, **{format_percent(run.test_accuracy)} on test**"


def _under_way(run: RunSummary, config: RunConfig, sweep: Sweep, best: TrialRow) -> str:
    """A run that goes on after its sweep is trained if it was given more epochs than the sweep gave it; then it is tested."""
    wait = " It waits for a device." if run.status is RunStatus.QUEUED else ""
    asked = int(best.values.get("epochs") or sweep.base.get("epochs") or best.epochs)
    if config.epochs > asked and len(run.dev_curve) < config.epochs:
        return f"Training longer… {len(run.dev_curve)} of {config.epochs} epochs.{wait}"
    return f"Testing…{wait}"


def _table(loaded: _Loaded) -> None:
    shown = sorted(loaded.rows, key=lambda row: row.number, reverse=True)
    config = st.column_config
    values: dict[str, list[Any]] = {
        "Trial": [row.number + 1 for row in shown],
        "State": [_state(row, loaded) for row in shown],
        "Dev": [percent(row.accuracy) for row in shown],
        "Epochs": [row.epochs for row in shown],
    }
    columns = {
        "Trial": config.NumberColumn(width=60),
        "State": config.TextColumn(width=90),
        "Dev": config.NumberColumn(width=75, format=PERCENT_FORMAT, help="Accuracy on the dev images, of the best epoch so far."),
        "Epochs": config.NumberColumn(width=70),
        "Run": config.LinkColumn(width=70, display_text="Open"),
        "Why": config.TextColumn(width=320),
    }
    for dimension in loaded.sweep.space:
        title = _title(dimension.name)
        values[title], columns[title] = _column(dimension, shown)
    # Streamlit serves its first page, Train, at the root.
    values["Run"] = [f"/?{RUN_PARAMETER}={row.run_id}" if row.run_id else None for row in shown]
    if any(row.reason for row in shown):
        values["Why"] = [row.reason for row in shown]
    height: Any = "content" if len(shown) <= _MOST_ROWS else _TABLE_HEIGHT
    st.dataframe(values, hide_index=True, column_config=columns, height=height, key="sweep.table")


def _state(row: TrialRow, loaded: _Loaded) -> str:
    """An open trial of a sweep that has ended runs only if its worker outlived the sweep's process."""
    if row.has_ended or loaded.is_running or _is_alive(row.run_id):
        return _STATES.get(row.state, row.state)
    return "Interrupted" if loaded.status is SweepStatus.LOST else "Stopped"


def _is_alive(run_id: str) -> bool:
    try:
        return is_alive(find_run(run_id))
    except RunNotFound:
        return False


def _column(dimension: Dimension, shown: list[TrialRow]) -> tuple[list[Any], Any]:
    """A setting's values and how they are shown: numbers as numbers, which sort as such; of a trial just begun there are none yet."""
    name, config = dimension.name, st.column_config
    title_width = _PIXELS_OF_CELL + _PIXELS_OF_CHARACTER * len(_title(name))
    if not isinstance(dimension, Choice) or all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in dimension.values
    ):
        return [row.values.get(name) for row in shown], config.NumberColumn(width=title_width, format="%.3g")
    longest = max(len(choice_label(name, value)) for value in dimension.values)
    width = max(title_width, min(_WIDEST_CHOICE, _PIXELS_OF_CELL + _PIXELS_OF_CHARACTER * longest))
    return [_in_words(name, row.values[name]) if name in row.values else NONE_YET for row in shown], config.TextColumn(width=width)


def _charts(study: Any, rows: list[TrialRow], sweep_id: str) -> None:
    complete = sum(row.state == "complete" for row in rows)
    name = st.segmented_control("Chart", CHARTS, default=CHARTS[0], required=True, key="sweep.chart", label_visibility="collapsed")
    st.caption(about(name))
    problem = why_not(name, complete)
    if problem:
        st.caption(problem)
        return
    wait = st.spinner("The first importances take a moment…") if is_slow(name) else nullcontext()
    try:
        with wait:
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
    return f"{value:.3g}" if isinstance(value, float) else choice_label(name, value)


def _act(action: Any, *arguments: Any) -> None:
    """Do it and draw the page anew; what is refused is told."""
    try:
        action(*arguments)
    except CifarTLError as error:
        show_error(error)
        return
    st.rerun()
