"""Classifier: freezing, what trains at which rate, cutting at a boundary, and the bundled weights."""

import pytest
import torch
from torch import nn

from cifar_tl.errors import WeightsUnavailable
from cifar_tl.models.build import ByteDropout, Classifier, build_classifier


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return build_classifier("efficientnet_lite0", weights="default", num_classes=7, image_size=64, dropout=0.5)


@pytest.fixture(autouse=True)
def all_trainable(classifier):
    yield
    classifier.freeze_before(0)
    classifier.set_freeze_batch_norm(False)
    classifier.eval()


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("boundary", range(10))
def test_cutting_at_any_boundary_gives_the_same_logits(classifier, boundary):
    classifier.eval()
    with torch.no_grad():
        whole = classifier(images())
        cut = classifier.forward_suffix(classifier.forward_prefix(images(), boundary), boundary)
    assert torch.equal(whole, cut)


def test_features_are_pooled_and_feed_the_head(classifier):
    classifier.eval()
    with torch.no_grad():
        features = classifier.features(images())
        assert features.shape == (4, classifier.feature_dim) == (4, 1280)
        assert torch.equal(classifier.head(features), classifier(images()))


@pytest.mark.parametrize(
    ("trainable", "stages", "expected"), [("head", 2, 9), ("last_stages", 2, 7), ("last_stages", 99, 0), ("everything", 2, 0)]
)
def test_the_boundary_is_where_training_begins(classifier, trainable, stages, expected):
    assert classifier.boundary(trainable, stages) == expected


def test_frozen_stages_neither_train_nor_move_their_statistics(classifier):
    classifier.freeze_before(5)
    classifier.train()
    frozen = [parameter for stage in classifier.stages[:5] for parameter in stage.parameters()]
    trained = [parameter for stage in classifier.stages[5:] for parameter in stage.parameters()]
    assert not any(parameter.requires_grad for parameter in frozen)
    assert all(parameter.requires_grad for parameter in [*trained, *classifier.head.parameters()])
    before = [buffer.clone() for stage in classifier.stages[:5] for buffer in stage.buffers()]
    classifier(images())
    assert all(map(torch.equal, before, [buffer for stage in classifier.stages[:5] for buffer in stage.buffers()]))


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_scale(classifier):
    classifier.set_freeze_batch_norm(True)
    classifier.train()
    norms = [module for module in classifier.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert all(norm.weight.requires_grad for norm in norms)
    assert classifier.head[0].training


def test_each_earlier_stage_learns_slower_and_norms_have_no_weight_decay(classifier):
    groups = classifier.parameter_groups(learning_rate=1.0, head_learning_rate_factor=5.0, stage_learning_rate_decay=0.5, weight_decay=0.1)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["head: weights"] == 5.0
    assert rates["last_conv: weights"] == 1.0
    assert rates["stage7: weights"] == 0.5
    assert rates["stem: weights"] == 0.5**8
    for group in groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] > 0) for parameter in group["params"])


def test_every_trained_parameter_is_in_exactly_one_group(classifier):
    classifier.freeze_before(4)
    groups = classifier.parameter_groups(learning_rate=1.0, head_learning_rate_factor=1.0, stage_learning_rate_decay=1.0, weight_decay=0.1)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in classifier.parameters() if parameter.requires_grad}


def test_the_bundled_weights_know_imagenet(classifier):
    """The package's own classifier row, put on our stages, must tell two very different pictures apart as ImageNet names them."""
    from cifar_tl.models.catalog import backbone
    from cifar_tl.models.weights import load_state

    state = load_state(backbone("efficientnet_lite0"), backbone("efficientnet_lite0").default_weights)
    assert len(state) == 296
    *_, weight, bias = state.values()
    assert weight.shape == (1000, 1280)
    classifier.eval()
    red_disc = torch.full((1, 3, 224, 224), 1.0)
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    red_disc[:, 1:, (xx**2 + yy**2) < 0.5] = -1.0
    with torch.no_grad():
        probabilities = torch.softmax(classifier.features(red_disc) @ weight.T + bias, 1)
    # A wrongly mapped tensor leaves the 1,000 classes near equal; a right one is sure of a few.
    assert float(probabilities.topk(5).values.sum()) > 0.3


def test_the_same_torch_seed_gives_the_same_head():
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(build_classifier("efficientnet_lite0", weights="none", num_classes=3, image_size=32).head[1].weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_unknown_weights_are_refused():
    with pytest.raises(WeightsUnavailable, match="IMAGENET9"):
        build_classifier("resnet18", weights="IMAGENET9", num_classes=3, image_size=32)


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:tf_efficientnet_lite0", "timm:vit_tiny_patch16_224", "timm:convnext_atto"])
def test_timm_networks_classify_at_the_size_asked_for(name):
    classifier = build_classifier(name, weights="none", num_classes=3, image_size=64).eval()
    with torch.no_grad():
        assert classifier(images(2)).shape == (2, 3)
    assert len(classifier.mean) == 3


def test_a_vision_transformer_is_built_for_the_image_size():
    with torch.device("meta"):
        classifier = build_classifier("vit_b_32", weights="none", num_classes=3, image_size=96)
        assert classifier(torch.zeros(2, 3, 96, 96)).shape == (2, 3)


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.5, 0.9])
def test_dropout_drops_as_many_as_it_should_and_keeps_the_mean(probability):
    torch.manual_seed(0)
    features = torch.ones(501, 1283)
    dropout = ByteDropout(probability).train()
    kept = dropout(features)
    assert float((kept == 0).float().mean()) == pytest.approx(probability, abs=0.004)
    assert float(kept.mean()) == pytest.approx(1, abs=0.02)
    assert kept.dtype is torch.float32
    assert not torch.equal(kept, dropout(features))


def test_dropout_is_the_same_for_the_same_seed_and_nothing_when_evaluating():
    features = torch.randn(5, 7).bfloat16()
    dropout = ByteDropout(0.5)
    masks = []
    for _ in range(2):
        torch.default_generator.manual_seed(3)
        masks.append(dropout(features))
    assert torch.equal(*masks)
    assert masks[0].dtype is torch.bfloat16
    assert torch.equal(dropout.eval()(features), features)
