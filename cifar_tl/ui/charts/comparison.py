"""Curves of several runs in one chart, as Plotly traces and layout for the live plot. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cifar_tl.runs.events import Epoch
from cifar_tl.ui.charts.curves import Chart, Trace, latest_of_each_epoch
from cifar_tl.ui.live_plot import typed

# Okabe and Ito (2008), apart for colour-blind eyes, lightened to be readable on light and dark alike.
RUN_COLOURS = ("#3b8fd4", "#e8743b", "#2fa37c", "#b978b8", "#c9a227", "#6c7a89")
_SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class Curve:
    """What can be drawn of each epoch: its name, its axis and number format."""

    name: str
    of: Callable[[Epoch], float]
    tick_format: str
    hover_format: str


CURVES = (
    Curve("Dev accuracy", lambda epoch: epoch.dev_accuracy, ".0%", ".1%"),
    Curve("Train accuracy", lambda epoch: epoch.train_accuracy, ".0%", ".1%"),
    Curve("Train minus dev", lambda epoch: epoch.train_accuracy - epoch.dev_accuracy, ".0%", ".1%"),
    Curve("Dev loss", lambda epoch: epoch.dev_loss, "", ".3f"),
    Curve("Train loss", lambda epoch: epoch.train_loss, "", ".3f"),
)


def overlay(names: Sequence[str], epochs_of_runs: Sequence[Sequence[Epoch]], curve: Curve, *, by_time: bool) -> Chart:
    """One line for each run, against the epoch or the minutes spent in epochs (without preparing data)."""
    traces = []
    for name, epochs, colour in zip(names, map(latest_of_each_epoch, epochs_of_runs), RUN_COLOURS, strict=False):
        seconds = np.cumsum([epoch.epoch_seconds for epoch in epochs])
        x = seconds / _SECONDS_PER_MINUTE if by_time else np.array([epoch.epoch for epoch in epochs])
        traces.append(_line(name, x, np.array([curve.of(epoch) for epoch in epochs]), colour, curve.hover_format))
    axis = "Minutes of training" if by_time else "Epoch"
    layout = {
        "margin": {"l": 56, "r": 12, "t": 34, "b": 40},
        "hovermode": "closest" if by_time else "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": axis, "font": {"size": 13}}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {"title": {"text": curve.name, "font": {"size": 13}}, "tickformat": curve.tick_format, "zeroline": False},
    }
    latest = "; ".join(
        f"{name} {format(curve.of(epochs[-1]), curve.hover_format)}" for name, epochs in zip(names, epochs_of_runs, strict=True) if epochs
    )
    return Chart(traces, layout, f"{curve.name} of {len(names)} runs. Latest: {latest or 'none yet'}.")


def _line(name: str, x: np.ndarray, y: np.ndarray, colour: str, number_format: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": typed(x),
        "y": typed(y),
        "line": {"color": colour, "width": 2},
        "marker": {"size": 6, "color": colour},
        "hovertemplate": f"%{{y:{number_format}}}",
    }
