"""Advice with real images, weights and steps, and what the command line says of it."""

import json
import subprocess
import sys

import pytest

from cifar_tl.advice.backbones import advise
from cifar_tl.advice.rate_range import STEPS, rate_range
from cifar_tl.config import BUNDLED_BACKBONE, make_config
from cifar_tl.data.sources import prepare
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
    found = advise(make_config(**SETTINGS), ["resnet18", BUNDLED_BACKBONE], lambda *_: None, lambda _item: None)
    assert "resnet18" in found[0].error
    assert not found[1].error


def test_the_suggested_rate_trains_better_than_one_far_from_it():
    found = rate_range(make_config(**SETTINGS), lambda *_: None)
    assert found.suggestion is not None
    assert 10 < len(found.rates) <= STEPS
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
    assert json.loads(told[-2])["total"] == STEPS
    assert set(checkpoints_root().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("advise", "--backbones", "resnet50", "--source", "shapes"), "are not on this machine, and advice downloads none"),
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
