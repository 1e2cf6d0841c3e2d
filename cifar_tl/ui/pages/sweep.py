"""The Sweep page: without ?sweep= the form of a new sweep and the list of all, with ?sweep=ID that sweep, live."""

from datetime import datetime

import streamlit as st

from cifar_tl.errors import RunError
from cifar_tl.paths import SweepFolder
from cifar_tl.sweeps.store import Sweep, find_sweep, read_sweep, status_of, sweep_ids
from cifar_tl.ui import cached
from cifar_tl.ui.sweep_form import SWEEP_PARAMETER, show_sweep_form
from cifar_tl.ui.sweep_overview import overview
from cifar_tl.ui.sweep_view import show_sweep, sweep_badge, varies_in_words
from cifar_tl.ui.widgets import format_percent, page_boundary, plain, show_error

_MOST_LISTED = 20
_ROW = (9, 1, 0.8)  # what it is, how it stands, its button


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
        with st.container(border=True):
            # Columns, since a row would send the button below a long text.
            words, status, button = st.columns(_ROW, vertical_alignment="center")
            folder = find_sweep(sweep_id)
            try:
                sweep = read_sweep(folder)
            except RunError as error:
                words.markdown(plain(str(error)))
                continue
            words.markdown(f"{plain(sweep.name)}  \n:small[{varies_in_words(sweep)}]  \n:small[{plain(_how_far(folder, sweep))}]")
            with status:
                sweep_badge(status_of(folder)[0])
            if button.button("Open", key=f"sweep.open.{sweep_id}", width="stretch"):
                st.query_params[SWEEP_PARAMETER] = sweep_id
                st.rerun()


def _how_far(folder: SweepFolder, sweep: Sweep) -> str:
    """Such as: 8 of 8 trials · best 63.2 % · 27 Nov, 03:13. Sweeps of the same settings are told apart by it."""
    known = overview(folder, sweep)
    trials = f"{known.ended} of {sweep.trials} trials" if known else f"{sweep.trials} trials"
    best = f"best {format_percent(known.best)}" if known and known.best is not None else ""
    return " · ".join(part for part in (trials, best, _when(folder)) if part)


def _when(folder: SweepFolder) -> str:
    """It was started. Its declaration is written then and never again."""
    then, now = datetime.fromtimestamp(cached.file_stamp(folder.declaration)[0] / 1e9), datetime.now()
    return f"{then.day} {then:%b}{f' {then.year}' if then.year != now.year else ''}, {then:%H:%M}"


if __name__ == "__main__":
    with page_boundary():
        page()
