"""The catalogue: what is shipped equals what the libraries say, and bad choices are refused in words."""

import json

import pytest
import torchvision

from cifar_tl.config import BUNDLED_BACKBONE, make_config
from cifar_tl.errors import UnknownBackbone
from cifar_tl.models import catalog, make_catalog


def test_every_torchvision_classification_model_is_in_the_catalogue():
    names = [entry.name for entry in catalog.backbones()]
    assert names[0] == BUNDLED_BACKBONE
    assert names[1:] == torchvision.models.list_models(module=torchvision.models)


@pytest.mark.parametrize("name", ["resnet18", "vit_h_14", "vgg11", "inception_v3", "maxvit_t"])
def test_the_shipped_entry_is_what_the_installed_torchvision_gives(name):
    shipped = {entry["name"]: entry for entry in json.loads((make_catalog.FOLDER / "torchvision_catalog.json").read_text())["backbones"]}
    assert shipped[name] == make_catalog._entry(name)


def test_every_published_set_of_weights_is_listed_with_address_and_accuracy():
    published = {
        (name, weights.name): weights.url
        for name in torchvision.models.list_models(module=torchvision.models)
        for weights in torchvision.models.get_model_weights(name)
    }
    listed = {(entry.name, weights.name): weights.url for entry in catalog.backbones()[1:] for weights in entry.weights}
    assert listed == published
    without = {(entry.name, weights.name) for entry in catalog.backbones() for weights in entry.weights if not weights.has_all_layers}
    assert without == {("vgg16", "IMAGENET1K_FEATURES")}
    assert all(0.5 < weights.top1 < 0.95 for entry in catalog.backbones() for weights in entry.weights if weights.has_all_layers)


def test_the_shipped_timm_names_are_the_installed_ones():
    shipped = json.loads((make_catalog.FOLDER / "timm_names.json").read_text())
    assert shipped == make_catalog.timm_entries()


def test_the_bundled_weights_are_on_this_machine():
    assert catalog.weights_on_disk(BUNDLED_BACKBONE)
    assert catalog.backbone(BUNDLED_BACKBONE).download_bytes == 0


def test_downloaded_weights_are_found_where_torch_hub_puts_them(tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert str(catalog.hub_folder()) == torch.hub.get_dir() + "/checkpoints"
    assert not catalog.weights_on_disk("resnet18")
    path = catalog.weights_path("resnet18")
    path.parent.mkdir(parents=True)
    path.touch()
    assert catalog.weights_on_disk("resnet18")


def test_timm_weights_are_found_in_the_hugging_face_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert not catalog.weights_on_disk("timm:resnet50.a1_in1k")
    assert not catalog.weights_on_disk("timm:resnet50")
    snapshot = tmp_path / "models--timm--resnet50.a1_in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert catalog.weights_on_disk("timm:resnet50.a1_in1k")
    assert catalog.weights_on_disk("timm:resnet50")
    assert not catalog.weights_on_disk("timm:resnet50.a2_in1k")


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet5", "resnet50"), ("timm:resnet500", "timm:resnet50"), ("efficientnet", "efficientnet_"), ("timm:resnet50.a1_in2k", "a1_in1k")],
)
def test_a_misspelt_backbone_is_refused_with_near_matches(name, near):
    with pytest.raises(UnknownBackbone, match=near):
        catalog.backbone(name)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"backbone": "resnet5000"}, "no backbone"),
        ({"backbone": "resnet18", "weights": "IMAGENET21K"}, "There are: default, IMAGENET1K_V1, none"),
        ({"backbone": "vgg16", "trainable": "last_stages", "trainable_stages": 50}, "vgg16 has 6 stages"),
        ({"backbone": "inception_v3", "image_size": 64}, "at least 96 px"),
        ({"backbone": "maxvit_t", "image_size": 256}, "multiple of 224"),
        ({"backbone": "timm:resnet18", "weights": "IMAGENET1K_V1"}, "timm:NAME.TAG"),
        ({"backbone": "vgg16", "weights": "IMAGENET1K_FEATURES"}, "convolutions only"),
        ({"backbone": "timm:convnext_tiny", "trainable": "last_stages"}, "cannot be cut into stages"),
        ({"batch_size": 1, "freeze_batch_norm": False}, "no batch statistics"),
    ],
)
def test_what_a_backbone_cannot_do_is_said_in_a_sentence(values, words):
    (problem,) = catalog.problems(make_config(**values))
    assert words in problem
    assert problem.endswith((".", "?"))


@pytest.mark.parametrize(
    "values", [{}, {"backbone": "resnet18"}, {"backbone": "timm:convnext_tiny"}, {"backbone": "vit_b_16", "image_size": 224}]
)
def test_what_a_backbone_can_do_has_no_problems(values):
    assert catalog.problems(make_config(**values)) == []
