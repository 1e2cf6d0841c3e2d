"""A confusion matrix -> one heat map, readable at 20 and at 100 classes. Pure functions, no Streamlit calls.

True classes go down, predicted ones across. Colours are those of the theme, from its background (no image) to its text
(most images), so the chart reads the same way in light and in dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_tl.evaluation.analysis import shares_of_rows
from cifar_tl.ui.charts.curves import Chart
from cifar_tl.ui.live_plot import BACKGROUND, TEXT, mix, theme_colour, typed

# Above this, numbers in the cells are too small to read.
_MOST_CLASSES_WITH_NUMBERS = 25
_MOST_CLASSES_WITH_GAPS = 40
_LONGEST_LABEL = 20  # characters
_STOPS = 12
_CLASSES_IN_FOCUS = 30


@dataclass(frozen=True)
class Cell:
    """What was chosen in the matrix: one cell, or with None on one side a whole row (all predictions) or column (all true classes)."""

    true: int | None
    predicted: int | None


def confusion_chart(
    matrix_CC: np.ndarray,
    class_names: Sequence[str],
    *,
    as_shares: bool = False,
    hide_diagonal: bool = False,
    least: float = 0,
    order: Sequence[int] | None = None,
    selected: Cell | None = None,
    focus: int | None = None,
) -> Chart:
    """The heat map of counts, or of shares of each true class. `order` arranges the classes.

    Cells below `least` (images, or a share) are left out. `selected` is framed: a cell, or a whole row or column. `focus` is a class
    that is to be in sight: the chart starts enlarged around it. Clicks report class names: `cell_of_click` turns them into indices.
    """
    order = list(range(len(class_names))) if order is None else list(order)
    names = [class_names[i] for i in order]
    counts_CC = matrix_CC[np.ix_(order, order)]
    values_CC = (shares_of_rows(counts_CC) if as_shares else counts_CC).astype(np.float32)
    values_CC[values_CC < least] = 0
    if hide_diagonal:
        np.fill_diagonal(values_CC, np.nan)
    layout = _layout(names)
    if selected is not None:
        layout["shapes"] = [_frame(_place(order, selected.true), _place(order, selected.predicted), len(names))]
    if focus is not None:
        _enlarge_around(layout, order.index(focus), len(names))
    return Chart([_heat_map(values_CC, counts_CC, names, as_shares)], layout, _describe(counts_CC, names))


def chart_height(num_classes: int) -> int:
    """Pixels: rows that can be told apart, on a page that still fits most screens."""
    return int(np.clip(150 + 24 * num_classes, 420, 760))


def cell_of_click(clicked: Any, class_names: Sequence[str]) -> Cell | None:
    """What a click that `live_plot` reported was on; None without one, or if it was on other classes.

    A click on a label of one axis comes without a value for the other.
    """
    return cell_of_names(clicked["y"], clicked["x"], class_names) if clicked else None


def cell_of_names(true: str | None, predicted: str | None, class_names: Sequence[str]) -> Cell | None:
    """The cell of two class names, either of which may be missing; None if both are, or one is unknown."""
    index: dict[str | None, int | None] = {name: i for i, name in enumerate(class_names)}
    index[None] = None
    if (true is None and predicted is None) or true not in index or predicted not in index:
        return None
    return Cell(index[true], index[predicted])


def _heat_map(values_CC: np.ndarray, counts_CC: np.ndarray, names: list[str], as_shares: bool) -> dict[str, Any]:
    number = "Share of class: %{z:.1%}<br>Images: %{customdata}" if as_shares else "Images: %{z}"
    highest = float(np.nanmax(values_CC, initial=0))
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        **_cells(values_CC, counts_CC, as_shares),
        "zmin": 0,
        "zmax": highest or 1,
        "colorscale": colour_scale(),
        "hoverongaps": False,
        "hovertemplate": f"True: <b>%{{y}}</b><br>Predicted: <b>%{{x}}</b><br>{number}<extra></extra>",
        "colorbar": {
            "title": {"text": "Share of class" if as_shares else "Images", "side": "right"},
            "tickformat": ".0%" if as_shares else "d",
            "thickness": 12,
            "outlinewidth": 0,
            "nticks": 6,
        },
    }
    if len(names) <= _MOST_CLASSES_WITH_GAPS:
        trace |= {"xgap": 1, "ygap": 1}
    if len(names) <= _MOST_CLASSES_WITH_NUMBERS:
        trace |= {"text": _numbers(values_CC, as_shares), "texttemplate": "%{text}"}
    return trace


def _cells(values_CC: np.ndarray, counts_CC: np.ndarray, as_shares: bool) -> dict[str, Any]:
    """The numbers, in as few bytes as hold them: a thousand classes have a million cells."""
    small = "<u2" if counts_CC.max(initial=0) < 2**16 else "<i4"
    if as_shares:
        return {"z": typed(values_CC), "customdata": typed(counts_CC, small)}
    return {"z": typed(values_CC) if np.isnan(values_CC).any() else typed(values_CC, small)}


def colour_scale() -> list[list[Any]]:
    """Stops evenly spaced in the square root of the value: one image in a hundred is visible, and zero is no colour at all."""
    scale: list[list[Any]] = [[0, BACKGROUND]]
    for k in range(_STOPS + 1):
        share = k / _STOPS
        strength = 0.1 + 0.9 * share
        # Towards the text colour in the upper part: in light the most images are darkest, in dark they are brightest.
        colour = (
            mix(theme_colour("primary"), BACKGROUND, strength / 0.7)
            if strength < 0.7
            else mix(TEXT, theme_colour("primary"), (strength - 0.7) * 2)
        )
        scale.append([max(share**2, 1e-6), colour])
    return scale


def _numbers(values_CC: np.ndarray, as_shares: bool) -> list[list[str]]:
    """The text of each cell; none where there is nothing, so that the rest stands out."""
    return [[_number(value, as_shares) for value in row] for row in values_CC.tolist()]


def _number(value: float, as_shares: bool) -> str:
    if not value > 0:  # also not a number
        return ""
    if not as_shares:
        return f"{value:.0f}"
    return f"{100 * value:.0f}" if value >= 0.005 else "<1"


def _layout(names: list[str]) -> dict[str, Any]:
    shortened = {name: name[: _LONGEST_LABEL - 1] + "…" for name in names if len(name) > _LONGEST_LABEL}
    axis = {
        "type": "category",
        "labelalias": shortened,
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "mirror": True,
        "linecolor": "var(--st-border-color)",
        "ticks": "",
        "tickfont": {"size": 11},
    }
    return {
        "xaxis": axis | {"title": {"text": "Predicted class", "standoff": 8}},
        "yaxis": axis | {"title": {"text": "True class", "standoff": 8}, "autorange": "reversed"},
        "margin": {"l": 8, "r": 8, "t": 30, "b": 8},
        "hovermode": "closest",
        "dragmode": "zoom",
    }


def _place(order: list[int], index: int | None) -> int | None:
    return None if index is None else order.index(index)


def _frame(row: int | None, column: int | None, count: int) -> dict[str, Any]:
    """A box around one cell, row or column; on a category axis, places are counted from 0."""
    left, right = (-0.5, count - 0.5) if column is None else (column - 0.5, column + 0.5)
    top, bottom = (-0.5, count - 0.5) if row is None else (row - 0.5, row + 0.5)
    corners = {"x0": left, "x1": right, "y0": top, "y1": bottom}
    return {"type": "rect", "line": {"color": theme_colour("orange"), "width": 2}} | corners


def _enlarge_around(layout: dict[str, Any], place: int, count: int) -> None:
    """Show the neighbourhood of one class; a matrix that is small anyway stays whole."""
    shown = min(count, _CLASSES_IN_FOCUS)
    first = min(max(0, place - shown // 2), count - shown) - 0.5
    layout["xaxis"] |= {"range": [first, first + shown]}
    layout["yaxis"] |= {"range": [first + shown, first], "autorange": False}


def _describe(counts_CC: np.ndarray, names: list[str]) -> str:
    total, right = int(counts_CC.sum()), int(counts_CC.trace())
    text = f"Confusion matrix of {len(names)} classes: {right} of {total} images on the diagonal."
    mistakes = counts_CC - np.diag(counts_CC.diagonal())
    if mistakes.any():
        true, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
        text += (
            f" Most often, {names[int(true)]} is taken for {names[int(predicted)]} ({mistakes.max()} of {counts_CC[true].sum()} images)."
        )
    return text
