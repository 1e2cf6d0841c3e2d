"""Presets: named sets of values for the form and the command line. They fill in values and do nothing else."""

from dataclasses import dataclass
from typing import Any

from cifar_tl.errors import SettingsError


@dataclass(frozen=True)
class Preset:
    """A named set of values for the form; everything not named keeps its default."""

    name: str
    summary: str
    values: dict[str, Any]


PRESETS: tuple[Preset, ...] = (
    Preset(
        "Quick look",
        "A first answer fast: only a new head is trained; the pretrained network looks at every image once.",
        {"trainable": "head", "image_size": 128, "epochs": 10, "batch_size": 128, "cached_views": 1},
    ),
    Preset(
        "Balanced",
        "The last stages adapt to your data: most of the accuracy for a fraction of the time.",
        {"trainable": "last_stages", "trainable_stages": 3, "image_size": 128, "epochs": 5, "batch_size": 128},
    ),
    Preset(
        "Best accuracy",
        "More stages train on larger images, for longer, with mixed images, four views of each and averaged weights.",
        {
            "trainable": "last_stages",
            "trainable_stages": 5,
            "image_size": 160,
            "epochs": 12,
            "batch_size": 128,
            "learning_rate": 0.02,
            "crop": True,
            "cached_views": 4,
            "mixup": 0.2,
            "cutmix": 1.0,
            "ema_decay": 0.998,
            "average_flips": True,
        },
    ),
)


def preset(name: str) -> Preset:
    """The preset of that name. Raises SettingsError."""
    for candidate in PRESETS:
        if candidate.name == name:
            return candidate
    raise SettingsError(f"There is no preset {name!r}. Presets: {', '.join(p.name for p in PRESETS)}.")
