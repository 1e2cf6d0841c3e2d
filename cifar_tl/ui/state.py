"""The session keys of the dashboard, each once and typed: what a person chose, never facts of a run (those lie on disk).

Every page that keeps something between its reruns names it here. Widgets keep their own values under the keys below;
`persist_state="session"` makes them survive a change of page.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from cifar_tl.answers import Answer
from cifar_tl.errors import CifarTLError

# The Train form. A setting's widget lies under `setting_key(name)`; the data set is chosen in two widgets.
PRESET = "train.preset"
SOURCE_KIND = "train.source_kind"
SOURCE_FOLDER = "train.source_folder"
SHOW_ADVANCED = "train.show_advanced"
FORM_IS_FILLED = "train.form_is_filled"
_STARTED = "train.started"
_PREDICTIONS = "predict.predictions"

# The live view.
SHOW_LOG = "train.show_log"


def setting_key(name: str) -> str:
    """The session key of the widget of one setting of `RunConfig`."""
    return f"train.setting.{name}"


@dataclass
class StartedRun:
    """What the Start button of form `form_number` has made, so that a second click on it makes nothing more."""

    form_number: int = 0
    run_id: str = ""
    at: float = 0.0  # time.monotonic()
    error: CifarTLError | None = None


def started_run() -> StartedRun:
    value = st.session_state.setdefault(_STARTED, StartedRun())
    assert isinstance(value, StartedRun)
    return value


def open_new_form() -> None:
    """A fresh Start button, which may start a run again. The settings stay."""
    st.session_state[_STARTED] = StartedRun(form_number=started_run().form_number + 1)


@dataclass
class Predictions:
    """What was asked of which run, and what has come back so far.

    `futures` are in the order of the files; each answers with a list of `Answer`. `answers` are those of the newest drop,
    `older` those of the drops before it. Previews are small; the files themselves are not kept.
    """

    run_id: str = ""
    answers: list[Answer] = field(default_factory=list)
    older: list[Answer] = field(default_factory=list)
    futures: list[Future[Any]] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)  # names of the files of each future
    seen_files: set[str] = field(default_factory=set)  # ids that the uploader gave to files already asked for
    upload_number: int = 0  # part of the uploader's key: a new number empties it


def predictions() -> Predictions:
    value = st.session_state.setdefault(_PREDICTIONS, Predictions())
    assert isinstance(value, Predictions)
    return value
