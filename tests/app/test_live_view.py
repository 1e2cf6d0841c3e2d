"""The live view of a run, on the Train page, in every state of a run."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.events import Failed, Phase, Progress, Warned
from cifar_tl.runs.log import EventWriter
from tests.app.conftest import NotingPredictor
from tests.made_runs import hold_lock, make_run

PAGE = str(PROJECT_ROOT / "cifar_tl/ui/pages/train.py")


@pytest.fixture(autouse=True)
def _no_process(predictor: NotingPredictor) -> None:
    """No test here needs a real one."""


@pytest.fixture
def alive() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_run(run_id: str) -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    page.query_params["run"] = run_id
    return page.run()


def shown(page: AppTest) -> str:
    assert not page.exception, page.exception
    kinds = ("title", "markdown", "caption", "info", "error", "warning", "code")
    texts = [str(element.value) for kind in kinds for element in page.get(kind)]
    texts += [element.proto.text for element in page.get("progress")]
    return "\n".join(texts).replace("\\", "")


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.button]


def metrics(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def charts(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(element.proto.json) for element in page.get("bidi_component")]


def log(folder: RunFolder, *events: Any) -> None:
    with EventWriter(folder.events) as writer:
        for event in events:
            writer.write(event)


def test_an_unknown_run_in_the_address_is_told_and_leads_to_the_form() -> None:
    page = open_run("no-such-run")
    assert "There is no run 'no-such-run'" in page.error[0].value.replace("\\", "")
    page.button[0].click().run()
    assert "run" not in page.query_params
    assert "Start training" in labels(page)


def test_a_run_id_that_is_a_path_is_no_run() -> None:
    assert "There is no run" in open_run("../../etc").error[0].value


def test_before_the_first_event_the_run_is_starting(checkpoints: Path, alive: ExitStack) -> None:
    folder = make_run(checkpoints, run_id="a", status="empty")
    alive.enter_context(hold_lock(folder))
    assert "Starting…" in shown(open_run("a"))


def test_a_download_shows_its_bytes(checkpoints: Path, alive: ExitStack) -> None:
    folder = make_run(checkpoints, run_id="a", status="empty")
    alive.enter_context(hold_lock(folder))
    log(folder, Phase(name="loading_weights", text="Loading weights"))
    log(folder, Progress(text="Downloading resnet50", done=5 * 2**20, total=97 * 2**20, unit="bytes"))
    assert "Downloading resnet50 · 5.0 of 97.0 MiB" in shown(open_run("a"))


def test_a_phase_without_a_count_is_named(checkpoints: Path, alive: ExitStack) -> None:
    folder = make_run(checkpoints, run_id="a", status="empty")
    alive.enter_context(hold_lock(folder))
    log(folder, Phase(name="preparing_data", text="Preparing CIFAR-100"))
    assert "Preparing CIFAR-100…" in shown(open_run("a"))


def test_a_running_run_shows_where_it_is(checkpoints: Path, alive: ExitStack) -> None:
    alive.enter_context(hold_lock(make_run(checkpoints, run_id="a", status="running", name="My run", epochs=3)))
    page = open_run("a")
    text = shown(page)
    assert "My run" in text
    assert "Running" in text
    assert "Epoch 3 of 3 · 66.7 % · about 10 s left" in text
    assert metrics(page)["Epochs finished"] == "2 of 3"
    assert metrics(page)["Memory"] == "1.4 GiB"
    assert "CPU, float32" in [metric.delta for metric in page.metric]
    assert len(charts(page)) == 3


def test_the_curves_grow_with_the_log(checkpoints: Path, alive: ExitStack) -> None:
    folder = make_run(checkpoints, run_id="a", status="empty")
    alive.enter_context(hold_lock(folder))
    page = open_run("a")
    assert charts(page) == []
    other = make_run(checkpoints, run_id="b", status="running")
    folder.events.write_bytes(other.events.read_bytes())
    assert len(charts(page.run())) == 3


def test_the_student_project_is_a_reference_for_cifar100_only(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="cifar", source="cifar100", num_classes=100)
    make_run(checkpoints, run_id="shapes", source="shapes")
    assert "Student project, dev" in json.dumps(charts(open_run("cifar")))
    assert "Student project" not in json.dumps(charts(open_run("shapes")))


def test_zoom_belongs_to_the_run(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    assert {chart["revision"] for chart in charts(open_run("a"))} == {"a"}


def test_stop_asks_the_worker_and_then_says_that_it_is_stopping(checkpoints: Path, alive: ExitStack) -> None:
    folder = make_run(checkpoints, run_id="a", status="running")
    alive.enter_context(hold_lock(folder))
    page = open_run("a")
    next(button for button in page.button if button.label == "Stop").click().run()
    assert folder.stop_request.exists()
    stopping = next(button for button in page.button if button.label.startswith("Stopping after the present step"))
    assert stopping.disabled


def test_a_completed_run_shows_its_test_accuracy_and_where_to_go(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a").best_weights.write_bytes(b"made")
    page = open_run("a")
    assert metrics(page)["Test accuracy"].endswith(" %")
    assert metrics(page)["Test accuracy, top-5"].endswith(" %")
    assert labels(page) == ["Explore", "Predict", "Train longer", "New run"]


def test_new_run_goes_back_to_the_form(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    page = open_run("a")
    next(button for button in page.button if button.label == "New run").click().run()
    assert "run" not in page.query_params
    assert "Start training" in labels(page)


def test_a_stopped_run_says_that_test_was_not_touched(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", status="stopped")
    assert "Stopped after step 40 as asked" in shown(open_run("a"))


def test_a_failure_that_explains_itself_shows_its_message_and_no_log(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", status="failed")
    folder.worker_log.write_text("Traceback (most recent call last):\n")
    text = shown(open_run("a"))
    assert "The weights of resnet50 are not on this machine" in text
    assert "Traceback" not in text


def test_an_unexpected_failure_shows_its_message_and_the_end_of_the_log(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", status="empty")
    folder.worker_log.write_text("first line\n" + "middle\n" * 50 + "the last line\n")
    with EventWriter(folder.events) as log:
        log.write(Failed(error="ZeroDivisionError", message="ZeroDivisionError: division by zero.", seconds=1.0))
    text = shown(open_run("a"))
    assert "division by zero" in text
    assert "the last line" in text
    assert "first line" not in text


def test_a_run_that_died_before_its_first_event_shows_the_end_of_its_log(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", status="empty")
    folder.worker_log.write_text("ModuleNotFoundError: No module named 'torch'\n")
    text = shown(open_run("a"))
    assert "before it could say anything" in text
    assert "Failed" in text
    assert "No module named 'torch'" in text


def resume(page: AppTest) -> Any:
    return next(button for button in page.button if button.key == "resume.a")


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the launcher was asked for; nothing is started."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def resume_run(run_id: str, **values: Any) -> None:
        asked.append((run_id, {name: value for name, value in values.items() if name not in ("on", "is_tested") or value}))

    monkeypatch.setattr(launcher, "resume_run", resume_run)
    return asked


@pytest.mark.parametrize("status", ["stopped", "failed", "lost"])
def test_a_run_that_has_ended_early_can_be_resumed(checkpoints: Path, resumed: list[Any], status: str) -> None:
    make_run(checkpoints, run_id="a", status=status).last_checkpoint.touch()
    page = open_run("a")
    assert resume(page).label == "Resume"
    resume(page).click().run()
    assert resumed == [("a", {"epochs": None, "learning_rate": None})]


def test_a_run_that_diverged_is_resumed_with_a_lower_learning_rate(checkpoints: Path, resumed: list[Any]) -> None:
    folder = make_run(checkpoints, run_id="a", status="lost", learning_rate=0.5)
    folder.last_checkpoint.touch()
    log(folder, Failed(error="NonFiniteLoss", message="The loss is nan at step 41.", seconds=1.0))
    page = open_run("a")
    assert next(box.value for box in page.number_input if box.label == "Learning rate") == pytest.approx(0.05)
    resume(page).click().run()
    assert resumed == [("a", {"epochs": None, "learning_rate": pytest.approx(0.05)})]


def test_a_run_that_waits_for_a_device_says_so_and_can_be_cancelled(checkpoints: Path, alive: ExitStack) -> None:
    folder = make_run(checkpoints, run_id="a", status="queued")
    alive.enter_context(hold_lock(folder))
    page = open_run("a")
    assert "Queued" in shown(page)
    assert "Waiting: the device is busy…" in shown(page)
    assert labels(page) == ["Move to front", "Cancel"]
    next(button for button in page.button if button.label == "Cancel").click().run()
    assert folder.stop_request.exists()


def test_a_completed_run_is_trained_longer(checkpoints: Path, resumed: list[Any]) -> None:
    make_run(checkpoints, run_id="a", status="completed", epochs=3).last_checkpoint.touch()
    page = open_run("a")
    box = next(box for box in page.number_input if box.label == "Epochs in all")
    assert (box.value, box.min) == (6, 4)
    box.set_value(8).run()
    resume(page).click().run()
    assert resumed == [("a", {"epochs": 8, "learning_rate": None})]


def test_a_run_without_its_checkpoints_says_why_it_cannot_go_on(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", status="completed")
    button = resume(open_run("a"))
    assert button.disabled
    assert "checkpoints are not in its folder" in button.help.replace("\\", "")


def test_a_lost_run_keeps_its_curves(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", status="lost")
    page = open_run("a")
    assert "after step 40" in shown(page)
    assert len(charts(page)) == 3


def test_a_warning_that_came_twice_is_shown_once(checkpoints: Path, alive: ExitStack) -> None:
    folder = make_run(checkpoints, run_id="a", status="running")
    alive.enter_context(hold_lock(folder))
    log(folder, *[Warned(message="The disk is nearly full.")] * 2)
    assert shown(open_run("a")).count("The disk is nearly full.") == 1


def test_the_worker_log_is_shown_on_demand(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a")
    folder.worker_log.write_text("a line of the log\n")
    page = open_run("a")
    assert "a line of the log" not in shown(page)
    page.toggle[0].set_value(True).run()
    assert "a line of the log" in shown(page)


def test_a_damaged_folder_is_told_and_not_a_traceback(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a")
    folder.config.write_text("{")
    assert "cannot be read" in open_run("a").error[0].value


def test_a_name_with_markdown_in_it_shows_as_it_is(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", name="**bold** $x$ [a](b)")
    assert open_run("a").title[0].value == r"\*\*bold\*\* \$x\$ \[a\]\(b\)"


def test_a_run_on_a_cluster_says_where_it_is_and_can_be_resumed_here(checkpoints: Path, resumed: list[tuple[str, dict[str, Any]]]) -> None:
    folder = make_run(checkpoints, run_id="far", status="lost", created=20)
    folder.last_checkpoint.touch()
    folder.submission.write_text('{"address": "http://head:8265", "job": "far-1", "submitted": 0}')
    page = open_run("far")
    assert "Ray cluster http://head:8265" in shown(page)
    page.button(key="resume.here.far").click().run()
    assert resumed == [("far", {"epochs": None, "learning_rate": None, "on": launcher.HERE})]
