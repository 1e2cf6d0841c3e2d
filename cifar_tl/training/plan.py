"""What trains when, and at which image size: the plan of a run, made from its settings before it starts.

A run is one leg or two. Its image sizes, like its learning rates (`training.optim`), are pure functions of the epoch, so that a
resumed run goes on exactly.
"""

from dataclasses import dataclass

from cifar_tl.config import RunConfig
from cifar_tl.models.build import Classifier

_SIZE_STEP = 32  # of progressive resizing, in pixels
_FULL_SIZE_SHARE = 1 / 3  # of the epochs end at the full size


@dataclass(frozen=True)
class Leg:
    """A part of a run in which the same stages train: the first trained stage, and epochs [first_epoch, last_epoch)."""

    boundary: int
    first_epoch: int
    last_epoch: int

    @property
    def epochs(self) -> int:
        return self.last_epoch - self.first_epoch


def plan_legs(config: RunConfig, classifier: Classifier) -> list[Leg]:
    """Head first, then everything (Kumar et al. 2022, arXiv 2202.10054) has two legs, all else one."""
    if config.trainable == "head_then_everything":
        return [Leg(classifier.boundary("head", 0), 0, config.head_epochs), Leg(0, config.head_epochs, config.epochs)]
    return [Leg(classifier.boundary(config.trainable, config.trainable_stages), 0, config.epochs)]


def image_sizes(config: RunConfig, leg: Leg) -> list[int]:
    """The image size of each epoch of a leg.

    Under progressive resizing (Howard 2018) the epochs that train everything grow from the first image size in equal steps to
    the full size, which the last third and at least one epoch has, so that the network ends on what it is evaluated with (Touvron
    et al. 2019, arXiv 1906.06423, on why that matters). Everything else trains at the full size.
    """
    first, last = config.first_image_size, config.image_size
    if first is None or leg.boundary > 0:
        return [last] * leg.epochs
    growing = min(leg.epochs - 1, round(leg.epochs * (1 - _FULL_SIZE_SHARE)))
    sizes = [first + (last - first) * epoch / growing for epoch in range(growing)]
    return [max(first, int(size) // _SIZE_STEP * _SIZE_STEP) for size in sizes] + [last] * (leg.epochs - growing)
