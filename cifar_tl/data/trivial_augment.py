"""TrivialAugment (Müller and Hutter 2021, arXiv 2103.10158), vectorised: one change per image, of random strength.

The "wide" space of the paper, as torchvision's TrivialAugmentWide has it: 14 changes, strengths uniform from nothing to
the table's maximum, signs random. Every image of a batch gets its own change; geometry is one warp for all of them,
colour is done per change on the images that drew it.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from cifar_tl.data.draws import Random, integers, known_to_host, uniform
from cifar_tl.devices import constant, to_device

_GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_MAX_SHEAR = 0.99
_MAX_TRANSLATE = 1.0  # of the image; the paper's 32 pixels on CIFAR
_MAX_ROTATION = math.radians(135)
_MAX_COLOUR = 0.99


def trivial_augment(images_BCHW: torch.Tensor, generator: Random) -> torch.Tensor:
    """float32 images in [0, 1] of any size; the generator lives on the images' device."""
    count, device = len(images_BCHW), images_BCHW.device
    # The processor sorts the images by their change: to find those of one on a GPU it would wait for the GPU, once for each change.
    on_host_B = integers(known_to_host(generator), 0, len(_CHANGES), count)
    ends = on_host_B.bincount(minlength=len(_CHANGES)).cumsum(0).tolist()
    order_B, change_B = to_device(on_host_B.argsort(stable=True), device), to_device(on_host_B, device)
    strength_B = uniform(generator, count)
    sign_B = integers(generator, 0, 2, count) * 2 - 1
    result = images_BCHW.clone()
    chosen = order_B[ends[0] : ends[len(_GEOMETRY)]]
    if len(chosen):
        result[chosen] = _warp(images_BCHW[chosen], change_B[chosen], strength_B[chosen] * sign_B[chosen])
    for index, name in enumerate(_CHANGES):
        chosen = order_B[ends[index - 1] : ends[index]]
        if name in _COLOUR and len(chosen):
            result[chosen] = _COLOUR[name](images_BCHW[chosen], strength_B[chosen].view(-1, 1, 1, 1), sign_B[chosen].view(-1, 1, 1, 1))
    return result


def _warp(images_BCHW: torch.Tensor, change_B: torch.Tensor, amount_B: torch.Tensor) -> torch.Tensor:
    """Shear, shift and turn, each by its own signed amount in [-1, 1]; what comes in at the border is mid grey."""
    zero = torch.zeros_like(amount_B)

    def amount_of(name: str, most: float) -> torch.Tensor:
        return torch.where(change_B == _CHANGES.index(name), amount_B * most, zero)

    angle = amount_of("rotate", _MAX_ROTATION)
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([cos, amount_of("shear_x", _MAX_SHEAR) - sin, amount_of("translate_x", 2 * _MAX_TRANSLATE)], dim=1)
    second = torch.stack([amount_of("shear_y", _MAX_SHEAR) + sin, cos, amount_of("translate_y", 2 * _MAX_TRANSLATE)], dim=1)
    grid = F.affine_grid(torch.stack([first, second], dim=1), list(images_BCHW.shape), align_corners=False)
    # grid_sample fills with zero: shifted by half, zero is mid grey.
    return F.grid_sample(images_BCHW - 0.5, grid, mode="bilinear", align_corners=False) + 0.5


def _grey(images: torch.Tensor) -> torch.Tensor:
    weights = constant((0.299, 0.587, 0.114), images.device).view(1, 3, 1, 1)  # ITU-R BT.601
    return (images * weights).sum(1, keepdim=True)


def _blend(images: torch.Tensor, other: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    factor = 1 + sign * strength * _MAX_COLOUR
    return (other + factor * (images - other)).clamp(0, 1)


def _brightness(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _blend(images, torch.zeros_like(images), strength, sign)


def _colour(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _blend(images, _grey(images).expand_as(images), strength, sign)


def _contrast(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _blend(images, _grey(images).mean(dim=(2, 3), keepdim=True).expand_as(images), strength, sign)


def _sharpness(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    kernel = constant((1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0), images.device).view(3, 3) / 13  # Pillow's SMOOTH
    smooth = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel.expand(3, 1, 3, 3), groups=3)
    return _blend(images, smooth, strength, sign)


def _posterize(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    levels = 2 ** (8 - (strength * 6).round())  # 8 bits down to 2
    return (images * 255 / 256 * levels).floor() * (256 / levels) / 255


def _solarize(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return torch.where(images >= 1 - strength, 1 - images, images)


def _autocontrast(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (images - low) / span.clamp(min=1e-6), images)


def _equalize(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Flatten the histogram of each channel: a pixel becomes the share of pixels that are darker."""
    pixels = images.mul(255).round().long().flatten(2)
    counts = torch.zeros(*pixels.shape[:2], 256, device=images.device).scatter_add_(2, pixels, torch.ones_like(pixels, dtype=torch.float32))
    cumulative = counts.cumsum(2)
    lowest = cumulative.gather(2, pixels.amin(2, keepdim=True))
    total = pixels.shape[2]
    flat = (cumulative.gather(2, pixels) - lowest) / (total - lowest).clamp(min=1)
    return torch.where(lowest < total, flat, images.flatten(2)).view_as(images)


_COLOUR: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "brightness": _brightness,
    "colour": _colour,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
_CHANGES = ("identity", *_GEOMETRY, *_COLOUR)
