"""The Train page: without ?run= the form of a new run, with ?run=ID that run, live."""

import streamlit as st

from cifar_tl.errors import RunError
from cifar_tl.ui import state
from cifar_tl.ui.live_view import show_live_view
from cifar_tl.ui.train_form import show_form
from cifar_tl.ui.widgets import RUN_PARAMETER, page_boundary, show_error


def page() -> None:
    run_id = st.query_params.get(RUN_PARAMETER)
    if not run_id:
        show_form()
        return
    try:
        show_live_view(run_id)
    except RunError as error:
        show_error(error)
        if st.button("To the form", icon=":material/arrow_back:"):
            state.open_new_form()
            st.query_params.clear()
            st.rerun()


if __name__ == "__main__":
    with page_boundary():
        page()
