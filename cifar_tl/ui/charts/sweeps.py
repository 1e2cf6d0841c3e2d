"""Optuna's own figures of a sweep, as traces and layout for the live plot. Optuna is imported when a chart is drawn.

Optuna writes settings and their values as a program does; here they get the titles, labels and percentages of the pages.
"""

from __future__ import annotations

import json
import math
import sys
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from plotly.colors import sample_colorscale

from cifar_tl.settings import CHOICE_LABELS, settings
from cifar_tl.sweeps.study import TrialRow, rows_of
from cifar_tl.ui.charts.curves import DEV_COLOUR, FAINT_COLOUR, TRAIN_COLOUR, Chart, Trace
from cifar_tl.ui.live_plot import BACKGROUND, TEXT
from cifar_tl.ui.setting_widgets import WHEN_EMPTY
from cifar_tl.ui.widgets import format_percent

if TYPE_CHECKING:
    import optuna

HISTORY, IMPORTANCE, PARALLEL, SLICE = "History", "Importance", "Parallel coordinates", "Slice"
CHARTS = (HISTORY, IMPORTANCE, PARALLEL, SLICE)
_ABOUT = {
    HISTORY: "Dev accuracy of every trial. The line is the best complete one so far; those that are not complete count for nothing.",
    IMPORTANCE: "How much of the difference between complete trials each setting explains. Of few trials this is a hint, no more.",
    PARALLEL: "One line for each complete trial, from its dev accuracy through its settings.",
    SLICE: "Dev accuracy of complete trials against each setting alone. The colour tells when it was tried.",
}
_TARGET = "Dev accuracy"
_MARGIN = {"l": 60, "r": 24, "t": 30, "b": 50}
# Early to late and low to high: both ends are seen on light and on dark, as Optuna's pale blues are not.
_SCALE = [[0.0, TRAIN_COLOUR], [1.0, DEV_COLOUR]]
_NEEDS = {HISTORY: 1, IMPORTANCE: 4, PARALLEL: 2, SLICE: 1}  # complete trials
_ACCURACY_PAD = 0.02  # of the axis, beyond the accuracies on both sides
_MOST_TICKS = 10
_ROOM_FOR_LABELS = 1.14  # of the width, beyond the last of the parallel axes: a broken label in a window of 1,366 px
_LABEL_CHARACTERS = 18  # of a choice before it is broken into lines


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


def is_slow(name: str) -> bool:
    """True for the first importances of this process: the forest that tells them takes seconds to import."""
    return name == IMPORTANCE and "sklearn.ensemble" not in sys.modules


def choice_label(name: str, value: Any) -> str:
    """A value of a setting as the form names it."""
    if value is None:
        return WHEN_EMPTY.get(name, "None")
    if isinstance(value, bool):
        return "On" if value else "Off"
    return CHOICE_LABELS.get(value, value) if isinstance(value, str) else f"{value:g}"


def sweep_chart(name: str, study: optuna.Study) -> Chart:
    """Raises ValueError or RuntimeError where Optuna can make nothing of these trials, such as equal accuracies."""
    from optuna import visualization

    draw = {
        HISTORY: visualization.plot_optimization_history,
        IMPORTANCE: visualization.plot_param_importances,
        PARALLEL: visualization.plot_parallel_coordinate,
        SLICE: visualization.plot_slice,
    }[name]
    titles = {setting.name: setting.title for setting in settings()}
    figure = _in_words(json.loads(draw(study, target_name=_TARGET).to_json()), titles)
    traces, layout = figure["data"], figure["layout"]
    for part in ("template", "title", "height", "width"):
        layout.pop(part, None)
    layout |= {"margin": dict(_MARGIN), "showlegend": False, "colorway": [TRAIN_COLOUR, DEV_COLOUR]}
    for axis in _axes(layout, "x") + _axes(layout, "y"):
        if "title" in axis:
            axis["title"]["font"] = {"size": 13}
    if name == HISTORY:
        _dress_history(traces, layout, rows_of(study))
    elif name == IMPORTANCE:
        _dress_importance(traces, layout)
    elif name == PARALLEL:
        _dress_parallel(traces, layout, _space(study))
    else:
        _dress_slice(traces, layout, _space(study))
    return Chart(traces, layout, f"{name}: {_ABOUT[name]}")


