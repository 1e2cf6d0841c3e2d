"""The Sweep page: its form, a sweep as it runs and when it is over, and what cannot be."""

import json
import os
import shutil
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.answers import EpochEstimate
from cifar_tl.config import make_config
from cifar_tl.paths import PROJECT_ROOT, RunFolder, SweepFolder
from cifar_tl.runs import launcher as run_launcher
from cifar_tl.runs.events import Completed, Phase, Stopped
from cifar_tl.runs.log import EventWriter
from cifar_tl.runs.store import find_run, read_config, write_json
from cifar_tl.runs.summary import summarize
from cifar_tl.sweeps import launcher
from cifar_tl.sweeps.space import Choice, Range, parse_dimension, variable_settings
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus, create_sweep, read_sweep, say_last_word, take_lock
from cifar_tl.sweeps.study import REASON, RUN, open_study
from cifar_tl.ui import sweep_form, sweep_view
from cifar_tl.ui.widgets import format_percent
from tests.app.conftest import NotingPredictor
from tests.made_runs import hold_lock, make_run

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


def made_sweep(checkpoints: Path, states: str = "ccpfr", prefix: str = "trial", **of_runs: Any) -> SweepFolder:
    """A sweep whose trials are complete, pruned, failed or running, as `states` says; `of_runs` are settings of their runs."""
    sweep = Sweep("Which rate?", {"source": "shapes", "epochs": 3}, SPACE, trials=9)
    folder = create_sweep(sweep)
    study = open_study(folder, sweep)
    for number, state in enumerate(states):
        trial = study.ask()
        trial.suggest_float("learning_rate", 0.001, 0.1, log=True)
        trial.suggest_categorical("trainable", ("head", "last_stages"))
        status = "running" if state == "r" else "completed"
        trial.set_user_attr(RUN, make_run(checkpoints, run_id=f"{prefix}-{number}", status=status, **of_runs).run_id)
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


def label_row(page: AppTest) -> set[str]:
    return {button.label for button in page.button}


def start_button(page: AppTest) -> Any:
    return next(button for button in page.button if button.label == "Start sweep")


NEEDS_MORE_TRAINED = {"trainable_stages", "head_epochs", "stage_learning_rate_decay", "freeze_batch_norm", "first_image_size"}


def test_each_setting_that_is_offered_can_be_varied_as_it_is_offered(predictor: NotingPredictor) -> None:
    page = open_page()
    assert "Pretrained weights" not in page.multiselect(key="sweep.varies").options
    for name in [setting.name for setting in variable_settings()]:
        page.multiselect(key="sweep.varies").set_value([name]).run()
        text = shown(page)
        is_refused = name in NEEDS_MORE_TRAINED  # the form trains the head alone
        assert ("has no effect here" in text, start_button(page).disabled, len(page.error)) == (is_refused, is_refused, is_refused), name


def test_a_setting_has_an_effect_beside_the_choice_that_gives_it_one(predictor: NotingPredictor) -> None:
    page = open_page()
    page.multiselect(key="sweep.varies").set_value(["trainable", "stage_learning_rate_decay"]).run()
    assert not page.error
    page.multiselect(key="sweep.values.trainable").set_value([]).run()
    assert "at least two different values" in shown(page)


def test_first_ranges_are_those_of_practice_and_sizes_go_in_steps(predictor: NotingPredictor) -> None:
    page = open_page()
    page.multiselect(key="sweep.varies").set_value(["image_size", "batch_size", "mixup", "head_learning_rate_factor"]).run()
    assert page.multiselect(key="sweep.values.batch_size").value == [64, 128, 256]
    sizes = page.number_input(key="sweep.low.image_size"), page.number_input(key="sweep.high.image_size")
    assert [(box.value, box.step) for box in sizes] == [(64, 32), (160, 32)]
    assert [page.number_input(key=f"sweep.{end}.mixup").value for end in ("low", "high")] == [0, 0.4]
    assert [page.number_input(key=f"sweep.{end}.head_learning_rate_factor").value for end in ("low", "high")] == [0.3, 10]


