"""live_plot: a Plotly chart that keeps its zoom while data arrive, tells which point or heat-map cell was clicked and, as a map, which
points a lasso went around; beside the pointer it can show a card with a picture.

Owns the browser component (`live_plot.js`, `live_plot.css`) and where plotly.js comes from. Knows nothing of runs: traces and layouts are
made by `ui.charts`, pages call `live_plot`. Why not `st.plotly_chart`: it remounts at every change of data, which loses
zoom and shows a blank frame, and clicks on a heat map never reach Python (measured with Streamlit 1.67).

    state = live_plot(traces, layout, revision=run_id, key="curves", description="Loss per step")
    state.clicked                                     # None, or {"x": ..., "y": ..., "z": ..., "curve": 0}

The browser loads plotly.js from the app's static folder, where `ensure_plotly_js` puts it at start-up.
Colours in traces and layouts may be any CSS colour, so also the theme's: `BACKGROUND`, `theme_colour("red")`,
`mix(TEXT, BACKGROUND, 0.2)`. They are resolved in the browser, which is where light or dark is known.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cifar_tl.paths import STATIC_FOLDER

BACKGROUND = "var(--st-background-color)"
TEXT = "var(--st-text-color)"
_SCRIPT_NAME = "plotly.min.js"


@dataclass(frozen=True)
class Cards:
    """What is shown beside the pointer: for a point that carries the number i as customdata, text i and picture i.

    Pictures lie on one sheet in rows of `columns`, which the browser fetches from `sheet` when the first is wanted; '' for none.
    Each is shown `pixels` high and wide.
    """

    texts: Sequence[str]
    sheet: str = ""
    columns: int = 1
    rows: int = 1
    pixels: int = 96
    is_pixelated: bool = True


def theme_colour(name: str) -> str:
    """One of the theme's colours: primary, red, orange, yellow, green, blue, violet or gray."""
    return f"var(--st-{name}-color)"


def mix(colour: str, other: str, share: float) -> str:
    """A colour with `share` (0 to 1) of `colour` and the rest of `other`; both may be the theme's."""
    return f"color-mix(in srgb, {colour} {100 * share:.4g}%, {other})"


def ensure_plotly_js(folder: Path = STATIC_FOLDER) -> Path:
    """Put plotly's own script into the app's static folder unless it is there; returns its path there.

    Atomic, so that two dashboards may start at once. Raises OSError if the folder cannot be written.
    """
    source, target = _packaged_script(), folder / _SCRIPT_NAME
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_SCRIPT_NAME}.{os.getpid()}"
    temporary.write_bytes(source.read_bytes())
    temporary.replace(target)
    return target


def typed(values: Any, dtype: str = "<f4") -> dict[str, str]:
    """An array as Plotly's base64 typed array: a quarter of the bytes of JSON, no float formatting. 2-D arrays carry their shape."""
    array = np.ascontiguousarray(values, dtype)
    packed = {"dtype": dtype.lstrip("<"), "bdata": base64.b64encode(array.tobytes()).decode()}
    return packed | {"shape": ",".join(map(str, array.shape))} if array.ndim == 2 else packed


def live_plot(
    traces: list[dict[str, Any]],
    layout: dict[str, Any],
    *,
    revision: str,
    key: str,
    description: str,
    height: int = 360,
    has_clickable_labels: bool = False,
    is_map: bool = False,
    cards: Cards | None = None,
) -> Any:
    """Draw or update a chart of `height` pixels.

    Zoom and hidden legend entries stay as long as `revision` stays. `description` is the text for those who cannot see
    the chart. Returns the component's state: `.clicked` is None or {x, y, z, curve}, and survives changes of data. With
    `has_clickable_labels`, for category axes, a click on a label counts too: then x or y is that category and the other is None.

    With `is_map`, lasso, box and pan can be chosen above the chart and the wheel zooms; `.selected` is then None or the numbers that the
    points inside the last lasso or box carry as customdata, and a click selects one point.
    """
    data = {
        "script": _script_url(),
        "traces": traces,
        "layout": layout,
        "revision": revision,
        "description": description,
        "height": height,
        "labels": has_clickable_labels,
        "is_map": is_map,
        "cards": vars(cards) if cards else None,
    }
    return _component()(
        key=key,
        data=data,
        height=height,
        default={"clicked": None, "selected": None},
        on_clicked_change=lambda: None,
        on_selected_change=lambda: None,
    )


@cache
def _component() -> Any:
    return st.components.v2.component(
        "cifar_tl_live_plot",
        html='<div class="cifar-tl-plot-frame"><div class="cifar-tl-plot" role="img"></div>'
        '<div class="cifar-tl-plot-card" aria-hidden="true" hidden><i></i><span></span></div></div>'
        '<p class="cifar-tl-plot-error" role="alert" hidden></p>',
        css=Path(__file__).with_name("live_plot.css").read_text("utf-8"),
        js=Path(__file__).with_name("live_plot.js").read_text("utf-8"),
        # Plotly puts its style sheet into the document's head, where a shadow root does not see it.
        isolate_styles=False,
    )


@cache
def _script_url() -> str:
    # The size tells versions apart: static files may be kept by the browser for long.
    return f"./app/static/{_SCRIPT_NAME}?size={_packaged_script().stat().st_size}"


def _packaged_script() -> Path:
    # Not `import plotly`: only its file is needed.
    spec = find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("package_data") / _SCRIPT_NAME
