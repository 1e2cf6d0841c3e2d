"""Where a training step gets its input: fresh images, or cached activations of the frozen stages.

Both give the classifier something to go on from at `boundary`, so the loop does not know which it has. Level 3.
"""

from collections.abc import Callable

import numpy as np
import torch

from cifar_tl.config import RunConfig
from cifar_tl.data.augment import augment, mix
from cifar_tl.data.batches import ImageBatches, to_model_input
from cifar_tl.data.splits import SplitRows
from cifar_tl.data.store import ImageStore
from cifar_tl.devices import Compute
from cifar_tl.models.build import Classifier
from cifar_tl.runs.store import Preprocessing
from cifar_tl.training.prefix_cache import VIEWS, PrefixCache


class ImageInputs:
    """Images of one split, augmented anew at every step. The whole network runs: `boundary` is 0."""

    boundary = 0
    is_cached = False

    def __init__(self, batches: ImageBatches, preprocessing: Preprocessing, config: RunConfig, num_classes: int) -> None:
        self._batches = batches
        self._preprocessing = preprocessing
        self._config = config
        self._num_classes = num_classes
        self.labels_N = batches.labels_N

    def __len__(self) -> int:
        return len(self._batches)

    def training_batch(self, positions: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Network input and targets: class indices, or class probabilities when images are mixed."""
        images = augment(self._batches.images(positions), self._config, generator)
        images, targets = mix(
            images, self.labels_N[torch.from_numpy(positions).to(self.labels_N.device)], self._config, self._num_classes, generator
        )
        return to_model_input(images, self._preprocessing), targets

    def evaluation_batch(self, positions: np.ndarray) -> torch.Tensor:
        return to_model_input(self._batches.images(positions), self._preprocessing)


class CachedInputs:
    """Activations of one split at the freeze boundary; a training image is seen plain or mirrored, half the time each."""

    is_cached = True

    def __init__(
        self, cache: PrefixCache, rows: SplitRows, split_size: int, boundary: int, compute: Compute, *, use_mirrored: bool
    ) -> None:
        self.boundary = boundary
        self.labels_N = torch.from_numpy(rows.labels).to(compute.device)
        self._cache = cache
        self._rows = rows
        self._split_size = split_size
        self._device = compute.device
        self._use_mirrored = use_mirrored

    def __len__(self) -> int:
        return len(self._rows.rows)

    def training_batch(self, positions: np.ndarray, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        activations = self._read(positions, "plain")
        if self._use_mirrored:
            is_mirrored = (torch.rand(len(positions), generator=generator, device=generator.device) < 0.5).cpu()
            activations[is_mirrored] = self._read(positions[is_mirrored.numpy()], "mirrored")
        return activations.to(self._device), self.labels_N[torch.from_numpy(positions).to(self._device)]

    def evaluation_batch(self, positions: np.ndarray) -> torch.Tensor:
        return self._read(positions, "plain").to(self._device)

    def _read(self, positions: np.ndarray, view: str) -> torch.Tensor:
        return self._cache.read(self._rows.store_split, self._split_size, self._rows.rows[positions], view)


Inputs = ImageInputs | CachedInputs


def fill_cache(
    cache: PrefixCache,
    store: ImageStore,
    rows: SplitRows,
    classifier: Classifier,
    boundary: int,
    preprocessing: Preprocessing,
    compute: Compute,
    *,
    views: tuple[str, ...],
    progress: Callable[[int], None],
) -> None:
    """Compute what is missing of one split's activations in each of `views`. Leaves the classifier in evaluation mode."""
    classifier.eval()
    batches = ImageBatches(
        store[rows.store_split], np.arange(len(store[rows.store_split])), store[rows.store_split].labels_N, torch.device("cpu")
    )
    for view in views:

        @torch.inference_mode()
        def activations_of(chunk: np.ndarray, view: str = view) -> torch.Tensor:
            images = batches.images(chunk).to(compute.device)
            images = images.flip(-1) if view == VIEWS[1] else images
            with compute.autocast():
                return classifier.forward_prefix(to_model_input(images, preprocessing), boundary)

        cache.fill(rows.store_split, len(store[rows.store_split]), rows.rows, view, activations_of, progress)
