"""The Explore page: what an evaluated run gets right and wrong, down to single images. Choose a run, a split and a view."""

from collections.abc import Callable

import streamlit as st

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.analysis import Proportion, accuracy, top_k_accuracy
from cifar_tl.runs.store import RunStatus, find_run
from cifar_tl.runs.summary import RunSummary
from cifar_tl.ui.cached import summaries
from cifar_tl.ui.cached_evaluation import Explored, evaluated_splits, explored
from cifar_tl.ui.explore.audited import images_in_train
from cifar_tl.ui.explore.classes import show_classes
from cifar_tl.ui.explore.confusion import show_confusion
from cifar_tl.ui.explore.embedding_map import show_map
from cifar_tl.ui.explore.images import show_images
from cifar_tl.ui.explore.pairs import show_pairs
from cifar_tl.ui.explore.suspicious import show_suspicious
from cifar_tl.ui.explore.trust import show_trust
from cifar_tl.ui.widgets import (
    RUN_PARAMETER,
    Metric,
    format_percent,
    metric_row,
    page_boundary,
    plain,
    run_picker,
    show_error,
    status_badge,
)

TRAIN_PAGE = "cifar_tl/ui/pages/train.py"
SPLIT_WORDS = {"test": "Test", "dev": "Dev", "train": "Train"}
VIEWS: dict[str, Callable[[Explored], None]] = {
    "Confusion": show_confusion,
    "Classes": show_classes,
    "Confused pairs": show_pairs,
    "Images": show_images,
    "Suspicious data": show_suspicious,
    "Trust": lambda explored: show_trust(explored, images_in_train(explored)),
    "Map": show_map,
}
_SPLIT = "split"  # of the address, and session key
_REFRESH_SECONDS = 3


def page() -> None:
    runs = summaries()
    if not runs:
        st.title("Explore", anchor=False)
        _no_runs()
        return
    # In one line: what is explored below should be in sight on a laptop.
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.title("Explore", anchor=False, width="content")
        run = run_picker(runs)
        assert run is not None
        splits = [] if run.problem else evaluated_splits(run.run_id)
        split = _split_choice(splits)
    if run.problem:
        st.error(plain(run.problem), icon=":material/error:")
    elif split is None:
        _not_evaluated(run)
    else:
        _show(run, split)


def _no_runs() -> None:
    with st.container(border=True):
        st.markdown("**No runs yet**")
        st.markdown("When a run has finished, its mistakes can be looked at here: which classes it confuses, and which images.")
        if st.button("Train a model", icon=":material/model_training:", type="primary"):
            st.switch_page(TRAIN_PAGE)


def _split_choice(splits: list[str]) -> str | None:
    if not splits:
        return None
    asked = st.query_params.get(_SPLIT, "").lower()
    if asked in splits:
        st.session_state[_SPLIT] = asked
    elif st.session_state.get(_SPLIT) not in splits:
        st.session_state[_SPLIT] = splits[0]
    chosen: str | None = st.segmented_control(
        "Images",
        splits,
        format_func=SPLIT_WORDS.__getitem__,
        required=True,
        key=_SPLIT,
        on_change=_write_split,
        help="Test images are seen once, after training. Dev images chose the best epoch, so their accuracy is slightly flattered. "
        "Train images are what the model learned from: how it does on them says how much it memorised.",
    )
    return chosen


def _write_split() -> None:
    st.query_params[_SPLIT] = st.session_state[_SPLIT]


def _not_evaluated(run: RunSummary) -> None:
    """Why there is nothing to explore, and what to do about it."""
    can_be_evaluated = find_run(run.run_id).best_weights.is_file()
    with st.container(border=True):
        status_badge(run.status)
        if run.status.is_active:
            st.markdown("This run is still training. It is evaluated when all epochs are done, and then appears here by itself.")
            _wait_for_evaluation(run.run_id)
        elif run.status is RunStatus.FAILED:
            st.markdown(f"This run failed before it was evaluated: {plain(run.message)}")
        elif can_be_evaluated:
            st.markdown("This run ended before it was evaluated. Its best weights so far can be evaluated from the command line:")
            st.code(f"python -m cifar_tl evaluate {run.run_id}", language="shell")
        else:
            st.markdown("This run ended before it was evaluated, and has no weights that could be: its first epoch was not done.")
        if st.button("Open the run", icon=":material/monitoring:"):
            st.switch_page(TRAIN_PAGE, query_params={RUN_PARAMETER: run.run_id})


@st.fragment(run_every=_REFRESH_SECONDS)
@page_boundary()
def _wait_for_evaluation(run_id: str) -> None:
    is_over = next((not run.status.is_active for run in summaries() if run.run_id == run_id), True)
    if is_over or evaluated_splits(run_id):
        st.rerun()


def _show(run: RunSummary, split: str) -> None:
    try:
        loaded = explored(run.run_id, split)
    except (RunInvalid, FileNotFoundError) as error:
        show_error(error if isinstance(error, RunInvalid) else RunInvalid(f"The evaluation of run {run.run_id} has just been removed."))
        return
    if run.status is not RunStatus.COMPLETED:
        _unfinished(run, split)
    _headline(loaded)
    view = st.segmented_control(
        "View", list(VIEWS), default="Confusion", required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    VIEWS[view](loaded)


def _unfinished(run: RunSummary, split: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(run.status)
        if run.status.is_active and split == "dev":
            st.caption("This run still trains. The numbers are of its best epoch so far; Confusion follows the newest.", width="content")


def _headline(loaded: Explored) -> None:
    evaluation = loaded.evaluation
    first = accuracy(evaluation)
    metrics = [_accuracy("Accuracy", first, "The share of images whose likeliest class is the true one.")]
    if evaluation.num_classes > evaluation.top_classes_NK.shape[1]:
        fifth = top_k_accuracy(evaluation, 5)
        metrics.append(_accuracy("Top-5 accuracy", fifth, "The share of images with the true class among the five likeliest."))
    metrics += [
        Metric(
            f"{SPLIT_WORDS[loaded.split]} images",
            f"{len(evaluation):,}",
            f"of {evaluation.num_classes} classes in {plain(loaded.manifest.data_title)}",
        ),
        Metric("Mistakes", f"{first.total - first.hits:,}", f"{format_percent(1 - first.fraction)} of the images"),
    ]
    metric_row(metrics)


def _accuracy(label: str, share: Proportion, help: str) -> Metric:
    low, high = share.interval
    note = f"95 % interval: {100 * low:.1f} to {100 * high:.1f} %"
    return Metric(label, format_percent(share.fraction), note, f"{help} The interval (Wilson) is what a sample of this size can tell.")


if __name__ == "__main__":
    with page_boundary():
        page()
