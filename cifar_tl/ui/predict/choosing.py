"""Who is asked and how: one run or two, which part of a picture they see, and whether they look at its mirror image too."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from cifar_tl.answers import Asked, Framing
from cifar_tl.paths import run_folder
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui import cached
from cifar_tl.ui.predict.verdicts import TOP_CLASSES
from cifar_tl.ui.state import Question
from cifar_tl.ui.widgets import run_labels, run_picker

_NO_RUN = ""
_MIRRORS = {"As the run was evaluated": None, "Yes": True, "No": False}
_FRAMING_HELP = (
    "A model sees a square. Middle: the largest square in the middle of the photo, as in evaluation. Whole: all of it; what is missing "
    "beside the short side is filled with the colour of the borders there."
)


@dataclass(frozen=True)
class Chosen:
    """The runs that are asked, one or two, and the questions to them."""

    runs: list[RunSummary]
    questions: list[Question]


def choose(usable: Sequence[RunSummary]) -> Chosen:
    """Pickers of run and second run, and a popover of options."""
    first, second, options = st.columns([8, 8, 3], vertical_alignment="bottom")
    with first:
        run = run_picker(usable)
        assert run is not None
    with second:
        other = _second_run(usable, run)
    with options:
        asked = _options()
    runs = [run, other] if other else [run]
    return Chosen(runs, [Question(each.run_id, cached.file_stamp(run_folder(each.run_id).best_weights), asked) for each in runs])


def _second_run(usable: Sequence[RunSummary], run: RunSummary) -> RunSummary | None:
    others = {other.run_id: other for other in usable if other.run_id != run.run_id}
    labels = run_labels(usable)
    if st.session_state.get("predict.second_run") == run.run_id:
        st.session_state["predict.second_run"] = _NO_RUN
    chosen = st.selectbox(
        "Beside it",
        [_NO_RUN, *others],
        format_func=lambda run_id: labels.get(run_id, "No second run"),
        key="predict.second_run",
        disabled=not others,
        help="A second run answers for the same pictures; sort by disagreement to see where the two part.",
        persist_state="session",
    )
    return others.get(chosen or _NO_RUN)


def _options() -> Asked:
    with st.popover("Options", icon=":material/tune:", width="stretch"):
        framing = st.segmented_control(
            "Part of the photo",
            list(Framing),
            format_func=str,
            default=Framing.CENTER,
            required=True,
            key="predict.framing",
            help=_FRAMING_HELP,
            persist_state="session",
        )
        mirrors = st.selectbox(
            "Average with the mirror image",
            list(_MIRRORS),
            key="predict.average_flips",
            help="Two looks take twice the time and are right a little more often.",
            persist_state="session",
        )
        st.slider(
            "None of these below",
            0.0,
            10.0,
            1.0,
            0.5,
            format="%.1f %%",
            key="predict.least_familiarity",
            help="A picture counts as none of the classes if fewer dev images than this are as unlike the training images. About as many "
            "pictures of the known classes are turned away wrongly. 0 turns none away.",
            persist_state="session",
        )
    return Asked(TOP_CLASSES, Framing(framing), _MIRRORS[mirrors])
