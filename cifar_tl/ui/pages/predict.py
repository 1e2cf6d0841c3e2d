"""The Predict page: hand over pictures, see what one run or two say of each, and why.

The work is done by the prediction process (`ui.prediction_batch` hands it over); the page polls and never waits.
"""

import streamlit as st

from cifar_tl.paths import run_folder
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui import cached, prediction_batch, state
from cifar_tl.ui.export_panel import export_panel
from cifar_tl.ui.predict.choosing import Chosen, choose
from cifar_tl.ui.predict.detail import show_detail
from cifar_tl.ui.predict.gallery import answered, show_gallery, tell_problems, toolbar
from cifar_tl.ui.predict.sources import FORMATS, take_pictures
from cifar_tl.ui.widgets import page_boundary, plain

POLL_SECONDS = 0.4
_COLUMNS = (3, 2)  # widths of the answers and of the explanation of one


def page() -> None:
    st.title("Predict", anchor=False)
    runs = cached.summaries()
    usable = [run for run in runs if run_folder(run.run_id).best_weights.exists()]
    if not usable:
        _nothing_to_predict_with(runs)
        return
    chosen = choose(usable)
    if any(run.status.is_active for run in chosen.runs):
        st.caption(":material/sync: This run still trains. The answers come from its best weights so far.")
    batch = state.predictions()
    take_pictures(batch, run_folder(chosen.runs[0].run_id))
    prediction_batch.advance(batch, chosen.questions)
    is_waiting = prediction_batch.is_waiting(batch, chosen.questions)
    st.fragment(_results, run_every=POLL_SECONDS if is_waiting else None)(batch, chosen, was_waiting=is_waiting)
    export_panel(run_folder(chosen.runs[0].run_id))


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
def _results(batch: state.Predictions, chosen: Chosen, *, was_waiting: bool) -> None:
    prediction_batch.advance(batch, chosen.questions)
    is_waiting = prediction_batch.is_waiting(batch, chosen.questions)
    if is_waiting != was_waiting:
        st.rerun()  # the whole page, once: begins or ends the refreshing
    _progress(batch, chosen)
    tell_problems(batch, chosen)
    items = answered(batch, chosen)
    if not items:
        if not is_waiting:
            st.caption(
                f"Drop pictures ({FORMATS}), as many as you like. Each is answered on its own: one that cannot be read does not stop the others. "
                "They stay on this machine and are not kept."
            )
        return
    rule, order = toolbar(batch, items, chosen)
    left, right = st.columns(_COLUMNS, gap="medium")
    with left:
        item = show_gallery(batch, items, chosen, rule, order)
    with right:
        picture = next(picture for picture in batch.pictures if picture.number == item.number)
        show_detail(item, picture, chosen, rule)


def _progress(batch: state.Predictions, chosen: Chosen) -> None:
    for archive in batch.archives:
        st.caption(f":material/folder_zip: Unpacking {plain(archive.name)}…")
    to_go = prediction_batch.missing(batch, chosen.questions)
    if to_go:
        done = len(batch.pictures) * len(chosen.questions) - to_go
        note = "" if done else " The first picture takes longer: the model is loaded."
        st.progress(done / (done + to_go), text=f"Predicting… {to_go:,} to go.{note}")


if __name__ == "__main__":
    with page_boundary():
        page()
