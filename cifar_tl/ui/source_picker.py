"""The data set of the form: which one, where a folder lies, and in one sentence what is known of it."""

from collections.abc import Callable

import streamlit as st

from cifar_tl.data.store import StoreInfo
from cifar_tl.ui import form_values, state
from cifar_tl.ui.widgets import plain

MAX_LISTED_CLASSES = 6


def source_picker(*, on_change: Callable[[], None]) -> None:
    """Draw it; the choice lies in session state (`form_values.chosen_source`)."""
    kind = st.selectbox(
        "Data set",
        list(form_values.SOURCE_LABELS),
        format_func=lambda option: form_values.SOURCE_LABELS[option],
        key=state.SOURCE_KIND,
        on_change=on_change,
        persist_state="session",
    )
    if kind == form_values.FOLDER:
        st.text_input(
            "Folder",
            key=state.SOURCE_FOLDER,
            placeholder="/path/to/pictures",
            on_change=on_change,
            persist_state="session",
            help="A folder on the machine that runs this dashboard, with one folder of pictures per class. Folders named train, val and "
            "test at its top are taken as splits.",
        )
    source = form_values.chosen_source()
    if source:
        _status(source)


def _status(source: str) -> None:
    status = form_values.source_status(source)
    if status.state != "invalid":  # an invalid one is among the problems by the Start button
        st.caption(plain(status.message))
    names = status.info.class_names if status.info else ()
    if names:
        more = f" and {len(names) - MAX_LISTED_CLASSES} more" if len(names) > MAX_LISTED_CLASSES else ""
        st.caption(f"Classes: {', '.join(plain(name) for name in names[:MAX_LISTED_CLASSES])}{more}.")
    if status.info:
        _left_out(status.info)
    if source == form_values.FALLBACK and not form_values.is_at_hand(form_values.FIRST_CHOICE):
        st.caption(
            f"The form starts with this one because {form_values.SOURCE_LABELS[form_values.FIRST_CHOICE]} is not here: "
            f"{plain(form_values.source_status(form_values.FIRST_CHOICE).message)}"
        )


def _left_out(info: StoreInfo) -> None:
    """What the source had beside the images that were taken: files by name and reason, and what else was noted."""
    for note in info.notes:
        st.caption(plain(note))
    if info.unreadable:
        with st.popover(f"{len(info.unreadable):,} files could not be read", icon=":material/broken_image:"):
            st.dataframe(
                {"File": [item.path for item in info.unreadable], "Reason": [item.reason for item in info.unreadable]}, hide_index=True
            )


def known_class_names() -> tuple[str, ...]:
    """Of the chosen data set, if it is prepared already; else empty."""
    source = form_values.chosen_source()
    info = form_values.source_status(source).info if source else None
    return info.class_names if info else ()
