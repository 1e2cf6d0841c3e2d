"""Answers of a model as cards: the picture, its most probable classes as bars, or one line that says why there are none."""

from collections.abc import Sequence

import streamlit as st

from cifar_tl.answers import Answer, RankedClass
from cifar_tl.ui.widgets import format_percent, plain

CARDS_A_ROW = 2
PICTURE_WIDTH = 180


def answer_cards(answers: Sequence[Answer]) -> None:
    """All answers in order, two cards a row."""
    for start in range(0, len(answers), CARDS_A_ROW):
        row = answers[start : start + CARDS_A_ROW]
        for column, answer in zip(st.columns(CARDS_A_ROW), row, strict=False):
            with column.container(border=True, height="stretch"):
                _card(answer)


def _card(answer: Answer) -> None:
    if answer.error:
        st.markdown(f"**{plain(answer.name)}**")
        st.error(plain(answer.error), icon=":material/broken_image:")
        return
    picture, classes = st.columns([2, 3])
    with picture:
        st.image(answer.preview_png, width=PICTURE_WIDTH)
        st.caption(f"{plain(answer.name)}  \n{1000 * answer.seconds:,.0f} ms")
    with classes:
        for ranked in answer.classes:
            _bar(ranked)


def _bar(ranked: RankedClass) -> None:
    group = f" · {plain(ranked.superclass_name)}" if ranked.superclass_name else ""
    st.progress(min(1.0, max(0.0, ranked.probability)), text=f"**{plain(ranked.class_name)}** {format_percent(ranked.probability)}{group}")
