"""The form of a new run: preset, data, model, the important settings, the advanced ones, and the card with the Start button.

Draws; what the form holds is in `ui.form_values`, single settings in `ui.setting_widgets`, the time in `ui.estimate`.
"""

import time

import streamlit as st

from cifar_tl.config import SECTIONS, RunConfig
from cifar_tl.errors import CifarTLError
from cifar_tl.presets import PRESETS
from cifar_tl.runs import launcher
from cifar_tl.settings import Setting, settings
from cifar_tl.ui import cached, estimate, form_values, state
from cifar_tl.ui.advice import advice
from cifar_tl.ui.backbone_picker import backbone_picker, is_comparing
from cifar_tl.ui.form_values import FormResult
from cifar_tl.ui.place import chosen_place, place_picker
from cifar_tl.ui.setting_widgets import setting_widget, value_in_words
from cifar_tl.ui.source_picker import known_class_names, source_picker
from cifar_tl.ui.widgets import RUN_PARAMETER, page_boundary, plain, show_error

POLL_SECONDS = 0.5
DOUBLE_CLICK_SECONDS = 2.0
MAX_LISTED_RUNS = 3
# Drawn by hand: the two pickers know more than a text box, and the name stands with the Start button.
_OWN_WIDGETS = frozenset({"source", "backbone", "name"})
_MOST_COLUMNS = 4


def show_form() -> None:
    _settle_last_start()
    form_values.fill_form()
    st.title("Train", anchor=False)
    _presets()
    left, right = st.columns([5, 3], gap="medium")
    with left:
        _data_and_model()
        _important_settings()
        place_of_advice = st.container()
        _advanced_settings()
    result = form_values.form_result(cached.hardware())
    with place_of_advice:
        advice(None if result.problems else result.config)
    with right:
        _start_card(result)
        _runs_in_progress()


def _settle_last_start() -> None:
    """Open a fresh Start button after a run was started, or go to that run if this is the echo of a double click.

    The second click's message may have left the browser before ?run= arrived there: the page is then asked for without it.
    """
    started = state.started_run()
    if not started.run_id:
        return
    if time.monotonic() - started.at < DOUBLE_CLICK_SECONDS:
        st.query_params[RUN_PARAMETER] = started.run_id
        st.rerun()
    state.open_new_form()


def _runs_in_progress() -> None:
    running = [run for run in cached.summaries() if run.status.is_active]
    if not running:
        return
    with st.container(border=True):
        st.caption(
            f"Running now; the times above are measured beside {'it' if len(running) == 1 else 'them'}. "
            "A run that you start waits until a device is free, and then begins by itself."
        )
        for run in running[:MAX_LISTED_RUNS]:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"{plain(run.label)}  \n:small[{plain(form_values.source_in_words(run.data_title))}]", width="stretch")
                if st.button("Show", key=f"show.{run.run_id}", icon=":material/monitoring:"):
                    st.query_params[RUN_PARAMETER] = run.run_id
                    st.rerun()
        if len(running) > MAX_LISTED_RUNS:
            st.caption(f"And {len(running) - MAX_LISTED_RUNS} more: see Runs.")


def _presets() -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Preset",
            [preset.name for preset in PRESETS],
            key=state.PRESET,
            on_change=form_values.apply_preset,
            label_visibility="collapsed",
            persist_state="session",
        )
        chosen = st.session_state[state.PRESET]
        summary = next((preset.summary for preset in PRESETS if preset.name == chosen), "Your own settings.")
        st.caption(summary, width="content")


def _data_and_model() -> None:
    data, model = st.columns(2)
    with data.container(border=True, height="stretch"):
        source_picker(on_change=form_values.match_preset)
    with model.container(border=True, height="stretch"):
        backbone_picker(on_change=form_values.match_preset)


def _important_settings() -> None:
    important = [setting for setting in settings() if not setting.advanced and setting.name not in _OWN_WIDGETS]
    choices = [setting for setting in important if setting.choices]
    numbers = [setting for setting in important if not setting.choices]
    with st.container(border=True):
        _grid(choices, columns=2)
        _grid(numbers, columns=_MOST_COLUMNS)


