"""Scores of classes -> one chart, and one class through the epochs -> another. Pure functions, no Streamlit calls."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cifar_tl.runs.events import Epoch
from cifar_tl.ui.charts.curves import Chart, latest_of_each_epoch
from cifar_tl.ui.live_plot import TEXT, mix, theme_colour, typed

_MOST_NAMED = 110  # classes whose names fit below the axis


def measure_chart(
    measure: str,
    names: Sequence[str],
    values_C: np.ndarray,
    intervals_C2: np.ndarray | None = None,
    *,
    selected: int | None = None,
) -> Chart:
    """One point for each class, lowest first, with its 95 % interval where there is one. Classes without a value (nan) are left out.

    A click reports the class's name as `x`.
    """
    order = np.argsort(values_C, kind="stable")
    order = order[~np.isnan(values_C[order])]
    colours = [theme_colour("orange") if i == selected else theme_colour("primary") for i in order]
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": [names[i] for i in order],
        "y": typed(values_C[order]),
        "marker": {"size": 7, "color": colours},
        "hovertemplate": f"<b>%{{x}}</b><br>{measure}: %{{y:.1%}}<extra></extra>",
    }
    if intervals_C2 is not None:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": typed(intervals_C2[order, 1] - values_C[order]),
            "arrayminus": typed(values_C[order] - intervals_C2[order, 0]),
            "color": mix(TEXT, "transparent", 0.35),
            "thickness": 1,
            "width": 0,
        }
    layout: dict[str, Any] = {
        "margin": {"l": 56, "r": 8, "t": 12, "b": 8},
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": {
            "type": "category",
            "showgrid": False,
            "showticklabels": len(order) <= _MOST_NAMED,
            "tickangle": -90,
            "tickfont": {"size": 9},
        },
        "yaxis": {"title": {"text": measure, "font": {"size": 13}}, "tickformat": ".0%", "zeroline": False},
    }
    layout["xaxis"] |= {"dtick": 1} if len(order) <= _MOST_NAMED else {"title": {"text": f"{len(order):,} classes, lowest first"}}
    return Chart([trace], layout, _describe(measure, names, values_C, order))


def _describe(measure: str, names: Sequence[str], values_C: np.ndarray, order: np.ndarray) -> str:
    if not len(order):
        return f"{measure} of no class is known."
    low, high = order[0], order[-1]
    return f"{measure} of {len(order)} classes, from {names[low]} ({values_C[low]:.1%}) to {names[high]} ({values_C[high]:.1%})."


def trend_chart(name: str, index: int, epochs: Sequence[Epoch]) -> Chart:
    """Dev accuracy of one class after each epoch, beside that of all classes."""
    shown = latest_of_each_epoch(epochs)
    x = np.array([epoch.epoch for epoch in shown])
    of_class = np.array([_or_nan(epoch.dev_accuracy_per_class[index]) for epoch in shown])
    of_all = np.array([epoch.dev_accuracy for epoch in shown])
    line = {"type": "scatter", "mode": "lines+markers", "x": typed(x), "hovertemplate": "%{y:.1%}"}
    traces = [
        line | {"name": "All classes", "y": typed(of_all), "line": {"color": theme_colour("gray"), "width": 2}, "marker": {"size": 5}},
        line | {"name": name, "y": typed(of_class), "line": {"color": theme_colour("primary"), "width": 2}, "marker": {"size": 6}},
    ]
    layout = {
        "margin": {"l": 48, "r": 8, "t": 30, "b": 36},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "Epoch", "font": {"size": 13}}, "dtick": max(1, len(shown) // 8), "zeroline": False},
        "yaxis": {"title": {"text": "Dev accuracy", "font": {"size": 13}}, "tickformat": ".0%", "rangemode": "tozero"},
    }
    return Chart(traces, layout, f"Dev accuracy of {name} over {len(shown)} epochs: now {of_class[-1]:.1%}, all classes {of_all[-1]:.1%}.")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
