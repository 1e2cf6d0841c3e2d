"""Optuna's own figures of a sweep, as traces and layout for the live plot. Optuna is imported when a chart is drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cifar_tl.settings import settings
from cifar_tl.ui.charts.curves import Chart

if TYPE_CHECKING:
    import optuna

HISTORY, IMPORTANCE, PARALLEL, SLICE = "History", "Importance", "Parallel coordinates", "Slice"
CHARTS = (HISTORY, IMPORTANCE, PARALLEL, SLICE)
_ABOUT = {
    HISTORY: "Dev accuracy of every complete trial, and the best so far.",
    IMPORTANCE: "How much of the difference between trials each setting explains.",
    PARALLEL: "One line for each complete trial, through its settings to its dev accuracy. Drag along an axis to keep only some.",
    SLICE: "Dev accuracy against each setting alone. The colour tells when it was tried.",
}
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

    draw = {
        HISTORY: visualization.plot_optimization_history,
        IMPORTANCE: visualization.plot_param_importances,
        PARALLEL: visualization.plot_parallel_coordinate,
        SLICE: visualization.plot_slice,
    }[name]
    figure: dict[str, Any] = json.loads(_in_words(draw(study, target_name="Dev accuracy").to_json()))
    for trace in figure["data"]:
        for part in (trace.get("marker", {}), trace.get("line", {})):
            if "colorscale" in part:
                part |= {"colorscale": "Viridis", "reversescale": False}  # Optuna's pale blues are lost on white
    layout = figure["layout"]
    for part in ("template", "title", "height", "width"):
        layout.pop(part, None)
    layout["margin"] = {"l": 60, "r": 24, "t": 30, "b": 50} if name != PARALLEL else {"l": 70, "r": 40, "t": 70, "b": 30}
    layout["showlegend"] = name == HISTORY
    for axis in [key for key in layout if key.startswith("yaxis")] if name in (HISTORY, SLICE) else []:
        layout[axis]["tickformat"] = ".1%"
    return Chart(figure["data"], layout, f"{name}: {_ABOUT[name]}")


def _in_words(text: str) -> str:
    """Settings by their titles instead of their names."""
    for setting in settings():
        text = text.replace(f'"{setting.name}"', json.dumps(setting.title))
    return text
