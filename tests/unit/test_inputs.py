"""Where a step gets its input: activations that live on the device are those of the file."""

import numpy as np
import pytest
import torch

from cifar_tl.config import make_config
from cifar_tl.data.splits import SplitRows
from cifar_tl.devices import Compute
from cifar_tl.training.inputs import CachedInputs
from cifar_tl.training.prefix_cache import PrefixCache, PrefixKey

VIEWS = ("plain", "mirrored", "third")
STORED, ROWS = 300, np.arange(290, 20, -3)  # rows of the split: not all of them, in an order of their own


@pytest.fixture(params=[(4, 3, 3), (6,)], ids=["maps", "pooled features"])
def cache(request, tmp_path, monkeypatch) -> PrefixCache:
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))
    cache = PrefixCache(PrefixKey("data", "backbone", "weights", 3, 64, "bf16"), request.param, torch.bfloat16)
    for number, view in enumerate(VIEWS):

        def activations(rows: np.ndarray, number: int = number) -> torch.Tensor:
            generator = torch.Generator().manual_seed(number)
            return torch.rand(STORED, *request.param, generator=generator)[torch.from_numpy(rows)].bfloat16()

        cache.fill("train", STORED, np.arange(STORED), view, activations, lambda _: None)
    return cache


def inputs(cache: PrefixCache, training_views: tuple[str, ...] = VIEWS) -> CachedInputs:
    rows, compute = SplitRows("train", ROWS, np.arange(len(ROWS)) % 7), Compute(torch.device("cpu"), "bf16")
    return CachedInputs(
        cache, rows, STORED, 3, compute, make_config(), 7, training_views=training_views, evaluation_views=("plain", "mirrored")
    )


@pytest.mark.parametrize("training_views", [VIEWS, ("mirrored",)], ids=["drawn views", "one view"])
def test_activations_on_the_device_are_those_of_the_file(cache, training_views, monkeypatch):
    from_file = inputs(cache, training_views)
    monkeypatch.setattr("cifar_tl.training.inputs.fits_on_gpu", lambda *_: True)
    monkeypatch.setattr("cifar_tl.training.inputs._UPLOADED_AT_ONCE", 32)
    on_device = inputs(cache, training_views)
    assert from_file._on_gpu is None
    assert on_device._on_gpu is not None
    positions = np.array([5, 0, 88, 5, 41])
    found, expected = (one.training_batch(positions, torch.Generator().manual_seed(1)) for one in (on_device, from_file))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    for ours, theirs in zip(on_device.evaluation_views(positions), from_file.evaluation_views(positions), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.is_contiguous(memory_format=torch.channels_last) if ours.ndim == 4 else ours.is_contiguous()


def test_what_is_too_large_stays_in_the_file(cache, monkeypatch):
    asked = []
    monkeypatch.setattr("cifar_tl.training.inputs.fits_on_gpu", lambda size, _device: asked.append(size))
    assert inputs(cache)._on_gpu is None
    assert asked == [len(ROWS) * len(VIEWS) * int(np.prod(cache.activation_shape)) * 2]
