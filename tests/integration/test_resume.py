"""A run that is killed at any moment and resumed ends as one that was never interrupted: bit for bit, with one unbroken curve."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifar_tl.config import make_config
from cifar_tl.data.shapes import CLASS_NAMES
from cifar_tl.data.sources import prepare
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs.events import Completed, Resumed, Stopped, Warned
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.log import EventReader
from cifar_tl.runs.store import write_json
from cifar_tl.training.checkpoint import load_checkpoint

# Four classes, 80 images, 8 steps an epoch; a checkpoint after every second step (by the clock of killable), reports after every third.
CONFIG = {
    "source": "shapes",
    "classes": CLASS_NAMES[:4],
    "images_per_class": 20,
    "image_size": 32,
    "epochs": 3,
    "batch_size": 10,
    "device": "cpu",
    "precision": "float32",
    "trainable": "everything",
    "crop": True,
    "mixup": 0.2,
    "ema_decay": 0.9,
    "log_every_steps": 3,
    "checkpoint_minutes": 2 / 60,
    "describe": False,
}
NAMED = (
    "step:1", "step:5", "gradients:3", "checkpoint:1", "rename:2", "log:4", "best:1", "epoch:1",
    "event:1", "checkpoint:5", "gradients:1", "epoch:2", "log:9", "rename:1", "step:2", "event:1", "test", "arrays",
)  # fmt: skip
RANDOM_KILLS = 8


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        prepare("shapes")
        yield


def run_and_kill(path: Path, config: dict[str, Any], *kills: str) -> list[int]:
    """How each of the workers ended, the last of which was left alone."""
    return run_workers(path, config, *kills, "")


def run_workers(path: Path, config: dict[str, Any], *kills: str) -> list[int]:
    folder = RunFolder(path)
    if not folder.path.exists():
        folder.path.mkdir()
        write_json(folder.config, make_config(**config).model_dump(mode="json"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.killable", str(path), *kills],
        cwd=PROJECT_ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def what_is_left(path: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on where it was interrupted."""
    folder, history = RunFolder(path), RunHistory()
    history.extend(EventReader(folder.events).read_new())
    assert isinstance(history.terminal, Completed)
    state, problem = load_checkpoint(folder)
    assert state
    assert not problem
    test = load_evaluation(folder.evaluation_of("test"))
    return {
        "steps": [(step.step, step.loss, step.batch_accuracy, step.learning_rate) for step in history.steps],
        "epochs": [(e.epoch, e.step, e.train_loss, e.dev_loss, e.dev_accuracy, e.is_best) for e in history.epochs],
        "ending": (history.terminal.best_epoch, history.terminal.test_accuracy, history.terminal.test_loss),
        "weights": state["weights"],
        "average": state["average"] and state["average"]["weights"],
        "best": folder.best_weights.read_bytes(),
        "probabilities": test.probabilities_NC,
    }


def assert_same(killed: dict[str, Any], whole: dict[str, Any]) -> None:
    for name in ("steps", "epochs", "ending", "best"):
        assert killed[name] == whole[name], name
    for name in ("weights", "average"):
        assert (killed[name] is None) == (whole[name] is None)
        for key, tensor in (whole[name] or {}).items():
            assert torch.equal(killed[name][key], tensor), (name, key)
    assert np.array_equal(killed["probabilities"], whole["probabilities"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("whole") / "run"
    assert run_and_kill(path, CONFIG) == [0]
    return what_is_left(path)


def test_a_run_killed_at_every_tender_spot_ends_as_if_it_had_not_been(tmp_path, whole):
    endings = run_and_kill(tmp_path / "run", CONFIG, *NAMED)
    assert endings == [-signal.SIGKILL] * len(NAMED) + [0], list(zip(NAMED, endings, strict=False))
    assert_same(what_is_left(tmp_path / "run"), whole)


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path, whole):
    moments = random.Random(7)
    endings = run_and_kill(tmp_path / "run", CONFIG, *(f"after:{moments.uniform(0.3, 2.5):.3f}" for _ in range(RANDOM_KILLS)))
    assert endings.count(-signal.SIGKILL) >= RANDOM_KILLS // 2  # a worker that had nothing left to do may have been quicker
    assert endings[-1] == 0
    assert_same(what_is_left(tmp_path / "run"), whole)


def test_the_switch_from_head_to_everything_is_resumed_on_both_sides(tmp_path):
    config = CONFIG | {"trainable": "head_then_everything", "head_epochs": 1, "epochs": 2, "mixup": 0.0}
    assert run_and_kill(tmp_path / "whole", config) == [0]
    kills = ("step:4", "epoch:1", "event:1", "step:1", "gradients:1", "step:3")
    assert run_and_kill(tmp_path / "killed", config, *kills) == [-signal.SIGKILL] * len(kills) + [0]
    assert_same(what_is_left(tmp_path / "killed"), what_is_left(tmp_path / "whole"))


def test_a_run_that_was_stopped_goes_on_from_the_very_step(tmp_path, whole):
    kills = ("stop:3", "stop_dev:1", "stop:9")
    assert run_and_kill(tmp_path / "run", CONFIG, *kills[:1]) == [0, 0]
    assert_same(what_is_left(tmp_path / "run"), whole)
    assert run_and_kill(tmp_path / "other", CONFIG | {"checkpoint_minutes": 100}, *kills) == [0] * (len(kills) + 1)
    other = what_is_left(tmp_path / "other")
    assert_same(other, whole)


def test_stop_leaves_a_checkpoint_of_the_step_it_tells(tmp_path):
    path = tmp_path / "run"
    run_and_kill(path, CONFIG | {"checkpoint_minutes": 100, "epochs": 1}, "stop:5")
    events = [record.event for record in EventReader(RunFolder(path).events).read_new()]
    stopped = next(event for event in events if isinstance(event, Stopped))
    resumed = next(event for event in events if isinstance(event, Resumed))
    assert stopped.step == resumed.step == 5


def test_a_damaged_checkpoint_is_told_and_costs_only_the_steps_since_the_one_before(tmp_path, whole):
    path = tmp_path / "run"
    assert run_workers(path, CONFIG, "step:6") == [-signal.SIGKILL]
    data = bytearray(RunFolder(path).last_checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    RunFolder(path).last_checkpoint.write_bytes(data)
    assert run_and_kill(path, CONFIG) == [0]
    events = [record.event for record in EventReader(RunFolder(path).events).read_new()]
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert "last.pt is damaged" in warning
    assert_same(what_is_left(path), whole)
