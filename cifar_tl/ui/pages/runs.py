"""The Runs page: every run with how it went; choose one to open, explore, predict with, rename or delete."""

from datetime import datetime
from typing import Any

import streamlit as st

from cifar_tl.errors import CifarTLError
from cifar_tl.runs.queue import move_to_front
from cifar_tl.runs.store import MAX_NAME_LENGTH, RunStatus, RunSummary, delete_run, find_run, rename_run
from cifar_tl.settings import CHOICE_LABELS
from cifar_tl.ui.cached import follower, summaries
from cifar_tl.ui.resume import resume_controls
from cifar_tl.ui.widgets import (
    NONE_YET,
    PERCENT_FORMAT,
    RUN_PARAMETER,
    format_duration,
    page_boundary,
    percent,
    plain,
    show_error,
    status_badge,
    status_word,
)

PAGES = "cifar_tl/ui/pages"
REFRESH_SECONDS = 2.5
UNREADABLE = "Unreadable"
_CHOSEN = "runs.chosen"  # session key: the id of the chosen run
_DIALOG = "runs.dialog"  # session key: "rename" or "delete" while that dialog is open, so that a rerun of the page keeps it open
_MOST_ROWS_SHOWN = 14
_TABLE_HEIGHT = 480
_STATUS_COLOURS = {
    "Queued": "violet",
    "Running": "blue",
    "Completed": "green",
    "Stopped": "gray",
    "Failed": "red",
    "Lost": "orange",
    UNREADABLE: "red",
}


def page() -> None:
    st.title("Runs")
    runs = summaries()
    if not runs:
        _no_runs()
        return
    is_any_running = any(run.status.is_active for run in runs)
    # Only the table refreshes itself, so an open dialog stays; it asks for the whole page when a run has ended.
    st.fragment(_table, run_every=REFRESH_SECONDS if is_any_running else None)(is_any_running)
    chosen = next((run for run in runs if run.run_id == st.session_state.get(_CHOSEN)), None)
    if chosen is None:
        st.caption("Choose a run to open, explore, rename or delete it.")
    else:
        _show_chosen(chosen)


def _no_runs() -> None:
    with st.container(border=True):
        st.markdown("**No runs yet**")
        st.markdown("Every training run is listed here, with its settings and how far it came.")
        if st.button("Train a model", icon=":material/model_training:", type="primary"):
            st.switch_page(f"{PAGES}/train.py")


@page_boundary()  # a fragment's rerun does not pass through the page's own
def _table(was_any_running: bool) -> None:
    runs = summaries()
    ids = [run.run_id for run in runs]
    chosen = st.session_state.get(_CHOSEN)
    # Rows move when a run comes or goes: a table of its own for each list, which starts with the chosen run.
    state = st.dataframe(
        _rows(runs),
        key=f"runs.table.{hash(tuple(ids))}",
        hide_index=True,
        height="content" if len(runs) <= _MOST_ROWS_SHOWN else _TABLE_HEIGHT,
        placeholder=NONE_YET,
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [ids.index(chosen)]}} if chosen in ids else None,
        column_config=_columns(),
        alt="All runs, newest first",
    )
    rows = state.selection.rows
    now_chosen = ids[rows[0]] if rows and rows[0] < len(ids) else None
    is_any_running = any(run.status.is_active for run in runs)
    if now_chosen != chosen or was_any_running != is_any_running:
        st.session_state[_CHOSEN] = now_chosen
        st.rerun()


def _rows(runs: list[RunSummary]) -> dict[str, list[Any]]:
    configs = [run.config for run in runs]
    return {
        "Run": [run.label for run in runs],
        "Status": [[UNREADABLE if run.problem else status_word(run.status)] for run in runs],
        "Data": [run.data_title for run in runs],
        "Backbone": [config.backbone if config else "" for config in configs],
        "What trains": [CHOICE_LABELS[config.trainable] if config else "" for config in configs],
        "Best dev": [percent(run.best_dev_accuracy) for run in runs],
        "Test": [percent(run.test_accuracy) for run in runs],
        "Duration": [format_duration(run.seconds) for run in runs],
        "Started": [datetime.fromtimestamp(run.created) for run in runs],
    }


