"""The live view of one run: where it is, its curves, what to note, and what to do next. Shown by the Train page for ?run=ID.

Reads the run's folder through its follower and asks for a stop through the launcher; knows nothing of training. The body is
a fragment that refreshes itself while the run is alive and rests when it has ended.
"""

from dataclasses import dataclass

import streamlit as st

from cifar_tl.config import RunConfig
from cifar_tl.errors import explains_itself
from cifar_tl.paths import RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.annotations import read_annotations
from cifar_tl.runs.events import Completed, Failed, Stopped
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.queue import move_to_front
from cifar_tl.runs.store import RunManifest, RunStatus
from cifar_tl.runs.summary import NO_WORD
from cifar_tl.settings import CHOICE_LABELS
from cifar_tl.ui import cached, state
from cifar_tl.ui.charts.curves import Chart, accuracy_chart, learning_rate_chart, loss_chart
from cifar_tl.ui.divergence import divergence_note
from cifar_tl.ui.form_values import source_in_words
from cifar_tl.ui.gap import gap_note
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.progress import progress_of
from cifar_tl.ui.resume import resume_controls
from cifar_tl.ui.run_numbers import ended_metrics, live_metrics
from cifar_tl.ui.widgets import metric_row, page_boundary, plain, status_badge
from cifar_tl.ui.worker_log import last_lines

REFRESH_SECONDS = 1.0
LOG_LINES = 200
LOG_LINES_OF_A_FAILURE = 15
CHART_HEIGHT = 310


@dataclass(frozen=True)
class LiveRun:
    """One run as of now."""

    folder: RunFolder
    config: RunConfig
    manifest: RunManifest | None
    history: RunHistory
    status: RunStatus

    @property
    def run_id(self) -> str:
        return self.folder.run_id

    @property
    def is_running(self) -> bool:
        return self.status.is_active


def load_run(run_id: str) -> LiveRun:
    """Raises RunNotFound, RunInvalid."""
    follower = cached.follower(run_id)
    config, manifest = cached.settings_of(follower.folder)
    status = follower.update()
    return LiveRun(follower.folder, config, manifest, follower.history, status)


def show_live_view(run_id: str) -> None:
    """The whole view. Raises RunNotFound, RunInvalid."""
    run = load_run(run_id)
    every = refresh_seconds(run) if run.is_running else None
    st.fragment(refreshing_body, run_every=every)(run_id, was_running=run.is_running)
    _worker_log(cached.follower(run_id).folder)


def refresh_seconds(run: LiveRun) -> float:
    """As often as the run logs a step, within a second and two: looking more often shows nothing new, and twenty who watch add up."""
    steps = run.history.steps
    if len(steps) < 2:
        return REFRESH_SECONDS
    between = (steps[-1].step - steps[-2].step) * run.config.batch_size / steps[-1].images_per_second
    return min(2 * REFRESH_SECONDS, max(REFRESH_SECONDS, between))


@page_boundary()  # a fragment's own rerun does not pass through the page's
def refreshing_body(run_id: str, *, was_running: bool) -> None:
    run = load_run(run_id)
    if run.is_running is not was_running:
        st.rerun()  # the whole page: starts or ends the refreshing
    _header(run)
    _progress(run)
    _ending(run)
    if isinstance(run.history.terminal, Completed):
        metric_row(ended_metrics(run.history))
    elif run.history.started is not None:
        metric_row(live_metrics(run.history))
    _notes(run)
    if run.history.steps or run.history.epochs:
        _charts(run)
    else:
        _warnings(run)


