"""What the Train form holds: first values, presets, the data set's two widgets, and the RunConfig that comes of them.

Works on session state and declarations; draws nothing. Problems come back as sentences, so that the form can refuse to
start with the reason instead of a worker dying of it.
"""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from cifar_tl.answers import Hardware
from cifar_tl.config import RunConfig, make_config
from cifar_tl.data import sources
from cifar_tl.data.sources import SourceStatus
from cifar_tl.errors import SettingsError
from cifar_tl.models import catalog
from cifar_tl.presets import PRESETS, preset
from cifar_tl.settings import CHOICE_LABELS, Setting, settings
from cifar_tl.ui import cached, state
from cifar_tl.ui.setting_widgets import current_value, current_values, set_value

FIRST_PRESET = PRESETS[0].name
FOLDER = "folder"
SOURCE_LABELS = {known.source: known.title for known in sources.KNOWN_SOURCES} | {FOLDER: "Image folder"}
FIRST_CHOICE, FALLBACK = "cifar100", "shapes"

# A preset says how to train, never on what, with which network, or where.
_NOT_BY_PRESET = frozenset({"backbone", "weights"})
_PRESET_SECTIONS = frozenset({"Model", "Training", "Augmentation", "Regularisation"})


@dataclass(frozen=True)
class FormResult:
    """The settings, or why there are none: `problems` is empty exactly when `config` may be started."""

    config: RunConfig | None
    problems: tuple[str, ...]


def fill_form() -> None:
    """Give every setting its first value, once a session: the first preset on the first data set that is at hand."""
    if st.session_state.get(state.FORM_IS_FILLED):
        return
    st.session_state[state.FORM_IS_FILLED] = True
    for setting in settings():
        if state.setting_key(setting.name) not in st.session_state:
            set_value(setting, setting.default)
    st.session_state[state.SOURCE_KIND] = FIRST_CHOICE if is_at_hand(FIRST_CHOICE) else FALLBACK
    st.session_state[state.SOURCE_FOLDER] = ""
    st.session_state[state.PRESET] = FIRST_PRESET
    apply_preset()


def is_at_hand(source: str) -> bool:
    """True if a run can start on this data set without a download."""
    return source_status(source).state in ("prepared", "on_disk")


def source_status(source: str) -> SourceStatus:
    """What is known of a data set, at the resolution and seed of the form."""
    values = current_values()
    return cached.source_status(source, store_resolution=int(values["store_resolution"]), seed=int(values["seed"]))


def preset_values(name: str) -> dict[str, Any]:
    """Every setting a preset speaks of: what it names, and the defaults of the others in its sections."""
    named = preset(name).values
    return {setting.name: named.get(setting.name, setting.default) for setting in settings() if _is_of_presets(setting)}


def _is_of_presets(setting: Setting) -> bool:
    return setting.section in _PRESET_SECTIONS and setting.name not in _NOT_BY_PRESET


def apply_preset() -> None:
    """Callback of the preset buttons: write its values into the widgets."""
    chosen = st.session_state[state.PRESET]
    if chosen is None:  # the pressed one was pressed again
        match_preset()
        return
    values = preset_values(chosen)
    for setting in settings():
        if setting.name in values:
            set_value(setting, values[setting.name])


def match_preset() -> None:
    """Callback of every setting: the buttons show the preset whose values the form has, or none."""
    now = {setting.name: current_value(setting) for setting in settings()}
    matching = (p.name for p in PRESETS if all(now[name] == value for name, value in preset_values(p.name).items()))
    st.session_state[state.PRESET] = next(matching, None)


def fill_from(config: RunConfig) -> None:
    """Write the settings of a run into the form, except its name: the next form that is drawn has them."""
    st.session_state[state.FORM_IS_FILLED] = True
    for setting in settings():
        set_value(setting, setting.default if setting.name == "name" else getattr(config, setting.name))
    is_folder = config.source.startswith(f"{FOLDER}:")
    st.session_state[state.SOURCE_KIND] = FOLDER if is_folder else config.source
    st.session_state[state.SOURCE_FOLDER] = config.source.removeprefix(f"{FOLDER}:") if is_folder else ""
    match_preset()


def changed_advanced() -> list[tuple[Setting, Any]]:
    """The advanced settings that differ from their defaults, with their values."""
    return [
        (setting, current_value(setting))
        for setting in settings()
        if setting.advanced and current_value(setting) != (tuple(setting.default) if setting.kind is tuple else setting.default)
    ]


def chosen_source() -> str:
    """The data set as `RunConfig.source` names it; '' while the path of a folder is still to be typed."""
    kind = str(st.session_state[state.SOURCE_KIND])
    if kind != FOLDER:
        return kind
    path = str(st.session_state.get(state.SOURCE_FOLDER) or "").strip()
    return f"{FOLDER}:{path}" if path else ""


def source_in_words(source: str) -> str:
    """A data set as people call it, also before it is prepared and has its own title."""
    return SOURCE_LABELS.get(source, source.removeprefix(f"{FOLDER}:"))


def form_result(hardware: Hardware | None) -> FormResult:
    """Check the whole form. `hardware` is None while it is not known yet; the worker then checks the device."""
    source = chosen_source()
    if not source:
        return FormResult(None, ("Type the path of a folder that holds one folder of pictures per class.",))
    try:
        config = make_config(**current_values() | {"source": source})
    except SettingsError as error:
        return FormResult(None, tuple(str(error).splitlines()))
    problems = [*_source_problems(source), *catalog.problems(config), *_device_problems(config, hardware)]
    return FormResult(config, tuple(problems))


def _source_problems(source: str) -> list[str]:
    status = source_status(source)
    return [status.message] if status.state == "invalid" else []


def _device_problems(config: RunConfig, hardware: Hardware | None) -> list[str]:
    if hardware is None or config.device in ("auto", *hardware.devices):
        return []
    present = ", ".join(CHOICE_LABELS[device] for device in hardware.devices)
    return [f"This machine has no {CHOICE_LABELS[config.device]} (it has: {present}). Choose Automatic under Advanced, Hardware."]
