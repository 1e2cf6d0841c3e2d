"""Advice as Plotly traces and layout for the live plot. Pure."""

from collections.abc import Sequence

from cifar_tl.advice.answers import BackboneAdvice, RateRange, plain_number
from cifar_tl.ui.charts.curves import Chart

_COLOUR, _MARKED = "#3b8fd4", "#e8743b"
_MARGIN = {"l": 60, "r": 20, "t": 16, "b": 46}

# Where a name may stand beside its point, best first, and about how much room there is, in pixels.
_PLACES = {
    "top right": (1, -1),
    "bottom right": (1, 1),
    "middle right": (1, 0),
    "top left": (-1, -1),
    "bottom left": (-1, 1),
    "middle left": (-1, 0),
}
_PLOT_WIDTH, _PLOT_HEIGHT = 560, 280
_LETTER_WIDTH, _LETTER_HEIGHT = 7.5, 15

_Box = tuple[float, float, float, float]  # left, top, right, bottom


def accuracy_against_time(found: Sequence[BackboneAdvice]) -> Chart:
    """Expected dev accuracy in percent with its interval, against the time of an epoch: up and to the left is better."""
    known = [item for item in found if not item.error]
    places = name_places(known)
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [item.epoch_seconds for item in known],
        "y": [100 * item.expected for item in known],
        "text": [item.backbone if place else "" for item, place in zip(known, places, strict=True)],
        "textposition": [place or "top right" for place in places],
        "hovertext": [item.backbone for item in known],
        "marker": {"size": 10, "color": _COLOUR},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (item.high - item.expected) for item in known],
            "arrayminus": [100 * (item.expected - item.low) for item in known],
            "color": _COLOUR,
            "thickness": 1.5,
        },
        "hovertemplate": "%{hovertext}: %{y:.1f} %, %{x:.1f} s an epoch<extra></extra>",
        "cliponaxis": False,
    }
    layout = {
        "margin": _MARGIN | {"r": 150},
        "showlegend": False,
        "xaxis": {"title": {"text": "Seconds per epoch", "font": {"size": 13}}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {"title": {"text": "Expected dev accuracy", "font": {"size": 13}}, "ticksuffix": " %", "zeroline": False},
    }
    told = "; ".join(f"{item.backbone} {100 * item.expected:.0f} % at {item.epoch_seconds:.1f} s" for item in known)
    missing = [item.backbone for item in found if item.error]
    not_told = f" Not measured: {', '.join(missing)}." if missing else ""
    return Chart([trace], layout, f"Expected dev accuracy against seconds per epoch: {told or 'nothing'}.{not_told}")


def name_places(known: Sequence[BackboneAdvice]) -> list[str]:
    """Plotly's text position for each name, so that none lies on another or on a point; empty where no place is left (hover tells it)."""
    if not known:
        return []
    slowest = max(item.epoch_seconds for item in known) or 1.0
    low, high = min(item.low for item in known), max(item.high for item in known)
    points = [(item.epoch_seconds / slowest * _PLOT_WIDTH, (high - item.expected) / ((high - low) or 1.0) * _PLOT_HEIGHT) for item in known]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    places = []
    for item, (x, y) in zip(known, points, strict=True):
        for place, (across, down) in _PLACES.items():
            width = _LETTER_WIDTH * len(item.backbone)
            left = x + 6 if across > 0 else x - 6 - width
            top = y + down * _LETTER_HEIGHT * 0.6 - _LETTER_HEIGHT / 2
            box = (left, top, left + width, top + _LETTER_HEIGHT)
            if left >= 0 and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                places.append(place)
                break
        else:
            places.append("")
    return places


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


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
    suggested = "none" if found.suggestion is None else plain_number(found.suggestion)
    return Chart([line], layout, f"Loss against learning rate; suggested: {suggested}.")
