"""Convolutions that absorb their batch norm: the same network, parameters and gradients, in fewer passes."""

import copy

import pytest
import torch
from torch import nn

from cifar_tl.models.build import build_classifier
from cifar_tl.models.fused import fuse_batch_norm


class Small(nn.Module):
    """Two convolutions with batch norms; the second one's output is also used beside its batch norm."""

    def __init__(self, uses_output_twice: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.uses_output_twice = uses_output_twice
        with torch.no_grad():
            for norm in (self.norm1, self.norm2):
                for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                    tensor.uniform_(0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        between = self.conv2(self.norm1(self.conv1(x)).relu())
        after = self.norm2(between)
        return after + between if self.uses_output_twice else after


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> Small:
    torch.manual_seed(0)
    return Small(uses_output_twice=False)


def outputs_and_gradients(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    output = network(images)
    output.square().mean().backward()
    return {"output": output.detach(), **{name: parameter.grad.clone() for name, parameter in network.named_parameters()}}


def test_frozen_statistics_give_the_same_output_and_gradients(network, images):
    network.eval()
    expected = outputs_and_gradients(network, images)
    assert fuse_batch_norm(network, images[:1]) == 2
    found = outputs_and_gradients(network, images)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


def test_statistics_that_train_are_computed_as_ever(network, images):
    plain = copy.deepcopy(network)
    fuse_batch_norm(network, images[:1])
    expected, found = outputs_and_gradients(plain.train(), images), outputs_and_gradients(network.train(), images)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name
    assert torch.allclose(network.norm1.running_mean, plain.norm1.running_mean)
    assert not torch.allclose(network.norm1.running_mean, Small(uses_output_twice=False).norm1.running_mean)


def test_names_and_kinds_of_everything_stay(network, images):
    before = list(network.state_dict())
    fuse_batch_norm(network, images[:1])
    assert list(network.state_dict()) == before
    assert isinstance(network.conv1, nn.Conv2d)
    assert isinstance(network.norm1, nn.BatchNorm2d)


def test_a_convolution_whose_output_is_used_elsewhere_too_stays_as_it_is(images):
    torch.manual_seed(0)
    network = Small(uses_output_twice=True).eval()
    expected = network(images)
    assert fuse_batch_norm(network, images[:1]) == 0
    assert type(network.conv2) is nn.Conv2d
    assert torch.equal(network(images), expected)


def test_what_is_kept_is_computed_again_when_a_parameter_changes(network, images):
    fuse_batch_norm(network.eval(), images[:1])
    with torch.inference_mode():
        before = network(images)
    with torch.no_grad():
        network.norm2.weight.mul_(2)
        network.norm2.bias.mul_(2)
    with torch.inference_mode():
        assert torch.allclose(network(images), 2 * before, rtol=1e-4, atol=1e-4)
    plain = Small(uses_output_twice=False).eval()
    plain.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.allclose(network(images), plain(images), rtol=1e-4, atol=1e-5)


def test_an_optimizer_step_shows_in_the_next_evaluation(network, images):
    fuse_batch_norm(network, images[:1])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9, fused=True)
    for _ in range(2):
        with torch.inference_mode():
            network.eval()(images)
        network.train()(images).square().mean().backward()
        optimizer.step()
    plain = Small(uses_output_twice=False)
    plain.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.allclose(network.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-5)


def test_a_copy_is_a_network_of_its_own(network, images):
    fuse_batch_norm(network.eval(), images[:1])
    with torch.no_grad():
        expected = network(images)
        twin = copy.deepcopy(network)
        network.norm1.weight.zero_()
        assert torch.allclose(twin(images), expected)
        assert not torch.allclose(network(images), expected)


def test_gradients_flow_through_frozen_layers_after_they_were_used_for_inference(network, images):
    network.eval().requires_grad_(False)
    fuse_batch_norm(network, images[:1])
    with torch.inference_mode():
        network(images)
    pixels = images.clone().requires_grad_()
    network(pixels).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_every_batch_norm_of_the_bundled_backbone_is_absorbed_and_training_is_as_exact_as_before():
    """bfloat16 gradients of the fused network are no further from float32's than those of the plain one."""
    torch.manual_seed(0)
    size = 32
    classifier = build_classifier("efficientnet_lite0", weights="default", num_classes=5, image_size=size)
    classifier.set_freeze_batch_norm(True)
    fused = copy.deepcopy(classifier)
    assert fuse_batch_norm(fused, torch.randn(2, 3, size, size)) == 49
    images, labels = torch.randn(32, 3, size, size).to(memory_format=torch.channels_last), torch.arange(32) % 5

    def gradients(network: nn.Module, *, in_bfloat16: bool) -> dict[str, torch.Tensor]:
        network.train().zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            logits = network(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}

    def errors(found: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor([float((found[name] - exact[name]).norm() / exact[name].norm()) for name in exact])

    exact = gradients(classifier, in_bfloat16=False)
    assert errors(gradients(fused, in_bfloat16=False)).max() < 0.01
    plain_errors, fused_errors = errors(gradients(classifier, in_bfloat16=True)), errors(gradients(fused, in_bfloat16=True))
    assert fused_errors.median() < 1.2 * plain_errors.median()
