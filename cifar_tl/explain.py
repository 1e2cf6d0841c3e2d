"""Where in an image a run's model finds evidence for a class, and which training images it takes to be like it.

Heat maps work for convolutional networks and transformers alike.

The method is LayerCAM (Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, TIP 2021): activations,
weighted place by place with their positive gradients. Unlike Grad-CAM's, its maps stay exact in earlier, finer layers, and small
images leave the last layer hardly a grid: at 128 px EfficientNet-Lite0 ends with 4 x 4 places. Runs in the prediction process.

B = 1 image, C channels, h x w places of the grid.
"""

import math
from pathlib import Path

import numpy as np
import torch

from cifar_tl.data.batches import to_model_input
from cifar_tl.errors import CifarTLError, RunInvalid
from cifar_tl.evaluation.embeddings import load_embeddings
from cifar_tl.inference import Predictor, predictor_of
from cifar_tl.paths import RunFolder

_FINE_ENOUGH = 7  # places a side: the deepest grid that has them is used, as it knows most about classes


def class_heat_map(run_path: str, image_HWC: np.ndarray, class_index: int, rather_than: int | None = None) -> np.ndarray:
    """float32 h x w in [0, 1]: how much each place of an image speaks for a class; the strongest is 1, all 0 if none does.

    `image_HWC`: uint8 at the stored resolution. `rather_than`: for the class and against this one, by the difference of their logits.
    Raises RunInvalid, CifarTLError if the network has no grid of places.
    """
    predictor = predictor_of(Path(run_path))
    images = torch.from_numpy(image_HWC[None]).to(predictor.compute.device).permute(0, 3, 1, 2)
    activations, boundary = _deepest_grid(predictor, to_model_input(images, predictor.manifest.preprocessing))
    with torch.enable_grad(), predictor.compute.autocast():
        activations = activations.detach().clone().requires_grad_(True)
        logits_C = predictor.classifier.forward_suffix(activations, boundary)[0].float()
        score = logits_C[class_index] - (0 if rather_than is None else logits_C[rather_than])
        (gradients,) = torch.autograd.grad(score, activations)
    grid = _as_grid((gradients.clamp(min=0) * activations.detach()).float())
    assert grid is not None
    heat_hw = grid[0].sum(0).clamp(min=0)
    return (heat_hw / heat_hw.max().clamp(min=1e-12)).cpu().numpy()


def nearest_training_images(run_path: str, image_HWC: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """(rows_k, labels_k, similarities_k, store split) of the training images most like an image, as the network sees them.

    Raises RunInvalid if the run has no embeddings to compare with.
    """
    predictor = predictor_of(Path(run_path))
    folder = RunFolder(Path(run_path))
    if predictor.placing is None:
        raise RunInvalid(f"Run {folder.run_id} was not prepared for this. Prepare it: python -m cifar_tl describe {folder.run_id}")
    embeddings = load_embeddings(folder.embeddings)
    _, features_BF = predictor.outputs(image_HWC[None])
    positions_1k, similarities_1k = embeddings.nearest(predictor.placing.placed(features_BF), count)
    train = embeddings.splits["train"].taken(positions_1k[0])
    return train.rows_N, train.labels_N, similarities_1k[0], train.store_split


def _deepest_grid(predictor: Predictor, inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The output of the last stage whose places form a fine enough grid, else of the last with any grid; and the boundary after it."""
    found: tuple[torch.Tensor, int] | None = None
    fine: tuple[torch.Tensor, int] | None = None
    activations = inputs
    with torch.inference_mode(), predictor.compute.autocast():
        for index, stage in enumerate(predictor.classifier.stages):
            activations = stage(activations)
            grid = _as_grid(activations)
            if grid is not None and min(grid.shape[-2:]) > 1:
                found = (activations, index + 1)
                fine = found if min(grid.shape[-2:]) >= _FINE_ENOUGH else fine
    chosen = fine or found
    if chosen is None:
        raise CifarTLError(f"{predictor.config.backbone} cannot be asked where it looked: its stages keep no map of the image.")
    return chosen


def _as_grid(activations: torch.Tensor) -> torch.Tensor | None:
    """Activations as B x C x h x w, whichever way the network lays them out; None if they are of no grid."""
    if activations.ndim == 4:
        is_channels_last = activations.shape[1] == activations.shape[2] != activations.shape[3]  # Swin's stages
        return activations.permute(0, 3, 1, 2) if is_channels_last else activations
    if activations.ndim == 3:  # tokens, behind class token and registers if there are any
        side = math.isqrt(activations.shape[1])
        patches = activations[:, activations.shape[1] - side * side :]
        return patches.transpose(1, 2).reshape(len(activations), -1, side, side)
    return None
