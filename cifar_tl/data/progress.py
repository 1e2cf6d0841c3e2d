"""What sources tell whoever waits: how far preparing is, and whether it can start. Knows nothing of how it is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Availability = Literal["on_disk", "download"]


@dataclass(frozen=True)
class Progress:
    """`done` of `total` in `unit` ("bytes" or "images"); `total` 0 means unknown. `phase` is a text for people."""

    phase: str
    done: int
    total: int
    unit: str


Tell = Callable[[Progress], None]


def tell_nobody(progress: Progress) -> None:
    """For callers who do not want to know."""
