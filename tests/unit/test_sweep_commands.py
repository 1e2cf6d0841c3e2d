"""`sweep` and `sweeps` of the command line, without a conductor."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from cifar_tl import sweep_commands
from cifar_tl.__main__ import main
from cifar_tl.config import make_config
from cifar_tl.errors import SettingsError
from cifar_tl.sweep_commands import sweep, sweeps
from cifar_tl.sweeps import launcher
from cifar_tl.sweeps.space import parse_dimension
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus, create_sweep, new_sweep, say_last_word

SPACE = (parse_dimension("learning_rate=0.001..0.1:log"),)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Sweep]:
    """The sweeps that were started: made, and conducted by nobody."""
    found: list[Sweep] = []

    def start_sweep(asked: Sweep) -> str:
        found.append(asked)
        return create_sweep(asked).sweep_id

    monkeypatch.setattr(launcher, "start_sweep", start_sweep)
    return found


def options(*vary: str, **changes: Any) -> argparse.Namespace:
    asked = {"trials": 3, "minutes": None, "pruner": "none", "at_once": 2, "storage": "", "study": "sweep"}
    return argparse.Namespace(**asked | {"vary": list(vary), "stop": None, "resume": None, "detach": True, "json": False} | changes)


@pytest.mark.parametrize("damage", ["declaration", "study_file"])
def test_a_damaged_sweep_is_a_line_among_the_others(capsys, damage):
    damaged, whole = create_sweep(Sweep("Damaged", {}, SPACE)), create_sweep(Sweep("Whole", {}, SPACE))
    say_last_word(whole, SweepStatus.STOPPED)
    getattr(damaged, damage).write_text("no\nJSON, no database")
    assert sweeps(options()) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) == {damaged.sweep_id, whole.sweep_id}
    assert "stopped" in lines[whole.sweep_id]
    assert "cannot be read" in lines[damaged.sweep_id]
    assert sweeps(options(json=True)) == 0
    told = {row["sweep_id"]: row for row in json.loads(capsys.readouterr().out)}
    assert told[damaged.sweep_id]["status"] == "unreadable"
    assert told[whole.sweep_id]["trials"] == 0


def test_what_varies_without_effect_is_refused_before_it_starts(started):
    with pytest.raises(SettingsError, match="Trained stages has no effect here"):
        sweep(options("trainable_stages=1..4"), make_config(trainable="head"))
    assert sweep(options("trainable_stages=1..4"), make_config(trainable="last_stages")) == 0
    assert len(started) == 1


def test_settings_that_a_sweep_leaves_aside_are_said(started, capsys):
    assert sweep(options("dropout=0..0.5"), make_config(processes=2)) == 0
    assert "--processes is left aside" in capsys.readouterr().err
    assert started[0].base["processes"] == 1


def test_a_sweep_is_made_around_the_settings_of_one_run_and_named_after_what_varies():
    space = tuple(
        map(parse_dimension, ("learning_rate=0.001..0.1:log", "trainable=head,last_stages", "flip=true,false", "crop=true,false"))
    )
    made = new_sweep(make_config(source="shapes", seed=7, tensorboard=True, processes=4), space, trials=5, pruner=Pruner.NONE)
    assert made.name == "Sweep of learning rate, what trains, random flip"
    assert (made.seed, made.trials, made.pruner) == (7, 5, Pruner.NONE)
    assert not {"learning_rate", "trainable", "flip", "crop"} & set(made.base)
    left = {name: made.base[name] for name in ("evaluate_test", "describe", "tensorboard", "processes", "source")}
    assert left == {"evaluate_test": False, "describe": False, "tensorboard": False, "processes": 1, "source": "shapes"}
    assert new_sweep(make_config(), space, name=" Mine ", seed=3).name == "Mine"


def test_ctrl_c_asks_the_sweep_to_stop_and_says_how_it_goes_on(started, capsys, monkeypatch):
    statuses = iter([(SweepStatus.RUNNING, ""), (SweepStatus.STOPPED, "")])

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    stopped: list[str] = []
    monkeypatch.setattr(sweep_commands.store, "status_of", lambda folder: next(statuses))
    monkeypatch.setattr(sweep_commands.store, "request_stop", lambda sweep_id: not stopped.append(sweep_id))
    monkeypatch.setattr(sweep_commands.time, "sleep", interrupted)
    assert sweep(options("dropout=0..0.5", detach=False), make_config()) == 0
    assert stopped
    assert f"Go on with: python -m cifar_tl sweep --continue {stopped[0]}" in capsys.readouterr().err


def test_help_says_what_ctrl_c_does_and_what_at_once_counts(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "trials at the same time, on all devices of this machine together" in told
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Ctrl-C stops it and its runs" in " ".join(capsys.readouterr().out.split())
