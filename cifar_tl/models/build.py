"""Classifier: a pretrained backbone as ordered stages, and a new head for the classes at hand.

Owns freezing, what trains at which learning rate, and where a network can be cut. The stages of each family are in
`models.stages`, its weights in `models.weights`, what there is to pick from in `models.catalog`.
"""

import urllib.error
import urllib.request
from typing import Any, Self

import timm
import torch
import torchvision
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from cifar_tl.config import BUNDLED_BACKBONE
from cifar_tl.errors import WeightsUnavailable
from cifar_tl.models.catalog import (
    BUNDLED_ARCHITECTURE,
    TIMM_PREFIX,
    Backbone,
    Weights,
    backbone,
    find_weights,
    weights_on_disk,
    weights_path,
)
from cifar_tl.models.fused import fuse_batch_norm
from cifar_tl.models.stages import Stages, split_into_stages
from cifar_tl.models.weights import DownloadProgress, load_state

Channels = tuple[float, float, float]  # one value for each of R, G, B
_HUB_SECONDS = 10
_LANES = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # integers by their width in bytes
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_HALF: Channels = (0.5, 0.5, 0.5)
_IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
_IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
# Their training shifted ImageNet's normalisation to this one inside forward(); here it is the input's own.
_NORMALISED_BY_HALF = ("googlenet", "inception_v3")


