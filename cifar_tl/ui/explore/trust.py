"""Trust: whether a run is as sure as it is right, what it gains by keeping silent when unsure, and what flatters its accuracy."""

import numpy as np
import streamlit as st

from cifar_tl.evaluation.analysis import Proportion, accuracy
from cifar_tl.evaluation.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, Reliability
from cifar_tl.evaluation.coverage import accuracy_without
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.cached_trust import Trust, contenders, trust_of
from cifar_tl.ui.charts.trust import reliability_chart
from cifar_tl.ui.explore.coverage import show_coverage
from cifar_tl.ui.explore.parts import Table, csv_button, num_images
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.picking import PickingNote, picking_note
from cifar_tl.ui.widgets import Metric, format_percent, metric_row, page_boundary

_HEIGHT = 430
_WHAT_FLATTERS = {
    "dev": "These are the dev images it was fitted on, and by which the best epoch was chosen: the numbers here are slightly flattered.",
    "train": "The model has learned from these images, so it is more often right here, and surer, than on new ones.",
}


@st.fragment
@page_boundary()
def show_trust(explored: Explored, duplicates: np.ndarray | None = None) -> None:
    """The view, below the page's own accuracy. `duplicates` are positions of images that are in train too; None where nobody looked."""
    trust = trust_of(explored)
    metric_row(_headline(explored, trust, duplicates))
    st.caption(_about_temperature(explored, trust))
    note = picking_note(explored.run_id, contenders(explored), len(explored.evaluation)) if explored.split == "test" else None
    concerns_this_run = note is not None and (note.is_flattered or note.is_picked_by_test)
    if note is not None and concerns_this_run:
        _show_picking(note)
    left, right = st.columns(2, gap="medium")
    with left:
        _show_reliability(explored, trust)
    with right:
        show_coverage(explored, trust)
    if note is not None and not concerns_this_run:
        _show_picking(note)


def _headline(explored: Explored, trust: Trust, duplicates: np.ndarray | None) -> list[Metric]:
    metrics = [_excess_metric(trust.before.bins), _error_metric("Calibration error", trust.before.bins, "as trained")]
    if trust.after is not None:
        metrics.append(_error_metric("After temperature scaling", trust.after.bins, f"with temperature {trust.temperature:.2f}"))
    if duplicates is not None:
        left = accuracy_without(explored.evaluation, duplicates)
        whole = accuracy(explored.evaluation)
        metrics.append(
            Metric(
                "Accuracy without duplicates",
                format_percent(left.fraction),
                _interval(left.interval),
                f"{format_percent(whole.fraction)} with them. Left out: {num_images(whole.total - left.total)} nearly the same as an "
                "image in train, which the model may have learned by heart.",
            )
        )
    return metrics


def _excess_metric(bins: Reliability) -> Metric:
    """Too sure or not sure enough, and by how much, as a card whose label is the verdict."""
    low, high = bins.excess_interval
    verdict = "Too sure by" if low > 0 else "Not sure enough by" if high < 0 else "As sure as right, within"
    ends = sorted((-low, -high)) if high < 0 else [low, high]
    return Metric(
        verdict,
        f"{100 * abs(bins.excess):.1f} points",
        f"95 % interval: {100 * ends[0]:.1f} to {100 * ends[1]:.1f}",
        f"On average it is {format_percent(bins.mean_confidence)} sure, and it is right in {format_percent(bins.accuracy.fraction)} of "
        "the images. Its confidence is the probability that it gives to its answer.",
    )


def _error_metric(label: str, bins: Reliability, when: str) -> Metric:
    return Metric(
        label,
        format_percent(bins.expected_error),
        _interval(bins.error_interval),
        f"Expected calibration error (ECE) {when}: how far confidence and accuracy are apart, on average over {len(bins.counts_B)} bins of "
        f"confidence. On {num_images(bins.total)}, a model whose confidence is exact would show about "
        f"{format_percent(bins.error_by_chance)} by chance.",
    )


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"95 % interval: {100 * low:.1f} to {100 * high:.1f} %"


def _about_temperature(explored: Explored, trust: Trust) -> str:
    """What was fitted, on what, what it does, and what the numbers of this split must not be taken for."""
    if trust.temperature is None or trust.after is None:
        return "There is no temperature: it is fitted on dev images, never on test, and this run has no evaluation of its dev images."
    text = f"Temperature {trust.temperature:.2f}, fitted on dev, never on test: "
    if f"{trust.temperature:.2f}" == "1.00":
        text += "none would make its confidence better."
    else:
        text += (
            f"dividing the model's logits by it makes the model {'less' if trust.temperature > 1 else 'more'} sure, "
            f"{format_percent(trust.after.bins.mean_confidence)} on average. Its answers stay the same."
        )
    if trust.temperature in (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE):
        text += " That is the end of the range that is tried: the dev images do not tell where it should be."
    return f"{text} {_WHAT_FLATTERS.get(explored.split, '')}".rstrip()


def _show_picking(note: PickingNote) -> None:
    show = st.warning if note.is_picked_by_test else st.info
    show(f"{note.finding} {note.advice}", icon=":material/warning:" if note.is_picked_by_test else ":material/rule:")


def _show_reliability(explored: Explored, trust: Trust) -> None:
    st.subheader("Is it as sure as it is right?", anchor=False)
    after = None if trust.after is None else trust.after.bins
    chart = reliability_chart(trust.before.bins, after)
    key = f"trust.reliability.{explored.run_id}.{explored.split}"
    live_plot(chart.traces, chart.layout, revision=key, key=key, description=chart.description, height=_HEIGHT)
    st.caption(
        "Images are put into bins by how sure the model was. On the dashed line, of the images it is 70 % sure of, 70 % are right. "
        "Whiskers are 95 % intervals: few images, long whiskers."
    )
    st.caption(_other_scores(trust))
    if trust.temperature is None:
        st.caption("To see what a temperature would do, evaluate the dev images:")
        st.code(f"python -m cifar_tl evaluate {explored.run_id} --split dev", language="shell")
    csv_button(lambda: reliability_table(trust), f"{explored.run_id}-{explored.split}-reliability")


def _other_scores(trust: Trust) -> str:
    before, after = trust.before, trust.after
    scaled_nll, scaled_brier = ("", "") if after is None else (f" ({after.nll:.3f} after scaling)", f" ({after.brier:.3f})")
    return (
        f"Negative log likelihood {before.nll:.3f} nats{scaled_nll}, Brier score {before.brier:.3f}{scaled_brier}: less is better in both."
    )


def reliability_table(trust: Trust) -> Table:
    """The bins of the diagram, before and after scaling."""
    table: Table = {
        name: [] for name in ("Temperature", "Surer than", "Up to", "Images", "Right", "Mean confidence", "Accuracy", "Low", "High")
    }
    for temperature, measured in ((1.0, trust.before), (trust.temperature, trust.after)):
        if measured is None:
            continue
        bins = measured.bins
        for b in range(len(bins.counts_B)):
            share = Proportion(int(bins.hits_B[b]), int(bins.counts_B[b]))
            values = (temperature, bins.edges[b], bins.edges[b + 1], share.total, share.hits, bins.mean_confidences_B[b], share.fraction)
            for name, value in zip(table, (*values, *share.interval), strict=True):
                table[name].append(value)
    return table
