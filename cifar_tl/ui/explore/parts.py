"""What several views of Explore share: a table of which a row can be chosen, its data as CSV, and the heading above images."""

import csv
import io
from collections.abc import Callable
from typing import Any, Literal

import streamlit as st

from cifar_tl.ui.widgets import NONE_YET, PERCENT_FORMAT, percent, plain

TRUE_PARAMETER, PREDICTED_PARAMETER = "true", "pred"  # of the address: names of classes
VIEW_COLUMNS = (3, 2)  # widths of what is chosen from, and of what was chosen
SHARES = ("F1", "Precision", "Recall", "Share of class", "Mean confidence", "Calibration error")  # columns of fractions
_DIFFERENCE = "Train minus"  # of fractions, too
_ROW_HEIGHT = 36
_TABLE_HEIGHT = 560
_MOST_ROWS_SHOWN = 15

Table = dict[str, list[Any]]


def selectable(table: Table, start: int | None, key: str, alt: str, height: int | None = None) -> int | None:
    """A table of which one row can be chosen; the row's number, or None. A short one is as high as its rows unless `height` says how high."""
    shares = [name for name in table if name in SHARES or name.startswith(_DIFFERENCE)]
    state = st.dataframe(
        table | {name: [percent(share) for share in table[name]] for name in shares},
        height=_height(len(next(iter(table.values()))), height),
        placeholder=NONE_YET,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        selection_default=None if start is None else {"selection": {"rows": [start]}},
        key=key,
        alt=alt,
        column_config={name: st.column_config.NumberColumn(format=PERCENT_FORMAT) for name in shares},
    )
    rows = state.selection.rows
    return rows[0] if rows else None


def _height(rows: int, height: int | None) -> int | Literal["content"]:
    most = _MOST_ROWS_SHOWN if height is None else height // _ROW_HEIGHT - 1
    return "content" if rows <= most else height or _TABLE_HEIGHT


def heading(count: int, true: str | None, predicted: str | None, *, right: int) -> None:
    """What the images below are: those of a true class, taken for a predicted one, or all of either where the other is None."""
    if true is not None and predicted is not None:
        what = f"**{plain(true)}** recognised" if true == predicted else f"**{plain(true)}** taken for **{plain(predicted)}**"
        st.markdown(f"{num_images(count)} of {what}")
    elif true is not None:
        st.markdown(f"{num_images(count)} of **{plain(true)}**: {right:,} recognised, {count - right:,} taken for something else")
    else:
        st.markdown(f"{num_images(count)} taken for **{plain(predicted or '')}**: {right:,} are, {count - right:,} are not")


def num_images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def csv_button(table: Callable[[], Table], file_name: str) -> None:
    """The figure's data, for a spreadsheet; put together when somebody wants it."""
    st.download_button(
        "Download as CSV",
        lambda: as_csv(table()),
        f"{file_name}.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
        key=f"{file_name}.csv",
    )


def as_csv(table: Table) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return file.getvalue()
