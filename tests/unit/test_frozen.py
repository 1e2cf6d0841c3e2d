"""The stages that do not train: whoever runs them, the activations are the same."""

import logging
import subprocess
import sys

import pytest
import torch

from cifar_tl.devices import Compute
from cifar_tl.models import frozen
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.runs.store import Preprocessing

SIZE = 64
FLOAT32, BF16 = (Compute(torch.device("cpu"), precision) for precision in ("float32", "bf16"))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    built = build_classifier("efficientnet_lite0", weights="default", num_classes=5, image_size=SIZE)
    return built.ready(torch.device("cpu"), SIZE)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).permute(0, 3, 1, 2)


def prefix_of(classifier: Classifier, boundary: int, compute: Compute = FLOAT32) -> FrozenPrefix:
    return FrozenPrefix(classifier, boundary, Preprocessing(32, SIZE, classifier.mean, classifier.std), compute)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    with torch.no_grad():
        return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("boundary", [1, 5, 9])
def test_the_compiled_stages_give_what_the_network_gives(classifier, images, boundary):
    prefix = prefix_of(classifier, boundary)
    first = prefix(images)
    assert prefix._compiled is not None
    for batch in (images, images[:1], images[2:5]):  # any number of images
        assert relative_error(prefix(batch), prefix._run(batch)) < 1e-4
    assert prefix(images).shape == first.shape


def test_bfloat16_is_as_near_to_float32_as_torch_itself(classifier, images):
    exact = prefix_of(classifier, 9)._run(images)
    prefix = prefix_of(classifier, 9, BF16)
    by_torch, found = prefix._run(images), prefix(images)
    assert prefix._compiled is not None
    assert found.dtype is by_torch.dtype is torch.bfloat16
    assert relative_error(found, exact) < 1.5 * relative_error(by_torch, exact) + 0.01


@pytest.mark.parametrize("what", ["raises", "is wrong"])
def test_torch_does_the_work_where_compiling_fails(classifier, images, monkeypatch, caplog, what):
    def broken(*_: object) -> object:
        if what == "raises":
            raise RuntimeError("no such operation\nsecond line")
        return lambda pixels: [torch.zeros(len(pixels), 1280).numpy()]

    monkeypatch.setattr(frozen, "_compiled", broken)
    prefix = prefix_of(classifier, 9)
    with caplog.at_level(logging.WARNING):
        first = prefix(images)
    assert torch.equal(prefix(images), first)
    assert "PyTorch does" in caplog.text
    assert "second line" not in caplog.text


def test_torch_does_the_work_where_openvino_is_not_installed(classifier, images, monkeypatch):
    monkeypatch.setattr(frozen.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(frozen, "_compiled", lambda *_: pytest.fail("compiled all the same"))
    prefix = prefix_of(classifier, 5)
    assert torch.equal(prefix(images), prefix(images))


def test_the_converter_can_tell_nobody_what_it_converted():
    code = """
import sys, torch
from tests.unit.test_frozen import FLOAT32, SIZE, prefix_of
from cifar_tl.models.build import build_classifier
classifier = build_classifier("efficientnet_lite0", weights="none", num_classes=5, image_size=SIZE)
prefix = prefix_of(classifier, 1)
prefix(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
assert prefix._compiled is not None
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module is not None]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
