"""Optuna's figures in the words, colours and numbers of the pages."""

import json

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from cifar_tl.ui.charts.curves import DEV_COLOUR, TRAIN_COLOUR
from cifar_tl.ui.charts.sweeps import CHARTS, HISTORY, IMPORTANCE, PARALLEL, SLICE, sweep_chart

ACCURACIES = (0.61, 0.681, 0.65, 0.672, 0.64, 0.69)


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    """Six complete trials; the third of the seven in all was given up."""
    made = optuna.create_study(direction="maximize")
    space = {"learning_rate": FloatDistribution(0.001, 1, log=True), "trainable": CategoricalDistribution(["head", "last_stages"])}
    trials = [
        optuna.trial.create_trial(
            params={"learning_rate": 0.001 * 3**number, "trainable": ("head", "last_stages")[number % 2]},
            distributions=space,
            value=accuracy,
        )
        for number, accuracy in enumerate(ACCURACIES)
    ]
    pruned = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED, params=trials[0].params, distributions=space, intermediate_values={1: 0.3}
    )
    made.add_trials([*trials[:2], pruned, *trials[2:]])
    return made


@pytest.mark.parametrize("name", CHARTS)
def test_settings_are_named_by_their_titles(study, name):
    chart = sweep_chart(name, study)
    text = json.dumps([chart.traces, chart.layout])
    assert "learning_rate" not in text
    assert name == HISTORY or "Learning rate" in text


def test_history_counts_trials_from_one_as_the_table_does(study):
    complete, best = sweep_chart(HISTORY, study).traces
    assert (complete["name"], best["name"]) == ("Complete trial", "Best so far")
    assert complete["x"] == [1, 2, 4, 5, 6, 7]
    assert complete["y"] == list(ACCURACIES)
    assert best["y"][-1] == 0.69


def test_slice_counts_trials_from_one(study):
    assert {tuple(sorted(trace["marker"]["color"])) for trace in sweep_chart(SLICE, study).traces} == {(1, 2, 4, 5, 6, 7)}


def test_a_line_has_the_colour_of_its_accuracy_and_accuracies_are_percentages(study):
    chart = sweep_chart(PARALLEL, study)
    lines = [trace for trace in chart.traces if trace["mode"] == "lines"]
    worst, best = lines[ACCURACIES.index(0.61)], lines[ACCURACIES.index(0.69)]
    assert worst["line"]["color"] == _rgb(TRAIN_COLOUR)
    assert best["line"]["color"] == _rgb(DEV_COLOUR)
    assert best["customdata"][0] == ["Dev accuracy", "69.0%"]
    assert {mark["text"] for mark in chart.layout["annotations"] if mark["x"] == 0} >= {"61.0%", "69.0%"}


def test_importances_are_shares(study):
    (bars,) = sweep_chart(IMPORTANCE, study).traces
    assert bars["text"] == [f"{share:.0%}" for share in bars["x"]]
    assert sum(bars["x"]) == pytest.approx(1)


def _rgb(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"
