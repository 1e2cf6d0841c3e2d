"""Why a run's model answers as it does: where in a picture it finds evidence for a class, or for one class rather than another, and
what the picture looks like to it. Runs in the prediction process; the pages draw.

The method is LayerCAM (Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, TIP 2021): activations times
their gradients, place by place, of which the positive part speaks for the class. Behind a ReLU that is LayerCAM to the letter; where
activations have signs, as in transformers and linear bottlenecks, a negative one with a negative gradient speaks for the class too.
Unlike Grad-CAM's, its maps stay exact in earlier, finer layers, and small images leave the last layer hardly a grid: at 128 px
EfficientNet-Lite0 ends with 4 x 4 places.

Why not captum's LayerGradCam: it averages gradients over all places, which is right for the last layer only, and wants to be told the layer
and how a transformer's tokens lie; here both are found for every network of the catalogue. Measured with the shipped run on 200 test
images, probability 0.86 of the predicted class, after the hottest fifth of an image is blanked (less is better): 0.31 by this, 0.33 by
LayerCAM to the letter, 0.32 by its products summed with their signs, 0.47 by Grad-CAM at the same layer, 0.37 by Grad-CAM at the last grid.

"Why A, not B" is the same for the difference of two logits: what raises it speaks for A, what lowers it for B.

B = 1 image, C channels, h x w places of the grid, D components of an embedding.
"""

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cifar_tl.answers import Framing
from cifar_tl.data.batches import to_model_input
from cifar_tl.data.decode import decode_image
from cifar_tl.errors import CifarTLError
from cifar_tl.inference import Predictor, predictor_of

_FINE_ENOUGH = 7  # places a side: the deepest grid that has them is used, as it knows most about classes
_MOST_PHOTO_PIXELS = 2048  # a side of what is sent to a browser; more than a window shows
_PHOTO_QUALITY = 88
_SMALLEST = 1e-30  # less is no evidence

_Score = Callable[[torch.Tensor], torch.Tensor]  # logits_BC -> the number that is explained


def class_heat_map(run_path: str, image_HWC: np.ndarray, class_index: int) -> np.ndarray:
    """float32 h x w in [0, 1]: how much each place of a stored image speaks for a class; the strongest is 1, all 0 if none does.

    `image_HWC`: uint8 at the stored resolution. Raises RunInvalid, CifarTLError if the network has no grid of places.
    """
    heat_hw, _ = _evidence(predictor_of(Path(run_path)), image_HWC, lambda logits_BC: logits_BC[0, class_index])
    return heat_hw / max(float(heat_hw.max()), _SMALLEST)


def contrast_heat_map(run_path: str, image_HWC: np.ndarray, class_index: int, against: int) -> np.ndarray:
    """float32 h x w in [-1, 1]: above 0 what speaks for `class_index` rather than for the class `against`, below 0 what speaks the other
    way; the strongest place is 1 or -1. Raises as `class_heat_map`.
    """
    predictor = predictor_of(Path(run_path))
    for_hw, against_hw = _evidence(predictor, image_HWC, lambda logits_BC: logits_BC[0, class_index] - logits_BC[0, against])
    heat_hw = for_hw - against_hw
    return heat_hw / max(float(np.abs(heat_hw).max()), _SMALLEST)


def photo_heat_map(run_path: str, data: bytes, framing: Framing, class_index: int, against: int | None = None) -> np.ndarray:
    """The heat map of a picture file: for a class in [0, 1], or against another one in [-1, 1].

    Its places divide the square that the model saw, which `framing` cuts from the photo: whoever draws it stretches it over that part of
    the photo at any size, so that no file of millions of numbers is sent. Raises ImageUnreadable besides.
    """
    square_HWC = predictor_of(Path(run_path)).square(data, framing)
    if against is None:
        return class_heat_map(run_path, square_HWC, class_index)
    return contrast_heat_map(run_path, square_HWC, class_index, against)


def photo_embedding(run_path: str, data: bytes, framing: Framing) -> np.ndarray:
    """float32 D: what a picture file looks like to the model, to be compared with evaluation/embeddings.npz.

    Raises ImageUnreadable, RunInvalid where the run has none to compare with.
    """
    predictor = predictor_of(Path(run_path))
    return predictor.embedded(predictor.square(data, framing)[None])[0]


