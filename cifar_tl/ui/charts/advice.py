"""Advice as Plotly traces and layout for the live plot. Pure."""

from collections.abc import Sequence

from cifar_tl.advice.answers import BackboneAdvice, RateRange
from cifar_tl.ui.charts.curves import Chart

_COLOUR, _MARKED = "#3b8fd4", "#e8743b"
_MARGIN = {"l": 60, "r": 20, "t": 16, "b": 46}


def accuracy_against_time(found: Sequence[BackboneAdvice]) -> Chart:
    """Expected dev accuracy with its interval, against the time of an epoch: up and to the left is better."""
    known = [item for item in found if not item.error]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [item.epoch_seconds for item in known],
        "y": [item.expected for item in known],
        "text": [item.backbone for item in known],
        "textposition": "top right",
        "marker": {"size": 10, "color": _COLOUR},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [item.high - item.expected for item in known],
            "arrayminus": [item.expected - item.low for item in known],
            "color": _COLOUR,
            "thickness": 1.5,
        },
        "hovertemplate": "%{text}: %{y:.1%}, %{x:.1f} s an epoch<extra></extra>",
        "cliponaxis": False,
    }
    layout = {
        "margin": _MARGIN | {"r": 150},
        "showlegend": False,
        "xaxis": {"title": {"text": "Seconds per epoch", "font": {"size": 13}}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {"title": {"text": "Expected dev accuracy", "font": {"size": 13}}, "tickformat": ".0%", "zeroline": False},
    }
    told = "; ".join(f"{item.backbone} {item.expected:.0%} at {item.epoch_seconds:.1f} s" for item in known)
    return Chart([trace], layout, f"Expected dev accuracy against seconds per epoch: {told or 'nothing'}.")


def loss_against_rate(found: RateRange) -> Chart:
    """The smoothed loss of a learning-rate range test, with the suggestion marked."""
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": list(found.rates),
        "y": list(found.losses),
        "line": {"color": _COLOUR, "width": 2},
        "hovertemplate": "%{x:.2g}: loss %{y:.3f}<extra></extra>",
    }
    layout = {
        "margin": _MARGIN,
        "showlegend": False,
        "xaxis": {
            "title": {"text": "Learning rate", "font": {"size": 13}},
            "type": "log",
            "dtick": 1,
            "tickformat": "~g",
            "zeroline": False,
        },
        "yaxis": {"title": {"text": "Loss, smoothed", "font": {"size": 13}}, "zeroline": False},
    }
    if found.suggestion is not None:
        layout["shapes"] = [
            {
                "type": "line",
                "x0": found.suggestion,
                "x1": found.suggestion,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": _MARKED, "dash": "dot"},
            }
        ]
    return Chart([line], layout, f"Loss against learning rate; suggested: {found.suggestion or 'none'}.")
