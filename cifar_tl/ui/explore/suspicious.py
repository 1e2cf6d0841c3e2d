"""Suspicious data: labels that are probably wrong, images that are there twice, images unlike all others; and their review, one by one.

What is found belongs to the data and the backbone (`evaluation.suspicion`), so all runs on the same data show the same lists. The list
is in the address (?kind=Duplicates&image=train.5217), so an image can be linked to. Decisions are kept beside the data set
(`data.corrections`); the panel for them is in `review`, the run on corrected data in `train_again`.
"""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from cifar_tl.data.corrections import Corrections, read_corrections
from cifar_tl.errors import DataError
from cifar_tl.evaluation.suspicion.result import TEST, Suspicion
from cifar_tl.evaluation.suspicion.state import AuditStatus, audit_state
from cifar_tl.paths import AuditFolder
from cifar_tl.runs.store import find_run, read_config
from cifar_tl.ui.audits import Audit, audit_in, audit_of, start_audit
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.explore.parts import VIEW_COLUMNS, csv_button
from cifar_tl.ui.explore.review import Listed, pixels_of, show_review
from cifar_tl.ui.explore.suspects import Kind, Shown, Suspect, SuspectList, verdict_on
from cifar_tl.ui.explore.train_again import show_train_again
from cifar_tl.ui.gallery import show_gallery
from cifar_tl.ui.progress import counted_progress
from cifar_tl.ui.thumbnails import thumbnails
from cifar_tl.ui.widgets import format_percent, page_boundary, plain

IMAGE_PARAMETER = "image"  # of the address: ?image=train.5217
PAGE_SIZE = 40
_POLL_SECONDS = 1.0
_GRID_HEIGHT = 560
_TILES_THAT_FIT = 20


@st.fragment
@page_boundary()  # a fragment's rerun does not pass through the page's own
def show_suspicious(explored: Explored) -> None:
    """The view, in whichever state the audit of the run's data is."""
    files = audit_of(explored.run_id, explored.manifest)
    state = audit_state(files)
    if state.status is AuditStatus.WORKING:
        st.fragment(_wait, run_every=_POLL_SECONDS)(files)
    elif state.status is AuditStatus.FAILED:
        _failed(explored, files, state.reason)
    elif state.status is AuditStatus.ABSENT:
        _offer(explored, files)
    else:
        try:
            audit = audit_in(files)
        except (DataError, FileNotFoundError) as error:
            _failed(explored, files, str(error))
            return
        _show(explored, audit)


def _offer(explored: Explored, files: AuditFolder) -> None:
    """Nobody has looked at these data with this backbone yet."""
    backbone = plain(read_config(find_run(explored.run_id)).backbone)
    with st.container(border=True):
        st.markdown(f"**Nobody has looked at {plain(explored.manifest.data_title)} through {backbone} yet**")
        st.markdown(
            "Finds labels that are probably wrong, images that are there twice, also in train and in test, and images unlike all others. "
            f"It runs the pretrained {backbone} once over every image, unless a run of its head has done that already, and then needs about half a "
            "minute for 60,000 images. You may close this page meanwhile. Nothing in the data is changed."
        )
        _start_button("Look for suspicious images", explored.run_id, files)


def _failed(explored: Explored, files: AuditFolder, reason: str) -> None:
    st.error(f"The data could not be looked at: {plain(reason)}", icon=":material/error:")
    _start_button("Try again", explored.run_id, files)


def _start_button(label: str, run_id: str, files: AuditFolder) -> None:
    if st.button(label, icon=":material/search_insights:", type="primary", key="suspicious.start"):
        start_audit(run_id, files)
        st.rerun()


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _wait(files: AuditFolder) -> None:
    state = audit_state(files)
    if state.progress is None:
        st.rerun()  # the whole page, once: it shows what was found, or why nothing was
    now = counted_progress(state.progress.phase, state.progress.done, state.progress.total, state.progress.unit)
    st.progress(now.fraction, text=plain(now.text))
    st.caption("This goes on by itself: you may close this page, reload it, or stop the dashboard.")


def _show(explored: Explored, audit: Audit) -> None:
    corrections = read_corrections(explored.manifest.data_fingerprint)
    listed = _choose(explored, audit.lists, corrections)
    st.caption(_in_words(listed.of.kind, audit.found))
    left, right = st.columns(VIEW_COLUMNS, gap="medium")
    if explored.images.problem:
        with left:
            show_gallery(explored, np.empty(0, np.int64), selection="suspicious", key="suspicious.images")
    elif not len(listed):
        left.caption("No image is here." if listed.shown is not Shown.UNDECIDED else "All of these have been reviewed.")
    else:
        with left:
            listed = _grid(explored, listed, corrections)
        with right:
            show_review(explored, listed, corrections)
    with left:
        file_name = f"{explored.manifest.data_title}-{listed.of.kind}".lower().replace(" ", "-")
        csv_button(lambda: listed.of.table(listed.indices, explored.class_names, corrections), file_name)
    show_train_again(explored, corrections)


