"""The table of all runs: which of them, in which columns. Draws and returns what is selected; acts on nothing."""

from datetime import datetime
from typing import Any

import streamlit as st

from cifar_tl.runs.summary import RunSummary
from cifar_tl.settings import CHOICE_LABELS
from cifar_tl.ui.widgets import NONE_YET, PERCENT_FORMAT, format_duration, percent, status_word

UNREADABLE = "Unreadable"
_MOST_ROWS_SHOWN = 14
_TABLE_HEIGHT = 480
_FEW_RUNS = 8  # no filters are needed to find one among so few
_STATUS_COLOURS = {
    "Queued": "violet",
    "Running": "blue",
    "Completed": "green",
    "Stopped": "gray",
    "Failed": "red",
    "Lost": "orange",
    UNREADABLE: "red",
}


def filtered(runs: list[RunSummary]) -> list[RunSummary]:
    """The runs that the filters above the table let through; starred ones first. Draws the filters where there is something to filter."""
    runs = sorted(runs, key=lambda run: not run.annotations.is_starred)
    has_archived = any(run.annotations.is_archived for run in runs)
    if len(runs) < _FEW_RUNS and not has_archived:
        return runs
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(
            "Search", key="runs.search", placeholder="Name, tag, note, data set, backbone", width=330, persist_state="session"
        )
        statuses = st.multiselect(
            "Status",
            [word for word in _STATUS_COLOURS if word in {_status(run) for run in runs}],
            key="runs.statuses",
            width=280,
            persist_state="session",
        )
        tags = sorted({tag for run in runs for tag in run.annotations.tags})
        wanted_tags = st.multiselect("Tags", tags, key="runs.tags", width=240, persist_state="session") if tags else []
        with_archived = has_archived and st.toggle("Archived runs too", key="runs.archived", persist_state="session")
    return [
        run
        for run in runs
        if (with_archived or not run.annotations.is_archived)
        and (not statuses or _status(run) in statuses)
        and set(wanted_tags) <= set(run.annotations.tags)
        and all(word in _searched(run) for word in (words or "").lower().split())
    ]


def runs_table(runs: list[RunSummary], chosen: list[str]) -> list[str]:
    """Draw it; returns the ids of the selected runs. `chosen`: those that are selected at first."""
    ids = [run.run_id for run in runs]
    rows = [ids.index(run_id) for run_id in chosen if run_id in ids]
    # Rows move when a run comes or goes: a table of its own for each list, which starts with the chosen runs.
    state = st.dataframe(
        _rows(runs),
        key=f"runs.table.{hash(tuple(ids))}",
        hide_index=True,
        height="content" if len(runs) <= _MOST_ROWS_SHOWN else _TABLE_HEIGHT,
        placeholder=NONE_YET,
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": rows}} if rows else None,
        column_config=_columns(),
        alt="All runs, newest first",
    )
    return [ids[row] for row in state.selection.rows if row < len(ids)]


def _status(run: RunSummary) -> str:
    return UNREADABLE if run.problem else status_word(run.status)


def _searched(run: RunSummary) -> str:
    backbone = run.config.backbone if run.config else ""
    return " ".join((run.label, run.run_id, *run.annotations.tags, run.annotations.note, run.data_title, backbone)).lower()


def _rows(runs: list[RunSummary]) -> dict[str, list[Any]]:
    configs = [run.config for run in runs]
    values: dict[str, list[Any]] = {
        "Run": [f"★ {run.label}" if run.annotations.is_starred else run.label for run in runs],
        "Status": [[_status(run)] for run in runs],
        "Data": [run.data_title for run in runs],
        "Backbone": [config.backbone if config else "" for config in configs],
        "What trains": [CHOICE_LABELS[config.trainable] if config else "" for config in configs],
        "Best dev": [percent(run.best_dev_accuracy) for run in runs],
        "Test": [percent(run.test_accuracy) for run in runs],
        "Top-5": [percent(run.test_top5) for run in runs],
        "Dev by epoch": [list(run.dev_curve) for run in runs],
        "Duration": [format_duration(run.seconds) for run in runs],
        "Images/s": [None if run.images_per_second is None else round(run.images_per_second) for run in runs],
        "Size": [round(run.size_bytes / 1e6) for run in runs],
        "Started": [datetime.fromtimestamp(run.created) for run in runs],
    }
    if any(run.annotations.tags for run in runs):
        values["Tags"] = [list(run.annotations.tags) for run in runs]
    if any(run.annotations.note for run in runs):
        values["Note"] = [run.annotations.note for run in runs]
    return values


def _columns() -> dict[str, Any]:
    """Widths in pixels: what one looks for first fits a page of 1,366; the rest is a scroll to the right."""
    config = st.column_config
    return {
        "Run": config.TextColumn(width=270, pinned=True),
        "Status": config.MultiselectColumn(width=100, options=list(_STATUS_COLOURS), color=list(_STATUS_COLOURS.values())),
        "Data": config.TextColumn(width=90),
        "Backbone": config.TextColumn(width=130),
        "What trains": config.TextColumn(width=165),
        "Best dev": config.NumberColumn(width=75, format=PERCENT_FORMAT, help="Highest accuracy on the dev images so far."),
        "Test": config.NumberColumn(width=66, format=PERCENT_FORMAT, help="Accuracy on the test images, measured once at the end."),
        "Top-5": config.NumberColumn(width=66, format=PERCENT_FORMAT, help="Test images with the right class among the first five."),
        "Dev by epoch": config.LineChartColumn(width=110, y_min=0, y_max=1, help="Dev accuracy after each epoch, from 0 to 100 %."),
        "Duration": config.TextColumn(width=92),
        "Images/s": config.NumberColumn(width=80, format="localized", help="Trained images a second in the last epoch."),
        "Size": config.NumberColumn(width=75, format="%d MB", help="On disk: weights, checkpoints, evaluation, log."),
        "Started": config.DatetimeColumn(width=140, format="D MMM YYYY, HH:mm"),
        "Tags": config.ListColumn(width=150),
        "Note": config.TextColumn(width=260),
    }
