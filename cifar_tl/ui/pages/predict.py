"""The Predict page: drop pictures, see what a run's best weights say of each, or what two runs say, and why.

The work is done by the prediction process (`ui.predict.batch` hands it over); the page polls and never waits.
"""

import streamlit as st

from cifar_tl.answers import Asked, Framing
from cifar_tl.paths import run_folder
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui import cached, state
from cifar_tl.ui.predict import batch as pictures
from cifar_tl.ui.predict.incoming import show_incoming
from cifar_tl.ui.predict.results import show_results
from cifar_tl.ui.widgets import page_boundary, run_labels, run_picker

POLL_SECONDS = 0.4
_FLIPS: dict[str, bool | None] = {"As evaluated": None, "Yes": True, "No": False}


def page() -> None:
    st.title("Predict", anchor=False)
    runs = cached.summaries()
    usable = [run for run in runs if run_folder(run.run_id).best_weights.exists()]
    if not usable:
        _nothing_to_predict_with(runs)
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        run = run_picker(usable)
        assert run is not None
        other = _other_picker([other for other in usable if other.run_id != run.run_id])
        asked = _options()
    if run.status.is_active:
        st.caption(":material/sync: This run still trains. The answers come from its best weights so far.")
    batch = state.predictions()
    show_incoming(batch, run.run_id)
    chosen = [run, *([other] if other else [])]
    pictures.ask(batch, [run_folder(one.run_id) for one in chosen], asked)
    is_waiting = bool(batch.requests)
    st.fragment(_results, run_every=POLL_SECONDS if is_waiting else None)(batch, _names(chosen), was_waiting=is_waiting)


def _other_picker(others: list[RunSummary]) -> RunSummary | None:
    if not others:
        return None
    labels, by_id = run_labels(others), {run.run_id: run for run in others}
    chosen = st.selectbox(
        "Beside",
        list(by_id),
        index=None,
        format_func=lambda run_id: labels.get(run_id, run_id),
        placeholder="No second run",
        key="predict.other",
        help="A second run that answers for the same pictures.",
    )
    return by_id.get(chosen) if chosen else None


def _names(runs: list[RunSummary]) -> dict[str, str]:
    labels = run_labels(runs)
    return {run.run_id: labels[run.run_id] for run in runs}


def _options() -> Asked:
    with st.popover("Options", icon=":material/tune:", width="content"):
        framing = st.segmented_control(
            "A picture that is no square",
            list(Framing),
            default=Framing.CENTER,
            required=True,
            key="predict.framing",
            help="Its middle, as training images of a folder are cut, or the whole of it with white beside.",
        )
        flips = st.segmented_control(
            "Average with the mirror image", list(_FLIPS), default="As evaluated", required=True, key="predict.flips"
        )
    return Asked(framing=Framing(framing), average_flips=_FLIPS[flips])


def _nothing_to_predict_with(runs: list[RunSummary]) -> None:
    if not runs:
        st.info(
            "There is no run yet. Train one; once its first epoch is finished, it can tell what is in a picture.", icon=":material/info:"
        )
    elif any(run.status.is_active for run in runs):
        st.info(
            "No run has finished its first epoch yet. As soon as one has, it can be used here while it trains on.",
            icon=":material/hourglass:",
        )
    else:
        st.info("None of the runs has weights: they ended before their first epoch was finished.", icon=":material/info:")
    if st.button("Train a model", type="primary", icon=":material/model_training:"):
        st.switch_page("cifar_tl/ui/pages/train.py")


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _results(batch: state.Predictions, names: dict[str, str], *, was_waiting: bool) -> None:
    pictures.collect(batch)
    if was_waiting and not batch.requests:
        st.rerun()  # the whole page, once: ends the refreshing
    if batch.requests:
        asked = sum(not picture.error for picture in batch.pictures) * len(names)
        waiting = sum(len(request.pictures) for request in batch.requests)
        st.progress(
            1 - waiting / max(asked, waiting),
            text=f"Predicting… {waiting:,} to go. The first picture takes longer: the model is loaded.",
        )
    if not batch.pictures:
        st.caption("Drop one picture or many. Each is answered on its own: one that cannot be read does not stop the others.")
        return
    show_results(batch, names)


if __name__ == "__main__":
    with page_boundary():
        page()
