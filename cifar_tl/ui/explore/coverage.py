"""The half of the Trust view that asks what a run gains by answering only when it is sure."""

from dataclasses import dataclass

import streamlit as st

from cifar_tl.evaluation.analysis import Proportion, accuracy
from cifar_tl.ui.cached_evaluation import Explored
from cifar_tl.ui.cached_trust import Trust
from cifar_tl.ui.charts.trust import coverage_chart
from cifar_tl.ui.explore.parts import Table, csv_button, num_images
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.widgets import PERCENT_FORMAT, format_percent, percent

WISHED_ACCURACIES = (0.8, 0.9, 0.95, 0.99)
_FIRST_THRESHOLD = 80  # percent
_HEIGHT = 300


def show_coverage(explored: Explored, trust: Trust) -> None:
    """A slider for the threshold, what it does in words and in the curve, and the thresholds that reach usual accuracies."""
    st.subheader("What if it answers only when sure?", anchor=False)
    threshold = st.slider(
        "Answer only when at least this sure",
        0,
        100,
        _FIRST_THRESHOLD,
        format="%d %%",
        key="trust.threshold",
        help="Confidence as Predict shows it: after temperature scaling, where the run has dev images to fit it on.",
    )
    st.markdown(coverage_in_words(trust.curve.at(threshold / 100), accuracy(explored.evaluation)))
    chart = coverage_chart(trust.curve, threshold / 100)
    key = f"trust.coverage.{explored.run_id}.{explored.split}"
    live_plot(chart.traces, chart.layout, revision=key, key=key, description=chart.description, height=_HEIGHT)
    _show_wishes(explored, trust)
    csv_button(lambda: coverage_table(trust), f"{explored.run_id}-{explored.split}-coverage")


def coverage_in_words(answered: Proportion, everything: Proportion) -> str:
    """How many images are answered, how many of them right, and what silence costs."""
    if not answered.total:
        return f"It answers **none of {num_images(everything.total)}**: it is never that sure."
    low, high = answered.interval
    text = (
        f"It answers **{answered.total:,} of {num_images(everything.total)}** ({format_percent(answered.total / everything.total)}) and is "
        f"right in **{format_percent(answered.fraction)}** of them (95 % interval: {100 * low:.1f} to {100 * high:.1f} %)."
    )
    silent = everything.total - answered.total
    if not silent:
        return text
    lost = everything.hits - answered.hits
    return f"{text} Of the {silent:,} it is silent on, {lost:,} would have been right."


@dataclass(frozen=True)
class _Wish:
    accuracy: float
    threshold: float
    answered: Proportion


def _wishes(trust: Trust) -> list[_Wish]:
    """For each accuracy above that of all images: the threshold that reaches it on dev, and what it does on the split that is shown."""
    chosen_on = trust.dev_curve or trust.curve
    overall = chosen_on.at(0.0).fraction
    wishes = [(wished, chosen_on.threshold_for(wished)) for wished in WISHED_ACCURACIES if wished > overall]
    return [_Wish(wished, threshold, trust.curve.at(threshold)) for wished, threshold in wishes if threshold is not None]


def _show_wishes(explored: Explored, trust: Trust) -> None:
    wishes = _wishes(trust)
    if not wishes:
        return
    shares = {
        "To be right in": [percent(wish.accuracy) for wish in wishes],
        "Be at least this sure": [percent(wish.threshold) for wish in wishes],
        "Answers": [percent(wish.answered.total / trust.curve.total) for wish in wishes],
        "Right in": [percent(wish.answered.fraction) for wish in wishes],
    }
    intervals = ["{:.1f} to {:.1f} %".format(*(100 * end for end in wish.answered.interval)) for wish in wishes]
    st.dataframe(
        shares | {"95 % interval": intervals},
        hide_index=True,
        height="content",
        column_config={name: st.column_config.NumberColumn(format=PERCENT_FORMAT) for name in shares},
        alt="Thresholds for wished accuracies",
    )
    if trust.dev_curve is not None and explored.split != "dev":
        st.caption(f"These thresholds were chosen on dev and then tried on {explored.split}.")
    else:
        st.caption("These thresholds were chosen and tried on the same images, which flatters them slightly.")


def coverage_table(trust: Trust) -> Table:
    """Every threshold of the curve, with 95 % intervals."""
    curve = trust.curve
    answers = [Proportion(int(hits), int(answered)) for hits, answered in zip(curve.hits_M, curve.answered_M, strict=True)]
    return {
        "At least this sure": curve.thresholds_M.tolist(),
        "Images answered": [answer.total for answer in answers],
        "Share answered": [answer.total / curve.total for answer in answers],
        "Right": [answer.hits for answer in answers],
        "Accuracy": [answer.fraction for answer in answers],
        "Low": [answer.interval[0] for answer in answers],
        "High": [answer.interval[1] for answer in answers],
    }
