"""Map: test images, and a sample of training images, laid out by how alike they are to the model, beside the images that a lasso goes around.

The map comes by itself after a run: by PCA at once, by t-SNE about a minute later. For runs that have none it can be asked for here.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import streamlit as st

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.embeddings import LEAST_FOR_TSNE, TSNE, EmbeddingMap
from cifar_tl.runs.hold import is_being_described
from cifar_tl.runs.store import find_run
from cifar_tl.ui import cached_evaluation
from cifar_tl.ui.cached_evaluation import Explored, evaluated_splits, map_of, map_pictures
from cifar_tl.ui.charts.embedding_map import HEIGHT, map_chart
from cifar_tl.ui.charts.map_groups import ColourBy
from cifar_tl.ui.charts.map_points import UNKNOWN, MapPoints, card_texts, map_points
from cifar_tl.ui.explore.parts import VIEW_COLUMNS
from cifar_tl.ui.explore.preparing import ask_for_map, wait_for_map
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.live_plot import Cards, live_plot
from cifar_tl.ui.picture_sheet import address
from cifar_tl.ui.widgets import page_boundary, plain

_MOST_NAMED_BELOW = 3  # classes, in the line above the chosen images
_SPLIT_WORDS = {"test": "Test", "train": "Train"}
_CARD_PIXELS = 96


@st.fragment
@page_boundary()  # a fragment's rerun does not pass through the page's own
def show_map(explored: Explored) -> None:
    drawn = map_of(explored.run_id)
    if drawn is None:
        _none_yet(explored)
        return
    answers = _answers(explored, drawn)
    points = map_points(drawn, {name: of_split.evaluation for name, of_split in answers.items()})
    colour_by, is_shown_N, highlighted = _controls(explored, drawn, points)
    left, right = st.columns(VIEW_COLUMNS, gap="medium")
    with left:
        selected = _plot(explored, drawn, points, colour_by, is_shown_N, highlighted)
        _how_drawn(explored, drawn, points)
    with right:
        _images(explored, answers, points, is_shown_N, selected, highlighted)


def _answers(explored: Explored, drawn: EmbeddingMap) -> dict[str, Explored]:
    """The evaluations of the splits on the map, as far as there are any that can be read."""
    found = {}
    for split in set(drawn.splits) & set(evaluated_splits(explored.run_id)):
        try:
            found[split] = explored if split == explored.split else cached_evaluation.explored(explored.run_id, split)
        except (RunInvalid, FileNotFoundError):
            continue  # its points are shown without answers
    return found


def _controls(explored: Explored, drawn: EmbeddingMap, points: MapPoints) -> tuple[ColourBy, np.ndarray, int | None]:
    """(colours, which points, the class that is highlighted)"""
    names = explored.class_names
    kinds = [kind for kind in ColourBy if kind is not ColourBy.SUPERCLASS or explored.manifest.superclass_names]
    splits = [split for split in _SPLIT_WORDS if split in drawn.splits]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        default = ColourBy.SUPERCLASS if ColourBy.SUPERCLASS in kinds else ColourBy.CLASS
        colour_by = st.segmented_control("Colour", kinds, default=default, required=True, key="map.colour")
        shown = st.segmented_control(
            "Images",
            splits,
            format_func=_SPLIT_WORDS.__getitem__,
            selection_mode="multi",
            default=[explored.split] if explored.split in splits else splits[:1],
            key=f"map.images.{explored.split}",
            help="Test images are dots, training images rings.",
        )
        chosen = st.selectbox("Highlight", sorted(names), index=None, placeholder="No class", key="map.class", width=180)
    is_shown_N = np.isin(points.is_train_N, [split == "train" for split in shown])
    return ColourBy(colour_by), is_shown_N, names.index(chosen) if chosen in names else None


def _plot(
    explored: Explored, drawn: EmbeddingMap, points: MapPoints, colour_by: ColourBy, is_shown_N: np.ndarray, highlighted: int | None
) -> list[int]:
    """Draws the map; returns the numbers of the points that are selected."""
    key = f"map.{explored.run_id}.{drawn.method}"  # points of another map are elsewhere
    before = _known(st.session_state.get(key), points)
    manifest = explored.manifest
    chart = map_chart(
        points,
        explored.class_names,
        (manifest.superclass_names, manifest.superclass_of_class),
        colour_by=colour_by,
        is_shown_N=is_shown_N,
        highlighted=highlighted,
        chosen=before[0] if len(before) == 1 and is_shown_N[before[0]] else None,
    )
    state = live_plot(
        chart.traces, chart.layout, revision=key, key=key, description=chart.description, height=HEIGHT, is_map=True,
        cards=_cards(explored, drawn, points),
    )  # fmt: skip
    return _known(state, points)


def _known(state: Mapping[str, object] | None, points: MapPoints) -> list[int]:
    """The selected points that are on the map; the browser may tell anything."""
    selected = state.get("selected") if state else None
    if not isinstance(selected, list):
        return []
    return [number for number in selected if isinstance(number, int) and 0 <= number < len(points)]


def _cards(explored: Explored, drawn: EmbeddingMap, points: MapPoints) -> Cards:
    texts = card_texts(points, explored.class_names)
    sheet = map_pictures(drawn, explored.images)
    if sheet is None:
        return Cards(texts)
    pixels = max(_CARD_PIXELS, sheet.tile) // sheet.tile * sheet.tile  # whole factors: every stored pixel is equally large
    return Cards(texts, address(sheet, f"map.{explored.run_id}"), sheet.columns, sheet.rows, pixels, is_pixelated=pixels > sheet.tile)


def _how_drawn(explored: Explored, drawn: EmbeddingMap, points: MapPoints) -> None:
    if explored.split not in drawn.splits:
        st.caption(f"{explored.split.capitalize()} images are not on the map.")
    counts = " and ".join(f"{len(split):,} {'training' if name == 'train' else name}" for name, split in drawn.splits.items())
    if drawn.method == TSNE:
        st.caption(
            f"t-SNE of {counts} images. Images that look alike to the model lie near each other; "
            "how far apart groups are, and how large, means little."
        )
        return
    st.caption(f"The first two principal components (PCA) of {counts} images.")
    if is_being_described(find_run(explored.run_id)):
        st.caption(":material/hourglass_top: t-SNE is being computed, and replaces this map by itself.")
        wait_for_map(explored.run_id)
    elif len(points) >= LEAST_FOR_TSNE:
        ask_for_map(explored.run_id, "Draw it by t-SNE")


def _images(
    explored: Explored,
    answers: Mapping[str, Explored],
    points: MapPoints,
    is_shown_N: np.ndarray,
    selected: list[int],
    highlighted: int | None,
) -> None:
    """Those that are selected or, without a selection, those of the highlighted class."""
    chosen = np.array(selected, np.int64)
    if not len(chosen) and highlighted is not None:
        chosen = np.flatnonzero(points.labels_N == highlighted)
    chosen = chosen[is_shown_N[chosen]]
    if not len(chosen):
        st.caption(
            "Draw around points to see their images; click a point for one. The wheel zooms, and the buttons above the map choose "
            "lasso, box or moving the map."
        )
        return
    st.markdown(_in_words(points, chosen, explored.class_names))
    members_of = {split: _answered(points, chosen, is_train=split == "train") for split in sorted(answers)}
    for split, members in members_of.items():
        if len(members):
            if all(map(len, members_of.values())) and len(members_of) > 1:
                st.caption(f"{_SPLIT_WORDS[split]} images")
            selection = f"map.{hash(tuple(members.tolist()))}"
            show_gallery(answers[split], points.positions_N[members], selection=selection, key=f"map.images.{split}.gallery")
    unanswered = int((points.positions_N[chosen] == UNKNOWN).sum())
    if unanswered:
        st.caption(f"{unanswered:,} of them have no answer in this run's folder, so they are not shown here.")


def _answered(points: MapPoints, chosen: np.ndarray, *, is_train: bool) -> np.ndarray:
    """Those of one split that have an answer, most confident first."""
    members = chosen[(points.is_train_N[chosen] == is_train) & (points.positions_N[chosen] != UNKNOWN)]
    return members[np.argsort(-points.confidences_N[members], kind="stable")]


def _in_words(points: MapPoints, chosen: np.ndarray, class_names: tuple[str, ...]) -> str:
    if len(chosen) == 1:
        return f"**1 image** of {plain(class_names[points.labels_N[chosen[0]]])}"
    commonest = Counter(points.labels_N[chosen].tolist()).most_common()
    named = ", ".join(f"{plain(class_names[label])} ({times:,})" for label, times in commonest[:_MOST_NAMED_BELOW])
    more = f" and {len(commonest) - _MOST_NAMED_BELOW} more classes" if len(commonest) > _MOST_NAMED_BELOW else ""
    wrong = f"{int(points.is_wrong_N[chosen].sum()):,} of them taken for something else"
    if len(commonest) == 1:
        return f"**{len(chosen):,} images** of {plain(class_names[commonest[0][0]])}, {wrong}"
    return f"**{len(chosen):,} images**, {wrong}: {named}{more}"


def _none_yet(explored: Explored) -> None:
    if is_being_described(find_run(explored.run_id)):
        st.info("The map is being prepared and appears here by itself.", icon=":material/hourglass_top:")
        wait_for_map(explored.run_id)
        return
    with st.container(border=True):
        st.markdown("**No map yet**")
        st.markdown(
            "The map lays out images by how alike they are to the model. It takes a pass over the training images, and a minute to draw."
        )
        ask_for_map(explored.run_id, "Prepare the map")
