"""The way back from reviewed data to a better model: what was corrected so far, and a run with the same settings on the corrected data.

Its comparison with the run that one came from opens at once, and fills in when the new run is done.
"""

import streamlit as st

from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.corrections import Corrections
from cifar_tl.runs import launcher
from cifar_tl.runs.annotations import read_annotations
from cifar_tl.runs.store import find_run, read_config
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.compare_views import RUNS_PARAMETER
from cifar_tl.ui.widgets import plain

COMPARE_PAGE = "cifar_tl/ui/pages/compare.py"
_STARTED = "suspicious.started"  # session key: runs that were started here, by run and version of the corrections
_MOST_OF_THE_NAME = 80


def show_train_again(explored: Explored, corrections: Corrections) -> None:
    """What the decisions come to, and the button that trains on them."""
    relabelled, dropped = len(corrections.relabelled), len(corrections.dropped)
    kept = len({row for row, _ in corrections.latest} - set(corrections.in_force))
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"**{relabelled + dropped + kept:,} decided:** {relabelled:,} relabelled, {dropped:,} dropped, {kept:,} kept"
            + (f"  \n:small[Version {corrections.version} of the corrections]" if corrections.version else ""),
            width="stretch",
        )
        _train_button(explored, corrections)
    if explored.manifest.corrections:
        st.caption(f"This run was trained on version {plain(explored.manifest.corrections)} of the corrections.")


def _train_button(explored: Explored, corrections: Corrections) -> None:
    started: dict[tuple[str, str], str] = st.session_state.setdefault(_STARTED, {})
    this = (explored.run_id, corrections.version)
    is_new = this not in started
    pressed = st.button(
        "Train again on the corrected data" if is_new else "Compare with the run on the corrected data",
        type="primary",
        icon=":material/model_training:" if is_new else ":material/compare_arrows:",
        disabled=not corrections.version,
        help="The same settings on the corrected training images. Test stays as it is, so the two runs can be compared."
        if corrections.version
        else "Relabel or drop an image first.",
        key="suspicious.train",
    )
    if not pressed:
        return
    if is_new:  # the echo of a double click finds the run of the first one
        started[this] = launcher.start_run(corrected_config(explored.run_id))
    st.switch_page(COMPARE_PAGE, query_params={RUNS_PARAMETER: f"{explored.run_id},{started[this]}"})


def corrected_config(run_id: str) -> RunConfig:
    """The run's settings, on corrected data. Raises RunNotFound, RunInvalid."""
    folder = find_run(run_id)
    config = read_config(folder)
    name = read_annotations(folder).name or config.name
    return make_config(
        **config.model_dump() | {"corrected": True, "name": f"{name[:_MOST_OF_THE_NAME]} · corrected" if name else "Corrected"}
    )
