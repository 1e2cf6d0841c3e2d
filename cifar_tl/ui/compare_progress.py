"""What of a comparison is still to come: runs that train or wait, with how far they are. The page is drawn anew when one has something new."""

from collections.abc import Sequence

import streamlit as st

from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui.cached import follower
from cifar_tl.ui.progress import progress_of
from cifar_tl.ui.widgets import page_boundary, plain

_REFRESH_SECONDS = 2.0


def show_unfinished(runs: Sequence[RunSummary], names: Sequence[str]) -> None:
    """Nothing if all of these runs have ended; else it watches those that have not."""
    unfinished = [(run.run_id, name, len(run.dev_curve)) for run, name in zip(runs, names, strict=True) if run.status.is_active]
    if unfinished:
        st.fragment(_watch, run_every=_REFRESH_SECONDS)(unfinished)


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _watch(unfinished: list[tuple[str, str, int]]) -> None:
    """`unfinished`: id, name and finished epochs of each run, as the page shows them now."""
    for run_id, name, epochs in unfinished:
        following = follower(run_id)
        status = following.update()
        if not status.is_active or len(following.history.epochs) != epochs:
            st.rerun()  # the whole page, with the new epoch or the results
        now = progress_of(following.history)
        st.progress(now.fraction, text=f"**{plain(name)}** · {plain(now.text)}")
