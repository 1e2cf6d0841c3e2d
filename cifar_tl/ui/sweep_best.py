"""What the run of a sweep's best trial can be asked for once the sweep is over: to be resumed, tested, trained longer, or looked at."""

import streamlit as st

from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError, RunActive
from cifar_tl.runs import launcher as run_launcher
from cifar_tl.runs.store import RunStatus
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui.resume import MOST_EPOCHS
from cifar_tl.ui.widgets import RUN_PARAMETER, show_error


def go_on_controls(run: RunSummary, config: RunConfig) -> None:
    """Resume, Test, Train longer: what its state allows."""
    if run.status is not RunStatus.COMPLETED:
        if st.button("Resume", icon=":material/resume:", help="Goes on from its last checkpoint, and is tested at its end."):
            _resume(run.run_id)
        return
    if run.test_accuracy is None and st.button(
        "Test", icon=":material/quiz:", help="Evaluate its test images, and prepare what Explore shows."
    ):
        _resume(run.run_id)
    if config.epochs < MOST_EPOCHS:
        _train_longer(run, config)


def _train_longer(run: RunSummary, config: RunConfig) -> None:
    with st.popover("Train longer", icon=":material/resume:"):
        epochs = st.number_input("Epochs in all", config.epochs + 1, MOST_EPOCHS, min(MOST_EPOCHS, 2 * config.epochs))
        st.caption("The run of the best trial goes on, and is tested at its end.")
        if st.button("Train longer", type="primary"):
            _resume(run.run_id, epochs=int(epochs))


def _resume(run_id: str, epochs: int | None = None) -> None:
    """Let the run go on and be tested. Who trains it longer goes to its curves; a test is waited for here. What is refused is told."""
    try:
        run_launcher.resume_run(run_id, epochs=epochs, is_tested=True)
    except RunActive:
        pass  # somebody else, or another tab, was quicker: it runs
    except CifarTLError as error:
        show_error(error)
        return
    if epochs is None:
        st.rerun()
    open_run(run_id)


def open_run(run_id: str) -> None:
    """Its live view."""
    st.switch_page("cifar_tl/ui/pages/train.py", query_params={RUN_PARAMETER: run_id})
