"""The answers: how many there are and how to show them, the cards, page by page, and everything as CSV."""

from collections.abc import Sequence

import streamlit as st

from cifar_tl.answers import Answer
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui import prediction_batch
from cifar_tl.ui.explore.parts import as_csv
from cifar_tl.ui.predict.answer_grid import Bar, Card, CardAnswer, answer_grid
from cifar_tl.ui.predict.choosing import Chosen
from cifar_tl.ui.predict.verdicts import (
    TOP_CLASSES,
    Answered,
    Order,
    Rule,
    Verdict,
    as_table,
    familiarity_in_words,
    ordered,
    verdict,
)
from cifar_tl.ui.state import Predictions
from cifar_tl.ui.widgets import format_percent, plain

PAGE_SIZE = 24
_GRID_HEIGHT = 640
_CARDS_THAT_FIT = 4
_MOST_NAMES = 5


def answered(batch: Predictions, chosen: Chosen) -> list[Answered]:
    """Pictures to which at least one good answer has come, as dropped."""
    known_M = [batch.answers.get(question, {}) for question in chosen.questions]
    items = [
        Answered(picture.number, picture.name, picture.true_class, tuple(known.get(picture.number) for known in known_M))
        for picture in batch.pictures
    ]
    return [item for item in items if item.good_answers]


def tell_problems(batch: Predictions, chosen: Chosen) -> None:
    """What was not taken or could not be answered: a line for each reason, however many files share it."""
    failed = [answer for question in chosen.questions for answer in batch.answers.get(question, {}).values() if answer.error]
    for reason, names in names_by_error([*batch.refused, *failed]).items():
        more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
        listed = ", ".join(plain(name) for name in names[:_MOST_NAMES])
        st.error(f"**{listed}{more}**: {plain(reason)}", icon=":material/broken_image:")
    if batch.has_failed:
        st.button("Ask again", icon=":material/refresh:", on_click=prediction_batch.ask_again, args=(batch,))


def names_by_error(answers: Sequence[Answer]) -> dict[str, list[str]]:
    """Files that share a reason share a line: damaged weights or a dead process are told once, not for each picture and run."""
    names: dict[str, dict[str, None]] = {}
    for answer in answers:
        if answer.error:
            names.setdefault(answer.error, {})[answer.name] = None
    return {reason: list(of_reason) for reason, of_reason in names.items()}


def show_gallery(batch: Predictions, items: list[Answered], chosen: Chosen, rule: Rule, order: Order) -> Answered:
    """A page of cards; returns the item of the one that was chosen, the first until somebody does."""
    arranged = ordered(items, order)
    pages = -(-len(arranged) // PAGE_SIZE)
    page = st.pagination(pages, key=f"predict.page.{order}") if pages > 1 else 1
    shown = {item.number: item for item in arranged[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]}
    cards = [_card(item, batch.previews.get(item.number, b""), chosen.runs, rule) for item in shown.values()]
    with st.container(height=_GRID_HEIGHT if len(cards) > _CARDS_THAT_FIT else "content", border=False):
        return shown[answer_grid(cards, key="predict.answers")]


def toolbar(batch: Predictions, items: list[Answered], chosen: Chosen) -> tuple[Rule, Order]:
    """Sorting, the confidence below which an answer is unsure, CSV and Clear, with counts of what came of it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        orders = [order for order in Order if order is not Order.DISAGREEING or len(chosen.runs) > 1]
        order = st.selectbox("Sort", orders, format_func=str, key="predict.order", width=220)
        least = st.slider("Unsure below", 0, 100, 40, 1, format="%d %%", key="predict.least_confidence", width=260, persist_state="session")
        rule = Rule(least / 100, float(st.session_state.get("predict.least_familiarity", 1.0)) / 100)
        st.space("stretch")
        st.download_button(
            "CSV",
            lambda: as_csv(as_table(ordered(items, order), [run.run_id for run in chosen.runs], rule)),
            "answers.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            help="All answers with their probabilities, superclass and verdict.",
        )
        st.button("Clear", icon=":material/delete_sweep:", on_click=prediction_batch.clear, args=(batch,))
    st.markdown(_counts(batch, items, chosen, rule))
    return rule, Order(order)


def _counts(batch: Predictions, items: Sequence[Answered], chosen: Chosen, rule: Rule) -> str:
    failed = len(names_of_failed(batch, chosen))
    text = f"**{len(items):,} answered**" + (f", {failed:,} could not be" if failed else "")
    verdicts = [verdict(item.good_answers[0], rule) for item in items]
    for kind, word in ((Verdict.UNSURE, "unsure"), (Verdict.NONE, "none of these")):
        if kind in verdicts:
            text += f" · {verdicts.count(kind):,} {word}"
    if len(chosen.runs) > 1:
        text += f" · the runs disagree on {sum(item.disagrees for item in items):,}"
    known = [item for item in items if item.true_class]
    if known:
        right_M = [sum(map(bool, of_run)) for of_run in zip(*(item.is_right_M for item in known), strict=True)]
        text += f" · {' and '.join(f'{right:,}' for right in right_M)} of {len(known):,} test images right"
    return text


def names_of_failed(batch: Predictions, chosen: Chosen) -> set[str]:
    """Names of files without an answer."""
    failed = {answer.name for question in chosen.questions for answer in batch.answers.get(question, {}).values() if answer.error}
    return failed | {answer.name for answer in batch.refused}


def _card(item: Answered, preview: bytes, runs: Sequence[RunSummary], rule: Rule) -> Card:
    good = item.good_answers
    labels = [run.label for run in runs] if len(runs) > 1 else [""]
    return Card(
        item.number,
        item.name,
        preview,
        good[0].seen_png,
        _badge(item),
        [_card_answer(label, answer, rule) for label, answer in zip(labels, item.answers_M, strict=True)],
    )


def _badge(item: Answered) -> str:
    if item.true_class is None:
        return "the runs disagree" if item.disagrees else ""
    right = [is_right for is_right in item.is_right_M if is_right is not None]
    mark = "✓ " if all(right) else "" if any(right) else "✗ "
    return f"{mark}is {item.true_class}"


def _card_answer(label: str, answer: Answer | None, rule: Rule) -> CardAnswer:
    if answer is None:
        return CardAnswer(label, "", (), "", "", "Not answered yet.")
    if answer.error:
        return CardAnswer(label, "", (), "", "", answer.error)
    kind = verdict(answer, rule)
    bars = [
        Bar(ranked.class_name, round(100 * ranked.probability, 1), format_percent(ranked.probability))
        for ranked in answer.classes[:TOP_CLASSES]
    ]
    best = answer.superclasses[0] if answer.superclasses else None
    superclass = f"{best.superclass_name} {format_percent(best.probability)}" if best else ""
    word = {Verdict.SURE: "", Verdict.UNSURE: "unsure", Verdict.NONE: "none of these"}[kind]
    return CardAnswer(label, word, bars, superclass, familiarity_in_words(answer.familiarity) if kind is Verdict.NONE else "")