def _columns() -> dict[str, Any]:
    """Widths in pixels: together a page of 1,366, where names, ids and times are not cut off."""
    config = st.column_config
    return {
        "Run": config.TextColumn(width=290),
        "Status": config.MultiselectColumn(width=100, options=list(_STATUS_COLOURS), color=list(_STATUS_COLOURS.values())),
        "Data": config.TextColumn(width=95),
        "Backbone": config.TextColumn(width=130),
        "What trains": config.TextColumn(width=185),
        "Best dev": config.NumberColumn(width=75, format=PERCENT_FORMAT, help="Highest accuracy on the dev images so far."),
        "Test": config.NumberColumn(width=66, format=PERCENT_FORMAT, help="Accuracy on the test images, measured once at the end."),
        "Duration": config.TextColumn(width=92),
        "Started": config.DatetimeColumn(width=140, format="D MMM YYYY, HH:mm"),
    }


def _show_chosen(run: RunSummary) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(run.label)}**", width="content")
            if not run.problem:
                status_badge(run.status)
        if run.problem:
            st.error(plain(run.problem), icon=":material/error:")
        elif run.message:
            st.caption(plain(run.message))
        _actions(run)


def _actions(run: RunSummary) -> None:
    is_broken, is_running = bool(run.problem), run.status.is_active
    parameters = {RUN_PARAMETER: run.run_id}
    with st.container(horizontal=True):
        if st.button("Open", icon=":material/monitoring:", type="primary", disabled=is_broken):
            st.switch_page(f"{PAGES}/train.py", query_params=parameters)
        if st.button("Explore", icon=":material/query_stats:", disabled=is_broken):
            st.switch_page(f"{PAGES}/explore.py", query_params=parameters)
        has_weights = find_run(run.run_id).best_weights.is_file()
        why_not = None if has_weights else "This run has no weights to predict with: its first epoch is not done."
        if st.button("Predict", icon=":material/image_search:", disabled=is_broken or not has_weights, help=why_not):
            st.switch_page(f"{PAGES}/predict.py", query_params=parameters)
        if run.config is not None and not is_broken:
            following = follower(run.run_id)
            resume_controls(following.folder, run.config, following.update(), following.history)
        if run.status is RunStatus.QUEUED and st.button("Move to front", icon=":material/vertical_align_top:", help="Start it next."):
            move_to_front(run.run_id)
            st.rerun()
        st.button("Rename", icon=":material/edit:", on_click=_open_dialog, args=("rename",))
        why_not = "A running run cannot be deleted. Open it and stop it first." if is_running else None
        st.button("Delete", icon=":material/delete:", disabled=is_running, help=why_not, on_click=_open_dialog, args=("delete",))
    if st.session_state.get(_DIALOG) == "rename":
        _rename(run)
    elif st.session_state.get(_DIALOG) == "delete":
        _delete(run)


def _open_dialog(which: str) -> None:
    st.session_state[_DIALOG] = which


def _close_dialog() -> None:
    st.session_state.pop(_DIALOG, None)


@st.dialog("Rename run", on_dismiss=_close_dialog)
@page_boundary()
def _rename(run: RunSummary) -> None:
    name = st.text_input(
        "Name",
        run.name,
        max_chars=MAX_NAME_LENGTH,
        placeholder=run.run_id,
        help="Left empty, the run shows the name it was started with, or its id.",
    )
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Cancel"):
            _close_dialog()
            st.rerun()
        if st.button("Rename", type="primary", key="runs.rename"):
            _act_and_close(rename_run, run.run_id, name)


@st.dialog("Delete run", on_dismiss=_close_dialog)
@page_boundary()
def _delete(run: RunSummary) -> None:
    st.markdown(f"Delete **{plain(run.label)}** with its weights, curves and evaluation? This cannot be undone.")
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Keep"):
            _close_dialog()
            st.rerun()
        if st.button("Delete for good", type="primary", icon=":material/delete:", key="runs.delete"):
            _act_and_close(delete_run, run.run_id)


def _act_and_close(action: Any, *arguments: str) -> None:
    """Do it and close the dialog; what is refused stays in the open dialog."""
    try:
        action(*arguments)
    except CifarTLError as error:
        show_error(error)
        return
    _close_dialog()
    st.rerun()


if __name__ == "__main__":
    with page_boundary():
        page()
