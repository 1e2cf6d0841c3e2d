"""Explanations, asked of the prediction process and kept for a while: an image that is looked at again is not asked about again."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import streamlit as st

from cifar_tl.answers import Framing
from cifar_tl.errors import CifarTLError, PredictionProcessDied
from cifar_tl.paths import RunFolder
from cifar_tl.ui import cached
from cifar_tl.ui.predictor import result_of
from cifar_tl.ui.state import Picture
from cifar_tl.ui.widgets import page_boundary, plain

MAX_KEPT = 300
MAX_PHOTOS = 24  # of half a megabyte
_POLL_SECONDS = 0.3

Asked = Future[Any]


def ask(folder: RunFolder, image_HWC: np.ndarray, class_index: int) -> Asked:
    """The heat map of a stored image for one class, to be; returns at once. Read it with `answer`."""
    digest = hashlib.blake2b(image_HWC.tobytes(), digest_size=16).hexdigest()
    return _asked("class_heat_map", str(folder.path), cached.file_stamp(folder.best_weights), digest, (class_index,), image_HWC)


def ask_photo(folder: RunFolder, picture: Picture, framing: Framing, class_index: int, against: int | None = None) -> Asked:
    """The same for a picture file, for a class or for it rather than another one."""
    stamp = cached.file_stamp(folder.best_weights)
    return _asked("photo_heat_map", str(folder.path), stamp, picture.digest, (framing, class_index, against), picture.data)


def ask_embedding(folder: RunFolder, picture: Picture, framing: Framing) -> Asked:
    """What a picture file looks like to the run's model: float32 D, to be."""
    stamp = (*cached.file_stamp(folder.best_weights), *cached.file_stamp(folder.embeddings))
    return _asked("photo_embedding", str(folder.path), stamp, picture.digest, (framing,), picture.data)


def photo(picture: Picture) -> Asked:
    """A picture file as a JPEG that any browser shows at full size, to be."""
    return _photo(picture.digest, picture.data)


def answer(asked: Asked) -> np.ndarray:
    """float32: h x w in [-1, 1], or D. Raises CifarTLError with one clear line."""
    array = result_of(asked)
    assert isinstance(array, np.ndarray)
    return array


def answer_bytes(asked: Asked) -> bytes:
    """The file of a `photo`. Raises CifarTLError."""
    data = result_of(asked)
    assert isinstance(data, bytes)
    return data


def when_done(asked: tuple[Asked, ...], show: Callable[[], None]) -> None:
    """Call `show` once all that was asked for is there; until then say so and look again. What could not be had is told in one line."""
    is_done = all(future.done() for future in asked)
    st.fragment(_when_done, run_every=None if is_done else _POLL_SECONDS)(asked, show, was_done=is_done)


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _when_done(asked: tuple[Asked, ...], show: Callable[[], None], *, was_done: bool) -> None:
    if not all(future.done() for future in asked):
        st.caption("Asking the model…")
        return
    if not was_done:
        st.rerun()  # once, which ends the polling
    try:
        show()
    except CifarTLError as error:
        if isinstance(error, PredictionProcessDied):  # whoever asks again gets an answer
            _asked.clear()
            _photo.clear()
        st.caption(plain(str(error)))


@st.cache_resource(max_entries=MAX_KEPT, show_spinner=False)
def _asked(function: str, path: str, stamp: tuple[int, ...], digest: str, how: tuple[Any, ...], _image: np.ndarray | bytes) -> Asked:  # noqa: ARG001 - the key
    return cached.predictor().submit(f"cifar_tl.explain:{function}", path, _image, *how)


@st.cache_resource(max_entries=MAX_PHOTOS, show_spinner=False)
def _photo(digest: str, _data: bytes) -> Asked:  # noqa: ARG001 - the key
    return cached.predictor().submit("cifar_tl.explain:photo_jpeg", _data)
