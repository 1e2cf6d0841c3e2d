"""Every torchvision classification model: builds with a new head, runs forward and backward at its smallest input, freezes as
told, and its stages in a row are the network itself. The giants do it on the meta device, which has shapes but no numbers."""

import pytest
import torch
import torchvision
from accelerate import init_empty_weights
from torch import nn

from cifar_tl.models import catalog
from cifar_tl.models.build import Classifier, torchvision_arguments
from cifar_tl.models.fused import fuse_batch_norm
from cifar_tl.models.stages import split_into_stages

_GIANT_PARAMETERS = 150_000_000
_CLASSES = 5
# Its last layer is a convolution before the pooling, which no linear head can stand for: stages give what comes before.
_WITHOUT_LINEAR_LAST = ("squeezenet1_0", "squeezenet1_1")
# In these a batch norm follows an addition or a concatenation, at least in places: there is no convolution to absorb it.
_WITH_NORM_FIRST = ("densenet", "maxvit")

ENTRIES = [entry for entry in catalog.backbones() if entry.source == "torchvision"]
SMALL = [entry for entry in ENTRIES if (entry.parameters or 0) <= _GIANT_PARAMETERS]


@pytest.fixture(autouse=True)
def cheap_numbers(monkeypatch):
    """Random initialisation costs more than the test of it; these tests need numbers that differ, not good ones."""

    def fill(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        with torch.no_grad():
            return tensor.uniform_(-0.05, 0.05)

    for name in ("kaiming_normal_", "kaiming_uniform_", "trunc_normal_", "normal_", "xavier_uniform_"):
        monkeypatch.setattr(nn.init, name, fill)


def original(entry: catalog.Backbone) -> nn.Module:
    return torchvision.models.get_model(entry.name, weights=None, **torchvision_arguments(entry.name, entry.min_image_size))


def classifier_of(model: nn.Module) -> Classifier:
    return Classifier(split_into_stages(model), _CLASSES, 0.1, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def ids(entry: catalog.Backbone) -> str:
    return entry.name


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_it_trains_with_a_new_head_and_freezes_as_told(entry):
    is_giant = (entry.parameters or 0) > _GIANT_PARAMETERS
    torch.manual_seed(0)
    if is_giant:
        with init_empty_weights():
            classifier = classifier_of(original(entry)).to("meta")
    else:
        classifier = classifier_of(original(entry))
    assert classifier.stage_names == entry.stage_names
    size, device = entry.min_image_size, "meta" if is_giant else "cpu"
    classifier.freeze_before(1)
    classifier.train()
    logits = classifier(torch.rand(2, 3, size, size, device=device))
    assert logits.shape == (2, _CLASSES)
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in classifier.stages[0].parameters())
    assert classifier.head[1].weight.grad is not None
    assert any(parameter.grad is not None for parameter in classifier.stages[-1].parameters())


@pytest.mark.parametrize("entry", SMALL, ids=ids)
def test_its_stages_in_a_row_are_the_network(entry):
    torch.manual_seed(0)
    model = original(entry).eval()
    images = torch.rand(2, 3, entry.min_image_size, entry.min_image_size)
    with torch.no_grad():
        features = classifier_of(model).eval().features(images)
        if entry.name in _WITHOUT_LINEAR_LAST:
            assert torch.allclose(features, model.features(images).mean([2, 3]), atol=1e-6)
            return
        last = model.head if entry.name.startswith("swin") else [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.uniform_(-0.05, 0.05)  # a vision transformer's starts at zero, which anything would equal
        expected = model(images)
    assert torch.allclose(last(features), expected, atol=1e-5, rtol=1e-4)
    assert float(expected.std()) > 0


@pytest.mark.parametrize("entry", SMALL, ids=ids)
def test_its_convolutions_absorb_batch_norms_without_a_change_of_output(entry):
    torch.manual_seed(0)
    classifier = classifier_of(original(entry)).eval()
    norms = [module for module in classifier.modules() if isinstance(module, nn.BatchNorm2d)]
    images = torch.rand(2, 3, entry.min_image_size, entry.min_image_size)
    with torch.no_grad():
        for norm in norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
        expected = classifier.features(images)
        absorbed = fuse_batch_norm(classifier, images)
        found = classifier.features(images)
    assert float((found - expected).abs().max()) <= 1e-3 * float(expected.abs().max())
    if norms and not entry.name.startswith(_WITH_NORM_FIRST):
        assert absorbed == len(norms)
