"""The exported weights of every family of networks, loaded by the library's own constructor, answer as the classifier they came from."""

import pytest
import torch

from cifar_tl.config import make_config
from cifar_tl.data.batches import resize_uint8
from cifar_tl.export.network import Exportable, whole_weights
from cifar_tl.export.original import original_of
from cifar_tl.models.build import build_classifier
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import Preprocessing, RunManifest

CLASSES = ("one", "two", "three")
NETWORKS = [
    ("efficientnet_lite0", 64), ("resnet18", 64), ("vgg11", 64), ("alexnet", 64), ("squeezenet1_1", 64), ("densenet121", 64),
    ("googlenet", 64), ("inception_v3", 96), ("mobilenet_v2", 64), ("mobilenet_v3_small", 64), ("mnasnet0_5", 64), ("efficientnet_b0", 64),
    ("convnext_tiny", 64), ("swin_t", 64), ("regnet_y_400mf", 64), ("shufflenet_v2_x0_5", 64), ("vit_b_32", 64), ("maxvit_t", 224),
    ("timm:resnet10t", 64), ("timm:vit_tiny_patch16_224", 64),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size"), NETWORKS, ids=[name for name, _ in NETWORKS])
def test_the_librarys_own_network_answers_alike(name, size, tmp_path):
    torch.manual_seed(0)
    classifier = build_classifier(name, weights="none", num_classes=len(CLASSES), image_size=size).eval()
    with torch.no_grad():  # else every output is the same number
        classifier.head[-1].weight.normal_()
        classifier.head[-1].bias.normal_()
    manifest = RunManifest(
        "made", 0.0, "Made", "made", CLASSES, (), (), Preprocessing(32, size, (0.0,) * 3, (1.0,) * 3), tuple(classifier.stage_names)
    )
    config = make_config(source="shapes", backbone=name, image_size=size, weights="none", trainable="everything", freeze_batch_norm=False)
    original = original_of(Exportable(RunFolder(tmp_path), config, manifest, classifier, 1.0))
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        ours, theirs = classifier(images), original.model(images)
    assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()
    assert all(tensor.dtype is torch.float32 for tensor in original.state.values())


@pytest.mark.parametrize(("few", "many"), [(32, 128), (32, 160), (32, 224), (160, 128), (224, 96), (64, 65), (32, 32)])
def test_resizing_by_whole_weights_is_that_of_8_bit_pixels_to_the_last_bit(few, many):
    images = torch.randint(0, 256, (4, few, few, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(few)).permute(0, 3, 1, 2)
    weights, unit = whole_weights(few, many)
    assert torch.equal(weights, weights.round())
    resized = images.float()
    for turned in (lambda rows: rows @ weights.T, lambda columns: weights @ columns):
        resized = ((turned(resized) + unit / 2) / unit).floor().clamp(0, 255)
    assert torch.equal(resized, resize_uint8(images, many).float())
