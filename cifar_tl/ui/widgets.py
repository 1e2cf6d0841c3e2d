"""Small parts that several pages show: run picker, status badge, metric row, numbers in words, and the page's error boundary.

Owns how a run, a share and a duration look everywhere. Reads no files: pages hand in what they loaded.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from cifar_tl.errors import CifarTLError
from cifar_tl.runs.store import RunStatus
from cifar_tl.runs.summary import RunSummary

NONE_YET = "–"
PERCENT_FORMAT = "%.1f %%"  # of table columns, on numbers from `percent`
RUN_PARAMETER = "run"  # of the address: ?run=ID
_PICKER_KEY = "run_picker"
_MOST_COLUMNS = 4
_log = logging.getLogger(__name__)

Colour = Literal["red", "orange", "blue", "green", "gray"]


@dataclass(frozen=True)
class _StatusLook:
    word: str
    icon: str
    colour: Colour
    meaning: str


_STATUS_LOOKS: dict[RunStatus, _StatusLook] = {
    RunStatus.QUEUED: _StatusLook("Queued", ":material/hourglass_top:", "blue", "It waits for a device and starts by itself."),
    RunStatus.RUNNING: _StatusLook("Running", ":material/play_circle:", "blue", "Its worker process is alive."),
    RunStatus.COMPLETED: _StatusLook(
        "Completed", ":material/check_circle:", "green", "All epochs are done and the test set was evaluated."
    ),
    RunStatus.STOPPED: _StatusLook(
        "Stopped", ":material/stop_circle:", "gray", "A person stopped it; the weights of its best epoch are kept."
    ),
    RunStatus.FAILED: _StatusLook("Failed", ":material/error:", "red", "It ended with an error."),
    RunStatus.LOST: _StatusLook(
        "Lost", ":material/link_off:", "orange", "Its worker vanished (crash, kill or power cut); the weights of its best epoch are kept."
    ),
}


def status_word(status: RunStatus) -> str:
    """The status as lists show it, such as "Completed"."""
    return _STATUS_LOOKS[status].word


def status_badge(status: RunStatus) -> None:
    """A coloured badge with an icon; what the status means is its tooltip."""
    look = _STATUS_LOOKS[status]
    st.badge(look.word, icon=look.icon, color=look.colour, help=look.meaning)


def format_percent(fraction: float | None) -> str:
    """0.6849 -> "68.5 %"; a dash where there is none yet."""
    if fraction is None or math.isnan(fraction):
        return NONE_YET
    return f"{100 * fraction:.1f} %"


def percent(fraction: float | None) -> float | None:
    """For a column of numbers with PERCENT_FORMAT, which sorts as numbers; None where there is none yet.

    Rounded, since copying and screen readers take the number and not its format.
    """
    return None if fraction is None or math.isnan(fraction) else round(100 * fraction, 1)


def format_bytes(count: float) -> str:
    """230_000_000 -> "230 MB", 1_440_000_000 -> "1.4 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def format_duration(seconds: float | None) -> str:
    """12 -> "12 s", 252 -> "4 min 12 s", 7500 -> "2 h 5 min", 100000 -> "1 d 3 h"; a dash where there is none yet."""
    if seconds is None or not math.isfinite(seconds):
        return NONE_YET
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"


def plain(text: str) -> str:
    """Text that a person or a file wrote, made safe for Markdown: names with * or $ show as they are."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!$:<>~|])", r"\\\1", text)


@dataclass(frozen=True)
class Metric:
    """One headline number, already in words. `note` is small print under it, `help` its tooltip."""

    label: str
    value: str
    note: str = ""
    help: str = ""


def metric_row(metrics: Sequence[Metric]) -> None:
    """Headline numbers as equal cards, at most four a row."""
    for start in range(0, len(metrics), _MOST_COLUMNS):
        row = metrics[start : start + _MOST_COLUMNS]
        for column, metric in zip(st.columns(len(row)), row, strict=True):
            column.metric(
                metric.label,
                metric.value,
                metric.note or None,
                delta_color="off",
                delta_arrow="off",
                help=metric.help or None,
                border=True,
                height="stretch",
            )


def run_picker(runs: Sequence[RunSummary], *, label: str = "Run") -> RunSummary | None:
    """Choose a run, newest first; None if there are none. The choice is in the address (?run=ID) and kept between pages.

    The address leads: a link or the back button moves the box, the box writes the address. (The box's own
    `bind="query-params"` writes its label instead of the id, and drops it for the newest run.)
    """
    if not runs:
        return None
    by_id = {run.run_id: run for run in runs}
    asked = st.query_params.get(RUN_PARAMETER)
    if asked in by_id:
        st.session_state[_PICKER_KEY] = asked
    elif asked:
        st.warning(f"There is no run {plain(asked)} here (any more).", icon=":material/link_off:")
    if st.session_state.get(_PICKER_KEY) not in by_id:
        st.session_state[_PICKER_KEY] = runs[0].run_id
    labels = run_labels(runs)
    chosen: str = st.selectbox(
        label,
        list(by_id),
        format_func=lambda run_id: labels.get(run_id, run_id),
        key=_PICKER_KEY,
        on_change=_write_address,
        persist_state="session",
    )
    if asked != chosen:
        st.query_params[RUN_PARAMETER] = chosen
    return by_id[chosen]


def _write_address() -> None:
    st.query_params[RUN_PARAMETER] = st.session_state[_PICKER_KEY]


def run_labels(runs: Sequence[RunSummary]) -> dict[str, str]:
    """What the picker shows for each run id. Unique: the box tells its options apart by their text."""
    labels = {run.run_id: f"{run.label} · {run.data_title or 'unreadable'} · {status_word(run.status).lower()}" for run in runs}
    times = Counter(labels.values())
    return {run_id: f"{text} · {run_id}" if times[text] > 1 else text for run_id, text in labels.items()}


@contextmanager
def page_boundary() -> Iterator[None]:
    """Errors meant for people are shown; all others are logged with their traceback and told in one plain sentence."""
    try:
        yield
    except CifarTLError as error:
        show_error(error)
    except Exception:
        _log.exception("A page of the dashboard raised an unexpected error")
        st.error(
            "Something went wrong in the dashboard itself, not in your run. The details are in the terminal where it was started. "
            "Reload the page to go on.",
            icon=":material/error:",
        )


def show_error(error: CifarTLError) -> None:
    """The message of an error that is meant for people, as it is."""
    st.error(plain(str(error)).replace("\n", "  \n"), icon=":material/error:")
