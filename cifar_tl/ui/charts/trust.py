"""How sure a model is against how often it is right, and accuracy against coverage, for the live plot. Pure functions."""

from typing import Any

import numpy as np

from cifar_tl.evaluation.analysis import Proportion
from cifar_tl.evaluation.calibration import Reliability
from cifar_tl.evaluation.coverage import Coverage
from cifar_tl.ui.charts.curves import DEV_COLOUR, REFERENCE_COLOUR, TRAIN_COLOUR, Chart, Trace
from cifar_tl.ui.live_plot import typed

MOST_POINTS = 400
_BAND_COLOUR = "rgba(59, 143, 212, 0.22)"
# The upper part is the diagram, the lower one how many images each bin has.
_DIAGRAM, _COUNTS = [0.28, 1], [0, 0.2]
# Of the images: where fewer are answered, the interval is so wide that the rest of the curve would be flat.
_LEAST_COVERAGE_IN_SIGHT = 0.05


def reliability_chart(before: Reliability, after: Reliability | None = None) -> Chart:
    """Accuracy against mean confidence of every bin with 95 % intervals, over the number of its images."""
    shown = [("As trained", before, TRAIN_COLOUR, "circle")]
    if after is not None:
        shown.append(("After temperature scaling", after, DEV_COLOUR, "diamond"))
    traces = [_diagonal()]
    traces += [_points(name, bins, colour, symbol) for name, bins, colour, symbol in shown]
    traces += [_counts(name, bins, colour) for name, bins, colour, _ in shown]
    share = {"zeroline": False, "tickformat": ".0%"}
    layout: dict[str, Any] = {
        "margin": {"l": 56, "r": 24, "t": 34, "b": 40},  # on the right, half of the last tick's text
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "barmode": "group",
        "bargap": 0.15,
        "xaxis": share | {"title": _title("How sure it was"), "range": [-0.01, 1.01], "anchor": "y2"},
        "yaxis": share | {"title": _title("How often it was right"), "range": [-0.02, 1.02], "domain": _DIAGRAM},
        "yaxis2": {"title": _title("Images"), "domain": _COUNTS, "zeroline": False, "nticks": 3, "rangemode": "tozero", "tickformat": "~s"},
        "annotations": [_region("Not sure enough", 0.02, 0.95, "left"), _region("Too sure", 0.99, 0.05, "right")],
    }
    return Chart(traces, layout, _describe(before, after))


def coverage_chart(curve: Coverage, threshold: float) -> Chart:
    """Accuracy of the answered images against their share, with its 95 % band; a point marks the threshold."""
    indices = shown_points(curve)
    answers = [Proportion(int(curve.hits_M[i]), int(curve.answered_M[i])) for i in indices]
    coverage = curve.answered_M[indices] / max(1, curve.total)
    accuracies = np.array([answer.fraction for answer in answers])
    lows, highs = np.array([answer.interval for answer in answers]).reshape(-1, 2).T
    hover = "Answers %{x:.1%} of the images,<br>those of which it is at least %{customdata:.1%} sure;<br>%{y:.1%} are right<extra></extra>"
    traces = [
        _edge(coverage, highs),
        _edge(coverage, lows) | {"fill": "tonexty", "fillcolor": _BAND_COLOUR},
        {
            "type": "scatter",
            "mode": "lines",
            "x": typed(coverage),
            "y": typed(accuracies),
            "customdata": typed(curve.thresholds_M[indices]),
            "line": {"color": TRAIN_COLOUR, "width": 2},
            "hovertemplate": hover,
        },
    ]
    chosen = curve.at(threshold)
    if chosen.total:
        traces.append(_chosen(chosen, curve.total))
    in_sight = lows[coverage >= _LEAST_COVERAGE_IN_SIGHT]
    lowest = max(0.0, float(in_sight.min(initial=1.0)) - 0.03)
    layout = {
        "margin": {"l": 56, "r": 12, "t": 12, "b": 40},
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": {"title": _title("Share of images answered"), "range": [0, 1.02], "tickformat": ".0%", "zeroline": False},
        "yaxis": {"title": _title("Right among them"), "range": [lowest, 1 + (1 - lowest) / 25], "tickformat": ".0%", "zeroline": False},
    }
    everything = Proportion(int(curve.hits_M[-1]), curve.total) if curve.total else chosen
    return Chart(
        traces,
        layout,
        f"Accuracy against the share of images answered, surest first. All images: {everything.fraction:.1%} right. "
        f"Those at least {threshold:.0%} sure: {chosen.total} of {curve.total} images, {chosen.hits} right.",
    )


