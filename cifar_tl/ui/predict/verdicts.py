"""What an answer comes to: sure, unsure, or a picture unlike all that the run has learned from. And in which order to look. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cifar_tl.answers import Answer
from cifar_tl.ui.state import Picture

TOP = 5
Table = dict[str, list[Any]]


class Verdict(StrEnum):
    SURE = "Sure"
    UNSURE = "Unsure"
    NONE_OF_THESE = "None of these?"


class Order(StrEnum):
    AS_DROPPED = "As dropped"
    UNSURE_FIRST = "Least sure first"
    SURE_FIRST = "Surest first"
    DISAGREEING_FIRST = "Disagreeing first"


@dataclass(frozen=True)
class Limits:
    """Fractions. `sure`: probability from which an answer counts as sure. `familiar`: share of dev images that may be called none of these."""

    sure: float
    familiar: float


def verdict(answer: Answer, limits: Limits) -> Verdict:
    if answer.familiarity is not None and answer.familiarity < limits.familiar:
        return Verdict.NONE_OF_THESE
    return Verdict.SURE if answer.classes and answer.classes[0].probability >= limits.sure else Verdict.UNSURE


def unlikeness_in_words(familiarity: float) -> str:
    """How rare a picture as unlike the training images is among dev images."""
    if familiarity <= 0:
        return "More unlike the training images than any dev image"
    return f"Only {100 * familiarity:.1f} % of dev images are as unlike the training images"


def answered(pictures: Sequence[Picture], run_ids: Sequence[str]) -> list[Picture]:
    """Those of which every one of these runs has said something."""
    return [picture for picture in pictures if all(run_id in picture.answers for run_id in run_ids) and not _error(picture, run_ids)]


def ordered(pictures: Sequence[Picture], run_ids: Sequence[str], order: Order) -> list[Picture]:
    """All of them answered by these runs. Equal ones stay as they were dropped."""
    if order is Order.AS_DROPPED:
        return list(pictures)
    if order is Order.DISAGREEING_FIRST:
        return sorted(pictures, key=lambda picture: len({_best(picture, run_id)[0] for run_id in run_ids}), reverse=True)
    return sorted(pictures, key=lambda picture: _best(picture, run_ids[0])[1], reverse=order is Order.SURE_FIRST)


def failures(pictures: Sequence[Picture], run_ids: Sequence[str]) -> dict[str, list[str]]:
    """Names by reason: damaged weights or a dead process are told once, not for each picture."""
    names: dict[str, list[str]] = {}
    for picture in pictures:
        if reason := _error(picture, run_ids):
            names.setdefault(reason, []).append(picture.name)
    return names


def _error(picture: Picture, run_ids: Sequence[str]) -> str:
    return picture.error or next(
        (picture.answers[run_id].error for run_id in run_ids if run_id in picture.answers and picture.answers[run_id].error), ""
    )


def _best(picture: Picture, run_id: str) -> tuple[str, float]:
    classes = picture.answers[run_id].classes
    return (classes[0].class_name, classes[0].probability) if classes else ("", 0.0)


def table(pictures: Sequence[Picture], run_ids: Sequence[str], limits: Limits) -> Table:
    """For a spreadsheet: a row for each picture and run, those that could not be answered too."""
    ranks = range(1, TOP + 1)
    names = ("file", "true class", "run", "verdict", *(f"{what} {rank}" for rank in ranks for what in ("class", "probability")))
    found: Table = {name: [] for name in (*names, "superclass", "superclass probability", "familiarity", "problem")}
    for picture in pictures:
        for run_id in run_ids:
            answer = picture.answers.get(run_id, Answer(picture.name, error=picture.error))
            for name, value in zip(found, _row(picture, run_id, answer, limits), strict=True):
                found[name].append(value)
    return found


def _row(picture: Picture, run_id: str, answer: Answer, limits: Limits) -> list[Any]:
    classes: list[Any] = [value for ranked in answer.classes[:TOP] for value in (ranked.class_name, round(ranked.probability, 6))]
    group = answer.superclasses[0] if answer.superclasses else None
    return [
        picture.name,
        picture.true_class,
        run_id,
        "" if answer.error else str(verdict(answer, limits)),
        *classes,
        *[""] * (2 * TOP - len(classes)),
        group.superclass_name if group else "",
        round(group.probability, 6) if group else "",
        "" if answer.familiarity is None else round(answer.familiarity, 4),
        answer.error,
    ]
