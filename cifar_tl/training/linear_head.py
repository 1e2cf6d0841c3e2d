"""The gradient of a linear head, written out. Where the head alone trains on cached features, a step is softmax regression, and
building a graph for it takes as long as its two matrix products.

Same numbers as autograd under autocast: products in the features' dtype, softmax and sums in float32.
B images, F features, C classes.
"""

import torch
from torch import nn

from cifar_tl.models.build import Classifier


def is_linear(classifier: Classifier) -> bool:
    """True for the head that `add_gradients` is written for: dropout, then one linear layer."""
    return len(classifier.head) == 2 and isinstance(classifier.head[1], nn.Linear) and classifier.head[1].bias is not None


@torch.no_grad()
def add_gradients(
    head: nn.Sequential, features_BF: torch.Tensor, targets: torch.Tensor, *, label_smoothing: float, images: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradients of the batch's cross-entropy, summed and divided by `images`, to the head's; returns that loss and the logits.

    `targets`: int64 classes of B images, or float B x C probabilities. `dtype` is what the products are computed in.
    """
    dropout, linear = head
    assert isinstance(linear, nn.Linear)
    features_BF = dropout(features_BF.to(dtype))
    logits_BC = torch.addmm(linear.bias.to(dtype), features_BF, linear.weight.to(dtype).t()).float()
    log_probabilities_BC = logits_BC.log_softmax(1)
    wanted_BC = _smoothed(targets, logits_BC, label_smoothing)
    loss = -torch.dot(wanted_BC.view(-1), log_probabilities_BC.view(-1)) / images
    # d loss / d logits: probabilities minus targets, whose rows sum to one.
    gradients_BC = log_probabilities_BC.exp_().sub_(wanted_BC).div_(images)
    _add(linear.weight, (gradients_BC.to(dtype).t() @ features_BF).float())
    _add(linear.bias, gradients_BC.sum(0))
    return loss, logits_BC


def _smoothed(targets: torch.Tensor, logits_BC: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """float32 B x C: the distribution that is learned; Szegedy et al. 2016 give every class a share of the smoothing."""
    share = label_smoothing / logits_BC.shape[1]
    if targets.ndim == 1:
        return torch.full_like(logits_BC, share).scatter_(1, targets[:, None], 1 - label_smoothing + share)
    return targets.float() * (1 - label_smoothing) + share


def _add(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
