"""Where a new run is to train: on this machine, or on a Ray cluster whose address a person gives."""

import streamlit as st

from cifar_tl.runs.launcher import HERE
from cifar_tl.ui import state

_THIS_MACHINE, _CLUSTER = "This machine", "Ray cluster"


def place_picker() -> None:
    st.segmented_control(
        "Where",
        [_THIS_MACHINE, _CLUSTER],
        default=_THIS_MACHINE,
        required=True,
        key=state.WHERE,
        persist_state="session",
        width="stretch",
        help="On a cluster Ray finds a place for the run, and queues it while there is none. See docs/machines.md.",
    )
    if _is_on_cluster():
        st.text_input(
            "Address of the cluster",
            key=state.CLUSTER_ADDRESS,
            placeholder="http://HOST:8265",
            persist_state="session",
            help="Of Ray's dashboard. The cluster's machines must see this program and the run folders under the same paths.",
        )


def chosen_place() -> str:
    """`HERE`, or the address as it was typed."""
    return str(st.session_state.get(state.CLUSTER_ADDRESS) or "").strip() if _is_on_cluster() else HERE


def _is_on_cluster() -> bool:
    return st.session_state.get(state.WHERE) == _CLUSTER
