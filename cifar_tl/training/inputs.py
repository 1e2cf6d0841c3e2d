"""Where a training step gets its input: fresh images, or cached activations of the frozen stages.

Both give the classifier something to go on from at `boundary`, so the loop does not know which it has. Level 3.

Cached training images are seen in one of several views, drawn anew at each step:

    flips alone                                   plain, mirrored
    crop, TrivialAugment or random erasing        `cached_views` augmented versions of each image, with flips if those are on
    none of these                                 plain

Mixup and CutMix are applied to cached activations as they are to images.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from cifar_tl.config import RunConfig
from cifar_tl.data.augment import augment, changes_each_image, mix
from cifar_tl.data.batches import ImageBatches, to_model_input
from cifar_tl.data.draws import Random, integers, known_to_host
from cifar_tl.data.splits import SplitRows
from cifar_tl.data.store import ImageStore
from cifar_tl.devices import Compute, fits_on_gpu, to_device
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.runs.store import Preprocessing
from cifar_tl.training.prefix_cache import MIRRORED, PLAIN, PrefixCache, activation_bytes

_EVALUATED_AT_ONCE = 256  # images; of small activations as many more as make a batch of this size
_BATCH_BYTES = 4 * 2**20
_UPLOADED_AT_ONCE = 4096  # rows
_BLOCK = 256  # rows augmented together when a view is made: what a view shows of a row depends on nothing but the view and the row


class ImageInputs:
    """Images of one split, augmented anew at every step. The whole network runs: `boundary` is 0."""

    boundary = 0
    is_cached = False
    evaluated_at_once = _EVALUATED_AT_ONCE

    def __init__(self, batches: ImageBatches, preprocessing: Preprocessing, config: RunConfig, num_classes: int) -> None:
        self._batches = batches
        self._preprocessing = preprocessing
        self._training_preprocessing = preprocessing
        self._config = config
        self._num_classes = num_classes
        self.labels_N = batches.labels_N

    def __len__(self) -> int:
        return len(self._batches)

    def set_training_size(self, image_size: int) -> None:
        """From now on training batches have this size; evaluation keeps the run's image size."""
        self._training_preprocessing = replace(self._preprocessing, image_size=image_size)

    def training_batch(self, positions: np.ndarray, generator: Random) -> tuple[torch.Tensor, torch.Tensor]:
        """Network input and targets: class indices, or class probabilities when images are mixed."""
        images = augment(self._batches.images(positions), self._config, generator)
        images, targets = mix(
            images, self.labels_N[to_device(torch.from_numpy(positions), self.labels_N.device)], self._config, self._num_classes, generator
        )
        return to_model_input(images, self._training_preprocessing), targets

    def evaluation_views(self, positions: np.ndarray) -> list[torch.Tensor]:
        return [to_model_input(view, self._preprocessing) for view in self.evaluation_images(positions)]

    def evaluation_images(self, positions: np.ndarray) -> list[torch.Tensor]:
        """Stored images as they are and, with flip averaging, their mirror images."""
        images = self._batches.images(positions)
        return [images, images.flip(-1)] if self._config.average_flips else [images]


class FrozenInputs:
    """For evaluating again what a run evaluated from its cache: the frozen stages run as they did for it, so the answers repeat."""

    evaluated_at_once = _EVALUATED_AT_ONCE

    def __init__(self, images: ImageInputs, prefix: FrozenPrefix) -> None:
        self.boundary = prefix.boundary
        self.labels_N = images.labels_N
        self._images = images
        self._prefix = prefix

    def __len__(self) -> int:
        return len(self._images)

    def evaluation_views(self, positions: np.ndarray) -> list[torch.Tensor]:
        return [self._prefix(view) for view in self._images.evaluation_images(positions)]


