"""Writes `torchvision_catalog.json` and `timm_names.json` from the installed libraries: `python -m cifar_tl.models.make_catalog`.

Run it after torchvision or timm moved. Smallest image sizes are found by trying, on the meta device, which costs no memory.
"""

import json
import math
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision.models as tv
from accelerate import init_empty_weights
from timm.models import is_model_in_modules
from torch import nn

from cifar_tl.config import BUNDLED_BACKBONE
from cifar_tl.models.build import torchvision_arguments
from cifar_tl.models.stages import split_into_stages

FOLDER = Path(__file__).parent
_SIZES = tuple(range(32, 257, 32))
_IMAGENET = "ImageNet-1K"

# Tan and Le's EfficientNet-Lite0: 75.1 % on ImageNet (their README of the lite models), 4.65 M parameters, 0.41 G multiply-adds at 224 px.
_BUNDLED_WEIGHTS = {
    "name": "ImageNet",
    "url": "",
    "file_name": "efficientnet-lite0-57934424.pth",
    "megabytes": 0.0,
    "top1": 0.751,
    "top5": None,
    "crop_size": 224,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def torchvision_entries() -> list[dict[str, Any]]:
    """One entry per torchvision classification model, by name."""
    return [_entry(name) for name in tv.list_models(module=tv)]


def bundled_entry() -> dict[str, Any]:
    model = timm.create_model("tf_efficientnet_lite0")
    return {
        "name": BUNDLED_BACKBONE,
        "source": "bundled",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops": 0.41,
        "weights": [_BUNDLED_WEIGHTS],
        "stage_names": list(split_into_stages(model).names),
        "min_image_size": 32,
        "image_size_multiple": 1,
    }


def _entry(name: str) -> dict[str, Any]:
    published = list(tv.get_model_weights(name))
    default = tv.get_model_weights(name).DEFAULT
    published.sort(key=lambda weights: weights is not default)
    multiple = _multiple(name)
    models = _models(name, multiple)
    return {
        "name": name,
        "source": "torchvision",
        "parameters": int(default.meta["num_params"]),
        "gflops": round(float(default.meta["_ops"]), 3),
        "weights": [_weights(weights) for weights in published],
        "stage_names": list(split_into_stages(models[224]).names),
        "min_image_size": next(size for size, model in models.items() if _runs_at(model, size)),
        "image_size_multiple": multiple,
    }


def _models(name: str, multiple: int) -> dict[int, nn.Module]:
    """The network for each candidate size; one for all where it is not built for a size."""
    sizes = [size for size in _SIZES if size % multiple == 0]
    with init_empty_weights(include_buffers=False):
        if multiple == 1:
            return dict.fromkeys(sizes, _model(name, sizes[0]).to("meta"))
        return {size: _model(name, size).to("meta") for size in sizes}


def _model(name: str, size: int) -> nn.Module:
    return tv.get_model(name, weights=None, **torchvision_arguments(name, size))


def _runs_at(model: nn.Module, size: int) -> bool:
    """In training mode, because that is where too small an image shows first: a 1 x 1 map has no batch statistics."""
    try:
        with torch.no_grad():
            model.train()(torch.zeros(2, 3, size, size, device="meta"))
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def _multiple(name: str) -> int:
    """Networks built for patches or windows take multiples of them only."""
    if name.startswith("vit_"):
        return int(name.rsplit("_", 1)[1])
    return 224 if name.startswith("maxvit") else 1


def _weights(weights: Any) -> dict[str, Any]:
    transforms, metrics = weights.transforms(), weights.meta["_metrics"][_IMAGENET]
    return {
        "name": weights.name,
        "url": weights.url,
        "file_name": weights.url.rsplit("/", 1)[1],
        "megabytes": round(float(weights.meta["_file_size"]), 1),
        "top1": _fraction(metrics["acc@1"]),
        "top5": _fraction(metrics["acc@5"]),
        "crop_size": int(transforms.crop_size[0]),
        "mean": list(transforms.mean),
        "std": list(transforms.std),
    }


def _fraction(percent: float) -> float | None:
    """None for weights without a classifier (VGG-16 for detectors), whose accuracy is given as nan."""
    return None if math.isnan(percent) else round(percent / 100, 5)


def timm_entries() -> dict[str, Any]:
    """timm's names; which have published weights, under which tags; which are cut into stages (`models.stages` knows two families)."""
    tags: dict[str, list[str]] = {}
    for tagged in timm.list_models(pretrained=True):
        name, _, tag = tagged.partition(".")
        tags.setdefault(name, []).append(tag)
    names = timm.list_models()
    return {"names": names, "tags": tags, "in_stages": [name for name in names if is_model_in_modules(name, ("efficientnet", "resnet"))]}


def main() -> None:
    catalog = {"backbones": [bundled_entry(), *torchvision_entries()]}
    (FOLDER / "torchvision_catalog.json").write_text(json.dumps(catalog, indent=1) + "\n", "utf-8")
    (FOLDER / "timm_names.json").write_text(json.dumps(timm_entries(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
