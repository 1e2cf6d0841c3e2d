"""Heat maps: evidence is where it was put, for every way in which networks lay out their activations."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cifar_tl import explain
from cifar_tl.answers import Framing
from cifar_tl.data.decode import decode_image, to_square
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


def asking(classifier: Classifier, resolution: int, monkeypatch: pytest.MonkeyPatch, size: int = SIZE) -> None:
    """Let every question go to this network."""
    preprocessing = Preprocessing(resolution, size, classifier.mean, classifier.std)
    predictor = SimpleNamespace(
        classifier=classifier,
        compute=Compute(torch.device("cpu"), "float32"),
        manifest=SimpleNamespace(preprocessing=preprocessing),
        config=SimpleNamespace(backbone="made"),
        square=lambda data, framing: to_square(decode_image(data), resolution, framing),
        embedded=lambda squares_BHWC: squares_BHWC.reshape(len(squares_BHWC), -1)[:, :2].astype(np.float32),
    )
    monkeypatch.setattr(explain, "predictor_of", lambda path: predictor)


def heat_map(classifier: Classifier, image: np.ndarray, index: int, monkeypatch: pytest.MonkeyPatch, size: int = SIZE) -> np.ndarray:
    asking(classifier, image.shape[0], monkeypatch, size)
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


def test_contrast_is_where_the_two_classes_are_with_the_sign_of_the_one_asked_about(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    asking(network(nn.AvgPool2d(4), Mean(2, 3)), SIZE, monkeypatch)
    heat = explain.contrast_heat_map("run", picture, 0, 1)
    assert heat[:2, :2].min() == pytest.approx(1)
    assert heat[-2:, -2:].max() == pytest.approx(-1)
    assert np.abs(heat[3:5, 3:5]).max() == 0
    assert explain.contrast_heat_map("run", picture, 1, 0) == pytest.approx(-heat)


def test_what_speaks_for_both_classes_alike_is_no_contrast(monkeypatch: pytest.MonkeyPatch):
    yellow = np.zeros((SIZE, SIZE, 3), np.uint8)
    yellow[..., :2] = 255
    asking(network(nn.AvgPool2d(4), Mean(2, 3)), SIZE, monkeypatch)
    assert np.abs(explain.contrast_heat_map("run", yellow, 0, 1)).max() < 1e-6


class Body(nn.Module):
    """A network in one piece, as most of timm's are to us."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.AvgPool2d(4)
        self.layers = nn.Sequential(nn.Identity(), nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(self.stem(images)).mean((2, 3))


class OnlyClassToken(nn.Module):
    """As behind a transformer's last attention: patches are still there, but nobody reads them."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([tokens[:, :1], torch.zeros_like(tokens[:, 1:])], 1)


class ReadClassToken(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


class Attention(nn.Module):
    """The class token gathers what the patches are."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([tokens[:, 1:].mean(1, keepdim=True), tokens[:, 1:]], 1)


def test_network_in_one_piece_is_asked_between_its_parts(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    heat = heat_map(network(Body()), picture, 1, monkeypatch)
    assert heat.shape == (8, 8)
    assert heat[-2:, -2:].min() == pytest.approx(1)
    assert heat[:5, :5].max() == 0


def test_grid_that_the_answer_does_not_rest_on_is_passed_over(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    stages = (nn.Sequential(nn.AvgPool2d(4), Tokens()), Attention(), OnlyClassToken(), ReadClassToken())
    heat = heat_map(network(*stages), picture, 0, monkeypatch)
    assert heat[:2, :2].min() == pytest.approx(1)
    assert heat[3:, 3:].max() == 0


def upload(width: int, height: int) -> bytes:
    """A picture file, red at its left end."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 8, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_photo_is_explained_in_the_square_that_its_framing_cuts(monkeypatch: pytest.MonkeyPatch):
    asking(network(nn.AvgPool2d(4), Mean(2, 3)), SIZE, monkeypatch)
    wide = upload(128, 64)
    for framing in Framing:
        square = to_square(decode_image(wide), SIZE, framing)
        assert explain.photo_heat_map("run", wide, framing, 0) == pytest.approx(explain.class_heat_map("run", square, 0))
    assert explain.photo_heat_map("run", wide, Framing.CENTER, 0).max() == 0
    assert explain.photo_heat_map("run", wide, Framing.WHOLE, 0).max() == pytest.approx(1)


def test_photo_contrast_is_that_of_its_square(monkeypatch: pytest.MonkeyPatch):
    asking(network(nn.AvgPool2d(4), Mean(2, 3)), SIZE, monkeypatch)
    heat = explain.photo_heat_map("run", upload(64, 64), Framing.CENTER, 1, 0)
    assert heat.min() == pytest.approx(-1)


def test_photo_is_placed_among_embeddings_as_its_square(monkeypatch: pytest.MonkeyPatch):
    asking(network(nn.AvgPool2d(4), Mean(2, 3)), SIZE, monkeypatch)
    assert explain.photo_embedding("run", upload(64, 64), Framing.CENTER).tolist() == [255, 0]


def test_photo_for_a_browser_is_a_jpeg_no_larger_than_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(explain, "_MOST_PHOTO_PIXELS", 100)
    with Image.open(io.BytesIO(explain.photo_jpeg(upload(400, 200)))) as photo:
        assert (photo.format, photo.size) == ("JPEG", (100, 50))
    with Image.open(io.BytesIO(explain.photo_jpeg(upload(60, 30)))) as photo:
        assert photo.size == (60, 30)


def test_grad_mode_and_hooks_are_as_before(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    classifier = network(nn.AvgPool2d(4), Mean(2, 3))
    with torch.no_grad():
        heat_map(classifier, picture, 0, monkeypatch)
        assert not torch.is_grad_enabled()
    assert not any(module._forward_hooks for module in classifier.modules())


def test_network_without_a_grid_is_refused_in_words(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CifarTLError, match="made cannot be asked where it looked"):
        heat_map(network(Mean(2, 3)), picture, 0, monkeypatch)


# What has families of its own in torchvision, and networks of timm that are one piece to us. How both lay out activations differs in
# each. ("xcit" ends with class attention, "mixer" has no class token, "deit ... distilled" has two.)
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, 64) for name in ("efficientnet_lite0", "resnet18", "swin_t", "convnext_tiny", "vgg11", "mnasnet0_5", "densenet121")),
        *((name, 64) for name in ("squeezenet1_1", "shufflenet_v2_x0_5", "regnet_y_400mf", "mobilenet_v3_small", "alexnet", "googlenet")),
        ("vit_b_16", 224),
        ("inception_v3", 96),
        *((f"timm:{name}", 64) for name in ("convnext_atto", "regnety_002", "edgenext_xx_small", "mobilevit_xxs", "poolformer_s12")),
        *((f"timm:{name}", 224) for name in ("deit_tiny_distilled_patch16_224", "mixer_s32_224", "xcit_nano_12_p16_224", "pvt_v2_b0")),
    ],
)
def test_real_networks_have_maps(name: str, size: int, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    classifier = build_classifier(name, weights="none", num_classes=5, image_size=size).eval()
    heat = heat_map(classifier, picture, 0, monkeypatch, size)
    contrast = explain.contrast_heat_map("run", picture, 0, 1)
    assert min(heat.shape) > 1
    assert np.isfinite(heat).all()
    assert 0 <= heat.min() <= heat.max() <= 1
    assert np.abs(contrast).max() == pytest.approx(1)
    assert contrast.shape == heat.shape
