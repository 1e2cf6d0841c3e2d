"""Verdicts on answers, their order and their table, against cases made by hand."""

import csv
import io

import pytest

from cifar_tl.answers import Answer, RankedClass, RankedSuperclass
from cifar_tl.ui.explore.parts import as_csv
from cifar_tl.ui.predict.verdicts import Answered, Order, Rule, Verdict, as_table, familiarity_in_words, ordered, verdict

RULE = Rule(least_confidence=0.5, least_familiarity=0.01)


def answer(class_name: str, confidence: float, familiarity: float | None = 0.5) -> Answer:
    classes = (RankedClass(class_name, "animals", confidence), RankedClass("rest", "things", 1 - confidence))
    return Answer("file", classes, superclasses=(RankedSuperclass("animals", confidence),), familiarity=familiarity)


def item(number: int, *answers: Answer | None, true_class: str | None = None) -> Answered:
    return Answered(number, f"{number}.png", true_class, answers)


@pytest.mark.parametrize(
    ("confidence", "familiarity", "expected"),
    [
        (0.5, 0.5, Verdict.SURE),
        (0.49, 0.5, Verdict.UNSURE),
        (0.99, 0.009, Verdict.NONE),
        (0.1, 0.009, Verdict.NONE),
        (0.99, 0.01, Verdict.SURE),
        (0.99, None, Verdict.SURE),
    ],
)
def test_unfamiliar_goes_before_unsure_and_bounds_are_not_below_themselves(confidence: float, familiarity: float | None, expected: Verdict):
    assert verdict(answer("otter", confidence, familiarity), RULE) is expected


def test_nothing_is_turned_away_where_the_reader_wants_none_to_be():
    assert verdict(answer("otter", 0.9, 0.0), Rule(0.5, 0.0)) is Verdict.SURE


@pytest.mark.parametrize(
    ("familiarity", "words"),
    [
        (None, ""),
        (0.0, "No dev image is as unlike the training images."),
        (0.0002, "No dev image is as unlike the training images."),
        (0.004, "Only 0.4 % of dev images are as unlike the training images."),
    ],
)
def test_familiarity_is_told_in_words(familiarity: float | None, words: str):
    assert familiarity_in_words(familiarity) == words


def test_runs_disagree_only_where_both_have_answered_differently():
    assert item(0, answer("otter", 0.9), answer("seal", 0.8)).disagrees
    assert not item(0, answer("otter", 0.9), answer("otter", 0.2)).disagrees
    assert not item(0, answer("otter", 0.9), None).disagrees
    assert not item(0, answer("otter", 0.9), Answer("file", error="died")).disagrees


def test_disagreement_first_puts_the_surest_disagreement_first_and_keeps_the_rest():
    items = [
        item(0, answer("otter", 0.99), answer("otter", 0.99)),
        item(1, answer("otter", 0.6), answer("seal", 0.6)),
        item(2, answer("otter", 0.9), answer("seal", 0.9)),
    ]
    assert [each.number for each in ordered(items, Order.DISAGREEING)] == [2, 1, 0]


def test_equal_confidences_stay_as_dropped():
    items = [item(number, answer("otter", 0.7)) for number in (3, 1, 2)]
    for order in Order:
        assert [each.number for each in ordered(items, order)] == [3, 1, 2]


def test_rightness_is_known_only_of_answers_to_pictures_with_a_true_class():
    assert item(0, answer("otter", 0.9), None, answer("seal", 0.9), true_class="otter").is_right_M == (True, None, False)
    assert item(0, answer("otter", 0.9)).is_right_M == (None,)


def test_table_has_a_row_for_each_picture_and_run_and_reads_back_from_csv():
    items = [
        item(0, answer("otter", 0.25, 0.004), answer("seal", 0.9, None), true_class="otter"),
        item(1, Answer("file", error="Damaged."), answer("seal", 0.5)),
        item(2, answer("otter", 1.0), None),
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(as_table(items, ["first", "second"], RULE)))))
    told = [(row["Picture"], row["Run"], row["True class"], row["Class 1"], row["Probability 1 (%)"], row["Verdict"]) for row in rows]
    assert told == [
        ("0.png", "first", "otter", "otter", "25.0", "none of these"),
        ("0.png", "second", "otter", "seal", "90.0", "sure"),
        ("1.png", "first", "", "", "", ""),
        ("1.png", "second", "", "seal", "50.0", "sure"),
        ("2.png", "first", "", "otter", "100.0", "sure"),
    ]
    assert [row["Dev images as unlike (%)"] for row in rows] == ["0.4", "", "", "50.0", "50.0"]
    assert [row["Problem"] for row in rows] == ["", "", "Damaged.", "", ""]
    assert rows[0]["Superclass"] == "animals"
    assert rows[0]["Class 3"] == ""


def test_no_answers_make_an_empty_table():
    assert as_csv(as_table([], ["first"], RULE)).split() == ["Picture"]
