"""The form of a new sweep: what varies, how many trials, for how long. All other settings are those of the Train form."""

from typing import Any

import streamlit as st

from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError, SettingsError
from cifar_tl.models.catalog import backbones
from cifar_tl.settings import CHOICE_LABELS, Setting, settings
from cifar_tl.sweeps.launcher import start_sweep
from cifar_tl.sweeps.space import Choice, Dimension, Range, checked, variable_settings
from cifar_tl.sweeps.store import MOST_AT_ONCE, MOST_TRIALS, Pruner, Sweep
from cifar_tl.ui import cached, form_values, state
from cifar_tl.ui.widgets import plain, show_error

SWEEP_PARAMETER = "sweep"
_PRUNERS = {
    Pruner.MEDIAN: "Below the median",
    Pruner.HYPERBAND: "Hyperband",
    Pruner.NONE: "Never",
}
_FIRST = ("learning_rate", "weight_decay")  # what varies until somebody chooses
_TIMES = 10  # a range reaches from a tenth to ten times the value of the form
_LEAVES_ALONE: dict[str, Any] = {"evaluate_test": False, "describe": False, "tensorboard": False, "processes": 1}


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
        st.caption(f"What does not vary is as on the Train page: {plain(_in_words(config))}.")
        _to_train()
        space, problems = _space(config)
        asked = _asked()
        for problem in problems:
            st.error(plain(problem), icon=":material/block:")
        if st.button("Start sweep", type="primary", icon=":material/play_arrow:", disabled=bool(problems)):
            _start(config, tuple(space), asked)


def _to_train() -> None:
    if st.button("Change them on the Train page", icon=":material/tune:", type="tertiary"):
        state.open_new_form()
        st.switch_page("cifar_tl/ui/pages/train.py")


def _in_words(config: RunConfig) -> str:
    trains = CHOICE_LABELS[config.trainable].lower()
    source = form_values.source_in_words(config.source)
    return f"{source}, {config.backbone}, {trains}, {config.image_size} px, {config.epochs} epochs, batches of {config.batch_size}"


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
        try:
            space.append(checked(_dimension(titles[name], getattr(config, name))))
        except SettingsError as error:
            problems.append(str(error))
    if not chosen:
        problems.append("Choose at least one setting that the sweep is to vary.")
    return space, problems


def _dimension(setting: Setting, now: Any) -> Dimension:
    options = _options(setting)
    if options:
        values = st.multiselect(
            setting.title,
            options,
            default=options if len(options) <= 2 else [now] if now in options else None,
            format_func=lambda value: ("On" if value else "Off") if isinstance(value, bool) else CHOICE_LABELS.get(value, value),
            key=f"sweep.values.{setting.name}",
            help=setting.help,
            persist_state="session",
        )
        return Choice(setting.name, tuple(values))
    low, high, is_log = _first_range(setting, now)
    kind = setting.kind
    common: dict[str, Any] = {"step": 1} if kind is int else {"format": "%g", "step": None}
    common |= {"min_value": kind(setting.minimum or 0), "max_value": kind(setting.maximum or 10**6), "persist_state": "session"}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        least = st.number_input(f"{setting.title}, from", value=kind(low), key=f"sweep.low.{setting.name}", help=setting.help, **common)
        most = st.number_input("to", value=kind(high), key=f"sweep.high.{setting.name}", **common)
        help = "Tries as many values between 0.001 and 0.01 as between 0.01 and 0.1."
        by_factor = st.toggle("By factors", value=is_log, key=f"sweep.log.{setting.name}", help=help, persist_state="session")
    return Range(setting.name, float(least), float(most), bool(by_factor))


def _options(setting: Setting) -> list[Any]:
    if setting.kind is bool:
        return [False, True]
    if setting.name == "backbone":
        return [entry.name for entry in backbones()]
    return list(setting.choices) if setting.choices else []


def _first_range(setting: Setting, now: Any) -> tuple[float, float, bool]:
    least, most = setting.minimum or 0.0, setting.maximum if setting.maximum is not None else 1e6
    if now and setting.kind is float and most > 1 and not setting.unit:
        return max(least, now / _TIMES), min(most, now * _TIMES), True
    if now and setting.name in ("weight_decay",):
        return max(1e-6, now / _TIMES), min(most, now * _TIMES), True
    if setting.kind is int:
        base = int(now or setting.step or max(least, 1))
        return max(least, base // 2), min(most, base * 2), False
    return least, min(most, 0.9 if most <= 1 else 10 * (now or 1)), False


def _asked() -> dict[str, Any]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        trials = st.number_input("Trials", 1, MOST_TRIALS, 20, key="sweep.trials", persist_state="session")
        minutes = st.number_input(
            "Time (minutes)", 1.0, 100_000.0, None, format="%g", placeholder="No limit", key="sweep.minutes", persist_state="session"
        )
        at_once = st.number_input(
            "At once", 1, MOST_AT_ONCE, 1, key="sweep.at_once", help="Trials that share each device.", persist_state="session"
        )
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


def _start(config: RunConfig, space: tuple[Dimension, ...], asked: dict[str, Any]) -> None:
    base = config.model_dump(mode="json") | _LEAVES_ALONE
    titles = {setting.name: setting.title for setting in settings()}
    name = asked["name"] or "Sweep of " + ", ".join(titles[dimension.name].lower() for dimension in space[:3])
    varied = {dimension.name for dimension in space}
    sweep = Sweep(**asked | {"name": name}, base={key: value for key, value in base.items() if key not in varied}, space=space)
    try:
        st.query_params[SWEEP_PARAMETER] = start_sweep(sweep)
    except CifarTLError as error:
        show_error(error)
        return
    st.rerun()
