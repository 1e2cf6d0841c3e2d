"""Random changes of training images: pure functions on a batch, per image, on the batch's own device.

Images are float32 B x 3 x H x W in [0, 1] at the stored resolution, before the upscale, where a change costs a
sixteenth of what it costs at four times the size. Randomness comes from the generator that is passed and nowhere else;
it must live on the images' device. A share of a batch is changed as it would be within the whole (`data.draws`).
"""

import math

import torch
import torch.nn.functional as F

from cifar_tl.config import RunConfig
from cifar_tl.data.draws import Random, host_generator, integers, permutation, uniform
from cifar_tl.data.trivial_augment import trivial_augment
from cifar_tl.devices import to_device

_CROP_SHIFT = 1 / 8  # 4 of 32 pixels: the usual CIFAR crop (He et al. 2016)
_ERASED_AREA = (0.02, 0.33)  # share of the image, and
_ERASED_ASPECT = (0.3, 3.3)  # height / width of the rectangle: Zhong et al. 2020


def changes_each_image(config: RunConfig) -> bool:
    """True if training images are changed one by one in more ways than by a flip."""
    return config.crop or config.trivial_augment or config.random_erasing > 0


def augment(images_BCHW: torch.Tensor, config: RunConfig, generator: Random) -> torch.Tensor:
    """uint8 in, uint8 out: what the settings ask for, in the usual order. Mixing needs labels and is `mix`."""
    if not (config.flip or changes_each_image(config)):
        return images_BCHW
    images = images_BCHW.float().div_(255)
    if config.crop:
        images = random_crop(images, generator)
    if config.flip:
        images = random_flip(images, generator)
    if config.trivial_augment:
        images = trivial_augment(images, generator)
    if config.random_erasing:
        images = random_erasing(images, config.random_erasing, generator)
    return to_uint8(images)


def to_uint8(images_BCHW: torch.Tensor) -> torch.Tensor:
    """[0, 1] floats to 8 bits, channels_last."""
    return images_BCHW.mul(255).round_().clamp_(0, 255).to(torch.uint8, memory_format=torch.channels_last)


def random_flip(images_BCHW: torch.Tensor, generator: Random) -> torch.Tensor:
    """Mirror half of the images left to right."""
    is_flipped = uniform(generator, len(images_BCHW)) < 0.5
    return torch.where(is_flipped.view(-1, 1, 1, 1), images_BCHW.flip(-1), images_BCHW)


def random_crop(images_BCHW: torch.Tensor, generator: Random) -> torch.Tensor:
    """Shift each image by up to an eighth of its size in both directions, reflecting what comes in at the border."""
    count, _, height, width = images_BCHW.shape
    device = images_BCHW.device
    rows_BH = _shifted_indices(count, height, generator)
    columns_BW = _shifted_indices(count, width, generator)
    batch = torch.arange(count, device=device).view(-1, 1, 1)
    # Advanced indices around the channel slice put channels last: B x H x W x 3.
    return images_BCHW[batch, :, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)


def _shifted_indices(count: int, length: int, generator: Random) -> torch.Tensor:
    most = max(1, round(length * _CROP_SHIFT))
    shift_B1 = integers(generator, -most, most + 1, count, 1)
    indices = (torch.arange(length, device=shift_B1.device) + shift_B1).abs()
    return torch.where(indices >= length, 2 * (length - 1) - indices, indices)


def random_erasing(images_BCHW: torch.Tensor, probability: float, generator: Random) -> torch.Tensor:
    """Fill a random rectangle of some images with their own mean colour (Zhong et al. 2020, arXiv 1708.04896)."""
    count, _, height, width = images_BCHW.shape
    u_B5 = uniform(generator, count, 5)
    area = _ERASED_AREA[0] + u_B5[:, 0] * (_ERASED_AREA[1] - _ERASED_AREA[0])
    low, high = (math.log(bound) for bound in _ERASED_ASPECT)
    aspect = torch.exp(low + u_B5[:, 1] * (high - low))
    half_height = (area * aspect).sqrt().clamp(max=1) * height / 2
    half_width = (area / aspect).sqrt().clamp(max=1) * width / 2
    is_erased = rectangles(u_B5[:, 2], u_B5[:, 3], half_height, half_width, height, width) & (u_B5[:, 4] < probability).view(-1, 1, 1, 1)
    return torch.where(is_erased, images_BCHW.mean(dim=(2, 3), keepdim=True), images_BCHW)


