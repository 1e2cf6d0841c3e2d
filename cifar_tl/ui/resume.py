"""What lets a run that has ended go on: Resume after a stop, an error or a crash, Train longer when it is complete.

Shown by the live view and by the Runs page. Asks the launcher; knows nothing of training.
"""

import streamlit as st

from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError, NonFiniteLoss, RunActive
from cifar_tl.paths import RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.events import Failed
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.launcher import HERE, where
from cifar_tl.runs.store import RunStatus
from cifar_tl.ui.widgets import plain, show_error

MOST_EPOCHS = 1000
_ICON = ":material/resume:"
_TIMES_LOWER = 10  # the learning rate that is offered after one that was too high


def resume_controls(folder: RunFolder, config: RunConfig, status: RunStatus, history: RunHistory) -> None:
    """One button, for a run that is not running; with something to fill in where a person must say more."""
    if status.is_active:
        return
    is_completed = status is RunStatus.COMPLETED
    if is_completed and not config.evaluate_test:
        _test(folder)
    label = "Train longer" if is_completed else "Resume"
    why_not = launcher.why_not_resume(folder, history)
    if why_not:
        st.button(label, icon=_ICON, disabled=True, help=plain(why_not), key=f"resume.{folder.run_id}")
    elif is_completed:
        _train_longer(folder, config, history)
    elif isinstance(history.terminal, Failed) and history.terminal.error == NonFiniteLoss.__name__:
        _resume_slower(folder, config)
    else:
        if st.button(label, icon=_ICON, help=_from_where(folder, history), key=f"resume.{folder.run_id}"):
            _go_on(folder)
        if where(folder) != HERE and st.button(
            "Resume here", icon=_ICON, help="On this machine instead.", key=f"resume.here.{folder.run_id}"
        ):
            _go_on(folder, on=HERE)


def _from_where(folder: RunFolder, history: RunHistory) -> str:
    if not (folder.last_checkpoint.exists() or folder.previous_checkpoint.exists()):
        return "Begins again: it ended before its first checkpoint."
    finished = history.epochs[-1].epoch if history.epochs else 0
    return f"Goes on from its last checkpoint, in epoch {finished + 1}, as if it had not been interrupted."


def _test(folder: RunFolder) -> None:
    help = "Evaluate the test images with the weights of the best epoch, and prepare what Explore shows."
    if st.button("Test", icon=":material/quiz:", help=help, key=f"resume.test.{folder.run_id}"):
        _go_on(folder, is_tested=True)


def _train_longer(folder: RunFolder, config: RunConfig, history: RunHistory) -> None:
    finished = history.epochs[-1].epoch if history.epochs else config.epochs
    with st.popover("Train longer", icon=_ICON):
        epochs = st.number_input(
            "Epochs in all", finished + 1, MOST_EPOCHS, min(2 * finished, MOST_EPOCHS), key=f"resume.epochs.{folder.run_id}"
        )
        st.caption(
            f"The run goes on after its epoch {finished}. Its learning rate follows the schedule of the longer run, so it rises again "
            "first. Test is evaluated again at the end: the more often one looks, the less it tells."
        )
        if st.button("Train longer", type="primary", key=f"resume.{folder.run_id}"):
            _go_on(folder, epochs=int(epochs))


def _resume_slower(folder: RunFolder, config: RunConfig) -> None:
    with st.popover("Resume", icon=_ICON):
        rate = st.number_input(
            "Learning rate",
            1e-6,
            10.0,
            config.learning_rate / _TIMES_LOWER,
            format="%g",
            key=f"resume.learning_rate.{folder.run_id}",
            help=f"It was {config.learning_rate:g}, which was too high.",
        )
        st.caption("The run goes on from its last checkpoint, whose weights are whole, with this learning rate.")
        if st.button("Resume", type="primary", key=f"resume.{folder.run_id}"):
            _go_on(folder, learning_rate=float(rate))


def _go_on(
    folder: RunFolder, *, epochs: int | None = None, learning_rate: float | None = None, is_tested: bool = False, on: str | None = None
) -> None:
    """What is refused is told here, and the rest of the page stays."""
    try:
        launcher.resume_run(folder.run_id, epochs=epochs, learning_rate=learning_rate, is_tested=is_tested, on=on)
    except RunActive:
        st.rerun()  # somebody else, or another tab, was quicker: it runs
    except CifarTLError as error:
        show_error(error)
        return
    st.rerun()
