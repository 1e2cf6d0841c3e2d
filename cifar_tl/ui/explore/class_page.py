"""One class: its numbers, its images by confidence, its errors by predicted class, its trend over epochs, the classes nearest to it."""

import numpy as np
import streamlit as st

from cifar_tl.evaluation.analysis import ClassScore
from cifar_tl.evaluation.selection import Filter, Order, Outcome, select
from cifar_tl.ui.cached import follower
from cifar_tl.ui.cached_evaluation import Explored, embeddings_of
from cifar_tl.ui.charts.classes import trend_chart
from cifar_tl.ui.explore.parts import Table, num_images, selectable
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.widgets import format_percent, plain

_TREND_HEIGHT = 260
_NEAREST = 8


def show_class(explored: Explored, index: int, score: ClassScore) -> None:
    """Everything about class `index`; what is looked at of it is chosen by the reader."""
    name = plain(explored.class_names[index])
    st.markdown(f"**{name}**: {score.hits:,} of {num_images(score.support)} recognised ({format_percent(score.recall)})")
    parts = {"Mistakes": _mistakes, "Images": _images, "Trend": _trend, "Nearest classes": _nearest}
    part = st.segmented_control(
        "About this class", list(parts), default="Mistakes", required=True, key="class.part", label_visibility="collapsed"
    )
    parts[part](explored, index)


def _mistakes(explored: Explored, index: int) -> None:
    """What it was taken for, commonest first, and the images of all these or of the chosen one."""
    counts = explored.matrix_CC[index].copy()
    counts[index] = 0
    others = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    if not others:
        st.caption("None of its images was taken for something else.")
        return
    table: Table = {
        "Taken for": [explored.class_names[i] for i in others],
        "Images": [int(counts[i]) for i in others],
        "Share of class": [counts[i] / explored.matrix_CC[index].sum() for i in others],
    }
    row = selectable(table, None, f"class.mistakes.{explored.run_id}.{explored.split}.{index}", "What this class was taken for", height=190)
    predicted = None if row is None else others[row]
    positions = select(explored.evaluation, Filter(true=index, predicted=predicted, outcome=Outcome.WRONG), Order.CONFIDENT)
    count = num_images(len(positions))
    if predicted is None:
        st.markdown(f"{count} of **{plain(explored.class_names[index])}** taken for something else")
    else:
        st.markdown(f"{count} of **{plain(explored.class_names[index])}** taken for **{plain(explored.class_names[predicted])}**")
    show_gallery(explored, positions, selection=f"class.{index}.{predicted}", key="classes.images")


def _images(explored: Explored, index: int) -> None:
    order = st.segmented_control(
        "Order", [Order.UNSURE, Order.CONFIDENT], default=Order.UNSURE, required=True, key="class.order", label_visibility="collapsed"
    )
    positions = select(explored.evaluation, Filter(true=index), Order(order))
    show_gallery(explored, positions, selection=f"class.{index}.{order}", key="class.all")


def _trend(explored: Explored, index: int) -> None:
    following = follower(explored.run_id)
    following.update()
    epochs = [epoch for epoch in following.history.epochs if len(epoch.dev_accuracy_per_class) > index]
    if not epochs:
        st.caption("The log of this run has no epochs.")
        return
    chart = trend_chart(explored.class_names[index], index, epochs)
    key = f"class.trend.{explored.run_id}.{index}"
    live_plot(chart.traces, chart.layout, revision=key, key=key, description=chart.description, height=_TREND_HEIGHT)
    st.caption("Measured on dev images: there are fewer of them than of test, so single steps up and down mean little.")


def _nearest(explored: Explored, index: int) -> None:
    """The classes whose training images lie closest to this one's, and how often each pair is confused."""
    embeddings = embeddings_of(explored.run_id)
    if embeddings is None or "train" not in embeddings.splits:
        st.caption(f"This run has no embeddings yet. They are made by: python -m cifar_tl describe {plain(explored.run_id)}")
        return
    names, matrix_CC = explored.class_names, explored.matrix_CC
    nearest = embeddings.nearest_classes(index, len(names), _NEAREST)
    table: Table = {
        "Class": [names[other] for other, _ in nearest],
        "Alike": [round(alike, 2) for _, alike in nearest],
        f"{names[index]} taken for it": [int(matrix_CC[index, other]) for other, _ in nearest],
        f"It taken for {names[index]}": [int(matrix_CC[other, index]) for other, _ in nearest],
    }
    st.dataframe(table, hide_index=True, key=f"class.nearest.{index}", alt="The classes nearest to this one in embedding space")
    st.caption("Alike is the cosine between the mean embeddings of the classes' training images: 1 is the same direction, 0 unrelated.")