def _header(run: LiveRun) -> None:
    """Buttons stand beside the caption: beside the title, a long name would push one of them down."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(plain(read_annotations(run.folder).name or run.config.name or run.run_id), width="content", anchor=False)
        status_badge(run.status)
    data = run.manifest.data_title if run.manifest else source_in_words(run.config.source)
    trains = CHOICE_LABELS[run.config.trainable]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f"{plain(data)} · {plain(run.config.backbone)} · {trains} · {run.config.image_size} px{plain(_device(run))}", width="content"
        )
        st.space("stretch")
        _buttons(run)


def _device(run: LiveRun) -> str:
    place = launcher.where(run.folder)
    cluster = "" if place == launcher.HERE else f" · Ray cluster {place}"
    started = run.history.started
    if started is None:
        return cluster
    # GPUs are one for each process; processes on a CPU share its cores.
    count = started.processes
    times = "" if count == 1 else f"{count} processes on " if started.device == "cpu" else f"{count} × "
    return f" · on {times}{started.device_name}{cluster}"


def _buttons(run: LiveRun) -> None:
    if run.is_running:
        is_stopping = run.folder.stop_request.exists()
        is_queued = run.status is RunStatus.QUEUED
        is_in_our_queue = is_queued and launcher.where(run.folder) == launcher.HERE
        if is_in_our_queue and st.button("Move to front", icon=":material/vertical_align_top:", help="Start it next."):
            move_to_front(run.run_id)
            st.rerun()
        st.button(
            "Stopping after the present step…" if is_stopping else "Cancel" if is_queued else "Stop",
            icon=":material/stop_circle:",
            disabled=is_stopping,
            key=f"stop.{run.run_id}",
            on_click=_request_stop,
            args=(run.run_id,),
        )
        return
    run_parameter = {"run": run.run_id}
    if run.status is RunStatus.COMPLETED and st.button("Explore", type="primary", icon=":material/query_stats:"):
        st.switch_page("cifar_tl/ui/pages/explore.py", query_params=run_parameter)
    if run.folder.best_weights.exists() and st.button("Predict", icon=":material/image_search:"):
        st.switch_page("cifar_tl/ui/pages/predict.py", query_params=run_parameter)
    resume_controls(run.folder, run.config, run.status, run.history)
    if st.button("New run", icon=":material/add:", help="Back to the form, which keeps its settings."):
        state.open_new_form()
        st.query_params.clear()
        st.rerun()


def _request_stop(run_id: str) -> None:
    launcher.request_stop(run_id)


def _progress(run: LiveRun) -> None:
    if run.is_running:
        progress = progress_of(run.history)
        st.progress(progress.fraction, text=plain(progress.text))


def _ending(run: LiveRun) -> None:
    """How the run ended, if that needs words."""
    end = run.history.terminal
    if isinstance(end, Failed):
        st.error(f"**The run failed.** {plain(end.message)}", icon=":material/error:")
        if not explains_itself(end.error):
            _log_tail(run.folder)
    elif run.status is RunStatus.FAILED:
        st.error(NO_WORD, icon=":material/error:")
        _log_tail(run.folder)
    elif isinstance(end, Stopped):
        kept = "The weights of the best epoch are kept." if run.folder.best_weights.exists() else "No weights were kept."
        st.info(f"Stopped after step {end.step:,} as asked. {kept} The test set was not touched.", icon=":material/stop_circle:")
    elif run.status is RunStatus.LOST:
        st.error(
            f"**The worker process vanished** without a last word{_lost_when(run.history)}: it was killed, the machine ran out of memory, "
            "or the power went. What it had written before is shown here and stays usable.",
            icon=":material/link_off:",
        )
        _log_tail(run.folder)


def _lost_when(history: RunHistory) -> str:
    if history.started is None:
        return ", before training began"
    return f" after step {history.steps[-1].step:,}" if history.steps else ", before its first logged step"


def _log_tail(folder: RunFolder) -> None:
    tail = last_lines(folder.worker_log, LOG_LINES_OF_A_FAILURE)
    if tail:
        st.caption("The end of the worker's log")
        st.code(tail, language=None, wrap_lines=True)
    else:
        st.caption("The worker wrote nothing into its log.")


def _notes(run: LiveRun) -> None:
    """What the curves say, in words: a loss that runs away, else a gap that opens."""
    num_classes = run.history.started.num_classes if run.history.started else 0
    runaway = divergence_note(run.history.steps, num_classes=num_classes, learning_rate=run.config.learning_rate)
    if runaway is not None:
        st.warning(runaway, icon=":material/trending_up:")
        return
    dev_images = run.history.started.dev_images if run.history.started else 0
    note = gap_note(run.history.epochs, run.config, dev_images=dev_images)
    if note is not None:
        show = st.warning if note.is_harmful else st.info
        show(f"{note.finding} {note.advice}", icon=":material/trending_flat:" if note.is_harmful else ":material/unfold_more:")


def _charts(run: LiveRun) -> None:
    with_reference = run.config.source == "cifar100" and not run.config.classes
    accuracy, loss, learning_rate = cached.drawn(run.folder, run.history.version, lambda: _draw(run.history, with_reference))
    left, right = st.columns(2)
    with left:
        _chart("Accuracy", accuracy, run, CHART_HEIGHT)
    with right:
        _chart("Loss", loss, run, CHART_HEIGHT)
    left, right = st.columns(2)
    with left:
        _chart("Learning rate", learning_rate, run, CHART_HEIGHT // 2 + 40)
    with right:
        _warnings(run)
        st.caption(
            "Train and dev are measured alike at the end of each epoch: without augmentation, with the same weights. The faint line is "
            "measured on the augmented batches while they train; it tells that learning goes on and is not comparable with the other two."
        )


def _draw(history: RunHistory, with_reference: bool) -> list[Chart]:
    return [accuracy_chart(history, with_reference=with_reference), loss_chart(history), learning_rate_chart(history)]


def _chart(title: str, chart: Chart, run: LiveRun, height: int) -> None:
    key = f"chart.{title}.{run.run_id}"
    live_plot(chart.traces, chart.layout, revision=run.run_id, key=key, description=chart.description, height=height)


def _warnings(run: LiveRun) -> None:
    for warning in {event.message: event for event in run.history.warnings}.values():
        st.warning(plain(warning.message), icon=":material/warning:")


def _worker_log(folder: RunFolder) -> None:
    if st.toggle("Show the worker's log", key=state.SHOW_LOG, persist_state="session"):
        _refreshing_log(folder)


@st.fragment(run_every=2.0)
@page_boundary()
def _refreshing_log(folder: RunFolder) -> None:
    text = last_lines(folder.worker_log, LOG_LINES)
    if text:
        st.code(text, language=None, height=320, wrap_lines=True)
    else:
        st.caption("The worker has written nothing into its log.")
