"""Answers as cards: the picture, what the model sees of it, its likeliest classes as bars, and how much the answer is worth."""

import io
from collections.abc import Sequence
from functools import partial
from typing import Literal

import streamlit as st
from PIL import Image

from cifar_tl.answers import Answer, RankedClass
from cifar_tl.ui.predict.verdicts import Limits, Verdict, unlikeness_in_words, verdict
from cifar_tl.ui.state import Picture, Predictions
from cifar_tl.ui.widgets import format_percent, plain

CARDS_A_ROW = 2
CARDS_A_PAGE = 12
_PICTURE_WIDTH = 150
_SEEN_WIDTH = 64
_COLOURS: dict[Verdict, Literal["green", "orange", "red"]] = {Verdict.SURE: "green", Verdict.UNSURE: "orange", Verdict.NONE_OF_THESE: "red"}
_ICONS = {Verdict.SURE: ":material/check:", Verdict.UNSURE: ":material/question_mark:", Verdict.NONE_OF_THESE: ":material/block:"}


def show_cards(batch: Predictions, pictures: Sequence[Picture], run_labels: dict[str, str], limits: Limits) -> None:
    """`pictures` are answered by every run of `run_labels` (names by id)."""
    a_row = CARDS_A_ROW if len(run_labels) == 1 else 1
    for start in range(0, len(pictures), a_row):
        for column, picture in zip(st.columns(a_row), pictures[start : start + a_row], strict=False):
            with column.container(border=True, height="stretch"):
                _card(batch, picture, run_labels, limits)


def _card(batch: Predictions, picture: Picture, run_labels: dict[str, str], limits: Limits) -> None:
    seen, *answers = st.columns([2, *[3] * len(run_labels)])
    with seen:
        _picture(batch, picture, picture.answers[next(iter(run_labels))])
    for column, (run_id, label) in zip(answers, run_labels.items(), strict=True):
        with column:
            if len(run_labels) > 1:
                st.caption(plain(label))
            _answer(picture.answers[run_id], limits)


def _picture(batch: Predictions, picture: Picture, answer: Answer) -> None:
    st.image(answer.preview, width=_PICTURE_WIDTH)
    st.caption(plain(picture.name) + (f"  \nTrue class: **{plain(picture.true_class)}**" if picture.true_class else ""))
    with st.container(horizontal=True, vertical_alignment="center"):
        if answer.seen_png:
            st.image(_crisp(answer.seen_png), width=_SEEN_WIDTH)
        st.caption("What the model sees" if answer.seen_png else "", width="content")
    st.button(
        "Look closer",
        icon=":material/zoom_in:",
        key=f"predict.closer.{picture.name}.{id(picture)}",
        on_click=partial(_choose, batch, picture),
    )


def _crisp(png: bytes) -> Image.Image:
    """Every pixel repeated, so that the browser does not blur them."""
    seen = Image.open(io.BytesIO(png))
    factor = max(1, _SEEN_WIDTH // seen.width)
    return seen.resize((factor * seen.width, factor * seen.height), Image.Resampling.NEAREST)


def _choose(batch: Predictions, picture: Picture) -> None:
    batch.chosen = picture.name


def _answer(answer: Answer, limits: Limits) -> None:
    found = verdict(answer, limits)
    st.badge(found, icon=_ICONS[found], color=_COLOURS[found])
    if found is Verdict.NONE_OF_THESE and answer.familiarity is not None:
        st.caption(f"{unlikeness_in_words(answer.familiarity)}. The classes below are guesses.")
    for ranked in answer.classes:
        _bar(ranked)
    if answer.superclasses:
        group = answer.superclasses[0]
        st.caption(f"Superclass: **{plain(group.superclass_name)}** {format_percent(group.probability)} · {1000 * answer.seconds:,.0f} ms")
    else:
        st.caption(f"{1000 * answer.seconds:,.0f} ms")


def _bar(ranked: RankedClass) -> None:
    st.progress(min(1.0, max(0.0, ranked.probability)), text=f"**{plain(ranked.class_name)}** {format_percent(ranked.probability)}")