def photo_jpeg(data: bytes) -> bytes:
    """The picture as any browser shows it: upright, at most 2,048 px a side, without metadata. Raises ImageUnreadable."""
    picture = decode_image(data)
    picture.thumbnail((_MOST_PHOTO_PIXELS, _MOST_PHOTO_PIXELS), reducing_gap=3.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_PHOTO_QUALITY)
    return buffer.getvalue()


def _evidence(predictor: Predictor, image_HWC: np.ndarray, score_of: _Score) -> tuple[np.ndarray, np.ndarray]:
    """(what raises the score, what lowers it), each h x w and nowhere below 0, in the same units."""
    images = torch.from_numpy(image_HWC[None]).to(predictor.compute.device).permute(0, 3, 1, 2)
    inputs = to_model_input(images, predictor.manifest.preprocessing)
    found: tuple[torch.Tensor, torch.Tensor] | None = None
    for activations, gradients in _deepest_first(predictor, inputs, score_of):
        found = (activations, gradients)
        if gradients.any():
            break
    if found is None:
        raise CifarTLError(
            f"{predictor.config.backbone} cannot be asked where it looked: nothing in it keeps a map of the image. "
            "The nearest training images still say what it takes this one for."
        )
    activations, gradients = found
    products_CHW = (gradients * activations)[0]
    parts = [(sign * products_CHW).clamp(min=0).sum(0).cpu().numpy() for sign in (1, -1)]
    return parts[0], parts[1]


def _deepest_first(predictor: Predictor, inputs: torch.Tensor, score_of: _Score) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(activations, gradients of the score), both float32 B x C x h x w, where a grid of places is; the best grid first.

    Best is the deepest that is fine enough, else the deepest at all. Further ones matter where the score does not see a grid: behind
    its last attention a vision transformer reads nothing but the class token.
    """
    stages = list(predictor.classifier.stages)
    grids = _grids(predictor, stages, inputs)
    if not grids:  # a network in one piece: its parts
        grids = _grids(predictor, [part for stage in stages for part in _parts(stage)], inputs)
    fine = [module for module, side in grids if side >= _FINE_ENOUGH]
    for module in reversed(fine or [module for module, _ in grids]):
        pair = _gradients_at(predictor, module, inputs, score_of)
        if pair is not None:
            yield pair


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """What runs one after the other, containers taken apart. Deeper inside, modules lie on branches that others go around."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _parts(child)
        yield child


def _grids(predictor: Predictor, modules: list[nn.Module], inputs: torch.Tensor) -> list[tuple[nn.Module, int]]:
    """Those of the modules whose output is a grid of more than one place, in the order in which they run, with places a side."""
    found: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        grid = _as_grid(output) if isinstance(output, torch.Tensor) else None
        if grid is not None and min(grid.shape[-2:]) > 1:
            found.append((module, min(grid.shape[-2:])))

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        with torch.no_grad(), predictor.compute.autocast():
            predictor.classifier(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _gradients_at(
    predictor: Predictor, module: nn.Module, inputs: torch.Tensor, score_of: _Score
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Activations behind a module and their gradients; None if the score cannot be traced back to it. The graph begins there."""
    leaves: list[torch.Tensor] = []

    def begin(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        leaves[:] = [output.detach().clone().requires_grad_(True)]
        torch.set_grad_enabled(True)  # until the `no_grad` outside ends
        return leaves[0]

    hook = module.register_forward_hook(begin)
    try:
        with torch.no_grad(), predictor.compute.autocast():
            score = score_of(predictor.classifier(inputs)).float()
            if not score.requires_grad:
                return None
            found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(score, leaves, allow_unused=True)
    finally:
        hook.remove()
    if found[0] is None:
        return None
    activations, gradients = _as_grid(leaves[0].detach()), _as_grid(found[0])
    assert activations is not None
    assert gradients is not None
    return activations.float(), gradients.float()


def _as_grid(activations: torch.Tensor) -> torch.Tensor | None:
    """Activations as B x C x h x w, whichever way the network lays them out; None if they are of no grid."""
    if activations.ndim == 4:
        is_channels_last = activations.shape[1] == activations.shape[2] != activations.shape[3]  # Swin's stages
        grid = activations.permute(0, 3, 1, 2) if is_channels_last else activations
        return grid if grid.shape[-2] == grid.shape[-1] else None  # inputs are squares; what is none is no map of them
    if activations.ndim == 3:  # tokens, behind class token and registers if there are any
        side = math.isqrt(activations.shape[1])
        patches = activations[:, activations.shape[1] - side * side :]
        return patches.transpose(1, 2).reshape(len(activations), -1, side, side)
    return None
