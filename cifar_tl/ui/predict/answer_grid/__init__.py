"""answer_grid: answers as cards in one component: picture, what the model sees of it, the likeliest classes as bars, the verdict.

Owns the browser component (`answer_grid.js`, `answer_grid.css`) and what it is sent. Knows nothing of runs: `ui.predict.gallery` says what is
shown. A page of 24 cards is one message; the same of Streamlit's own elements would be four hundred.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st


@dataclass(frozen=True)
class Bar:
    """One class; `percent` says how long the bar is, `text` what stands beside it."""

    name: str
    percent: float
    text: str


@dataclass(frozen=True)
class CardAnswer:
    """What one run says: the verdict's word if there is one, bars, the superclass, and a note. `problem` in their place if it could not."""

    run: str
    verdict: str
    bars: Sequence[Bar]
    superclass: str
    note: str
    problem: str = ""


@dataclass(frozen=True)
class Card:
    """`preview` and `seen` are picture files, `seen` of few pixels. `badge` says beside the name what is worth knowing."""

    number: int
    name: str
    preview: bytes
    seen: bytes
    badge: str
    answers: Sequence[CardAnswer]


def answer_grid(cards: Sequence[Card], *, key: str) -> int:
    """Show cards, at least one, and return the number of the one that was clicked last; of the first where none of these was."""
    numbers = [card.number for card in cards]
    before = st.session_state.get(key)  # holds a click before the component is called, so that the mark does not jump back and forth
    clicked = before["selected"] if before else None
    chosen = int(clicked) if clicked in numbers else numbers[0]
    shown = [asdict(card) | {"preview": _encoded(card.preview), "seen": _encoded(card.seen)} for card in cards]
    _component()(key=key, data={"cards": shown, "chosen": chosen}, default={"selected": None}, on_selected_change=lambda: None)
    return chosen


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@cache
def _component() -> Any:
    folder = Path(__file__).parent
    return st.components.v2.component(
        "cifar_tl_answer_grid",
        html='<div class="answers"></div>',
        css=(folder / "answer_grid.css").read_text("utf-8"),
        js=(folder / "answer_grid.js").read_text("utf-8"),
    )
