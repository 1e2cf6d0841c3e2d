"""The Predict page: drop pictures, see what a run's best weights say of each.

The work is done by the prediction process (`ui.prediction_batch` hands it over); the page polls and never waits.
"""

import streamlit as st

from cifar_tl.paths import RunFolder, run_folder
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui import cached, prediction_batch, state
from cifar_tl.ui.answer_cards import answer_cards
from cifar_tl.ui.widgets import page_boundary, plain, run_picker

POLL_SECONDS = 0.4
FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF"


def page() -> None:
    st.title("Predict", anchor=False)
    runs = cached.summaries()
    usable = [run for run in runs if run_folder(run.run_id).best_weights.exists()]
    if not usable:
        _nothing_to_predict_with(runs)
        return
    run = run_picker(usable)
    assert run is not None
    if run.status.is_active:
        st.caption(":material/sync: This run still trains. The answers come from its best weights so far.")
    batch = state.predictions()
    _upload(batch, run_folder(run.run_id))
    is_waiting = bool(batch.futures)
    st.fragment(_answers, run_every=POLL_SECONDS if is_waiting else None)(batch, was_waiting=is_waiting)


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


def _upload(batch: state.Predictions, folder: RunFolder) -> None:
    # No `type`: names prove nothing, and a file that the browser refuses by its name would get no answer.
    files = st.file_uploader(
        f"Pictures ({FORMATS})",
        accept_multiple_files=True,
        key=f"predict.files.{batch.upload_number}",
        max_upload_size=prediction_batch.MAX_FILE_MIB,
        help=f"At most {prediction_batch.MAX_FILES} at once. They stay on this machine and are not kept.",
    )
    if batch.futures:
        return  # files dropped meanwhile come next
    is_other_run = batch.run_id not in ("", folder.run_id)
    if is_other_run and _wants_other_answers(batch.run_id, can_ask=bool(files)):
        batch.seen_files.clear()
    new = [file for file in files if file.file_id not in batch.seen_files]
    if new:
        batch.seen_files.update(file.file_id for file in new)
        prediction_batch.ask(batch, folder, [(file.name, file.getvalue()) for file in new])


def _wants_other_answers(asked_run_id: str, *, can_ask: bool) -> bool:
    """Tell that the answers shown are another run's; True if the chosen one shall be asked about the same pictures."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"The answers below are of {plain(asked_run_id)}.", width="content")
        return can_ask and st.button("Ask the chosen run about the same pictures", icon=":material/refresh:")


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _answers(batch: state.Predictions, *, was_waiting: bool) -> None:
    prediction_batch.collect(batch)
    if was_waiting and not batch.futures:
        st.rerun()  # the whole page, once: ends the refreshing
    if batch.futures:
        waiting = sum(len(names) for names in batch.asked)
        st.progress(
            len(batch.answers) / (len(batch.answers) + waiting),
            text=f"Predicting… {waiting} to go. The first picture takes longer: the model is loaded.",
        )
    if not batch.answers and not batch.older:
        if not batch.futures:
            st.caption("Drop one picture or many. Each is answered on its own: one that cannot be read does not stop the others.")
        return
    _summary(batch)
    answer_cards([*batch.answers, *batch.older])


def _summary(batch: state.Predictions) -> None:
    answers = [*batch.answers, *batch.older]
    failed = sum(bool(answer.error) for answer in answers)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(answers) - failed} answered**" + (f", {failed} could not be" if failed else ""), width="content")
        st.space("stretch")
        st.button("Clear", icon=":material/delete_sweep:", on_click=prediction_batch.clear, args=(batch,), disabled=bool(batch.futures))


if __name__ == "__main__":
    with page_boundary():
        page()
