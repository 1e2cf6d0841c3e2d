"""Heat maps: evidence is where it was put, for every way in which networks lay out their activations."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cifar_tl import explain
from cifar_tl.devices import Compute
from cifar_tl.errors import CifarTLError
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.models.stages import Stages
from cifar_tl.runs.store import Preprocessing

SIZE = 32


class Tokens(nn.Module):
    """B x C x H x W -> B x (1 + H W) x C, a class token first."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1)


class ChannelsLast(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 2, 3, 1)


class Mean(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        return activations.mean(self.axes)


def network(*stages: nn.Module) -> Classifier:
    """Class 0 is what is red, class 1 what is green."""
    names = tuple(f"stage {i}" for i in range(len(stages)))
    classifier = Classifier(Stages(names, stages, 3), 2, 0.0, (0.0,) * 3, (1.0,) * 3)
    with torch.no_grad():
        classifier.head[1].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    return classifier.eval()


@pytest.fixture
def picture() -> np.ndarray:
    """Red at the upper left, green at the lower right."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:8, :8, 0] = 255
    image[-8:, -8:, 1] = 255
    return image


def heat_map(classifier: Classifier, image: np.ndarray, index: int, monkeypatch: pytest.MonkeyPatch, size: int = SIZE) -> np.ndarray:
    preprocessing = Preprocessing(image.shape[0], size, classifier.mean, classifier.std)
    predictor = SimpleNamespace(
        classifier=classifier,
        compute=Compute(torch.device("cpu"), "float32"),
        manifest=SimpleNamespace(preprocessing=preprocessing),
        config=SimpleNamespace(backbone="made"),
    )
    monkeypatch.setattr(explain, "predictor_of", lambda path: predictor)
    return explain.class_heat_map(str(Path("run")), image, index)


@pytest.mark.parametrize(
    "stages",
    [
        (nn.AvgPool2d(4), Mean(2, 3)),
        (nn.Sequential(nn.AvgPool2d(4), Tokens()), Mean(1)),
        (nn.Sequential(nn.AvgPool2d(4), ChannelsLast()), Mean(1, 2)),
    ],
    ids=["maps", "tokens", "channels last"],
)
def test_evidence_for_a_class_is_where_its_colour_is(stages: tuple[nn.Module, ...], picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    red, green = (heat_map(network(*stages), picture, index, monkeypatch) for index in (0, 1))
    assert red.shape == (8, 8)
    assert red[:2, :2].min() == pytest.approx(1)
    assert red[3:, 3:].max() == 0
    assert green[-2:, -2:].min() == pytest.approx(1)
    assert green[:5, :5].max() == 0


def test_deepest_grid_that_is_fine_enough_is_asked(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    stages = (nn.AvgPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(2), Mean(2, 3))  # 16, 8, 4 places a side
    assert heat_map(network(*stages), picture, 0, monkeypatch).shape == (8, 8)


def test_coarse_grid_is_better_than_none(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    stages = (nn.AvgPool2d(8), Mean(2, 3))
    assert heat_map(network(*stages), picture, 0, monkeypatch).shape == (4, 4)


def test_class_without_evidence_has_a_map_of_zeros(monkeypatch: pytest.MonkeyPatch):
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert heat_map(network(nn.AvgPool2d(4), Mean(2, 3)), black, 0, monkeypatch).max() == 0


def test_network_without_a_grid_is_refused_in_words(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CifarTLError, match="made cannot be asked where it looked"):
        heat_map(network(Mean(2, 3)), picture, 0, monkeypatch)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "swin_t", "vit_b_16"])
def test_real_networks_have_maps(name: str, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    size = 224 if name == "vit_b_16" else 64
    classifier = build_classifier(name, weights="none", num_classes=5, image_size=size).eval()
    heat = heat_map(classifier, picture, 0, monkeypatch, size)
    assert min(heat.shape) > 1
    assert np.isfinite(heat).all()
    assert 0 <= heat.min() <= heat.max() <= 1
