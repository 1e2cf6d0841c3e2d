"""Answers of a model as cards: the picture, its most probable classes as bars, or one line that says why there are none."""

from collections.abc import Sequence

import streamlit as st

from cifar_tl.answers import Answer, RankedClass
from cifar_tl.ui.widgets import format_percent, plain

CARDS_A_ROW = 2
PICTURE_WIDTH = 180


def answer_cards(answers: Sequence[Answer]) -> None:
    """First what could not be answered, a line per reason; then the answers in order, two cards a row."""
    for reason, names in names_by_error(answers).items():
        st.error(f"**{', '.join(plain(name) for name in names)}**: {plain(reason)}", icon=":material/broken_image:")
    answered = [answer for answer in answers if not answer.error]
    for start in range(0, len(answered), CARDS_A_ROW):
        row = answered[start : start + CARDS_A_ROW]
        for column, answer in zip(st.columns(CARDS_A_ROW), row, strict=False):
            with column.container(border=True, height="stretch"):
                _card(answer)


def names_by_error(answers: Sequence[Answer]) -> dict[str, list[str]]:
    """Files that share a reason share a line: damaged weights or a dead process are told once, not for each picture."""
    names: dict[str, list[str]] = {}
    for answer in answers:
        if answer.error:
            names.setdefault(answer.error, []).append(answer.name)
    return names


def _card(answer: Answer) -> None:
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
