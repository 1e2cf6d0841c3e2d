"""What a person says about a run, and whether it stays: the dialogs Annotate and Delete, and the trash. Shown by the Runs page."""

import io
from collections.abc import Callable
from typing import Any

import streamlit as st

from cifar_tl.errors import CifarTLError
from cifar_tl.runs.annotations import MAX_NAME_LENGTH, MAX_NOTE_LENGTH, MAX_TAGS, annotate
from cifar_tl.runs.pack import pack_run, unpack_run
from cifar_tl.runs.summary import RunSummary
from cifar_tl.runs.trash import delete_run, deleted_runs, empty_trash, restore_run
from cifar_tl.ui.widgets import page_boundary, plain, show_error

_DIALOG = "runs.dialog"  # session key: "annotate" or "delete" while that dialog is open, so that a rerun of the page keeps it open
IMPORTED = "runs.imported"  # session key: the id of the run that was imported last
_IMPORTS = "runs.imports"  # session key: how many have been
MOST_BYTES_TO_DOWNLOAD = 500 * 10**6
_MOST_LISTED = 20


def open_dialog(which: str) -> None:
    st.session_state[_DIALOG] = which


def _close_dialog() -> None:
    st.session_state.pop(_DIALOG, None)


def show_dialog(run: RunSummary, known_tags: list[str]) -> None:
    """The one that is open, if any."""
    which = st.session_state.get(_DIALOG)
    if which == "annotate":
        _annotate(run, known_tags)
    elif which == "delete":
        _delete(run)


@st.dialog("Name, tags and note", on_dismiss=_close_dialog)
@page_boundary()
def _annotate(run: RunSummary, known_tags: list[str]) -> None:
    now = run.annotations
    name = st.text_input(
        "Name",
        run.name,
        max_chars=MAX_NAME_LENGTH,
        placeholder=run.run_id,
        help="Left empty, the run shows the name it was started with, or its id.",
    )
    tags = st.multiselect(
        "Tags",
        sorted({*known_tags, *now.tags}),
        list(now.tags),
        accept_new_options=True,
        max_selections=MAX_TAGS,
        placeholder="Choose, or type a new one and press Enter",
    )
    note = st.text_area("Note", now.note, max_chars=MAX_NOTE_LENGTH, placeholder="What was tried, and what came of it")
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Cancel"):
            _close_dialog()
            st.rerun()
        if st.button("Save", type="primary", key="runs.annotate"):
            _act_and_close(annotate, run.run_id, name=name, tags=tags, note=note)


@st.dialog("Delete run", on_dismiss=_close_dialog)
@page_boundary()
def _delete(run: RunSummary) -> None:
    st.markdown(
        f"Delete **{plain(run.label)}** with its weights, curves and evaluation? It goes to the trash, from where it can be taken back."
    )
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Keep"):
            _close_dialog()
            st.rerun()
        if st.button("Move to trash", type="primary", icon=":material/delete:", key="runs.delete"):
            _act_and_close(delete_run, run.run_id)


def export_button(run: RunSummary) -> None:
    """The run as one file, packed when it is asked for."""
    is_large, is_active = run.size_bytes > MOST_BYTES_TO_DOWNLOAD, run.status.is_active
    why_not = (
        "A running run cannot be exported."
        if is_active
        else f"Larger than {MOST_BYTES_TO_DOWNLOAD // 10**6} MB: use python -m cifar_tl pack {run.run_id}"
        if is_large
        else "All of it in one .zip file, to be opened on another machine."
    )
    st.download_button(
        "Export",
        lambda: _packed(run.run_id),
        f"{run.run_id}.zip",
        "application/zip",
        icon=":material/download:",
        on_click="ignore",
        disabled=is_large or is_active,
        help=why_not,
    )


def _packed(run_id: str) -> bytes:
    buffer = io.BytesIO()
    pack_run(run_id, buffer)
    return buffer.getvalue()


def show_import() -> None:
    """Take in a run that was exported elsewhere."""
    with st.popover("Import", icon=":material/upload:"):
        st.caption(f"Up to {st.get_option('server.maxUploadSize')} MB; a larger one with python -m cifar_tl unpack FILE.")
        file = st.file_uploader("A run's .zip file", type="zip", key=f"runs.import.{st.session_state.get(_IMPORTS, 0)}")
        if file is None:
            return
        try:
            run_id = unpack_run(file)
        except (CifarTLError, OSError) as error:
            st.error(plain(str(error)), icon=":material/error:")
            return
    st.session_state[_IMPORTS] = st.session_state.get(_IMPORTS, 0) + 1  # an empty uploader for the next one
    st.session_state[IMPORTED] = run_id
    st.rerun()


def show_trash() -> None:
    """Deleted runs, to be taken back or removed for good; nothing where there are none."""
    deleted = deleted_runs()
    if not deleted:
        return
    with st.popover(f"Trash ({len(deleted)})", icon=":material/delete:"):
        for run_id in deleted[:_MOST_LISTED]:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(plain(run_id), width="stretch")
                if st.button("Restore", key=f"runs.restore.{run_id}", icon=":material/undo:"):
                    _act_and_close(restore_run, run_id)
        if len(deleted) > _MOST_LISTED:
            st.caption(f"And {len(deleted) - _MOST_LISTED} more, deleted before these.")
        if st.button("Empty the trash for good", icon=":material/delete_forever:", key="runs.empty_trash"):
            _act_and_close(empty_trash)


def _act_and_close(action: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Do it and close the dialog; what is refused stays in the open dialog."""
    try:
        action(*arguments, **named)
    except CifarTLError as error:
        show_error(error)
        return
    _close_dialog()
    st.rerun()
