"""The images behind a cell, a class, a filter: a grid of thumbnails with a pager, and the chosen one in detail (`ui.image_detail`).

Shows what it is given; which images those are is for the views of Explore to say. Where the data set is not on this machine,
says so and offers to get it.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import streamlit as st

from cifar_tl.ui import cached
from cifar_tl.ui.cached_evaluation import Explored, RunImages
from cifar_tl.ui.image_detail import show_detail
from cifar_tl.ui.image_fetch import Fetch, WantedImages
from cifar_tl.ui.progress import counted_progress
from cifar_tl.ui.thumbnails import thumbnails
from cifar_tl.ui.widgets import format_percent, page_boundary, plain

PAGE_SIZE = 200
_GRID_HEIGHT, _WIDE_GRID_HEIGHT = 400, 620
_TILES_THAT_FIT, _WIDE_TILES_THAT_FIT = 8, 24
_WIDE_COLUMNS = (5, 3)
_POLL_SECONDS = 0.5


def show_gallery(
    explored: Explored, positions_n: np.ndarray, *, selection: str, key: str, is_wide: bool = False, captions: Sequence[str] | None = None
) -> None:
    """The images at these positions of the evaluation, in this order. `selection` names them: a new one starts at the first page.

    The chosen image is shown below the grid, or beside it where there is the width of a page. `captions`: one for each position,
    where true class, prediction and confidence are not what they should say.
    """
    if explored.images.problem:
        _show_none(explored.images, key)
        return
    if not len(positions_n):
        st.caption("No image is here.")
        return
    revision = f"{explored.run_id}.{explored.split}.{selection}"
    grid, detail = st.columns(_WIDE_COLUMNS, gap="medium") if is_wide else (st.container(), st.container())
    with grid:
        page = _pager(len(positions_n), key=f"{key}.page.{revision}")
        shown = slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE)
        shown_n = positions_n[shown]
        images_NHWC = explored.images.of(explored.evaluation, shown_n)
        if images_NHWC is None:
            st.caption(":material/hide_image: The images cannot be shown: the evaluation names images that the data set does not have.")
            return
        texts = [_caption(explored, position) for position in shown_n] if captions is None else list(captions[shown])
        with st.container(height=_grid_height(len(shown_n), is_wide), border=False):
            chosen = thumbnails(images_NHWC, texts, revision=f"{revision}.{page}", key=key)
    with detail:
        if chosen is None or chosen >= len(shown_n):
            st.caption("Choose an image to see it larger, with its likeliest classes, what the model looked at, and what it resembles.")
        else:
            show_detail(explored, int(shown_n[chosen]), images_NHWC[chosen], key=key)


def _grid_height(count: int, is_wide: bool) -> int | Literal["content"]:
    if is_wide:
        return _WIDE_GRID_HEIGHT if count > _WIDE_TILES_THAT_FIT else "content"
    return _GRID_HEIGHT if count > _TILES_THAT_FIT else "content"


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