def _space(study: optuna.Study) -> dict[str, Any]:
    """What was searched: Optuna's distribution of each setting, by the setting's title."""
    titles = {setting.name: setting.title for setting in settings()}
    return {titles.get(name, name): d for trial in study.get_trials(deepcopy=False) for name, d in trial.distributions.items()}


def _labels(title: str, distribution: Any) -> list[str]:
    """Of the choices, in order; empty for a range."""
    name = next((setting.name for setting in settings() if setting.title == title), title)
    return [choice_label(name, value) for value in getattr(distribution, "choices", ())]


def _in_words(value: Any, titles: dict[str, str]) -> Any:
    """Settings by their titles instead of their names, wherever a whole text is one."""
    if isinstance(value, dict):
        return {key: _in_words(inner, titles) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_words(inner, titles) for inner in value]
    return titles.get(value, value) if isinstance(value, str) else value


def _axes(layout: dict[str, Any], letter: str) -> list[dict[str, Any]]:
    return [axis for key, axis in layout.items() if key.startswith(f"{letter}axis")]


def _dress_history(traces: list[Trace], layout: dict[str, Any], rows: list[TrialRow]) -> None:
    traces[:] = [trace for trace in traces if len(trace["x"])]
    for trace in traces:
        trace["x"] = _counted_from_one(trace["x"])
        trace["name"] = "Complete trial" if trace["name"] == _TARGET else "Best so far"
        trace["marker"] = {"size": 8}
        trace |= {"customdata": _percents(trace["y"]), "hovertemplate": "Trial %{x}: %{customdata}<extra></extra>"}
    # The table shows their accuracies too, and one of them may be the highest: unseen, it would contradict the chart.
    others = [row for row in rows if row.state != "complete" and row.accuracy is not None]
    if others:
        traces.append(_not_complete(others))
    layout |= {"showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}}
    layout["yaxis"] |= _accuracy_axis([row.accuracy for row in rows if row.accuracy is not None])
    last = max((row.number + 1 for row in rows), default=1)
    layout["xaxis"] |= {"range": [0.5, last + 0.5], "tick0": 0, "dtick": _whole_step(last), "tickformat": "d"}


def _not_complete(rows: list[TrialRow]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "Not complete",
        "x": [row.number + 1 for row in rows],
        "y": [row.accuracy for row in rows],
        "marker": {"size": 8, "symbol": "circle-open", "color": FAINT_COLOUR, "line": {"width": 2}},
        "customdata": _percents([row.accuracy or 0.0 for row in rows]),
        "hovertemplate": "Trial %{x}: %{customdata} at its best, not complete<extra></extra>",
    }


def _accuracy_axis(accuracies: list[float]) -> dict[str, Any]:
    """Around the accuracies and inside 0 to 1, so that one accuracy or equal ones have a scale too; ticks at whole percents."""
    low, high = min(accuracies, default=0.0), max(accuracies, default=1.0)
    ends = [max(0.0, low - _ACCURACY_PAD), min(1.0, high + _ACCURACY_PAD)]
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (ends[1] - ends[0]) / step <= _MOST_TICKS)
    return {"range": ends, "tick0": 0, "dtick": step, "tickformat": ".0%"}


def _whole_step(last: int) -> int:
    """Between ticks at whole numbers up to `last`: 1, 2, 5, 10, 20 ..."""
    return next(step for power in range(9) for part in (1, 2, 5) if last / (step := part * 10**power) <= _MOST_TICKS)


def _dress_importance(traces: list[Trace], layout: dict[str, Any]) -> None:
    for trace in traces:
        trace["text"] = [f"{share:.0%}" for share in trace["x"]]
        trace["hovertemplate"] = "%{y}: %{text}<extra></extra>"
    layout["xaxis"] |= {"title": {"text": "Share of the differences explained", "font": {"size": 13}}, "tickformat": ".0%"}
    layout["yaxis"]["title"] = {"text": ""}


