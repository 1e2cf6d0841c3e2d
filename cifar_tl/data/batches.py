"""ImageStore -> batches on the device, and the one function that turns stored pixels into a network's input.

    stored uint8 images ──► augment (training only, at the stored resolution) ──► to_model_input ──► network

`to_model_input` is the second half of the preprocessing shared by training, evaluation, prediction and export (the first,
`data.decode.to_square`, makes stored pixels out of a picture).

Shapes: B images, C = 3 channels, H x W pixels; images_BCHW is uint8 in channels_last memory, which is the stores' own order.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from cifar_tl.data.store import Split
from cifar_tl.devices import constant, fits_on_gpu, to_device
from cifar_tl.runs.store import Preprocessing


def to_model_input(images_BCHW: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 images at the stored resolution -> float32 input, resized and normalised, channels_last.

    Bicubic, antialiased (a no-op when enlarging), rounded to 8 bits as any image library does: so the result is the
    same on every device, and on a CPU the 8-bit kernel is twelve times faster than the float one (2.8 against 33 ms
    for 128 images from 32 to 128 px on two cores).
    """
    size = preprocessing.image_size
    if images_BCHW.shape[-2:] != (size, size):
        images_BCHW = resize_uint8(images_BCHW, size)
    mean = constant(preprocessing.mean, images_BCHW.device).view(1, 3, 1, 1)
    std = constant(preprocessing.std, images_BCHW.device).view(1, 3, 1, 1)
    floats = images_BCHW.to(torch.float32, memory_format=torch.channels_last)
    return floats.mul_(1 / (255 * std)).sub_(mean / std)


def resize_uint8(images_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    device = images_BCHW.device
    if device.type == "cuda":
        return resize_in_floats(images_BCHW, size)
    # Apple's GPUs have no antialiased bicubic kernel; the processor's 8-bit one is quick enough to go by way of it.
    return F.interpolate(images_BCHW.cpu(), size=(size, size), mode="bicubic", antialias=True).to(device)


def resize_in_floats(images_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    """What the 8-bit kernel of processors gives, for devices that have none: it rounds and cuts off after each of its two passes.

    Of CIFAR-100's test images enlarged to 128 px one value in 900 is another, by one level; with both passes in one it is one in five, by up to 8.
    """
    floats = images_BCHW.float()
    for height, width in ((images_BCHW.shape[-2], size), (size, size)):
        floats = F.interpolate(floats, size=(height, width), mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return floats.to(torch.uint8)


class ImageBatches:
    """The images of chosen rows of one split, as batches on a device.

    `labels_N` int64 on the device. On a GPU the pixels live there whole if they fit; otherwise each batch is copied from
    pinned memory. On a CPU batches are gathered from the memory map.
    """

    def __init__(self, split: Split, rows_N: np.ndarray, labels_N: np.ndarray, device: torch.device) -> None:
        self.rows_N = np.asarray(rows_N, np.int64)
        self.labels_N = torch.from_numpy(np.asarray(labels_N, np.int64)).to(device)
        self.device = device
        self._images = split.image_rows
        self._resident = self._upload() if fits_on_gpu(len(self.rows_N) * self._bytes_of_image, device) else None

    def __len__(self) -> int:
        return len(self.rows_N)

    @property
    def _bytes_of_image(self) -> int:
        return int(np.prod(self._images.array.shape[1:]))

    def _upload(self) -> torch.Tensor:
        resident = torch.empty((len(self.rows_N), *self._images.array.shape[1:]), dtype=torch.uint8, device=self.device)
        for start in range(0, len(self.rows_N), 4096):
            resident[start : start + 4096] = torch.from_numpy(self._images[self.rows_N[start : start + 4096]]).to(self.device)
        return resident

    def images(self, positions: np.ndarray) -> torch.Tensor:
        """uint8 images_BCHW (channels_last) of positions 0..N-1 within the chosen rows."""
        if self._resident is not None:
            return self._resident[to_device(torch.from_numpy(positions), self.device)].permute(0, 3, 1, 2)
        # uint8: a quarter of float32's bytes
        return to_device(torch.from_numpy(self._images[self.rows_N[positions]]), self.device).permute(0, 3, 1, 2)


def epoch_batches(labels_N: np.ndarray, *, batch_size: int, seed: int, epoch: int, is_balanced: bool = False) -> list[np.ndarray]:
    """Positions of each batch of one epoch: every image once, in an order that (seed, epoch) alone decide.

    Batches are near-equal in size instead of leaving a small last one, whose batch statistics and gradient would be
    noise. With `is_balanced` every class is drawn equally often instead, with replacement.
    """
    generator = np.random.default_rng((seed, epoch))
    count = len(labels_N)
    if is_balanced:
        images_per_class = np.bincount(labels_N)
        weights = 1.0 / images_per_class[labels_N]
        order = generator.choice(count, size=count, p=weights / weights.sum())
    else:
        order = generator.permutation(count)
    return np.array_split(order, num_batches(count, batch_size))


def num_batches(count: int, batch_size: int) -> int:
    """Optimizer steps of one epoch."""
    return max(1, -(-count // batch_size))


def in_order(count: int, batch_size: int) -> Iterator[np.ndarray]:
    """Positions 0..count-1 in batches, for evaluation."""
    for start in range(0, count, batch_size):
        yield np.arange(start, min(start + batch_size, count))
