"""The session keys of the dashboard, each once and typed: what a person chose, never facts of a run (those lie on disk).

Every page that keeps something between its reruns names it here. Widgets keep their own values under the keys below;
`persist_state="session"` makes them survive a change of page.
"""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from cifar_tl.answers import Answer, Asked
from cifar_tl.errors import CifarTLError

# The Train form. A setting's widget lies under `setting_key(name)`; the data set is chosen in two widgets.
PRESET = "train.preset"
SOURCE_KIND = "train.source_kind"
SOURCE_FOLDER = "train.source_folder"
SHOW_ADVANCED = "train.show_advanced"
FORM_IS_FILLED = "train.form_is_filled"
WHERE = "train.where"
CLUSTER_ADDRESS = "train.cluster_address"
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
    # Streamlit begins a second run of the script while the first is still in its callback: two clicks are then two threads.
    starting: threading.Lock = field(default_factory=threading.Lock)


def started_run() -> StartedRun:
    value = st.session_state.setdefault(_STARTED, StartedRun())
    assert isinstance(value, StartedRun)
    return value


def open_new_form() -> None:
    """A fresh Start button, which may start a run again. The settings stay."""
    st.session_state[_STARTED] = StartedRun(form_number=started_run().form_number + 1)


@dataclass(frozen=True)
class Picture:
    """A picture that somebody handed to the Predict page. `number` tells it apart from all others of the session, `digest` its bytes.

    `true_class` is known of images from the test set; None of all others. `file_id` is the uploader's, of the archive for what was in one.
    """

    number: int
    name: str
    data: bytes
    digest: str
    true_class: str | None = None
    file_id: str = ""


@dataclass(frozen=True)
class Archive:
    """A .zip file that is being unpacked."""

    name: str
    file_id: str
    future: Future[Any]


@dataclass(frozen=True)
class Question:
    """Who is asked, and how: a run with the weights of that stamp (`cached.file_stamp`)."""

    run_id: str
    stamp: tuple[int, int]
    asked: Asked


@dataclass(frozen=True)
class Request:
    """Pictures on their way: `future` gives a list of `Answer`, one for each number in order."""

    question: Question
    numbers: tuple[int, ...]
    future: Future[Any]


@dataclass
class Predictions:
    """The pictures of this session, the newest drop first, and what has come back so far; `ui.prediction_batch` keeps it bounded.

    `answers` by question and number, without their previews: those are the same for all questions and lie in `previews`, as JPEG unless
    they are small.
    `refused` tells of files that were not taken.
    """

    pictures: list[Picture] = field(default_factory=list)
    answers: dict[Question, dict[int, Answer]] = field(default_factory=dict)
    previews: dict[int, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    archives: list[Archive] = field(default_factory=list)
    refused: list[Answer] = field(default_factory=list)
    has_failed: bool = False  # a whole request did, so it is worth asking again
    seen_files: set[str] = field(default_factory=set)  # ids that the uploader gave to files already taken
    shown_files: set[str] = field(default_factory=set)  # ids of those that the uploader shows
    upload_number: int = 0  # part of the keys of uploader and camera: a new number empties them
    next_number: int = 0


def predictions() -> Predictions:
    value = st.session_state.setdefault(_PREDICTIONS, Predictions())
    assert isinstance(value, Predictions)
    return value
