"""A closer look at one picture: what in it speaks for a class, or for one class rather than another, and what it resembles in train."""

import hashlib
import io
from concurrent.futures import Future
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from cifar_tl.answers import Framing
from cifar_tl.data.decode import decode_image
from cifar_tl.errors import CifarTLError, ImageUnreadable
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import find_run, read_manifest
from cifar_tl.ui import cached, heat_maps
from cifar_tl.ui.cached_evaluation import run_images
from cifar_tl.ui.explore.audited import doubted_training_rows
from cifar_tl.ui.predictor import result_of
from cifar_tl.ui.state import Picture, Predictions
from cifar_tl.ui.thumbnails import thumbnails
from cifar_tl.ui.widgets import page_boundary, plain

_LEAST_PIXELS, _MOST_PIXELS = 512, 1024  # of the long side of what is shown
_POLL_SECONDS = 0.3
_NEIGHBOURS = 8
_NONE = "none in particular"
_MAX_KEPT = 100


def show_closer(batch: Predictions, picture: Picture, run_id: str) -> None:
    folder = find_run(run_id)
    manifest = read_manifest(folder)
    if manifest is None:
        return
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(picture.name)}**", width="stretch")
            st.button("Close", icon=":material/close:", key="predict.close", on_click=_close, args=(batch,))
        answer = picture.answers[run_id]
        seen_HWC = np.asarray(Image.open(io.BytesIO(answer.seen_png)).convert("RGB"))
        left, right = st.columns([3, 2], gap="medium")
        with right:
            about, rather_than, opacity = _choices(picture, run_id, manifest.class_names)
            _resembles(folder, seen_HWC, manifest.class_names, key=picture.name)
        asked = heat_maps.ask(folder, seen_HWC, about, rather_than)
        with left:
            st.fragment(_heat, run_every=None if asked.done() else _POLL_SECONDS)(
                asked, picture, batch.asked.framing, opacity, was_done=asked.done()
            )


def _close(batch: Predictions) -> None:
    batch.chosen = ""


def _choices(picture: Picture, run_id: str, names: tuple[str, ...]) -> tuple[int, int | None, float]:
    """(class, class it is compared with or None, how dark the rest is). The likeliest classes come first in both lists."""
    likely = [ranked.class_name for ranked in picture.answers[run_id].classes]
    by_likelihood = [*likely, *sorted(set(names) - set(likely))]
    key = f"predict.{run_id}.{picture.name}"
    about = st.selectbox("What speaks for", by_likelihood, key=f"{key}.about")
    others = [_NONE, *(name for name in by_likelihood if name != about)]
    rather_than = st.selectbox(
        "rather than",
        others,
        key=f"{key}.rather.{about}",
        help="What tells the first class from this one, by the difference of their logits.",
    )
    opacity = st.slider("Darken the rest, %", 0, 100, 75, key="predict.opacity")
    return names.index(about), None if rather_than == _NONE else names.index(rather_than), opacity / 100


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _heat(asked: heat_maps.Asked, picture: Picture, framing: Framing, opacity: float, *, was_done: bool) -> None:
    if not asked.done():
        st.caption("Asking the model…")
        return
    if not was_done:
        st.rerun()  # once, which ends the polling
    try:
        heat_hw = heat_maps.answer(asked)
        photo = decode_image(picture.data)
    except (CifarTLError, ImageUnreadable) as error:
        st.caption(plain(str(error)))
        return
    st.image(lit_photo(photo, heat_hw, framing, opacity))
    if heat_hw.max() <= 0:
        st.caption("Nothing in the picture speaks for this class.")
    else:
        st.caption("Bright is what speaks for it; dark is what the answer does not rest on" + (
            ", or what the model did not see: it sees the middle square." if framing is Framing.CENTER and photo.width != photo.height else "."
        ))  # fmt: skip


def lit_photo(photo: Image.Image, heat_hw: np.ndarray, framing: Framing, opacity: float) -> np.ndarray:
    """uint8: the photo, dark by `opacity` where the heat map (of the square that the model saw) is 0, and where it did not look."""
    factor = max(1, _LEAST_PIXELS // max(photo.size))
    small = photo.resize((factor * photo.width, factor * photo.height), Image.Resampling.NEAREST)  # so that the browser blurs nothing
    small.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    width, height = small.size
    side = max(width, height) if framing is Framing.WHOLE else min(width, height)
    square = Image.fromarray(heat_hw.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    heat = Image.new("F", (width, height), 0)
    heat.paste(square, ((width - side) // 2, (height - side) // 2))  # what is beyond the photo is cut off
    brightness = 1 - opacity * (1 - np.clip(np.asarray(heat), 0, 1))
    lit: np.ndarray = (np.asarray(small) * brightness[..., None]).astype(np.uint8)
    return lit


def _resembles(folder: RunFolder, seen_HWC: np.ndarray, names: tuple[str, ...], key: str) -> None:
    """The training images that the model takes to be most like this picture."""
    asked = _asked_neighbours(str(folder.path), cached.file_stamp(folder.best_weights), _digest(seen_HWC), seen_HWC)
    st.fragment(_neighbours, run_every=None if asked.done() else _POLL_SECONDS)(folder, asked, names, key, was_done=asked.done())


def _digest(image_HWC: np.ndarray) -> str:
    return hashlib.blake2b(image_HWC.tobytes(), digest_size=16).hexdigest()


@st.cache_resource(max_entries=_MAX_KEPT, show_spinner=False)
def _asked_neighbours(path: str, stamp: tuple[int, int], digest: str, _image_HWC: np.ndarray) -> Future[Any]:  # noqa: ARG001 - the key
    return cached.predictor().submit("cifar_tl.explain:nearest_training_images", path, _image_HWC, _NEIGHBOURS)


@page_boundary()
def _neighbours(folder: RunFolder, asked: Future[Any], names: tuple[str, ...], key: str, *, was_done: bool) -> None:
    if not asked.done():
        st.caption("Looking for what it resembles…")
        return
    if not was_done:
        st.rerun()
    try:
        rows_k, labels_k, similarities_k, store_split = result_of(asked)
    except CifarTLError as error:
        st.caption(plain(str(error)))
        return
    manifest = read_manifest(folder)
    assert manifest is not None
    images = run_images(folder, manifest)
    st.markdown("Nearest training images")
    if images.store is None:
        st.caption(", ".join(f"{plain(names[label])} ({alike:.2f})" for label, alike in zip(labels_k, similarities_k, strict=True)))
        st.caption(plain(images.problem))
        return
    doubted = doubted_training_rows(folder.run_id, manifest) if store_split == "train" else set()
    captions = [
        f"{names[label]}\nalike {alike:.2f}" + ("\nlabel doubted" if int(row) in doubted else "")
        for row, label, alike in zip(rows_k, labels_k, similarities_k, strict=True)
    ]
    pixels = np.asarray(images.store[store_split].images_NHWC[rows_k])
    thumbnails(pixels, captions, revision=f"{folder.run_id}.{key}", key="predict.neighbours")
