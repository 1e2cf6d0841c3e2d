"""A confusion matrix -> one heat map, readable at 20 and at 100 classes. Pure functions, no Streamlit calls.

True classes go down, predicted ones across. Colours are those of the theme, from its background (no image) to its text
(most images), so the chart reads the same way in light and in dark.
"""

from collections.abc import Sequence
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


def confusion_chart(
    matrix_CC: np.ndarray,
    class_names: Sequence[str],
    *,
    as_shares: bool = False,
    hide_diagonal: bool = False,
    order: Sequence[int] | None = None,
    selected: tuple[int, int] | None = None,
) -> Chart:
    """The heat map of counts, or of shares of each true class. `order` arranges the classes; `selected` is framed.

    Its clicks report class names: `class_of_click` turns one back into indices.
    """
    order = list(range(len(class_names))) if order is None else list(order)
    names = [class_names[i] for i in order]
    counts_CC = matrix_CC[np.ix_(order, order)]
    values_CC = (shares_of_rows(counts_CC) if as_shares else counts_CC).astype(np.float32)
    if hide_diagonal:
        np.fill_diagonal(values_CC, np.nan)
    trace = _heat_map(values_CC, counts_CC, names, as_shares)
    layout = _layout(names)
    if selected is not None:
        layout["shapes"] = [_frame(order.index(selected[0]), order.index(selected[1]))]
    return Chart([trace], layout, _describe(counts_CC, names))


def chart_height(num_classes: int) -> int:
    """Pixels: rows that can be told apart, on a page that still fits most screens."""
    return int(np.clip(150 + 24 * num_classes, 420, 760))


def class_of_click(clicked: Any, class_names: Sequence[str]) -> tuple[int, int] | None:
    """(true, predicted) of a click that `live_plot` reported; None without one, or if it was on other classes."""
    if not clicked:
        return None
    index = {name: i for i, name in enumerate(class_names)}
    true, predicted = index.get(str(clicked["y"])), index.get(str(clicked["x"]))
    return None if true is None or predicted is None else (true, predicted)


def superclass_order(superclass_of_class: Sequence[int]) -> list[int]:
    """Class indices with those of one superclass side by side; by index within each."""
    return [int(i) for i in np.argsort(np.asarray(superclass_of_class), kind="stable")]


def _heat_map(values_CC: np.ndarray, counts_CC: np.ndarray, names: list[str], as_shares: bool) -> dict[str, Any]:
    number = "Share of class: %{z:.1%}<br>Images: %{customdata}" if as_shares else "Images: %{z}"
    highest = float(np.nanmax(values_CC, initial=0))
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": typed(values_CC),
        "customdata": typed(counts_CC, "<i4"),
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


def _frame(row: int, column: int) -> dict[str, Any]:
    """A box around one cell; on a category axis, places are counted from 0."""
    corners = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return {"type": "rect", "line": {"color": theme_colour("orange"), "width": 2}} | corners


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