def _advanced_settings() -> None:
    shown = st.toggle("Advanced settings", key=state.SHOW_ADVANCED, persist_state="session")
    changed = form_values.changed_advanced()
    if changed:
        st.caption("Not at their defaults: " + ", ".join(f"{s.title} {value_in_words(s, value)}" for s, value in changed) + ".")
    if not shown:
        return
    for section in SECTIONS:
        advanced = [setting for setting in settings() if setting.advanced and setting.section == section]
        if advanced:
            with st.container(border=True):
                st.markdown(f"**{section}**")
                _grid(advanced, columns=3)


def _grid(shown: list[Setting], *, columns: int) -> None:
    for start in range(0, len(shown), columns):
        row = shown[start : start + columns]
        for column, setting in zip(st.columns(columns, vertical_alignment="bottom"), row, strict=False):
            with column:
                options = known_class_names() if setting.name == "classes" else ()
                setting_widget(setting, on_change=form_values.match_preset, options=options)


def _start_card(result: FormResult) -> None:
    with st.container(border=True):
        st.text_input(
            "Run name",
            key=state.setting_key("name"),
            placeholder="Optional",
            max_chars=100,
            persist_state="session",
            help="Shown in lists; can be changed later.",
        )
        place_picker()
        for problem in result.problems:
            st.error(plain(problem), icon=":material/block:")
        if result.config is not None and not result.problems:
            is_polling = estimate.is_missing(result.config)
            st.fragment(_time, run_every=POLL_SECONDS if is_polling else None)(result.config, was_missing=is_polling)
        started = state.started_run()
        st.button(
            "Start training",
            type="primary",
            icon=":material/play_arrow:",
            width="stretch",
            disabled=bool(result.problems),
            key=f"train.start.{started.form_number}",
            on_click=start,
            args=(started.form_number,),
        )
        if started.error is not None:
            show_error(started.error)
        st.caption("The run goes on by itself: you may close this page, reload it, or stop the dashboard.")


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _time(config: RunConfig, *, was_missing: bool) -> None:
    estimate.request_estimate(config)
    known = estimate.known_estimate(config)
    # Once, when the time comes to be known or is to be measured again: it ends or begins the refreshing.
    if was_missing != (known is None) and not is_comparing():
        st.rerun()
    if known is None:
        st.markdown(":material/timer: Measuring how long an epoch takes here…")
        return
    if isinstance(known, CifarTLError):
        st.warning(f"The time cannot be told: {plain(str(known))}", icon=":material/timer_off:")
    else:
        st.markdown(f":material/timer: {estimate.sentence_of(known, cached.hardware(), config)}")
        is_elsewhere = chosen_place() != launcher.HERE or config.processes != 1
        how = " on this machine, with one process" if is_elsewhere else ""
        when = estimate.age_in_words(known, time.time())
        st.caption(
            f"Measured with a few steps{how}{when}: {known.images_per_second:,.0f} images/s, {known.train_images:,} training images."
        )
    st.button(
        "Measure again",
        icon=":material/refresh:",
        type="tertiary",
        help="The time depends on what else this machine does meanwhile.",
        on_click=estimate.forget_estimate,
        args=(config,),
    )


def start(form_number: int) -> None:
    """Callback of the Start button: make one run of the form as it is now, however often this button is clicked.

    The form is checked anew: an edit may arrive together with the click, after the button was drawn.
    """
    started = state.started_run()
    with started.starting:
        if not started.run_id and started.form_number == form_number:
            result = form_values.form_result(cached.hardware())
            if result.config is None or result.problems:
                return
            try:
                started.run_id, started.at, started.error = launcher.start_run(result.config, chosen_place()), time.monotonic(), None
            except CifarTLError as error:
                started.error = error
                return
    if started.run_id:
        st.query_params[RUN_PARAMETER] = started.run_id
