"""What to make of answers: sure, unsure, or none of the classes; in which order to show them; all of them as a table. Pure functions.

M questions: answers of two runs on the same picture are judged each by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cifar_tl.answers import Answer
from cifar_tl.ui.explore.parts import Table
from cifar_tl.ui.widgets import percent

TOP_CLASSES = 5


class Verdict(StrEnum):
    SURE = "sure"
    UNSURE = "unsure"
    NONE = "none of these"


class Order(StrEnum):
    DROPPED = "As dropped"
    MOST_SURE = "Most confident first"
    LEAST_SURE = "Least confident first"
    DISAGREEING = "Disagreement first"


@dataclass(frozen=True)
class Rule:
    """When an answer is shown as unsure, and when a picture counts as none of the classes.

    `least_confidence`: of the likeliest class. `least_familiarity`: share of dev images that are at least as unlike the training images;
    about that share of pictures of known kinds is turned away wrongly.
    """

    least_confidence: float
    least_familiarity: float


@dataclass(frozen=True)
class Answered:
    """One picture and what each question gave, in their order; None where the answer has not come."""

    number: int
    name: str
    true_class: str | None
    answers_M: tuple[Answer | None, ...]

    @property
    def good_answers(self) -> list[Answer]:
        return [answer for answer in self.answers_M if answer is not None and not answer.error]

    @property
    def is_right_M(self) -> tuple[bool | None, ...]:
        """Of each answer whether it is the true class; None where there is none to compare."""
        known = self.true_class is not None
        return tuple(
            answer.classes[0].class_name == self.true_class if known and answer and answer.classes else None for answer in self.answers_M
        )

    @property
    def disagrees(self) -> bool:
        return len({answer.classes[0].class_name for answer in self.good_answers if answer.classes}) > 1


def confidence(answer: Answer) -> float:
    """Probability of the likeliest class."""
    return answer.classes[0].probability if answer.classes else 0.0


def verdict(answer: Answer, rule: Rule) -> Verdict:
    """Unfamiliar goes before unsure: a model may be very sure of what it has never seen."""
    if answer.familiarity is not None and answer.familiarity < rule.least_familiarity:
        return Verdict.NONE
    return Verdict.UNSURE if confidence(answer) < rule.least_confidence else Verdict.SURE


def familiarity_in_words(familiarity: float | None) -> str:
    """0.004 -> "Only 0.4 % of dev images are as unlike the training images."; empty where nothing is known."""
    if familiarity is None:
        return ""
    if familiarity < 0.0005:
        return "No dev image is as unlike the training images."
    return f"Only {100 * familiarity:.1f} % of dev images are as unlike the training images."


def ordered(items: Sequence[Answered], order: Order) -> list[Answered]:
    """Equal ones stay in the order in which they were dropped. Confidence is the mean of what was answered."""
    if order is Order.DROPPED:
        return list(items)
    sign = 1 if order is Order.LEAST_SURE else -1
    return sorted(items, key=lambda item: (order is Order.DISAGREEING and not item.disagrees, sign * _mean_confidence(item)))


def _mean_confidence(item: Answered) -> float:
    answers = item.good_answers
    return sum(map(confidence, answers)) / len(answers) if answers else 0.0


def as_table(items: Sequence[Answered], run_ids_M: Sequence[str], rule: Rule) -> Table:
    """A row for each picture and run: what a spreadsheet or another program needs. Probabilities in percent."""
    rows = [_row(item, run_id, answer, rule) for item in items for run_id, answer in zip(run_ids_M, item.answers_M, strict=True) if answer]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {"Picture": []}


def _row(item: Answered, run_id: str, answer: Answer, rule: Rule) -> dict[str, object]:
    row: dict[str, object] = {"Picture": item.name, "Run": run_id, "True class": item.true_class or ""}
    for place in range(TOP_CLASSES):
        ranked = answer.classes[place] if place < len(answer.classes) else None
        row[f"Class {place + 1}"] = ranked.class_name if ranked else ""
        row[f"Probability {place + 1} (%)"] = _number(ranked.probability if ranked else None)
    superclass = answer.superclasses[0] if answer.superclasses else None
    row["Superclass"] = superclass.superclass_name if superclass else ""
    row["Superclass probability (%)"] = _number(superclass.probability if superclass else None)
    row["Verdict"] = "" if answer.error else str(verdict(answer, rule))
    row["Dev images as unlike (%)"] = _number(answer.familiarity)
    row["Problem"] = answer.error
    return row


def _number(fraction: float | None) -> float | str:
    value = percent(fraction)
    return "" if value is None else value
