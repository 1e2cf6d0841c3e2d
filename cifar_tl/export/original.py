"""The run's network as its library builds it, with the library's own names of tensors: what others load without this program.

The stages of a classifier are made of the library's modules, so its trained tensors are those of the library's network; what remains is
to name the new head as the library names the layer it took the place of.
"""

from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from cifar_tl.errors import CifarTLError
from cifar_tl.export.network import Exportable
from cifar_tl.models.build import torchvision_arguments
from cifar_tl.models.catalog import BUNDLED_ARCHITECTURE, TIMM_PREFIX, backbone

_COUNTERS = "num_batches_tracked"  # of batch norms; they do nothing once a network is trained
# Its own last layer is a convolution before the pooling; the one that was trained comes after it.
_SQUEEZENET_HEAD = "torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear({features}, {classes}))"


@dataclass(frozen=True)
class Original:
    """`constructor` called with `architecture`, the number of classes and `arguments` gives the network; `adapt` is a line of Python that
    changes it, or nothing. `state`: float32, by the library's names."""

    library: str
    constructor: str
    architecture: str
    arguments: dict[str, Any]
    adapt: str
    model: nn.Module
    state: dict[str, torch.Tensor]

    @property
    def has_versions(self) -> bool:
        """True of networks that load only states that name their version, which a file of tensors does not."""
        return isinstance(self.model, torchvision.models.MNASNet)


def original_of(exportable: Exportable) -> Original:
    """Raises CifarTLError where the library's network cannot carry the trained head."""
    config, classes = exportable.config, len(exportable.manifest.class_names)
    name = config.backbone
    is_timm = backbone(name).source != "torchvision"
    if is_timm:
        architecture = name.removeprefix(TIMM_PREFIX) if name.startswith(TIMM_PREFIX) else BUNDLED_ARCHITECTURE
        settings = timm.get_pretrained_cfg(architecture)
        arguments = {"img_size": config.image_size} if settings and settings.fixed_input_size else {}
        library, constructor = "timm", "timm.create_model"
        model: nn.Module = timm.create_model(architecture, num_classes=classes, **arguments)
    else:
        architecture, arguments = name, torchvision_arguments(name, config.image_size)
        library, constructor = "torchvision", "torchvision.models.get_model"
        model = torchvision.models.get_model(name, weights=None, num_classes=classes, **arguments)
    adapt = _adapted(model, exportable.classifier.feature_dim, classes)
    state = _named_as_library(exportable, model)
    return Original(library, constructor, architecture, arguments, adapt, model.eval(), state)


def _adapted(model: Any, features: int, classes: int) -> str:
    """Gives `model` a linear head with biases where it has none; returns the line of Python that does so, or nothing."""
    if isinstance(model, torchvision.models.SqueezeNet):
        model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))
        return "model.classifier = " + _SQUEEZENET_HEAD.format(features=features, classes=classes)
    if isinstance(model, torchvision.models.MaxVit):
        model.classifier[-1] = nn.Linear(features, classes)
        return f"model.classifier[-1] = torch.nn.Linear({features}, {classes})"
    return ""


def _named_as_library(exportable: Exportable, model: nn.Module) -> dict[str, torch.Tensor]:
    """Loads `model` too. Raises CifarTLError."""
    body, linear = exportable.library_network(), exportable.classifier.head[-1]
    head = _head_name(model)
    assert isinstance(linear, nn.Linear)
    state = {name: tensor for name, tensor in body.state_dict().items() if not name.startswith(f"{head}.")}
    state |= {f"{head}.weight": linear.weight.data, f"{head}.bias": linear.bias.data}
    known = model.state_dict()
    state = {name: tensor.float().contiguous() for name, tensor in state.items() if name in known and _COUNTERS not in name}
    missing = [name for name, tensor in known.items() if _COUNTERS not in name and (name not in state or state[name].shape != tensor.shape)]
    if missing:
        raise CifarTLError(
            f"{exportable.config.backbone}: the library's own network has no place for the head that was trained ({missing[0]}). Export ONNX."
        )
    for name, tensor in known.items():  # MNASNet's own loading wants to know of which version a state is
        tensor.copy_(state.get(name, tensor))
    return state


def _head_name(model: Any) -> str:
    """Of the layer that gives logits."""
    last = model.get_classifier() if hasattr(model, "get_classifier") else None
    names = [name for name, module in model.named_modules() if (module is last if last is not None else isinstance(module, nn.Linear))]
    if not names:
        raise CifarTLError("The library's own network does not end in a linear layer. Export ONNX.")
    return names[-1]
