"""The declared settings as a list, for whoever shows them: the form, the command line, the README. Declares none itself."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from cifar_tl.config import RunConfig

CHOICE_LABELS: dict[str, str] = {
    "head": "Head only",
    "last_stages": "Last stages and head",
    "everything": "Everything",
    "head_then_everything": "Head first, then everything",
    "sgd": "SGD with Nesterov momentum",
    "adamw": "AdamW",
    "one_cycle": "One cycle (warm-up, then cosine to zero)",
    "constant": "Constant after warm-up",
    "none": "None",
    "weighted_loss": "Weighted loss",
    "balanced_sampling": "Balanced sampling",
    "auto": "Automatic",
    "float32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "cuda": "CUDA GPU",
    "mps": "Apple GPU (MPS)",
    "cpu": "CPU",
}

_BACKBONE_TRAINS = frozenset({"last_stages", "everything", "head_then_everything"})
_EVERYTHING_TRAINS = frozenset({"everything", "head_then_everything"})
_SOMETHING_IS_FROZEN = frozenset({"head", "last_stages", "head_then_everything"})
# A setting matters always; only these need another one: (setting, values with which it matters).
NEEDED_WITH: dict[str, tuple[str, frozenset[str]]] = {
    "trainable_stages": ("trainable", frozenset({"last_stages"})),
    "head_epochs": ("trainable", frozenset({"head_then_everything"})),
    "stage_learning_rate_decay": ("trainable", _BACKBONE_TRAINS),
    "freeze_batch_norm": ("trainable", _BACKBONE_TRAINS),
    "first_image_size": ("trainable", _EVERYTHING_TRAINS),
    "cached_views": ("trainable", _SOMETHING_IS_FROZEN),
    "cache_limit": ("trainable", _SOMETHING_IS_FROZEN),
}


@dataclass(frozen=True)
class Setting:
    """One declared setting, as the form and the command line need it."""

    name: str
    title: str
    help: str
    section: str
    unit: str
    advanced: bool
    default: Any
    choices: tuple[str, ...] = ()
    kind: type = str  # bool, int, float, str or tuple
    is_optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    step: float | None = None


def settings() -> tuple[Setting, ...]:
    """All settings in the order of their declaration (which is the form's order)."""
    return tuple(_describe(name, info) for name, info in RunConfig.model_fields.items() if name != "version")


def _describe(name: str, info: FieldInfo) -> Setting:
    extra = info.json_schema_extra
    assert isinstance(extra, dict), f"{name} is not declared with setting()"
    annotation: Any = info.annotation
    bounds = {key: value for item in info.metadata for key in ("ge", "gt", "le", "lt") if (value := getattr(item, key, None)) is not None}
    arguments = get_args(annotation)
    is_literal = get_origin(annotation) is Literal
    is_optional = type(None) in arguments
    kind = str if is_literal else tuple if get_origin(annotation) is tuple else arguments[0] if is_optional else annotation
    step: Any = extra["step"]
    return Setting(
        name=name,
        title=info.title or name,
        help=info.description or "",
        section=str(extra["section"]),
        unit=str(extra["unit"]),
        advanced=bool(extra["advanced"]),
        default=info.default,
        choices=tuple(map(str, arguments)) if is_literal else (),
        kind=kind,
        is_optional=is_optional,
        minimum=bounds.get("ge", bounds.get("gt")),
        maximum=bounds.get("le", bounds.get("lt")),
        exclusive_minimum="gt" in bounds,
        step=step,
    )
