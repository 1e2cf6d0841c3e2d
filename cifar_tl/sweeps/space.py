"""Which settings a sweep varies, and over which values: said by a person, checked before anything starts.

On the command line and in the form's summary a dimension is written as

    learning_rate=0.001..0.1:log        a range of numbers, here with all factors alike; without :log all differences are alike
    epochs=5..20                        whole numbers where the setting has whole numbers
    image_size=64..160                  multiples of 32 px; batch_size goes in multiples of 8
    trainable=head,last_stages          a choice
    flip=true,false
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar_tl.config import BUNDLED_BACKBONE, RunConfig, make_config
from cifar_tl.errors import SettingsError
from cifar_tl.settings import CHOICE_LABELS, NEEDED_WITH, Setting, settings

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str | None
_SECTIONS = ("Model", "Training", "Augmentation", "Regularisation")
_FIXED = ("evaluate_test",)  # a sweep decides that itself
_LOG = ":log"
_BATCH_STEP = 8  # what tensor cores and vector units multiply at once
_BATCH_FACTOR, _SIZE_FACTOR = 2.0, 1.25  # at least, between values of a range by factors
_FIRST_CHOICES: dict[str, tuple[Value, ...]] = {
    "backbone": (BUNDLED_BACKBONE, "resnet18"),
    "batch_size": (64, 128, 256),
    "first_image_size": (None, 64, 96),
}
# Around what serves most data (docs/recipes.md, and the papers that each setting's help names). True: with all factors alike.
_FIRST_RANGES: dict[str, tuple[float, float, bool]] = {
    "learning_rate": (0.001, 0.1, True),
    "head_learning_rate_factor": (0.3, 10, True),
    "stage_learning_rate_decay": (0.5, 1, False),
    "warmup_fraction": (0, 0.3, False),
    "weight_decay": (1e-5, 1e-2, True),
    "mixup": (0, 0.4, False),
    "cutmix": (0, 1, False),
    "random_erasing": (0, 0.5, False),
    "label_smoothing": (0, 0.2, False),
    "dropout": (0, 0.5, False),
    "ema_decay": (0.9, 0.9999, False),
    "image_size": (64, 160, False),
    "epochs": (5, 20, False),
    "head_epochs": (1, 3, False),
    "trainable_stages": (1, 4, False),
    "cached_views": (1, 4, False),
    "early_stopping_patience": (2, 6, False),
}


@dataclass(frozen=True)
class Range:
    """low <= value <= high; of whole numbers if both are."""

    name: str
    low: float
    high: float
    is_log: bool = False

    def __str__(self) -> str:
        return f"{self.name}={_text(self.low)}..{_text(self.high)}{_LOG if self.is_log else ''}"


@dataclass(frozen=True)
class Choice:
    name: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.name}={','.join(_text(value) for value in self.values)}"


Dimension = Range | Choice


def variable_settings() -> tuple[Setting, ...]:
    """What a sweep may vary."""
    return tuple(item for item in settings() if item.section in _SECTIONS and item.name not in _FIXED and not _is_free_text(item))


def _is_free_text(setting: Setting) -> bool:
    """A setting whose values nobody can list, as the names of published weights: they go with one backbone each."""
    return setting.kind is tuple or (setting.kind is str and not setting.choices and setting.name != "backbone")


def first_range(setting: Setting) -> Dimension:
    """What a form offers for a setting until a person says otherwise; always one that the setting can have."""
    if setting.name in _FIRST_RANGES:
        return Range(setting.name, *_FIRST_RANGES[setting.name])
    if setting.name in _FIRST_CHOICES:
        return Choice(setting.name, _FIRST_CHOICES[setting.name])
    if setting.kind is bool:
        return Choice(setting.name, (False, True))
    assert setting.choices, f"{setting.name} has no first range: give it one in _FIRST_RANGES"
    return Choice(setting.name, setting.choices)


def parse_dimension(text: str) -> Dimension:
    """Raises SettingsError."""
    name, equals, written = (part.strip() for part in text.partition("="))
    setting = _setting(name.replace("-", "_"))
    if not equals or not written:
        raise SettingsError(f"{text!r} is no range or choice: write it as learning_rate=0.001..0.1:log or trainable=head,last_stages.")
    if ".." in written:
        is_log = written.endswith(_LOG)
        low, _, high = written.removesuffix(_LOG).partition("..")
        return checked(Range(setting.name, _number(setting, low), _number(setting, high), is_log))
    return checked(Choice(setting.name, tuple(_value(setting, part.strip()) for part in written.split(","))))


def checked(dimension: Dimension) -> Dimension:
    """The same, or SettingsError if the setting cannot have these values."""
    setting = _setting(dimension.name)
    _require_sound(setting, dimension)
    values = tuple(map(setting.kind, _bounds(dimension))) if isinstance(dimension, Range) else dimension.values
    for value in values:
        _require_possible(setting, value)
    if isinstance(dimension, Range) and (step := _step(setting)) > 1 and len(_multiples(dimension, step)) < 2:
        raise SettingsError(
            f"{setting.title} goes in steps of {step}, and between {dimension.low:g} and {dimension.high:g} are not two of them. "
            f"Make the range wider, or write the values to choose from, as {setting.name}={int(dimension.low)},{int(dimension.high)}."
        )
    return dimension


def _require_sound(setting: Setting, dimension: Dimension) -> None:
    """What can be drawn from at all. Raises SettingsError."""
    for value in _bounds(dimension) if isinstance(dimension, Range) else dimension.values:
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{setting.title} cannot be {value}: give a finite number.")
    if isinstance(dimension, Range):
        _require_range(setting, dimension)
    elif len(set(map(_text, dimension.values))) < 2:
        raise SettingsError(f"{setting.title}: give at least two different values to choose from.")


def _bounds(dimension: Range) -> tuple[float, float]:
    return dimension.low, dimension.high


def _require_range(setting: Setting, dimension: Range) -> None:
    if setting.kind not in (int, float):
        raise SettingsError(f"{setting.title} has no range; write the values to choose from, as {setting.name}=a,b.")
    if not dimension.low < dimension.high:
        low, high = _text(dimension.low), _text(dimension.high)
        raise SettingsError(f"{setting.title}: the range must go from a smaller to a larger value, not {low} to {high}.")
    if dimension.is_log and dimension.low <= 0:
        raise SettingsError(f"{setting.title}: a logarithmic range begins above 0.")


def require_space(space: tuple[Dimension, ...]) -> None:
    """Raises SettingsError if nothing varies, or something twice."""
    names = [dimension.name for dimension in space]
    if not names:
        raise SettingsError("Choose at least one setting that the sweep is to vary.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"{_setting(min(twice)).title} is varied twice.")


def without_effect(base: Mapping[str, Any], space: tuple[Dimension, ...]) -> list[str]:
    """In words, what varies and changes nothing in any trial, given what else varies and `base`: settings by name, the defaults for others."""
    possible = {dimension.name: dimension.values for dimension in space if isinstance(dimension, Choice)}
    titles = {item.name: item for item in settings()}
    problems = []
    for dimension in space:
        if dimension.name not in NEEDED_WITH:
            continue
        other, values = NEEDED_WITH[dimension.name]
        now = base.get(other, titles[other].default)
        if not values & set(possible.get(other, (now,))):
            needed = " or ".join(repr(CHOICE_LABELS[value]) for value in titles[other].choices if value in values)
            problems.append(
                f"{titles[dimension.name].title} has no effect here: it matters where {titles[other].title.lower()} is {needed}."
            )
    return problems


def suggest(trial: "optuna.Trial", space: tuple[Dimension, ...]) -> dict[str, Value]:
    """The next values to try, as Optuna's sampler sees fit."""
    values: dict[str, Value] = {}
    for dimension in space:
        if isinstance(dimension, Choice):
            values[dimension.name] = trial.suggest_categorical(dimension.name, dimension.values)
        elif _setting(dimension.name).kind is int:
            values[dimension.name] = _suggest_whole(trial, dimension)
        else:
            values[dimension.name] = trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.is_log)
    return values


