"""What all contenders are given alike: a network, a device, a batch in memory. Nothing in here is quick on purpose.

`plain_compute` and `plain_network` are what the program has before it makes anything quick; `engine_compute` and `ready_network` after.
B images, C = 3 channels, H x W pixels.
"""

from collections.abc import Callable

import torch

from cifar_tl.data.sources import prepare
from cifar_tl.devices import Compute, available_devices, choose_compute, has_native_bf16
from cifar_tl.models.build import Classifier, build_classifier


def plain_compute(device: str) -> Compute:
    """The device and precision that `choose_compute` would choose, without what it does to this process's malloc."""
    name = available_devices()[0] if device == "auto" else device
    return Compute(torch.device(name), "bf16" if has_native_bf16(name) else "float32")


def engine_compute(device: str) -> Compute:
    return choose_compute(device)


def plain_network(model: str, weights: str, num_classes: int, image_size: int) -> Classifier:
    """As built, on the CPU: not `ready()`, which is what makes it quick."""
    torch.manual_seed(0)
    return build_classifier(model, weights=weights, num_classes=num_classes, image_size=image_size)


def channels_last_network(model: str, weights: str, num_classes: int, image_size: int, compute: Compute) -> Classifier:
    """A plain network with the one thing that every tuning guide says: channels_last memory."""
    network = plain_network(model, weights, num_classes, image_size)
    network.to(memory_format=torch.channels_last)
    return network.to(compute.device)


def ready_network(model: str, weights: str, num_classes: int, image_size: int, compute: Compute) -> Classifier:
    return plain_network(model, weights, num_classes, image_size).ready(compute.device, image_size)


def batch_in_memory(batch: int, image_size: int, num_classes: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised random images_BCHW in channels_last memory, and labels_B."""
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(batch, 3, image_size, image_size, generator=generator).to(memory_format=torch.channels_last)
    return images_BCHW.to(device), torch.randint(num_classes, (batch,), generator=generator).to(device)


def num_classes_of(source: str) -> int:
    """Prepares the source if need be."""
    return prepare(source).info.num_classes


def waiting_for(device: torch.device) -> Callable[[], object]:
    """Waits until a GPU has done what it was asked; nothing to wait for on a CPU."""
    waits: dict[str, Callable[[], object]] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    return waits.get(device.type, lambda: None)
