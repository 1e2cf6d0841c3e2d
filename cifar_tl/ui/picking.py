"""When test has been used to pick, in words: several runs are tested on the same images, and the best of them looks better than it is.

Pure functions of the runs' accuracies; the Trust view shows the note, nothing here draws or reads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cifar_tl.ui.widgets import format_percent, plain

# Two equally good runs differ by no more than this many standard errors 95 times in 100: 1.96 of their difference, which is
# sqrt(2) times as uncertain as either.
_RIVAL_STANDARD_ERRORS = 1.96 * math.sqrt(2)
_GRID = np.linspace(0, 8, 2_001)


@dataclass(frozen=True)
class Contender:
    """A run that has been tested; `label` is its name as a person or a file wrote it. Accuracies are fractions."""

    run_id: str
    label: str
    test_accuracy: float
    best_dev_accuracy: float | None


@dataclass(frozen=True)
class PickingNote:
    """`optimism` is how much test flatters the best run at most, as a fraction. Sentences are safe for Markdown.

    `is_flattered`: the run that is shown is the best on test, by no more than chance. `is_picked_by_test`: it is the best on test
    while another is better on dev, so test alone speaks for it.
    """

    optimism: float
    is_flattered: bool
    is_picked_by_test: bool
    finding: str
    advice: str


def picking_note(shown_run_id: str, runs: Sequence[Contender], test_images: int) -> PickingNote | None:
    """The note for one of several runs that were tested on the same images; None for fewer than two."""
    if len(runs) < 2 or not test_images:
        return None
    best = max(runs, key=lambda run: run.test_accuracy)
    error = _standard_error(best.test_accuracy, test_images)
    rivals = sum(run.test_accuracy >= best.test_accuracy - _RIVAL_STANDARD_ERRORS * error for run in runs)
    optimism = expected_largest(rivals) * error
    equals = "" if rivals == 1 else f", {'all' if rivals == len(runs) else rivals} of them equally good within chance"
    finding = f"{len(runs)} runs have been tested on these {test_images:,} images{equals}. {_flattery(rivals, error, optimism)}"
    by_dev = _best_by_dev(runs)
    disagree = bool(by_dev) and best not in by_dev
    if disagree:
        finding += f" {_disagreement(best, by_dev[0])}"
    advice = "Pick by dev, and let test only report on the run that was picked."
    is_best = shown_run_id == best.run_id
    return PickingNote(optimism, is_best and rivals > 1, is_best and disagree, finding, advice)


def expected_largest(count: int) -> float:
    """Mean of the largest of `count` independent standard normal numbers: 0, 0.56, 0.85, 1.03, 1.16 for 1 to 5.

    The integral over x > 0 of 1 - F(x)^n - (1 - F(x))^n, with F the normal distribution (David, Order statistics, 1970).
    """
    normal_G = np.array([NormalDist().cdf(x) for x in _GRID])
    return float(np.trapezoid(1 - normal_G**count - (1 - normal_G) ** count, _GRID))


def _standard_error(accuracy: float, images: int) -> float:
    """Of an accuracy on so many images; with two hits and two misses added (Agresti and Coull 1998), so that 100 % has one too."""
    p = (accuracy * images + 2) / (images + 4)
    return math.sqrt(p * (1 - p) / images)


def _flattery(rivals: int, error: float, optimism: float) -> str:
    if rivals == 1:
        return "The best is ahead by more than chance, so picking it by its test accuracy flatters it little."
    return (
        "Picking the best by its test accuracy flatters that number, by up to about "
        f"{100 * optimism:.1f} points: the expected largest of {rivals} draws, {expected_largest(rivals):.2f} standard errors "
        f"√(p (1 − p) / n) of {100 * error:.2f} points."
    )


def _best_by_dev(runs: Sequence[Contender]) -> list[Contender]:
    measured = [run for run in runs if run.best_dev_accuracy is not None]
    highest = max((run.best_dev_accuracy or 0.0 for run in measured), default=0.0)
    return [run for run in measured if run.best_dev_accuracy == highest]


def _disagreement(best: Contender, by_dev: Contender) -> str:
    return (
        f"By test that is **{plain(best.label)}** ({format_percent(best.test_accuracy)}), but by dev "
        f"**{plain(by_dev.label)}** ({format_percent(by_dev.best_dev_accuracy)})."
    )
