"""One image in detail: large and crisp, its likeliest classes, where the model looked, and the training images it resembles."""

import numpy as np
import streamlit as st
from PIL import Image

from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.evaluation.selection import losses
from cifar_tl.runs.store import find_run
from cifar_tl.ui import heat_maps
from cifar_tl.ui.cached_evaluation import Explored, embeddings_of
from cifar_tl.ui.thumbnails import thumbnails
from cifar_tl.ui.widgets import PERCENT_FORMAT, plain

_LARGE_PIXELS = 192
_NEIGHBOURS = 8
_COLDEST = 0.2  # of the brightness, where the model did not look


def show_detail(explored: Explored, position: int, image_HWC: np.ndarray, *, key: str) -> None:
    """`image_HWC`: uint8, the stored image at this position of the evaluation."""
    evaluation, names = explored.evaluation, explored.class_names
    left, right = st.columns([2, 3], gap="small")
    with left:
        st.image(enlarged(image_HWC), width=_LARGE_PIXELS)
    with right:
        true = int(evaluation.labels_N[position])
        st.markdown(f"True class: **{plain(names[true])}**")
        st.dataframe(
            _likeliest(evaluation, names, position),
            hide_index=True,
            key=f"{key}.likeliest",
            column_config={"Probability": st.column_config.ProgressColumn(format=PERCENT_FORMAT, min_value=0, max_value=100)},
            alt="The likeliest classes of the chosen image",
        )
        st.caption(f"Loss {losses(evaluation)[position]:.2f} · image {int(evaluation.rows_N[position]):,} of {evaluation.store_split}")
    _where_it_looked(explored, position, image_HWC, key)
    _what_it_resembles(explored, position, key)


def _likeliest(evaluation: Evaluation, names: tuple[str, ...], position: int) -> dict[str, list[str] | list[float]]:
    classes = [int(i) for i in evaluation.top_classes_NK[position]]
    return {
        "Class": [names[i] for i in classes],
        "Probability": [round(100 * float(evaluation.probabilities_NC[position, i]), 1) for i in classes],
    }


def enlarged(image_HWC: np.ndarray) -> np.ndarray:
    """A small image with every pixel repeated, so that the browser does not blur it."""
    factor = max(1, _LARGE_PIXELS // image_HWC.shape[0])
    return image_HWC.repeat(factor, axis=0).repeat(factor, axis=1)


def _where_it_looked(explored: Explored, position: int, image_HWC: np.ndarray, key: str) -> None:
    """The class heat map, for the class that is asked about; shown when somebody wants it, since it costs a pass of the network."""
    folder = find_run(explored.run_id)
    if not folder.best_weights.is_file():
        return
    if not st.toggle("Where the model looked", key=f"{key}.heat"):
        return
    evaluation, names = explored.evaluation, explored.class_names
    true = int(evaluation.labels_N[position])
    classes = list(dict.fromkeys([*(int(i) for i in evaluation.top_classes_NK[position]), true]))
    left, right = st.columns([2, 3], gap="small")
    with right:
        about = st.selectbox("Evidence for", classes, format_func=names.__getitem__, key=f"{key}.heat.{explored.run_id}.{position}")
        st.caption("Bright is what speaks for this class; dark is what the answer does not rest on.")
    asked = heat_maps.ask(folder, image_HWC, about)
    with left:
        heat_maps.when_done((asked,), lambda: _show_heat(heat_maps.answer(asked), image_HWC))


def _show_heat(heat_hw: np.ndarray, image_HWC: np.ndarray) -> None:
    st.image(lit(enlarged(image_HWC), heat_hw), width=_LARGE_PIXELS)


def lit(image_HWC: np.ndarray, heat_hw: np.ndarray) -> np.ndarray:
    """The image, bright where the heat map (fractions, any size) is high and dark where it is low."""
    height, width = image_HWC.shape[:2]
    heat = Image.fromarray(heat_hw.astype(np.float32), "F").resize((width, height), Image.Resampling.BICUBIC)
    brightness = _COLDEST + (1 - _COLDEST) * np.clip(np.asarray(heat), 0, 1)
    return (image_HWC * brightness[..., None]).astype(np.uint8)


def _what_it_resembles(explored: Explored, position: int, key: str) -> None:
    """The training images whose embeddings are most like this one's: what the model takes to be the same."""
    embeddings = embeddings_of(explored.run_id)
    of_split = embeddings.splits.get(explored.split) if embeddings else None
    if embeddings is None or of_split is None or "train" not in embeddings.splits or explored.images.store is None:
        return
    place = of_split.positions_of(explored.evaluation.rows_N[[position]])
    if place[0] < 0:
        return
    positions_1k, similarities_1k = embeddings.neighbours(explored.split, place, _NEIGHBOURS)
    train = embeddings.splits["train"].taken(positions_1k[0])
    names = explored.class_names
    same = int((train.labels_N == explored.evaluation.labels_N[position]).sum())
    true = plain(names[int(explored.evaluation.labels_N[position])])
    st.markdown(f"Nearest training images: {same} of {len(train)} are **{true}**")
    captions = [f"{names[label]}\nalike {alike:.2f}" for label, alike in zip(train.labels_N, similarities_1k[0], strict=True)]
    images_NHWC = np.asarray(explored.images.store[train.store_split].images_NHWC[train.rows_N])
    thumbnails(images_NHWC, captions, revision=f"{explored.run_id}.{explored.split}.{position}", key=f"{key}.neighbours")
