"""RunHistory -> accuracy, loss and learning-rate charts, as Plotly traces and layouts for the live plot.

Pure functions: the live view calls them on every refresh, so they touch at most `MAX_POINTS` events of a series. The x axis
is the epoch, fixed to the whole run, so that a growing curve shows how far the run is and a zoom stays where it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_tl.config import REFERENCE_DEV_ACCURACY, REFERENCE_TRAIN_ACCURACY
from cifar_tl.runs.events import Epoch, Step
from cifar_tl.runs.history import RunHistory
from cifar_tl.ui.live_plot import typed

MAX_POINTS = 1_000
# So that the marker of the last epoch is not cut in half.
RIGHT_MARGIN = 1.015

# Readable on light and dark alike, and apart for colour-blind eyes (Okabe and Ito 2008, blue and vermillion, lightened).
TRAIN_COLOUR = "#3b8fd4"
DEV_COLOUR = "#e8743b"
FAINT_COLOUR = "rgba(128, 138, 150, 0.75)"
REFERENCE_COLOUR = "rgba(128, 138, 150, 0.9)"

Trace = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """What the live plot draws; `description` is its text for people who cannot see it."""

    traces: list[Trace]
    layout: dict[str, Any]
    description: str


def accuracy_chart(history: RunHistory, *, with_reference: bool = False) -> Chart:
    """Train and dev accuracy of each epoch over the batch accuracy of each logged step, all as fractions."""
    steps, epochs = shown_steps(history.steps), latest_of_each_epoch(history.epochs)
    traces = [
        _faint("Batches", _values(steps, lambda s: s.epoch), _values(steps, lambda s: s.batch_accuracy), ".1%"),
        *_train_and_dev(epochs, lambda e: e.train_accuracy, lambda e: e.dev_accuracy, ".1%"),
    ]
    end = _last_epoch(history)
    if with_reference:
        traces.append(_reference("Student project, train", REFERENCE_TRAIN_ACCURACY, end))
        traces.append(_reference("Student project, dev", REFERENCE_DEV_ACCURACY, end))
    best = max(epochs, key=lambda e: e.dev_accuracy, default=None)
    description = "Accuracy by epoch. " + (
        f"Latest epoch {epochs[-1].epoch}: train {epochs[-1].train_accuracy:.1%}, dev {epochs[-1].dev_accuracy:.1%}; "
        f"best dev {best.dev_accuracy:.1%} in epoch {best.epoch}."
        if best
        else "No epoch is finished yet."
    )
    return Chart(traces, _layout("Accuracy", end, {"tickformat": ".0%", "rangemode": "tozero"}), description)


def loss_chart(history: RunHistory) -> Chart:
    """Train and dev loss of each epoch over the training loss of each logged step, in nats."""
    steps, epochs = shown_steps(history.steps), latest_of_each_epoch(history.epochs)
    traces = [
        _faint("Batches", _values(steps, lambda s: s.epoch), _values(steps, lambda s: s.loss), ".3f"),
        *_train_and_dev(epochs, lambda e: e.train_loss, lambda e: e.dev_loss, ".3f"),
    ]
    description = "Loss by epoch. " + (
        f"Latest epoch {epochs[-1].epoch}: train {epochs[-1].train_loss:.3f}, dev {epochs[-1].dev_loss:.3f}."
        if epochs
        else "No epoch is finished yet."
    )
    return Chart(traces, _layout("Loss (nats)", _last_epoch(history), {"rangemode": "tozero"}), description)


def learning_rate_chart(history: RunHistory) -> Chart:
    """The learning rate of each logged step."""
    steps = shown_steps(history.steps)
    trace = _line("Learning rate", _values(steps, lambda s: s.epoch), _values(steps, lambda s: s.learning_rate), TRAIN_COLOUR, ".3g")
    now = f"It is {steps[-1].learning_rate:.3g} now." if steps else "No step is logged yet."
    layout = _layout("Learning rate", _last_epoch(history), {"rangemode": "tozero", "exponentformat": "power"})
    return Chart([trace], layout | {"showlegend": False}, f"Learning rate by epoch. {now}")


def shown_steps(steps: Sequence[Step], limit: int = MAX_POINTS) -> list[Step]:
    """At most `limit` + 1 of the logged steps, evenly spaced, the newest always among them.

    The stride is a power of two, so points that are shown stay while the run grows, instead of shimmering. Steps that a
    resumed run has done again are dropped in favour of the later ones.
    """
    numbers = np.fromiter((step.step for step in steps), np.int64, len(steps))
    if (np.diff(numbers) <= 0).any():
        smallest_from_here = np.minimum.accumulate(numbers[::-1])[::-1]
        is_kept = np.append(numbers[:-1] < smallest_from_here[1:], True)
        steps = [step for step, kept in zip(steps, is_kept, strict=True) if kept]
    stride = 1
    while len(steps) > stride * limit:
        stride *= 2
    shown = list(steps[::stride])
    if shown and shown[-1] is not steps[-1]:
        shown.append(steps[-1])
    return shown


def latest_of_each_epoch(epochs: Sequence[Epoch]) -> list[Epoch]:
    """Finished epochs in order; of one that a resumed run has done again, the later."""
    return [epoch for _, epoch in sorted({epoch.epoch: epoch for epoch in epochs}.items())]


def _values(events: Sequence[Any], of: Callable[[Any], float]) -> np.ndarray:
    return np.fromiter((of(event) for event in events), np.float32, len(events))


def _line(name: str, x: np.ndarray, y: np.ndarray, colour: str, number_format: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": typed(x),
        "y": typed(y),
        "line": {"color": colour, "width": 2},
        "hovertemplate": f"%{{y:{number_format}}}",
    }


def _faint(name: str, x: np.ndarray, y: np.ndarray, number_format: str) -> Trace:
    return _line(name, x, y, FAINT_COLOUR, number_format) | {"line": {"color": FAINT_COLOUR, "width": 1}}


def _train_and_dev(
    epochs: Sequence[Epoch], train: Callable[[Epoch], float], dev: Callable[[Epoch], float], number_format: str
) -> list[Trace]:
    x = _values(epochs, lambda epoch: epoch.epoch)
    return [
        _line(name, x, _values(epochs, of), colour, number_format) | {"mode": "lines+markers", "marker": {"size": 7, "symbol": symbol}}
        for name, of, colour, symbol in (("Train", train, TRAIN_COLOUR, "circle"), ("Dev", dev, DEV_COLOUR, "diamond"))
    ]


def _reference(name: str, accuracy: float, last_epoch: float) -> Trace:
    """A dashed level with its name on it, at the left, where curves are still below it: a label at the line needs no colour in a legend."""
    line = _line(name, np.array([0, last_epoch]), np.full(2, accuracy), REFERENCE_COLOUR, ".0%")
    return line | {
        "mode": "lines+text",
        "line": {"color": REFERENCE_COLOUR, "width": 1, "dash": "dash"},
        "text": [f"{name} {accuracy * 100:.0f} %", ""],
        "textposition": "top right",
        "textfont": {"size": 11},
        "showlegend": False,
        "hoverinfo": "skip",
        "hovertemplate": None,
    }


def _last_epoch(history: RunHistory) -> float:
    return float(history.started.epochs if history.started else 1)


def _layout(title: str, last_epoch: float, y_axis: dict[str, Any]) -> dict[str, Any]:
    return {
        "margin": {"l": 56, "r": 12, "t": 34, "b": 40},
        "hovermode": "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "Epoch", "font": {"size": 13}}, "range": [0, last_epoch * RIGHT_MARGIN], "zeroline": False},
        "yaxis": {"title": {"text": title, "font": {"size": 13}}, "zeroline": False} | y_axis,
    }
