"""What commands say while they work: into a file line by line, onto a terminal by a bar."""

import io
import sys

import pytest

from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.log import EventReader
from cifar_tl.sweep_commands import tell_ended
from cifar_tl.sweeps.study import TrialRow
from cifar_tl.terminal import RunBar, StatusBar
from tests.made_runs import make_run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def history(tmp_path) -> RunHistory:
    """Of a run of three epochs with one warning."""
    found = RunHistory()
    found.extend(EventReader(make_run(tmp_path).events).read_new())
    return found


def seen(history: RunHistory, events: int) -> RunHistory:
    """What was known of it by then: as much of the log as a first look found."""
    return RunHistory(steps=history.steps, epochs=history.epochs[:events], started=history.started, phase=history.phase)


def test_into_a_file_a_run_is_a_line_for_each_phase_epoch_and_warning(history, capsys):
    with RunBar() as bar:
        for known in (seen(history, 0), seen(history, 0), seen(history, 1), seen(history, 1), history, history):
            bar.show(known)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Training", "epoch 1/3", "warning", "epoch 2/3", "epoch 3/3"]
    assert f"dev {history.epochs[1].dev_accuracy:.1%}" in lines[3]
    assert "made up" in lines[2]


def test_an_epoch_that_is_done_again_is_told_again(history, capsys):
    with RunBar() as bar:
        for epochs in (2, 1, 2):
            bar.show(seen(history, epochs))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "Training", "epoch 2/3"]


def test_onto_a_terminal_a_run_is_one_bar_with_its_newest_numbers(history, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with RunBar() as bar:
        bar.show(history)
    shown = terminal.getvalue()
    assert f"dev {history.epochs[-1].dev_accuracy:.1%}" in shown
    assert "100%" in shown
    assert shown.count("warning: ") == 1


def test_a_text_that_stays_is_one_line_in_a_file(capsys):
    with StatusBar() as bar:
        for done in range(5):
            bar.show("Judging resnet18", done / 5)
        bar.show("Timing resnet18", 0.0)
    assert capsys.readouterr().err.splitlines() == ["Judging resnet18", "Timing resnet18"]


def trial(number: int, state: str, epochs: int = 1) -> TrialRow:
    return TrialRow(
        number, state, None if state == "fail" else 0.5, {"learning_rate": 0.0123456, "flip": True}, "run", "No memory.", epochs
    )


def test_each_trial_is_told_once_when_it_ends_in_whatever_order(capsys):
    told: set[int] = set()
    tell_ended([trial(0, "running"), trial(1, "complete", 3), trial(2, "waiting")], told)
    assert capsys.readouterr().err == "trial 2: complete 50.0% on dev after 3 epochs (learning_rate 0.0123, flip True)\n"
    tell_ended([trial(0, "pruned"), trial(1, "complete", 3), trial(2, "fail")], told)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "trial 1: given up: No memory. 50.0% on dev after 1 epoch (learning_rate 0.0123, flip True)"
    assert second == "trial 3: failed: No memory. (learning_rate 0.0123, flip True)"