@pytest.mark.parametrize(("value", "step"), [(0.00005, 0.00001), (0.001, 0.0001), (0.03, 0.01), (2.0, 1.0), (0.0, 0.000001)])
def test_a_number_moves_by_a_step_of_its_own_size(predictor: NotingPredictor, value: float, step: float) -> None:
    page = open_page()
    page.number_input(key="sweep.low.weight_decay").set_value(value).run()
    assert page.number_input(key="sweep.low.weight_decay").step == pytest.approx(step)


def test_what_varies_is_not_said_to_be_as_on_the_train_page(predictor: NotingPredictor) -> None:
    page = open_page()
    page.multiselect(key="sweep.varies").set_value(["trainable", "image_size", "epochs"]).run()
    caption = next(str(caption.value) for caption in page.caption if "What does not vary" in str(caption.value))
    assert "batches of 128" in caption
    assert not {word for word in ("head only", "px", "epoch") if word in caption}


@pytest.mark.parametrize(
    ("box", "value", "words"),
    [
        ("trials", 0, "trials, not 0"),
        ("trials", -1, "trials, not -1"),
        ("trials", 10_001, "trials, not 10001"),
        ("at_once", 0, "at once, not 0"),
        ("minutes", 0.0, "must be more than 0 minutes"),
        ("low.learning_rate", -1.0, "cannot be -1"),
        ("high.learning_rate", 99.0, "cannot be 99"),
    ],
)
def test_a_number_out_of_bounds_is_said_and_cannot_be_started(predictor: NotingPredictor, box: str, value: float, words: str) -> None:
    page = open_page()
    # As typed: a box with bounds would keep the number before this one, and no word would come to the page.
    bounds = page.number_input(key=f"sweep.{box}")
    assert (bounds.proto.has_min, bounds.proto.has_max) == (False, False)
    page.toggle(key="sweep.log.learning_rate").set_value(False)
    bounds.set_value(value).run()
    assert words in "\n".join(error.value for error in page.error).replace("\\", "")
    assert start_button(page).disabled


def test_the_form_tells_the_time_where_the_train_page_knows_it(monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor) -> None:
    assert "the time of a run" not in shown(open_page())
    known = EpochEstimate(1000, 3.0, 42.0, 300.0, "cpu", "float32")
    monkeypatch.setattr(sweep_form.estimate, "known_estimate", lambda config: known)
    page = open_page()
    assert "About 20 × 42 s, the time of a run on the Train page: **14 min 0 s**" in shown(page)
    assert "What varies here changes the time" not in shown(page)
    page.multiselect(key="sweep.varies").set_value(["epochs"]).run()
    assert "What varies here changes the time" in shown(page)


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
    gone_to: list[dict[str, str]] = []
    monkeypatch.setattr(sweep_view.st, "switch_page", lambda _page, query_params: gone_to.append(query_params))
    page = open_page(folder.sweep_id)
    page.number_input[0].set_value(12).run()
    [button for button in page.button if button.label == "Train longer"][-1].click().run()
    assert asked == [("trial-1", {"epochs": 12, "is_tested": True})]
    assert gone_to == [{"run": "trial-1"}]


def test_what_refuses_to_go_on_is_said_and_the_page_stays(
    monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor, checkpoints: Path
) -> None:
    folder = made_sweep(checkpoints, "c", evaluate_test=False)
    say_last_word(folder, SweepStatus.COMPLETED)
    monkeypatch.setattr(sweep_view.st, "switch_page", lambda *_arguments, **_named: pytest.fail("It was refused."))
    page = open_page(folder.sweep_id)
    [button for button in page.button if button.label == "Train longer"][-1].click().run()
    assert "cannot go on" in shown(page)  # a made run has no checkpoints