def _suggest_whole(trial: "optuna.Trial", dimension: Range) -> int:
    """In multiples of the setting's step. A range of an older sweep that does not hold two of them is drawn from as it is."""
    step = _step(_setting(dimension.name))
    multiples = _multiples(dimension, step)
    if step > 1 and len(multiples) > 1:
        if not dimension.is_log:
            return trial.suggest_int(dimension.name, multiples[0], multiples[-1], step=step)
        factor = _BATCH_FACTOR if dimension.name == "batch_size" else _SIZE_FACTOR
        with suppress(ValueError):  # the trials of an older sweep have drawn all whole numbers, and Optuna wants that to go on
            return int(trial.suggest_categorical(dimension.name, _by_factors(multiples, factor)))  # it has no steps by factors
    return trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high), log=dimension.is_log)


def _step(setting: Setting) -> int:
    """Between whole numbers that are tried: image sizes near each other give the same accuracy, and a cache of features each."""
    if setting.kind is not int:
        return 1
    return _BATCH_STEP if setting.name == "batch_size" else int(setting.step or 1)


def _multiples(dimension: Range, step: int) -> range:
    """All multiples of the step in the range."""
    return range(-(-int(dimension.low) // step) * step, int(dimension.high) + 1, step)


def _by_factors(multiples: range, factor: float) -> list[int]:
    """Some of them, from the first on, each larger than the one before by about the same factor or more."""
    found = [multiples[0]]
    for number in multiples:
        if number >= factor * found[-1]:
            found.append(number)
    return found if len(found) > 1 else list(multiples)


def config_of(base: dict[str, Any], values: dict[str, Value]) -> RunConfig:
    """Settings of one trial. Raises SettingsError for combinations that cannot be."""
    return make_config(**base | values)


def to_json(dimension: Dimension) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        return {"name": dimension.name, "values": list(dimension.values)}
    return {"name": dimension.name, "low": dimension.low, "high": dimension.high, "log": dimension.is_log}


def from_json(raw: dict[str, Any]) -> Dimension:
    """Raises SettingsError for what cannot be drawn from. A sweep of before may hold values that are refused today, and is read all the same."""
    is_choice = "values" in raw
    found = Choice(raw["name"], tuple(raw["values"])) if is_choice else Range(raw["name"], raw["low"], raw["high"], bool(raw["log"]))
    setting = next((item for item in settings() if item.name == found.name), None)
    if setting is None:
        raise SettingsError(f"There is no setting {found.name!r}.")
    _require_sound(setting, found)
    return found


def _setting(name: str) -> Setting:
    found = next((item for item in variable_settings() if item.name == name), None)
    if found is None:
        given = next((item for item in settings() if item.name == name), None)
        if given is not None and given.section in _SECTIONS and _is_free_text(given):
            raise SettingsError(f"{given.title} cannot vary: which values there are depends on the backbone. Set it for all trials alike.")
        raise SettingsError(f"A sweep cannot vary {name!r}. It can vary: {', '.join(item.name for item in variable_settings())}.")
    return found


def _number(setting: Setting, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise SettingsError(f"{setting.title}: {text.strip()!r} is no number.") from None
    if not math.isfinite(number):
        raise SettingsError(f"{setting.title} cannot be {text.strip()}: give a finite number.")
    if setting.kind is int and number != int(number):
        raise SettingsError(f"{setting.title} has whole numbers only, not {text.strip()}.")
    return number


def _value(setting: Setting, text: str) -> Value:
    if setting.kind is bool:
        if text.lower() not in ("true", "false", "on", "off"):
            raise SettingsError(f"{setting.title} is true or false, not {text!r}.")
        return text.lower() in ("true", "on")
    if setting.is_optional and text == "":
        return None
    if setting.kind in (int, float):
        return setting.kind(_number(setting, text))
    return text


def _require_possible(setting: Setting, value: Value) -> None:
    """Bounds and choices of the setting itself; what it does beside others is seen at each trial."""
    if setting.choices and value not in setting.choices:
        raise SettingsError(f"{setting.title} cannot be {value!r}. It can be: {', '.join(setting.choices)}.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    excludes_maximum = _excludes_maximum(setting)
    too_low = setting.minimum is not None and (value < setting.minimum or (setting.exclusive_minimum and value == setting.minimum))
    too_high = setting.maximum is not None and (value > setting.maximum or (excludes_maximum and value == setting.maximum))
    if too_low or too_high:
        least = "" if setting.minimum is None else f"{'above' if setting.exclusive_minimum else 'at least'} {setting.minimum:g}"
        most = "" if setting.maximum is None else f"{'below' if excludes_maximum else 'at most'} {setting.maximum:g}"
        raise SettingsError(f"{setting.title} cannot be {_text(value)}: it must be {' and '.join(filter(None, (least, most)))}.")


def _excludes_maximum(setting: Setting) -> bool:
    return any(getattr(bound, "lt", None) is not None for bound in RunConfig.model_fields[setting.name].metadata)


def _text(value: Value) -> str:
    """As it is written in a dimension: in full, so that it is read back as it was."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
