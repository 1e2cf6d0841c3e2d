"""The Sweep page: without ?sweep= the form of a new sweep and the list of all, with ?sweep=ID that sweep, live."""

import streamlit as st

from cifar_tl.errors import RunError
from cifar_tl.sweeps.store import find_sweep, read_sweep, status_of, sweep_ids
from cifar_tl.ui.sweep_form import SWEEP_PARAMETER, show_sweep_form
from cifar_tl.ui.sweep_view import show_sweep, sweep_badge, varies_in_words
from cifar_tl.ui.widgets import page_boundary, plain, show_error

_MOST_LISTED = 20


def page() -> None:
    sweep_id = st.query_params.get(SWEEP_PARAMETER)
    if not sweep_id:
        st.title("Sweep", anchor=False)
        st.caption("Many runs with different settings, chosen by how the ones before did, to find those that serve your data best.")
        show_sweep_form()
        _list()
        return
    try:
        show_sweep(sweep_id)
    except RunError as error:
        show_error(error)
        if st.button("All sweeps", icon=":material/arrow_back:"):
            st.query_params.clear()
            st.rerun()


def _list() -> None:
    for sweep_id in sweep_ids()[:_MOST_LISTED]:
        with st.container(horizontal=True, vertical_alignment="center", border=True):
            folder = find_sweep(sweep_id)
            try:
                sweep = read_sweep(folder)
            except RunError as error:
                st.markdown(plain(str(error)), width="stretch")
                continue
            st.markdown(f"{plain(sweep.name)}  \n:small[{varies_in_words(sweep)}]", width="stretch")
            sweep_badge(status_of(folder)[0])
            if st.button("Open", key=f"sweep.open.{sweep_id}"):
                st.query_params[SWEEP_PARAMETER] = sweep_id
                st.rerun()


if __name__ == "__main__":
    with page_boundary():
        page()