def go_on(run: RunFolder, **changes: Any) -> None:
    """As a worker that was started to go on leaves it."""
    write_json(run.config, read_config(run).model_dump(mode="json") | changes)
    with EventWriter(run.events) as log:
        log.write(Phase(name="resuming", text="Going on from the last checkpoint"))


@pytest.mark.parametrize(("changes", "words"), [({"evaluate_test": True}, "Testing…"), ({"epochs": 9}, "Training longer… 3 of 9 epochs.")])
def test_the_best_trial_that_goes_on_says_so_and_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor, checkpoints: Path, changes: dict[str, Any], words: str
) -> None:
    folder = made_sweep(checkpoints, "c", evaluate_test=False)
    say_last_word(folder, SweepStatus.COMPLETED)
    run = find_run("trial-0")
    go_on(run)
    with EventWriter(run.events) as log:
        log.write_last(
            Completed(best_epoch=1, best_dev_accuracy=0.6, test_accuracy=None, test_top5=None, test_loss=None, seconds=9.0)
        )  # without a test, as trials end
    refreshed: list[float | None] = []
    fragment = sweep_view.st.fragment
    monkeypatch.setattr(sweep_view.st, "fragment", lambda body, run_every: refreshed.append(run_every) or fragment(body))
    assert {"Test", "Train longer"} <= label_row(open_page(folder.sweep_id))
    go_on(run, **changes)
    with hold_lock(run):
        page = open_page(folder.sweep_id)
        assert words in shown(page)
        assert not {"Test", "Train longer"} & label_row(page)
    assert refreshed == [None, sweep_view._REFRESH_SECONDS]


def test_a_best_trial_that_was_stopped_amid_its_test_is_resumed(
    monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor, checkpoints: Path
) -> None:
    folder = made_sweep(checkpoints, "c")
    say_last_word(folder, SweepStatus.COMPLETED)
    go_on(find_run("trial-0"))
    with EventWriter(find_run("trial-0").events) as log:
        log.write_last(Stopped(step=60, best_dev_accuracy=0.6, seconds=9.0))
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(run_launcher, "resume_run", lambda run_id, **values: asked.append((run_id, values)))
    page = open_page(folder.sweep_id)
    assert "Stopped" in shown(page)
    assert not {"Test", "Train longer"} & label_row(page)
    next(button for button in page.button if button.label == "Resume").click().run()
    assert asked == [("trial-0", {"epochs": None, "is_tested": True})]


def test_a_tested_best_trial_shows_its_accuracy(predictor: NotingPredictor, checkpoints: Path) -> None:
    folder = made_sweep(checkpoints, "c")
    say_last_word(folder, SweepStatus.COMPLETED)
    page = open_page(folder.sweep_id)
    assert f"**{format_percent(summarize('trial-0').test_accuracy)} on test**" in shown(page)
    assert "Test" not in label_row(page)


def test_a_best_trial_whose_run_cannot_go_on_does_not_hide_the_others(predictor: NotingPredictor, checkpoints: Path) -> None:
    folder = made_sweep(checkpoints, "cc")
    say_last_word(folder, SweepStatus.COMPLETED)
    write_json(find_run("trial-1").config, make_config(source="shapes", epochs=1000).model_dump(mode="json"))
    page = open_page(folder.sweep_id)  # there is no more than a thousand epochs
    assert len(page.dataframe[0].value) == 2
    assert "Train longer" not in label_row(page)
    shutil.rmtree(find_run("trial-1").path)
    page = open_page(folder.sweep_id)
    assert "Its run was deleted" in shown(page)
    assert len(page.dataframe[0].value) == 2


