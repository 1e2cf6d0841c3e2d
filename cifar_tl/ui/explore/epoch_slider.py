"""A slider over the epochs of a run: its dev images as the weights of that epoch saw them."""

import streamlit as st

from cifar_tl.errors import RunInvalid
from cifar_tl.runs.store import find_run, is_alive
from cifar_tl.ui.cached import follower
from cifar_tl.ui.cached_epochs import at_epoch, epochs_to_choose
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.widgets import plain


def at_chosen_epoch(explored: Explored) -> Explored:
    """Dev images at the chosen epoch; other splits, and runs of one epoch, as they are. The newest stays chosen while new ones come."""
    epochs = epochs_to_choose(explored)
    if len(epochs) < 2:
        return explored
    key, seen = f"confusion.epoch.{explored.run_id}", f"confusion.newest.{explored.run_id}"
    is_following = st.session_state.get(key) == st.session_state.get(seen)
    if st.session_state.get(key) not in epochs or (is_following and epochs[-1] != st.session_state[seen]):
        st.session_state[key] = _first_shown(explored.run_id, epochs)
    st.session_state[seen] = epochs[-1]
    epoch = st.select_slider("Weights of epoch", epochs, key=key)
    try:
        return at_epoch(explored, epoch)
    except (RunInvalid, FileNotFoundError) as error:
        st.caption(plain(str(error)))
        return explored


def _first_shown(run_id: str, epochs: list[int]) -> int:
    """The newest of a run that trains; of one that has ended, the best, whose weights were kept."""
    if is_alive(find_run(run_id)):
        return epochs[-1]
    following = follower(run_id)
    following.update()
    best = following.history.best_epoch
    return best.epoch if best is not None and best.epoch in epochs else epochs[-1]
