"""Advice with real images, weights and steps, and what the command line says of it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_tl.advice import backbones
from cifar_tl.advice import rate_range as rate_range_module
from cifar_tl.advice.answers import RANGE_STEPS
from cifar_tl.advice.backbones import advise
from cifar_tl.advice.memory import peak_bytes
from cifar_tl.advice.rate_range import rate_range
from cifar_tl.config import BUNDLED_BACKBONE, make_config
from cifar_tl.data.sources import prepare
from cifar_tl.errors import TrainingError
from cifar_tl.paths import PROJECT_ROOT, checkpoints_root
from cifar_tl.runs import launcher
from cifar_tl.runs.store import find_run, is_alive
from cifar_tl.runs.summary import summarize
from tests.integration.test_group import wait_for

SETTINGS = {"source": "shapes", "image_size": 64, "epochs": 10, "device": "cpu", "describe": False}


@pytest.fixture(scope="module", autouse=True)
def roots(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path_factory.mktemp("checkpoints")))
        prepare("shapes")
        yield


def dev_accuracy(**changes: object) -> float:
    """Of the best epoch; 0 for a run that diverged before the first one was done."""
    run_id = launcher.start_run(make_config(**SETTINGS | changes))
    wait_for(lambda: not is_alive(find_run(run_id)), "the run")
    return summarize(run_id).best_dev_accuracy or 0.0


def test_what_is_expected_is_what_a_run_reaches():
    heard: list[str] = []
    (found,) = advise(make_config(**SETTINGS), [BUNDLED_BACKBONE], lambda text, _done, _total: heard.append(text), lambda _item: None)
    assert not found.error
    real = dev_accuracy()
    assert found.low - 0.03 <= real <= found.high + 0.03  # dev itself is a sample of 400 images
    assert 0.05 < found.neighbours < found.expected
    assert found.epoch_seconds > 0
    assert found.memory_bytes > 0
    assert any("Looking at images" in text for text in heard)


def test_a_backbone_that_cannot_be_loaded_is_said_and_the_others_are_advised():
    found = advise(make_config(**SETTINGS | {"images_per_class": 20}), ["resnet18", BUNDLED_BACKBONE], lambda *_: None, lambda _item: None)
    assert "resnet18" in found[0].error
    assert not found[1].error


def test_a_backbone_that_cannot_take_the_settings_says_why_and_the_next_one_is_advised(monkeypatch):
    real = backbones.load_for_advice

    def load(config, heard):
        if config.backbone == "resnet34":
            raise torch.OutOfMemoryError("CUDA out of memory.\nSee documentation")
        return real(config, heard)

    monkeypatch.setattr(backbones, "load_for_advice", load)
    config = make_config(**SETTINGS | {"images_per_class": 20})
    found = advise(config, ["inception_v3", "resnet34", BUNDLED_BACKBONE], lambda *_: None, lambda _item: None)
    assert "inception_v3 needs images of at least" in found[0].error
    assert found[1].error == "CUDA out of memory."
    assert not found[2].error


def test_memory_grows_with_the_batch_and_is_the_same_when_measured_again():
    small, large, again = (peak_bytes(make_config(**SETTINGS | {"trainable": "everything", "batch_size": size})) for size in (16, 128, 128))
    assert large > 3 * small
    assert again == pytest.approx(large, rel=0.2)


def test_a_batch_that_cannot_be_trained_says_why_instead_of_a_size():
    with pytest.raises(TrainingError, match="no backbone 'resnot'"):
        peak_bytes(make_config(**SETTINGS | {"backbone": "resnot"}))


def test_a_range_test_of_unequal_classes_weighs_and_draws_them_as_the_run_does(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for split, counts in (("train", (76, 4)), ("val", (4, 4)), ("test", (4, 4))):
        for name, count in zip(("often", "rare"), counts, strict=True):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    trainers = []
    monkeypatch.setattr(rate_range_module, "_IMAGES", 40)
    monkeypatch.setattr(rate_range_module, "_risen", lambda trainer, _heard: trainers.append(trainer))
    rate_range(make_config(**SETTINGS | {"source": f"folder:{tmp_path}", "class_balance": "weighted_loss"}), lambda *_: None)
    (trainer,) = trainers
    assert np.bincount(trainer.labels_N).tolist() == [38, 2]
    assert trainer.class_weights.tolist() == pytest.approx([80 / (2 * 76), 80 / (2 * 4)])


def test_the_suggested_rate_trains_better_than_one_far_from_it():
    found = rate_range(make_config(**SETTINGS), lambda *_: None)
    assert found.suggestion is not None
    assert 10 < len(found.rates) <= RANGE_STEPS
    suggested = dev_accuracy(learning_rate=found.suggestion)
    assert suggested > dev_accuracy(learning_rate=found.suggestion / 1000) + 0.05
    assert suggested > dev_accuracy(learning_rate=min(10.0, found.suggestion * 300)) + 0.02


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "cifar_tl", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def test_the_command_line_advises_and_leaves_no_run():
    before = set(checkpoints_root().iterdir())
    done = command("advise", "--source", "shapes", "--image-size", "32", "--backbones", BUNDLED_BACKBONE, "--json")
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout.splitlines()[-1])["backbones"]
    assert 0 < item["low"] < item["expected"] < item["high"] < 1
    told = command("lr-range", "--source", "shapes", "--image-size", "32", "--progress").stdout.splitlines()
    assert json.loads(told[-1])["suggestion"] > 0
    assert json.loads(told[-2])["total"] == RANGE_STEPS
    assert set(checkpoints_root().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("advise", "--backbones", "resnet50", "--source", "shapes"), "are not on this machine, and advice downloads none"),
        (
            ("advise", "--backbone", "resnet50", "--weights", "IMAGENET1K_V2", "--source", "shapes"),
            "No backbone has its weights IMAGENET1K_V2 on this machine",
        ),
        (
            ("advise", "--weights", "none", "--trainable", "everything", "--no-freeze-batch-norm", "--source", "shapes"),
            "choose weights other than none",
        ),
        (("advise", "--backbones", "resnot", "--source", "shapes"), "resnot"),
        (("advise", "--source", "folder:/no/such/folder"), "/no/such/folder"),
        (("lr-range", "--epochs", "0"), "Epochs"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments, words):
    done = command(*arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