@pytest.mark.parametrize(
    ("status", "state", "note"),
    [(None, "Running", "1 running"), (SweepStatus.STOPPED, "Stopped", "1 unfinished"), (SweepStatus.LOST, "Interrupted", "1 unfinished")],
)
def test_an_open_trial_is_what_its_sweep_lets_it_be(
    predictor: NotingPredictor, checkpoints: Path, status: SweepStatus | None, state: str, note: str
) -> None:
    folder = made_sweep(checkpoints, "cr")
    lock = take_lock(folder) if status is None else None
    if status is SweepStatus.STOPPED:
        say_last_word(folder, status)
    page = open_page(folder.sweep_id)
    assert list(page.dataframe[0].value["State"]) == [state, "Complete"]
    assert page.metric[0].delta == note
    if lock is not None:
        os.close(lock)
    if status is SweepStatus.LOST:
        with hold_lock(find_run("trial-1")):  # its worker outlived the sweep's process
            assert list(open_page(folder.sweep_id).dataframe[0].value["State"]) == ["Running", "Complete"]


def test_the_best_is_said_to_be_of_complete_trials_where_another_is_higher(predictor: NotingPredictor, checkpoints: Path) -> None:
    folder = made_sweep(checkpoints, "cp")
    assert "complete trials" not in "".join(str(metric.delta) for metric in open_page(folder.sweep_id).metric)
    study = open_study(folder, read_sweep(folder))
    trial = study.ask()
    trial.report(0.63, 1)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    page = open_page(folder.sweep_id)
    assert [(metric.value, metric.delta) for metric in page.metric][1] == ("60.0 %", "in trial 1, of complete trials")
    assert "60.0 % on dev, of complete trials" in shown(page)
    assert list(page.dataframe[0].value["Dev"]) == [63.0, 51.0, 60.0]


def test_the_table_sorts_numbers_as_numbers_and_has_nothing_where_nothing_is(predictor: NotingPredictor, checkpoints: Path) -> None:
    folder = made_sweep(checkpoints, "cc")
    study = open_study(folder, read_sweep(folder))
    study.ask()
    page = open_page(folder.sweep_id)
    table, columns = page.dataframe[0].value, json.loads(page.dataframe[0].proto.columns)
    assert str(table["Learning rate"].dtype) == "float64"
    assert table["Learning rate"].isna().tolist() == [True, False, False]
    assert table["What trains"][0] == "–"
    assert set(table["What trains"][1:]) <= {"Head only", "Last stages and head"}
    assert columns["Learning rate"]["type_config"]["type"] == "number"
    assert columns["What trains"]["width"] >= 7 * len("Last stages and head")
    assert "Why" not in table
    assert "None" not in table.astype(str).to_numpy()


def test_sweeps_of_the_same_settings_are_told_apart_in_the_list(predictor: NotingPredictor, checkpoints: Path) -> None:
    first, second = made_sweep(checkpoints, "cpr"), made_sweep(checkpoints, "", prefix="second")
    at = datetime(2026, 3, 7, 3, 13).timestamp()
    os.utime(first.declaration, (at, at))
    text = shown(open_page()).replace("\\", "")
    assert "2 of 9 trials · best 60.0 % · 7 Mar" in text
    assert ", 03:13" in text
    assert "0 of 9 trials · " in text
    study = open_study(second, read_sweep(second))
    study.tell(study.ask(), 0.7)
    assert "1 of 9 trials · best 70.0 %" in shown(open_page()).replace("\\", "")


def test_the_first_importances_are_waited_for_with_a_word(
    monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor, checkpoints: Path
) -> None:
    folder = made_sweep(checkpoints, "cccccc")
    said: list[str] = []
    monkeypatch.setattr(sweep_view.st, "spinner", lambda text: said.append(text) or nullcontext())
    for is_slow in (True, False):
        monkeypatch.setattr(sweep_view, "is_slow", lambda name, slow=is_slow: slow)
        page = open_page(folder.sweep_id)
        page.session_state["sweep.chart"] = "Importance"
        shown(page.run())
    assert said
    assert set(said) == {"The first importances take a moment…"}


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
