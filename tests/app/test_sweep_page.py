"""The Sweep page: its form, a sweep as it runs and when it is over, and what cannot be."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.paths import PROJECT_ROOT, SweepFolder
from cifar_tl.runs import launcher as run_launcher
from cifar_tl.sweeps import launcher
from cifar_tl.sweeps.space import Choice, Range, parse_dimension
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus, create_sweep, say_last_word, take_lock
from cifar_tl.sweeps.study import REASON, RUN, open_study
from cifar_tl.ui import sweep_form, sweep_view
from tests.app.conftest import NotingPredictor
from tests.made_runs import make_run

SPACE = (parse_dimension("learning_rate=0.001..0.1:log"), parse_dimension("trainable=head,last_stages"))
PAGE = PROJECT_ROOT / "cifar_tl" / "ui" / "pages" / "sweep.py"


def open_page(sweep_id: str = "") -> AppTest:
    page = AppTest.from_file(str(PAGE), default_timeout=30)
    if sweep_id:
        page.query_params["sweep"] = sweep_id
    return page.run()


def shown(page: AppTest) -> str:
    assert not page.exception, page.exception
    kinds = (page.title, page.markdown, page.caption, page.error, page.warning, page.info)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def made_sweep(checkpoints: Path, states: str = "ccpfr", **changes: Any) -> SweepFolder:
    """A sweep whose trials are complete, pruned, failed or running, as `states` says."""
    sweep = Sweep("Which rate?", {"source": "shapes"}, SPACE, trials=9, **changes)
    folder = create_sweep(sweep)
    study = open_study(folder, sweep)
    for number, state in enumerate(states):
        trial = study.ask()
        trial.suggest_float("learning_rate", 0.001, 0.1, log=True)
        trial.suggest_categorical("trainable", ("head", "last_stages"))
        trial.set_user_attr(RUN, make_run(checkpoints, run_id=f"trial-{number}", status="running" if state == "r" else "completed").run_id)
        trial.report(0.5 + number / 100, 1)
        if state == "p":
            trial.set_user_attr(REASON, "The time was over.")
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif state == "f":
            trial.set_user_attr(REASON, "The disk is full.")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif state == "c":
            study.tell(trial, 0.6 + number / 100)
    return folder


def test_the_form_starts_what_was_asked_and_shows_it(
    monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor, checkpoints: Path
) -> None:
    started: list[Sweep] = []
    made = made_sweep(checkpoints)
    monkeypatch.setattr(sweep_form, "start_sweep", lambda sweep: started.append(sweep) or made.sweep_id)
    page = open_page()
    assert "What does not vary is as on the Train page" in shown(page)
    page.multiselect(key="sweep.varies").set_value(["learning_rate", "trainable", "flip"]).run()
    page.multiselect(key="sweep.values.trainable").set_value(["head", "everything"]).run()
    page.number_input(key="sweep.trials").set_value(7).run()
    page.selectbox(key="sweep.pruner").set_value(Pruner.HYPERBAND).run()
    next(button for button in page.button if button.label == "Start sweep").click().run()
    (sweep,) = started
    assert sweep.space == (
        Range("learning_rate", 0.001, 0.1, True),
        Choice("trainable", ("head", "everything")),
        Choice("flip", (False, True)),
    )
    assert (sweep.trials, sweep.pruner, sweep.minutes) == (7, Pruner.HYPERBAND, None)
    assert (sweep.base["evaluate_test"], sweep.base["describe"]) == (False, False)
    assert not {"learning_rate", "trainable", "flip"} & set(sweep.base)
    assert made.sweep_id in page.query_params["sweep"]
    assert "Which rate?" in shown(page)


def test_a_range_that_makes_no_sense_is_said_and_cannot_be_started(predictor: NotingPredictor) -> None:
    page = open_page()
    page.number_input(key="sweep.low.learning_rate").set_value(0.5).run()
    assert "from a smaller to a larger value" in shown(page)
    assert next(button for button in page.button if button.label == "Start sweep").disabled
    page.multiselect(key="sweep.varies").set_value([]).run()
    assert "Choose at least one setting" in shown(page)


def test_a_running_sweep_tells_how_far_it_is(predictor: NotingPredictor, checkpoints: Path) -> None:
    folder = made_sweep(checkpoints)
    lock = take_lock(folder)
    assert lock is not None
    page = open_page(folder.sweep_id)
    text = shown(page)
    assert "4 of 9" in text or any("4 of 9" in str(metric.value) for metric in page.metric)
    assert "Best: trial 2" in text
    assert "61.0 %" in text
    table = page.dataframe[0].value
    assert list(table["State"]) == ["Running", "Failed", "Given up", "Complete", "Complete"]
    assert list(table["Why"])[1:3] == ["The disk is full.", "The time was over."]
    assert "the time was over" in [metric.delta for metric in page.metric]
    assert next(iter(table["Run"])) == "/?run=trial-4"  # where Streamlit serves its first page
    assert {button.label for button in page.button} >= {"Stop", "All sweeps", "Open"}
    next(button for button in page.button if button.label == "Stop").click().run()
    assert folder.stop_request.exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (SweepStatus.STOPPED, "Stopped"),
        (SweepStatus.FAILED, "The sweep failed."),
        (SweepStatus.LOST, "Continue goes on with what is missing"),
    ],
)
def test_a_sweep_that_ended_early_can_be_continued(
    monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor, checkpoints: Path, status: SweepStatus, words: str
) -> None:
    folder = made_sweep(checkpoints, "cc")
    if status is not SweepStatus.LOST:
        say_last_word(folder, status, "why it did")
    continued: list[str] = []
    monkeypatch.setattr(launcher, "continue_sweep", continued.append)
    page = open_page(folder.sweep_id)
    assert words in shown(page)
    next(button for button in page.button if button.label == "Continue").click().run()
    assert continued == [folder.sweep_id]


def test_the_best_trial_of_a_completed_sweep_is_trained_longer(
    monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor, checkpoints: Path
) -> None:
    folder = made_sweep(checkpoints, "cc")
    say_last_word(folder, SweepStatus.COMPLETED)
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(run_launcher, "resume_run", lambda run_id, **values: asked.append((run_id, values)))
    monkeypatch.setattr(sweep_view.st, "switch_page", lambda *_arguments, **_named: None)
    page = open_page(folder.sweep_id)
    page.number_input[0].set_value(12).run()
    [button for button in page.button if button.label == "Train longer"][-1].click().run()
    assert asked == [("trial-1", {"epochs": 12, "is_tested": True})]


@pytest.mark.parametrize("chart", ["History", "Importance", "Parallel coordinates", "Slice"])
@pytest.mark.parametrize("states", ["r", "c", "cccccc"])
def test_every_chart_is_drawn_or_says_what_it_needs(predictor: NotingPredictor, checkpoints: Path, chart: str, states: str) -> None:
    folder = made_sweep(checkpoints, states)
    say_last_word(folder, SweepStatus.COMPLETED)
    page = open_page(folder.sweep_id)
    page.session_state["sweep.chart"] = chart
    page.run()
    text = shown(page)
    if states == "cccccc":
        assert "needs" not in text
        assert "Nothing can be told" not in text
    if states == "r":
        assert "This chart needs" in text


def test_what_is_no_sweep_is_said(predictor: NotingPredictor, checkpoints: Path) -> None:
    assert "There is no sweep" in shown(open_page("../.."))
    damaged = made_sweep(checkpoints, "c")
    damaged.declaration.write_text("{}")
    assert "cannot be read" in shown(open_page(damaged.sweep_id))
    assert "cannot be read" in shown(open_page())


def test_names_are_shown_as_text(predictor: NotingPredictor, checkpoints: Path) -> None:
    create_sweep(Sweep("<b>[x](javascript:1)</b> $1$", {}, SPACE))
    assert "\\[x\\]" in shown(open_page()) or "&#91;x" in shown(open_page())
