"""Why a picture got its answer: where the model looked, why one class and not another, which training images it resembles."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from cifar_tl.answers import Answer, Framing
from cifar_tl.paths import run_folder
from cifar_tl.runs.store import RunManifest
from cifar_tl.ui import cached, heat_maps
from cifar_tl.ui.predict.choosing import Chosen
from cifar_tl.ui.predict.nearest import show_nearest
from cifar_tl.ui.predict.photo import photo_with_heat
from cifar_tl.ui.predict.verdicts import Answered, Rule, Verdict, familiarity_in_words, verdict
from cifar_tl.ui.state import Picture, Question
from cifar_tl.ui.widgets import plain

WHERE, CONTRAST, NEAREST = "Where it looked", "Why this, not that", "Nearest images"


def show_detail(item: Answered, picture: Picture, chosen: Chosen, rule: Rule) -> None:
    """The explanation of one answer, with a choice of run where two were asked."""
    st.markdown(f"**{plain(item.name)}**")
    place = _run_explained(item, chosen)
    question, answer = chosen.questions[place], item.answers_M[place]
    assert answer is not None
    if verdict(answer, rule) is Verdict.NONE:
        st.caption(f":material/help: {familiarity_in_words(answer.familiarity)} The answer may mean nothing.")
    _, manifest = cached.settings_of(run_folder(question.run_id))
    if manifest is None:
        return
    view = st.segmented_control(
        "Why",
        [WHERE, CONTRAST, NEAREST],
        default=WHERE,
        required=True,
        label_visibility="collapsed",
        key="predict.view",
        persist_state="session",
    )
    key = f"predict.{question.run_id}.{picture.number}"
    if view == WHERE:
        _where(question, picture, answer, manifest, key)
    elif view == CONTRAST:
        _contrast(question, picture, answer, item.true_class, manifest, key)
    else:
        _nearest(question, picture, answer, manifest)


def _run_explained(item: Answered, chosen: Chosen) -> int:
    """Place of the question whose answer is explained."""
    good = [place for place, answer in enumerate(item.answers_M) if answer is not None and not answer.error]
    if len(good) == 1:
        return good[0]
    return st.segmented_control(
        "Answer of",
        good,
        format_func=lambda place: chosen.runs[place].label,
        default=good[0],
        required=True,
        label_visibility="collapsed",
        key="predict.explained",
    )


def _where(question: Question, picture: Picture, answer: Answer, manifest: RunManifest, key: str) -> None:
    names = _classes(answer, manifest)
    about = st.selectbox("Evidence for", names, key=f"{key}.about")
    asked = heat_maps.ask_photo(run_folder(question.run_id), picture, question.asked.framing, manifest.class_names.index(about))
    _photo(asked, picture, question.asked.framing, f"Where the model finds evidence for {about} in {picture.name}")
    st.caption("Yellow and red speak for this class; the answer does not rest on what is dark. What is grey the model did not see.")


def _contrast(question: Question, picture: Picture, answer: Answer, true_class: str | None, manifest: RunManifest, key: str) -> None:
    names = _classes(answer, manifest)
    left, right = st.columns(2)
    about = left.selectbox("Why", names, key=f"{key}.why")
    rivals = [name for name in names if name != about]
    rival = right.selectbox("and not", rivals, index=rivals.index(true_class) if true_class in rivals else 0, key=f"{key}.not.{about}")
    places = manifest.class_names.index(about), manifest.class_names.index(rival)
    asked = heat_maps.ask_photo(run_folder(question.run_id), picture, question.asked.framing, *places)
    _photo(asked, picture, question.asked.framing, f"What in {picture.name} speaks for {about} rather than {rival}, and what for {rival}")
    st.caption(f"Yellow and red speak for **{plain(about)}** rather than **{plain(rival)}**; blue speaks the other way.")


def _classes(answer: Answer, manifest: RunManifest) -> Sequence[str]:
    """The likeliest first, then all others."""
    likeliest = [ranked.class_name for ranked in answer.classes]
    return [*likeliest, *(name for name in manifest.class_names if name not in likeliest)]


def _photo(asked: heat_maps.Asked, picture: Picture, framing: Framing, description: str) -> None:
    photo = heat_maps.photo(picture)
    heat_maps.when_done((asked, photo), partial(_show_photo, asked, photo, framing, description))


def _show_photo(asked: heat_maps.Asked, photo: heat_maps.Asked, framing: Framing, description: str) -> None:
    photo_with_heat(heat_maps.answer_bytes(photo), heat_maps.answer(asked), framing, description=description, key="predict.photo")


def _nearest(question: Question, picture: Picture, answer: Answer, manifest: RunManifest) -> None:
    asked = heat_maps.ask_embedding(run_folder(question.run_id), picture, question.asked.framing)
    class_name = answer.classes[0].class_name
    heat_maps.when_done(
        (asked,), lambda: show_nearest(question.run_id, manifest, heat_maps.answer(asked), class_name, key="predict.nearest")
    )
