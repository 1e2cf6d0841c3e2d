"""What the prediction process answers, as plain data: no torch, so that pages can import it and pickles stay small."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RankedClass:
    """One class of an answer; `probability` in [0, 1]."""

    class_name: str
    superclass_name: str | None
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a model says of one file: ranked classes, or `error` as one clear line.

    `preview_png` is the decoded picture, at most 256 px on the long side; `seconds` from bytes to answer.
    """

    name: str
    classes: tuple[RankedClass, ...] = ()
    error: str = ""
    preview_png: bytes = b""
    seconds: float = 0.0


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
