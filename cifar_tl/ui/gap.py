"""The generalisation gap in words: how far train accuracy is above dev accuracy, where it is going, and what to do.

Pure functions of the epochs and the settings; the live view shows the note, nothing here draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_tl.config import RunConfig
from cifar_tl.runs.events import Epoch
from cifar_tl.ui.widgets import format_percent

# Below this a gap is nothing to act on: well-trained models differ by a few points.
OPEN_GAP = 0.05
# A gap must also exceed what two samples of this size differ by through chance alone (two standard errors, 95 %).
STANDARD_ERRORS = 2.0
# Dev accuracy is compared with its best over this many epochs, since single epochs jump up and down.
PATIENCE_EPOCHS = 2


@dataclass(frozen=True)
class GapNote:
    """`is_harmful`: dev accuracy no longer rises while the gap is open. Sentences are complete and may be shown as they are."""

    gap: float
    is_harmful: bool
    finding: str
    advice: str


def gap_note(epochs: Sequence[Epoch], config: RunConfig, *, dev_images: int) -> GapNote | None:
    """The note on the latest epoch; None while there is no gap worth a word. `dev_images` sizes the uncertainty."""
    if not epochs:
        return None
    latest = epochs[-1]
    gap = latest.train_accuracy - latest.dev_accuracy
    if gap < max(OPEN_GAP, STANDARD_ERRORS * _standard_error(latest, dev_images)):
        return None
    best = max(epochs, key=lambda epoch: epoch.dev_accuracy)
    is_harmful = latest.epoch - best.epoch >= PATIENCE_EPOCHS
    finding = (
        f"The gap is open: {format_percent(latest.train_accuracy)} on train, {format_percent(latest.dev_accuracy)} on dev, {gap * 100:.1f} points apart{_trend(epochs)}. "
        + _dev_course(epochs, best, is_harmful=is_harmful, is_over=latest.epoch >= config.epochs)
    )
    may_stop = is_harmful and latest.epoch < config.epochs
    return GapNote(gap, is_harmful, finding, _advice(config, may_stop=may_stop))


def _standard_error(epoch: Epoch, dev_images: int) -> float:
    """Of the difference of the two accuracies, as independent binomial proportions."""
    variance = sum(
        p * (1 - p) / max(1, n) for p, n in ((epoch.train_accuracy, epoch.train_images_measured), (epoch.dev_accuracy, dev_images))
    )
    return math.sqrt(variance)


def _trend(epochs: Sequence[Epoch]) -> str:
    if len(epochs) < 2:
        return ""
    before, now = (epoch.train_accuracy - epoch.dev_accuracy for epoch in (epochs[-2], epochs[-1]))
    if now - before > 0.01:
        return f" and growing (it was {before * 100:.1f} one epoch ago)"
    if before - now > 0.01:
        return f" and closing (it was {before * 100:.1f} one epoch ago)"
    return " and steady"


def _dev_course(epochs: Sequence[Epoch], best: Epoch, *, is_harmful: bool, is_over: bool) -> str:
    if is_harmful:
        return f"Dev accuracy has not risen since epoch {best.epoch} ({format_percent(best.dev_accuracy)}): the model now memorises its training images."
    if len(epochs) > 1 and best.epoch == epochs[-1].epoch:
        return "Dev accuracy still rose at the end: training longer may help." if is_over else "Dev accuracy still rises."
    return "Too early to say whether dev accuracy has stopped rising."


def _advice(config: RunConfig, *, may_stop: bool) -> str:
    remedies = []
    if not config.trivial_augment:
        remedies.append("switch on TrivialAugment")
    if config.mixup == 0 and config.cutmix == 0:
        remedies.append("add Mixup (0.2) or CutMix (1)")
    if config.trainable in ("everything", "head_then_everything"):
        remedies.append("train only the last stages")
    elif config.trainable == "last_stages" and config.trainable_stages > 1:
        remedies.append("train fewer stages")
    if config.dropout < 0.3:
        remedies.append("raise dropout")
    if config.images_per_class is not None:
        remedies.append("allow more images per class")
    if not remedies:
        remedies.append("use more training images, or fewer epochs")
    advice = f"For the next run: {', '.join(remedies[:3])}."
    return f"You may stop here; the weights of the best epoch are kept. {advice}" if may_stop else advice