def shown_points(curve: Coverage, limit: int = MOST_POINTS) -> np.ndarray:
    """Indices of at most `limit` thresholds, about evenly spaced by the images they answer; the first and the last among them."""
    if not curve.total:
        return np.empty(0, np.int64)
    wanted = np.linspace(curve.answered_M[0], curve.total, limit)
    return np.unique(np.searchsorted(curve.answered_M, wanted))


def _points(name: str, bins: Reliability, colour: str, symbol: str) -> Trace:
    filled = np.flatnonzero(bins.counts_B)
    accuracies = bins.accuracies_B[filled]
    intervals = [Proportion(int(bins.hits_B[b]), int(bins.counts_B[b])).interval for b in filled]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": bins.mean_confidences_B[filled].tolist(),
        "y": accuracies.tolist(),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, high - y) for (_, high), y in zip(intervals, accuracies.tolist(), strict=True)],
            "arrayminus": [max(0.0, y - low) for (low, _), y in zip(intervals, accuracies.tolist(), strict=True)],
            "thickness": 1,
            "width": 3,
            "color": colour,
        },
        "customdata": bins.counts_B[filled].tolist(),
        "line": {"color": colour, "width": 2},
        "marker": {"size": 7, "symbol": symbol, "color": colour},
        "legendgroup": name,
        "hovertemplate": f"<b>{name}</b><br>%{{customdata:,}} images, on average %{{x:.1%}} sure<br>%{{y:.1%}} of them right<extra></extra>",
    }


def _counts(name: str, bins: Reliability, colour: str) -> Trace:
    labels = [f"{100 * low:.0f} to {100 * high:.0f} % sure" for low, high in zip(bins.edges[:-1], bins.edges[1:], strict=True)]
    return {
        "type": "bar",
        "name": name,
        "x": ((bins.edges[:-1] + bins.edges[1:]) / 2).tolist(),
        "y": bins.counts_B.tolist(),
        "customdata": labels,
        "yaxis": "y2",
        "marker": {"color": colour},
        "legendgroup": name,
        "showlegend": False,
        "hovertemplate": f"<b>{name}</b><br>%{{customdata}}: %{{y:,}} images<extra></extra>",
    }


def _diagonal() -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "As sure as right",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": REFERENCE_COLOUR, "width": 1, "dash": "dash"},
        "hoverinfo": "skip",
    }


def _region(text: str, x: float, y: float, side: str) -> dict[str, Any]:
    return {"text": text, "x": x, "y": y, "xanchor": side, "showarrow": False, "font": {"size": 12, "color": REFERENCE_COLOUR}}


def _edge(x: np.ndarray, y: np.ndarray) -> Trace:
    return {"type": "scatter", "mode": "lines", "x": typed(x), "y": typed(y), "line": {"width": 0}, "hoverinfo": "skip"}


def _chosen(answered: Proportion, total: int) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [answered.total / total],
        "y": [answered.fraction],
        "marker": {"size": 12, "color": DEV_COLOUR, "symbol": "circle"},
        "hovertemplate": "Your threshold<br>%{x:.1%} answered, %{y:.1%} of them right<extra></extra>",
    }


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}}


def _describe(before: Reliability, after: Reliability | None) -> str:
    text = (
        f"Reliability diagram of {before.total} images: on average {before.mean_confidence:.1%} sure and {before.accuracy.fraction:.1%} "
        f"right, expected calibration error {before.expected_error:.1%}"
    )
    return text + (f"; after temperature scaling {after.expected_error:.1%}." if after else ".")