def _choose(explored: Explored, lists: dict[Kind, SuspectList], corrections: Corrections) -> Listed:
    """The list that the controls say, and where one is in it. The image in the address leads when a list is opened."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        kind = Kind(st.segmented_control("What", list(Kind), default=Kind.LABELS, required=True, key="kind", bind="query-params"))
        suspects, keys = lists[kind], f"suspicious.{explored.manifest.data_fingerprint}.{kind}"
        groups, asked = suspects.groups, suspects.find(st.query_params.get(IMAGE_PARAMETER, ""))
        if asked is not None and f"{keys}.group" not in st.session_state:
            Listed.want(suspects.at(asked).place.name)
        first_group = "" if not groups else groups[0] if asked is None else groups[int(suspects.group_n[asked])]
        first_shown = Shown.DECIDED if asked is not None and verdict_on(suspects.at(asked), corrections) else Shown.UNDECIDED
        group = _group_choice(suspects, first_group, f"{keys}.group") if groups else ""
        shown = Shown(st.segmented_control("Show", list(Shown), default=first_shown, required=True, key=f"{keys}.shown"))
    indices = suspects.select(group, shown, corrections) if groups else np.empty(0, np.int64)
    return Listed(suspects, group, shown, indices, f"{keys}.{group}.{shown}").at_wanted()


def _group_choice(suspects: SuspectList, first: str, key: str) -> str:
    counts = dict(zip(suspects.groups, np.bincount(suspects.group_n).tolist(), strict=True))
    return str(
        st.segmented_control(
            "Among", suspects.groups, default=first, required=True, key=key, format_func=lambda group: f"{group} ({counts[group]:,})"
        )
    )


def _grid(explored: Explored, listed: Listed, corrections: Corrections) -> Listed:
    """The page of the list that the present image is on; a click on a tile goes there. Returns where that leads."""
    decisions = len(corrections.decisions)
    listed = listed.at_click(PAGE_SIZE, decisions)
    first = listed.at // PAGE_SIZE * PAGE_SIZE
    suspects = [listed.of.at(int(index)) for index in listed.indices[first : first + PAGE_SIZE]]
    captions = [
        _caption(suspect, explored.class_names, corrections, is_present=number == listed.at)
        for number, suspect in enumerate(suspects, first)
    ]
    pixels = pixels_of(explored, [suspect.place for suspect in suspects])
    with st.container(height=_GRID_HEIGHT if len(suspects) > _TILES_THAT_FIT else "content", border=False):
        thumbnails(pixels, captions, revision=listed.revision(PAGE_SIZE, decisions), key=Listed.GRID_KEY)
    if st.query_params.get(IMAGE_PARAMETER) != listed.suspect.place.name:
        st.query_params[IMAGE_PARAMETER] = listed.suspect.place.name
    return listed


def _caption(suspect: Suspect, names: Sequence[str], corrections: Corrections, *, is_present: bool) -> str:
    """Of a tile: the given label, the suggested one or what else is suspicious, and what was decided."""
    verdict = verdict_on(suspect, corrections)
    lines = [
        ("▶ " if is_present else "") + names[suspect.place.label],
        f"→ {names[suspect.suggested]}" if suspect.suggested is not None else suspect.why,
        *([f"✓ {verdict}"] if verdict else []),
    ]
    return "\n".join(lines)


def _in_words(kind: Kind, found: Suspicion) -> str:
    facts = found.facts
    if kind is Kind.LABELS:
        return (
            f"Confident learning, on the frozen features of {plain(facts.backbone)}: a linear model that has not seen these images is as sure of "
            f"another class as it usually is of images of that class. It recognises {format_percent(facts.train_accuracy)} of the images, so it is "
            "often the model that is wrong. The most doubtful come first; look before you change."
        )
    if kind is Kind.DUPLICATES:
        seen, tested = len(found.test_rows_seen_in_training), facts.images[TEST]
        return (
            "Pairs of images with equal pixels, or nearly: cropped a little, mirrored, brightened or compressed again. "
            f"{seen:,} of {tested:,} test images are in train, too; of these a model may remember the answer."
        )
    return (
        "The images, one in a hundred, that are furthest from their ten nearest neighbours in the features. Such a list is never empty: "
        "whether these do not belong, or are merely rare, is for you to see."
    )
