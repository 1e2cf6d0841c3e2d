"""The training images that a picture looks most like to the model, with their labels, and whether an audit doubts those labels."""

import numpy as np
import streamlit as st

from cifar_tl.evaluation.embeddings import SplitVectors
from cifar_tl.runs.store import RunManifest, find_run
from cifar_tl.ui.cached_evaluation import embeddings_of, run_images
from cifar_tl.ui.explore.audited import suggested_labels
from cifar_tl.ui.thumbnails import thumbnails
from cifar_tl.ui.widgets import plain

NEIGHBOURS = 12


def show_nearest(run_id: str, manifest: RunManifest, vector_D: np.ndarray, class_name: str, *, key: str) -> None:
    """`vector_D`: what the picture looks like to the run; `class_name`: what it was taken for."""
    embeddings = embeddings_of(run_id)
    if embeddings is None or "train" not in embeddings.splits:
        st.caption("The run has nothing to compare with yet. Explore prepares it, under Map.")
        return
    positions_1k, similarities_1k = embeddings.nearest(vector_D[None], NEIGHBOURS)
    train, similarities_k = embeddings.splits["train"].taken(positions_1k[0]), similarities_1k[0]
    names = manifest.class_names
    same = sum(names[label] == class_name for label in train.labels_N)
    doubts = suggested_labels(run_id, manifest, train)
    st.markdown(f"{same} of the {len(train)} nearest training images are **{plain(class_name)}**.")
    st.caption(_about_doubts(doubts))
    captions = _captions(train, similarities_k, names, doubts or {})
    images = run_images(find_run(run_id), manifest)
    if images.store is None or train.store_split not in images.store:
        st.caption(f":material/hide_image: {plain(images.problem)}")
        st.dataframe({"Training image": [text.replace("\n", " · ") for text in captions]}, hide_index=True)
        return
    pixels_NHWC = np.asarray(images.store[train.store_split].images_NHWC[train.rows_N])
    thumbnails(pixels_NHWC, captions, revision=f"{run_id}.{vector_D.tobytes()[:16].hex()}", key=key)


def _captions(train: SplitVectors, similarities_k: np.ndarray, names: tuple[str, ...], doubts: dict[int, str]) -> list[str]:
    texts = []
    for row, label, similarity in zip(train.rows_N, train.labels_N, similarities_k, strict=True):
        doubt = doubts.get(int(row))
        texts.append(f"{names[label]}\nalike {similarity:.2f}" + (f"\ndoubted: {doubt}?" if doubt else ""))
    return texts


def _about_doubts(doubts: dict[int, str] | None) -> str:
    if doubts is None:
        return "Alike: cosine of their embeddings, 1 at most. Whether their labels are right, an audit says: Explore, Suspicious data."
    number = {0: "No label of these is", 1: "One label of these is"}.get(len(doubts), f"{len(doubts)} labels of these are")
    return f"Alike: cosine of their embeddings, 1 at most. {number} doubted by the audit of the data."
