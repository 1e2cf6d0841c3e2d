"""The images behind a cell, a class or a pair: a grid of thumbnails with a pager, and the chosen one large with its likeliest classes.

Shows what it is given; which images those are is for the views of Explore to say. Where the data set is not on this machine,
says so and offers to get it.
"""

import numpy as np
import streamlit as st

from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.ui import cached
from cifar_tl.ui.cached_evaluation import Explored, RunImages
from cifar_tl.ui.image_fetch import Fetch, WantedImages
from cifar_tl.ui.progress import counted_progress
from cifar_tl.ui.thumbnails import thumbnails
from cifar_tl.ui.widgets import PERCENT_FORMAT, format_percent, page_boundary, plain

PAGE_SIZE = 200
_GRID_HEIGHT = 400
_TILES_THAT_FIT = 8
_LARGE_PIXELS = 160
_POLL_SECONDS = 0.5


def show_gallery(explored: Explored, positions_n: np.ndarray, *, selection: str, key: str) -> None:
    """The images at these positions of the evaluation, in this order. `selection` names them: a new one starts at the first page."""
    if explored.images.problem:
        _show_none(explored.images, key)
        return
    if not len(positions_n):
        st.caption("No image is here.")
        return
    revision = f"{explored.run_id}.{explored.split}.{selection}"
    page = _pager(len(positions_n), key=f"{key}.page.{revision}")
    shown_n = positions_n[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    images_NHWC = explored.images.of(explored.evaluation, shown_n)
    if images_NHWC is None:
        st.caption(":material/hide_image: The images cannot be shown: the evaluation names images that the data set does not have.")
        return
    captions = [_caption(explored, position) for position in shown_n]
    with st.container(height=_GRID_HEIGHT if len(shown_n) > _TILES_THAT_FIT else "content", border=False):
        chosen = thumbnails(images_NHWC, captions, revision=f"{revision}.{page}", key=key)
    if chosen is None or chosen >= len(shown_n):
        st.caption("The most confident come first. Choose an image to see it larger, with its likeliest classes.")
    else:
        _large(explored, int(shown_n[chosen]), images_NHWC[chosen], key)


def _show_none(images: RunImages, key: str) -> None:
    """In place of a gallery: why there is none and, where the images can be had, how far they are or the button that gets them."""
    st.caption(f":material/hide_image: {plain(images.problem)}")
    if images.wanted is None:
        return
    fetch = cached.image_fetches().get(images.wanted)
    if fetch is not None and not fetch.problem:
        st.fragment(_wait_for, run_every=_POLL_SECONDS)(fetch, images.wanted)
        return
    if fetch is not None:
        st.warning(f"The images could not be fetched: {plain(fetch.problem)}", icon=":material/cloud_off:")
    st.button(
        "Get the images",
        icon=":material/download:",
        key=f"{key}.get",
        help=images.how,
        on_click=cached.fetch_images,
        args=(images.wanted,),
    )


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _wait_for(fetch: Fetch, wanted: WantedImages) -> None:
    if fetch.over.is_set():
        if not fetch.problem:
            cached.image_fetches().pop(wanted, None)
        st.rerun()  # the whole page, once: it now has the images, or why it still has none
    now = counted_progress(fetch.progress.phase, fetch.progress.done, fetch.progress.total, fetch.progress.unit)
    st.progress(now.fraction, text=plain(now.text))


def _pager(count: int, *, key: str) -> int:
    pages = -(-count // PAGE_SIZE)
    return st.pagination(pages, key=key) if pages > 1 else 1


def _caption(explored: Explored, position: int) -> str:
    evaluation, names = explored.evaluation, explored.class_names
    true, predicted = int(evaluation.labels_N[position]), int(evaluation.top_classes_NK[position, 0])
    confidence = float(evaluation.probabilities_NC[position, predicted])
    return f"{names[true]}\n→ {names[predicted]}\n{format_percent(confidence)}"


def _large(explored: Explored, position: int, image_HWC: np.ndarray, key: str) -> None:
    left, right = st.columns([2, 3], vertical_alignment="center")
    with left:
        st.image(_enlarged(image_HWC), width=_LARGE_PIXELS)
    with right:
        evaluation = explored.evaluation
        st.caption(f"True class: **{plain(explored.class_names[int(evaluation.labels_N[position])])}**")
        st.dataframe(
            _likeliest(evaluation, explored.class_names, position),
            hide_index=True,
            key=f"{key}.likeliest",
            column_config={"Probability": st.column_config.ProgressColumn(format=PERCENT_FORMAT, min_value=0, max_value=100)},
            alt="The likeliest classes of the chosen image",
        )


def _likeliest(evaluation: Evaluation, names: tuple[str, ...], position: int) -> dict[str, list[str] | list[float]]:
    classes = [int(i) for i in evaluation.top_classes_NK[position]]
    return {
        "Class": [names[i] for i in classes],
        "Probability": [round(100 * float(evaluation.probabilities_NC[position, i]), 1) for i in classes],
    }


def _enlarged(image_HWC: np.ndarray) -> np.ndarray:
    """A small image with every pixel repeated, so that the browser does not blur it."""
    factor = max(1, _LARGE_PIXELS // image_HWC.shape[0])
    return image_HWC.repeat(factor, axis=0).repeat(factor, axis=1)
