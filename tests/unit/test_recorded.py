"""Recorded passes are the plain ones: same logits, gradients, random numbers and statistics; and a step never waits for the GPU."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from cifar_tl.config import make_config
from cifar_tl.devices import Compute
from cifar_tl.models.build import Classifier
from cifar_tl.models.fused import fuse_batch_norm
from cifar_tl.models.stages import Stages
from cifar_tl.paths import RunFolder
from cifar_tl.training.plan import plan_legs
from cifar_tl.training.prepare import inputs_for, prepare_run
from cifar_tl.training.recorded import RecordedPasses
from cifar_tl.training.trainer import Progress, Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")]
CLASSES = 5


class LooksAtValues(nn.Module):
    """A layer that reads a number back from the GPU, which no recording can."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def classifier(*more: nn.Module, has_frozen_statistics: bool = True) -> Classifier:
    torch.manual_seed(0)
    stage = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *more
    )
    network = Classifier(Stages(("only",), (stage,), 8), CLASSES, 0.5, (0.5,) * 3, (0.5,) * 3)
    network.set_freeze_batch_norm(has_frozen_statistics)
    fuse_batch_norm(network, torch.randn(2, 3, 8, 8))
    return network.cuda().train()


def compute(precision: str = "float32") -> Compute:
    return Compute(torch.device("cuda"), precision)


def images(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count)).cuda()


def logits_and_gradients(forward, network: Classifier) -> dict[str, torch.Tensor]:
    network.zero_grad(set_to_none=True)
    torch.cuda.manual_seed(7)
    logits = forward()
    nn.functional.cross_entropy(logits.float(), torch.arange(len(logits), device="cuda") % CLASSES).backward()
    return {"logits": logits.detach().clone()} | {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def plain(network: Classifier, batch: torch.Tensor, precision: str) -> dict[str, torch.Tensor]:
    def forward() -> torch.Tensor:
        with compute(precision).autocast():
            return network.forward_suffix(batch, 0)

    return logits_and_gradients(forward, network)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_recorded_pass_gives_the_logits_and_gradients_of_a_plain_one(precision):
    network = classifier()
    passes = RecordedPasses(network, 0, compute(precision), plain_steps=0)
    for batch in (images(6), images(5), images(6) + 1):
        passes.record_when_due(batch)
        assert passes.records(batch)
        found, expected = logits_and_gradients(lambda batch=batch: passes(batch), network), plain(network, batch, precision)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-5), name
    with torch.no_grad():
        network.head[1].weight.mul_(2)
    changed = logits_and_gradients(lambda: passes(images(6)), network)["logits"]
    assert torch.allclose(changed, plain(network, images(6), precision)["logits"], rtol=1e-3, atol=1e-5)


def test_passes_are_recorded_after_a_few_plain_steps_of_a_shape():
    passes = RecordedPasses(classifier(), 0, compute(), plain_steps=2)
    tried = [passes.record_when_due(images(count)) for count in (6, 5, 6, 6, 6)]
    assert tried == [False, False, False, True, False]
    assert passes.records(images(6))
    assert not passes.records(images(5))


def test_recording_leaves_the_statistics_of_batch_norms_alone():
    network = classifier(has_frozen_statistics=False)
    before = [buffer.clone() for buffer in network.buffers()]
    RecordedPasses(network, 0, compute(), plain_steps=0).record_when_due(images())
    assert all(torch.equal(buffer, value) for buffer, value in zip(network.buffers(), before, strict=True))


def test_a_network_that_cannot_be_recorded_goes_on_unrecorded():
    network = classifier(LooksAtValues())
    passes = RecordedPasses(network, 0, compute(), plain_steps=0)
    assert passes.record_when_due(images())
    assert not passes.records(images())
    assert not passes.record_when_due(images())
    assert plain(network, images(), "float32")["logits"].isfinite().all()  # dropout draws random numbers
    working = classifier()
    other = RecordedPasses(working, 0, compute(), plain_steps=0)
    other.record_when_due(images())
    assert other.records(images())


@pytest.mark.parametrize(
    "changes",
    [
        {
            "trainable": "everything",
            "crop": True,
            "trivial_augment": True,
            "random_erasing": 0.3,
            "mixup": 0.2,
            "cutmix": 1.0,
            "ema_decay": 0.9,
        },
        {"trainable": "everything", "class_balance": "weighted_loss"},
        {"trainable": "last_stages", "crop": True, "mixup": 0.2},
        {"trainable": "head"},
    ],
    ids=["all augmentation", "weighted loss", "cached stages", "cached head"],
)
def test_a_step_never_waits_for_the_gpu(changes, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))
    config = make_config(source="shapes", device="cuda", image_size=64, images_per_class=10, batch_size=60, **changes)
    prepared = prepare_run(config, RunFolder(tmp_path), lambda _: None)
    (leg,) = plan_legs(config, prepared.classifier)
    prepared.classifier.freeze_before(leg.boundary)
    trainer, progress = Trainer(prepared, leg, inputs_for(prepared, leg.boundary, lambda _: None).train), Progress()
    steps = [positions for _ in range(4) for _, positions in trainer.batches(0, Progress())]
    for positions in steps[:8]:  # every constant is made, every pass recorded
        trainer.step(positions, progress)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for positions in steps[8:]:
            trainer.step(positions, progress)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        AcceleratorState._reset_state(reset_partial_state=True)
    assert progress.step == len(steps) > 8
