"""Having prepared what Explore shows of a run beyond test and dev: the button that starts it, and waiting for it."""

import streamlit as st

from cifar_tl.runs import launcher
from cifar_tl.runs.hold import is_being_described
from cifar_tl.runs.store import find_run
from cifar_tl.ui.cached import file_stamp
from cifar_tl.ui.widgets import page_boundary, plain
from cifar_tl.ui.worker_log import last_lines

_POLL_SECONDS = 2.0
_ASKED = "map.asked"  # session key: the run whose map was asked for here


def ask_for_map(run_id: str, label: str) -> None:
    """The button that starts a process for it, and the command that does the same."""
    folder = find_run(run_id)
    if st.session_state.get(_ASKED) == run_id and (problem := _last_error(last_lines(folder.worker_log, 1))):
        st.warning(f"It could not be prepared: {plain(problem)}", icon=":material/warning:")
    why_not = launcher.why_not_describe(folder)
    if st.button(label, icon=":material/scatter_plot:", key="map.ask", disabled=bool(why_not), help=plain(why_not) or None):
        launcher.start_description(run_id)
        st.session_state[_ASKED] = run_id
        st.rerun()
    st.caption("Or from the command line:")
    st.code(f"python -m cifar_tl describe {run_id}", language="shell")


def _last_error(line: str) -> str:
    """What the command said last, if that was an error."""
    return line.removeprefix("error: ") if line.startswith("error: ") else ""


def wait_for_map(run_id: str) -> None:
    """From now on the page looks whether there is another map, or whether none is coming any more."""
    folder = find_run(run_id)
    st.fragment(_look_again, run_every=_POLL_SECONDS)(run_id, file_stamp(folder.embedding_map))


@page_boundary()
def _look_again(run_id: str, stamp: tuple[int, int]) -> None:
    folder = find_run(run_id)
    if file_stamp(folder.embedding_map) != stamp or not is_being_described(folder):
        st.rerun()
