"""The written-out gradient of the head against autograd's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tl.training.linear_head import add_gradients

B, FEATURES, C = 12, 40, 7


@pytest.fixture
def head() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(0.0), nn.Linear(FEATURES, C))


def by_autograd(head: nn.Sequential, features: torch.Tensor, targets: torch.Tensor, smoothing: float, dtype: torch.dtype) -> torch.Tensor:
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        logits = head(features)
    loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction="sum") / len(features)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_gradients_are_those_of_autograd(head: nn.Sequential, smoothing: float, kind: str, dtype: torch.dtype, tolerance: float):
    features = torch.randn(B, FEATURES).to(dtype)
    targets = torch.randint(C, (B,)) if kind == "classes" else torch.randn(B, C).softmax(1)
    other = copy.deepcopy(head)
    expected = by_autograd(other, features, targets, smoothing, dtype)
    loss, logits = add_gradients(head, features, targets, label_smoothing=smoothing, images=B, dtype=dtype)
    assert float(loss) == pytest.approx(float(expected), rel=tolerance)
    assert logits.shape == (B, C)
    for own, theirs in zip(head.parameters(), other.parameters(), strict=True):
        assert torch.allclose(own.grad, theirs.grad, atol=tolerance * float(theirs.grad.abs().max()))


def test_gradients_of_parts_add_up_to_those_of_the_whole(head: nn.Sequential):
    features, targets = torch.randn(B, FEATURES), torch.randint(C, (B,))
    whole = copy.deepcopy(head)
    add_gradients(whole, features, targets, label_smoothing=0.1, images=B, dtype=torch.float32)
    for part in (slice(0, 5), slice(5, B)):
        add_gradients(head, features[part], targets[part], label_smoothing=0.1, images=B, dtype=torch.float32)
    for own, theirs in zip(head.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(own.grad, theirs.grad, atol=1e-6)


def test_dropped_features_get_no_gradient(head: nn.Sequential):
    head[0] = nn.Dropout(1.0)
    add_gradients(head.train(), torch.randn(B, FEATURES), torch.randint(C, (B,)), label_smoothing=0.0, images=B, dtype=torch.float32)
    assert float(head[1].weight.grad.abs().max()) == 0
    assert float(head[1].bias.grad.abs().max()) > 0
