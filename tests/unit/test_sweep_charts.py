"""Optuna's figures in the words, colours and numbers of the pages."""

import json
import sys

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from cifar_tl.ui.charts.curves import DEV_COLOUR, TRAIN_COLOUR
from cifar_tl.ui.charts.sweeps import CHARTS, HISTORY, IMPORTANCE, PARALLEL, SLICE, _whole_step, is_slow, sweep_chart
from cifar_tl.ui.live_plot import BACKGROUND

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
    complete, best, other = sweep_chart(HISTORY, study).traces
    assert (complete["name"], best["name"], other["name"]) == ("Complete trial", "Best so far", "Not complete")
    assert complete["x"] == [1, 2, 4, 5, 6, 7]
    assert complete["y"] == list(ACCURACIES)
    assert best["y"][-1] == 0.69
    assert (other["x"], other["y"]) == ([3], [0.3])


def test_slice_counts_trials_from_one(study):
    assert {tuple(sorted(trace["marker"]["color"])) for trace in sweep_chart(SLICE, study).traces} == {(1, 2, 4, 5, 6, 7)}


def test_a_line_has_the_colour_of_its_accuracy_and_accuracies_are_percentages(study):
    chart = sweep_chart(PARALLEL, study)
    lines = [trace for trace in chart.traces if trace["mode"] == "lines"]
    worst, best = lines[ACCURACIES.index(0.61)], lines[ACCURACIES.index(0.69)]
    assert worst["line"]["color"] == _rgb(TRAIN_COLOUR)
    assert best["line"]["color"] == _rgb(DEV_COLOUR)
    assert best["customdata"][0] == ["Dev accuracy", "69.0 %"]
    assert {mark["text"] for mark in chart.layout["annotations"] if mark["x"] == 0} >= {"61.0 %", "69.0 %"}


def test_importances_are_shares(study):
    (bars,) = sweep_chart(IMPORTANCE, study).traces
    assert bars["text"] == [f"{share:.0%}" for share in bars["x"]]
    assert sum(bars["x"]) == pytest.approx(1)


def made(values, **choices) -> optuna.Study:
    """One complete trial for each accuracy; of each setting the first choice and the others in turn."""
    study = optuna.create_study(direction="maximize")
    for number, accuracy in enumerate(values):
        study.add_trial(
            optuna.trial.create_trial(
                params={name: options[number % len(options)] for name, options in choices.items()}
                | {"learning_rate": 0.002 * (1 + number)},
                distributions={name: CategoricalDistribution(options) for name, options in choices.items()}
                | {"learning_rate": FloatDistribution(0.001, 0.1, log=True)},
                value=accuracy,
            )
        )
    return study


@pytest.mark.parametrize(("accuracies", "ends"), [((0.5,), (0.48, 0.52)), ((0.995, 0.995), (0.975, 1)), ((0.01, 0.3), (0, 0.32))])
def test_history_has_a_scale_of_accuracies_and_whole_trials_also_for_one_or_equal_ones(accuracies, ends):
    layout = sweep_chart(HISTORY, made(accuracies)).layout
    assert layout["yaxis"]["range"] == pytest.approx(ends)
    assert layout["yaxis"]["tickformat"] == ".0%"
    assert layout["yaxis"]["dtick"] >= 0.01  # ticks of a fraction of a percent would read alike
    assert layout["xaxis"]["range"] == [0.5, len(accuracies) + 0.5]
    assert layout["xaxis"]["dtick"] == 1


@pytest.mark.parametrize(("trials", "step"), [(1, 1), (10, 1), (11, 2), (30, 5), (9_999, 1000)])
def test_trials_have_about_ten_ticks_at_whole_numbers(trials, step):
    assert _whole_step(trials) == step


def test_accuracies_are_rounded_as_in_the_table():
    """The browser rounds 34.25 up, Python down; Optuna rounds to three digits before anybody."""
    made_study = made((0.3425, 0.3))
    history = sweep_chart(HISTORY, made_study).traces[0]
    assert list(history["customdata"]) == ["34.2 %", "30.0 %"]
    assert [pair[1] for pair in sweep_chart(SLICE, made_study).traces[0]["customdata"]] == ["34.2 %", "30.0 %"]
    parallel = sweep_chart(PARALLEL, made_study)
    assert parallel.traces[0]["customdata"][0][1] == "34.2 %"
    assert "34.2 %" in {mark["text"] for mark in parallel.layout["annotations"]}


CHOICES = {"optimizer": ("sgd", "adamw"), "flip": (False, True), "batch_size": (64, 128), "first_image_size": (None, 64)}


def test_slice_has_the_labels_of_the_form_and_ticks_at_powers_of_ten():
    chart = sweep_chart(SLICE, made((0.5, 0.6), **CHOICES))
    axes = {axis["title"]["text"]: axis for name, axis in chart.layout.items() if name.startswith("xaxis")}
    assert axes["Optimizer"]["ticktext"] == ["SGD with Nesterov<br>momentum", "AdamW"]
    assert axes["Random flip"]["ticktext"] == ["Off", "On"]
    assert axes["Batch size"]["ticktext"] == ["64", "128"]
    assert axes["First image size"]["ticktext"] == ["Same as image size", "64"]
    assert axes["Learning rate"]["ticktext"] == ["0.001", "0.01", "0.1"]
    for trace in chart.traces:
        axis = chart.layout["xaxis" + trace["xaxis"][1:]]
        assert set(trace["x"]) <= set(axis.get("categoryarray", trace["x"]))
    assert "'" not in json.dumps([chart.traces, chart.layout])


def test_slice_has_ticks_at_numbers_that_are_tried():
    study = optuna.create_study(direction="maximize")
    for _ in range(2):
        trial = study.ask()
        trial.suggest_int("image_size", 64, 160, step=32)
        trial.suggest_int("epochs", 5, 20)
        study.tell(trial, 0.5)
    axes = {axis["title"]["text"]: axis for name, axis in sweep_chart(SLICE, study).layout.items() if name.startswith("xaxis")}
    assert (axes["Image size"]["tick0"], axes["Image size"]["dtick"]) == (64, 32)
    assert (axes["Epochs"]["tick0"], axes["Epochs"]["dtick"]) == (5, 5)


def test_lines_of_parallel_coordinates_do_not_run_through_labels():
    chart = sweep_chart(PARALLEL, made((0.5, 0.6), **CHOICES))
    marks, last = chart.layout["annotations"], len(CHOICES) + 1
    assert {mark["text"] for mark in marks} >= {"SGD with Nesterov<br>momentum", "AdamW", "On", "Off", "Same as image size", "128"}
    assert all(mark["bgcolor"] == BACKGROUND for mark in marks)
    assert {mark["xanchor"] for mark in marks if mark["x"] == last} == {"left"}
    assert chart.layout["xaxis"]["range"][1] > last
    assert ["Optimizer", "AdamW"] in chart.traces[1]["customdata"]


def test_the_first_importances_are_known_to_be_slow(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn.ensemble", raising=False)
    assert [name for name in CHARTS if is_slow(name)] == [IMPORTANCE]
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", sys)
    assert not is_slow(IMPORTANCE)


def _rgb(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"
