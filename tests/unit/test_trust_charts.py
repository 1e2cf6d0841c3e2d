"""The reliability diagram and the coverage curve as Plotly data."""

import base64
from typing import Any

import numpy as np
import pytest

from cifar_tl.evaluation.analysis import Proportion
from cifar_tl.evaluation.calibration import reliability
from cifar_tl.evaluation.coverage import coverage
from cifar_tl.ui.charts.curves import Chart
from cifar_tl.ui.charts.trust import MOST_POINTS, coverage_chart, reliability_chart, shown_points

CONFIDENCES = np.array([0.9, 0.9, 0.9, 0.6])
IS_RIGHT = np.array([True, True, False, True])
BEFORE = reliability(CONFIDENCES, IS_RIGHT, bins=5)
AFTER = reliability(CONFIDENCES - 0.15, IS_RIGHT, bins=5)


def of(chart: Chart, kind: str, name: str) -> dict[str, Any]:
    return next(trace for trace in chart.traces if trace["type"] == kind and trace.get("name") == name)


def values(packed: dict[str, str]) -> list[float]:
    return np.frombuffer(base64.b64decode(packed["bdata"]), "<" + packed["dtype"]).tolist()


def test_a_point_lies_at_the_mean_confidence_and_the_accuracy_of_its_bin():
    points = of(reliability_chart(BEFORE), "scatter", "As trained")
    assert points["x"] == pytest.approx([0.6, 0.9])
    assert points["y"] == pytest.approx([1, 2 / 3])
    assert points["customdata"] == [1, 3]


def test_whiskers_are_wilson_intervals():
    points = of(reliability_chart(BEFORE), "scatter", "As trained")
    low, high = Proportion(2, 3).interval
    assert points["error_y"]["array"][1] == pytest.approx(high - 2 / 3)
    assert points["error_y"]["arrayminus"][1] == pytest.approx(2 / 3 - low)


def test_the_number_of_images_of_every_bin_is_a_bar():
    bars = of(reliability_chart(BEFORE), "bar", "As trained")
    assert bars["y"] == [0, 0, 1, 0, 3]
    assert bars["x"] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert bars["customdata"][4] == "80 to 100 % sure"
    assert bars["yaxis"] == "y2"


def test_scaling_adds_a_second_curve_and_its_bars():
    names = [trace["name"] for trace in reliability_chart(BEFORE, AFTER).traces]
    assert names.count("After temperature scaling") == 2
    assert "After temperature scaling" not in [trace["name"] for trace in reliability_chart(BEFORE).traces]


def test_the_description_of_the_diagram_tells_both_errors():
    text = reliability_chart(BEFORE, AFTER).description
    assert f"expected calibration error {BEFORE.expected_error:.1%}" in text
    assert f"after temperature scaling {AFTER.expected_error:.1%}" in text


def test_the_coverage_curve_lies_within_its_band():
    chart = coverage_chart(coverage(CONFIDENCES, IS_RIGHT), 0.8)
    high, low, curve = (values(trace["y"]) for trace in chart.traces[:3])
    assert curve == pytest.approx([2 / 3, 3 / 4])
    assert values(chart.traces[2]["x"]) == pytest.approx([3 / 4, 1])
    assert all(bottom < y < top for bottom, y, top in zip(low, curve, high, strict=True))
    assert chart.traces[1]["fill"] == "tonexty"


def test_the_threshold_is_marked_where_it_answers():
    marked = coverage_chart(coverage(CONFIDENCES, IS_RIGHT), 0.8).traces[3]
    assert (marked["x"], marked["y"]) == ([0.75], [pytest.approx(2 / 3)])


def test_a_threshold_that_answers_nothing_is_not_marked():
    assert len(coverage_chart(coverage(CONFIDENCES, IS_RIGHT), 0.95).traces) == 3


def test_the_axis_leaves_out_the_width_of_the_first_few_answers():
    random = np.random.default_rng(0)
    confidences = random.random(2000)
    chart = coverage_chart(coverage(confidences, random.random(2000) < 0.8 + 0.2 * confidences), 0.5)
    assert chart.layout["yaxis"]["range"][0] > 0.7


def test_a_long_curve_keeps_its_ends_and_few_points():
    curve = coverage(np.random.default_rng(0).random(20_000), np.ones(20_000, bool))
    points = shown_points(curve)
    assert len(points) <= MOST_POINTS
    assert (points[0], points[-1]) == (0, len(curve.thresholds_M) - 1)


def test_a_curve_of_no_images_can_be_drawn():
    chart = coverage_chart(coverage(np.empty(0, np.float32), np.empty(0, bool)), 0.5)
    assert len(chart.traces) == 3
