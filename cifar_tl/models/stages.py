"""Networks as ordered lists of stages: which part runs after which, for every family in the catalogue.

A stage takes the output of the one before it, one tensor, so that training and caching can start at any boundary. The last
stage ends in pooled features of shape B x F; the original's last linear layer is left off and replaced by a new head
(`models.build`). Fully connected layers before the last one (VGG, AlexNet, MobileNetV3, MaxViT) are pretrained and belong to
the last stage. Composition equals the original network, which a test asserts for each.

Sources: the forward() of each torchvision and timm model class, followed line by line.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import timm.models as timm_models
import torch
import torchvision.models as tv
from torch import nn


@dataclass(frozen=True)
class Stages:
    """Named stages in order, and the width of the pooled features that the last one gives."""

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    feature_dim: int


class _Mean(nn.Module):
    """Mean over height and width: B x C x H x W -> B x C."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean([2, 3])


class _Pool(nn.Sequential):
    """Global average pooling and flattening: B x C x H x W -> B x C."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


class _Embed(nn.Module):
    """A vision transformer's input: patches, class token, positions. Images -> B x tokens x width."""

    def __init__(self, vit: tv.VisionTransformer) -> None:
        super().__init__()
        self.conv_proj = vit.conv_proj
        self.class_token = vit.class_token
        self.pos_embedding = vit.encoder.pos_embedding
        self.dropout = vit.encoder.dropout

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        patches = self.conv_proj(images_BCHW).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.pos_embedding)


