"""The embedding map as one WebGL scatter plot: a point for each image, coloured by what is asked. Pure functions, no Streamlit calls.

Every trace carries, as customdata, the numbers of its points: indices into `MapPoints`, which hovering and the lasso report.
Axes have no numbers, because a map of this kind has no units: only who is near to whom means something.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar_tl.ui.charts.curves import Chart, Trace
from cifar_tl.ui.charts.map_groups import RIGHT_COLOUR, ColourBy, Group, about_class, kinds, outcomes
from cifar_tl.ui.charts.map_points import MapPoints
from cifar_tl.ui.live_plot import BACKGROUND, TEXT, mix, typed

HEIGHT = 600
_MOST_NAMED = 20  # more groups are told apart by hovering; their names would hide the points
_SHORTEST_GROUP_NAMED = 5  # points
_LARGE_MAP = 4_000  # points; smaller ones have larger dots
_CELLS = 24  # along each side, when looking for where a group is densest
_LONGEST_LABEL = 24  # characters


def map_chart(
    points: MapPoints,
    class_names: Sequence[str],
    superclasses: tuple[Sequence[str], Sequence[int]],
    *,
    colour_by: ColourBy,
    is_shown_N: np.ndarray,
    highlighted: int | None = None,
    chosen: int | None = None,
) -> Chart:
    """Points where `is_shown_N`. `superclasses`: their names, and that of each class. `highlighted`: a class that all colours are about;
    `chosen`: a point that is ringed."""
    if highlighted is not None:
        groups, has_legend = about_class(points, class_names, highlighted), True
    elif colour_by is ColourBy.CONFIDENCE:
        return Chart(
            _confidence_traces(points, is_shown_N) + _ring(points, chosen), _layout(has_legend=False), _describe(points, is_shown_N)
        )
    elif colour_by is ColourBy.OUTCOME:
        groups, has_legend = outcomes(points), True
    else:
        groups, has_legend = kinds(points, class_names, superclasses, colour_by), False
    traces = [trace for group in groups for trace in _group_traces(points, group, is_shown_N, _dot(points), in_legend=has_legend)]
    layout = _layout(has_legend=has_legend)
    if not has_legend and len(groups) <= _MOST_NAMED:
        layout["annotations"] = [label for group in groups if (label := _name_on_map(points, group, is_shown_N))]
    return Chart(traces + _ring(points, chosen), layout, _describe(points, is_shown_N))


def _dot(points: MapPoints) -> int:
    return 4 if len(points) > _LARGE_MAP else 6


def _group_traces(points: MapPoints, group: Group, is_shown_N: np.ndarray, dot: int, *, in_legend: bool) -> list[Trace]:
    """Test images as dots, training images as rings."""
    traces: list[Trace] = []
    for is_train in (False, True):
        members = np.flatnonzero(group.is_in_N & is_shown_N & (points.is_train_N == is_train))
        if len(members):
            marker = {"size": dot + is_train, "opacity": group.opacity, "color": group.colour}
            trace = _trace(points, members, marker, is_train) | {"name": _escaped(group.name), "legendgroup": group.name}
            traces.append(trace | {"showlegend": in_legend and len(traces) == 0})
    return traces


def _trace(points: MapPoints, members: np.ndarray, marker: dict[str, Any], is_train: bool) -> Trace:
    return {
        "type": "scattergl",
        "mode": "markers",
        "x": typed(points.xy_N2[members, 0]),
        "y": typed(points.xy_N2[members, 1]),
        "customdata": typed(members, "<i4"),
        "marker": marker | {"symbol": "circle-open" if is_train else "circle"},
        "hoverinfo": "none",
    }


def _confidence_traces(points: MapPoints, is_shown_N: np.ndarray) -> list[Trace]:
    traces: list[Trace] = []
    for is_train in (False, True):
        members = np.flatnonzero(is_shown_N & (points.is_train_N == is_train) & ~np.isnan(points.confidences_N))
        if not len(members):
            continue
        marker = {
            "size": _dot(points) + is_train,
            "opacity": 0.8,
            "color": typed(points.confidences_N[members]),
            "colorscale": [[0, "#c2324b"], [0.5, "#e0a030"], [1, RIGHT_COLOUR]],
            "cmin": 0,
            "cmax": 1,
            "showscale": not traces,
            "colorbar": {"title": {"text": "Confidence", "side": "right"}, "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        }
        traces.append(_trace(points, members, marker, is_train) | {"showlegend": False})
    return traces


def _ring(points: MapPoints, chosen: int | None) -> list[Trace]:
    if chosen is None:
        return []
    marker = {"size": 16, "symbol": "circle-open", "color": TEXT, "line": {"width": 2}}
    x, y = (float(value) for value in points.xy_N2[chosen])
    ring = {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "marker": marker, "hoverinfo": "skip", "showlegend": False}
    return [ring | {"unselected": {"marker": {"opacity": 1}}}]  # a lasso is not about it


def _name_on_map(points: MapPoints, group: Group, is_shown_N: np.ndarray) -> dict[str, Any] | None:
    """The group's name where most of it lies: read without looking from a legend to the map and back."""
    members = np.flatnonzero(group.is_in_N & is_shown_N)
    if len(members) < _SHORTEST_GROUP_NAMED:
        return None
    x, y = densest_place(points.xy_N2[members])
    text = group.name if len(group.name) <= _LONGEST_LABEL else group.name[: _LONGEST_LABEL - 1] + "…"
    return {
        "x": x,
        "y": y,
        "text": _escaped(text),
        "showarrow": False,
        "yanchor": "bottom",
        "font": {"size": 11, "color": TEXT},
        "bgcolor": mix(BACKGROUND, "transparent", 0.72),
        "borderpad": 1,
        "captureevents": False,
    }


def _escaped(text: str) -> str:
    """Plotly reads a few HTML tags in texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def densest_place(xy_n2: np.ndarray) -> tuple[float, float]:
    """The middle of the points in the fullest cell of a grid over them: a mean may lie where there is no point at all."""
    low, high = xy_n2.min(0), xy_n2.max(0)
    cells_n2 = np.minimum(((xy_n2 - low) / np.maximum(high - low, 1e-12) * _CELLS).astype(np.int64), _CELLS - 1)
    cells_n = cells_n2[:, 0] * _CELLS + cells_n2[:, 1]
    fullest = np.bincount(cells_n, minlength=_CELLS**2).argmax()
    x, y = xy_n2[cells_n == fullest].mean(0)
    return float(x), float(y)


def _layout(*, has_legend: bool) -> dict[str, Any]:
    axis = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": "", "title": {"text": ""}}
    return {
        "xaxis": axis,
        "yaxis": axis | {"scaleanchor": "x"},
        "margin": {"l": 4, "r": 4, "t": 30, "b": 4},
        "hovermode": "closest",
        "hoverdistance": 12,
        "dragmode": "lasso",
        "showlegend": has_legend,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yanchor": "bottom",
            "itemsizing": "constant",
            "bgcolor": mix(BACKGROUND, "transparent", 0.72),
        },
    }


def _describe(points: MapPoints, is_shown_N: np.ndarray) -> str:
    test, train = int((is_shown_N & ~points.is_train_N).sum()), int((is_shown_N & points.is_train_N).sum())
    shown = " and ".join(f"{count:,} {name} images" for count, name in ((test, "test"), (train, "training")) if count)
    return f"Map of {shown or 'no images'}: images that look alike to the model lie near each other."