class ByteDropout(nn.Dropout):
    """nn.Dropout that spends one random byte per feature on a CPU, not one call of the generator: a twentieth of the time.

    Probabilities are multiples of 1/256 there. With cached features it was a third of a training step.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0 or features.device.type != "cpu":
            return super().forward(features)
        words = torch.empty(-(-features.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = min(255, max(1, 256 - round(self.p * 256)))
        # Integers as wide as the features: what is left of byte - kept when only its sign is kept is all ones or all zeros, and
        # all ones let the bits of the feature through. Comparing and converting bytes took four times as long.
        lanes = _LANES[features.element_size()]
        masks = words.view(torch.uint8)[: features.numel()].view(features.shape).to(lanes).sub_(kept)
        masks = masks.bitwise_right_shift_(8 * features.element_size() - 1)
        if not features.requires_grad:
            return masks.bitwise_and_(features.contiguous().view(lanes)).view(features.dtype).mul_(256 / kept)
        factor = torch.tensor(256 / kept, dtype=features.dtype).view(lanes)
        return features * masks.bitwise_and_(factor).view(features.dtype)


class Classifier(nn.Module):
    """Stages, then head. `mean` and `std` say how its input is normalised, for RGB in [0, 1].

    A boundary b is a place between stages: 0 before the first, len(stages) between the last and the head. Stages before the
    boundary of `freeze_before` do not train and stay in evaluation mode, whatever `train()` says.
    """

    def __init__(self, stages: Stages, num_classes: int, dropout: float, mean: Channels, std: Channels) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages.modules)
        self.stage_names = stages.names
        self.feature_dim = stages.feature_dim
        self.head = nn.Sequential(ByteDropout(dropout), nn.Linear(stages.feature_dim, num_classes))
        self.mean, self.std = mean, std
        self._first_trained = 0
        self._is_batch_norm_frozen = False

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised images -> logits, B x num_classes."""
        return self.forward_suffix(images_BCHW, 0)

    def features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised images -> pooled features, B x feature_dim."""
        return self.suffix_features(images_BCHW, 0)

    def forward_prefix(self, images_BCHW: torch.Tensor, boundary: int) -> torch.Tensor:
        """What the stages before `boundary` make of images."""
        activations = images_BCHW
        for index in range(boundary):
            activations = self.stages[index](activations)
        return activations

    def suffix_features(self, activations: torch.Tensor, boundary: int) -> torch.Tensor:
        """From the activations at `boundary` to pooled features."""
        for index in range(boundary, len(self.stages)):
            activations = self.stages[index](activations)
        return activations

    def forward_suffix(self, activations: torch.Tensor, boundary: int) -> torch.Tensor:
        """From the activations at `boundary` to logits."""
        return self.head(self.suffix_features(activations, boundary))

    def can_split_at(self, boundary: int) -> bool:
        return 0 <= boundary <= len(self.stages)

    def boundary(self, trainable: str, trainable_stages: int) -> int:
        """Where training begins, for the setting `trainable`."""
        if trainable == "head":
            return len(self.stages)
        if trainable == "last_stages":
            return max(0, len(self.stages) - trainable_stages)
        return 0

    def freeze_before(self, boundary: int) -> None:
        """Stages before `boundary` stop training, the others and the head train."""
        self._first_trained = boundary
        for index, stage in enumerate(self.stages):
            stage.requires_grad_(index >= boundary)
        self.head.requires_grad_(True)
        self.train(self.training)

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Parameters and statistics of what trains: all that a run changes, since the rest is as it was built."""
        frozen = tuple(f"stages.{index}." for index in range(self._first_trained))
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(frozen)}

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """What `trained_state` gave, perhaps of a network of which less trained. Raises RuntimeError if it is of another network."""
        unknown = self.load_state_dict(state, strict=False).unexpected_keys
        if unknown:
            raise RuntimeError(f"unexpected tensors: {', '.join(unknown[:3])}")

    def set_freeze_batch_norm(self, is_frozen: bool) -> None:
        """Keep running means and variances as they are, also while training; scale and shift still train."""
        self._is_batch_norm_frozen = is_frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for index in range(self._first_trained):
            self.stages[index].eval()
        if self._is_batch_norm_frozen:
            for module in self.modules():
                if isinstance(module, _BATCH_NORMS):
                    module.eval()
        return self

    def ready(self, device: torch.device, image_size: int) -> Self:
        """Place the network on `device`, in the memory format and the form in which it is quick there. The numbers stay the same."""
        # Stored pixels are uint8 NHWC, so activations are channels_last from the first convolution on.
        self.to(memory_format=torch.channels_last)
        fuse_batch_norm(self, torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)))
        return self.to(device)

    def parameter_groups(
        self, *, learning_rate: float, head_learning_rate_factor: float, stage_learning_rate_decay: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Optimizer groups of what trains: slower the earlier the stage, no weight decay for biases and norms."""
        last = len(self.stages) - 1
        parts = [
            (name, stage, learning_rate * stage_learning_rate_decay ** (last - i)) for i, (name, stage) in enumerate(self._named_stages())
        ]
        parts.append(("head", self.head, learning_rate * head_learning_rate_factor))
        groups = []
        for name, module, rate in parts:
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            for suffix, members, decay in (
                ("weights", [p for p in trained if p.ndim > 1], weight_decay),
                ("biases and norms", [p for p in trained if p.ndim <= 1], 0.0),
            ):
                if members:
                    groups.append({"name": f"{name}: {suffix}", "params": members, "lr": rate, "weight_decay": decay})
        return groups

    def _named_stages(self) -> list[tuple[str, nn.Module]]:
        return list(zip(self.stage_names, self.stages, strict=True))


def build_classifier(
    name: str, *, weights: str, num_classes: int, image_size: int, dropout: float = 0.0, progress: DownloadProgress | None = None
) -> Classifier:
    """A classifier on the CPU in training mode, everything trainable.

    The head's first weights come from torch's global generator: seed it for a repeatable start. `weights` is "default", the
    name of published weights, or "none" for random ones. `progress(done, total)` hears of a download's bytes.
    Raises UnknownBackbone, WeightsUnavailable.
    """
    model, mean, std = build_backbone(name, weights=weights, image_size=image_size, progress=progress)
    return Classifier(split_into_stages(model), num_classes, dropout, mean, std)


_Built = tuple[nn.Module, Channels, Channels]


def build_backbone(name: str, *, weights: str, image_size: int, progress: DownloadProgress | None = None) -> _Built:
    """(the library's own network, mean and std of its input). A classifier made of it shares its tensors. Raises as `build_classifier`."""
    entry = backbone(name)
    if entry.source == "timm":
        return _timm_model(entry, weights, image_size)
    chosen = None if weights == "none" else find_weights(entry, weights)
    if chosen is None and weights != "none":
        raise WeightsUnavailable(f"{name} has no weights named {weights!r}.")
    build = _bundled_model if entry.source == "bundled" else _torchvision_model
    return build(entry, chosen, image_size, progress)


def _bundled_model(entry: Backbone, weights: Weights | None, _image_size: int, progress: DownloadProgress | None) -> _Built:
    model = timm.create_model(BUNDLED_ARCHITECTURE, num_classes=1000)
    if weights:
        # The package names its 296 tensors differently, but in the order in which timm has them.
        ours, theirs = model.state_dict(), load_state(entry, weights, progress)
        if [tensor.shape for tensor in ours.values()] != [tensor.shape for tensor in theirs.values()]:
            raise WeightsUnavailable(
                f"The package of {entry.name} holds other weights than expected; install the version in requirements.txt."
            )
        model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return model, _HALF, _HALF


def _torchvision_model(entry: Backbone, weights: Weights | None, image_size: int, progress: DownloadProgress | None) -> _Built:
    state = load_state(entry, weights, progress) if weights else None
    model = torchvision.models.get_model(entry.name, weights=None, **torchvision_arguments(entry.name, image_size))
    if state is not None:
        if isinstance(model, torchvision.models.VisionTransformer):
            state = dict(interpolate_embeddings(image_size, model.patch_size, state))
        _load(model, state, entry.name, weights)
    if entry.name in _NORMALISED_BY_HALF:
        return model, _HALF, _HALF
    return model, weights.mean if weights else _IMAGENET_MEAN, weights.std if weights else _IMAGENET_STD


def torchvision_arguments(name: str, image_size: int) -> dict[str, Any]:
    """What a constructor needs besides its name: auxiliary heads are left off, and some networks are built for one image size."""
    if name in _NORMALISED_BY_HALF:
        return {"aux_logits": False, "init_weights": False, "transform_input": False}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    return {}


def _load(model: nn.Module, state: dict[str, torch.Tensor], name: str, weights: Weights | None) -> None:
    """All of the model's tensors must come from `state`, unless the weights are of the convolutions only; auxiliary heads are left over."""
    path = weights_path(name, weights.name) if weights else None
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsUnavailable(f"The weights in {path} are not those of {name}: {str(error).splitlines()[-1].strip()}") from error
    extra = [key for key in result.unexpected_keys if not key.lower().startswith("aux")]
    may_miss = ("num_batches_tracked",) if weights is None or weights.has_all_layers else ("num_batches_tracked", "classifier")
    missing = [key for key in result.missing_keys if not any(word in key for word in may_miss)]
    if extra or missing:
        raise WeightsUnavailable(
            f"The weights in {path} are not those of {name}: {len(missing)} tensors are missing, {len(extra)} unknown. Delete the file."
        )


def _timm_model(entry: Backbone, weights: str, image_size: int) -> _Built:
    name = entry.name.removeprefix(TIMM_PREFIX)
    settings = timm.get_pretrained_cfg(name)
    fixed = {"img_size": image_size} if settings and settings.fixed_input_size else {}
    if weights != "none" and not weights_on_disk(entry.name):
        _require_hub(entry.name)
    try:
        model = timm.create_model(name, pretrained=weights != "none", num_classes=0, **fixed)
    except Exception as error:  # huggingface_hub, its HTTP client and timm raise many kinds
        if weights == "none":
            raise
        raise WeightsUnavailable(_no_timm_weights(entry.name, (str(error).splitlines() or [type(error).__name__])[0])) from error
    if settings is None:
        return model, _IMAGENET_MEAN, _IMAGENET_STD
    return model, tuple(settings.mean), tuple(settings.std)


def _require_hub(name: str) -> None:
    """huggingface_hub retries for three quarters of a minute when there is no network; one short try decides sooner."""
    try:
        urllib.request.urlopen(urllib.request.Request(ENDPOINT, method="HEAD"), timeout=_HUB_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        raise WeightsUnavailable(_no_timm_weights(name, str(getattr(error, "reason", error)))) from error


def _no_timm_weights(name: str, reason: str) -> str:
    return (
        f"The weights of {name} could not be fetched from {ENDPOINT}/timm ({reason}). Place the repository in {HF_HUB_CACHE} "
        f"(huggingface_hub's cache), or choose the bundled backbone {BUNDLED_BACKBONE}, which needs no network."
    )