def _dress_parallel(traces: list[Trace], layout: dict[str, Any], space: dict[str, Any]) -> None:
    """The first axis is dev accuracy; a line's height there, 0 to 1, is its place among the colours."""
    axes = layout["xaxis"]["ticktext"]
    low, high = next((t["marker"]["cmin"], t["marker"]["cmax"]) for t in traces if t["mode"] == "markers")
    known = {title: dict(zip(map(str, d.choices), _labels(title, d), strict=True)) for title, d in space.items() if hasattr(d, "choices")}
    for trace in traces:
        if trace["mode"] == "lines":
            trace["line"]["color"] = sample_colorscale(_SCALE, [trace["y"][0]])[0]
            trace["opacity"] = 0.8
            trace["customdata"][0][1] = format_percent(low + trace["y"][0] * (high - low))  # Optuna's own is rounded before
            for told in trace["customdata"][1:]:
                told[1] = known.get(told[0], {}).get(told[1], told[1])
        else:
            trace["marker"] |= {"colorscale": _SCALE, "reversescale": False}
            trace["marker"]["colorbar"] |= {"tickformat": ".1%", "title": {"text": _TARGET, "font": {"size": 13}}}
    for mark in layout["annotations"]:
        text = known.get(axes[mark["x"]], {}).get(mark["text"], mark["text"])
        mark["text"] = format_percent(low + mark["y"] * (high - low)) if mark["x"] == 0 else _broken(text)
        # Lines run where the labels stand: a label covers them, and those of the last axis stand beyond it, where none are.
        mark |= {"font": {"color": TEXT, "size": 11}, "bgcolor": BACKGROUND, "borderpad": 1, "align": "right"}
        if mark["x"] == len(axes) - 1:
            mark |= {"xanchor": "left", "xshift": 4, "align": "left"}
    layout["xaxis"]["range"] = [-0.2, (len(axes) - 1) * _ROOM_FOR_LABELS]


def _dress_slice(traces: list[Trace], layout: dict[str, Any], space: dict[str, Any]) -> None:
    for trace in traces:
        marker, numbers = trace["marker"], _counted_from_one(trace["marker"]["color"])
        marker |= {"color": numbers, "size": 8, "colorscale": _SCALE, "reversescale": False}
        marker["colorbar"] |= {"tick0": 0, "dtick": _whole_step(max(numbers)), "title": {"text": "Trial", "font": {"size": 13}}}
        axis = layout["xaxis" + trace.get("xaxis", "x")[1:]]
        title = axis["title"]["text"]
        distribution = space[title]
        if labels := _labels(title, distribution):
            named = dict(zip(map(repr, distribution.choices), labels, strict=True))
            trace["x"] = [named.get(text, text) for text in trace["x"]]
            axis |= {"categoryarray": labels, "tickvals": list(range(len(labels))), "ticktext": [_broken(label) for label in labels]}
            axis |= {"tickmode": "array", "range": [-0.5, len(labels) - 0.5]}
        elif distribution.log:
            axis |= _log_axis(distribution.low, distribution.high)
        elif isinstance(distribution.low, int):
            axis |= _whole_axis(distribution)
        axis["title"]["standoff"] = 12  # below labels of several lines
        axis["ticklabelstandoff"] = 4
        trace["customdata"] = [list(pair) for pair in zip(numbers, _percents(trace["y"]), strict=True)]
        trace["hovertemplate"] = f"Trial %{{customdata[0]}}: %{{customdata[1]}}<br>{title} %{{x}}<extra></extra>"
    layout["yaxis"] |= _accuracy_axis([accuracy for trace in traces for accuracy in trace["y"]])


def _log_axis(low: float, high: float) -> dict[str, Any]:
    """All that was searched, with a tick at each power of ten; at both ends where there are less than two."""
    first, last = math.log10(low), math.log10(high)
    ticks = [10.0**power for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]
    ticks = ticks if len(ticks) > 1 else [low, high]
    pad = 0.05 * (last - first)
    return {"range": [first - pad, last + pad], "tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:.3g}" for tick in ticks]}


def _whole_axis(distribution: Any) -> dict[str, Any]:
    """Ticks at whole numbers that may be tried, from the lowest on."""
    step = _whole_step(2 * (distribution.high - distribution.low))
    return {"tick0": distribution.low, "dtick": math.ceil(step / distribution.step) * distribution.step}


def _broken(label: str) -> str:
    """Into lines, so that it stays beside its axis."""
    return "<br>".join(wrap(label, _LABEL_CHARACTERS)) or label


def _counted_from_one(numbers: list[int]) -> list[int]:
    """Optuna counts trials from 0, people and the table from 1."""
    return [number + 1 for number in numbers]


def _percents(accuracies: list[float]) -> list[str]:
    """In words already: the browser rounds 34.25 up, and the table and the headline down."""
    return [format_percent(accuracy) for accuracy in accuracies]
