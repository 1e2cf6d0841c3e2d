"""Optuna's own figures of a sweep, as traces and layout for the live plot. Optuna is imported when a chart is drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from plotly.colors import sample_colorscale

from cifar_tl.settings import settings
from cifar_tl.ui.charts.curves import DEV_COLOUR, TRAIN_COLOUR, Chart, Trace
from cifar_tl.ui.live_plot import TEXT

if TYPE_CHECKING:
    import optuna

HISTORY, IMPORTANCE, PARALLEL, SLICE = "History", "Importance", "Parallel coordinates", "Slice"
CHARTS = (HISTORY, IMPORTANCE, PARALLEL, SLICE)
_ABOUT = {
    HISTORY: "Dev accuracy of every complete trial, and the best so far.",
    IMPORTANCE: "How much of the difference between complete trials each setting explains. Of few trials this is a hint, no more.",
    PARALLEL: "One line for each complete trial, from its dev accuracy through its settings.",
    SLICE: "Dev accuracy against each setting alone. The colour tells when it was tried.",
}
_TARGET = "Dev accuracy"
_MARGIN = {"l": 60, "r": 24, "t": 30, "b": 50}
# Early to late and low to high: both ends are seen on light and on dark, as Optuna's pale blues are not.
_SCALE = [[0.0, TRAIN_COLOUR], [1.0, DEV_COLOUR]]
_NEEDS = {HISTORY: 1, IMPORTANCE: 4, PARALLEL: 2, SLICE: 1}  # complete trials


def about(name: str) -> str:
    """What the chart shows, in a sentence."""
    return _ABOUT[name]


def why_not(name: str, complete: int) -> str:
    """In words; '' if the chart can be drawn of so many complete trials."""
    needed = _NEEDS[name]
    return (
        ""
        if complete >= needed
        else f"This chart needs {needed} complete {'trial' if needed == 1 else 'trials'}; there {'is' if complete == 1 else 'are'} {complete}."
    )


def sweep_chart(name: str, study: optuna.Study) -> Chart:
    """Raises ValueError or RuntimeError where Optuna can make nothing of these trials, such as equal accuracies."""
    from optuna import visualization

    draw, dress = {
        HISTORY: (visualization.plot_optimization_history, _dress_history),
        IMPORTANCE: (visualization.plot_param_importances, _dress_importance),
        PARALLEL: (visualization.plot_parallel_coordinate, _dress_parallel),
        SLICE: (visualization.plot_slice, _dress_slice),
    }[name]
    titles = {setting.name: setting.title for setting in settings()}
    figure = _in_words(json.loads(draw(study, target_name=_TARGET).to_json()), titles)
    traces, layout = figure["data"], figure["layout"]
    for part in ("template", "title", "height", "width"):
        layout.pop(part, None)
    layout |= {"margin": _MARGIN, "showlegend": False, "colorway": [TRAIN_COLOUR, DEV_COLOUR]}
    for axis in _axes(layout, "x") + _axes(layout, "y"):
        if "title" in axis:
            axis["title"]["font"] = {"size": 13}
    dress(traces, layout)
    return Chart(traces, layout, f"{name}: {_ABOUT[name]}")


def _in_words(value: Any, titles: dict[str, str]) -> Any:
    """Settings by their titles instead of their names, wherever a whole text is one."""
    if isinstance(value, dict):
        return {key: _in_words(inner, titles) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_words(inner, titles) for inner in value]
    return titles.get(value, value) if isinstance(value, str) else value


def _axes(layout: dict[str, Any], letter: str) -> list[dict[str, Any]]:
    return [axis for key, axis in layout.items() if key.startswith(f"{letter}axis")]


def _dress_history(traces: list[Trace], layout: dict[str, Any]) -> None:
    traces[:] = [trace for trace in traces if len(trace["x"])]
    for trace in traces:
        trace["x"] = _counted_from_one(trace["x"])
        trace["name"] = "Complete trial" if trace["name"] == _TARGET else "Best so far"
        trace["marker"] = {"size": 8}
        trace["hovertemplate"] = "Trial %{x}: %{y:.1%}<extra></extra>"
    layout |= {"showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}}
    layout["yaxis"]["tickformat"] = ".1%"


def _dress_importance(traces: list[Trace], layout: dict[str, Any]) -> None:
    for trace in traces:
        trace["text"] = [f"{share:.0%}" for share in trace["x"]]
        trace["hovertemplate"] = "%{y}: %{text}<extra></extra>"
    layout["xaxis"] |= {"title": {"text": "Share of the differences explained", "font": {"size": 13}}, "tickformat": ".0%"}
    layout["yaxis"]["title"] = {"text": ""}


def _dress_parallel(traces: list[Trace], layout: dict[str, Any]) -> None:
    """The first axis is dev accuracy; a line's height there, 0 to 1, is its place among the colours."""
    for trace in traces:
        if trace["mode"] == "lines":
            trace["line"]["color"] = sample_colorscale(_SCALE, [trace["y"][0]])[0]
            trace["opacity"] = 0.8
            trace["customdata"][0][1] = _percent(trace["customdata"][0][1])
        else:
            trace["marker"] |= {"colorscale": _SCALE, "reversescale": False}
            trace["marker"]["colorbar"] |= {"tickformat": ".1%", "title": {"text": _TARGET, "font": {"size": 13}}}
    for mark in layout["annotations"]:
        mark["font"] = {"color": TEXT, "size": 11}
        if mark["x"] == 0:
            mark["text"] = _percent(mark["text"])


def _dress_slice(traces: list[Trace], layout: dict[str, Any]) -> None:
    for trace in traces:
        marker = trace["marker"]
        marker |= {"color": _counted_from_one(marker["color"]), "size": 8, "colorscale": _SCALE, "reversescale": False}
        marker["colorbar"]["title"]["font"] = {"size": 13}
    for axis in _axes(layout, "x"):
        axis["exponentformat"] = "power"
    layout["yaxis"]["tickformat"] = ".1%"


def _counted_from_one(numbers: list[int]) -> list[int]:
    """Optuna counts trials from 0, people and the table from 1."""
    return [number + 1 for number in numbers]


def _percent(number: str) -> str:
    return f"{float(number):.1%}"
