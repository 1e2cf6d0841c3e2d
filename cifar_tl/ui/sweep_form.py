"""The form of a new sweep: what varies, how many trials, for how long. All other settings are those of the Train form.

What a setting is varied over at first, and what cannot be varied, is said by `sweeps.space`. No box has bounds: one that is out of them is
told in words with the other problems, while Streamlit would keep the number before it and say nothing.
"""

import math
from typing import Any

import streamlit as st

from cifar_tl.answers import EpochEstimate
from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError, SettingsError
from cifar_tl.models.catalog import backbones
from cifar_tl.settings import CHOICE_LABELS, Setting
from cifar_tl.sweeps.launcher import start_sweep
from cifar_tl.sweeps.space import Choice, Dimension, Range, checked, first_range, variable_settings, without_effect
from cifar_tl.sweeps.store import Pruner, Sweep, new_sweep
from cifar_tl.ui import cached, estimate, form_values, state
from cifar_tl.ui.charts.sweeps import choice_label
from cifar_tl.ui.setting_widgets import label_of
from cifar_tl.ui.widgets import format_duration, plain, show_error

SWEEP_PARAMETER = "sweep"
_PRUNERS = {
    Pruner.MEDIAN: "Below the median",
    Pruner.HYPERBAND: "Hyperband",
    Pruner.NONE: "Never",
}
_FIRST = ("learning_rate", "weight_decay")  # what varies until somebody chooses
_TRIALS = 20
_BATCH_SIZES = tuple(2**power for power in range(3, 12))


def show_sweep_form() -> None:
    form_values.fill_form()
    result = form_values.form_result(cached.hardware())
    with st.container(border=True):
        st.markdown("**New sweep**")
        if result.config is None or result.problems:
            st.warning("The settings on the Train page cannot be trained as they are: " + plain(" ".join(result.problems)))
            _to_train()
            return
        config = result.config
        place_of_the_others = st.container()  # they are known when what varies is
        space, problems = _space(config)
        with place_of_the_others:
            st.caption(f"What does not vary is as on the Train page: {plain(_in_words(config, {d.name for d in space}))}.")
            _to_train()
        sweep = new_sweep(config, tuple(space), **_asked())
        _time(config, sweep)
        problems += _problems(sweep)
        for problem in problems:
            st.error(plain(problem), icon=":material/block:")
        if st.button("Start sweep", type="primary", icon=":material/play_arrow:", disabled=bool(problems)):
            _start(sweep)


def _to_train() -> None:
    if st.button("Change them on the Train page", icon=":material/tune:", type="tertiary"):
        state.open_new_form()
        st.switch_page("cifar_tl/ui/pages/train.py")


def _in_words(config: RunConfig, varied: set[str]) -> str:
    words = {
        "source": form_values.source_in_words(config.source),
        "backbone": config.backbone,
        "trainable": CHOICE_LABELS[config.trainable].lower(),
        "image_size": f"{config.image_size} px",
        "epochs": f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}",
        "batch_size": f"batches of {config.batch_size}",
    }
    return ", ".join(text for name, text in words.items() if name not in varied)


def _space(config: RunConfig) -> tuple[list[Dimension], list[str]]:
    """What varies, and what is wrong with it."""
    titles = {setting.name: setting for setting in variable_settings()}
    chosen = st.multiselect(
        "What varies",
        list(titles),
        default=list(_FIRST),
        format_func=lambda name: titles[name].title,
        key="sweep.varies",
        persist_state="session",
    )
    space, problems = [], []
    for name in chosen:
        space.append(_dimension(titles[name], getattr(config, name)))
        try:
            checked(space[-1])
        except SettingsError as error:
            problems.append(str(error))
    return space, problems


def _dimension(setting: Setting, now: Any) -> Dimension:
    first = first_range(setting)
    if isinstance(first, Choice):
        return _choice(setting, first, now)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        least = _number(setting, f"{label_of(setting)}, from", f"sweep.low.{setting.name}", first.low, help=setting.help)
        most = _number(setting, "to", f"sweep.high.{setting.name}", first.high)
        help = "Tries as many values between 0.001 and 0.01 as between 0.01 and 0.1."
        by_factor = st.toggle("By factors", value=first.is_log, key=f"sweep.log.{setting.name}", help=help, persist_state="session")
    return Range(setting.name, least, most, bool(by_factor))


