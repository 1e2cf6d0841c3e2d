"""The note on picking by test: order statistics against published values, and its words on hand-made runs."""

import math

import numpy as np
import pytest

from cifar_tl.ui.picking import Contender, PickingNote, expected_largest, picking_note


def run(run_id: str, test: float, dev: float | None) -> Contender:
    return Contender(run_id, f"run {run_id}", test, dev)


def note_of(shown: str, *runs: Contender, images: int = 10_000) -> PickingNote:
    note = picking_note(shown, runs, images)
    assert note is not None
    return note


# Harter, Expected values of normal order statistics, Biometrika 48 (1961).
@pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (2, 0.56419), (3, 0.84628), (5, 1.16296), (10, 1.53875), (100, 2.50759)])
def test_the_expected_largest_of_normal_draws_equals_the_published_values(count: int, expected: float):
    assert expected_largest(count) == pytest.approx(expected, abs=1e-4)


def test_a_single_run_cannot_be_picked():
    assert picking_note("a", [run("a", 0.7, 0.7)], 10_000) is None


def test_the_optimism_of_equal_runs_is_what_a_simulation_of_picking_gives():
    note = note_of("a", *[run(str(i), 0.7, 0.7) for i in range(8)], images=1000)
    hits = np.random.default_rng(0).binomial(1000, 0.7, (20_000, 8))
    assert note.optimism == pytest.approx(hits.max(1).mean() / 1000 - 0.7, rel=0.05)
    assert "8 runs have been tested on these 1,000 images, all of them equally good within chance" in note.finding


def test_runs_that_are_clearly_worse_do_not_count_as_rivals():
    note = note_of("a", run("a", 0.70, 0.7), run("b", 0.699, 0.7), run("c", 0.4, 0.4), run("d", 0.1, 0.1))
    assert "4 runs" in note.finding
    assert "2 of them equally good" in note.finding
    assert note.optimism == pytest.approx(0.5642 * math.sqrt(0.7 * 0.3 / 10_000), rel=0.01)


def test_only_the_best_of_rivals_is_flattered():
    runs = (run("a", 0.72, 0.73), run("b", 0.715, 0.70))
    assert note_of("a", *runs).is_flattered
    assert not note_of("b", *runs).is_flattered
    assert not note_of("c", run("c", 0.9, 0.9), *runs).is_flattered


def test_a_best_run_that_is_clearly_ahead_is_hardly_flattered():
    note = note_of("a", run("a", 0.8, 0.8), run("b", 0.5, 0.5))
    assert note.optimism == 0
    assert "flatters it little" in note.finding


def test_runs_without_a_mistake_still_have_a_standard_error():
    assert note_of("a", run("a", 1.0, 1.0), run("b", 1.0, 1.0), images=100).optimism > 0


def test_where_test_and_dev_agree_nothing_is_said_about_it():
    note = note_of("a", run("a", 0.72, 0.73), run("b", 0.71, 0.70))
    assert not note.is_picked_by_test
    assert "by dev" not in note.finding


def test_the_best_on_test_that_is_not_the_best_on_dev_is_warned_of():
    runs = (run("a", 0.72, 0.70), run("b", 0.71, 0.73))
    note = note_of("a", *runs)
    assert note.is_picked_by_test
    assert "By test that is **run a** (72.0 %), but by dev **run b** (73.0 %)." in note.finding
    assert not note_of("b", *runs).is_picked_by_test


def test_runs_that_share_the_best_dev_accuracy_do_not_disagree():
    assert "by dev" not in note_of("a", run("a", 0.72, 0.73), run("b", 0.71, 0.73)).finding


def test_runs_without_a_dev_accuracy_do_not_disagree():
    assert "by dev" not in note_of("a", run("a", 0.72, None), run("b", 0.71, None)).finding


def test_a_name_with_markdown_in_it_shows_as_it_is():
    runs = (Contender("a", "*a*", 0.72, 0.70), Contender("b", "$b$", 0.71, 0.73))
    assert r"**\*a\*** (72.0 %)" in note_of("a", *runs).finding
