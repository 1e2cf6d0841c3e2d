"""The Runs page: every run with how it went; choose one to open, explore, predict with, annotate or delete, or several to compare."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from cifar_tl.errors import CifarTLError
from cifar_tl.paths import RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.annotations import annotate
from cifar_tl.runs.launcher import request_stop
from cifar_tl.runs.queue import move_to_front
from cifar_tl.runs.store import RunStatus, find_run
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui import form_values, state
from cifar_tl.ui.cached import follower, summaries
from cifar_tl.ui.compare_views import MOST_RUNS, RUNS_PARAMETER
from cifar_tl.ui.progress import progress_of
from cifar_tl.ui.resume import resume_controls
from cifar_tl.ui.run_dialogs import IMPORTED, export_button, open_dialog, show_dialog, show_import, show_trash
from cifar_tl.ui.runs_table import filtered, runs_table
from cifar_tl.ui.widgets import RUN_PARAMETER, page_boundary, plain, show_error, status_badge

PAGES = "cifar_tl/ui/pages"
REFRESH_SECONDS = 2.5
_CHOSEN = "runs.chosen"  # session key: ids of the chosen runs


def page() -> None:
    st.title("Runs")
    runs = summaries()
    if not runs:
        _no_runs()
        _aside()
        return
    is_any_active = any(run.status.is_active for run in runs)
    # Only the table refreshes itself, so an open dialog stays; it asks for the whole page when that would show something else.
    st.fragment(_table, run_every=REFRESH_SECONDS if is_any_active else None)(_shown_below(runs))
    chosen = [run for run in runs if run.run_id in st.session_state.get(_CHOSEN, [])]
    if len(chosen) == 1:
        _show_chosen(chosen[0], sorted({tag for run in runs for tag in run.annotations.tags}))
    elif chosen:
        _compare(chosen)
    else:
        st.caption("Choose a run to open, explore, annotate or delete it, or several to compare them.")
    _aside()


def _aside() -> None:
    """What comes in and what went out."""
    with st.container(horizontal=True, vertical_alignment="center"):
        show_import()
        show_trash()
        if imported := st.session_state.pop(IMPORTED, None):
            st.caption(f"Imported: {plain(imported)}")


def _no_runs() -> None:
    with st.container(border=True):
        st.markdown("**No runs yet**")
        st.markdown("Every training run is listed here, with its settings and how far it came.")
        if st.button("Train a model", icon=":material/model_training:", type="primary"):
            st.switch_page(f"{PAGES}/train.py")


@page_boundary()  # a fragment's rerun does not pass through the page's own
def _table(was_shown_below: list[str]) -> None:
    runs = summaries()
    shown = filtered(runs)
    chosen = st.session_state.get(_CHOSEN, [])
    now_chosen = runs_table(shown, chosen)
    if not shown:
        st.caption("No run is like that.")
    if now_chosen != chosen or _shown_below(runs) != was_shown_below:
        st.session_state[_CHOSEN] = now_chosen
        st.rerun()


def _shown_below(runs: list[RunSummary]) -> list[str]:
    """What the page below the table says of runs that change by themselves."""
    chosen = st.session_state.get(_CHOSEN, [])
    return ["active" if any(run.status.is_active for run in runs) else "", *(_state(run) for run in runs if run.run_id in chosen)]


def _state(run: RunSummary) -> str:
    """Its status, and of a run that waits how many come before it."""
    is_queued = run.status is RunStatus.QUEUED
    return f"{run.status} {progress_of(follower(run.run_id).history).text if is_queued else ''}"


def _compare(chosen: list[RunSummary]) -> None:
    too_many = len(chosen) > MOST_RUNS
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(chosen)} runs**", width="content")
        why_not = f"At most {MOST_RUNS} runs can be compared." if too_many else None
        if st.button("Compare", icon=":material/compare_arrows:", type="primary", disabled=too_many, help=why_not):
            st.switch_page(f"{PAGES}/compare.py", query_params={RUNS_PARAMETER: ",".join(run.run_id for run in chosen)})


def _show_chosen(run: RunSummary, known_tags: list[str]) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(run.label)}**", width="content")
            if not run.problem:
                status_badge(run.status)
            for tag in run.annotations.tags:
                st.badge(plain(tag), color="gray")
        if run.problem:
            st.error(plain(run.problem), icon=":material/error:")
        elif run.message:
            st.caption(plain(run.message))
        elif run.status is RunStatus.QUEUED:
            st.caption(plain(progress_of(follower(run.run_id).history).text))
        if run.annotations.note:
            st.markdown(plain(run.annotations.note).replace("\n", "  \n"))
        _open_actions(run)
        _keep_actions(run)
    show_dialog(run, known_tags)


def _open_actions(run: RunSummary) -> None:
    """Where to go with it, and how it goes on."""
    is_broken, parameters = bool(run.problem), {RUN_PARAMETER: run.run_id}
    with st.container(horizontal=True):
        if st.button("Open", icon=":material/monitoring:", type="primary", disabled=is_broken):
            st.switch_page(f"{PAGES}/train.py", query_params=parameters)
        if st.button("Explore", icon=":material/query_stats:", disabled=is_broken):
            st.switch_page(f"{PAGES}/explore.py", query_params=parameters)
        has_weights = find_run(run.run_id).best_weights.is_file()
        why_not = None if has_weights else "This run has no weights to predict with: its first epoch is not done."
        if st.button("Predict", icon=":material/image_search:", disabled=is_broken or not has_weights, help=why_not):
            st.switch_page(f"{PAGES}/predict.py", query_params=parameters)
        is_in_our_queue = run.status is RunStatus.QUEUED and launcher.where(find_run(run.run_id)) == launcher.HERE
        to_front = is_in_our_queue and st.button("Move to front", icon=":material/vertical_align_top:", help="Start it next.")
        to_stop = run.status.is_active and _stop_button(find_run(run.run_id), is_queued=run.status is RunStatus.QUEUED)
        if run.config is not None and not is_broken:
            following = follower(run.run_id)
            resume_controls(following.folder, run.config, following.update(), following.history)
    if to_front:
        _act(move_to_front, run.run_id)
    if to_stop:
        _act(request_stop, run.run_id)


def _stop_button(folder: RunFolder, *, is_queued: bool) -> bool:
    is_stopping = folder.stop_request.exists()
    label = ("Cancelling…" if is_queued else "Stopping…") if is_stopping else "Cancel" if is_queued else "Stop"
    return st.button(label, icon=":material/stop_circle:", disabled=is_stopping, key=f"runs.stop.{folder.run_id}")


def _keep_actions(run: RunSummary) -> None:
    """What becomes of it in the list."""
    now, is_active = run.annotations, run.status.is_active
    with st.container(horizontal=True):
        to_star = st.button("Unstar" if now.is_starred else "Star", icon=":material/star:", help="Starred runs come first.")
        st.button("Annotate", icon=":material/edit:", help="Name, tags and note.", on_click=open_dialog, args=("annotate",))
        if run.config is not None and st.button(
            "Clone settings", icon=":material/content_copy:", help="Fill the form with this run's settings."
        ):
            form_values.fill_from(run.config)
            state.open_new_form()
            st.switch_page(f"{PAGES}/train.py")
        to_archive = st.button(
            "Back to the list" if now.is_archived else "Archive", icon=":material/archive:", help="Archived runs are not listed."
        )
        export_button(run)
        why_not = "A running run cannot be deleted: stop it first." if is_active else None
        st.button("Delete", icon=":material/delete:", disabled=is_active, help=why_not, on_click=open_dialog, args=("delete",))
    if to_star:
        _act(annotate, run.run_id, is_starred=not now.is_starred)
    if to_archive:
        _act(annotate, run.run_id, is_archived=not now.is_archived)


def _act(action: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Do it and draw the page anew; what is refused is told under the buttons."""
    try:
        action(*arguments, **named)
    except CifarTLError as error:
        show_error(error)
        return
    st.rerun()


if __name__ == "__main__":
    with page_boundary():
        page()
