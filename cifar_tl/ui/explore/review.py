"""The review of one suspicious image: large, with what is suspicious about it, and the buttons that decide. Every button has a key.

A decision is written at once and the next image comes up; Undo takes the last one back, whoever made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import streamlit as st

from cifar_tl.data.corrections import Corrections, Decision, Verdict, decide, undo
from cifar_tl.errors import CifarTLError
from cifar_tl.evaluation.suspicion.result import SPLITS
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.explore.suspects import SPLIT_WORDS, Place, Shown, Suspect, SuspectList, verdict_on
from cifar_tl.ui.image_detail import enlarged
from cifar_tl.ui.widgets import plain, show_error

_LARGE_PIXELS = 192
_PROBLEM = "suspicious.problem"  # session key: why the last decision could not be kept
_WANTED = "suspicious.wanted"  # session key: name of the image to go to
_PRESENT = "suspicious.present"  # session key: the list and the image that the panel shows
_STEPS = "suspicious.steps"  # session key: how often something was decided or taken back


@dataclass(frozen=True)
class Listed:
    """A list as it is shown, and the place in it: `at` counts in `indices`, which are into `of`."""

    of: SuspectList
    group: str
    shown: Shown
    indices: np.ndarray
    key: str
    at: int = 0

    GRID_KEY: ClassVar[str] = "suspicious.grid"

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def suspect(self) -> Suspect:
        return self.of.at(int(self.indices[self.at]))

    @staticmethod
    def want(image: str) -> None:
        """Go to the image of that name, if the list has it, when the list is next shown."""
        st.session_state[_WANTED] = image

    def at_wanted(self) -> "Listed":
        """Where the session was in this list, or at the image that is wanted."""
        at = int(st.session_state.get(self.key, 0))
        index = self.of.find(st.session_state.pop(_WANTED, ""))
        found = np.flatnonzero(self.indices == index) if index is not None else np.empty(0)
        return self.moved(int(found[0]) if len(found) else at)

    def at_click(self, page_size: int, decisions: int) -> "Listed":
        """At the tile that was clicked, if one was since the list was drawn: with every step it gets another revision."""
        state = st.session_state.get(self.GRID_KEY)
        clicked = state.get("selected") if state else None
        if not clicked or clicked["revision"] != self.revision(page_size, decisions):
            return self
        return self.moved(self.at // page_size * page_size + int(clicked["index"]))

    def revision(self, page_size: int, decisions: int) -> str:
        return f"{self.key}.{self.at // page_size}.{self.at}.{decisions}.{len(self)}"

    def moved(self, at: int) -> "Listed":
        at = min(max(at, 0), max(0, len(self) - 1))
        st.session_state[self.key] = at
        return replace(self, at=at)


def show_review(explored: Explored, listed: Listed, corrections: Corrections) -> None:
    """The present image of the list with everything that can be done about it."""
    suspect, names = listed.suspect, explored.class_names
    st.session_state[_PRESENT] = (listed.key, suspect.place)
    verdict = verdict_on(suspect, corrections)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{listed.at + 1:,}** of {len(listed):,}", width="content")
        if verdict:
            st.badge(plain(verdict).capitalize(), icon=":material/check:", color="green")
    places = [suspect.place, *([suspect.other] if suspect.other else [])]
    for column, place, image in zip(st.columns(2), places, pixels_of(explored, places), strict=False):
        with column:
            st.image(enlarged(image), width=_LARGE_PIXELS)
            st.caption(f"**{plain(names[place.label])}** · {SPLIT_WORDS[place.split]} image {place.row:,}")
    suggestion = "" if suspect.suggested is None else f" → **{plain(names[suspect.suggested])}**?"
    st.markdown(f"**{plain(names[suspect.place.label])}**{suggestion}  \n:small[{plain(suspect.why)}]")
    if problem := st.session_state.pop(_PROBLEM, None):
        show_error(problem)
    if suspect.can_be_decided:
        _decisions(explored, listed, suspect)
    else:
        st.caption(f"{SPLIT_WORDS[suspect.place.split].capitalize()} images are never changed: results must stay comparable.")
    _moves(explored, listed, corrections)


def _decisions(explored: Explored, listed: Listed, suspect: Suspect) -> None:
    names, step = explored.class_names, f"{listed.key}.{listed.at}.{suspect.place.name}"
    is_pair = suspect.other is not None
    with st.container(horizontal=True):
        _button("Keep both" if is_pair else "Keep", "check", "K", step, explored, listed, "keep", help="It is right as it is.")
        if suspect.suggested is not None:
            name = names[suspect.suggested]
            _button(f"Relabel as {plain(name)}", "label", "L", step, explored, listed, "relabel", name, help="Train on it with this label.")
        which = f"Drop the {SPLIT_WORDS[suspect.place.split]} image" if is_pair else "Drop"
        _button(which, "delete", "D", step, explored, listed, "drop", help="Leave it out of training.")
    others = [name for index, name in enumerate(names) if index not in (suspect.place.label, suspect.suggested)]
    box = f"suspicious.label.{step}"
    st.selectbox(
        "Another label",
        sorted(others),
        index=None,
        placeholder="Choose the right class",
        key=box,
        on_change=_relabel_as_chosen,
        args=(box, explored, listed),
        width=260,
    )


def _button(
    label: str, icon: str, shortcut: str, step: str, explored: Explored, listed: Listed, verdict: Verdict, name: str = "", *, help: str
) -> None:
    # A key for each image: a second press that was meant for this one cannot decide about the next, which nobody has seen.
    st.button(
        label,
        icon=f":material/{icon}:",
        shortcut=shortcut,
        help=help,
        key=f"suspicious.{verdict}.{step}",
        on_click=_decide,
        args=(explored, listed, verdict, name),
    )


def _decide(explored: Explored, listed: Listed, verdict: Verdict, label: str) -> None:
    """Callback: keep the decision and go on to the next image. In the list of what is to be reviewed that one takes the place of this."""
    suspect, manifest = listed.suspect, explored.manifest
    # (1) another image comes up; (2) the browser shows its buttons, and for a moment the former ones too; (3) a key presses both.
    if st.session_state.get(_PRESENT) != (listed.key, suspect.place):
        return
    try:
        decide(manifest.data_fingerprint, Decision(suspect.place.row, suspect.kind.about, verdict, label), title=manifest.data_title)
    except CifarTLError as error:
        st.session_state[_PROBLEM] = error
        return
    _count_step()
    if listed.shown is Shown.ALL:
        listed.moved(listed.at + 1)


def _relabel_as_chosen(box: str, explored: Explored, listed: Listed) -> None:
    if chosen := st.session_state.get(box):
        _decide(explored, listed, "relabel", chosen)


def _moves(explored: Explored, listed: Listed, corrections: Corrections) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Previous", icon=":material/arrow_back:", shortcut="Left", disabled=listed.at == 0, on_click=_go, args=(listed, listed.at - 1)
        )
        is_last = listed.at + 1 >= len(listed)
        st.button("Next", icon=":material/arrow_forward:", shortcut="Right", disabled=is_last, on_click=_go, args=(listed, listed.at + 1))
        undo_button(explored, corrections)


def _go(listed: Listed, at: int) -> None:
    """Callback."""
    listed.moved(at)


def undo_button(explored: Explored, corrections: Corrections) -> None:
    # A key that never comes back: for a moment the browser shows the former button too, and one press would take two decisions back.
    st.button(
        "Undo",
        icon=":material/undo:",
        shortcut="U",
        disabled=not corrections.decisions,
        help="Takes back the last decision about these data.",
        key=f"suspicious.undo.{st.session_state.get(_STEPS, 0)}",
        on_click=_undo,
        args=(explored,),
    )


def _undo(explored: Explored) -> None:
    """Callback: take the last decision back and show the image it was about, if this list has it."""
    try:
        taken_back = undo(explored.manifest.data_fingerprint, title=explored.manifest.data_title)
    except CifarTLError as error:
        st.session_state[_PROBLEM] = error
        return
    _count_step()
    if taken_back is not None:
        Listed.want(f"{taken_back.split}.{taken_back.row}")


def _count_step() -> None:
    st.session_state[_STEPS] = int(st.session_state.get(_STEPS, 0)) + 1


def pixels_of(explored: Explored, places: Sequence[Place]) -> np.ndarray:
    """uint8 n x H x W x 3: the stored images at these places."""
    store = explored.images.store
    assert store is not None
    return np.stack([np.asarray(store[SPLITS[place.split]].images_NHWC[place.row]) for place in places])
