"""PortableNetwork: a run's model and its preprocessing as one graph of plain operations, so that any runtime can carry it out.

`data.batches.to_model_input` enlarges with a kernel for 8-bit pixels that no exchange format knows. Here the same is two products with
a matrix, each rounded to whole grey levels as that kernel does; `export.parity` measures that nothing else differs.

Shapes: B images, H x W pixels of the stored resolution, S x S of the network's input, C classes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tl.data.batches import to_model_input
from cifar_tl.data.bottleneck import MOST_TIMES
from cifar_tl.inference import load_classifier
from cifar_tl.models.build import Classifier, build_backbone
from cifar_tl.models.stages import split_into_stages
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import Preprocessing

_BATCH = 32


class PortableNetwork(nn.Module):
    """uint8 pixels, B x H x W x 3 -> probabilities, B x C: resized, normalised, averaged with the mirror image where the run is
    evaluated so, divided by the temperature."""

    resizing: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, classifier: Classifier, preprocessing: Preprocessing, *, average_flips: bool, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.is_resized = preprocessing.store_resolution != preprocessing.image_size
        self.averages_flips = average_flips
        self.temperature = temperature
        self.register_buffer("resizing", resizing(preprocessing.store_resolution, preprocessing.image_size))
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        images = pixels_BHWC.permute(0, 3, 1, 2).float()
        if self.is_resized:
            images = _whole(images @ self.resizing.T)
            images = _whole(self.resizing @ images)
        images = (images - self.mean) / self.std
        if not self.averages_flips:
            return (self.classifier(images) / self.temperature).softmax(1)
        logits = self.classifier(torch.cat([images, images.flip(-1)]))
        return (logits.unflatten(0, (2, -1)).mean(0) / self.temperature).softmax(1)


def _whole(images: torch.Tensor) -> torch.Tensor:
    return images.round().clamp(0, 255)


def resizing(few: int, many: int) -> torch.Tensor:
    """float32 many x few: what bicubic resizing does to a row of `few` pixels."""
    return F.interpolate(torch.eye(few)[None, None], size=(many, few), mode="bicubic", antialias=True)[0, 0]


class Exportable:
    """What is exported of a run: its classifier on the CPU, in float32, as it was trained, and how it answers."""

    def __init__(self, folder: RunFolder, temperature: float) -> None:
        """Raises RunInvalid if the run has no usable weights."""
        self.folder = folder
        self.config, self.manifest, self.classifier = load_classifier(folder)
        self.temperature = temperature

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
