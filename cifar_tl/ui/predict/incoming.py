"""How pictures come onto the page: dropped as files or archives, pasted, taken with the camera, or drawn from the test set."""

import io

import numpy as np
import streamlit as st
from PIL import Image

from cifar_tl.errors import CifarTLError
from cifar_tl.ui.cached_evaluation import Explored, explored
from cifar_tl.ui.predict import batch as pictures
from cifar_tl.ui.state import Predictions
from cifar_tl.ui.widgets import plain

FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF, or a .zip of them"
_DRAWN = 12
_ANY = "Any class"


def show_incoming(batch: Predictions, run_id: str) -> None:
    """The uploader, and the other ways behind a button."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        # No `type`: names prove nothing, and a file that the browser refuses by its name would get no answer.
        files = st.file_uploader(
            f"Pictures ({FORMATS})",
            accept_multiple_files=True,
            key=f"predict.files.{batch.upload_number}",
            max_upload_size=pictures.MAX_FILE_MIB,
            help=f"At most {pictures.MAX_PICTURES:,} at once. They stay on this machine, and are forgotten with this session.",
        )
        with st.popover("Other ways", icon=":material/add_photo_alternate:", width="content"):
            _paste(batch)
            _camera(batch)
            _from_test(batch, run_id)
    new = [file for file in files if file.file_id not in batch.seen_files]
    if new:
        batch.seen_files.update(file.file_id for file in new)
        pictures.add(batch, [(file.name, file.getvalue()) for file in new])


def _paste(batch: Predictions) -> None:
    st.markdown("**Paste**")
    pasted = st.chat_input("Click here, press Ctrl+V, then Enter", accept_file="multiple", key=f"predict.pasted.{batch.upload_number}")
    if pasted is not None:
        _add_once(batch, [(file.file_id, file.name, file.getvalue()) for file in pasted.files])


def _camera(batch: Predictions) -> None:
    st.markdown("**Camera**")
    # Asked for by hand: opening it makes the browser ask for a permission.
    if st.toggle("Take a photo", key="predict.camera_is_on"):
        photo = st.camera_input("Photo", key=f"predict.photo.{batch.upload_number}", label_visibility="collapsed")
        if photo is not None:
            _add_once(batch, [(photo.file_id, f"photo {len(batch.pictures) + 1}.jpg", photo.getvalue())])


def _add_once(batch: Predictions, files: list[tuple[str, str, bytes]]) -> None:
    new = [(file_id, name, data) for file_id, name, data in files if file_id not in batch.seen_files]
    if new:
        batch.seen_files.update(file_id for file_id, _, _ in new)
        pictures.add(batch, [(name, data) for _, name, data in new])


def _from_test(batch: Predictions, run_id: str) -> None:
    st.markdown("**Test images of the run**")
    try:
        tested = explored(run_id, "test")
    except (CifarTLError, FileNotFoundError):
        st.caption("This run has not been tested yet.")
        return
    if tested.images.store is None:
        st.caption(plain(tested.images.problem))
        return
    name = st.selectbox("Class", [_ANY, *sorted(tested.class_names)], key="predict.class")
    st.button(
        f"Draw {_DRAWN} at random",
        icon=":material/shuffle:",
        key="predict.draw",
        on_click=_draw,
        args=(batch, tested, None if name == _ANY else name),
    )


def _draw(batch: Predictions, tested: Explored, class_name: str | None) -> None:
    """Callback: test images that the page does not show yet, with their true class."""
    store, evaluation, names = tested.images.store, tested.evaluation, tested.class_names
    assert store is not None
    wanted = np.arange(len(evaluation)) if class_name is None else np.flatnonzero(evaluation.labels_N == names.index(class_name))
    shown = {picture.name for picture in batch.pictures}
    random = np.random.default_rng()
    drawn = [p for p in random.permutation(wanted).tolist() if _name(int(evaluation.rows_N[p])) not in shown][:_DRAWN]
    files = [
        (_name(int(evaluation.rows_N[p])), _png(np.asarray(store[evaluation.store_split].images_NHWC[evaluation.rows_N[p]]))) for p in drawn
    ]
    pictures.add(batch, files, true_classes=[names[int(evaluation.labels_N[p])] for p in drawn])


def _name(row: int) -> str:
    return f"test image {row}"


def _png(image_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()
