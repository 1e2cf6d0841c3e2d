"""The charts of classes: what is drawn for which scores."""

import base64

import numpy as np
import pytest

from cifar_tl.runs.events import Epoch
from cifar_tl.ui.charts.classes import measure_chart, trend_chart

NAMES = ("cat", "dog", "fish")
VALUES = np.array([0.9, 0.4, np.nan])


def floats(packed: dict[str, str]) -> list[float]:
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"]).tolist()


def epoch(number: int, accuracies: list[float | None]) -> Epoch:
    return Epoch(
        epoch=number, step=number, train_loss=1.0, train_accuracy=0.5, train_images_measured=10, dev_loss=1.0, dev_accuracy=0.5,
        dev_top5=0.9, dev_accuracy_per_class=accuracies, is_best=False, images_per_second=1.0, epoch_seconds=1.0, eta_seconds=None,
        memory_bytes=1,
    )  # fmt: skip


def test_classes_come_lowest_first_and_those_without_a_value_are_left_out():
    trace = measure_chart("Recall", NAMES, VALUES).traces[0]
    assert trace["x"] == ["dog", "cat"]
    assert floats(trace["y"]) == pytest.approx([0.4, 0.9])


def test_intervals_reach_from_low_to_high():
    intervals = np.array([[0.8, 0.95], [0.3, 0.6], [0, 1]])
    bars = measure_chart("Recall", NAMES, VALUES, intervals).traces[0]["error_y"]
    assert floats(bars["array"]) == pytest.approx([0.2, 0.05])
    assert floats(bars["arrayminus"]) == pytest.approx([0.1, 0.1])


def test_chosen_class_has_a_colour_of_its_own():
    colours = measure_chart("Recall", NAMES, VALUES, selected=0).traces[0]["marker"]["color"]
    assert colours[1] != colours[0]


def test_a_thousand_classes_have_no_names_below_the_axis():
    names = [f"class {i}" for i in range(1000)]
    assert not measure_chart("Recall", names, np.linspace(0, 1, 1000)).layout["xaxis"]["showticklabels"]
    assert measure_chart("Recall", NAMES, VALUES).layout["xaxis"]["showticklabels"]


def test_description_names_the_ends():
    assert measure_chart("Recall", NAMES, VALUES).description == "Recall of 2 classes, from dog (40.0%) to cat (90.0%)."


def test_trend_is_that_of_the_class_beside_all():
    chart = trend_chart("dog", 1, [epoch(1, [0.1, 0.2, None]), epoch(2, [0.3, 0.6, None])])
    assert [trace["name"] for trace in chart.traces] == ["All classes", "dog"]
    assert floats(chart.traces[1]["y"]) == pytest.approx([0.2, 0.6])


def test_class_without_dev_images_has_gaps():
    assert np.isnan(floats(trend_chart("fish", 2, [epoch(1, [0.1, 0.2, None])]).traces[1]["y"])).all()
