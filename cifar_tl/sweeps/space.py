"""Which settings a sweep varies, and over which values: said by a person, checked before anything starts.

On the command line and in the form's summary a dimension is written as

    learning_rate=0.001..0.1:log        a range of numbers, here with all factors alike; without :log all differences are alike
    batch_size=32..256                  whole numbers where the setting has whole numbers
    trainable=head,last_stages          a choice
    flip=true,false
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar_tl.config import BUNDLED_BACKBONE, RunConfig, make_config
from cifar_tl.errors import SettingsError
from cifar_tl.settings import Setting, settings

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str | None
_SECTIONS = ("Model", "Training", "Augmentation", "Regularisation")
_FIXED = ("evaluate_test",)  # a sweep decides that itself
_LOG = ":log"
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
        return f"{self.name}={self.low:g}..{self.high:g}{_LOG if self.is_log else ''}"


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
    if isinstance(dimension, Range):
        if setting.kind not in (int, float):
            raise SettingsError(f"{setting.title} has no range; write the values to choose from, as {setting.name}=a,b.")
        if not dimension.low < dimension.high:
            raise SettingsError(
                f"{setting.title}: the range must go from a smaller to a larger value, not {dimension.low:g} to {dimension.high:g}."
            )
        if dimension.is_log and dimension.low <= 0:
            raise SettingsError(f"{setting.title}: a logarithmic range begins above 0.")
        values: tuple[Value, ...] = tuple(setting.kind(bound) for bound in (dimension.low, dimension.high))
    else:
        values = dimension.values
        if len(set(map(_text, values))) < 2:
            raise SettingsError(f"{setting.title}: give at least two different values to choose from.")
    for value in values:
        _require_possible(setting, value)
    return dimension


def require_space(space: tuple[Dimension, ...]) -> None:
    """Raises SettingsError if nothing varies, or something twice."""
    names = [dimension.name for dimension in space]
    if not names:
        raise SettingsError("Choose at least one setting that the sweep is to vary.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"{_setting(min(twice)).title} is varied twice.")


def suggest(trial: "optuna.Trial", space: tuple[Dimension, ...]) -> dict[str, Value]:
    """The next values to try, as Optuna's sampler sees fit."""
    values: dict[str, Value] = {}
    for dimension in space:
        if isinstance(dimension, Choice):
            values[dimension.name] = trial.suggest_categorical(dimension.name, dimension.values)
        elif _setting(dimension.name).kind is int:
            values[dimension.name] = trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high), log=dimension.is_log)
        else:
            values[dimension.name] = trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.is_log)
    return values


def config_of(base: dict[str, Any], values: dict[str, Value]) -> RunConfig:
    """Settings of one trial. Raises SettingsError for combinations that cannot be."""
    return make_config(**base | values)


def to_json(dimension: Dimension) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        return {"name": dimension.name, "values": list(dimension.values)}
    return {"name": dimension.name, "low": dimension.low, "high": dimension.high, "log": dimension.is_log}


def from_json(raw: dict[str, Any]) -> Dimension:
    if "values" in raw:
        return checked(Choice(raw["name"], tuple(raw["values"])))
    return checked(Range(raw["name"], raw["low"], raw["high"], bool(raw["log"])))


def _setting(name: str) -> Setting:
    found = next((item for item in variable_settings() if item.name == name), None)
    if found is None:
        raise SettingsError(f"A sweep cannot vary {name!r}. It can vary: {', '.join(item.name for item in variable_settings())}.")
    return found


def _number(setting: Setting, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise SettingsError(f"{setting.title}: {text.strip()!r} is no number.") from None
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
    too_low = setting.minimum is not None and (value < setting.minimum or (setting.exclusive_minimum and value == setting.minimum))
    if too_low or (setting.maximum is not None and value > setting.maximum):
        raise SettingsError(f"{setting.title} cannot be {value:g}: it lies between {setting.minimum:g} and {setting.maximum:g}.")


def _text(value: Value) -> str:
    return (
        "" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    )
