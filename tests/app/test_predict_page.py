"""The Predict page in every state, with a prediction process that answers when the test says so."""

import io
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from cifar_tl.answers import Answer, RankedClass
from cifar_tl.errors import PredictionProcessDied
from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.ui import prediction_batch
from tests.app.conftest import NotingPredictor
from tests.made_runs import hold_lock, make_run

PAGE = str(PROJECT_ROOT / "cifar_tl/ui/pages/predict.py")
PREDICT = "cifar_tl.inference:predict_files"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def answer(name: str) -> Answer:
    classes = (RankedClass("maple_tree", "trees", 0.9), RankedClass("oak_tree", "trees", 0.06))
    return Answer(name, classes, preview_png=png(), seconds=0.02)


def open_page(run_id: str = "") -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    if run_id:
        page.query_params["run"] = run_id
    return page.run()


def drop(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    page.get("file_uploader")[0].set_value([(name, data, "image/png") for name, data in files])
    return page.run()


def shown(page: AppTest) -> str:
    """All text of the page."""
    assert not page.exception, page.exception
    kinds = ("markdown", "caption", "info", "error", "warning", "title")
    return "\n".join(element.value for kind in kinds for element in page.get(kind)) + "\n".join(
        element.proto.text for element in page.get("progress")
    )


@pytest.fixture
def run_id(checkpoints: Path) -> str:
    folder = make_run(checkpoints, run_id="with-weights")
    folder.best_weights.write_bytes(b"made")
    return folder.run_id


def test_without_runs_the_page_says_how_to_get_one() -> None:
    page = open_page()
    assert "There is no run yet" in shown(page)
    assert page.button[0].label == "Train a model"


def test_runs_without_weights_are_explained(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="failed", status="failed")
    assert "None of the runs has weights" in shown(open_page())


def test_a_run_in_its_first_epoch_is_worth_waiting_for(checkpoints: Path) -> None:
    with hold_lock(make_run(checkpoints, run_id="young", status="empty")):
        assert "No run has finished its first epoch yet" in shown(open_page())


def test_only_runs_with_weights_are_offered(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    make_run(checkpoints, run_id="without-weights", status="failed")
    page = open_page()
    assert len(page.selectbox[0].options) == 1


def test_a_run_that_still_trains_answers_with_its_best_so_far(checkpoints: Path, predictor: NotingPredictor) -> None:
    folder = make_run(checkpoints, run_id="training", status="running")
    folder.best_weights.write_bytes(b"made")
    with hold_lock(folder):
        assert "still trains" in shown(open_page("training"))


def test_dropped_pictures_go_to_the_chosen_run(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    drop(open_page(run_id), ("tree.png", png()))
    ((arguments, _),) = predictor.of(PREDICT)
    assert arguments == (str(checkpoints / run_id), [("tree.png", png())], 5)


def test_while_the_process_works_the_page_says_so_and_shows_no_answer(run_id: str, predictor: NotingPredictor) -> None:
    text = shown(drop(open_page(run_id), ("tree.png", png())))
    assert "Predicting… 1 to go" in text
    assert "answered" not in text


def test_an_answer_shows_its_picture_and_its_classes(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    predictor.of(PREDICT)[0][1].set_result([answer("tree.png")])
    text = shown(page.run())
    assert "1 answered" in text
    assert "maple\\_tree" in text
    assert "90.0 %" in text
    assert len(page.get("image")) == 1


def test_one_unreadable_picture_does_not_stop_the_others(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("good.png", png()), ("bad.png", b"not a picture"))
    predictor.of(PREDICT)[0][1].set_result([answer("good.png"), Answer("bad.png", error="This is no picture that can be read.")])
    text = shown(page.run())
    assert "1 answered" in text
    assert "1 could not be" in text
    assert "This is no picture that can be read" in text.replace("\\", "")


def test_a_process_that_died_answers_each_picture_with_one_line(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    predictor.of(PREDICT)[0][1].set_exception(PredictionProcessDied("The prediction process ended. Ask again."))
    text = shown(page.run())
    assert "Ask again" in text
    assert "0 answered" in text


def test_many_pictures_are_asked_for_in_groups_and_answered_in_order(run_id: str, predictor: NotingPredictor) -> None:
    count = prediction_batch.FILES_PER_REQUEST + 1
    page = drop(open_page(run_id), *((f"{number:02}.png", png()) for number in range(count)))
    first, second = (future for _, future in predictor.of(PREDICT))
    second.set_result([answer("last.png")])
    assert f"Predicting… {count} to go" in shown(page.run())
    first.set_result([answer(f"{number:02}.png") for number in range(count - 1)])
    assert f"{count} answered" in shown(page.run())


def test_clear_empties_the_page(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    predictor.of(PREDICT)[0][1].set_result([answer("tree.png")])
    page.run()
    next(button for button in page.button if button.label == "Clear").click()
    assert "1 answered" not in shown(page.run())


def test_a_reason_that_many_files_share_is_told_once(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("a.png", png()), ("b.png", png()))
    predictor.of(PREDICT)[0][1].set_exception(PredictionProcessDied("The prediction process ended. Ask again."))
    page.run()
    assert len(page.error) == 1
    assert "a.png, b.png" in page.error[0].value.replace("\\", "")


def test_a_file_is_asked_for_once_however_often_the_page_runs(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    predictor.of(PREDICT)[0][1].set_result([answer("tree.png")])
    page.run().run()
    assert len(predictor.of(PREDICT)) == 1


def test_answers_stay_when_the_page_is_run_again(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    predictor.of(PREDICT)[0][1].set_result([answer("tree.png")])
    page.run()
    assert "1 answered" in shown(page.run())


def test_answers_of_another_run_are_marked_and_the_chosen_one_can_be_asked(
    checkpoints: Path, run_id: str, predictor: NotingPredictor
) -> None:
    make_run(checkpoints, run_id="other").best_weights.write_bytes(b"made")
    page = drop(open_page(run_id), ("tree.png", png()))
    predictor.of(PREDICT)[0][1].set_result([answer("tree.png")])
    page.run()
    page.selectbox[0].set_value("other")
    assert "The answers below are of with-weights" in shown(page.run()).replace("\\", "")
    next(button for button in page.button if button.label.startswith("Ask the chosen run")).click().run()
    assert predictor.of(PREDICT)[1][0] == (str(checkpoints / "other"), [("tree.png", png())], 5)


def test_files_beyond_the_number_are_refused_by_name() -> None:
    accepted, refused = prediction_batch.admit([(f"{n}.png", b"x") for n in range(prediction_batch.MAX_FILES + 2)])
    assert len(accepted) == prediction_batch.MAX_FILES
    assert [answer.name for answer in refused] == [f"{prediction_batch.MAX_FILES}.png", f"{prediction_batch.MAX_FILES + 1}.png"]


def test_a_file_that_is_too_large_is_refused_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_batch, "MAX_FILE_MIB", 0)
    accepted, refused = prediction_batch.admit([("large.png", b"xx"), ("empty.png", b"")])
    assert accepted == []
    assert "MiB" in refused[0].error
    assert "empty" in refused[1].error


def test_all_files_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_batch, "MAX_BATCH_MIB", 1)
    accepted, refused = prediction_batch.admit([(name, bytes(700_000)) for name in ("a", "b")])
    assert [name for name, _ in accepted] == ["a"]
    assert "together" in refused[0].error
