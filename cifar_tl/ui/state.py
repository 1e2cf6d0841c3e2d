"""The session keys of the dashboard, each once and typed: what a person chose, never facts of a run (those lie on disk).

Every page that keeps something between its reruns names it here. Widgets keep their own values under the keys below;
`persist_state="session"` makes them survive a change of page.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from cifar_tl.answers import AS_EVALUATED, Answer, Asked
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
class Picture:
    """One picture on the Predict page, with what each run that was asked says of it. `error`: why none is asked."""

    name: str
    data: bytes = b""
    true_class: str = ""  # of pictures of the test set
    error: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)


@dataclass
class Request:
    """Pictures that a run is being asked about; `future` brings a list with an `Answer` for each."""

    run_id: str
    future: Future[Any]
    pictures: list[Picture]


@dataclass
class Predictions:
    """The pictures of a session, the newest first, and the requests that have not come back."""

    pictures: list[Picture] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    asked: Asked = AS_EVALUATED
    seen_files: set[str] = field(default_factory=set)  # ids that the uploaders gave to files that are among the pictures
    upload_number: int = 0  # part of the uploaders' keys: a new number empties them
    can_ask_again: bool = False  # a request itself failed, and not what was asked about
    page: int = 0
    chosen: str = ""  # name of the picture that is looked at closer


def predictions() -> Predictions:
    value = st.session_state.setdefault(_PREDICTIONS, Predictions())
    assert isinstance(value, Predictions)
    return value
