"""Class heat maps, asked of the prediction process and kept for a while: an image that is looked at again is not asked about again."""

import hashlib
from concurrent.futures import Future
from typing import Any

import numpy as np
import streamlit as st

from cifar_tl.paths import RunFolder
from cifar_tl.ui import cached
from cifar_tl.ui.predictor import result_of

MAX_KEPT = 300

Asked = Future[Any]


def ask(folder: RunFolder, image_HWC: np.ndarray, class_index: int, rather_than: int | None = None) -> Asked:
    """The heat map of an image for one class, or for one rather than another, to be; returns at once. Read it with `answer`."""
    digest = hashlib.blake2b(image_HWC.tobytes(), digest_size=16).hexdigest()
    return _asked(str(folder.path), cached.file_stamp(folder.best_weights), digest, class_index, rather_than, image_HWC)


def answer(asked: Asked) -> np.ndarray:
    """float32 h x w in [0, 1]. Raises CifarTLError with one clear line."""
    heat_hw = result_of(asked)
    assert isinstance(heat_hw, np.ndarray)
    return heat_hw


@st.cache_resource(max_entries=MAX_KEPT, show_spinner=False)
def _asked(
    path: str,
    stamp: tuple[int, int],  # noqa: ARG001 - part of the key
    digest: str,  # noqa: ARG001
    class_index: int,
    rather_than: int | None,
    _image_HWC: np.ndarray,
) -> Asked:
    return cached.predictor().submit("cifar_tl.explain:class_heat_map", path, _image_HWC, class_index, rather_than)
