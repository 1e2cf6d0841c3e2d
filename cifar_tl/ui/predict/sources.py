"""Where pictures come from: files and archives that are dropped or pasted, the camera, the test set. Hands them to `prediction_batch`."""

import io

import numpy as np
import streamlit as st
from PIL import Image

from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import RunManifest
from cifar_tl.ui import cached, prediction_batch
from cifar_tl.ui.cached_evaluation import RunImages, run_images
from cifar_tl.ui.predict.paste import paste
from cifar_tl.ui.prediction_batch import Handed
from cifar_tl.ui.state import Predictions
from cifar_tl.ui.widgets import plain

FILES, CAMERA, TEST_IMAGES = "Files", "Camera", "Test images"
FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF, or a .zip of them"
MOST_DRAWN = 48
_ANY_CLASS = "Any class"
_UPLOADER_HEIGHT, _FILES_THAT_FIT = 110, 6
_HELP = (
    f"At most {prediction_batch.MAX_PICTURES:,} pictures, {prediction_batch.MAX_TOTAL_BYTES // 2**20} MiB in all. They stay on this "
    "machine and are not kept."
)


def take_pictures(batch: Predictions, folder: RunFolder) -> None:
    """Choose a source and take what comes of it; the chosen run says which test set."""
    with st.container(horizontal=True, vertical_alignment="center"):
        source = st.segmented_control(
            "Where pictures come from",
            [FILES, CAMERA, TEST_IMAGES],
            default=FILES,
            required=True,
            label_visibility="collapsed",
            key="predict.source",
            width="content",
            persist_state="session",
        )
        if source == FILES:
            paste(key="predict.paste")
    if source == FILES:
        _files(batch)
    elif source == CAMERA:
        _camera(batch)
    else:
        _test_images(batch, folder)


def _files(batch: Predictions) -> None:
    with st.container(height=_UPLOADER_HEIGHT if len(batch.seen_files) > _FILES_THAT_FIT else "content", border=False):
        # No `type`: names prove nothing, and a file that the browser refuses by its name would get no answer.
        key = f"predict.files.{batch.upload_number}"
        files = st.file_uploader(
            f"Pictures ({FORMATS})",
            accept_multiple_files=True,
            key=key,
            on_change=_take_back_removed,
            args=(batch, key),
            help=_HELP,
            label_visibility="collapsed",
        )
    new = [file for file in files if file.file_id not in batch.seen_files]
    batch.shown_files = {file.file_id for file in files}
    batch.seen_files |= batch.shown_files
    if new:
        prediction_batch.add(batch, [Handed(file.name, file.getvalue(), file_id=file.file_id) for file in new])


def _take_back_removed(batch: Predictions, key: str) -> None:
    """Called when somebody changes the uploader, not when it comes back empty from another page: then its pictures stay."""
    removed = batch.shown_files - {file.file_id for file in st.session_state[key]}
    if removed:
        prediction_batch.take_back(batch, removed)


def _camera(batch: Predictions) -> None:
    photo = st.camera_input("Take a photo", key=f"predict.camera.{batch.upload_number}", width=480)
    if photo is not None and photo.file_id not in batch.seen_files:
        batch.seen_files.add(photo.file_id)
        prediction_batch.add(batch, [Handed(f"photo {batch.next_number + 1}.jpg", photo.getvalue())])


def _test_images(batch: Predictions, folder: RunFolder) -> None:
    _, manifest = cached.settings_of(folder)
    if manifest is None:
        return
    images = run_images(folder, manifest)
    if images.store is None or "test" not in images.store:
        _no_images(images)
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("Class", [_ANY_CLASS, *manifest.class_names], key="predict.test_class", width=260)
        count = st.number_input("Images", 1, MOST_DRAWN, 8, key="predict.test_count", width=140)
        st.button(
            "Draw at random",
            icon=":material/casino:",
            on_click=_draw,
            args=(batch, images, manifest, None if chosen == _ANY_CLASS else chosen, count),
        )
        st.caption(f"From the test set of {plain(manifest.data_title)}, with the true class shown.", width="content")


def _no_images(images: RunImages) -> None:
    st.caption(f":material/hide_image: {plain(images.problem or 'This data set has no test images.')}")
    if images.wanted is None:
        return
    fetch = cached.image_fetches().get(images.wanted)
    if fetch is not None and not fetch.problem:
        st.caption(f":material/downloading: {plain(fetch.progress.phase)}… Choose “{TEST_IMAGES}” again in a moment.")
        return
    if fetch is not None:
        st.warning(f"The images could not be fetched: {plain(fetch.problem)}", icon=":material/cloud_off:")
    st.button("Get the images", icon=":material/download:", help=images.how, on_click=cached.fetch_images, args=(images.wanted,))


def _draw(batch: Predictions, images: RunImages, manifest: RunManifest, class_name: str | None, count: int) -> None:
    """Test images that are not here yet, of all classes or of one, as files without loss."""
    assert images.store is not None
    test, names = images.store["test"], images.store.info.class_names
    here = {picture.name for picture in batch.pictures}
    wanted = {class_name} if class_name else set(manifest.class_names)  # a run may know a part of the data set's classes
    rows = np.array([row for row, label in enumerate(test.labels_N) if names[label] in wanted and _name(row) not in here], np.int64)
    drawn = np.random.default_rng().choice(rows, min(count, len(rows)), replace=False)
    files = [Handed(_name(row), _png(np.asarray(test.images_NHWC[row])), names[test.labels_N[row]]) for row in drawn]
    prediction_batch.add(batch, files)


def _name(row: int) -> str:
    return f"test image {row}"


def _png(image_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()