class CachedInputs:
    """Activations of one split at the freeze boundary; each training image is seen in a random one of `training_views`."""

    is_cached = True

    def __init__(
        self,
        cache: PrefixCache,
        rows: SplitRows,
        split_size: int,
        boundary: int,
        compute: Compute,
        config: RunConfig,
        num_classes: int,
        *,
        training_views: tuple[str, ...],
        evaluation_views: tuple[str, ...],
        is_read_often: bool = True,
    ) -> None:
        self.boundary = boundary
        self.labels_N = torch.from_numpy(rows.labels).to(compute.device)
        self._cache = cache
        self._rows = rows
        self._split_size = split_size
        self._device = compute.device
        self._config = config
        self._num_classes = num_classes
        self._training_views = training_views
        self._evaluation_views = evaluation_views
        self._on_gpu = self._upload(tuple(dict.fromkeys((*training_views, *evaluation_views)))) if is_read_often else None
        self.evaluated_at_once = max(_EVALUATED_AT_ONCE, _BATCH_BYTES // activation_bytes(cache.activation_shape, compute.dtype))

    def __len__(self) -> int:
        return len(self._rows.rows)

    def set_training_size(self, image_size: int) -> None:
        """Cached activations have the one size they were made at; settings that ask for others are refused (`RunConfig`)."""

    def training_batch(self, positions: np.ndarray, generator: Random) -> tuple[torch.Tensor, torch.Tensor]:
        labels = self.labels_N[to_device(torch.from_numpy(positions), self._device)]
        return mix(self._in_drawn_views(positions, generator), labels, self._config, self._num_classes, generator)

    def _in_drawn_views(self, positions: np.ndarray, generator: Random) -> torch.Tensor:
        if len(self._training_views) == 1:
            return self._read(positions, self._training_views[0])
        drawn = integers(known_to_host(generator), 0, len(self._training_views), len(positions))
        if self._on_gpu:
            return self._on_gpu.read(positions, drawn)
        rows = self._rows.rows[positions]
        values = self._cache.read_views(self._rows.store_split, self._split_size, rows, self._training_views, drawn.numpy())
        return to_device(values, self._device)

    def evaluation_views(self, positions: np.ndarray) -> list[torch.Tensor]:
        return [self._read(positions, view) for view in self._evaluation_views]

    def _read(self, positions: np.ndarray, view: str) -> torch.Tensor:
        if self._on_gpu:
            return self._on_gpu.read(positions, torch.full((len(positions),), self._on_gpu.views.index(view)))
        return to_device(self._cache.read(self._rows.store_split, self._split_size, self._rows.rows[positions], view), self._device)

    def _upload(self, views: tuple[str, ...]) -> "_OnGpu | None":
        """All activations, if the GPU has room for them: reading them from the file takes longer than a step of a small network."""
        size = len(self._rows.rows) * len(views) * activation_bytes(self._cache.activation_shape, self._cache.dtype)
        return _OnGpu(self._cache, self._rows, self._split_size, views, self._device) if fits_on_gpu(size, self._device) else None


class _OnGpu:
    """The activations of a split in `views`, V x N of them, whole on the device; maps channels last, as the network reads them."""

    def __init__(self, cache: PrefixCache, rows: SplitRows, split_size: int, views: tuple[str, ...], device: torch.device) -> None:
        self.views = views
        self._rows, self._device = len(rows.rows), device
        parts = []
        for view in views:
            for start in range(0, self._rows, _UPLOADED_AT_ONCE):
                values = cache.read(rows.store_split, split_size, rows.rows[start : start + _UPLOADED_AT_ONCE], view)
                parts.append((values.permute(0, 2, 3, 1) if values.ndim == 4 else values).to(device))
        self._values = torch.cat(parts)

    def read(self, positions: np.ndarray, view_of_position: torch.Tensor) -> torch.Tensor:
        """Activations at `positions` of the split, each in the view of that number."""
        values = self._values[to_device(torch.from_numpy(positions) + view_of_position * self._rows, self._device)]
        return values.permute(0, 3, 1, 2) if values.ndim == 4 else values


Inputs = ImageInputs | CachedInputs


def cached_training_views(config: RunConfig) -> tuple[str, ...]:
    """Names of the views of each training image that a cache holds."""
    if config.cached_views == 0:
        return ()
    if not changes_each_image(config):
        return (PLAIN, MIRRORED)[: config.cached_views] if config.flip else (PLAIN,)
    what = [name for name in ("flip", "crop", "trivial_augment") if getattr(config, name)]
    if config.random_erasing:
        what.append(f"random_erasing_{config.random_erasing:g}")
    return tuple(f"{'+'.join(what)}.{number}" for number in range(config.cached_views))


def cached_evaluation_views(config: RunConfig) -> tuple[str, ...]:
    return (PLAIN, MIRRORED) if config.average_flips else (PLAIN,)


def fill_cache(
    cache: PrefixCache,
    prefix: FrozenPrefix,
    store: ImageStore,
    rows: SplitRows,
    config: RunConfig,
    *,
    views: tuple[str, ...],
    progress: Callable[[int], None],
) -> int:
    """Compute what is missing of one split's activations in each of `views`; returns how many were damaged and made again."""
    split = store[rows.store_split]
    batches = ImageBatches(split, np.arange(len(split)), split.labels_N, torch.device("cpu"))
    damaged = 0
    for view in views:

        def activations_of(chunk: np.ndarray, view: str = view) -> torch.Tensor:
            return prefix(_images_in_view(batches, chunk, view, config))

        damaged += cache.fill(rows.store_split, len(split), rows.rows, view, activations_of, progress)
    return damaged


def _images_in_view(batches: ImageBatches, rows: np.ndarray, view: str, config: RunConfig) -> torch.Tensor:
    if view == PLAIN:
        return batches.images(rows)
    if view == MIRRORED:
        return batches.images(rows).flip(-1)
    number = int(view.rsplit(".", 1)[1])
    parts = []
    for block in np.unique(rows // _BLOCK):
        of_block = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, len(batches)))
        seed = int(np.random.SeedSequence((number, int(block))).generate_state(1)[0])
        augmented = augment(batches.images(of_block), config, torch.Generator().manual_seed(seed))
        parts.append(augmented[torch.from_numpy(rows[rows // _BLOCK == block] - of_block[0])])
    return torch.cat(parts)
