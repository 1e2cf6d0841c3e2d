"""Images: every image of a split, filtered and sorted. The filter is in the address (?true=otter&pred=seal&outcome=Wrong&sort=...)."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

import streamlit as st

from cifar_tl.evaluation.selection import Filter, Order, Outcome, select
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.explore.audited import doubted_labels
from cifar_tl.ui.explore.parts import PREDICTED_PARAMETER, TRUE_PARAMETER
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.widgets import page_boundary

_OUTCOME_PARAMETER, _SORT_PARAMETER, _LABELS_PARAMETER, _CONFIDENCE_PARAMETER = "outcome", "sort", "labels", "confidence"  # of the address
_ANY = "Any class"
Choice = TypeVar("Choice", bound=StrEnum)


class _Labels(StrEnum):
    ALL = "All"
    DOUBTED = "Doubted"


@st.fragment
@page_boundary()  # a fragment's rerun does not pass through the page's own
def show_images(explored: Explored) -> None:
    doubted_N = doubted_labels(explored)
    wanted, order, is_doubted = _controls(explored, can_be_doubted=doubted_N is not None)
    positions = select(explored.evaluation, wanted, order, doubted_N if is_doubted else None)
    st.caption(f"{len(positions):,} of {len(explored.evaluation):,} images")
    selection = f"images.{wanted}.{order}.{is_doubted}"
    show_gallery(explored, positions, selection=selection, key="images", is_wide=True)


def _controls(explored: Explored, *, can_be_doubted: bool) -> tuple[Filter, Order, bool]:
    """What passes, in which order, and whether only images whose label is doubted."""
    names = explored.class_names
    with st.container(horizontal=True, gap="small"):
        true = _class_choice("True class", TRUE_PARAMETER, names)
        predicted = _class_choice("Predicted class", PREDICTED_PARAMETER, names)
        outcome = Outcome(
            st.segmented_control(
                "Outcome", list(Outcome), default=_asked(Outcome, _OUTCOME_PARAMETER), required=True, key="images.outcome",
                on_change=_write_address, args=("images.outcome", _OUTCOME_PARAMETER),
            )
        )  # fmt: skip
        lowest, highest = st.slider(
            "Confidence, %", 0, 100, _asked_range(), key="images.confidence", width=160, on_change=_write_range, args=("images.confidence",)
        )
        orders = list(Order)
        order = Order(
            st.selectbox(
                "Sort by", orders, index=orders.index(_asked(Order, _SORT_PARAMETER)), key="images.sort", width=180,
                on_change=_write_address, args=("images.sort", _SORT_PARAMETER),
            )
        )  # fmt: skip
        labels = _Labels.ALL
        if can_be_doubted:
            labels = _Labels(
                st.segmented_control(
                    "Labels", list(_Labels), default=_asked(_Labels, _LABELS_PARAMETER), required=True, key="images.labels",
                    help="Doubted are the labels that Suspicious data lists as probably wrong.",
                    on_change=_write_address, args=("images.labels", _LABELS_PARAMETER),
                )
            )  # fmt: skip
    return Filter(true, predicted, outcome, lowest / 100, highest / 100), order, labels is _Labels.DOUBTED


def _class_choice(label: str, parameter: str, names: Sequence[str]) -> int | None:
    """The index of the chosen class; None for any. The address leads when the view opens, the box writes it."""
    key, asked = f"images.{parameter}", st.query_params.get(parameter)
    if asked in names and st.session_state.get(key) != asked:
        st.session_state[key] = asked
    chosen = st.selectbox(
        label, sorted(names), index=None, placeholder=_ANY, key=key, width=170, on_change=_write_address, args=(key, parameter)
    )
    return names.index(chosen) if chosen in names else None


def _asked(kind: type[Choice], parameter: str) -> Choice:
    """What the address asks for; the first of the kind for what is no such thing."""
    asked = st.query_params.get(parameter)
    return next((choice for choice in kind if choice == asked), next(iter(kind)))


def _asked_range() -> tuple[int, int]:
    """Of confidence, in percent, as in ?confidence=20-80; all of it for what is no such thing."""
    low, _, high = st.query_params.get(_CONFIDENCE_PARAMETER, "").partition("-")
    lowest, highest = (int(bound) if bound.isdecimal() else -1 for bound in (low, high))
    return (lowest, highest) if 0 <= lowest <= highest <= 100 else (0, 100)


def _write_range(key: str) -> None:
    lowest, highest = st.session_state[key]
    st.query_params[_CONFIDENCE_PARAMETER] = f"{lowest}-{highest}"


def _write_address(key: str, parameter: str) -> None:
    chosen = st.session_state[key]
    if chosen is None:
        st.query_params.pop(parameter, None)
    else:
        st.query_params[parameter] = str(chosen)
