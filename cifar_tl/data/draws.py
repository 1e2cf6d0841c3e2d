"""Random numbers for the images of a batch, one row of them for each image.

A process that has only a share of a batch (`cifar_tl.group`) draws for the whole batch and keeps the rows of its own images: so
what happens to an image does not depend on how many processes train the run.
"""

from dataclasses import dataclass, replace

import torch

_HOST_STREAM = 0x5DEECE66D  # any constant: sets the host's draws apart from the device's with the same seed


@dataclass(frozen=True)
class SharedGenerator:
    """A generator for a batch of `images` images, of which those in `own` are here."""

    generator: torch.Generator
    images: int
    own: slice

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def initial_seed(self) -> int:
        return self.generator.initial_seed()


Random = torch.Generator | SharedGenerator


def host_generator(random: Random) -> torch.Generator:
    """A generator on the processor, for numbers that it must know: reading one back from a GPU would wait for all its work."""
    return torch.Generator().manual_seed(random.initial_seed() ^ _HOST_STREAM)


def known_to_host(random: Random) -> Random:
    """`random` itself where its numbers are the processor's anyway, else the same draws for the same images by `host_generator`."""
    if random.device.type == "cpu":
        return random
    host = host_generator(random)
    return replace(random, generator=host) if isinstance(random, SharedGenerator) else host


def uniform(random: Random, count: int, *more: int) -> torch.Tensor:
    """float32 in [0, 1), count x more, on the generator's device."""
    if isinstance(random, SharedGenerator):
        return uniform(random.generator, random.images, *more)[random.own]
    return torch.rand(count, *more, generator=random, device=random.device)


def integers(random: Random, low: int, high: int, count: int, *more: int) -> torch.Tensor:
    """int64 in [low, high), count x more, on the generator's device."""
    if isinstance(random, SharedGenerator):
        return integers(random.generator, low, high, random.images, *more)[random.own]
    return torch.randint(low, high, (count, *more), generator=random, device=random.device)


def permutation(random: Random, count: int) -> torch.Tensor:
    """An order of the `count` images that are here: partners in a batch are found among those."""
    generator = random.generator if isinstance(random, SharedGenerator) else random
    return torch.randperm(count, generator=generator, device=generator.device)
