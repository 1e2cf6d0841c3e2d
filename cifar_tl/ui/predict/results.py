"""What came of the pictures: how many, in which order, how sure, as cards, a page of them at a time, and as a file."""

from collections.abc import Sequence

import streamlit as st

from cifar_tl.ui.explore.parts import as_csv
from cifar_tl.ui.predict import batch as pictures
from cifar_tl.ui.predict.cards import CARDS_A_PAGE, show_cards
from cifar_tl.ui.predict.closer import show_closer
from cifar_tl.ui.predict.verdicts import Limits, Order, answered, failures, ordered, table
from cifar_tl.ui.state import Predictions
from cifar_tl.ui.widgets import plain

_MOST_NAMES = 5


def show_results(batch: Predictions, run_labels: dict[str, str]) -> None:
    """`run_labels`: the runs that were asked, one or two, names by id."""
    run_ids = list(run_labels)
    done = answered(batch.pictures, run_ids)
    failed = _problems(batch, run_ids)
    if not done and not failed:
        return
    order, limits = _controls(batch, len(done), failed, run_ids)
    shown = ordered(done, run_ids, order)
    closer = next((picture for picture in shown if picture.name == batch.chosen), None)
    if closer is not None:
        show_closer(batch, closer, _run_to_look_with(run_labels))
    first = _pager(batch, len(shown))
    show_cards(batch, shown[first : first + CARDS_A_PAGE], run_labels, limits)


def _problems(batch: Predictions, run_ids: Sequence[str]) -> int:
    """How many pictures could not be answered."""
    problems = failures(batch.pictures, run_ids)
    for reason, names in problems.items():
        listed = ", ".join(plain(name) for name in names[:_MOST_NAMES]) + (
            f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
        )
        st.error(f"**{listed}**: {plain(reason)}", icon=":material/broken_image:")
    if batch.can_ask_again:
        st.button("Ask again", icon=":material/refresh:", on_click=pictures.ask_again, args=(batch,), key="predict.again")
    return sum(map(len, problems.values()))


def _controls(batch: Predictions, done: int, failed: int, run_ids: Sequence[str]) -> tuple[Order, Limits]:
    orders = [order for order in Order if len(run_ids) > 1 or order is not Order.DISAGREEING_FIRST]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.markdown(f"**{done:,} answered**" + (f", {failed:,} could not be" if failed else ""), width="content")
        order = Order(st.selectbox("Sort by", orders, key="predict.order", width=190))
        sure = st.slider(
            "Sure from, %", 0, 100, 50, key="predict.sure", width=180, help="Answers below this probability are marked as unsure."
        )
        refused = st.slider(
            "None of these, %",
            0.0,
            10.0,
            2.0,
            0.5,
            format="%.1f",
            key="predict.refused",
            width=180,
            help="Marks pictures that are more unlike the training images than all but this share of dev images: so many pictures of "
            "known classes are marked as well. Of shapes, digits and noise, shown to the shipped run, most are caught.",
        )
        limits = Limits(sure / 100, refused / 100)
        st.space("stretch")
        st.download_button(
            "CSV",
            lambda: as_csv(table(batch.pictures, run_ids, limits)),
            "predictions.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            key="predict.csv",
        )
        st.button("Clear", icon=":material/delete_sweep:", on_click=pictures.clear, args=(batch,), key="predict.clear")
    return order, limits


def _run_to_look_with(run_labels: dict[str, str]) -> str:
    if len(run_labels) == 1:
        return next(iter(run_labels))
    chosen: str = st.segmented_control(
        "Look closer with",
        list(run_labels),
        format_func=run_labels.__getitem__,
        default=next(iter(run_labels)),
        required=True,
        key="predict.closer_run",
    )
    return chosen


def _pager(batch: Predictions, count: int) -> int:
    """The number of the first card on the page."""
    pages = max(1, -(-count // CARDS_A_PAGE))
    batch.page = min(batch.page, pages - 1)
    if pages == 1:
        return 0
    with st.container(horizontal=True, vertical_alignment="center"):
        for label, icon, to in (("Previous", "arrow_back", batch.page - 1), ("Next", "arrow_forward", batch.page + 1)):
            st.button(
                label, icon=f":material/{icon}:", key=f"predict.{label}", disabled=not 0 <= to < pages, on_click=_turn, args=(batch, to)
            )
        st.caption(f"Page {batch.page + 1:,} of {pages:,}", width="content")
    return batch.page * CARDS_A_PAGE


def _turn(batch: Predictions, to: int) -> None:
    batch.page = to