def _choice(setting: Setting, first: Choice, now: Any) -> Choice:
    key, options = f"sweep.values.{setting.name}", _options(setting, now)
    # One that came from the Train form stays, though that form has another by now.
    options += [value for value in st.session_state.get(key, ()) if value not in options]
    values = st.multiselect(
        label_of(setting),
        options,
        default=[value for value in options if value in first.values],
        format_func=lambda value: choice_label(setting.name, value),
        key=key,
        help=setting.help,
        persist_state="session",
    )
    return Choice(setting.name, tuple(values))


def _options(setting: Setting, now: Any) -> list[Any]:
    """All that can be chosen from; the value of the Train form is one of them."""
    if setting.kind is bool:
        return [False, True]
    if setting.choices:
        return list(setting.choices)
    if setting.name == "backbone":
        known: list[Any] = [entry.name for entry in backbones()]
        return known if now in known else [now, *known]
    step = int(setting.step or 1)
    numbers = set(range(int(setting.minimum or 0), int(setting.maximum or 0) + 1, step) if step > 1 else _BATCH_SIZES)
    return ([None] if setting.is_optional else []) + sorted(numbers | ({now} if now is not None else set()))


def _number(setting: Setting, label: str, key: str, first: float, help: str | None = None) -> float:
    if setting.kind is int:
        return st.number_input(label, value=int(first), step=int(setting.step or 1), key=key, help=help, persist_state="session")
    step = setting.step or _step_of(float(st.session_state.get(key) or first))
    return st.number_input(label, value=float(first), step=step, format="%g", key=key, help=help, persist_state="session")


def _step_of(value: float) -> float:
    """Of the value's own size, as in the Train form: 0.00005 moves by 0.00001. From a power of ten by a tenth of it, so never to 0."""
    return float(10 ** (math.ceil(math.log10(value)) - 1)) if value > 0 else 0.01


def _asked() -> dict[str, Any]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        trials = st.number_input("Trials", value=_TRIALS, step=1, key="sweep.trials", persist_state="session")
        minutes = st.number_input(
            "Time (minutes)", value=None, step=1.0, format="%g", placeholder="No limit", key="sweep.minutes", persist_state="session"
        )
        help = "How many trials train at the same time, on all devices of the machine together."
        at_once = st.number_input("At once", value=1, step=1, key="sweep.at_once", help=help, persist_state="session")
        pruner = st.selectbox(
            "Give up a trial early",
            list(_PRUNERS),
            help="By its dev accuracy after each epoch: below the median of the others by then; or Hyperband, which lets many trials begin and few go on.",
            format_func=_PRUNERS.__getitem__,
            key="sweep.pruner",
            persist_state="session",
        )
        name = st.text_input("Name", key="sweep.name", placeholder="Optional", max_chars=60, persist_state="session")
    st.caption(
        "Trials are chosen among by dev accuracy, and none looks at the test images: the best one can be tested when the sweep is over."
    )
    return {"trials": int(trials), "minutes": minutes, "at_once": int(at_once), "pruner": pruner, "name": name.strip()}


def _problems(sweep: Sweep) -> list[str]:
    """What is wrong with the sweep besides the values that a setting is varied over."""
    try:
        sweep.require_sound()
    except SettingsError as error:
        return [str(error)]
    return without_effect(sweep.base, sweep.space)


def _time(config: RunConfig, sweep: Sweep) -> None:
    """Only where the Train page has measured a run with its settings: a sweep is not worth a measurement of its own."""
    known = estimate.known_estimate(config)
    if not isinstance(known, EpochEstimate) or sweep.trials < 1:
        return
    words = f"About {sweep.trials:,} × {format_duration(known.run_seconds)}, the time of a run on the Train page: "
    words += f"**{format_duration(sweep.trials * known.run_seconds)}** in all, less where trials are given up or run at once."
    if any(dimension.name not in estimate.WITHOUT_EFFECT_ON_TIME for dimension in sweep.space):
        words += " What varies here changes the time of a run."
    st.markdown(f":material/timer: {words}")


def _start(sweep: Sweep) -> None:
    try:
        st.query_params[SWEEP_PARAMETER] = start_sweep(sweep)
    except CifarTLError as error:
        show_error(error)
        return
    st.rerun()