class _ClassToken(nn.Module):
    """B x tokens x width -> B x width: the class token."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


def split_into_stages(model: nn.Module) -> Stages:
    """The stages of a torchvision or timm network; a timm network of no known family is one stage, "body"."""
    for family, splitter in _FAMILIES.items():
        if isinstance(model, family):
            parts, feature_dim = splitter(model)
            return Stages(tuple(name for name, _ in parts), tuple(module for _, module in parts), feature_dim)
    # timm with num_classes=0: the whole network gives pooled features.
    width: Any = getattr(model, "head_hidden_size", None) or model.num_features
    return Stages(("body",), (model,), int(width))


_Parts = list[tuple[str, nn.Module]]


def _extend_last(parts: Sequence[tuple[str, nn.Module]], *modules: nn.Module) -> _Parts:
    """The same parts, the last one followed by `modules`."""
    name, last = parts[-1]
    return [*parts[:-1], (name, nn.Sequential(last, *modules))]


def _resnet(model: Any) -> tuple[_Parts, int]:
    parts = [("stem", nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool))]
    parts += [(name, getattr(model, name)) for name in ("layer1", "layer2", "layer3", "layer4")]
    return _extend_last(parts, _Pool()), model.fc.in_features


def _classifier_after_features(model: Any) -> tuple[_Parts, int]:
    """VGG and AlexNet: convolutions up to each pooling, then pretrained fully connected layers."""
    parts = _grouped(model.features, ends=lambda module: isinstance(module, nn.MaxPool2d))
    hidden = nn.Sequential(model.avgpool, nn.Flatten(1), *list(model.classifier)[:-1])
    return [*parts, ("hidden", hidden)], model.classifier[-1].in_features


def _squeezenet(model: Any) -> tuple[_Parts, int]:
    parts = _grouped(model.features, ends=lambda module: isinstance(module, nn.MaxPool2d))
    return _extend_last(parts, _Pool()), model.classifier[1].in_channels


def _densenet(model: Any) -> tuple[_Parts, int]:
    features = dict(model.features.named_children())
    stem = [(name, features.pop(name)) for name in ("conv0", "norm0", "relu0", "pool0")]
    parts: _Parts = [("stem", nn.Sequential(*(module for _, module in stem)))]
    for number in range(1, 5):
        block = features.pop(f"denseblock{number}")
        after = features.pop(f"transition{number}", None) or nn.Sequential(features.pop("norm5"), nn.ReLU(inplace=True))
        parts.append((f"denseblock{number}", nn.Sequential(block, after)))
    assert not features
    return _extend_last(parts, _Pool()), model.classifier.in_features


def _googlenet(model: Any) -> tuple[_Parts, int]:
    stem = nn.Sequential(model.conv1, model.maxpool1, model.conv2, model.conv3, model.maxpool2)
    third = nn.Sequential(model.inception3a, model.inception3b, model.maxpool3)
    fourth = nn.Sequential(*(getattr(model, f"inception4{letter}") for letter in "abcde"), model.maxpool4)
    fifth = nn.Sequential(model.inception5a, model.inception5b, _Pool())
    return [("stem", stem), ("inception3", third), ("inception4", fourth), ("inception5", fifth)], model.fc.in_features


def _inception(model: Any) -> tuple[_Parts, int]:
    stem = nn.Sequential(model.Conv2d_1a_3x3, model.Conv2d_2a_3x3, model.Conv2d_2b_3x3, model.maxpool1)
    second = nn.Sequential(model.Conv2d_3b_1x1, model.Conv2d_4a_3x3, model.maxpool2)
    mixed = [
        (f"mixed{number}", nn.Sequential(*(getattr(model, f"Mixed_{number}{letter}") for letter in letters)))
        for number, letters in ((5, "bcd"), (6, "abcde"), (7, "abc"))
    ]
    return _extend_last([("stem", stem), ("conv", second), *mixed], _Pool()), model.fc.in_features


def _mobilenet(model: Any) -> tuple[_Parts, int]:
    """V2 and V3: a stage per resolution; V3 has a pretrained hidden layer before the last."""
    layers = list(model.classifier)
    hidden = [module for module in layers[:-1] if not isinstance(module, nn.Dropout)]
    return _extend_last(_by_resolution(model.features), _Pool(), *hidden), layers[-1].in_features


def _mnasnet(model: Any) -> tuple[_Parts, int]:
    return _extend_last(_by_resolution(model.layers), _Mean()), model.classifier[-1].in_features


def _efficientnet(model: Any) -> tuple[_Parts, int]:
    children = list(model.features)
    names = ["stem", *(f"stage{number}" for number in range(1, len(children) - 1)), "last_conv"]
    return _extend_last(list(zip(names, children, strict=True)), _Pool()), model.classifier[-1].in_features


def _convnext(model: Any) -> tuple[_Parts, int]:
    norm, flatten, linear = model.classifier
    return _extend_last(_stem_and_pairs(list(model.features)), model.avgpool, norm, flatten), linear.in_features


def _swin(model: Any) -> tuple[_Parts, int]:
    parts = _stem_and_pairs(list(model.features))
    return _extend_last(parts, model.norm, model.permute, model.avgpool, model.flatten), model.head.in_features


def _regnet(model: Any) -> tuple[_Parts, int]:
    parts = [("stem", model.stem), *model.trunk_output.named_children()]
    return _extend_last(parts, _Pool()), model.fc.in_features


def _shufflenet(model: Any) -> tuple[_Parts, int]:
    parts = [("stem", nn.Sequential(model.conv1, model.maxpool))]
    parts += [(name, getattr(model, name)) for name in ("stage2", "stage3", "stage4")]
    return [*parts, ("conv5", nn.Sequential(model.conv5, _Mean()))], model.fc.in_features


def _vit(model: Any) -> tuple[_Parts, int]:
    blocks = list(model.encoder.layers)
    size = -(-len(blocks) // 4)
    parts: _Parts = [("embed", _Embed(model))]
    parts += [
        (f"blocks{start}-{min(start + size, len(blocks)) - 1}", nn.Sequential(*blocks[start : start + size]))
        for start in range(0, len(blocks), size)
    ]
    return _extend_last(parts, model.encoder.ln, _ClassToken(), *list(model.heads)[:-1]), model.heads[-1].in_features


def _maxvit(model: Any) -> tuple[_Parts, int]:
    parts = [("stem", model.stem), *((f"block{number}", block) for number, block in enumerate(model.blocks, 1))]
    return _extend_last(parts, *list(model.classifier)[:-1]), model.classifier[-1].in_features


def _timm_efficientnet(model: Any) -> tuple[_Parts, int]:
    parts: _Parts = [("stem", nn.Sequential(model.conv_stem, model.bn1))]
    parts += [(f"stage{number}", block) for number, block in enumerate(model.blocks, 1)]
    return [*parts, ("last_conv", nn.Sequential(model.conv_head, model.bn2, model.global_pool))], int(model.num_features)


def _timm_resnet(model: Any) -> tuple[_Parts, int]:
    parts = [("stem", nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool))]
    parts += [(name, getattr(model, name)) for name in ("layer1", "layer2", "layer3", "layer4")]
    return _extend_last(parts, model.global_pool), int(model.num_features)


def _grouped(children: Iterable[nn.Module], ends: Callable[[nn.Module], bool]) -> _Parts:
    """Children in groups, each ended by a child that `ends` says."""
    groups: list[list[nn.Module]] = [[]]
    for child in children:
        groups[-1].append(child)
        if ends(child):
            groups.append([])
    return [(f"stage{number}", nn.Sequential(*group)) for number, group in enumerate(filter(None, groups), 1)]


def _by_resolution(children: Iterable[nn.Module]) -> _Parts:
    """Children in groups, each begun by a child that halves the resolution."""
    groups: list[list[nn.Module]] = [[]]
    for child in children:
        if groups[-1] and any(isinstance(module, nn.Conv2d) and module.stride[0] == 2 for module in child.modules()):
            groups.append([])
        groups[-1].append(child)
    return [(f"stage{number}", nn.Sequential(*group)) for number, group in enumerate(groups, 1)]


def _stem_and_pairs(children: list[nn.Module]) -> _Parts:
    """ConvNeXt and Swin: stem, stage, then (downsampling, stage) three times."""
    stem, first, *rest = children
    parts: _Parts = [("stem", stem), ("stage1", first)]
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return parts + [(f"stage{number}", nn.Sequential(down, stage)) for number, (down, stage) in enumerate(pairs, 2)]


_FAMILIES: dict[Any, Callable[[Any], tuple[_Parts, int]]] = {
    tv.ResNet: _resnet,
    (tv.VGG, tv.AlexNet): _classifier_after_features,
    tv.SqueezeNet: _squeezenet,
    tv.DenseNet: _densenet,
    tv.GoogLeNet: _googlenet,
    tv.Inception3: _inception,
    (tv.MobileNetV2, tv.MobileNetV3): _mobilenet,
    tv.MNASNet: _mnasnet,
    tv.EfficientNet: _efficientnet,
    tv.ConvNeXt: _convnext,
    tv.SwinTransformer: _swin,
    tv.RegNet: _regnet,
    tv.ShuffleNetV2: _shufflenet,
    tv.VisionTransformer: _vit,
    tv.MaxVit: _maxvit,
    timm_models.EfficientNet: _timm_efficientnet,
    timm_models.ResNet: _timm_resnet,
}
