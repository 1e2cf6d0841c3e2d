"""A training loss that runs away, in words: worse than guessing is no matter of patience. Pure; the live view shows the note."""

import math
from collections.abc import Sequence

from cifar_tl.runs.events import Step

# Guessing all classes alike costs ln(C) nats; early steps with a new head may exceed that a little, twice that they do not.
TIMES_WORSE_THAN_GUESSING = 2.0
# Single batches jump; this many logged steps in a row do not.
LOGGED_STEPS = 3


def divergence_note(steps: Sequence[Step], *, num_classes: int, learning_rate: float) -> str | None:
    """None unless the latest logged losses are all far worse than guessing."""
    latest = steps[-LOGGED_STEPS:]
    guessing = math.log(max(2, num_classes))
    if len(latest) < LOGGED_STEPS or min(step.loss for step in latest) < TIMES_WORSE_THAN_GUESSING * guessing:
        return None
    return (
        f"The loss runs away: it is {latest[-1].loss:.1f} nats now, where guessing would cost {guessing:.1f}. "
        f"Stop this run and start one with a lower learning rate, such as {learning_rate / 10:g} instead of {learning_rate:g}."
    )
