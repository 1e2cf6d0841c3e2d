"""One widget per declared setting, made from its declaration alone: title, unit, help, bounds, choices.

A widget keeps its value under `state.setting_key(name)` for the whole session, drawn or not, so that hidden settings and
those set by a preset count like all others. Which settings are drawn where is the form's business (`ui.train_form`).
"""

import math
from collections.abc import Callable
from typing import Any

import streamlit as st

from cifar_tl.settings import CHOICE_LABELS, NEEDED_WITH, Setting, settings
from cifar_tl.ui.state import setting_key

# What an optional number means while its box is empty.
WHEN_EMPTY = {"images_per_class": "All", "first_image_size": "Same as image size"}


def current_value(setting: Setting) -> Any:
    """The setting's value in this session, as `make_config` takes it. One without effect counts as its default: its widget,
    which is disabled, keeps what was entered for when it matters again, and no run is refused for it meanwhile.
    """
    if not _matters(setting):
        return setting.default
    value = st.session_state.get(setting_key(setting.name), setting.default)
    if setting.kind is tuple:
        return tuple(value)
    return (value or "").strip() if setting.kind is str else value


def current_values() -> dict[str, Any]:
    """All settings of this session by name."""
    return {setting.name: current_value(setting) for setting in settings()}


def set_value(setting: Setting, value: Any) -> None:
    """Only before the widget is drawn in this run of the script, as in a callback."""
    st.session_state[setting_key(setting.name)] = list(value) if setting.kind is tuple else value


def label_of(setting: Setting) -> str:
    """The title, with the unit where the title does not say it."""
    unit = "×" if setting.unit == "x" else setting.unit
    is_said = not unit or unit.removesuffix("s") in setting.title.lower()
    return setting.title if is_said else f"{setting.title} ({unit})"


def value_in_words(setting: Setting, value: Any) -> str:
    """A value as a caption shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if setting.kind is tuple:
        return f"{len(value)} chosen"
    return CHOICE_LABELS.get(value, str(value)) if setting.choices else str(value)


def setting_widget(setting: Setting, *, on_change: Callable[[], None], options: tuple[str, ...] = ()) -> None:
    """Draw the widget of one setting. `options` are the known class names, for the setting that chooses classes."""
    common: dict[str, Any] = {
        "key": setting_key(setting.name),
        "help": setting.help,
        "on_change": on_change,
        "persist_state": "session",
        "disabled": not _matters(setting),
    }
    if setting.choices:
        _choice(setting, common)
    elif setting.kind is bool:
        _switch(setting, common)
    elif setting.kind is int:
        _whole_number(setting, common)
    elif setting.kind is float:
        _number(setting, common)
    elif setting.kind is tuple:
        _names(setting, common, options)
    else:
        _text(setting, common)


def _matters(setting: Setting) -> bool:
    if setting.name not in NEEDED_WITH:
        return True
    other, values = NEEDED_WITH[setting.name]
    return st.session_state.get(setting_key(other)) in values


def _choice(setting: Setting, common: dict[str, Any]) -> None:
    st.selectbox(label_of(setting), setting.choices, format_func=lambda choice: CHOICE_LABELS.get(choice, choice), **common)


def _switch(setting: Setting, common: dict[str, Any]) -> None:
    st.toggle(label_of(setting), **common)


def _whole_number(setting: Setting, common: dict[str, Any]) -> None:
    if setting.is_optional:
        common |= {"value": None, "placeholder": WHEN_EMPTY[setting.name]}
    st.number_input(
        label_of(setting), min_value=_whole(setting.minimum), max_value=_whole(setting.maximum), step=_whole(setting.step) or 1, **common
    )


def _number(setting: Setting, common: dict[str, Any]) -> None:
    st.number_input(
        label_of(setting),
        min_value=None if setting.minimum is None else float(setting.minimum),
        max_value=None if setting.maximum is None else float(setting.maximum),
        step=setting.step or _step_of(float(setting.default)),
        format="%g",
        **common,
    )


def _names(setting: Setting, common: dict[str, Any], options: tuple[str, ...]) -> None:
    chosen = st.session_state.get(setting_key(setting.name), [])
    unlisted = [name for name in chosen if name not in options]
    st.multiselect(label_of(setting), [*options, *unlisted], accept_new_options=True, placeholder="All classes", **common)


def _text(setting: Setting, common: dict[str, Any]) -> None:
    st.text_input(label_of(setting), **common)


def _step_of(default: float) -> float:
    """A tenth-power step of the default's size: 0.03 moves by 0.01, 0.0005 by 0.0001."""
    return float(10 ** math.floor(math.log10(default))) if default > 0 else 0.01


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