def rectangles(
    centre_y: torch.Tensor, centre_x: torch.Tensor, half_height: torch.Tensor, half_width: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """Boolean B x 1 x H x W masks; centres as fractions of the image, halves in pixels, all of shape B; cut at the border."""
    y_H = torch.arange(height, device=centre_y.device) + 0.5
    x_W = torch.arange(width, device=centre_y.device) + 0.5
    in_rows = (y_H - (centre_y * height)[:, None]).abs() < half_height[:, None]
    in_columns = (x_W - (centre_x * width)[:, None]).abs() < half_width[:, None]
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def mix(
    batch: torch.Tensor, labels_B: torch.Tensor, config: RunConfig, num_classes: int, generator: Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup (Zhang et al. 2018, arXiv 1710.09412) or CutMix (Yun et al. 2019, arXiv 1905.04899), a fair coin deciding per batch if both are on.

    uint8 images in and out, or activations of any float type: there mixup is manifold mixup (Verma et al. 2019, arXiv 1806.05236),
    and CutMix pastes a rectangle of a map B x C x H x W; what is no map (pooled features, tokens) is blended or stays. Targets become
    float32 B x num_classes that sum to 1. Of a share of a batch, partners are images of that share. With nothing to do: batch and labels as they came.
    """
    cutmix = config.cutmix if is_map(batch) else 0.0
    if not (config.mixup or cutmix) or len(labels_B) < 2:
        return batch, labels_B
    host = host_generator(generator)
    use_cutmix = cutmix > 0 and (config.mixup == 0 or _uniform(host) < 0.5)
    share = _beta(cutmix if use_cutmix else config.mixup, host)
    partner_B = permutation(generator, len(labels_B))
    if use_cutmix:
        batch, share = _paste(batch, partner_B, share, host)
    elif batch.dtype is torch.uint8:
        batch = to_uint8((batch.float() * share + batch[partner_B].float() * (1 - share)) / 255)
    else:
        batch = torch.lerp(batch[partner_B], batch, share)
    one_hot = F.one_hot(labels_B, num_classes).float()
    return batch, one_hot * share + one_hot[partner_B] * (1 - share)


def is_map(batch: torch.Tensor) -> bool:
    """True for B x C x H x W. Maps are square here, which tells them from the B x H x W x C of some transformers."""
    return batch.ndim == 4 and batch.shape[2] == batch.shape[3] and batch.shape[1] != batch.shape[2]


def _paste(batch_BCHW: torch.Tensor, partner_B: torch.Tensor, share: float, host: torch.Generator) -> tuple[torch.Tensor, float]:
    """Returns the batch and the share of the area that stayed (less is pasted where the rectangle leaves the image)."""
    height, width = batch_BCHW.shape[-2:]
    half = math.sqrt(1 - share) / 2
    centre_y, centre_x = (torch.full((1,), _uniform(host)) for _ in range(2))
    half_height, half_width = (torch.full((1,), half * length) for length in (height, width))
    is_pasted = rectangles(centre_y, centre_x, half_height, half_width, height, width)
    batch_BCHW = torch.where(to_device(is_pasted, batch_BCHW.device), batch_BCHW[partner_B], batch_BCHW)
    return batch_BCHW, 1 - float(is_pasted.float().mean())


def _uniform(host: torch.Generator) -> float:
    return float(torch.rand((), generator=host))


def _beta(alpha: float, host: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha), by Jöhnk (1964): torch's own samplers take no generator.

    Computed with logarithms, so that small alphas do not underflow.
    """
    while True:
        x, y = (math.log(max(_uniform(host), 1e-30)) / alpha for _ in range(2))
        top = max(x, y)
        total = top + math.log(math.exp(x - top) + math.exp(y - top))
        if total <= 0:
            return math.exp(x - total)
