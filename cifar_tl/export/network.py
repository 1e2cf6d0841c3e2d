"""PortableNetwork: a run's model and its preprocessing as one graph of plain operations, so that any runtime can carry it out.

`data.batches.to_model_input` enlarges with a kernel for 8-bit pixels that no exchange format knows. Here the same is two products with
a matrix, each rounded to whole grey levels as that kernel does; `export.parity` measures that nothing else differs.

Shapes: B images, H x W pixels of the stored resolution, S x S of the network's input, C classes.
"""

from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tl.config import RunConfig
from cifar_tl.data.batches import to_model_input
from cifar_tl.data.bottleneck import MOST_TIMES
from cifar_tl.inference import load_classifier
from cifar_tl.models.build import Classifier, build_backbone
from cifar_tl.models.stages import split_into_stages
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import Preprocessing, RunManifest

_BATCH = 32


class PortableNetwork(nn.Module):
    """uint8 pixels, B x H x W x 3 -> probabilities, B x C: resized, normalised, averaged with the mirror image where the run is
    evaluated so, divided by the temperature."""

    weights: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, classifier: Classifier, preprocessing: Preprocessing, *, average_flips: bool, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.is_resized = preprocessing.store_resolution != preprocessing.image_size
        self.averages_flips = average_flips
        self.temperature = temperature
        weights, unit = whole_weights(preprocessing.store_resolution, preprocessing.image_size)
        self.register_buffer("weights", weights)
        self.unit = unit
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        images = pixels_BHWC.permute(0, 3, 1, 2).float()
        if self.is_resized:
            images = self._grey_levels(images @ self.weights.T)
            images = self._grey_levels(self.weights @ images)
        images = (images - self.mean) / self.std
        if not self.averages_flips:
            return (self.classifier(images) / self.temperature).softmax(1)
        logits = self.classifier(torch.cat([images, images.flip(-1)]))
        return (logits.unflatten(0, (2, -1)).mean(0) / self.temperature).softmax(1)

    def _grey_levels(self, sums: torch.Tensor) -> torch.Tensor:
        return ((sums + self.unit / 2) / self.unit).floor().clamp(0, 255)


def whole_weights(few: int, many: int) -> tuple[torch.Tensor, float]:
    """(float32 many x few whole numbers, their unit): what bicubic resizing does to a row of `few` pixels.

    torch's kernel for 8-bit pixels rounds its weights to 15 bits and a sign (`compute_index_ranges_int16_weights` in ATen's
    UpSampleKernel.cpp), and so does this. Sums of 255 times them stay below 2**24, which float32 holds exactly.
    """
    weights = F.interpolate(torch.eye(few, dtype=torch.float64)[None, None], size=(many, few), mode="bicubic", antialias=True)[0, 0]
    precision = next(bits for bits in range(22) if int(0.5 + float(weights.max()) * 2 ** (bits + 1)) >= 2**15)
    return (weights.abs() * 2**precision + 0.5).floor().mul(weights.sign()).float(), float(2**precision)


class Exportable:
    """What is exported of a run: its classifier on the CPU, in float32, as it was trained, and how it answers."""

    def __init__(self, folder: RunFolder, config: RunConfig, manifest: RunManifest, classifier: Classifier, temperature: float) -> None:
        self.folder, self.config, self.manifest, self.classifier, self.temperature = folder, config, manifest, classifier, temperature

    @classmethod
    def from_run(cls, folder: RunFolder, temperature: float) -> Self:
        """Raises RunInvalid if the run has no usable weights."""
        return cls(folder, *load_classifier(folder), temperature)

    def library_network(self) -> nn.Module:
        """The backbone as its library names its tensors, trained."""
        config = self.config
        network, mean, std = build_backbone(config.backbone, weights="none", image_size=config.image_size)
        # Made of the same tensors, so loading one loads the other.
        shared = Classifier(split_into_stages(network), len(self.manifest.class_names), 0.0, mean, std)
        shared.load_state_dict(self.classifier.state_dict())
        return network

    def portable(self) -> PortableNetwork:
        network = PortableNetwork(
            self.classifier, self.manifest.preprocessing, average_flips=self.config.average_flips, temperature=self.temperature
        )
        return network.eval()

    @property
    def reduced_from(self) -> int:
        """How many times larger than stored images a photo is when `data.bottleneck` takes over; 1 where it does not (`Predictor.square`)."""
        return 1 if self.config.source.startswith("folder:") else MOST_TIMES

    @torch.inference_mode()
    def probabilities(self, squares_BHWC: np.ndarray) -> np.ndarray:
        """float32 B x C, by the program's own preprocessing: what an exported file must give."""
        return np.concatenate([self._batch(squares_BHWC[start : start + _BATCH]) for start in range(0, len(squares_BHWC), _BATCH)])

    def _batch(self, squares_BHWC: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(squares_BHWC).permute(0, 3, 1, 2)
        views = [images, images.flip(-1)] if self.config.average_flips else [images]
        logits_V = [self.classifier(to_model_input(view, self.manifest.preprocessing)) for view in views]
        probabilities_BC: np.ndarray = (torch.stack(logits_V).mean(0) / self.temperature).softmax(1).numpy()
        return probabilities_BC
