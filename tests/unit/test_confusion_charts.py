"""The heat map's data: what is drawn for which matrix."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from cifar_tl.ui.charts.confusion import Cell, cell_of_click, cell_of_names, chart_height, colour_scale, confusion_chart

NAMES = ("cat", "dog", "fish")
MATRIX = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])


def unpacked(packed: dict[str, str]) -> np.ndarray:
    rows, columns = map(int, packed["shape"].split(","))
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"]).reshape(rows, columns)


def trace_of(**options: Any) -> dict[str, Any]:
    return confusion_chart(MATRIX, NAMES, **options).traces[0]


def test_heat_map_shows_counts_with_true_classes_down():
    assert unpacked(trace_of()["z"]).tolist() == MATRIX.tolist()
    layout = confusion_chart(MATRIX, NAMES).layout
    assert layout["yaxis"]["title"]["text"] == "True class"
    assert layout["yaxis"]["autorange"] == "reversed"
    assert layout["xaxis"]["title"]["text"] == "Predicted class"


def test_shares_are_of_the_true_class_and_counts_stay_on_hover():
    trace = trace_of(as_shares=True)
    assert unpacked(trace["z"])[0].tolist() == [0.75, 0.25, 0]
    assert unpacked(trace["customdata"]).tolist() == MATRIX.tolist()
    assert "customdata" in trace["hovertemplate"]


def test_hidden_diagonal_leaves_gaps_and_scales_to_the_mistakes():
    trace = trace_of(hide_diagonal=True)
    assert np.isnan(unpacked(trace["z"]).diagonal()).all()
    assert trace["zmax"] == 1


def test_matrix_without_mistakes_can_hide_its_diagonal():
    assert confusion_chart(np.diag([2, 2, 2]), NAMES, hide_diagonal=True).traces[0]["zmax"] == 1


def test_hiding_the_diagonal_does_not_change_the_matrix():
    before = MATRIX.copy()
    trace_of(hide_diagonal=True)
    assert (before == MATRIX).all()


def test_order_moves_rows_columns_and_names_together():
    trace = trace_of(order=[1, 2, 0])
    assert trace["x"] == trace["y"] == ["dog", "fish", "cat"]
    assert unpacked(trace["z"]).tolist() == [[4, 0, 0], [0, 0, 0], [1, 0, 3]]


def test_selected_cell_is_framed_where_the_order_puts_it():
    frame = confusion_chart(MATRIX, NAMES, order=[1, 2, 0], selected=Cell(0, 1)).layout["shapes"][0]
    assert (frame["y0"], frame["y1"], frame["x0"], frame["x1"]) == (1.5, 2.5, -0.5, 0.5)


def test_small_matrices_show_numbers_but_no_zeros():
    assert trace_of()["text"] == [["3", "1", ""], ["", "4", ""], ["", "", ""]]
    assert trace_of(as_shares=True)["text"][0] == ["75", "25", ""]


def test_share_below_half_a_percent_is_not_shown_as_none():
    assert confusion_chart(np.array([[999, 1], [0, 1]]), ["a", "b"], as_shares=True).traces[0]["text"][0] == ["100", "<1"]


def test_large_matrices_show_no_numbers():
    names = [f"class {i}" for i in range(100)]
    assert "text" not in confusion_chart(np.eye(100, dtype=int), names).traces[0]


def test_click_gives_true_and_predicted_class():
    assert cell_of_click({"x": "dog", "y": "cat", "z": 1, "curve": 0}, NAMES) == Cell(0, 1)


def test_click_on_a_label_gives_a_row_or_a_column():
    assert cell_of_click({"x": None, "y": "cat", "z": None, "curve": None}, NAMES) == Cell(0, None)
    assert cell_of_click({"x": "dog", "y": None, "z": None, "curve": None}, NAMES) == Cell(None, 1)


def test_names_of_an_address_give_a_cell_only_if_they_are_known():
    assert cell_of_names("cat", None, NAMES) == Cell(0, None)
    assert cell_of_names("cat", "horse", NAMES) is None
    assert cell_of_names(None, None, NAMES) is None


def test_selected_row_is_framed_over_all_columns():
    frame = confusion_chart(MATRIX, NAMES, selected=Cell(1, None)).layout["shapes"][0]
    assert (frame["y0"], frame["y1"], frame["x0"], frame["x1"]) == (0.5, 1.5, -0.5, 2.5)


def test_cells_below_the_least_are_empty_and_the_others_stay():
    assert unpacked(trace_of(least=2)["z"]).tolist() == [[3, 0, 0], [0, 4, 0], [0, 0, 0]]
    assert unpacked(trace_of(as_shares=True, least=0.5)["z"])[0].tolist() == [0.75, 0, 0]


def test_class_in_focus_is_in_the_middle_of_what_is_shown():
    names = [f"class {i}" for i in range(100)]
    layout = confusion_chart(np.eye(100, dtype=int), names, focus=50).layout
    assert layout["xaxis"]["range"] == [34.5, 64.5]
    assert layout["yaxis"]["range"] == [64.5, 34.5]


def test_class_in_focus_at_the_end_shows_no_empty_space_behind_it():
    names = [f"class {i}" for i in range(100)]
    assert confusion_chart(np.eye(100, dtype=int), names, focus=99).layout["xaxis"]["range"] == [69.5, 99.5]


def test_a_thousand_classes_take_at_most_three_megabytes():
    matrix = np.random.default_rng(0).integers(0, 50, (1000, 1000))
    chart = confusion_chart(matrix, [f"class {i}" for i in range(1000)])
    assert len(json.dumps(chart.traces)) < 3e6
    assert (unpacked(chart.traces[0]["z"]) == matrix).all()


@pytest.mark.parametrize("clicked", [None, {"x": "horse", "y": "cat"}])
def test_click_on_nothing_or_on_other_classes_gives_none(clicked):
    assert cell_of_click(clicked, NAMES) is None


def test_long_names_are_shortened_on_the_axis_only():
    name = "a name of more than twenty characters"
    chart = confusion_chart(np.eye(2, dtype=int), ["b", name])
    assert chart.traces[0]["x"][1] == name
    assert len(chart.layout["xaxis"]["labelalias"][name]) == 20


def test_colour_scale_rises_and_gives_a_hundredth_a_colour_of_its_own():
    stops = [stop for stop, _ in colour_scale()]
    assert stops == sorted(stops)
    assert (stops[0], stops[-1]) == (0, 1)
    assert sum(0 < stop < 0.01 for stop in stops) >= 2


def test_description_names_the_commonest_mistake():
    assert confusion_chart(MATRIX, NAMES).description == (
        "Confusion matrix of 3 classes: 7 of 8 images on the diagonal. Most often, cat is taken for dog (1 of 4 images)."
    )


def test_height_stays_within_a_screen():
    assert 400 <= chart_height(2) <= chart_height(20) <= chart_height(1000) <= 800
