"""What the prediction process is asked and answers, as plain data: no torch, so that pages can import it and pickles stay small."""

from dataclasses import dataclass
from enum import StrEnum


class Framing(StrEnum):
    """What becomes of a picture that is no square."""

    CENTER = "Middle"
    WHOLE = "Whole"


@dataclass(frozen=True)
class Asked:
    """How pictures are to be answered. `average_flips` None: as the run was evaluated."""

    top_k: int = 5
    framing: Framing = Framing.CENTER
    average_flips: bool | None = None


@dataclass(frozen=True)
class RankedClass:
    """One class of an answer; `probability` in [0, 1], after temperature scaling where the run has dev answers to fit it on."""

    class_name: str
    superclass_name: str | None
    probability: float


@dataclass(frozen=True)
class RankedSuperclass:
    """One superclass of an answer: its classes' probabilities summed."""

    superclass_name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a model says of one file: ranked classes, or `error` as one clear line.

    `preview` is the decoded picture as a PNG or JPEG file, at most 256 px on the long side, `seen_png` what the model saw of it, at the stored
    resolution; `seconds` from bytes to answer. `familiarity` is the share of dev images that are at least as unlike the training images as
    this picture: 0 for what is like none of them; None where the run has nothing to compare with.
    """

    name: str
    classes: tuple[RankedClass, ...] = ()
    error: str = ""
    preview: bytes = b""
    seconds: float = 0.0
    superclasses: tuple[RankedSuperclass, ...] = ()
    seen_png: bytes = b""
    familiarity: float | None = None


@dataclass(frozen=True)
class Hardware:
    """What this machine trains on. `devices` are valid values of the device setting besides auto, best first."""

    devices: tuple[str, ...]
    device_name: str
    has_native_bf16: bool
    cpu_count: int
    memory_bytes: int


@dataclass(frozen=True)
class EpochEstimate:
    """Expected time of one epoch and of the whole run, from steps timed on this machine with these settings.

    `cache_bytes`: what the activations of the stages that do not train will take on disk.
    """

    train_images: int
    epoch_seconds: float
    run_seconds: float
    images_per_second: float
    device: str
    precision: str
    cache_bytes: int = 0
